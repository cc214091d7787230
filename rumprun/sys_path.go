package rumprun

import (
	"golang.org/x/sys/unix"

	"github.com/nabla-build/nabla-build/rumprun/vfs"
)

// pathCalls are the calls that make, change and remove names.
var pathCalls = []Call{
	{unix.SYS_MKDIR, "mkdir", sysMkdir, Full, ""},
	{unix.SYS_MKDIRAT, "mkdirat", sysMkdirat, Full, ""},
	{unix.SYS_MKNOD, "mknod", sysMknod, Partial, "device nodes are EPERM"},
	{unix.SYS_MKNODAT, "mknodat", sysMknodat, Partial, "device nodes are EPERM"},
	{unix.SYS_RMDIR, "rmdir", sysRmdir, Full, ""},
	{unix.SYS_UNLINK, "unlink", sysUnlink, Full, ""},
	{unix.SYS_UNLINKAT, "unlinkat", sysUnlinkat, Full, ""},
	{unix.SYS_RENAME, "rename", sysRename, Full, ""},
	{unix.SYS_RENAMEAT, "renameat", sysRenameat, Full, ""},
	{unix.SYS_RENAMEAT2, "renameat2", sysRenameat2, Full, ""},
	{unix.SYS_LINK, "link", sysLink, Full, ""},
	{unix.SYS_LINKAT, "linkat", sysLinkat, Full, ""},
	{unix.SYS_SYMLINK, "symlink", sysSymlink, Full, ""},
	{unix.SYS_SYMLINKAT, "symlinkat", sysSymlinkat, Full, ""},
	{unix.SYS_READLINK, "readlink", sysReadlink, Full, ""},
	{unix.SYS_READLINKAT, "readlinkat", sysReadlinkat, Full, ""},
}

const atCWD = unix.AT_FDCWD

func (t *Task) mkdirat(fd int, addr uintptr, mode uint32) (uintptr, error) {
	base, path, err := t.pathAt(fd, addr)
	if err != nil {
		return 0, err
	}
	return 0, t.p.fs.ns.Mkdir(t.vfsContext(), base, path, mode)
}

// sysMkdir is mkdir(2).
func sysMkdir(t *Task, a Args) (uintptr, error) { return t.mkdirat(atCWD, a[0], uint32(a[1])) }

// sysMkdirat is mkdirat(2).
func sysMkdirat(t *Task, a Args) (uintptr, error) { return t.mkdirat(a.Int(0), a[1], uint32(a[2])) }

func (t *Task) mknodat(fd int, addr uintptr, mode uint32, dev uintptr) (uintptr, error) {
	base, path, err := t.pathAt(fd, addr)
	if err != nil {
		return 0, err
	}
	_, err = t.p.fs.ns.Mknod(t.vfsContext(), base, path, mode, uint64(uint32(dev)))
	return 0, err
}

// sysMknod is mknod(2).
func sysMknod(t *Task, a Args) (uintptr, error) { return t.mknodat(atCWD, a[0], uint32(a[1]), a[2]) }

// sysMknodat is mknodat(2).
func sysMknodat(t *Task, a Args) (uintptr, error) {
	return t.mknodat(a.Int(0), a[1], uint32(a[2]), a[3])
}

func (t *Task) unlinkat(fd int, addr uintptr, flags int) (uintptr, error) {
	if flags&^unix.AT_REMOVEDIR != 0 {
		return 0, unix.EINVAL
	}
	base, path, err := t.pathAt(fd, addr)
	if err != nil {
		return 0, err
	}
	if flags&unix.AT_REMOVEDIR != 0 {
		return 0, t.p.fs.ns.Rmdir(t.vfsContext(), base, path)
	}
	return 0, t.p.fs.ns.Unlink(t.vfsContext(), base, path)
}

// sysRmdir is rmdir(2).
func sysRmdir(t *Task, a Args) (uintptr, error) { return t.unlinkat(atCWD, a[0], unix.AT_REMOVEDIR) }

// sysUnlink is unlink(2).
func sysUnlink(t *Task, a Args) (uintptr, error) { return t.unlinkat(atCWD, a[0], 0) }

// sysUnlinkat is unlinkat(2).
func sysUnlinkat(t *Task, a Args) (uintptr, error) { return t.unlinkat(a.Int(0), a[1], a.Int(2)) }

