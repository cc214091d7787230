package rumprun

import (
	"sync"
	"time"

	"golang.org/x/sys/unix"

	"gvisor.dev/gvisor/pkg/abi/linux"
)

// signalTimer fires at a time and then every interval: the machine under
// setitimer(2) and timer_create(2). All methods lock for themselves.
type signalTimer struct {
	mu       sync.Mutex
	timer    *time.Timer
	deadline time.Time // zero: disarmed
	interval time.Duration
	gen      int // a firing of an older setting is void
	fire     func(missed int)
}

// set arms the timer (d 0: disarms it) and returns the old setting.
func (s *signalTimer) set(d, interval time.Duration) (oldLeft, oldInterval time.Duration) {
	s.mu.Lock()
	defer s.mu.Unlock()
	oldLeft, oldInterval = s.leftLocked()
	if s.timer != nil {
		s.timer.Stop()
	}
	s.gen++
	s.deadline, s.interval = time.Time{}, interval
	if d > 0 {
		s.deadline = time.Now().Add(d)
		s.armLocked(d)
	}
	return
}

func (s *signalTimer) armLocked(d time.Duration) {
	gen := s.gen
	s.timer = time.AfterFunc(d, func() { s.expired(gen) })
}

func (s *signalTimer) expired(gen int) {
	s.mu.Lock()
	if gen != s.gen {
		s.mu.Unlock()
		return
	}
	missed := 0
	if s.interval > 0 {
		now := time.Now()
		s.deadline = s.deadline.Add(s.interval)
		if late := now.Sub(s.deadline); late >= 0 {
			missed = int(late/s.interval) + 1
			s.deadline = s.deadline.Add(time.Duration(missed) * s.interval)
		}
		s.armLocked(s.deadline.Sub(now))
	} else {
		s.deadline = time.Time{}
	}
	s.mu.Unlock()
	s.fire(missed)
}

func (s *signalTimer) left() (left, interval time.Duration) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.leftLocked()
}

func (s *signalTimer) leftLocked() (left, interval time.Duration) {
	if s.deadline.IsZero() {
		return 0, 0
	}
	return max(1, time.Until(s.deadline)), s.interval
}

// intervalTimers are a process's three timers of setitimer(2). The two that
// count CPU time are checked against it when their least possible time is over.
type intervalTimers struct {
	p    *Process
	real signalTimer
	cpu  [2]cpuTimer // ITIMER_VIRTUAL, ITIMER_PROF
}

// cpuTimer counts CPU time of a process: it looks again whenever the CPU time
// that is left could have passed.
type cpuTimer struct {
	mu       sync.Mutex
	timer    *time.Timer
	at       time.Duration // CPU time at which it fires; 0: disarmed
	interval time.Duration
	gen      int
}

func (c *cpuTimer) set(p *Process, signo unix.Signal, d, interval time.Duration) (oldLeft, oldInterval time.Duration) {
	c.mu.Lock()
	defer c.mu.Unlock()
	oldLeft, oldInterval = c.leftLocked(p)
	if c.timer != nil {
		c.timer.Stop()
	}
	c.gen++
	c.at, c.interval = 0, interval
	if d > 0 {
		c.at = p.cpuTime() + d
		c.watchLocked(p, signo, d)
	}
	return
}

func (c *cpuTimer) leftLocked(p *Process) (left, interval time.Duration) {
	if c.at == 0 {
		return 0, 0
	}
	return max(1, c.at-p.cpuTime()), c.interval
}

func (c *cpuTimer) watchLocked(p *Process, signo unix.Signal, d time.Duration) {
	gen := c.gen
	c.timer = time.AfterFunc(d, func() {
		c.mu.Lock()
		defer c.mu.Unlock()
		if gen != c.gen {
			return
		}
		if left := c.at - p.cpuTime(); left > 0 {
			c.watchLocked(p, signo, left)
			return
		}
		if c.interval > 0 {
			c.at += c.interval
			c.watchLocked(p, signo, max(c.interval, time.Millisecond))
		} else {
			c.at = 0
		}
		p.signal(nil, linux.SignalInfo{Signo: int32(signo), Code: linux.SI_KERNEL})
	})
}

