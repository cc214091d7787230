package rumprun

import (
	"time"

	"golang.org/x/sys/unix"

	"github.com/nabla-build/nabla-build/rumprun/vfs"
)

// attrCalls are the calls that change attributes.
var attrCalls = []Call{
	{unix.SYS_CHMOD, "chmod", sysChmod, Full, ""},
	{unix.SYS_FCHMOD, "fchmod", sysFchmod, Full, ""},
	{unix.SYS_FCHMODAT, "fchmodat", sysFchmodat, Full, ""},
	{unix.SYS_FCHMODAT2, "fchmodat2", sysFchmodat2, Full, ""},
	{unix.SYS_CHOWN, "chown", sysChown, Full, ""},
	{unix.SYS_LCHOWN, "lchown", sysLchown, Full, ""},
	{unix.SYS_FCHOWN, "fchown", sysFchown, Full, ""},
	{unix.SYS_FCHOWNAT, "fchownat", sysFchownat, Full, ""},
	{unix.SYS_UTIME, "utime", sysUtime, Full, ""},
	{unix.SYS_UTIMES, "utimes", sysUtimes, Full, ""},
	{unix.SYS_FUTIMESAT, "futimesat", sysFutimesat, Full, ""},
	{unix.SYS_UTIMENSAT, "utimensat", sysUtimensat, Full, ""},
}

// change looks up an object and calls f on its inode.
func (t *Task) change(fd int, path uintptr, flags int, follow bool, f func(*vfs.Context, vfs.Inode) error) (uintptr, error) {
	o, err := t.objectAt(fd, path, flags, follow)
	if err != nil {
		return 0, err
	}
	defer o.release()
	i, err := o.inode()
	if err != nil {
		return 0, err
	}
	if err := f(t.vfsContext(), i); err != nil {
		return 0, err
	}
	t.p.fs.ns.Notify(o.entry, unix.IN_ATTRIB)
	return 0, nil
}

// changeFD is change for a descriptor. A pipe or socket takes the change and
// forgets it.
func (t *Task) changeFD(fd int, f func(*vfs.Context, vfs.Inode) error) (uintptr, error) {
	o, err := t.objectFD(fd, false)
	if err != nil {
		return 0, err
	}
	defer o.release()
	if o.entry == nil {
		return 0, nil
	}
	if err := f(t.vfsContext(), o.entry.Inode()); err != nil {
		return 0, err
	}
	t.p.fs.ns.Notify(o.entry, unix.IN_ATTRIB)
	return 0, nil
}

func chmod(mode uintptr) func(*vfs.Context, vfs.Inode) error {
	return func(c *vfs.Context, i vfs.Inode) error { return vfs.Chmod(c, i, uint32(mode)) }
}

// sysChmod is chmod(2).
func sysChmod(t *Task, a Args) (uintptr, error) { return t.change(atCWD, a[0], 0, true, chmod(a[1])) }

// sysFchmod is fchmod(2).
func sysFchmod(t *Task, a Args) (uintptr, error) { return t.changeFD(a.Int(0), chmod(a[1])) }

// sysFchmodat is fchmodat(2), which has no flags in the kernel.
func sysFchmodat(t *Task, a Args) (uintptr, error) {
	return t.change(a.Int(0), a[1], 0, true, chmod(a[2]))
}

// sysFchmodat2 is fchmodat2(2).
func sysFchmodat2(t *Task, a Args) (uintptr, error) {
	if a.Int(3)&^(unix.AT_SYMLINK_NOFOLLOW|unix.AT_EMPTY_PATH) != 0 {
		return 0, unix.EINVAL
	}
	return t.change(a.Int(0), a[1], a.Int(3), true, chmod(a[2]))
}

func chown(uid, gid uintptr) func(*vfs.Context, vfs.Inode) error {
	return func(c *vfs.Context, i vfs.Inode) error { return vfs.Chown(c, i, uint32(uid), uint32(gid)) }
}

// sysChown is chown(2).
func sysChown(t *Task, a Args) (uintptr, error) {
	return t.change(atCWD, a[0], 0, true, chown(a[1], a[2]))
}

