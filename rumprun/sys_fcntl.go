package rumprun

import (
	"time"

	"golang.org/x/sys/unix"

	"github.com/nabla-build/nabla-build/rumprun/vfs"
	"github.com/nabla-build/nabla-build/rumprun/vfs/filelock"
)

// fcntlCalls are the calls on descriptors themselves.
var fcntlCalls = []Call{
	{unix.SYS_FCNTL, "fcntl", sysFcntl, Partial, "F_SETSIG, F_SETLEASE and watches of F_NOTIFY are EINVAL; F_SETOWN is kept and O_ASYNC sends no signal"},
	{unix.SYS_FLOCK, "flock", sysFlock, Full, ""},
	{unix.SYS_DUP, "dup", sysDup, Full, ""},
	{unix.SYS_DUP2, "dup2", sysDup2, Full, ""},
	{unix.SYS_DUP3, "dup3", sysDup3, Full, ""},
	{unix.SYS_IOCTL, "ioctl", sysIoctl, Partial, "requests that the kind of file has; unknown ones are ENOTTY"},
}

// dup installs another reference to fd's description at min or above.
func (t *Task) dup(fd, min int, cloexec bool) (uintptr, error) {
	d, err := t.p.fds.Get(fd)
	if err != nil {
		return 0, err
	}
	n, err := t.p.fds.Install(d, min, cloexec)
	if err != nil {
		d.DecRef()
		return 0, err
	}
	return uintptr(n), nil
}

// sysDup is dup(2).
func sysDup(t *Task, a Args) (uintptr, error) { return t.dup(a.Int(0), 0, false) }

func (t *Task) dupTo(fd, to int, cloexec bool) (uintptr, error) {
	d, err := t.p.fds.Get(fd)
	if err != nil {
		return 0, err
	}
	t.p.dropRecordLocks(to)
	if err := t.p.fds.Replace(to, d, cloexec); err != nil {
		d.DecRef()
		return 0, err
	}
	return uintptr(to), nil
}

// sysDup2 is dup2(2).
func sysDup2(t *Task, a Args) (uintptr, error) {
	if a.Int(0) == a.Int(1) {
		d, err := t.p.fds.Get(a.Int(0))
		if err != nil {
			return 0, err
		}
		d.DecRef()
		return uintptr(a.Int(1)), nil
	}
	return t.dupTo(a.Int(0), a.Int(1), false)
}

// sysDup3 is dup3(2).
func sysDup3(t *Task, a Args) (uintptr, error) {
	if a.Int(2)&^unix.O_CLOEXEC != 0 || a.Int(0) == a.Int(1) {
		return 0, unix.EINVAL
	}
	return t.dupTo(a.Int(0), a.Int(1), a.Int(2)&unix.O_CLOEXEC != 0)
}

// PipeSizer is a pipe, for F_GETPIPE_SZ and F_SETPIPE_SZ.
type PipeSizer interface {
	PipeSize() int
	// SetPipeSize changes the capacity and returns what it has become.
	SetPipeSize(n int) (int, error)
}

// settable are the status flags that F_SETFL changes.
const settable = unix.O_APPEND | unix.O_NONBLOCK | unix.O_ASYNC | unix.O_DIRECT | unix.O_NOATIME

