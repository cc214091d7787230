package rumprun

import (
	"math/bits"
	"sync"
	"sync/atomic"

	"golang.org/x/sys/unix"

	"gvisor.dev/gvisor/pkg/abi/linux"
	"gvisor.dev/gvisor/pkg/waiter"
)

// sigSet is a set of signals, bit signo-1.
type sigSet uint64

func sigBit(signo int) sigSet { return 1 << (signo - 1) }

// unblockable signals never enter a mask (sigprocmask(2)).
var unblockable = sigBit(int(unix.SIGKILL)) | sigBit(int(unix.SIGSTOP))

// synchronous signals are delivered before all others, as the kernel does.
var synchronous = sigBit(int(unix.SIGSEGV)) | sigBit(int(unix.SIGBUS)) | sigBit(int(unix.SIGILL)) |
	sigBit(int(unix.SIGTRAP)) | sigBit(int(unix.SIGFPE)) | sigBit(int(unix.SIGSYS))

// sigHandlers is the table of dispositions that threads with CLONE_SIGHAND
// share.
type sigHandlers struct {
	mu      sync.Mutex
	actions [linux.SignalMaximum + 1]linux.SigAction
}

func (h *sigHandlers) get(signo int) linux.SigAction {
	h.mu.Lock()
	defer h.mu.Unlock()
	return h.actions[signo]
}

// copy returns a table of its own with the same dispositions (fork(2)).
func (h *sigHandlers) copy() *sigHandlers {
	h.mu.Lock()
	defer h.mu.Unlock()
	return &sigHandlers{actions: h.actions}
}

// exec resets caught signals to their default (execve(2)).
func (h *sigHandlers) exec() {
	h.mu.Lock()
	defer h.mu.Unlock()
	for i := range h.actions {
		if h.actions[i].Handler != linux.SIG_IGN {
			h.actions[i] = linux.SigAction{}
		} else {
			h.actions[i] = linux.SigAction{Handler: linux.SIG_IGN}
		}
	}
}

// sigQueue holds pending signals. set is what is pending, for a look without
// the lock; standard signals queue once, real-time signals in order
// (signal(7)).
type sigQueue struct {
	set  atomic.Uint64
	mu   sync.Mutex
	info [linux.SignalMaximum + 1][]linux.SignalInfo
}

// maxQueuedSignals bounds one real-time signal's queue (RLIMIT_SIGPENDING).
const maxQueuedSignals = 1024

func (q *sigQueue) pending() sigSet { return sigSet(q.set.Load()) }

// push makes a signal pending; EAGAIN if its queue is full.
func (q *sigQueue) push(info linux.SignalInfo) error {
	n := int(info.Signo)
	q.mu.Lock()
	defer q.mu.Unlock()
	if l := len(q.info[n]); l > 0 && (n < linux.FirstRTSignal || l >= maxQueuedSignals) {
		if n < linux.FirstRTSignal {
			return nil
		}
		return unix.EAGAIN
	}
	q.info[n] = append(q.info[n], info)
	q.set.Or(uint64(sigBit(n)))
	return nil
}

// pop takes the next pending signal of set want: synchronous ones first, then
// by number.
func (q *sigQueue) pop(want sigSet) (linux.SignalInfo, bool) {
	q.mu.Lock()
	defer q.mu.Unlock()
	s := q.pending() & want
	if s == 0 {
		return linux.SignalInfo{}, false
	}
	if y := s & synchronous; y != 0 {
		s = y
	}
	n := bits.TrailingZeros64(uint64(s)) + 1
	info := q.info[n][0]
	q.info[n] = q.info[n][1:]
	if len(q.info[n]) == 0 {
		q.info[n] = nil
		q.set.And(^uint64(sigBit(n)))
	}
	return info, true
}

// discard forgets the pending signals of set.
func (q *sigQueue) discard(set sigSet) {
	q.mu.Lock()
	defer q.mu.Unlock()
	for s := q.pending() & set; s != 0; s &= s - 1 {
		q.info[bits.TrailingZeros64(uint64(s))+1] = nil
	}
	q.set.And(^uint64(set))
}

// defaultAction is what a signal without a handler does (signal(7)).
type defaultAction uint8

const (
	actTerminate defaultAction = iota
	actCore
	actIgnore
	actStop
	actContinue
)

func actionOf(signo int) defaultAction {
	switch unix.Signal(signo) {
	case unix.SIGCHLD, unix.SIGURG, unix.SIGWINCH:
		return actIgnore
	case unix.SIGCONT:
		return actContinue
	case unix.SIGSTOP, unix.SIGTSTP, unix.SIGTTIN, unix.SIGTTOU:
		return actStop
	case unix.SIGQUIT, unix.SIGILL, unix.SIGABRT, unix.SIGFPE, unix.SIGSEGV, unix.SIGBUS, unix.SIGSYS,
		unix.SIGTRAP, unix.SIGXCPU, unix.SIGXFSZ:
		return actCore
	}
	return actTerminate
}

