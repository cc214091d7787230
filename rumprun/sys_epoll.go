package rumprun

import (
	"time"
	"unsafe"

	"golang.org/x/sys/unix"

	"gvisor.dev/gvisor/pkg/abi/linux"

	"github.com/nabla-build/nabla-build/rumprun/event"
)

// epollCalls are epoll(7).
var epollCalls = []Call{
	{unix.SYS_EPOLL_CREATE, "epoll_create", sysEpollCreate, Full, ""},
	{unix.SYS_EPOLL_CREATE1, "epoll_create1", sysEpollCreate1, Full, ""},
	{unix.SYS_EPOLL_CTL, "epoll_ctl", sysEpollCtl, Full, ""},
	{unix.SYS_EPOLL_WAIT, "epoll_wait", sysEpollWait, Full, ""},
	{unix.SYS_EPOLL_PWAIT, "epoll_pwait", sysEpollPwait, Full, ""},
	{unix.SYS_EPOLL_PWAIT2, "epoll_pwait2", sysEpollPwait2, Full, ""},
}

// sysEpollCreate is epoll_create(2).
func sysEpollCreate(t *Task, a Args) (uintptr, error) {
	if a.Int(0) <= 0 {
		return 0, unix.EINVAL
	}
	return t.newFD(t.k.events.NewEpoll(), false)
}

// sysEpollCreate1 is epoll_create1(2).
func sysEpollCreate1(t *Task, a Args) (uintptr, error) {
	if a.Int(0)&^unix.EPOLL_CLOEXEC != 0 {
		return 0, unix.EINVAL
	}
	return t.newFD(t.k.events.NewEpoll(), a.Int(0)&unix.EPOLL_CLOEXEC != 0)
}

// epoll returns the instance behind fd, EINVAL if it is another file. The
// caller drops the description's reference.
func (t *Task) epoll(fd int) (*event.Epoll, *Description, error) {
	d, err := t.p.fds.Get(fd)
	if err != nil {
		return nil, nil, err
	}
	ep, ok := d.File.(*event.Epoll)
	if !ok {
		d.DecRef()
		return nil, nil, unix.EINVAL
	}
	return ep, d, nil
}

// sysEpollCtl is epoll_ctl(2).
func sysEpollCtl(t *Task, a Args) (uintptr, error) {
	op, fd := a.Int(1), a.Int(2)
	var ev event.Event
	if op != unix.EPOLL_CTL_DEL {
		var err error
		if ev, err = copyIn[event.Event](t, a[3]); err != nil {
			return 0, err
		}
	}
	e, err := t.p.fds.Get(a.Int(0))
	if err != nil {
		return 0, err
	}
	defer e.DecRef()
	d, err := t.p.fds.Get(fd)
	if err != nil {
		return 0, err
	}
	defer d.DecRef()
	if d.StatusFlags()&unix.O_PATH != 0 {
		return 0, unix.EBADF
	}
	if !event.Pollable(d.File) {
		return 0, unix.EPERM
	}
	ep, ok := e.File.(*event.Epoll)
	if !ok || e == d {
		return 0, unix.EINVAL
	}
	switch op {
	case unix.EPOLL_CTL_ADD:
		return 0, ep.Add(d, fd, ev)
	case unix.EPOLL_CTL_MOD:
		return 0, ep.Modify(d, fd, ev)
	case unix.EPOLL_CTL_DEL:
		return 0, ep.Delete(d, fd)
	}
	return 0, unix.EINVAL
}

// epollWait waits until the deadline (zero: none; block false: not at all). A
// signal is EINTR whatever its handler's flags (signal(7)).
func (t *Task) epollWait(fd int, addr uintptr, max int, deadline time.Time, block bool) (uintptr, error) {
	const size = int(unsafe.Sizeof(event.Event{}))
	if max <= 0 || max > (1<<31-1)/size {
		return 0, unix.EINVAL
	}
	raw, err := t.userBuf(addr, uintptr(max*size), true)
	if err != nil {
		return 0, err
	}
	ep, d, err := t.epoll(fd)
	if err != nil {
		return 0, err
	}
	defer d.DecRef()
	if len(raw) < size {
		return 0, unix.EFAULT
	}
	out := unsafe.Slice((*event.Event)(unsafe.Pointer(unsafe.SliceData(raw))), len(raw)/size)
	if n := ep.Collect(out); n > 0 || !block {
		return uintptr(n), nil
	}
	s := ep.Sleep()
	defer ep.Wake(s)
	for {
		if n := ep.Collect(out); n > 0 {
			return uintptr(n), nil
		}
		switch err := t.Wait(s.C, deadline); err {
		case nil:
		case unix.ETIMEDOUT:
			return uintptr(ep.Collect(out)), nil
		default:
			return 0, unix.EINTR
		}
	}
}

// millis turns a timeout of poll(2) into a deadline: zero for none; block is
// false if it is 0.
func millis(ms int) (deadline time.Time, block bool) {
	if ms > 0 {
		deadline = deadlineIn(time.Duration(ms) * time.Millisecond)
	}
	return deadline, ms != 0
}

// sysEpollWait is epoll_wait(2).
func sysEpollWait(t *Task, a Args) (uintptr, error) {
	deadline, block := millis(a.Int(3))
	return t.epollWait(a.Int(0), a[1], a.Int(2), deadline, block)
}

// withMask runs a waiting call with the signal mask at addr (0: as it is). The
// mask comes back when the call returns, after the handler of a signal that
// interrupted it.
func (t *Task) withMask(addr, size uintptr, call func() (uintptr, error)) (uintptr, error) {
	if addr == 0 {
		return call()
	}
	m, err := t.copySigset(addr, size)
	if err != nil {
		return 0, err
	}
	t.setTempMask(m)
	r, err := call()
	if err != unix.EINTR && err != errRestartNoHand {
		t.restoreMask()
	}
	return r, err
}

// sysEpollPwait is epoll_pwait(2).
func sysEpollPwait(t *Task, a Args) (uintptr, error) {
	deadline, block := millis(a.Int(3))
	return t.withMask(a[4], a[5], func() (uintptr, error) {
		return t.epollWait(a.Int(0), a[1], a.Int(2), deadline, block)
	})
}

// sysEpollPwait2 is epoll_pwait2(2).
func sysEpollPwait2(t *Task, a Args) (uintptr, error) {
	deadline, block, err := t.timeoutArg(a[3])
	if err != nil {
		return 0, err
	}
	return t.withMask(a[4], a[5], func() (uintptr, error) {
		return t.epollWait(a.Int(0), a[1], a.Int(2), deadline, block)
	})
}

// timeoutArg reads the timespec at addr (0: no timeout) as a deadline; block
// is false if it is zero.
func (t *Task) timeoutArg(addr uintptr) (deadline time.Time, block bool, err error) {
	if addr == 0 {
		return time.Time{}, true, nil
	}
	ts, err := copyIn[linux.Timespec](t, addr)
	if err != nil {
		return time.Time{}, false, err
	}
	if !ts.Valid() || ts.Sec < 0 {
		return time.Time{}, false, unix.EINVAL
	}
	d := saturatingDuration(ts)
	if d == 0 {
		return time.Time{}, false, nil
	}
	return deadlineIn(d), true, nil
}