// sysFcntl is fcntl(2).
func sysFcntl(t *Task, a Args) (uintptr, error) {
	fd, arg := a.Int(0), a[2]
	d, err := t.p.fds.Get(fd)
	if err != nil {
		return 0, err
	}
	defer d.DecRef()
	cmd := a.Int(1)
	if d.StatusFlags()&unix.O_PATH != 0 {
		switch cmd {
		case unix.F_DUPFD, unix.F_DUPFD_CLOEXEC, unix.F_GETFD, unix.F_SETFD, unix.F_GETFL:
		default:
			return 0, unix.EBADF
		}
	}
	switch cmd {
	case unix.F_DUPFD, unix.F_DUPFD_CLOEXEC:
		return t.dup(fd, int(int32(arg)), cmd == unix.F_DUPFD_CLOEXEC)
	case unix.F_GETFD:
		on, err := t.p.fds.CloExec(fd)
		if on {
			return unix.FD_CLOEXEC, err
		}
		return 0, err
	case unix.F_SETFD:
		return 0, t.p.fds.SetCloExec(fd, arg&unix.FD_CLOEXEC != 0)
	case unix.F_GETFL:
		return uintptr(d.StatusFlags()), nil
	case unix.F_SETFL:
		fl := uint32(arg)
		if fl&unix.O_NOATIME != 0 && d.StatusFlags()&unix.O_NOATIME == 0 {
			if i := d.inode(); i != nil {
				if at := i.Attr(); !t.p.fs.creds.Load().Owns(&at) {
					return 0, unix.EPERM
				}
			}
		}
		d.SetStatusFlags(d.StatusFlags()&^settable | fl&settable)
		return 0, nil
	case unix.F_GETLK, unix.F_SETLK, unix.F_SETLKW:
		return 0, t.recordLock(d, cmd, arg, lockOwner{t.p.pid}, t.p.pid)
	case unix.F_OFD_GETLK, unix.F_OFD_SETLK, unix.F_OFD_SETLKW:
		return 0, t.recordLock(d, cmd, arg, d, -1)
	case unix.F_GETOWN, unix.F_GETOWN_EX, unix.F_SETOWN, unix.F_SETOWN_EX, unix.F_GETSIG:
		return 0, nil
	case unix.F_NOTIFY:
		if uint32(arg)&^0x80000000 == 0 {
			return 0, nil // DN_MULTISHOT at most: there is no watch to remove
		}
		st, err := d.File.Stat()
		if err == nil && st.Mode&unix.S_IFMT != unix.S_IFDIR {
			err = unix.ENOTDIR
		}
		if err == nil {
			err = unix.EINVAL // as with fs.dir-notify-enable=0; programs use inotify
		}
		return 0, err
	case unix.F_GETPIPE_SZ, unix.F_SETPIPE_SZ:
		p, ok := d.File.(PipeSizer)
		if !ok {
			return 0, unix.EBADF
		}
		if cmd == unix.F_GETPIPE_SZ {
			return uintptr(p.PipeSize()), nil
		}
		if int64(arg) < 0 {
			return 0, unix.EINVAL
		}
		n, err := p.SetPipeSize(int(uint32(arg)))
		return uintptr(n), err
	case unix.F_GET_SEALS, unix.F_ADD_SEALS:
		f, ok := d.File.(vfs.Sealed)
		if !ok {
			return 0, unix.EINVAL
		}
		if cmd == unix.F_GET_SEALS {
			n, err := f.Seals()
			return uintptr(n), err
		}
		if d.StatusFlags()&unix.O_ACCMODE == unix.O_RDONLY {
			return 0, unix.EPERM
		}
		return 0, f.AddSeals(int(int32(arg)))
	}
	return 0, unix.EINVAL
}

// lockOwner is a process as the owner of record locks.
type lockOwner struct{ pid int32 }

// lockKey is what locks on d are on: the inode, or the description of a file
// that has none.
func (d *Description) lockKey() any {
	if i := d.inode(); i != nil {
		return i
	}
	return d
}

// flock64 is struct flock of fcntl(2).
type flock64 struct {
	Type   int16
	Whence int16
	_      int32
	Start  int64
	Len    int64
	PID    int32
	_      int32
}

// recordLock is F_GETLK, F_SETLK, F_SETLKW and their F_OFD_ forms.
func (t *Task) recordLock(d *Description, cmd int, addr uintptr, owner any, pid int32) error {
	fl, err := copyIn[flock64](t, addr)
	if err != nil {
		return err
	}
	if owner == any(d) && fl.PID != 0 {
		return unix.EINVAL
	}
	if cmd == unix.F_GETLK && fl.Type != unix.F_RDLCK && fl.Type != unix.F_WRLCK {
		return unix.EINVAL
	}
	start := fl.Start
	switch fl.Whence {
	case unix.SEEK_SET:
	case unix.SEEK_CUR:
		cur, err := d.Seek(0, unix.SEEK_CUR)
		if err != nil {
			return unix.EINVAL
		}
		start += cur
	case unix.SEEK_END:
		st, err := d.Stat()
		if err != nil {
			return err
		}
		start += st.Size
	default:
		return unix.EINVAL
	}
	end := int64(filelock.ToEnd)
	switch {
	case fl.Len > 0:
		if end = start + fl.Len - 1; end < start {
			return unix.EOVERFLOW
		}
	case fl.Len < 0:
		start, end = start+fl.Len, start-1
	}
	if start < 0 {
		return unix.EINVAL
	}
	l := filelock.Lock{Owner: owner, PID: pid, Start: start, End: end}
	table, key := &t.k.files.locks, d.lockKey()
	switch fl.Type {
	case unix.F_UNLCK:
		if cmd == unix.F_OFD_GETLK {
			// Any lock of this description (Linux 6.6).
			c, held := table.Held(key, filelock.Range, owner, start, end)
			return t.lockOut(addr, fl, c, held)
		}
		table.Unset(key, filelock.Range, owner, start, end)
		return nil
	case unix.F_WRLCK:
		l.Exclusive = true
	case unix.F_RDLCK:
	default:
		return unix.EINVAL
	}
	if cmd == unix.F_GETLK || cmd == unix.F_OFD_GETLK {
		c, busy := table.Conflict(key, filelock.Range, l)
		return t.lockOut(addr, fl, c, busy)
	}
	acc := d.StatusFlags() & unix.O_ACCMODE
	if l.Exclusive && acc == unix.O_RDONLY || !l.Exclusive && acc == unix.O_WRONLY {
		return unix.EBADF
	}
	if owner == any(d) {
		d.locks.Store(table)
	} else {
		t.p.fs.recordLocks.Store(true)
	}
	return t.lock(table, key, filelock.Range, l, cmd == unix.F_SETLKW || cmd == unix.F_OFD_SETLKW)
}

