package rumprun

import (
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"gvisor.dev/gvisor/pkg/waiter"

	"github.com/nabla-build/nabla-build/rumprun/guest"
	"github.com/nabla-build/nabla-build/rumprun/hypercall"
	"github.com/nabla-build/nabla-build/rumprun/mm"
	"github.com/nabla-build/nabla-build/rumprun/vfs"
)

// Process is a guest process: what its threads share. Children made by vfork
// and posix_spawn are processes of their own at other addresses of the one
// address space.
type Process struct {
	k   *Kernel
	pid int32
	// Relations; Kernel.mu protects them.
	parent    *Process
	children  []*Process
	pgid, sid int32
	subreaper bool // PR_SET_CHILD_SUBREAPER

	exitSignal  int32        // told to the parent at the end
	deathSignal atomic.Int32 // PR_SET_PDEATHSIG: when the parent ends
	birth       *birth       // how it leaves its parent's memory; nil: init
	gate        gate

	start     time.Duration // monotonic, when it began
	startIdle time.Duration // hypercall.IdleTime then

	space *sharedSpace
	as    *mm.AddressSpace // space's
	fds   *FDTable
	fs    *fsContext

	sighand   *sigHandlers
	sigs      sigQueue
	sigEvents waiter.Queue // notified when a signal becomes pending (signalfd)

	limits   rlimits
	timers   intervalTimers
	posix    posixTimers
	deadCPU  atomic.Int64 // CPU time of threads that ended, ns
	childCPU atomic.Int64 // CPU time of children that were waited for, ns

	job jobState

	childEvents waiter.Queue  // notified when a child ends, stops or goes on
	endEvents   waiter.Queue  // notified when the process ends
	taskGone    chan struct{} // capacity 1: a thread has gone

	mu       sync.Mutex
	tasks    []*Task // by age
	dying    bool
	status   int           // wait status, valid when done is closed
	done     chan struct{} // closed when the last thread has gone
	program  programInfo
	dumpable bool
}

// programInfo says what program a process runs and where its initial stack
// keeps what /proc shows of it. execve replaces it; Process.mu protects it.
type programInfo struct {
	exe                *vfs.Dentry // /proc/PID/exe
	argStart, argEnd   uintptr
	envStart, envEnd   uintptr
	auxvStart, auxvEnd uintptr
}

// PID returns the process's number.
func (p *Process) PID() int32 { return p.pid }

// threads returns the live threads, oldest first.
func (p *Process) threads() []*Task {
	p.mu.Lock()
	defer p.mu.Unlock()
	return slices.Clone(p.tasks)
}

// uid is the effective user of the process.
func (p *Process) uid() uint32 { return p.fs.creds.Load().EUID }

// name is the comm of the oldest thread.
func (p *Process) name() string {
	if ts := p.threads(); len(ts) > 0 {
		return ts[0].name()
	}
	return ""
}

// newProcess makes a process without threads.
func (k *Kernel) newProcess(parent *Process) *Process {
	p := &Process{k: k, parent: parent, start: k.monotonic(), startIdle: hypercall.IdleTime(), sighand: &sigHandlers{}, done: make(chan struct{}), taskGone: make(chan struct{}, 1), dumpable: true}
	p.limits.init(&k.cfg)
	p.timers.p = p
	p.posix.p = p
	k.mu.Lock()
	p.pid = k.allocTID()
	k.procs[p.pid] = p
	p.pgid, p.sid = p.pid, p.pid
	if parent != nil {
		p.pgid, p.sid = parent.pgid, parent.sid
		parent.children = append(parent.children, p)
	}
	k.mu.Unlock()
	return p
}

// newTask adds a thread to p. Its register state is the caller's to fill in
// before start. The first thread of a process has the process's number.
func (p *Process) newTask(ctx *guest.Context) *Task {
	t := &Task{k: p.k, p: p, ctx: ctx, interrupt: make(chan struct{}, 1)}
	t.futexWaiter.init()
	p.k.mu.Lock()
	p.mu.Lock()
	if len(p.tasks) == 0 {
		t.tid = p.pid
	} else {
		t.tid = p.k.allocTID()
	}
	p.tasks = append(p.tasks, t)
	p.mu.Unlock()
	p.k.tasks[t.tid] = t
	p.k.mu.Unlock()
	return t
}

// allocTID returns the next free number. k.mu is held.
func (k *Kernel) allocTID() int32 {
	for {
		k.nextTID++
		if k.nextTID > maxTID {
			k.nextTID = 2
		}
		if k.tasks[k.nextTID] == nil && k.procs[k.nextTID] == nil {
			return k.nextTID
		}
	}
}

// maxTID is /proc/sys/kernel/pid_max.
const maxTID = 4194304

// exitGroup ends every thread of the process with a wait status (wait(2)):
// code<<8, or a signal number. The first caller's status counts.
func (p *Process) exitGroup(status int) {
	p.mu.Lock()
	if !p.dying {
		p.dying = true
		p.status = status
	}
	ts := slices.Clone(p.tasks)
	p.mu.Unlock()
	if p.isInit() {
		p.k.exit(p)
		return
	}
	for _, t := range ts {
		t.exiting.Store(true)
		t.kick()
	}
}

// killOthers ends every thread but t and waits until they have gone
// (execve(2)). It reports false if t itself is told to end meanwhile.
func (t *Task) killOthers() bool {
	p := t.p
	for _, u := range p.threads() {
		if u != t {
			u.exiting.Store(true)
			u.kick()
		}
	}
	t.leaveMemory()
	defer t.enterMemory()
	for len(p.threads()) > 1 {
		select {
		case <-p.taskGone:
		case <-t.interrupt:
		}
		if t.exiting.Load() {
			return false
		}
	}
	// The thread that execs takes over the process's number.
	p.k.mu.Lock()
	delete(p.k.tasks, t.tid)
	t.tid = p.pid
	p.k.tasks[t.tid] = t
	p.k.mu.Unlock()
	return true
}

// exitTask ends thread t: set_tid_address(2), get_robust_list(2), exit(2).
func (t *Task) exitTask() {
	defer t.leaveMemory()
	t.exitRobustList()
	if t.clearTID != 0 {
		if w, err := userPtr[uint32](t, t.clearTID, true); err == nil {
			atomic.StoreUint32(w, 0)
			t.k.futexes.wake(t.futexKey(t.clearTID), 1, futexBitsetAll)
		}
	}
	p, k := t.p, t.k
	t.cpu += k.monotonic() - t.started
	p.deadCPU.Add(int64(t.cpu))
	k.mu.Lock()
	delete(k.tasks, t.tid)
	k.mu.Unlock()
	p.mu.Lock()
	p.tasks = slices.DeleteFunc(p.tasks, func(u *Task) bool { return u == t })
	last := len(p.tasks) == 0
	p.mu.Unlock()
	select {
	case p.taskGone <- struct{}{}:
	default:
	}
	if last {
		p.exited()
	} else {
		p.stopComplete()
	}
}

// exitStatus turns a wait status into what a container's exit status shows.
func exitStatus(status int) int {
	if sig := status & 0x7f; sig != 0 {
		return 128 + sig
	}
	return status >> 8 & 0xff
}
