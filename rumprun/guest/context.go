// Package guest is the crossing between the library OS and the guest program:
// it runs guest code on the one host thread and comes back with the reason why
// the guest stopped. It imports nothing of the library OS. The type at its
// heart is Context, the register file of one guest thread.
//
// There is exactly one host thread, so the state of the crossing itself is a
// few package-level variables, which the assembly and the signal handler reach
// without trusting any register of the guest. docs/crossing.md describes
// register use, the order of events, and what goes wrong without each of them.
//
// The crossing works in programs built by cmd/nabla-go (build tag nabla). In
// any other program Setup returns ErrNotNabla; contexts can still be made,
// copied, and their floating-point images read and written.
package guest

import (
	"errors"
	"unsafe"
)

// Reason says why Enter returned.
type Reason uint32

const (
	// Syscall: the guest made a system call, by a rewritten site (fast path)
	// or by a trapped syscall instruction (slow path). Number and arguments
	// are in the registers as the psABI has them (rax; rdi rsi rdx r10 r8 r9);
	// Rip is the address after the instruction.
	Syscall Reason = 1
	// Fault: guest code raised a synchronous signal. Signo, Code, Addr, TrapNo
	// and ErrCode describe it as siginfo_t and ucontext_t do.
	Fault Reason = 2
	// Preempted: the CPU timer ticked while guest code ran.
	Preempted Reason = 3
)

// Regs are the general registers of a guest thread. Every value may be changed
// between two calls of Enter. Of Rflags only CF, PF, AF, ZF, SF, DF, OF, NT, AC
// and ID are loaded; TF is not. An FsBase that is not a user address is loaded
// as 0. The gs base belongs to the library OS and is not the guest's to keep.
type Regs struct {
	Rax, Rbx, Rcx, Rdx, Rsi, Rdi, Rbp, Rsp uint64
	R8, R9, R10, R11, R12, R13, R14, R15   uint64
	Rip, Rflags, FsBase                    uint64
}

// Context is one guest thread's registers. It must come from NewContext, which
// aligns it; it is never copied by assignment (CopyFrom does that). It holds no
// Go pointer. Its layout is shared with the assembly through go_asm.h.
type Context struct {
	Regs

	// Reason is why Enter returned. After Fault the rest says what happened,
	// as siginfo_t (Signo, Code, Addr) and the signal frame's registers
	// (TrapNo, ErrCode) have it.
	Reason  Reason
	Fast    bool // after Syscall: it came from a rewritten site
	Signo   int32
	Code    int32
	Addr    uint64
	TrapNo  uint64
	ErrCode uint64
	mxcsr   uint32
	_       [60]byte // to a multiple of 64

	// fp is the vector state: with the variants that move registers by hand,
	// register i (xmm, ymm or zmm) at 64*i and mask register i at maskOffset +
	// 8*i; with VariantXSAVE an XSAVE image in the standard format.
	fp [fpBytes]byte
	// x87 is the legacy region and header of an XSAVE image of which only the
	// x87 part counts. While the context is x87Owner the processor has the
	// state, not this. Unused with VariantXSAVE.
	x87 [xsaveHeaderEnd]byte
}

const (
	fpBytes        = 4096
	maskOffset     = 64 * 32
	xsaveHeader    = 512 // SDM volume 1, 13.4: legacy region, then header
	xsaveHeaderEnd = 576
	contextAlign   = 64

	initialMXCSR = 0x1f80
	initialFCW   = 0x037f
)

// Errors of Setup.
var (
	// ErrNotNabla: the program was not built by cmd/nabla-go.
	ErrNotNabla = errors.New("guest: this program was built by plain go build and cannot run guests: build it with cmd/nabla-go")
)

// NewContext returns a context with all registers zero, IF set and the
// floating-point state as execve(2) leaves it. Call it after Setup, which decides
// how that state is laid out.
func NewContext() *Context {
	b := make([]byte, unsafe.Sizeof(Context{})+contextAlign)
	p := unsafe.Pointer(unsafe.SliceData(b))
	p = unsafe.Add(p, -uintptr(p)&(contextAlign-1))
	c := (*Context)(p)
	c.Rflags = 0x202
	c.resetFP()
	return c
}

// CopyFrom makes c a copy of parent: all registers and the floating-point
// state, as clone(2) gives them to the child.
func (c *Context) CopyFrom(parent *Context) {
	if c == parent {
		return
	}
	parent.fetchX87()
	c.dropX87()
	*c = *parent
}

// Enter runs the guest from c until Reason is set. On return c holds all of
// the guest's state (general registers, flags, fs base, x87, MXCSR, vector and
// mask registers), so that other contexts may be entered before c is again.
// The caller must not hold a lock that a handler of another thread needs: the
// guest may run for one tick of the timer.
func (c *Context) Enter() { c.enter() }