// lockOut is the answer of F_GETLK: lock c if there is one, else fl with the
// type F_UNLCK.
func (t *Task) lockOut(addr uintptr, fl flock64, c filelock.Lock, found bool) error {
	if !found {
		fl.Type = unix.F_UNLCK
		return copyOut(t, addr, fl)
	}
	fl = flock64{Type: unix.F_RDLCK, Start: c.Start, PID: c.PID}
	if c.Exclusive {
		fl.Type = unix.F_WRLCK
	}
	if c.End != filelock.ToEnd {
		fl.Len = c.End - c.Start + 1
	}
	return copyOut(t, addr, fl)
}

// lock takes l, waiting for it if wait is set.
func (t *Task) lock(table *filelock.Table, key any, kind filelock.Kind, l filelock.Lock, wait bool) error {
	for {
		set := table.Set
		// A process's own locks can be in a circle; a description's are not
		// looked at, as on Linux.
		_, record := l.Owner.(lockOwner)
		if wait && record {
			set = table.SetWait
		}
		c, err := set(key, kind, l)
		if err != unix.EAGAIN || !wait {
			return err
		}
		err = t.Wait(c, time.Time{})
		if record {
			table.Waited(l.Owner)
		}
		if err != nil {
			return err
		}
	}
}

// dropRecordLocks gives up p's record locks on the file of fd, which is about
// to be closed (fcntl(2), "Advisory record locking").
func (p *Process) dropRecordLocks(fd int) {
	if !p.fs.recordLocks.Load() {
		return
	}
	d, err := p.fds.Get(fd)
	if err != nil {
		return
	}
	p.k.files.locks.Unset(d.lockKey(), filelock.Range, lockOwner{p.pid}, 0, filelock.ToEnd)
	d.DecRef()
}

// releaseRecordLocks gives up all of p's record locks, for its exit.
func (p *Process) releaseRecordLocks() {
	if p.fs.recordLocks.Load() {
		p.k.files.locks.Release(lockOwner{p.pid})
	}
}

// sysFlock is flock(2). Changing a lock's mode is not atomic, as on Linux.
func sysFlock(t *Task, a Args) (uintptr, error) {
	op := a.Int(1)
	const mandatory = 32 // LOCK_MAND, which the kernel ignores
	if op&mandatory != 0 {
		return 0, nil
	}
	switch op &^ unix.LOCK_NB {
	case unix.LOCK_UN, unix.LOCK_EX, unix.LOCK_SH:
	default:
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
	table, key := &t.k.files.locks, d.lockKey()
	if op&unix.LOCK_UN != 0 {
		table.Unset(key, filelock.Whole, d, 0, filelock.ToEnd)
		return 0, nil
	}
	l := filelock.Lock{Owner: d, PID: t.p.pid, End: filelock.ToEnd, Exclusive: op&unix.LOCK_EX != 0}
	d.locks.Store(table)
	return 0, t.lock(table, key, filelock.Whole, l, op&unix.LOCK_NB == 0)
}

// The requests of ioctl(2) that every descriptor has (the kernel's
// include/uapi/asm-generic/ioctls.h).
const (
	fionread = 0x541b
	fionbio  = 0x5421
	fionclex = 0x5450
	fioclex  = 0x5451
	fioasync = 0x5452
)

// sysIoctl is ioctl(2): the requests that every descriptor has, then the
// file's own.
func sysIoctl(t *Task, a Args) (uintptr, error) {
	fd, req, arg := a.Int(0), uint32(a[1]), a[2]
	d, err := t.p.fds.Get(fd)
	if err != nil {
		return 0, err
	}
	defer d.DecRef()
	if d.StatusFlags()&unix.O_PATH != 0 {
		return 0, unix.EBADF
	}
	switch req {
	case fioclex:
		return 0, t.p.fds.SetCloExec(fd, true)
	case fionclex:
		return 0, t.p.fds.SetCloExec(fd, false)
	case fionbio, fioasync:
		on, err := copyIn[int32](t, arg)
		if err != nil {
			return 0, err
		}
		bit := uint32(unix.O_NONBLOCK)
		if req == fioasync {
			bit = unix.O_ASYNC
		}
		fl := d.StatusFlags() &^ bit
		if on != 0 {
			fl |= bit
		}
		d.SetStatusFlags(fl)
		return 0, nil
	case fionread:
		if i := d.inode(); i != nil {
			if at := i.Attr(); at.IsRegular() {
				pos, err := d.Seek(0, unix.SEEK_CUR)
				if err != nil {
					return 0, err
				}
				return 0, copyOut(t, arg, int32(at.Size-pos))
			}
		}
	}
	return d.Ioctl(t, req, arg)
}
