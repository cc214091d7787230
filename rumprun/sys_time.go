package rumprun

import (
	"time"

	"golang.org/x/sys/unix"

	"gvisor.dev/gvisor/pkg/abi/linux"
)

var timeCalls = []Call{
	{unix.SYS_CLOCK_GETTIME, "clock_gettime", sysClockGettime, Partial, "CPU clocks are reckoned from the time not spent waiting"},
	{unix.SYS_CLOCK_GETRES, "clock_getres", sysClockGetres, Full, ""},
	{unix.SYS_CLOCK_SETTIME, "clock_settime", sysEPERM, Unsupported, "EPERM, as in any container"},
	{unix.SYS_CLOCK_ADJTIME, "clock_adjtime", sysEPERM, Unsupported, "EPERM, as in any container"},
	{unix.SYS_ADJTIMEX, "adjtimex", sysEPERM, Unsupported, "EPERM, as in any container"},
	{unix.SYS_SETTIMEOFDAY, "settimeofday", sysEPERM, Unsupported, "EPERM, as in any container"},
	{unix.SYS_GETTIMEOFDAY, "gettimeofday", sysGettimeofday, Full, ""},
	{unix.SYS_TIME, "time", sysTime, Full, ""},
	{unix.SYS_NANOSLEEP, "nanosleep", sysNanosleep, Full, ""},
	{unix.SYS_CLOCK_NANOSLEEP, "clock_nanosleep", sysClockNanosleep, Partial, "CPU clocks: ENOTSUP"},
	{unix.SYS_TIMES, "times", sysTimes, Partial, "all time is user time"},
	{unix.SYS_GETRUSAGE, "getrusage", sysGetrusage, Partial, "times and maximal memory; the counts are 0"},
	{unix.SYS_GETITIMER, "getitimer", sysGetitimer, Full, ""},
	{unix.SYS_SETITIMER, "setitimer", sysSetitimer, Partial, "ITIMER_VIRTUAL and ITIMER_PROF run on reckoned CPU time"},
	{unix.SYS_ALARM, "alarm", sysAlarm, Full, ""},
	{unix.SYS_TIMER_CREATE, "timer_create", sysTimerCreate, Full, ""},
	{unix.SYS_TIMER_SETTIME, "timer_settime", sysTimerSettime, Full, ""},
	{unix.SYS_TIMER_GETTIME, "timer_gettime", sysTimerGettime, Full, ""},
	{unix.SYS_TIMER_GETOVERRUN, "timer_getoverrun", sysTimerGetoverrun, Full, ""},
	{unix.SYS_TIMER_DELETE, "timer_delete", sysTimerDelete, Full, ""},
}

// sysEPERM answers for what only a privileged process may do.
func sysEPERM(*Task, Args) (uintptr, error) { return 0, unix.EPERM }

func sysClockGettime(t *Task, a Args) (uintptr, error) {
	d, err := t.readClock(int32(a[0]))
	if err != nil {
		return 0, err
	}
	return 0, copyOut(t, a[1], linux.DurationToTimespec(d))
}

func sysClockGetres(t *Task, a Args) (uintptr, error) {
	if _, err := t.readClock(int32(a[0])); err != nil {
		return 0, err
	}
	res := time.Duration(1)
	switch int32(a[0]) {
	case linux.CLOCK_REALTIME_COARSE, linux.CLOCK_MONOTONIC_COARSE:
		res = 4 * time.Millisecond
	}
	if a[1] == 0 {
		return 0, nil
	}
	return 0, copyOut(t, a[1], linux.DurationToTimespec(res))
}

func sysGettimeofday(t *Task, a Args) (uintptr, error) {
	if a[0] != 0 {
		if err := copyOut(t, a[0], linux.NsecToTimeval(time.Now().UnixNano())); err != nil {
			return 0, err
		}
	}
	if a[1] != 0 {
		return 0, copyOut(t, a[1], [2]int32{})
	}
	return 0, nil
}

func sysTime(t *Task, a Args) (uintptr, error) {
	now := time.Now().Unix()
	if a[0] != 0 {
		if err := copyOut(t, a[0], now); err != nil {
			return 0, err
		}
	}
	return uintptr(now), nil
}

// sleep blocks until the deadline; interrupted, it leaves what is left at rem
// (0: nowhere). If no handler ran it goes on to the same end.
func (t *Task) sleep(deadline time.Time, rem uintptr) error {
	switch t.Wait(nil, deadline) {
	case nil, unix.ETIMEDOUT:
		return nil
	}
	if rem != 0 {
		if err := copyOut(t, rem, linux.DurationToTimespec(max(0, time.Until(deadline)))); err != nil {
			return err
		}
	}
	return errRestartNoHand
}

func sysNanosleep(t *Task, a Args) (uintptr, error) {
	ts, err := copyIn[linux.Timespec](t, a[0])
	if err != nil {
		return 0, err
	}
	if !ts.Valid() {
		return 0, unix.EINVAL
	}
	return 0, t.sleep(t.sameEnd(deadlineIn(saturatingDuration(ts))), a[1])
}

func sysClockNanosleep(t *Task, a Args) (uintptr, error) {
	clock := int32(a[0])
	if clock == linux.CLOCK_PROCESS_CPUTIME_ID || clock < 0 {
		return 0, unix.ENOTSUP
	}
	if clock == linux.CLOCK_THREAD_CPUTIME_ID || !validClock(clock) {
		return 0, unix.EINVAL
	}
	ts, err := copyIn[linux.Timespec](t, a[2])
	if err != nil {
		return 0, err
	}
	if !ts.Valid() || ts.Sec < 0 {
		return 0, unix.EINVAL
	}
	d := saturatingDuration(ts)
	if a[1]&linux.TIMER_ABSTIME == 0 {
		return 0, t.sleep(t.sameEnd(deadlineIn(d)), a[3])
	}
	if d -= t.k.clockNow(clock); d <= 0 {
		return 0, nil
	}
	if err := t.Wait(nil, deadlineIn(d)); err != unix.ETIMEDOUT && err != nil {
		return 0, errRestartNoHand
	}
	return 0, nil
}

// clockTicks are the units of times(2): USER_HZ.
func clockTicks(d time.Duration) int64 { return int64(d / (time.Second / 100)) }

func sysTimes(t *Task, a Args) (uintptr, error) {
	if a[0] != 0 {
		if err := copyOut(t, a[0], [4]int64{clockTicks(t.p.cpuTime()), 0, clockTicks(time.Duration(t.p.childCPU.Load()))}); err != nil {
			return 0, err
		}
	}
	return uintptr(clockTicks(t.k.monotonic())), nil
}

func sysGetrusage(t *Task, a Args) (uintptr, error) {
	const self, children, thread = 0, -1, 1
	var r linux.Rusage
	switch a.Int(0) {
	case self:
		r.UTime = linux.DurationToTimeval(t.p.cpuTime())
		r.MaxRSS = int64(t.p.as.Resident() >> 10)
	case thread:
		r.UTime = linux.DurationToTimeval(t.cpuTime())
		r.MaxRSS = int64(t.p.as.Resident() >> 10)
	case children:
		r.UTime = linux.DurationToTimeval(time.Duration(t.p.childCPU.Load()))
	default:
		return 0, unix.EINVAL
	}
	return 0, copyOut(t, a[1], r)
}
