package rumprun

import (
	"encoding/binary"
	"math"
	"time"

	"golang.org/x/sys/unix"

	"github.com/nabla-build/nabla-build/rumprun/vfs"
)

// openCalls are the calls that make and end descriptors of files.
var openCalls = []Call{
	{unix.SYS_OPEN, "open", sysOpen, Full, ""},
	{unix.SYS_OPENAT, "openat", sysOpenat, Full, ""},
	{unix.SYS_OPENAT2, "openat2", sysOpenat2, Full, ""},
	{unix.SYS_CREAT, "creat", sysCreat, Full, ""},
	{unix.SYS_CLOSE, "close", sysClose, Full, ""},
	{unix.SYS_CLOSE_RANGE, "close_range", sysCloseRange, Full, ""},
	{unix.SYS_MEMFD_CREATE, "memfd_create", sysMemfdCreate, Partial, "MFD_HUGETLB is EINVAL"},
	{unix.SYS_GETCWD, "getcwd", sysGetcwd, Full, ""},
	{unix.SYS_CHDIR, "chdir", sysChdir, Full, ""},
	{unix.SYS_FCHDIR, "fchdir", sysFchdir, Full, ""},
	{unix.SYS_CHROOT, "chroot", sysChroot, Full, ""},
	{unix.SYS_UMASK, "umask", sysUmask, Full, ""},
}

// openFlags are the flags of open(2) that are known; open ignores the others,
// openat2 refuses them.
const openFlags = unix.O_ACCMODE | unix.O_CREAT | unix.O_EXCL | unix.O_NOCTTY | unix.O_TRUNC | unix.O_APPEND |
	unix.O_NONBLOCK | unix.O_SYNC | unix.O_DSYNC | unix.O_ASYNC | unix.O_DIRECT | vfs.LargeFile | unix.O_DIRECTORY |
	unix.O_NOFOLLOW | unix.O_NOATIME | unix.O_CLOEXEC | unix.O_PATH | unix.O_TMPFILE

func (t *Task) openat(fd int, addr uintptr, flags, mode uint32, res vfs.Resolve) (uintptr, error) {
	base, path, err := t.pathAt(fd, addr)
	if err != nil {
		return 0, err
	}
	f, entry, err := t.p.fs.ns.Open(t.vfsContext(), base, path, flags, mode, res)
	if err != nil {
		return 0, err
	}
	if p, ok := f.(vfs.FIFOEnd); ok && flags&unix.O_NONBLOCK == 0 {
		if c := p.PeerOpened(); c != nil {
			if err := t.Wait(c, time.Time{}); err != nil {
				f.Release()
				return 0, err
			}
		}
	}
	return t.install(newDescriptionAt(f, entry), flags&unix.O_CLOEXEC != 0)
}

// install puts d, whose reference it takes over, at the lowest free
// descriptor.
func (t *Task) install(d *Description, cloexec bool) (uintptr, error) {
	fd, err := t.p.fds.Install(d, 0, cloexec)
	if err != nil {
		d.DecRef()
		return 0, err
	}
	return uintptr(fd), nil
}

// sysOpen is open(2).
func sysOpen(t *Task, a Args) (uintptr, error) {
	return t.openat(unix.AT_FDCWD, a[0], uint32(a[1])&openFlags, uint32(a[2]), 0)
}

// sysCreat is creat(2).
func sysCreat(t *Task, a Args) (uintptr, error) {
	return t.openat(unix.AT_FDCWD, a[0], unix.O_CREAT|unix.O_WRONLY|unix.O_TRUNC, uint32(a[1]), 0)
}

// sysOpenat is openat(2).
func sysOpenat(t *Task, a Args) (uintptr, error) {
	return t.openat(a.Int(0), a[1], uint32(a[2])&openFlags, uint32(a[3]), 0)
}

// sysOpenat2 is openat2(2).
func sysOpenat2(t *Task, a Args) (uintptr, error) {
	const size0 = 24 // OPEN_HOW_SIZE_VER0
	const resolveCached = 0x20
	size := a[3]
	switch {
	case size < size0:
		return 0, unix.EINVAL
	case size > 4096:
		return 0, unix.E2BIG
	}
	raw, err := t.Bytes(a[2], int(size), false)
	if err != nil {
		return 0, err
	}
	for _, b := range raw[size0:] {
		if b != 0 {
			return 0, unix.E2BIG
		}
	}
	flags, mode, res := binary.LittleEndian.Uint64(raw), binary.LittleEndian.Uint64(raw[8:]), binary.LittleEndian.Uint64(raw[16:])
	const known = unix.RESOLVE_NO_XDEV | unix.RESOLVE_NO_MAGICLINKS | unix.RESOLVE_NO_SYMLINKS | unix.RESOLVE_BENEATH | unix.RESOLVE_IN_ROOT | resolveCached
	switch {
	case flags&^openFlags != 0, mode&^0o7777 != 0, res&^known != 0,
		res&unix.RESOLVE_BENEATH != 0 && res&unix.RESOLVE_IN_ROOT != 0,
		mode != 0 && flags&unix.O_CREAT == 0 && flags&unix.O_TMPFILE != unix.O_TMPFILE,
		flags&unix.O_PATH != 0 && flags&^(unix.O_PATH|unix.O_DIRECTORY|unix.O_NOFOLLOW|unix.O_CLOEXEC) != 0:
		return 0, unix.EINVAL
	case res&resolveCached != 0:
		return 0, unix.EAGAIN
	}
	return t.openat(a.Int(0), a[1], uint32(flags), uint32(mode), vfs.Resolve(res))
}

