package rumprun

import (
	"golang.org/x/sys/unix"

	"github.com/nabla-build/nabla-build/rumprun/vfs"
)

// storageCalls are the calls on a file's size and on the storage below it.
var storageCalls = []Call{
	{unix.SYS_FTRUNCATE, "ftruncate", sysFtruncate, Full, ""},
	{unix.SYS_TRUNCATE, "truncate", sysTruncate, Full, ""},
	{unix.SYS_FALLOCATE, "fallocate", sysFallocate, Partial, "modes COLLAPSE_RANGE, INSERT_RANGE and UNSHARE_RANGE are EOPNOTSUPP, as on tmpfs"},
	{unix.SYS_FSYNC, "fsync", sysFsync, Full, ""},
	{unix.SYS_FDATASYNC, "fdatasync", sysFsync, Full, ""},
	{unix.SYS_SYNC, "sync", sysSync, Full, ""},
	{unix.SYS_SYNCFS, "syncfs", sysSyncfs, Full, ""},
	{unix.SYS_SYNC_FILE_RANGE, "sync_file_range", sysSyncFileRange, Full, ""},
	{unix.SYS_FADVISE64, "fadvise64", sysFadvise64, Full, ""},
	{unix.SYS_READAHEAD, "readahead", sysReadahead, Full, ""},
}

// sysFtruncate is ftruncate(2).
func sysFtruncate(t *Task, a Args) (uintptr, error) {
	if int64(a[1]) < 0 {
		return 0, unix.EINVAL
	}
	d, err := t.p.fds.Get(a.Int(0))
	if err != nil {
		return 0, err
	}
	defer d.DecRef()
	if d.StatusFlags()&unix.O_PATH != 0 {
		return 0, unix.EBADF
	}
	f, ok := d.File.(vfs.Sized)
	if !ok || d.StatusFlags()&unix.O_ACCMODE == unix.O_RDONLY {
		return 0, unix.EINVAL
	}
	return 0, f.Truncate(int64(a[1]))
}

// sysTruncate is truncate(2).
func sysTruncate(t *Task, a Args) (uintptr, error) {
	if int64(a[1]) < 0 {
		return 0, unix.EINVAL
	}
	o, err := t.objectAt(unix.AT_FDCWD, a[0], 0, true)
	if err != nil {
		return 0, err
	}
	if err := vfs.Truncate(t.vfsContext(), o.entry.Inode(), int64(a[1])); err != nil {
		return 0, err
	}
	t.p.fs.ns.Notify(o.entry, unix.IN_MODIFY)
	return 0, nil
}

// sysFallocate is fallocate(2).
func sysFallocate(t *Task, a Args) (uintptr, error) {
	mode, off, n := uint32(a[1]), int64(a[2]), int64(a[3])
	d, err := t.p.fds.Get(a.Int(0))
	if err != nil {
		return 0, err
	}
	defer d.DecRef()
	if off < 0 || n <= 0 {
		return 0, unix.EINVAL
	}
	if mode&unix.FALLOC_FL_PUNCH_HOLE != 0 && mode&unix.FALLOC_FL_KEEP_SIZE == 0 {
		return 0, unix.EOPNOTSUPP
	}
	if fl := d.StatusFlags(); fl&unix.O_ACCMODE == unix.O_RDONLY || fl&unix.O_PATH != 0 {
		return 0, unix.EBADF
	}
	f, ok := d.File.(vfs.Sized)
	if !ok {
		if d.inode() == nil {
			return 0, unix.ESPIPE
		}
		return 0, unix.ENODEV
	}
	return 0, f.Allocate(mode, off, n)
}

// sysFsync is fsync(2) and fdatasync(2): content has no storage below it, so
// there is nothing to wait for. Pipes and sockets are EINVAL.
func sysFsync(t *Task, a Args) (uintptr, error) {
	d, err := t.p.fds.Get(a.Int(0))
	if err != nil {
		return 0, err
	}
	defer d.DecRef()
	switch {
	case d.StatusFlags()&unix.O_PATH != 0:
		return 0, unix.EBADF
	case d.inode() == nil:
		return 0, unix.EINVAL
	}
	if at := d.inode().Attr(); !at.IsRegular() && !at.IsDir() {
		return 0, unix.EINVAL
	}
	return 0, nil
}

// sysSync is sync(2).
func sysSync(*Task, Args) (uintptr, error) { return 0, nil }

// sysSyncfs is syncfs(2).
func sysSyncfs(t *Task, a Args) (uintptr, error) {
	o, err := t.objectFD(a.Int(0), false)
	o.release()
	return 0, err
}

// sysSyncFileRange is sync_file_range(2).
func sysSyncFileRange(t *Task, a Args) (uintptr, error) {
	const known = unix.SYNC_FILE_RANGE_WAIT_BEFORE | unix.SYNC_FILE_RANGE_WRITE | unix.SYNC_FILE_RANGE_WAIT_AFTER
	d, err := t.p.fds.Get(a.Int(0))
	if err != nil {
		return 0, err
	}
	defer d.DecRef()
	off, n := int64(a[1]), int64(a[2])
	switch {
	case d.StatusFlags()&unix.O_PATH != 0:
		return 0, unix.EBADF
	case a.Int(3)&^known != 0 || off < 0 || off+n < off:
		return 0, unix.EINVAL
	case d.inode() == nil:
		return 0, unix.ESPIPE
	}
	return 0, nil
}

// sysFadvise64 is posix_fadvise(2). Content is in memory already: the advice
// is checked and changes nothing.
func sysFadvise64(t *Task, a Args) (uintptr, error) {
	o, err := t.objectFD(a.Int(0), false)
	if err != nil {
		return 0, err
	}
	defer o.release()
	switch {
	case o.entry == nil:
		return 0, unix.ESPIPE
	case int64(a[2]) < 0 || a.Int(3) < 0 || a.Int(3) > unix.FADV_NOREUSE:
		return 0, unix.EINVAL
	}
	return 0, nil
}

// sysReadahead is readahead(2): content is in memory already.
func sysReadahead(t *Task, a Args) (uintptr, error) {
	d, err := t.fdFor(a.Int(0), false)
	if err != nil {
		return 0, err
	}
	defer d.DecRef()
	if i := d.inode(); i == nil || int64(a[1]) < 0 {
		return 0, unix.EINVAL
	} else if at := i.Attr(); !at.IsRegular() {
		return 0, unix.EINVAL
	}
	return 0, nil
}
