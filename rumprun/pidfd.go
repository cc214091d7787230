package rumprun

import (
	"golang.org/x/sys/unix"

	"gvisor.dev/gvisor/pkg/abi/linux"

	"github.com/nabla-build/nabla-build/rumprun/event"
	"github.com/nabla-build/nabla-build/rumprun/vfs/procfs"
)

var pidfdCalls = []Call{
	{unix.SYS_PIDFD_OPEN, "pidfd_open", sysPidfdOpen, Partial, "processes; PIDFD_THREAD is EINVAL"},
	{unix.SYS_PIDFD_SEND_SIGNAL, "pidfd_send_signal", sysPidfdSendSignal, Partial, "no flags"},
	{unix.SYS_PIDFD_GETFD, "pidfd_getfd", sysPidfdGetfd, Full, ""},
}

func newPidfd(p *Process, flags uint32) *event.Pidfd {
	return p.k.events.NewPidfd(p, p.ended, &p.endEvents, flags)
}

// pidfd returns the process that descriptor fd stands for; EBADF if fd is
// something else.
func (t *Task) pidfd(fd int) (*Process, *event.Pidfd, error) {
	d, err := t.p.fds.Get(fd)
	if err != nil {
		return nil, nil, err
	}
	defer d.DecRef()
	f, ok := d.File.(*event.Pidfd)
	if !ok {
		return nil, nil, unix.EBADF
	}
	return f.Process.(*Process), f, nil
}

// sysPidfdOpen is pidfd_open(2).
func sysPidfdOpen(t *Task, a Args) (uintptr, error) {
	pid, flags := int32(a[0]), a.Int(1)
	if flags&^unix.PIDFD_NONBLOCK != 0 || pid <= 0 {
		return 0, unix.EINVAL
	}
	p := t.k.process(pid)
	if p == nil {
		if t.k.task(pid) != nil {
			return 0, unix.ENOENT // a thread that leads no group, as since Linux 6.9
		}
		return 0, unix.ESRCH
	}
	return t.newFD(newPidfd(p, uint32(flags&unix.PIDFD_NONBLOCK)), true)
}

// pidfdTarget returns the process that a pidfd or a descriptor of /proc/PID
// stands for.
func (t *Task) pidfdTarget(fd int) (*Process, error) {
	p, _, err := t.pidfd(fd)
	if err == nil {
		return p, nil
	}
	d, derr := t.p.fds.Get(fd)
	if derr != nil {
		return nil, derr
	}
	defer d.DecRef()
	if d.entry != nil && d.StatusFlags()&unix.O_PATH == 0 {
		if pid, ok := procfs.ProcessOf(d.entry.Inode()); ok {
			if p := t.k.process(pid); p != nil {
				return p, nil
			}
			return nil, unix.ESRCH
		}
	}
	return nil, err
}

// sysPidfdSendSignal is pidfd_send_signal(2).
func sysPidfdSendSignal(t *Task, a Args) (uintptr, error) {
	if a.Int(3) != 0 {
		return 0, unix.EINVAL
	}
	p, err := t.pidfdTarget(a.Int(0))
	if err != nil {
		return 0, err
	}
	n := a.Int(1)
	if err := validSignal(n); err != nil {
		return 0, err
	}
	if p.ended() && t.k.process(p.pid) != p {
		return 0, unix.ESRCH // reaped
	}
	info := t.killInfo(n, linux.SI_USER)
	if a[2] != 0 {
		if info, err = copyIn[linux.SignalInfo](t, a[2]); err != nil {
			return 0, err
		}
		if info.Signo != int32(n) {
			return 0, unix.EINVAL
		}
		if (info.Code >= 0 || info.Code == linux.SI_TKILL) && p != t.p {
			return 0, unix.EPERM
		}
	}
	if !t.maySignal(p, n) {
		return 0, unix.EPERM
	}
	if n == 0 {
		return 0, nil
	}
	return 0, p.signal(nil, info)
}

// sysPidfdGetfd is pidfd_getfd(2).
func sysPidfdGetfd(t *Task, a Args) (uintptr, error) {
	if a[2] != 0 {
		return 0, unix.EINVAL
	}
	p, _, err := t.pidfd(a.Int(0))
	if err != nil {
		return 0, err
	}
	if p.ended() {
		return 0, unix.ESRCH
	}
	if !t.maySignal(p, 0) {
		return 0, unix.EPERM
	}
	d, err := p.fds.Get(a.Int(1))
	if err != nil {
		return 0, err
	}
	fd, err := t.p.fds.Install(d, 0, true)
	if err != nil {
		d.DecRef()
		return 0, err
	}
	return uintptr(fd), nil
}
