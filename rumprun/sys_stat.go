package rumprun

import (
	"golang.org/x/sys/unix"

	"github.com/nabla-build/nabla-build/rumprun/vfs"
)

// statCalls are the calls that read attributes.
var statCalls = []Call{
	{unix.SYS_STAT, "stat", sysStat, Full, ""},
	{unix.SYS_LSTAT, "lstat", sysLstat, Full, ""},
	{unix.SYS_FSTAT, "fstat", sysFstat, Full, ""},
	{unix.SYS_NEWFSTATAT, "newfstatat", sysNewfstatat, Full, ""},
	{unix.SYS_STATX, "statx", sysStatx, Full, ""},
	{unix.SYS_ACCESS, "access", sysAccess, Full, ""},
	{unix.SYS_FACCESSAT, "faccessat", sysFaccessat, Full, ""},
	{unix.SYS_FACCESSAT2, "faccessat2", sysFaccessat2, Full, ""},
	{unix.SYS_STATFS, "statfs", sysStatfs, Full, ""},
	{unix.SYS_FSTATFS, "fstatfs", sysFstatfs, Full, ""},
	{unix.SYS_USTAT, "ustat", nil, Unsupported, "superseded by statfs"},
	{unix.SYS_SYSFS, "sysfs", nil, Unsupported, "superseded by /proc/filesystems"},
}

// stat returns the attributes of o.
func (o *object) stat() (unix.Stat_t, error) {
	if o.entry != nil {
		a := o.entry.Inode().Attr()
		return a.Stat(), nil
	}
	return o.desc.Stat()
}

func (t *Task) statAt(fd int, path, out uintptr, flags int, follow bool) (uintptr, error) {
	o, err := t.objectAt(fd, path, flags, follow)
	if err != nil {
		return 0, err
	}
	defer o.release()
	st, err := o.stat()
	if err != nil {
		return 0, err
	}
	return 0, copyOut(t, out, st)
}

// sysStat is stat(2).
func sysStat(t *Task, a Args) (uintptr, error) { return t.statAt(atCWD, a[0], a[1], 0, true) }

// sysLstat is lstat(2).
func sysLstat(t *Task, a Args) (uintptr, error) { return t.statAt(atCWD, a[0], a[1], 0, false) }

// sysFstat is fstat(2).
func sysFstat(t *Task, a Args) (uintptr, error) {
	o, err := t.objectFD(a.Int(0), true)
	if err != nil {
		return 0, err
	}
	defer o.release()
	st, err := o.stat()
	if err != nil {
		return 0, err
	}
	return 0, copyOut(t, a[1], st)
}

// sysNewfstatat is fstatat(2).
func sysNewfstatat(t *Task, a Args) (uintptr, error) {
	fl := a.Int(3)
	if fl&^(unix.AT_EMPTY_PATH|unix.AT_SYMLINK_NOFOLLOW|unix.AT_NO_AUTOMOUNT|atStatxSyncType) != 0 {
		return 0, unix.EINVAL
	}
	return t.statAt(a.Int(0), a[1], a[2], fl, true)
}

// sysStatx is statx(2).
func sysStatx(t *Task, a Args) (uintptr, error) {
	fl, mask := a.Int(2), uint32(a[3])
	if fl&^(unix.AT_EMPTY_PATH|unix.AT_SYMLINK_NOFOLLOW|unix.AT_NO_AUTOMOUNT|atStatxSyncType) != 0 ||
		fl&atStatxSyncType == atStatxSyncType || mask&unix.STATX__RESERVED != 0 {
		return 0, unix.EINVAL
	}
	o, err := t.objectAt(a.Int(0), a[1], fl, true)
	if err != nil {
		return 0, err
	}
	defer o.release()
	st, err := o.stat()
	if err != nil {
		return 0, err
	}
	ts := func(x unix.Timespec) unix.StatxTimestamp {
		return unix.StatxTimestamp{Sec: x.Sec, Nsec: uint32(x.Nsec)}
	}
	x := unix.Statx_t{
		Mask: unix.STATX_BASIC_STATS, Blksize: uint32(st.Blksize), Nlink: uint32(st.Nlink),
		Uid: st.Uid, Gid: st.Gid, Mode: uint16(st.Mode), Ino: st.Ino, Size: uint64(st.Size), Blocks: uint64(st.Blocks),
		Atime: ts(st.Atim), Mtime: ts(st.Mtim), Ctime: ts(st.Ctim),
		Rdev_major: unix.Major(st.Rdev), Rdev_minor: unix.Minor(st.Rdev),
		Dev_major: unix.Major(st.Dev), Dev_minor: unix.Minor(st.Dev),
		Attributes_mask: unix.STATX_ATTR_MOUNT_ROOT,
	}
	if o.entry != nil {
		if b := o.entry.Inode().Attr().Btime; !b.IsZero() {
			x.Mask |= unix.STATX_BTIME
			x.Btime = unix.StatxTimestamp{Sec: b.Unix(), Nsec: uint32(b.Nanosecond())}
		}
		if id := t.k.mountID(o.entry); id != 0 {
			x.Mask |= unix.STATX_MNT_ID
			x.Mnt_id = id
		}
		if t.k.isMountRoot(o.entry) {
			x.Attributes |= unix.STATX_ATTR_MOUNT_ROOT
		}
	}
	return 0, copyOut(t, a[4], x)
}

