package rumprun

import (
	"golang.org/x/sys/unix"

	"github.com/nabla-build/nabla-build/rumprun/inotify"
	"github.com/nabla-build/nabla-build/rumprun/vfs"
)

// inotifyCalls are inotify(7).
var inotifyCalls = []Call{
	{unix.SYS_INOTIFY_INIT, "inotify_init", sysInotifyInit, Full, ""},
	{unix.SYS_INOTIFY_INIT1, "inotify_init1", sysInotifyInit1, Full, ""},
	{unix.SYS_INOTIFY_ADD_WATCH, "inotify_add_watch", sysInotifyAddWatch, Partial, "the use of device nodes, FIFOs and files of /proc and /sys is not reported, but that they are opened; a change of one time alone is IN_ATTRIB"},
	{unix.SYS_INOTIFY_RM_WATCH, "inotify_rm_watch", sysInotifyRmWatch, Full, ""},
}

func (t *Task) inotifyInit(flags int) (uintptr, error) {
	if flags&^(unix.IN_CLOEXEC|unix.IN_NONBLOCK) != 0 {
		return 0, unix.EINVAL
	}
	i, err := t.k.inotify.New(t.p.fs.ns, t.k.events.NextIno(), uint32(flags&unix.IN_NONBLOCK))
	if err != nil {
		return 0, err
	}
	return t.newFD(i, flags&unix.IN_CLOEXEC != 0)
}

// sysInotifyInit is inotify_init(2).
func sysInotifyInit(t *Task, _ Args) (uintptr, error) { return t.inotifyInit(0) }

// sysInotifyInit1 is inotify_init(2) with flags.
func sysInotifyInit1(t *Task, a Args) (uintptr, error) { return t.inotifyInit(a.Int(0)) }

// inotify returns the instance behind fd, EINVAL if it is another file. The
// caller drops the description's reference.
func (t *Task) inotify(fd int) (*inotify.Instance, *Description, error) {
	d, err := t.p.fds.Get(fd)
	if err != nil {
		return nil, nil, err
	}
	i, ok := d.File.(*inotify.Instance)
	if !ok {
		d.DecRef()
		return nil, nil, unix.EINVAL
	}
	return i, d, nil
}

// sysInotifyAddWatch is inotify_add_watch(2).
func sysInotifyAddWatch(t *Task, a Args) (uintptr, error) {
	mask := uint32(a[2])
	if err := inotify.CheckMask(mask); err != nil && mask&unix.IN_MASK_CREATE == 0 {
		return 0, err
	}
	i, d, err := t.inotify(a.Int(0))
	if err != nil {
		return 0, err
	}
	defer d.DecRef()
	if err := inotify.CheckMask(mask); err != nil {
		return 0, err
	}
	o, err := t.objectAt(atCWD, a[1], 0, mask&unix.IN_DONT_FOLLOW == 0)
	if err != nil {
		return 0, err
	}
	defer o.release()
	inode, err := o.inode()
	if err != nil {
		return 0, err
	}
	if at := inode.Attr(); mask&unix.IN_ONLYDIR != 0 && !at.IsDir() {
		return 0, unix.ENOTDIR
	}
	if err := vfs.Permission(t.vfsContext(), inode, vfs.MayRead); err != nil {
		return 0, err
	}
	wd, err := i.Add(o.entry, mask)
	return uintptr(wd), err
}

// sysInotifyRmWatch is inotify_rm_watch(2).
func sysInotifyRmWatch(t *Task, a Args) (uintptr, error) {
	i, d, err := t.inotify(a.Int(0))
	if err != nil {
		return 0, err
	}
	defer d.DecRef()
	return 0, i.Remove(int32(a[1]))
}
