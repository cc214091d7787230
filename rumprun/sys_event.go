package rumprun

import (
	"time"

	"golang.org/x/sys/unix"

	"gvisor.dev/gvisor/pkg/abi/linux"
	"gvisor.dev/gvisor/pkg/waiter"

	"github.com/nabla-build/nabla-build/rumprun/event"
	"github.com/nabla-build/nabla-build/rumprun/vfs"
)

// eventCalls make the descriptors of package event but epoll's.
var eventCalls = []Call{
	{unix.SYS_PIPE, "pipe", sysPipe, Full, ""},
	{unix.SYS_PIPE2, "pipe2", sysPipe2, Partial, "O_NOTIFICATION_PIPE is ENOPKG"},
	{unix.SYS_EVENTFD, "eventfd", sysEventfd, Full, ""},
	{unix.SYS_EVENTFD2, "eventfd2", sysEventfd2, Full, ""},
	{unix.SYS_TIMERFD_CREATE, "timerfd_create", sysTimerfdCreate, Partial, "the alarm clocks are EPERM"},
	{unix.SYS_TIMERFD_SETTIME, "timerfd_settime", sysTimerfdSettime, Partial, "TFD_TIMER_CANCEL_ON_SET is accepted; steps of the host's clock are not noticed"},
	{unix.SYS_TIMERFD_GETTIME, "timerfd_gettime", sysTimerfdGettime, Full, ""},
	{unix.SYS_SIGNALFD, "signalfd", sysSignalfd, Partial, "signals sent to one thread can be read by all threads"},
	{unix.SYS_SIGNALFD4, "signalfd4", sysSignalfd4, Partial, "signals sent to one thread can be read by all threads"},
}

// newFD installs a new file.
func (t *Task) newFD(f vfs.File, cloexec bool) (uintptr, error) {
	return t.install(NewDescription(f), cloexec)
}

// newFDPair installs two new files and stores their descriptors at addr. If
// that fails both are closed again.
func (t *Task) newFDPair(a, b vfs.File, cloexec bool, addr uintptr) error {
	fd0, err := t.newFD(a, cloexec)
	if err != nil {
		b.Release()
		return err
	}
	fd1, err := t.newFD(b, cloexec)
	if err != nil {
		t.p.fds.Close(int(fd0))
		return err
	}
	if err := copyOut(t, addr, [2]int32{int32(fd0), int32(fd1)}); err != nil {
		t.p.fds.Close(int(fd0))
		t.p.fds.Close(int(fd1))
		return err
	}
	return nil
}

func (t *Task) pipe(addr uintptr, flags int) error {
	const notification = unix.O_EXCL
	if flags&^(unix.O_CLOEXEC|unix.O_NONBLOCK|unix.O_DIRECT|notification) != 0 {
		return unix.EINVAL
	}
	if flags&notification != 0 {
		return unix.ENOPKG
	}
	c := t.p.fs.creds.Load()
	r, w := t.k.events.NewPipe(uint32(flags&(unix.O_NONBLOCK|unix.O_DIRECT)), c.FSUID, c.FSGID)
	return t.newFDPair(r, w, flags&unix.O_CLOEXEC != 0, addr)
}

// sysPipe is pipe(2).
func sysPipe(t *Task, a Args) (uintptr, error) { return 0, t.pipe(a[0], 0) }

// sysPipe2 is pipe2(2). There are no notification pipes.
func sysPipe2(t *Task, a Args) (uintptr, error) { return 0, t.pipe(a[0], a.Int(1)) }

func (t *Task) eventfd(init uint32, flags int) (uintptr, error) {
	if flags&^(unix.EFD_SEMAPHORE|unix.EFD_CLOEXEC|unix.EFD_NONBLOCK) != 0 {
		return 0, unix.EINVAL
	}
	f := t.k.events.NewEventfd(uint64(init), flags&unix.EFD_SEMAPHORE != 0, uint32(flags&unix.EFD_NONBLOCK))
	return t.newFD(f, flags&unix.EFD_CLOEXEC != 0)
}

// sysEventfd is eventfd(2) without flags.
func sysEventfd(t *Task, a Args) (uintptr, error) { return t.eventfd(uint32(a[0]), 0) }

// sysEventfd2 is eventfd(2).
func sysEventfd2(t *Task, a Args) (uintptr, error) { return t.eventfd(uint32(a[0]), a.Int(1)) }

// sysTimerfdCreate is timerfd_create(2). The alarm clocks need a capability
// that no container has.
func sysTimerfdCreate(t *Task, a Args) (uintptr, error) {
	clock, flags := int32(a[0]), a.Int(1)
	if flags&^(unix.TFD_CLOEXEC|unix.TFD_NONBLOCK) != 0 {
		return 0, unix.EINVAL
	}
	switch clock {
	case linux.CLOCK_REALTIME, linux.CLOCK_MONOTONIC, linux.CLOCK_BOOTTIME:
	case linux.CLOCK_REALTIME_ALARM, linux.CLOCK_BOOTTIME_ALARM:
		return 0, unix.EPERM
	default:
		return 0, unix.EINVAL
	}
	k := t.k
	f := k.events.NewTimerfd(clock, func() time.Duration { return k.clockNow(clock) }, uint32(flags&unix.TFD_NONBLOCK))
	return t.newFD(f, flags&unix.TFD_CLOEXEC != 0)
}

