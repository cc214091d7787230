package rumprun

import (
	"errors"
	"fmt"
	"runtime"
	"runtime/debug"

	"golang.org/x/sys/unix"

	"github.com/nabla-build/nabla-build/rumprun/guest"
	"github.com/nabla-build/nabla-build/rumprun/hypercall"
)

// maxSyscall bounds the system call numbers of the table.
const maxSyscall = 512

// buildTable makes the dispatch from the lists of calls.
func buildTable() ([maxSyscall]*Call, error) {
	var table [maxSyscall]*Call
	for _, list := range calls {
		for i := range list {
			c := &list[i]
			if c.NR >= maxSyscall {
				return table, fmt.Errorf("system call table: %s: number %d is beyond %d", c.Name, c.NR, maxSyscall)
			}
			if d := table[c.NR]; d != nil {
				return table, fmt.Errorf("system call table: number %d stands twice, as %s and as %s", c.NR, d.Name, c.Name)
			}
			table[c.NR] = c
		}
	}
	return table, nil
}

// errnoResult is what a failed call leaves in rax.
func errnoResult(e unix.Errno) uint64 { return uint64(-int64(e)) }

// run is the life of a guest thread.
func (t *Task) run() {
	t.enterMemory()
	t.started = t.k.monotonic()
	for !t.exiting.Load() {
		t.passMemory()
		t.ctx.Enter()
		switch t.ctx.Reason {
		case guest.Syscall:
			t.syscall()
		case guest.Fault:
			t.fault()
			t.deliverSignals(0, 0)
		case guest.Preempted:
			yield()
			if t.signalPending() {
				t.deliverSignals(0, 0)
			}
		}
		if guest.PreemptPending() {
			yield()
		}
	}
	t.exitTask()
}

// yield lets other goroutines run and looks at the devices: no other thread
// does, and a busy guest never lets the scheduler go idle.
func yield() {
	guest.ClearPreempt()
	hypercall.Poll()
	runtime.Gosched()
}

// syscall handles the call in the registers, and again as long as signals or
// rt_sigreturn say so.
func (t *Task) syscall() {
	c := t.ctx
	for {
		nr := uintptr(c.Rax)
		t.again = false
		r, err := t.call(nr)
		var code unix.Errno
		if err == nil {
			c.Rax = uint64(r)
		} else {
			code = asErrno(err)
			c.Rax = errnoResult(code)
		}
		t.restarted = false
		if t.again {
			continue
		}
		if code >= errRestart || t.haveSavedMask || t.signalPending() {
			if t.deliverSignals(nr, code) {
				t.restarted = true
				continue
			}
		}
		return
	}
}

// asErrno finds the errno in err: handlers return unix.Errno, plain or wrapped.
func asErrno(err error) unix.Errno {
	if e, ok := err.(unix.Errno); ok {
		return e
	}
	var e unix.Errno
	if errors.As(err, &e) {
		return e
	}
	return unix.EIO
}

// call runs the handler of system call nr. A panic in it is a bug of the
// library OS: it is reported and the guest gets EFAULT, so that one bad call
// does not end the container.
func (t *Task) call(nr uintptr) (r uintptr, err error) {
	c := t.ctx
	a := Args{uintptr(c.Rdi), uintptr(c.Rsi), uintptr(c.Rdx), uintptr(c.R10), uintptr(c.R8), uintptr(c.R9)}
	var e *Call
	if nr < maxSyscall {
		e = t.k.table[nr]
	}
	if b := t.p.forked(); b != nil && !t.mayBeforeExec(nr, &a) {
		name := fmt.Sprintf("system call %d", nr)
		if e != nil {
			name = e.Name
		}
		b.undo(t, "called "+name)
		return 0, unix.ENOSYS
	}
	if e == nil || e.Handler == nil {
		t.k.reportUnimplemented(nr, e)
		r, err = 0, unix.ENOSYS
	} else {
		r, err = t.handle(e, a)
	}
	if t.k.cfg.Trace {
		t.trace(nr, e, a, r, err)
	}
	return r, err
}

func (t *Task) handle(e *Call, a Args) (r uintptr, err error) {
	defer func() {
		if v := recover(); v != nil {
			t.k.logf("nabla: library OS: panic in %s(%#x): %v\n%s", e.Name, a, v, debug.Stack())
			r, err = 0, unix.EFAULT
		}
	}()
	return e.Handler(t, a)
}

// reportUnimplemented names a call that is not there, once.
func (k *Kernel) reportUnimplemented(nr uintptr, e *Call) {
	if !k.cfg.Debug {
		return
	}
	k.mu.Lock()
	seen := k.reported[nr]
	k.reported[nr] = true
	k.mu.Unlock()
	switch {
	case seen:
	case e != nil:
		k.logf("nabla: system call %d (%s) is not supported: %s", nr, e.Name, e.Note)
	default:
		k.logf("nabla: system call %d is unknown", nr)
	}
}

// trace writes one line for a call, as strace does.
func (t *Task) trace(nr uintptr, e *Call, a Args, r uintptr, err error) {
	name := fmt.Sprintf("syscall_%d", nr)
	if e != nil {
		name = e.Name
	}
	how := "fast"
	if !t.ctx.Fast {
		how = "trap"
	}
	res := fmt.Sprintf("%#x", r)
	if err != nil {
		code := asErrno(err)
		res = fmt.Sprintf("-1 %s (%v)", unix.ErrnoName(code), code)
	}
	t.k.logf("[%d] %s(%#x, %#x, %#x, %#x, %#x, %#x) = %s <%s>", t.tid, name, a[0], a[1], a[2], a[3], a[4], a[5], res, how)
}