func (t *Task) renameat(ofd int, oaddr uintptr, nfd int, naddr uintptr, flags uint) (uintptr, error) {
	ob, op, err := t.pathAt(ofd, oaddr)
	if err != nil {
		return 0, err
	}
	nb, np, err := t.pathAt(nfd, naddr)
	if err != nil {
		return 0, err
	}
	return 0, t.p.fs.ns.Rename(t.vfsContext(), ob, op, nb, np, flags)
}

// sysRename is rename(2).
func sysRename(t *Task, a Args) (uintptr, error) { return t.renameat(atCWD, a[0], atCWD, a[1], 0) }

// sysRenameat is renameat(2).
func sysRenameat(t *Task, a Args) (uintptr, error) {
	return t.renameat(a.Int(0), a[1], a.Int(2), a[3], 0)
}

// sysRenameat2 is renameat2(2).
func sysRenameat2(t *Task, a Args) (uintptr, error) {
	return t.renameat(a.Int(0), a[1], a.Int(2), a[3], uint(uint32(a[4])))
}

func (t *Task) linkat(ofd int, oaddr uintptr, nfd int, naddr uintptr, flags int) (uintptr, error) {
	if flags&^(unix.AT_SYMLINK_FOLLOW|unix.AT_EMPTY_PATH) != 0 {
		return 0, unix.EINVAL
	}
	o, err := t.objectAt(ofd, oaddr, flags, false)
	if err != nil {
		return 0, err
	}
	defer o.release()
	base, path, err := t.pathAt(nfd, naddr)
	if err != nil {
		return 0, err
	}
	if o.entry == nil {
		return 0, unix.EXDEV
	}
	return 0, t.p.fs.ns.Link(t.vfsContext(), o.entry, base, path)
}

// sysLink is link(2).
func sysLink(t *Task, a Args) (uintptr, error) { return t.linkat(atCWD, a[0], atCWD, a[1], 0) }

// sysLinkat is linkat(2). AT_EMPTY_PATH needs no capability.
func sysLinkat(t *Task, a Args) (uintptr, error) {
	return t.linkat(a.Int(0), a[1], a.Int(2), a[3], a.Int(4))
}

func (t *Task) symlinkat(target uintptr, fd int, addr uintptr) (uintptr, error) {
	text, err := t.pathArg(target)
	if err != nil {
		return 0, err
	}
	base, path, err := t.pathAt(fd, addr)
	if err != nil {
		return 0, err
	}
	return 0, t.p.fs.ns.Symlink(t.vfsContext(), text, base, path)
}

// sysSymlink is symlink(2).
func sysSymlink(t *Task, a Args) (uintptr, error) { return t.symlinkat(a[0], atCWD, a[1]) }

// sysSymlinkat is symlinkat(2).
func sysSymlinkat(t *Task, a Args) (uintptr, error) { return t.symlinkat(a[0], a.Int(1), a[2]) }

func (t *Task) readlinkat(fd int, addr, buf uintptr, size int) (uintptr, error) {
	if size <= 0 {
		return 0, unix.EINVAL
	}
	path, err := t.pathArg(addr)
	if err != nil {
		return 0, err
	}
	var d *vfs.Dentry
	c := t.vfsContext()
	if path == "" {
		// The link itself, open with O_PATH|O_NOFOLLOW.
		o, err := t.objectFD(fd, true)
		if err != nil || o.entry == nil {
			return 0, unix.ENOENT
		}
		d = o.entry
		o.release()
		if a := d.Inode().Attr(); !a.IsSymlink() {
			return 0, unix.ENOENT
		}
	} else {
		base, err := t.baseDir(fd, path)
		if err != nil {
			return 0, err
		}
		if d, err = t.p.fs.ns.Lookup(c, base, path, false, 0); err != nil {
			return 0, err
		}
	}
	text, err := d.Inode().Readlink(c)
	if err != nil {
		return 0, err
	}
	text = text[:min(len(text), size)]
	return uintptr(len(text)), t.CopyOut(buf, []byte(text))
}

// sysReadlink is readlink(2).
func sysReadlink(t *Task, a Args) (uintptr, error) {
	return t.readlinkat(atCWD, a[0], a[1], a.Int(2))
}

// sysReadlinkat is readlinkat(2).
func sysReadlinkat(t *Task, a Args) (uintptr, error) {
	return t.readlinkat(a.Int(0), a[1], a[2], a.Int(3))
}