// timerfd returns the timer behind fd, EINVAL if it is another file. The
// caller drops the description's reference.
func (t *Task) timerfd(fd int) (*event.Timerfd, *Description, error) {
	d, err := t.p.fds.Get(fd)
	if err != nil {
		return nil, nil, err
	}
	f, ok := d.File.(*event.Timerfd)
	if !ok {
		d.DecRef()
		return nil, nil, unix.EINVAL
	}
	return f, d, nil
}

// sysTimerfdSettime is timerfd_settime(2). TFD_TIMER_CANCEL_ON_SET is accepted
// without effect: steps of the host's clock are not noticed.
func sysTimerfdSettime(t *Task, a Args) (uintptr, error) {
	if a.Int(1)&^(unix.TFD_TIMER_ABSTIME|unix.TFD_TIMER_CANCEL_ON_SET) != 0 {
		return 0, unix.EINVAL
	}
	v, err := copyIn[linux.Itimerspec](t, a[2])
	if err != nil {
		return 0, err
	}
	if !v.Value.Valid() || !v.Interval.Valid() || v.Value.Sec < 0 || v.Interval.Sec < 0 {
		return 0, unix.EINVAL
	}
	f, d, err := t.timerfd(a.Int(0))
	if err != nil {
		return 0, err
	}
	defer d.DecRef()
	left, interval := f.Set(saturatingDuration(v.Value), saturatingDuration(v.Interval), a[1]&unix.TFD_TIMER_ABSTIME != 0)
	if a[3] != 0 {
		return 0, copyOut(t, a[3], itimerspec(left, interval))
	}
	return 0, nil
}

// sysTimerfdGettime is timerfd_gettime(2).
func sysTimerfdGettime(t *Task, a Args) (uintptr, error) {
	f, d, err := t.timerfd(a.Int(0))
	if err != nil {
		return 0, err
	}
	defer d.DecRef()
	return 0, copyOut(t, a[1], itimerspec(f.Left()))
}

// signalSource is a process's signals, for signalfd.
type signalSource struct{ p *Process }

func (s signalSource) PendingSignals() uint64 {
	set := s.p.sigs.pending()
	for _, t := range s.p.threads() {
		set |= t.sigs.pending()
	}
	return uint64(set)
}

// TakeSignal takes a signal of the process, or one sent to a thread that
// blocks it.
func (s signalSource) TakeSignal(set uint64, out *unix.SignalfdSiginfo) bool {
	info, ok := s.p.sigs.pop(sigSet(set))
	if !ok {
		for _, t := range s.p.threads() {
			if info, ok = t.sigs.pop(sigSet(set) & t.mask()); ok {
				break
			}
		}
	}
	if !ok {
		return false
	}
	*out = signalfdInfo(&info)
	return true
}

func (s signalSource) EventRegister(e *waiter.Entry)   { s.p.sigEvents.EventRegister(e) }
func (s signalSource) EventUnregister(e *waiter.Entry) { s.p.sigEvents.EventUnregister(e) }

// signalfdInfo says of a signal what its kind has (signalfd(2), sigaction(2)).
func signalfdInfo(i *linux.SignalInfo) unix.SignalfdSiginfo {
	out := unix.SignalfdSiginfo{Signo: uint32(i.Signo), Errno: i.Errno, Code: i.Code}
	switch {
	case i.Code == linux.SI_TIMER:
		out.Tid, out.Overrun = uint32(i.TimerID()), uint32(i.Overrun())
		out.Ptr, out.Int = i.Sigval(), int32(i.Sigval())
	case i.Code <= 0 && i.Code != linux.SI_USER && i.Code != linux.SI_TKILL:
		out.Pid, out.Uid = uint32(i.PID()), uint32(i.UID())
		out.Ptr, out.Int = i.Sigval(), int32(i.Sigval())
	case i.Code <= 0 || i.Code == linux.SI_KERNEL:
		out.Pid, out.Uid = uint32(i.PID()), uint32(i.UID())
	case i.Signo == int32(unix.SIGCHLD):
		out.Pid, out.Uid, out.Status = uint32(i.PID()), uint32(i.UID()), i.Status()
	default:
		out.Addr = i.Addr()
	}
	return out
}

func (t *Task) signalfd(fd int, mask, size uintptr, flags int) (uintptr, error) {
	if flags&^(unix.SFD_CLOEXEC|unix.SFD_NONBLOCK) != 0 {
		return 0, unix.EINVAL
	}
	set, err := t.copySigset(mask, size)
	if err != nil {
		return 0, err
	}
	set &^= unblockable
	if fd == -1 {
		f := t.k.events.NewSignalfd(signalSource{t.p}, uint64(set), uint32(flags&unix.SFD_NONBLOCK))
		return t.newFD(f, flags&unix.SFD_CLOEXEC != 0)
	}
	d, err := t.p.fds.Get(fd)
	if err != nil {
		return 0, err
	}
	defer d.DecRef()
	f, ok := d.File.(*event.Signalfd)
	if !ok {
		return 0, unix.EINVAL
	}
	f.SetMask(uint64(set))
	t.p.sigEvents.Notify(waiter.ReadableEvents)
	return uintptr(fd), nil
}

// sysSignalfd is signalfd(2) without flags.
func sysSignalfd(t *Task, a Args) (uintptr, error) { return t.signalfd(a.Int(0), a[1], a[2], 0) }

// sysSignalfd4 is signalfd(2).
func sysSignalfd4(t *Task, a Args) (uintptr, error) {
	return t.signalfd(a.Int(0), a[1], a[2], a.Int(3))
}
