package rumprun

import (
	"math"
	"time"

	"golang.org/x/sys/unix"

	"gvisor.dev/gvisor/pkg/abi/linux"

	"github.com/nabla-build/nabla-build/rumprun/hypercall"
)

// clockNow reads a system-wide clock, as the guest's vDSO shows it.
func (k *Kernel) clockNow(clock int32) time.Duration {
	switch clock {
	case linux.CLOCK_REALTIME, linux.CLOCK_REALTIME_COARSE, unix.CLOCK_TAI, linux.CLOCK_REALTIME_ALARM:
		return time.Duration(time.Now().UnixNano())
	}
	return k.monotonic()
}

// validClock reports whether clock is one of the system-wide clocks.
func validClock(clock int32) bool {
	switch clock {
	case linux.CLOCK_REALTIME, linux.CLOCK_MONOTONIC, linux.CLOCK_MONOTONIC_RAW, linux.CLOCK_REALTIME_COARSE,
		linux.CLOCK_MONOTONIC_COARSE, linux.CLOCK_BOOTTIME, unix.CLOCK_TAI, linux.CLOCK_REALTIME_ALARM, linux.CLOCK_BOOTTIME_ALARM:
		return true
	}
	return false
}

// deadlineIn is the time d from now; never zero, which means no deadline.
func deadlineIn(d time.Duration) time.Time { return time.Now().Add(d) }

// saturatingDuration converts a valid timespec; what is beyond 292 years is
// the longest duration.
func saturatingDuration(ts linux.Timespec) time.Duration {
	if ts.Sec >= math.MaxInt64/int64(time.Second) {
		return math.MaxInt64
	}
	return time.Duration(ts.Sec)*time.Second + time.Duration(ts.Nsec)
}

// CPU time. The host gives no clock of CPU time without a system call, so it
// is reckoned: a process has used the time in which the host thread was not
// waiting for devices, a thread the time between its waits. Time in which the
// host ran something else is counted too.

// cpuTime is the CPU time of the process.
func (p *Process) cpuTime() time.Duration {
	if p.isInit() {
		return max(0, p.k.monotonic()-p.start-(hypercall.IdleTime()-p.startIdle))
	}
	d := time.Duration(p.deadCPU.Load())
	for _, t := range p.threads() {
		d += t.cpu
	}
	return d
}

// cpuTime is the CPU time of the calling thread.
func (t *Task) cpuTime() time.Duration { return t.cpu + t.k.monotonic() - t.started }

// parked and resumed bracket a wait of the thread.
func (t *Task) parked() {
	t.cpu += t.k.monotonic() - t.started
	t.waiting.Store(true)
	t.leaveMemory()
}

func (t *Task) resumed() {
	t.enterMemory()
	t.started = t.k.monotonic()
	t.waiting.Store(false)
}

// readClock reads any clock of clock_gettime(2), CPU clocks of threads and
// processes included (clock_getcpuclockid(3)).
func (t *Task) readClock(clock int32) (time.Duration, error) {
	switch clock {
	case linux.CLOCK_PROCESS_CPUTIME_ID:
		return t.p.cpuTime(), nil
	case linux.CLOCK_THREAD_CPUTIME_ID:
		return t.cpuTime(), nil
	}
	if clock < 0 {
		const perThread, kinds, schedClock = 4, 3, 2
		id := ^(clock >> 3)
		if clock&kinds > schedClock {
			return 0, unix.EINVAL
		}
		if clock&perThread != 0 {
			u := t
			if id != 0 {
				if u = t.k.task(id); u == nil || u.p != t.p {
					return 0, unix.EINVAL
				}
			}
			if u != t {
				return u.cpu, nil
			}
			return t.cpuTime(), nil
		}
		p := t.p
		if id != 0 {
			if p = t.k.process(id); p == nil {
				return 0, unix.EINVAL
			}
		}
		return p.cpuTime(), nil
	}
	if !validClock(clock) {
		return 0, unix.EINVAL
	}
	return t.k.clockNow(clock), nil
}
