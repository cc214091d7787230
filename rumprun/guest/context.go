// Package guest is the crossing between the library OS and the guest program:
// it runs guest code on the one host thread and comes back with the reason why
// the guest stopped. It imports nothing of the library OS. The type at its
// heart is Context, the register file of one guest thread.
package guest

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

// Regs are the general registers of a guest thread.
type Regs struct {
	Rax, Rbx, Rcx, Rdx, Rsi, Rdi, Rbp, Rsp uint64
	R8, R9, R10, R11, R12, R13, R14, R15   uint64
	Rip, Rflags, FsBase                    uint64
}
