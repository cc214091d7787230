package rumprun

import (
	"unsafe"

	"golang.org/x/sys/unix"

	"gvisor.dev/gvisor/pkg/abi/linux"

	"github.com/nabla-build/nabla-build/rumprun/guest"
)

// sigcontext is struct sigcontext of x86-64 (asm/sigcontext.h).
type sigcontext struct {
	R8, R9, R10, R11, R12, R13, R14, R15        uint64
	Rdi, Rsi, Rbp, Rbx, Rdx, Rax, Rcx, Rsp, Rip uint64
	Rflags                                      uint64
	Cs, Gs, Fs, Ss                              uint16
	Err, Trapno, Oldmask, Cr2                   uint64
	Fpstate                                     uint64
	// Restart is ours, in the words the kernel reserves: the number plus one
	// of the call to make again when the handler returns (SA_RESTART). The
	// site's own instruction cannot be run again: it may be in a stub.
	Restart uint64
	_       [7]uint64
}

// ucontext is struct ucontext (asm-generic/ucontext.h).
type ucontext struct {
	Flags, Link uint64
	Stack       linux.SignalStack
	Mcontext    sigcontext
	Sigmask     uint64
}

// rtSigframe is the frame that a handler starts on (arch/x86/include/asm/
// sigframe.h): the restorer's address is where the handler returns to.
type rtSigframe struct {
	Restorer uint64
	UC       ucontext
	Info     linux.SignalInfo
}

const (
	ucFPXstate       = 1 // UC_FP_XSTATE
	ucSigcontextSS   = 2 // UC_SIGCONTEXT_SS
	ucStrictSS       = 4 // UC_STRICT_RESTORE_SS
	userCS, userSS   = 0x33, 0x2b
	ssAutodisarm     = 1 << 31
	redZone          = 128 // psABI 3.2.2
	rflagsDF         = 1 << 10
	rflagsTF         = 1 << 8
	rflagsRF         = 1 << 16
	rflagsUserMask   = 0x3f4dd5 &^ rflagsTF // what sigreturn may set (FIX_EFLAGS), IF aside
	rflagsAlways     = 0x202
	minSigStackBytes = 2048 // MINSIGSTKSZ
)

// onAltStack reports whether sp lies on the alternate stack.
func (t *Task) onAltStack(sp uint64) bool {
	return t.altstack.Flags&ssAutodisarm == 0 && t.altstack.Size != 0 &&
		sp > t.altstack.Addr && sp <= t.altstack.Addr+t.altstack.Size
}

// altFlags are the ss_flags that sigaltstack(2) reports.
func (t *Task) altFlags(sp uint64) uint32 {
	switch {
	case t.altstack.Size == 0:
		return linux.SS_DISABLE
	case t.onAltStack(sp):
		return linux.SS_ONSTACK | t.altstack.Flags&ssAutodisarm
	}
	return t.altstack.Flags & ssAutodisarm
}

