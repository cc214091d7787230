package rumprun

import (
	"sync"

	"golang.org/x/sys/unix"

	"gvisor.dev/gvisor/pkg/abi/linux"
)

// rlimits are a process's resource limits (getrlimit(2)).
type rlimits struct {
	mu  sync.Mutex
	lim [16]linux.RLimit // RLIM_NLIMITS
}

const rlimInfinity = ^uint64(0)

// maxThreads bounds the threads of a process (RLIMIT_NPROC).
const maxThreads = 32768

func (r *rlimits) init(c *Config) {
	for i := range r.lim {
		r.lim[i] = linux.RLimit{Cur: rlimInfinity, Max: rlimInfinity}
	}
	r.lim[unix.RLIMIT_STACK].Cur = 8 << 20
	r.lim[unix.RLIMIT_CORE] = linux.RLimit{Cur: 0, Max: rlimInfinity}
	r.lim[unix.RLIMIT_NPROC] = linux.RLimit{Cur: maxThreads, Max: maxThreads}
	nofile := c.NoFile
	if nofile == 0 {
		nofile = 1024
	}
	r.lim[unix.RLIMIT_NOFILE] = linux.RLimit{Cur: nofile, Max: max(nofile, 1<<20)}
	r.lim[unix.RLIMIT_MEMLOCK] = linux.RLimit{Cur: 8 << 20, Max: 8 << 20}
	r.lim[11] = linux.RLimit{Cur: maxQueuedSignals, Max: maxQueuedSignals} // RLIMIT_SIGPENDING
	r.lim[12] = linux.RLimit{Cur: 819200, Max: 819200}                     // RLIMIT_MSGQUEUE
	r.lim[13] = linux.RLimit{}                                             // RLIMIT_NICE
	r.lim[14] = linux.RLimit{}                                             // RLIMIT_RTPRIO
}

// copy takes over another process's limits.
func (r *rlimits) copy(from *rlimits) {
	from.mu.Lock()
	l := from.lim
	from.mu.Unlock()
	r.mu.Lock()
	r.lim = l
	r.mu.Unlock()
}

func (r *rlimits) get(which int) linux.RLimit {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.lim[which]
}

func (r *rlimits) threadsExceeded(n int) bool {
	return uint64(n) >= r.get(unix.RLIMIT_NPROC).Cur
}

// setRlimit is the write half of prlimit(2): the hard limit may only fall.
func (p *Process) setRlimit(which int, v linux.RLimit) error {
	if v.Cur > v.Max {
		return unix.EINVAL
	}
	p.limits.mu.Lock()
	defer p.limits.mu.Unlock()
	if v.Max > p.limits.lim[which].Max && p.uid() != 0 {
		return unix.EPERM
	}
	if which == unix.RLIMIT_NOFILE && v.Max > 1<<20 {
		return unix.EPERM
	}
	p.limits.lim[which] = v
	if which == unix.RLIMIT_NOFILE {
		p.fds.SetLimit(int(min(v.Cur, 1<<20)))
	}
	return nil
}

func sysPrlimit64(t *Task, a Args) (uintptr, error) {
	p := t.p
	if pid := int32(a[0]); pid != 0 {
		if p = t.k.process(pid); p == nil {
			return 0, unix.ESRCH
		}
	}
	which := a.Int(1)
	if which < 0 || which >= len(p.limits.lim) {
		return 0, unix.EINVAL
	}
	old := p.limits.get(which)
	if a[2] != 0 {
		v, err := copyIn[linux.RLimit](t, a[2])
		if err != nil {
			return 0, err
		}
		if err := p.setRlimit(which, v); err != nil {
			return 0, err
		}
	}
	if a[3] != 0 {
		return 0, copyOut(t, a[3], old)
	}
	return 0, nil
}

func sysGetrlimit(t *Task, a Args) (uintptr, error) {
	return sysPrlimit64(t, Args{0, a[0], 0, a[1]})
}

func sysSetrlimit(t *Task, a Args) (uintptr, error) {
	if a[1] == 0 {
		return 0, unix.EFAULT
	}
	return sysPrlimit64(t, Args{0, a[0], a[1], 0})
}
