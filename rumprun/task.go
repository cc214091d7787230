package rumprun

import (
	"sync/atomic"
	"time"

	"gvisor.dev/gvisor/pkg/abi/linux"

	"github.com/nabla-build/nabla-build/rumprun/guest"
)

// Args are the six arguments of a system call, in psABI order.
type Args [6]uintptr

// Int returns argument i as the C int that many calls take.
func (a *Args) Int(i int) int { return int(int32(a[i])) }

// Handler implements one system call for task t. An error is a unix.Errno; the
// dispatcher turns it into -errno. A handler that blocks does so through
// t.Wait or t.Retry, so that signals interrupt it.
type Handler func(t *Task, a Args) (uintptr, error)

// Task is a guest thread: one goroutine that alternates between the guest and
// the handlers. Its fields belong to that goroutine unless they say otherwise.
type Task struct {
	k   *Kernel
	p   *Process
	tid int32
	ctx *guest.Context

	// interrupt wakes a waiting task; capacity 1, sent to without blocking by
	// whoever makes a signal pending or ends the thread.
	interrupt chan struct{}
	exiting   atomic.Bool // the thread ends before it enters the guest again

	// Signals: own pending ones, the mask (written by the thread alone, read
	// by senders), what sigtimedwait waits for.
	sigs          sigQueue
	sigmask       atomic.Uint64
	sigwait       atomic.Uint64
	savedMask     sigSet
	haveSavedMask bool
	altstack      linux.SignalStack
	// again asks the dispatcher to make the call in the registers again: what
	// a handler returned to was an interrupted call.
	again bool
	// restarted says that the call is made again after an interruption without
	// a handler; deadline is when it was to end (sameEnd).
	restarted bool
	deadline  time.Time

	inTurn     bool    // counted by Kernel.turns
	clearTID   uintptr // CLONE_CHILD_CLEARTID
	robustList uintptr
	futexWaiter
	comm  [16]byte
	attr  attributes // prctl(2)
	sched scheduling

	cpu     time.Duration // used so far, without the current turn
	waiting atomic.Bool   // blocked in a call, not runnable
	started time.Duration // when the current turn began (monotonic)
}

// Kernel and Process return what the task belongs to.
func (t *Task) Kernel() *Kernel   { return t.k }
func (t *Task) Process() *Process { return t.p }

// Bytes, CopyIn, CopyOut and CString implement vfs.UserMemory: checked access
// to guest memory.
func (t *Task) Bytes(addr uintptr, n int, write bool) ([]byte, error) {
	return t.p.as.Bytes(addr, n, write)
}

func (t *Task) CopyIn(addr uintptr, dst []byte) error {
	b, err := t.p.as.Bytes(addr, len(dst), false)
	if err == nil {
		copy(dst, b)
	}
	return err
}

func (t *Task) CopyOut(addr uintptr, src []byte) error {
	b, err := t.p.as.Bytes(addr, len(src), true)
	if err == nil {
		copy(b, src)
	}
	return err
}

func (t *Task) CString(addr uintptr, max int) (string, error) {
	return t.p.as.CString(addr, max)
}

// setName is PR_SET_NAME: at most 15 bytes.
func (t *Task) setName(s string) {
	t.comm = [16]byte{}
	copy(t.comm[:15], s)
}

// name is the thread's comm.
func (t *Task) name() string { return cString(t.comm[:]) }

func cString(b []byte) string {
	for i, c := range b {
		if c == 0 {
			return string(b[:i])
		}
	}
	return string(b)
}
