//go:build nabla

// Signals. Nothing is masked while these routines run, they are left without
// rt_sigreturn, and they may be interrupted by themselves.

#include "go_asm.h"
#include "textflag.h"
#include "frame_amd64.h"

#define flagsHost 0x202
#define SIGVTALRM 26
#define SIGSYS 31
#define sigBytes 8

#define COPY(u, c) MOVQ u(DX), AX; MOVQ AX, (Context_Regs+c)(R11)

// RESTORE_FP(mask, frame) loads all of the processor's register state from a
// signal frame: the kernel resets it before it runs the handler. Uses AX, DX.
#define RESTORE_FP(base) \
	CMPL ·hasXSAVE(SB), $0 \
	JEQ  fx \
	MOVL ·restoreMask+0(SB), AX \
	MOVL ·restoreMask+4(SB), DX \
	XRSTOR64 (base) \
	JMP  fpdone \
fx: \
	FXRSTOR64 (base) \
fpdone:

// signalEntry is the handler of every signal that the crossing takes.
// Entry: DI = signal, SI = siginfo_t, DX = ucontext, on the alternate stack.
TEXT ·signalEntry(SB), NOSPLIT|NOFRAME, $0
	PUSHQ $flagsHost          // NT would make iretq fault, AC Go code
	POPFQ
	CMPL ·fsgsbase(SB), $0
	JEQ  gsgood
	RDGSBASEQ AX
	CMPQ AX, ·hostGS(SB)
	JEQ  gsgood
	MOVQ ·hostGS(SB), AX      // the guest has changed it
	WRGSBASEQ AX
gsgood:
	CMPL DI, $SIGVTALRM
	JEQ  tick
	MOVLQSX si_code(SI), AX
	TESTQ AX, AX
	JLE  resume               // kill(2) and friends from outside: no fault
	CMPL ·inGuest(SB), $0
	JEQ  host
	JMP  ·guestStopped(SB)
tick:
	CMPL ·inGuest(SB), $0
	JEQ  tickhost
	MOVQ u_rip(DX), AX
	CMPQ AX, ·textLo(SB)
	JCS  tickguest
	CMPQ AX, ·textHi(SB)
	JCC  tickguest
tickhost:
	MOVL $1, ·ticked(SB)
resume:
	JMP  ·resume(SB)
tickguest:
	JMP  ·guestStopped(SB)
host:
	CMPL DI, $SIGSYS
	JEQ  hostcall
	LEAQ ·goHandler(SB), AX
	MOVLQZX DI, CX
	MOVQ (AX)(CX*8), AX
	JMP  AX                   // the Go runtime's; it returns to restorer
hostcall:
	MOVLQZX si_syscall(SI), AX
	MOVQ u_rip(DX), CX
	ANDQ $~15, SP
	SUBQ $16, SP
	MOVQ AX, 0(SP)
	MOVQ CX, 8(SP)
	CALL ·reportHostCall(SB)
	INT  $3

// guestStopped makes the frame the context's registers and leaves the guest.
// Entry: as signalEntry.
TEXT ·guestStopped(SB), NOSPLIT|NOFRAME, $0
	MOVQ ·current(SB), R11
	COPY(u_r8, Regs_R8)
	COPY(u_r9, Regs_R9)
	COPY(u_r10, Regs_R10)
	COPY(u_r11, Regs_R11)
	COPY(u_r12, Regs_R12)
	COPY(u_r13, Regs_R13)
	COPY(u_r14, Regs_R14)
	COPY(u_r15, Regs_R15)
	COPY(u_rdi, Regs_Rdi)
	COPY(u_rsi, Regs_Rsi)
	COPY(u_rbp, Regs_Rbp)
	COPY(u_rbx, Regs_Rbx)
	COPY(u_rdx, Regs_Rdx)
	COPY(u_rax, Regs_Rax)
	COPY(u_rcx, Regs_Rcx)
	COPY(u_rsp, Regs_Rsp)
	COPY(u_rip, Regs_Rip)
	COPY(u_rflags, Regs_Rflags)
	LEAQ ·jumpGuest(SB), CX
	CMPQ CX, (Context_Regs+Regs_Rip)(R11)
	JNE  ripgood
	MOVQ entryRip(GS), CX    // it was no address: the jump itself faulted
	MOVQ CX, (Context_Regs+Regs_Rip)(R11)
ripgood:
	MOVQ u_err(DX), AX
	MOVQ AX, Context_ErrCode(R11)
	MOVQ u_trapno(DX), AX
	MOVQ AX, Context_TrapNo(R11)
	MOVQ si_addr(SI), AX
	MOVQ AX, Context_Addr(R11)
	MOVL si_code(SI), AX
	MOVL AX, Context_Code(R11)
	MOVL DI, Context_Signo(R11)
	MOVB $0, Context_Fast(R11)
	MOVL $const_Syscall, AX
	CMPL DI, $SIGSYS
	JEQ  reason
	MOVL $const_Preempted, AX
	CMPL DI, $SIGVTALRM
	JEQ  reason
	MOVL $const_Fault, AX
reason:
	MOVL AX, Context_Reason(R11)
	MOVQ u_fpstate(DX), SI
	MOVQ R11, DI
	RESTORE_FP(SI)
	MOVQ ·hostSP(SB), SP
	JMP  ·leave(SB)

// restorer is where the Go runtime's handler returns to: the kernel's frame
// has it as return address, so SP points at the ucontext.
TEXT ·restorer(SB), NOSPLIT|NOFRAME, $0
	MOVQ SP, DX
	JMP  ·resume(SB)

// resume continues the code that a frame describes, without rt_sigreturn:
// iretq may be used in user mode and loads rip, rsp and rflags at once.
// Entry: DX = ucontext, on the alternate stack.
TEXT ·resume(SB), NOSPLIT|NOFRAME, $0
	PUSHQ $flagsHost
	POPFQ
	MOVQ DX, DI
	MOVQ u_fpstate(DI), SI
	RESTORE_FP(SI)
	MOVWQZX u_ss(DI), AX
	PUSHQ AX
	PUSHQ u_rsp(DI)
	PUSHQ u_rflags(DI)
	MOVWQZX u_cs(DI), AX
	PUSHQ AX
	PUSHQ u_rip(DI)
	MOVQ u_r8(DI), R8
	MOVQ u_r9(DI), R9
	MOVQ u_r10(DI), R10
	MOVQ u_r11(DI), R11
	MOVQ u_r12(DI), R12
	MOVQ u_r13(DI), R13
	MOVQ u_r14(DI), R14
	MOVQ u_r15(DI), R15
	MOVQ u_rsi(DI), SI
	MOVQ u_rbp(DI), BP
	MOVQ u_rbx(DI), BX
	MOVQ u_rdx(DI), DX
	MOVQ u_rax(DI), AX
	MOVQ u_rcx(DI), CX
	MOVQ u_rdi(DI), DI
	IRETQ
