package rumprun

import (
	"maps"
	"slices"

	"golang.org/x/sys/unix"

	"gvisor.dev/gvisor/pkg/abi/linux"
)

var groupCalls = []Call{
	{unix.SYS_GETPGRP, "getpgrp", sysGetpgrp, Full, ""},
	{unix.SYS_GETPGID, "getpgid", sysGetpgid, Full, ""},
	{unix.SYS_SETPGID, "setpgid", sysSetpgid, Full, ""},
	{unix.SYS_GETSID, "getsid", sysGetsid, Full, ""},
	{unix.SYS_SETSID, "setsid", sysSetsid, Full, ""},
	{unix.SYS_KILL, "kill", sysKill, Full, ""},
}

// group and session are the numbers of p's process group and session.
func (p *Process) group() int32 {
	p.k.mu.Lock()
	defer p.k.mu.Unlock()
	return p.pgid
}

func (p *Process) session() int32 {
	p.k.mu.Lock()
	defer p.k.mu.Unlock()
	return p.sid
}

// processes lists the processes.
func (k *Kernel) processes() []*Process {
	k.mu.Lock()
	defer k.mu.Unlock()
	return slices.Collect(maps.Values(k.procs))
}

// processArg is the process of a pid argument; 0 is the caller's.
func (t *Task) processArg(pid uintptr) (*Process, error) {
	if int32(pid) == 0 {
		return t.p, nil
	}
	if p := t.k.process(int32(pid)); p != nil {
		return p, nil
	}
	if u := t.k.task(int32(pid)); u != nil {
		return u.p, nil
	}
	return nil, unix.ESRCH
}

// sysGetpgrp is getpgrp(2).
func sysGetpgrp(t *Task, _ Args) (uintptr, error) {
	return uintptr(t.p.group()), nil
}

// sysGetpgid is getpgid(2).
func sysGetpgid(t *Task, a Args) (uintptr, error) {
	p, err := t.processArg(a[0])
	if err != nil {
		return 0, err
	}
	return uintptr(p.group()), nil
}

// sysGetsid is getsid(2).
func sysGetsid(t *Task, a Args) (uintptr, error) {
	p, err := t.processArg(a[0])
	if err != nil {
		return 0, err
	}
	return uintptr(p.session()), nil
}

// sysSetpgid is setpgid(2).
func sysSetpgid(t *Task, a Args) (uintptr, error) {
	pid, pgid := int32(a[0]), int32(a[1])
	if pgid < 0 {
		return 0, unix.EINVAL
	}
	k := t.k
	k.mu.Lock()
	defer k.mu.Unlock()
	p := t.p
	if pid != 0 {
		p = k.procs[pid]
	}
	if p == nil || p != t.p && p.parent != t.p {
		return 0, unix.ESRCH
	}
	if pgid == 0 {
		pgid = p.pid
	}
	switch {
	case p != t.p && p.sid != t.p.sid, p.sid == p.pid:
		return 0, unix.EPERM
	case p != t.p && p.birth != nil && p.birth.done.Load():
		return 0, unix.EACCES
	}
	if pgid != p.pid {
		found := false
		for _, q := range k.procs {
			found = found || q.pgid == pgid && q.sid == t.p.sid
		}
		if !found {
			return 0, unix.EPERM
		}
	}
	p.pgid = pgid
	return 0, nil
}

// sysSetsid is setsid(2).
func sysSetsid(t *Task, _ Args) (uintptr, error) {
	k := t.k
	k.mu.Lock()
	defer k.mu.Unlock()
	for _, q := range k.procs {
		if q.pgid == t.p.pid {
			return 0, unix.EPERM // it leads a group
		}
	}
	t.p.sid, t.p.pgid = t.p.pid, t.p.pid
	return uintptr(t.p.pid), nil
}

// maySignal says whether t may send p a signal (kill(2)).
func (t *Task) maySignal(p *Process, signo int) bool {
	c, o := t.p.fs.creds.Load(), p.fs.creds.Load()
	if p == t.p || c.EUID == 0 || c.EUID == o.UID || c.EUID == o.SUID || c.UID == o.UID || c.UID == o.SUID {
		return true
	}
	t.k.mu.Lock()
	defer t.k.mu.Unlock()
	return unix.Signal(signo) == unix.SIGCONT && t.p.sid == p.sid
}

// sysKill is kill(2).
func sysKill(t *Task, a Args) (uintptr, error) {
	pid, n := int32(a[0]), a.Int(1)
	if err := validSignal(n); err != nil {
		return 0, err
	}
	if pid == -1<<31 {
		return 0, unix.ESRCH
	}
	if pid > 0 {
		p, err := t.processArg(uintptr(pid))
		if err != nil {
			return 0, err
		}
		if !t.maySignal(p, n) {
			return 0, unix.EPERM
		}
		if n != 0 {
			err = p.signal(nil, t.killInfo(n, linux.SI_USER))
		}
		return 0, err
	}
	t.k.mu.Lock()
	group := -pid
	if pid == 0 {
		group = t.p.pgid
	}
	var targets []*Process
	for _, p := range t.k.procs {
		if pid == -1 && p != t.p && !p.isInit() || pid != -1 && p.pgid == group {
			targets = append(targets, p)
		}
	}
	t.k.mu.Unlock()
	if len(targets) == 0 {
		return 0, unix.ESRCH
	}
	denied := true
	for _, p := range targets {
		if t.maySignal(p, n) {
			denied = false
			if n != 0 {
				p.signal(nil, t.killInfo(n, linux.SI_USER))
			}
		}
	}
	if denied {
		return 0, unix.EPERM
	}
	return 0, nil
}