// sysLchown is lchown(2).
func sysLchown(t *Task, a Args) (uintptr, error) {
	return t.change(atCWD, a[0], 0, false, chown(a[1], a[2]))
}

// sysFchown is fchown(2).
func sysFchown(t *Task, a Args) (uintptr, error) { return t.changeFD(a.Int(0), chown(a[1], a[2])) }

// sysFchownat is fchownat(2).
func sysFchownat(t *Task, a Args) (uintptr, error) {
	if a.Int(4)&^(unix.AT_SYMLINK_NOFOLLOW|unix.AT_EMPTY_PATH) != 0 {
		return 0, unix.EINVAL
	}
	return t.change(a.Int(0), a[1], a.Int(4), true, chown(a[2], a[3]))
}

// times holds the arguments of the utime family: nil stays, now is the
// current time for both.
type times struct {
	atime, mtime *time.Time
	now          bool
}

func nowTimes() times {
	n := time.Now()
	return times{&n, &n, true}
}

func (x times) set(c *vfs.Context, i vfs.Inode) error {
	return vfs.SetTimes(c, i, x.atime, x.mtime, x.now)
}

// sysUtime is utime(2).
func sysUtime(t *Task, a Args) (uintptr, error) {
	x := nowTimes()
	if a[1] != 0 {
		v, err := copyIn[[2]int64](t, a[1])
		if err != nil {
			return 0, err
		}
		at, mt := time.Unix(v[0], 0), time.Unix(v[1], 0)
		x = times{&at, &mt, false}
	}
	return t.change(atCWD, a[0], 0, true, x.set)
}

// timevals reads the two struct timeval of utimes(2).
func (t *Task) timevals(addr uintptr) (times, error) {
	if addr == 0 {
		return nowTimes(), nil
	}
	v, err := copyIn[[2]unix.Timeval](t, addr)
	if err != nil {
		return times{}, err
	}
	for _, x := range v {
		if x.Usec < 0 || x.Usec >= 1e6 {
			return times{}, unix.EINVAL
		}
	}
	at, mt := time.Unix(v[0].Sec, v[0].Usec*1000), time.Unix(v[1].Sec, v[1].Usec*1000)
	return times{&at, &mt, false}, nil
}

// sysUtimes is utimes(2).
func sysUtimes(t *Task, a Args) (uintptr, error) {
	x, err := t.timevals(a[1])
	if err != nil {
		return 0, err
	}
	return t.change(atCWD, a[0], 0, true, x.set)
}

// sysFutimesat is futimesat(2).
func sysFutimesat(t *Task, a Args) (uintptr, error) {
	x, err := t.timevals(a[2])
	if err != nil {
		return 0, err
	}
	if a[1] == 0 {
		return t.changeFD(a.Int(0), x.set)
	}
	return t.change(a.Int(0), a[1], 0, true, x.set)
}

// sysUtimensat is utimensat(2).
func sysUtimensat(t *Task, a Args) (uintptr, error) {
	x := nowTimes()
	if a[2] != 0 {
		v, err := copyIn[[2]unix.Timespec](t, a[2])
		if err != nil {
			return 0, err
		}
		var p [2]*time.Time
		omitted, current := 0, 0
		for i, s := range v {
			switch {
			case s.Nsec == unix.UTIME_OMIT:
				omitted++
			case s.Nsec == unix.UTIME_NOW:
				p[i] = x.atime
				current++
			case s.Nsec < 0 || s.Nsec >= 1e9:
				return 0, unix.EINVAL
			default:
				w := time.Unix(s.Sec, s.Nsec)
				p[i] = &w
			}
		}
		if omitted == 2 {
			return 0, nil
		}
		x = times{p[0], p[1], current == 2}
	}
	if a[1] == 0 {
		if a.Int(0) == unix.AT_FDCWD {
			return 0, unix.EFAULT
		}
		if a.Int(3) != 0 {
			return 0, unix.EINVAL
		}
		return t.changeFD(a.Int(0), x.set)
	}
	if a.Int(3)&^(unix.AT_SYMLINK_NOFOLLOW|unix.AT_EMPTY_PATH) != 0 {
		return 0, unix.EINVAL
	}
	return t.change(a.Int(0), a[1], a.Int(3), true, x.set)
}