func (i *intervalTimers) set(which int, d, interval time.Duration) (time.Duration, time.Duration, error) {
	switch which {
	case linux.ITIMER_REAL:
		i.real.mu.Lock()
		i.real.fire = func(int) {
			i.p.signal(nil, linux.SignalInfo{Signo: int32(unix.SIGALRM), Code: linux.SI_KERNEL})
		}
		i.real.mu.Unlock()
		l, n := i.real.set(d, interval)
		return l, n, nil
	case linux.ITIMER_VIRTUAL:
		l, n := i.cpu[0].set(i.p, unix.SIGVTALRM, d, interval)
		return l, n, nil
	case linux.ITIMER_PROF:
		l, n := i.cpu[1].set(i.p, unix.SIGPROF, d, interval)
		return l, n, nil
	}
	return 0, 0, unix.EINVAL
}

// clear disarms all three (exit).
func (i *intervalTimers) clear() {
	for which := range int(linux.ITIMER_PROF) + 1 {
		i.set(which, 0, 0)
	}
}

func (i *intervalTimers) get(which int) (time.Duration, time.Duration, error) {
	switch which {
	case linux.ITIMER_REAL:
		l, n := i.real.left()
		return l, n, nil
	case linux.ITIMER_VIRTUAL, linux.ITIMER_PROF:
		c := &i.cpu[which-linux.ITIMER_VIRTUAL]
		c.mu.Lock()
		defer c.mu.Unlock()
		l, n := c.leftLocked(i.p)
		return l, n, nil
	}
	return 0, 0, unix.EINVAL
}

func itimerVal(left, interval time.Duration) linux.ItimerVal {
	return linux.ItimerVal{Interval: linux.DurationToTimeval(interval), Value: linux.DurationToTimeval(left)}
}

func sysGetitimer(t *Task, a Args) (uintptr, error) {
	l, n, err := t.p.timers.get(a.Int(0))
	if err != nil {
		return 0, err
	}
	return 0, copyOut(t, a[1], itimerVal(l, n))
}

func sysSetitimer(t *Task, a Args) (uintptr, error) {
	var v linux.ItimerVal
	if a[1] != 0 {
		var err error
		if v, err = copyIn[linux.ItimerVal](t, a[1]); err != nil {
			return 0, err
		}
	}
	for _, tv := range []linux.Timeval{v.Value, v.Interval} {
		if tv.Sec < 0 || tv.Usec < 0 || tv.Usec >= 1e6 {
			return 0, unix.EINVAL
		}
	}
	l, n, err := t.p.timers.set(a.Int(0), time.Duration(v.Value.ToNsecCapped()), time.Duration(v.Interval.ToNsecCapped()))
	if err != nil {
		return 0, err
	}
	if a[2] != 0 {
		return 0, copyOut(t, a[2], itimerVal(l, n))
	}
	return 0, nil
}

// sysAlarm is alarm(2).
func sysAlarm(t *Task, a Args) (uintptr, error) {
	l, _, err := t.p.timers.set(linux.ITIMER_REAL, time.Duration(uint32(a[0]))*time.Second, 0)
	if err != nil {
		return 0, err
	}
	return uintptr((l + time.Second - 1) / time.Second), nil
}

// posixTimer is a timer of timer_create(2).
type posixTimer struct {
	signalTimer
	clock   int32
	overrun int
}

// posixTimers are a process's timers by number.
type posixTimers struct {
	p    *Process
	mu   sync.Mutex
	m    map[int32]*posixTimer
	next int32
}

func (s *posixTimers) get(id int32) (*posixTimer, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if pt := s.m[id]; pt != nil {
		return pt, nil
	}
	return nil, unix.EINVAL
}

// clear deletes all timers (execve(2)).
func (s *posixTimers) clear() {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, pt := range s.m {
		pt.set(0, 0)
	}
	s.m = nil
}

