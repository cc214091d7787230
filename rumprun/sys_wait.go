package rumprun

import (
	"encoding/binary"
	"slices"
	"time"

	"golang.org/x/sys/unix"

	"gvisor.dev/gvisor/pkg/abi/linux"
	"gvisor.dev/gvisor/pkg/waiter"
)

var waitCalls = []Call{
	{unix.SYS_WAIT4, "wait4", sysWait4, Full, ""},
	{unix.SYS_WAITID, "waitid", sysWaitid, Full, ""},
}

// ended says whether the process has ended, reaped or not.
func (p *Process) ended() bool {
	select {
	case <-p.done:
		return true
	default:
		return false
	}
}

// forget removes a process from the kernel's lists.
func (k *Kernel) forget(p *Process) {
	k.mu.Lock()
	defer k.mu.Unlock()
	delete(k.procs, p.pid)
	if p.parent != nil {
		p.parent.children = slices.DeleteFunc(p.parent.children, func(c *Process) bool { return c == p })
	}
}

// userThreads counts the threads of a user (RLIMIT_NPROC).
func (k *Kernel) userThreads(uid uint32) int {
	k.mu.Lock()
	defer k.mu.Unlock()
	n := 0
	for _, t := range k.tasks {
		if t.p.fs.creds.Load().UID == uid {
			n++
		}
	}
	return n
}

// releaseAll gives back what a process that ends holds.
func (p *Process) releaseAll() {
	p.releaseRecordLocks()
	p.posix.clear()
	p.timers.clear()
	p.fds.Release()
	old := p.space
	p.setSpace(newSpace(p.k.arena.NewAddressSpace())) // /proc may look at it
	old.drop()
}

// exited runs when the last thread of a process has gone (exit(2)).
func (p *Process) exited() {
	if p.isInit() {
		p.k.exit(p)
		return
	}
	k := p.k
	p.releaseAll()
	if p.birth != nil && p.birth.undone.Load() {
		// It has never been. Children it has none: it could not make any.
		k.forget(p)
		close(p.done)
		p.birth.release()
		return
	}
	// Orphans go to the nearest ancestor that asked for them, or to init.
	k.mu.Lock()
	heir := p.parent
	for heir != nil && (!heir.subreaper || heir.ended()) {
		heir = heir.parent
	}
	if heir == nil {
		heir = k.procs[1]
	}
	orphans := p.children
	p.children = nil
	for _, c := range orphans {
		c.parent = heir
		if heir != nil {
			heir.children = append(heir.children, c)
		}
	}
	parent := p.parent
	groups := k.newlyOrphaned(p, parent, orphans)
	leader := p.sid == p.pid
	k.mu.Unlock()
	close(p.done)
	if leader {
		k.tty.LeaderExits(p.pid)
	}
	for _, g := range groups {
		k.hangUpGroup(g)
	}
	for _, c := range orphans {
		if c.ended() {
			c.announce(heir)
		} else if n := c.deathSignal.Load(); n != 0 {
			c.signal(nil, linux.SignalInfo{Signo: n, Code: linux.SI_USER})
		}
	}
	p.birth.release()
	p.endEvents.Notify(waiter.ReadableEvents)
	p.announce(parent)
}

// announce tells parent that p has ended, or reaps p if parent does not care
// (wait(2), NOTES).
func (p *Process) announce(parent *Process) {
	if parent == nil {
		return
	}
	sig := p.exitSignal
	if sig == int32(linux.SIGCHLD) {
		a := parent.sighand.get(int(sig))
		if a.Handler == linux.SIG_IGN || a.Flags&linux.SA_NOCLDWAIT != 0 {
			p.reap(parent)
			if a.Handler == linux.SIG_IGN {
				sig = 0
			}
		}
	}
	if sig != 0 {
		info := linux.SignalInfo{Signo: sig}
		var status int32
		info.Code, status = exitCode(p.status)
		p.describe(&info, status)
		parent.signal(nil, info)
	}
	parent.childEvents.Notify(waiter.ReadableEvents)
}