// ignored reports whether a signal sent to p would be thrown away: its
// disposition is to be ignored, or p is the container's init, which default
// actions cannot end (pid_namespaces(7)).
func (p *Process) ignored(signo int) bool {
	a := p.sighand.get(signo)
	switch a.Handler {
	case linux.SIG_IGN:
		return unix.Signal(signo) != unix.SIGKILL && unix.Signal(signo) != unix.SIGSTOP
	case linux.SIG_DFL:
		switch actionOf(signo) {
		case actIgnore, actContinue:
			return true
		}
		return p.isInit()
	}
	return false
}

func (p *Process) isInit() bool { return p.pid == 1 }

// signal sends info to the process (t nil) or to one of its threads. A signal
// that is ignored and not blocked is discarded at once.
func (p *Process) signal(t *Task, info linux.SignalInfo) error {
	n := int(info.Signo)
	p.prepareSignal(n)
	if unix.Signal(n) == unix.SIGKILL && !p.isInit() {
		p.exitGroup(int(unix.SIGKILL))
		return nil
	}
	blocked := false
	for _, u := range p.threads() {
		if (t == nil || t == u) && u.blocks(n) {
			blocked = true
		}
	}
	if p.ignored(n) && !blocked {
		return nil
	}
	if t != nil {
		if err := t.sigs.push(info); err != nil {
			return err
		}
		t.kick()
	} else {
		if err := p.sigs.push(info); err != nil {
			return err
		}
		if u := p.signalTarget(n); u != nil {
			u.kick()
		}
	}
	p.sigEvents.Notify(waiter.ReadableEvents)
	return nil
}

// blocks reports whether the thread blocks the signal, or waits for it in
// sigtimedwait.
func (t *Task) blocks(signo int) bool {
	return (t.mask()|sigSet(t.sigwait.Load()))&sigBit(signo) != 0
}

// signalTarget chooses the thread that a process-directed signal wakes: one
// that waits for it, otherwise the first that does not block it.
func (p *Process) signalTarget(signo int) *Task {
	var u *Task
	for _, t := range p.threads() {
		if sigSet(t.sigwait.Load())&sigBit(signo) != 0 {
			return t
		}
		if u == nil && t.mask()&sigBit(signo) == 0 {
			u = t
		}
	}
	return u
}

// kick makes a waiting task look at its pending signals.
func (t *Task) kick() {
	select {
	case t.interrupt <- struct{}{}:
	default:
	}
}

func (t *Task) mask() sigSet { return sigSet(t.sigmask.Load()) }

// setMask replaces the signal mask. Other threads read it to choose a target.
func (t *Task) setMask(m sigSet) {
	t.sigmask.Store(uint64(m &^ unblockable))
}

// setTempMask installs a mask for the duration of one call (ppoll, pselect6,
// epoll_pwait, rt_sigsuspend): the old one comes back when the call returns,
// after a handler that interrupted it.
func (t *Task) setTempMask(m sigSet) {
	if !t.haveSavedMask {
		t.savedMask, t.haveSavedMask = t.mask(), true
	}
	t.setMask(m)
}

// restoreMask undoes setTempMask; what the signal frame saves is the result.
func (t *Task) restoreMask() {
	if t.haveSavedMask {
		t.haveSavedMask = false
		t.setMask(t.savedMask)
	}
}

// pendingSet is what is pending for t, its own and its process's.
func (t *Task) pendingSet() sigSet { return t.sigs.pending() | t.p.sigs.pending() }

// signalPending reports whether something that t does not block waits for it:
// a signal, the end of the thread, or the stop of its process.
func (t *Task) signalPending() bool {
	return t.pendingSet()&^t.mask() != 0 || t.exiting.Load() || t.p.job.stopping.Load()
}

// dequeueSignal takes a pending signal of set want, the thread's own first.
func (t *Task) dequeueSignal(want sigSet) (linux.SignalInfo, bool) {
	if info, ok := t.sigs.pop(want); ok {
		return info, true
	}
	return t.p.sigs.pop(want)
}

// killInfo is the siginfo of kill(2) and tgkill(2).
func (t *Task) killInfo(signo int, code int32) linux.SignalInfo {
	info := linux.SignalInfo{Signo: int32(signo), Code: code}
	info.SetPID(t.p.pid)
	info.SetUID(int32(t.p.uid()))
	return info
}

// raise sends the calling thread a signal that its own action caused (SIGPIPE).
func (t *Task) raise(signo unix.Signal) {
	t.p.signal(t, t.killInfo(int(signo), linux.SI_KERNEL))
}