// sysTimerCreate is timer_create(2).
func sysTimerCreate(t *Task, a Args) (uintptr, error) {
	clock := int32(a[0])
	if _, err := t.readClock(clock); err != nil {
		return 0, err
	}
	s := &t.p.posix
	ev := linux.Sigevent{Signo: int32(unix.SIGALRM), Notify: linux.SIGEV_SIGNAL}
	haveEvent := a[1] != 0
	if haveEvent {
		var err error
		if ev, err = copyIn[linux.Sigevent](t, a[1]); err != nil {
			return 0, err
		}
	}
	var target *Task
	switch ev.Notify {
	case linux.SIGEV_NONE, linux.SIGEV_SIGNAL, linux.SIGEV_THREAD:
	case linux.SIGEV_SIGNAL | linux.SIGEV_THREAD_ID:
		if target = t.k.task(ev.Tid); target == nil || target.p != t.p {
			return 0, unix.EINVAL
		}
	default:
		return 0, unix.EINVAL
	}
	if ev.Notify != linux.SIGEV_NONE && (ev.Signo < 1 || ev.Signo > linux.SignalMaximum) {
		return 0, unix.EINVAL
	}
	s.mu.Lock()
	if s.m == nil {
		s.m = map[int32]*posixTimer{}
	}
	id := s.next
	s.next++
	pt := &posixTimer{clock: clock}
	s.m[id] = pt
	s.mu.Unlock()
	if !haveEvent {
		ev.Value = uint64(id)
	}
	p := t.p
	pt.fire = func(missed int) {
		pt.mu.Lock()
		pt.overrun = missed
		pt.mu.Unlock()
		if ev.Notify == linux.SIGEV_NONE {
			return
		}
		info := linux.SignalInfo{Signo: ev.Signo, Code: linux.SI_TIMER}
		info.SetTimerID(linux.TimerID(id))
		info.SetOverrun(int32(missed))
		info.SetSigval(ev.Value)
		p.signal(target, info)
	}
	if err := copyOut(t, a[2], id); err != nil {
		s.mu.Lock()
		delete(s.m, id)
		s.mu.Unlock()
		return 0, err
	}
	return 0, nil
}

func itimerspec(left, interval time.Duration) linux.Itimerspec {
	return linux.Itimerspec{Interval: linux.DurationToTimespec(interval), Value: linux.DurationToTimespec(left)}
}

// sysTimerSettime is timer_settime(2).
func sysTimerSettime(t *Task, a Args) (uintptr, error) {
	pt, err := t.p.posix.get(int32(a[0]))
	if err != nil {
		return 0, err
	}
	v, err := copyIn[linux.Itimerspec](t, a[2])
	if err != nil {
		return 0, err
	}
	if !v.Valid() {
		return 0, unix.EINVAL
	}
	d := saturatingDuration(v.Value)
	if a[1]&linux.TIMER_ABSTIME != 0 && d != 0 {
		now, err := t.readClock(pt.clock)
		if err != nil {
			return 0, err
		}
		d = max(1, d-now)
	}
	l, n := pt.set(d, saturatingDuration(v.Interval))
	if a[3] != 0 {
		return 0, copyOut(t, a[3], itimerspec(l, n))
	}
	return 0, nil
}

func sysTimerGettime(t *Task, a Args) (uintptr, error) {
	pt, err := t.p.posix.get(int32(a[0]))
	if err != nil {
		return 0, err
	}
	return 0, copyOut(t, a[1], itimerspec(pt.left()))
}

func sysTimerGetoverrun(t *Task, a Args) (uintptr, error) {
	pt, err := t.p.posix.get(int32(a[0]))
	if err != nil {
		return 0, err
	}
	pt.mu.Lock()
	defer pt.mu.Unlock()
	return uintptr(pt.overrun), nil
}

func sysTimerDelete(t *Task, a Args) (uintptr, error) {
	s := &t.p.posix
	pt, err := s.get(int32(a[0]))
	if err != nil {
		return 0, err
	}
	s.mu.Lock()
	delete(s.m, int32(a[0]))
	s.mu.Unlock()
	pt.set(0, 0)
	return 0, nil
}