// describe fills in what a siginfo says of a child besides si_code
// (sigaction(2)).
func (p *Process) describe(info *linux.SignalInfo, status int32) {
	info.SetPID(p.pid)
	info.SetUID(int32(p.fs.creds.Load().UID))
	info.SetStatus(status)
	binary.LittleEndian.PutUint64(info.Fields[16:], uint64(clockTicks(p.cpuTime()))) // si_utime
}

// isEnd says whether a wait status is that of a process that has ended.
func isEnd(status int) bool { return status&0xff != 0x7f && status != 0xffff }

// exitCode takes a wait status apart into si_code and si_status.
func exitCode(status int) (code, value int32) {
	switch {
	case status == 0xffff:
		return linux.CLD_CONTINUED, int32(unix.SIGCONT)
	case status&0xff == 0x7f:
		return linux.CLD_STOPPED, int32(status >> 8 & 0xff)
	}
	if sig := status & 0x7f; sig != 0 {
		return linux.CLD_KILLED, int32(sig)
	}
	return linux.CLD_EXITED, int32(status >> 8 & 0xff)
}

// reap removes an ended child for good. It reports false if another thread was
// faster.
func (p *Process) reap(parent *Process) bool {
	k := p.k
	k.mu.Lock()
	defer k.mu.Unlock()
	if k.procs[p.pid] != p {
		return false
	}
	delete(k.procs, p.pid)
	parent.children = slices.DeleteFunc(parent.children, func(c *Process) bool { return c == p })
	parent.childCPU.Add(int64(p.cpuTime()) + p.childCPU.Load())
	return true
}

// waitFor says which children a wait is for.
type waitFor struct {
	pid  int32 // one child, if not 0
	pgid int32 // one group, if not 0
	// clone: those that tell their end by another signal than SIGCHLD; all:
	// these and the others (wait(2), "Linux notes").
	clone, all         bool
	ends, stops, conts bool // what of them
	keep               bool // they can be waited for again
}

func (w *waitFor) matches(c *Process) bool {
	switch {
	case w.pid != 0 && c.pid != w.pid, w.pgid != 0 && c.pgid != w.pgid:
		return false
	}
	return w.all || w.clone == (c.exitSignal != int32(linux.SIGCHLD))
}

// find returns a child with news that w is for, and its wait status; any says
// whether there is one that may have some.
func (t *Task) find(w *waitFor) (child *Process, status int, any bool) {
	t.k.mu.Lock()
	defer t.k.mu.Unlock()
	for _, c := range t.p.children {
		if !w.matches(c) {
			continue
		}
		if c.ended() {
			if w.ends && t.k.procs[c.pid] == c {
				return c, c.status, true
			}
			continue
		}
		any = true
		if status, ok := c.jobNews(w.stops, w.conts, w.keep); ok {
			return c, status, true
		}
	}
	return nil, 0, any
}

// wait waits for news of a child, which it returns with its wait status; nil
// with WNOHANG and without news.
func (t *Task) wait(w *waitFor, noHang bool) (*Process, int, error) {
	e, ch := waiter.NewChannelEntry(waiter.ReadableEvents)
	t.p.childEvents.EventRegister(&e)
	defer t.p.childEvents.EventUnregister(&e)
	var interrupted error
	for {
		c, status, any := t.find(w)
		switch {
		case !any:
			return nil, 0, unix.ECHILD
		case c != nil:
			if w.keep || !isEnd(status) || c.reap(t.p) {
				return c, status, nil
			}
			continue
		case noHang:
			return nil, 0, nil
		case interrupted != nil:
			return nil, 0, interrupted
		}
		// The signal may be the one that tells of a child (do_wait in kernel/exit.c).
		interrupted = t.Wait(ch, time.Time{})
	}
}

