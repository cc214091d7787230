package rumprun

import (
	"fmt"

	"golang.org/x/sys/unix"

	"gvisor.dev/gvisor/pkg/abi/linux"

	"github.com/nabla-build/nabla-build/rumprun/guest"
)

// deliverSignals acts on the pending signals that the thread does not block,
// before it enters the guest. code is what the system call that just ended
// answered (0 where there was none), nr its number: restart codes become a
// restarted call or EINTR here. It reports whether the call must be made again
// at once.
func (t *Task) deliverSignals(nr uintptr, code unix.Errno) (again bool) {
	restart := code == errRestart || code == errRestartNoHand
	for !t.exiting.Load() {
		if t.p.job.stopping.Load() {
			t.stopped()
			continue
		}
		conts := t.p.job.conts.Load()
		info, ok := t.dequeueSignal(^t.mask())
		if !ok {
			break
		}
		signo := int(info.Signo)
		act := t.takeAction(signo)
		switch act.Handler {
		case linux.SIG_IGN:
			continue
		case linux.SIG_DFL:
			if actionOf(signo) == actStop {
				t.p.stop(signo, conts)
			} else {
				t.defaultAction(signo, &info)
			}
			continue
		}
		var after uint64
		if restart {
			t.ctx.Rax = errnoResult(unix.EINTR)
			if code == errRestart && act.Flags&linux.SA_RESTART != 0 {
				after = uint64(nr) + 1
			}
			restart = false
		}
		if err := t.pushFrame(&act, &info, after); err != nil {
			if unix.Signal(signo) == unix.SIGSEGV {
				// Its handler has no stack either (force_sigsegv in the kernel).
				h := t.p.sighand
				h.mu.Lock()
				h.actions[signo].Handler = linux.SIG_DFL
				h.mu.Unlock()
			}
			t.forceSignal(unix.SIGSEGV)
		}
	}
	if restart && !t.exiting.Load() {
		t.ctx.Rax = uint64(nr)
		t.restoreMask()
		return true
	}
	t.restoreMask()
	return false
}

// takeAction returns the disposition of a signal about to be delivered, reset
// if SA_RESETHAND says so.
func (t *Task) takeAction(signo int) linux.SigAction {
	h := t.p.sighand
	h.mu.Lock()
	defer h.mu.Unlock()
	a := h.actions[signo]
	if a.Handler > linux.SIG_IGN && a.Flags&linux.SA_RESETHAND != 0 {
		h.actions[signo].Handler = linux.SIG_DFL
	}
	return a
}

// defaultAction carries out SIG_DFL of a signal that does not stop.
func (t *Task) defaultAction(signo int, info *linux.SignalInfo) {
	switch actionOf(signo) {
	case actIgnore, actContinue:
		return
	}
	if t.p.isInit() && info.Code <= 0 {
		return // sent by a process: init survives (pid_namespaces(7))
	}
	t.p.killedBy(t, signo)
}

// forceSignal sends a synchronous signal that cannot be blocked or ignored
// (force_sig in the kernel).
func (t *Task) forceSignal(signo unix.Signal) {
	t.forceInfo(linux.SignalInfo{Signo: int32(signo), Code: linux.SI_KERNEL})
}

func (t *Task) forceInfo(info linux.SignalInfo) {
	n := int(info.Signo)
	h := t.p.sighand
	h.mu.Lock()
	blocked := t.mask()&sigBit(n) != 0
	if a := &h.actions[n]; a.Handler == linux.SIG_IGN || blocked {
		a.Handler = linux.SIG_DFL
	}
	h.mu.Unlock()
	if blocked {
		t.setMask(t.mask() &^ sigBit(n))
	}
	t.sigs.discard(sigBit(n))
	t.sigs.push(info)
}

// fault turns a fault of guest code into its signal.
func (t *Task) fault() {
	c := t.ctx
	info := linux.SignalInfo{Signo: int32(c.Signo), Code: int32(c.Code)}
	if info.Code == 0 {
		info.Code = linux.SI_KERNEL
	}
	info.SetAddr(c.Addr)
	t.forceInfo(info)
}

// killedBy ends the process by a signal, with a report of the state of t.
func (p *Process) killedBy(t *Task, signo int) {
	if actionOf(signo) == actCore {
		t.report(signo)
	}
	p.exitGroup(signo)
}

// report prints why a guest thread crashed: registers and the mapping that
// holds the program counter.
func (t *Task) report(signo int) {
	c := t.ctx
	k := t.k
	k.logf("nabla: guest process %d (%s), thread %d, killed by %s", t.p.pid, t.p.name(), t.tid, unix.SignalName(unix.Signal(signo)))
	if c.Reason == guest.Fault {
		k.logf("nabla: address %#x, code %d, error %#x, in %s", c.Addr, c.Code, c.ErrCode, t.p.as.Describe(uintptr(c.Addr)))
	}
	k.logf("nabla: rip %016x rsp %016x rflags %08x fs %016x in %s", c.Rip, c.Rsp, c.Rflags, c.FsBase, t.p.as.Describe(uintptr(c.Rip)))
	k.logf("nabla: rax %016x rbx %016x rcx %016x rdx %016x", c.Rax, c.Rbx, c.Rcx, c.Rdx)
	k.logf("nabla: rsi %016x rdi %016x rbp %016x r8  %016x", c.Rsi, c.Rdi, c.Rbp, c.R8)
	k.logf("nabla: r9  %016x r10 %016x r11 %016x r12 %016x", c.R9, c.R10, c.R11, c.R12)
	k.logf("nabla: r13 %016x r14 %016x r15 %016x", c.R13, c.R14, c.R15)
}

// logf writes one line to the log.
func (k *Kernel) logf(format string, a ...any) {
	fmt.Fprintf(k.cfg.Log, format+"\n", a...)
}