// sysClose is close(2).
func sysClose(t *Task, a Args) (uintptr, error) {
	return 0, t.closeFD(a.Int(0))
}

func (t *Task) closeFD(fd int) error {
	t.p.dropRecordLocks(fd)
	return t.p.fds.Close(fd)
}

// sysCloseRange is close_range(2). Descriptors are never shared between
// processes here, so CLOSE_RANGE_UNSHARE changes nothing.
func sysCloseRange(t *Task, a Args) (uintptr, error) {
	first, last, flags := uint32(a[0]), uint32(a[1]), a.Int(2)
	if flags&^(unix.CLOSE_RANGE_UNSHARE|unix.CLOSE_RANGE_CLOEXEC) != 0 || first > last {
		return 0, unix.EINVAL
	}
	for _, fd := range t.p.fds.Open() {
		if uint32(fd) < first || uint32(fd) > last {
			continue
		}
		if flags&unix.CLOSE_RANGE_CLOEXEC != 0 {
			t.p.fds.SetCloExec(fd, true)
		} else {
			t.closeFD(fd)
		}
	}
	return 0, nil
}

// sysGetcwd is getcwd(2): the length with the NUL comes back.
func sysGetcwd(t *Task, a Args) (uintptr, error) {
	c := t.vfsContext()
	path, reachable, deleted := t.p.fs.ns.Path(c, c.Cwd)
	switch {
	case deleted:
		return 0, unix.ENOENT
	case !reachable:
		path = "(unreachable)" + path
	}
	if uintptr(len(path)+1) > a[1] {
		return 0, unix.ERANGE
	}
	return uintptr(len(path) + 1), t.CopyOut(a[0], append([]byte(path), 0))
}

// enter makes d, which must be a searchable directory, the working directory.
func (t *Task) enter(d *vfs.Dentry) error {
	at := d.Inode().Attr()
	if !at.IsDir() {
		return unix.ENOTDIR
	}
	if err := t.p.fs.creds.Load().Check(&at, vfs.MayExec); err != nil {
		return err
	}
	t.p.fs.mu.Lock()
	t.p.fs.cwd = d
	t.p.fs.mu.Unlock()
	return nil
}

// sysChdir is chdir(2).
func sysChdir(t *Task, a Args) (uintptr, error) {
	o, err := t.objectAt(unix.AT_FDCWD, a[0], 0, true)
	if err != nil {
		return 0, err
	}
	return 0, t.enter(o.entry)
}

// sysFchdir is fchdir(2).
func sysFchdir(t *Task, a Args) (uintptr, error) {
	o, err := t.objectFD(a.Int(0), true)
	if err != nil {
		return 0, err
	}
	defer o.release()
	if o.entry == nil {
		return 0, unix.ENOTDIR
	}
	return 0, t.enter(o.entry)
}

// sysChroot is chroot(2); user 0 only.
func sysChroot(t *Task, a Args) (uintptr, error) {
	o, err := t.objectAt(unix.AT_FDCWD, a[0], 0, true)
	if err != nil {
		return 0, err
	}
	at := o.entry.Inode().Attr()
	cr := t.p.fs.creds.Load()
	if !at.IsDir() {
		return 0, unix.ENOTDIR
	}
	if err := cr.Check(&at, vfs.MayExec); err != nil {
		return 0, err
	}
	if cr.EUID != 0 {
		return 0, unix.EPERM
	}
	t.p.fs.mu.Lock()
	t.p.fs.root = o.entry
	t.p.fs.mu.Unlock()
	return 0, nil
}

// sysUmask is umask(2).
func sysUmask(t *Task, a Args) (uintptr, error) {
	return uintptr(t.p.fs.umask.Swap(uint32(a[0]) & 0o777)), nil
}

// sysMemfdCreate is memfd_create(2). Huge pages are EINVAL.
func sysMemfdCreate(t *Task, a Args) (uintptr, error) {
	fl := a.Int(1)
	if fl&^(unix.MFD_CLOEXEC|unix.MFD_ALLOW_SEALING|unix.MFD_NOEXEC_SEAL|unix.MFD_EXEC) != 0 ||
		fl&(unix.MFD_NOEXEC_SEAL|unix.MFD_EXEC) == unix.MFD_NOEXEC_SEAL|unix.MFD_EXEC {
		return 0, unix.EINVAL
	}
	const maxName = vfs.NameMax - len("memfd:")
	name, err := t.CString(a[0], maxName+1)
	if err == unix.ENAMETOOLONG {
		err = unix.EINVAL
	}
	if err != nil {
		return 0, err
	}
	d, err := t.k.newMemfd(t, name, fl)
	if err != nil {
		return 0, err
	}
	return t.install(d, fl&unix.MFD_CLOEXEC != 0)
}

// limitSize is the most file data that may be in memory: three quarters of the
// guest's memory.
func limitSize(memory uint64) int64 {
	return int64(min(memory/4*3, math.MaxInt64))
}