// childUsage is what wait4 and waitid tell of a child's use of resources.
func (p *Process) childUsage() linux.Rusage {
	return linux.Rusage{UTime: linux.DurationToTimeval(p.cpuTime() + time.Duration(p.childCPU.Load()))}
}

// sysWait4 is wait4(2).
func sysWait4(t *Task, a Args) (uintptr, error) {
	pid, options := int32(a[0]), uint32(a[2])
	const wclone, wall, wnothread = 0x80000000, 0x40000000, 0x20000000
	if options&^(unix.WNOHANG|unix.WUNTRACED|unix.WCONTINUED|wclone|wall|wnothread) != 0 {
		return 0, unix.EINVAL
	}
	if pid == -1<<31 {
		return 0, unix.ESRCH
	}
	w := waitFor{clone: options&wclone != 0, all: options&wall != 0, ends: true, stops: options&unix.WUNTRACED != 0, conts: options&unix.WCONTINUED != 0}
	switch {
	case pid > 0:
		w.pid = pid
	case pid == 0:
		w.pgid = t.p.group()
	case pid < -1:
		w.pgid = -pid
	}
	c, status, err := t.wait(&w, options&unix.WNOHANG != 0)
	if c == nil || err != nil {
		return 0, err
	}
	if a[1] != 0 {
		if err := copyOut(t, a[1], int32(status)); err != nil {
			return 0, err
		}
	}
	if a[3] != 0 {
		if err := copyOut(t, a[3], c.childUsage()); err != nil {
			return 0, err
		}
	}
	return uintptr(c.pid), nil
}

// sysWaitid is waitid(2).
func sysWaitid(t *Task, a Args) (uintptr, error) {
	options := uint32(a[3])
	const wclone, wall, wnothread = 0x80000000, 0x40000000, 0x20000000
	if options&^(unix.WNOHANG|unix.WNOWAIT|unix.WEXITED|unix.WSTOPPED|unix.WCONTINUED|wclone|wall|wnothread) != 0 ||
		options&(unix.WEXITED|unix.WSTOPPED|unix.WCONTINUED) == 0 {
		return 0, unix.EINVAL
	}
	w := waitFor{clone: options&wclone != 0, all: options&wall != 0,
		ends: options&unix.WEXITED != 0, stops: options&unix.WSTOPPED != 0, conts: options&unix.WCONTINUED != 0, keep: options&unix.WNOWAIT != 0}
	noHang, id := options&unix.WNOHANG != 0, int32(a[1])
	switch a.Int(0) {
	case unix.P_ALL:
	case unix.P_PID:
		if id <= 0 {
			return 0, unix.EINVAL
		}
		w.pid = id
	case unix.P_PGID:
		if id < 0 {
			return 0, unix.EINVAL
		}
		if w.pgid = id; id == 0 {
			w.pgid = t.p.group()
		}
	case unix.P_PIDFD:
		if id < 0 {
			return 0, unix.EINVAL
		}
		p, f, err := t.pidfd(int(id))
		if err != nil {
			return 0, err
		}
		w.pid = p.pid
		if t.k.process(p.pid) != p {
			return 0, unix.ECHILD
		}
		if f.StatusFlags()&unix.O_NONBLOCK != 0 && !noHang && !p.ended() {
			look := w
			look.keep = true
			if c, _, any := t.find(&look); any && c == nil {
				return 0, unix.EAGAIN
			}
		}
	default:
		return 0, unix.EINVAL
	}
	c, status, err := t.wait(&w, noHang)
	if err != nil {
		return 0, err
	}
	var info linux.SignalInfo
	if c != nil {
		info.Signo = int32(linux.SIGCHLD)
		var value int32
		info.Code, value = exitCode(status)
		c.describe(&info, value)
		if a[4] != 0 {
			if err := copyOut(t, a[4], c.childUsage()); err != nil {
				return 0, err
			}
		}
	}
	if a[2] != 0 {
		return 0, copyOut(t, a[2], info)
	}
	return 0, nil
}