// pushFrame makes the thread run the handler of act when it next enters the
// guest. restart is the call to make again after the handler (0: none). EFAULT
// if the frame does not fit in mapped memory.
func (t *Task) pushFrame(act *linux.SigAction, info *linux.SignalInfo, restart uint64) error {
	c := t.ctx
	sp := c.Rsp - redZone
	if act.Flags&linux.SA_ONSTACK != 0 && t.altstack.Size != 0 && !t.onAltStack(c.Rsp) {
		sp = t.altstack.Addr + t.altstack.Size
	}
	n := uint64(c.FPSize())
	fp := (sp - n) &^ 63
	fpmem, err := t.Bytes(uintptr(fp), int(n), true)
	if err != nil {
		return err
	}
	sp = (fp-uint64(unsafe.Sizeof(rtSigframe{})))&^15 - 8
	f, err := userPtr[rtSigframe](t, uintptr(sp), true)
	if err != nil {
		return err
	}
	c.SaveFP(fpmem)
	if err := c.LoadFP(nil); err != nil { // a handler starts with the initial state
		return err
	}
	mask := t.mask()
	if t.haveSavedMask {
		mask, t.haveSavedMask = t.savedMask, false
	}
	*f = rtSigframe{Restorer: act.Restorer, Info: *info}
	f.UC.Flags = ucFPXstate | ucSigcontextSS | ucStrictSS
	f.UC.Stack = t.altstack
	f.UC.Stack.Flags = t.altFlags(c.Rsp)
	f.UC.Sigmask = uint64(mask)
	m := &f.UC.Mcontext
	m.R8, m.R9, m.R10, m.R11, m.R12, m.R13, m.R14, m.R15 = c.R8, c.R9, c.R10, c.R11, c.R12, c.R13, c.R14, c.R15
	m.Rdi, m.Rsi, m.Rbp, m.Rbx, m.Rdx, m.Rax, m.Rcx, m.Rsp, m.Rip = c.Rdi, c.Rsi, c.Rbp, c.Rbx, c.Rdx, c.Rax, c.Rcx, c.Rsp, c.Rip
	m.Rflags, m.Cs, m.Ss, m.Fpstate, m.Restart = c.Rflags, userCS, userSS, fp, restart
	m.Oldmask = uint64(mask)
	if c.Reason == guest.Fault {
		m.Err, m.Trapno, m.Cr2 = c.ErrCode, c.TrapNo, c.Addr
	}
	newMask := t.mask() | sigSet(act.Mask)
	if act.Flags&linux.SA_NODEFER == 0 {
		newMask |= sigBit(int(info.Signo))
	}
	t.setMask(newMask)
	if t.altstack.Flags&ssAutodisarm != 0 {
		t.altstack = linux.SignalStack{}
	}
	c.Rdi, c.Rax = uint64(info.Signo), 0
	c.Rsi = sp + uint64(unsafe.Offsetof(f.Info))
	c.Rdx = sp + uint64(unsafe.Offsetof(f.UC))
	c.Rsp, c.Rip = sp, act.Handler
	c.Rflags &^= rflagsDF | rflagsTF | rflagsRF
	return nil
}

// sysRtSigreturn is rt_sigreturn(2): the register state comes back from the
// frame at rsp. A call that the signal interrupted is made again.
func sysRtSigreturn(t *Task, _ Args) (uintptr, error) {
	c := t.ctx
	f, err := userPtr[rtSigframe](t, uintptr(c.Rsp-8), false)
	if err != nil {
		t.forceSignal(unix.SIGSEGV)
		return uintptr(c.Rax), nil
	}
	m := f.UC.Mcontext
	c.R8, c.R9, c.R10, c.R11, c.R12, c.R13, c.R14, c.R15 = m.R8, m.R9, m.R10, m.R11, m.R12, m.R13, m.R14, m.R15
	c.Rdi, c.Rsi, c.Rbp, c.Rbx, c.Rdx, c.Rax, c.Rcx, c.Rsp, c.Rip = m.Rdi, m.Rsi, m.Rbp, m.Rbx, m.Rdx, m.Rax, m.Rcx, m.Rsp, m.Rip
	c.Rflags = m.Rflags&rflagsUserMask | rflagsAlways
	t.setMask(sigSet(f.UC.Sigmask))
	if st := f.UC.Stack; st.Flags&linux.SS_DISABLE == 0 && !t.onAltStack(c.Rsp) {
		st.Flags &= ssAutodisarm
		t.altstack = st
	}
	if m.Fpstate != 0 {
		mem, err := t.Bytes(uintptr(m.Fpstate), c.FPSize(), false)
		if err == nil {
			err = c.LoadFP(mem)
		}
		if err != nil {
			t.forceSignal(unix.SIGSEGV)
		}
	} else {
		c.LoadFP(nil)
	}
	if m.Restart != 0 {
		c.Rax = m.Restart - 1
		t.again = true
	}
	return uintptr(c.Rax), nil
}