func (t *Task) faccessat(fd int, path uintptr, mode, flags int) (uintptr, error) {
	if mode&^(unix.R_OK|unix.W_OK|unix.X_OK) != 0 ||
		flags&^(unix.AT_EACCESS|unix.AT_SYMLINK_NOFOLLOW|unix.AT_EMPTY_PATH) != 0 {
		return 0, unix.EINVAL
	}
	// The path is walked with the real IDs too.
	c := t.vfsContext()
	if flags&unix.AT_EACCESS == 0 {
		c.Creds = c.Creds.Real()
	}
	o, err := t.objectAtAs(c, fd, path, flags, true)
	if err != nil {
		return 0, err
	}
	defer o.release()
	if o.entry == nil {
		return 0, nil
	}
	return 0, vfs.Permission(c, o.entry.Inode(), vfs.Access(mode))
}

// sysAccess is access(2).
func sysAccess(t *Task, a Args) (uintptr, error) { return t.faccessat(atCWD, a[0], a.Int(1), 0) }

// sysFaccessat is faccessat(2) without flags, as the kernel has it.
func sysFaccessat(t *Task, a Args) (uintptr, error) {
	return t.faccessat(a.Int(0), a[1], a.Int(2), 0)
}

// sysFaccessat2 is faccessat2(2).
func sysFaccessat2(t *Task, a Args) (uintptr, error) {
	return t.faccessat(a.Int(0), a[1], a.Int(2), a.Int(3))
}

func (t *Task) statfs(i vfs.Inode, out uintptr) (uintptr, error) {
	s := i.StatFS()
	dev := i.Attr().Dev
	return 0, copyOut(t, out, unix.Statfs_t{
		Type: s.Type, Bsize: s.BlockSize, Frsize: s.BlockSize, Namelen: vfs.NameMax,
		Blocks: s.Blocks, Bfree: s.BlocksFree, Bavail: s.BlocksFree, Files: s.Files, Ffree: s.FilesFree,
		Fsid:  unix.Fsid{Val: [2]int32{int32(dev), 0}},
		Flags: unix.ST_RELATIME | stValid,
	})
}

// stValid says that f_flags is filled in (ST_VALID of the kernel's
// include/linux/statfs.h).
const stValid = 0x20

// sysStatfs is statfs(2).
func sysStatfs(t *Task, a Args) (uintptr, error) {
	o, err := t.objectAt(atCWD, a[0], 0, true)
	if err != nil {
		return 0, err
	}
	return t.statfs(o.entry.Inode(), a[1])
}

// sysFstatfs is fstatfs(2). A descriptor without a file (pipe, socket) answers
// for a file system of its kind.
func sysFstatfs(t *Task, a Args) (uintptr, error) {
	o, err := t.objectFD(a.Int(0), true)
	if err != nil {
		return 0, err
	}
	defer o.release()
	if o.entry != nil {
		return t.statfs(o.entry.Inode(), a[1])
	}
	st, err := o.desc.Stat()
	if err != nil {
		return 0, err
	}
	typ := int64(unix.ANON_INODE_FS_MAGIC)
	switch st.Mode & unix.S_IFMT {
	case unix.S_IFIFO:
		typ = unix.PIPEFS_MAGIC
	case unix.S_IFSOCK:
		typ = unix.SOCKFS_MAGIC
	}
	return 0, copyOut(t, a[1], unix.Statfs_t{Type: typ, Bsize: 4096, Frsize: 4096, Namelen: vfs.NameMax, Flags: stValid})
}

// atStatxSyncType are the AT_STATX_* flags.
const atStatxSyncType = unix.AT_STATX_FORCE_SYNC | unix.AT_STATX_DONT_SYNC
