package rumprun

import (
	"sync/atomic"

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
	// whoever makes a signal pending.
	interrupt chan struct{}
	pending   atomic.Uint64 // thread-directed signals, bit signo-1
	sigmask   uint64
}

// Kernel and Process return what the task belongs to.
func (t *Task) Kernel() *Kernel   { return t.k }
func (t *Task) Process() *Process { return t.p }

// signalPending reports whether a signal that is not blocked waits for t.
func (t *Task) signalPending() bool {
	return t.pending.Load()&^t.sigmask != 0
}

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
