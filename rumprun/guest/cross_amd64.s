//go:build nabla

// The switch between the library OS and the guest. See docs/crossing.md.
//
// While the guest runs, the gs base is the host thread's (0(gs) is m.tls[1]).
// 8(gs) holds the address of fastEntry, which the stubs of rewritten call sites
// jump to; 16(gs) is where enterGuest's last jump goes: no register is left to
// hold that. fs is the guest's for good.

#include "go_asm.h"
#include "textflag.h"
#include "frame_amd64.h"
#include "vector_amd64.h"

#define c_rax (Context_Regs+Regs_Rax)
#define c_rbx (Context_Regs+Regs_Rbx)
#define c_rcx (Context_Regs+Regs_Rcx)
#define c_rdx (Context_Regs+Regs_Rdx)
#define c_rsi (Context_Regs+Regs_Rsi)
#define c_rdi (Context_Regs+Regs_Rdi)
#define c_rbp (Context_Regs+Regs_Rbp)
#define c_rsp (Context_Regs+Regs_Rsp)
#define c_r8 (Context_Regs+Regs_R8)
#define c_r9 (Context_Regs+Regs_R9)
#define c_r10 (Context_Regs+Regs_R10)
#define c_r11 (Context_Regs+Regs_R11)
#define c_r12 (Context_Regs+Regs_R12)
#define c_r13 (Context_Regs+Regs_R13)
#define c_r14 (Context_Regs+Regs_R14)
#define c_r15 (Context_Regs+Regs_R15)
#define c_rip (Context_Regs+Regs_Rip)
#define c_rflags (Context_Regs+Regs_Rflags)
#define c_fsbase (Context_Regs+Regs_FsBase)

// Bits of rflags.
#define flagsUser 0x244cd5   // CF PF AF ZF SF DF OF NT AC ID: what a guest may set
#define flagsSimple 0x000ad7 // CF PF AF ZF SF OF, bit 1 and IF: what SAHF and ADDB can set
#define flagsNotHost 0x244500 // TF DF NT AC: Go code must not run with them; ID: SAHF does not clear it
#define flagsHost 0x202

#define sysArchPrctl 158
#define archSetFS 0x1002
#define SIGVTALRM 26
#define SIGSYS 31

// func enterGuest(c *Context)
// Entry: Go ABI0. Exit: never by itself; leave returns in its place, on the
// same stack, with SP and BP as here and all other registers free (ABI0).
TEXT ·enterGuest(SB), NOSPLIT|NOFRAME, $0-8
	MOVQ c+0(FP), DI
	MOVQ SP, ·hostSP(SB)
	MOVQ BP, ·hostBP(SB)
	MOVQ DI, ·current(SB)

	MOVQ c_fsbase(DI), AX
	CMPQ AX, ·fsLoaded(SB)
	JEQ  fsdone
	MOVQ AX, CX
	SHRQ $47, CX
	JEQ  fsgood
	XORL AX, AX               // not a user address: wrfsbase would fault
fsgood:
	MOVQ AX, ·fsLoaded(SB)
	CMPL ·fsgsbase(SB), $0
	JEQ  fsprctl
	WRFSBASEQ AX
	JMP  fsdone
fsprctl:
	MOVQ DI, BX
	MOVQ AX, SI
	MOVL $archSetFS, DI
	MOVL $sysArchPrctl, AX
	CALL runtime·nablaGate(SB)
	MOVQ BX, DI
fsdone:

	MOVL ·fpKind(SB), AX
	CMPL AX, $const_VariantXSAVE
	JEQ  xsave

	// x87: Go never touches it, so it changes hands only between contexts.
	CMPQ DI, ·x87Owner(SB)
	JNE  x87switch
x87done:
	MOVL ·fpKind(SB), AX
	CMPL AX, $const_VariantYMM
	JEQ  ymm
	JCS  xmm
	LOAD_ZMM(Context_fp, DI)
	LOAD_K((Context_fp+const_maskOffset), DI)
	JMP  mxcsr
ymm:
	LOAD_YMM(Context_fp, DI)
	JMP  mxcsr
xmm:
	LOAD_XMM(Context_fp, DI)
mxcsr:
	LDMXCSR Context_mxcsr(DI)

flags:
	MOVQ c_rip(DI), AX
	MOVQ AX, entryRip(GS)
	MOVQ c_rflags(DI), AX
	TESTQ $~flagsSimple, AX
	JNE  oddflags
	MOVL AX, BX
	SHLL $8, AX               // AH = SF ZF AF PF CF
	SHRL $11, BX
	ANDL $1, BX
	MOVB BX, AX
	ADDB $0x7f, AX            // AL: OF = AL was 1
	SAHF
	JMP  load
oddflags:
	ANDL $flagsUser, AX
	ORL  $flagsHost, AX
	PUSHQ AX
	POPFQ
load:
	// Nothing from here on changes flags.
	MOVL $1, ·inGuest(SB)
	MOVQ c_rax(DI), AX
	MOVQ c_rbx(DI), BX
	MOVQ c_rcx(DI), CX
	MOVQ c_rdx(DI), DX
	MOVQ c_rsi(DI), SI
	MOVQ c_rbp(DI), BP
	MOVQ c_r8(DI), R8
	MOVQ c_r9(DI), R9
	MOVQ c_r10(DI), R10
	MOVQ c_r11(DI), R11
	MOVQ c_r12(DI), R12
	MOVQ c_r13(DI), R13
	MOVQ c_r14(DI), R14
	MOVQ c_r15(DI), R15
	MOVQ c_rsp(DI), SP
	MOVQ c_rdi(DI), DI
	JMP  ·jumpGuest(SB)

xsave:
	MOVL ·keepMask+0(SB), AX
	MOVL ·keepMask+4(SB), DX
	XRSTOR64 Context_fp(DI)
	JMP  flags

x87switch:
	MOVQ ·x87Owner(SB), BX
	MOVL $1, AX
	XORL DX, DX
	CMPL ·hasXSAVE(SB), $0
	JEQ  fxswitch
	TESTQ BX, BX
	JEQ  xnoowner
	XSAVE64 Context_x87(BX)
xnoowner:
	XRSTOR64 Context_x87(DI)
	MOVQ DI, ·x87Owner(SB)
	JMP  x87done
fxswitch:
	TESTQ BX, BX
	JEQ  fxnoowner
	FXSAVE64 Context_x87(BX)
fxnoowner:
	FXRSTOR64 Context_x87(DI)
	MOVQ DI, ·x87Owner(SB)
	JMP  x87done

// jumpGuest is the last instruction before the guest, a routine of its own so
// that the signal handler can tell a fault of it: a rip that is no address.
TEXT ·jumpGuest(SB), NOSPLIT|NOFRAME, $0
	BYTE $0x65; BYTE $0xff; BYTE $0x24; BYTE $0x25; LONG $entryRip // jmp *%gs:entryRip

// fastEntry is where the stubs of rewritten call sites go.
// Entry: the guest's registers; AX = call number, CX = return address, R11 free.
TEXT ·fastEntry(SB), NOSPLIT|NOFRAME, $0
	MOVQ ·current(SB), R11
	MOVQ AX, c_rax(R11)
	MOVQ BX, c_rbx(R11)
	MOVQ CX, c_rcx(R11)
	MOVQ CX, c_rip(R11)
	MOVQ DX, c_rdx(R11)
	MOVQ SI, c_rsi(R11)
	MOVQ DI, c_rdi(R11)
	MOVQ BP, c_rbp(R11)
	MOVQ SP, c_rsp(R11)
	MOVQ R8, c_r8(R11)
	MOVQ R9, c_r9(R11)
	MOVQ R10, c_r10(R11)
	MOVQ R12, c_r12(R11)
	MOVQ R13, c_r13(R11)
	MOVQ R14, c_r14(R11)
	MOVQ R15, c_r15(R11)
	MOVQ R11, DI
	MOVQ ·hostSP(SB), SP
	PUSHFQ
	POPQ AX
	MOVQ AX, c_rflags(DI)
	MOVQ AX, c_r11(DI)        // as the syscall instruction does
	MOVL $const_Syscall, Context_Reason(DI)
	MOVB $1, Context_Fast(DI)
	TESTL $flagsNotHost, AX
	JEQ  clean
	PUSHQ $flagsHost
	POPFQ
clean:
	JMP  ·leave(SB)

// leave saves the rest of the guest's state and returns from enterGuest.
// Entry: DI = context with the general registers saved; fs base, x87 and
// vector registers are the guest's; SP = hostSP; flags fit for Go.
TEXT ·leave(SB), NOSPLIT|NOFRAME, $0
	CMPL ·fsgsbase(SB), $0
	JEQ  fsdone               // then only arch_prctl changes it, and that traps
	RDFSBASEQ AX
	MOVQ AX, c_fsbase(DI)
	MOVQ AX, ·fsLoaded(SB)
fsdone:
	MOVL ·fpKind(SB), AX
	CMPL AX, $const_VariantYMM
	JEQ  ymm
	JCS  xmm
	CMPL AX, $const_VariantXSAVE
	JEQ  xsave
	SAVE_ZMM(Context_fp, DI)
	SAVE_K((Context_fp+const_maskOffset), DI)
	VZEROUPPER                // SSE code is slow while upper halves are in use
	JMP  mxcsr
ymm:
	SAVE_YMM(Context_fp, DI)
	VZEROUPPER
	JMP  mxcsr
xmm:
	SAVE_XMM(Context_fp, DI)
mxcsr:
	STMXCSR Context_mxcsr(DI)
	MOVL Context_mxcsr(DI), AX
	ANDL $0xffc0, AX          // all but the exception flags, which Go ignores
	CMPL AX, $const_initialMXCSR
	JEQ  done
hostmxcsr:
	LDMXCSR ·hostMXCSR(SB)
done:
	MOVQ ·hostBP(SB), BP
	MOVL $0, ·inGuest(SB)
	RET
xsave:
	MOVL ·keepMask+0(SB), AX
	MOVL ·keepMask+4(SB), DX
	XSAVE64 Context_fp(DI)
	JMP  hostmxcsr

// func storeX87(c *Context): brings c.x87 up to date if the processor has c's.
// The test is here, not in Go: there the goroutine could be switched after it.
TEXT ·storeX87(SB), NOSPLIT, $0-8
	MOVQ c+0(FP), DI
	CMPQ DI, ·x87Owner(SB)
	JNE  no
	CMPL ·hasXSAVE(SB), $0
	JEQ  fx
	MOVL $1, AX
	XORL DX, DX
	XSAVE64 Context_x87(DI)
no:
	RET
fx:
	FXSAVE64 Context_x87(DI)
	RET

// func addresses() (fastEntry, signalEntry, restorer, lo, hi uintptr)
TEXT ·addresses(SB), NOSPLIT, $0-40
	LEAQ ·fastEntry(SB), AX
	MOVQ AX, fastEntry+0(FP)
	LEAQ ·signalEntry(SB), AX
	MOVQ AX, signalEntry+8(FP)
	LEAQ ·restorer(SB), AX
	MOVQ AX, restorer+16(FP)
	LEAQ runtime·text(SB), AX
	MOVQ AX, lo+24(FP)
	LEAQ runtime·etext(SB), AX
	MOVQ AX, hi+32(FP)
	RET

// func gate(nr, a0, a1, a2 uintptr) uintptr
TEXT ·gate(SB), NOSPLIT, $0-40
	MOVQ nr+0(FP), AX
	MOVQ a0+8(FP), DI
	MOVQ a1+16(FP), SI
	MOVQ a2+24(FP), DX
	CALL runtime·nablaGate(SB)
	MOVQ AX, ret+32(FP)
	RET

// func readGS() uintptr
TEXT ·readGS(SB), NOSPLIT, $0-8
	RDGSBASEQ AX
	MOVQ AX, ret+0(FP)
	RET

// func cpuid(leaf, sub uint32) (a, b, c, d uint32)
TEXT ·cpuid(SB), NOSPLIT, $0-24
	MOVL leaf+0(FP), AX
	MOVL sub+4(FP), CX
	CPUID
	MOVL AX, a+8(FP)
	MOVL BX, b+12(FP)
	MOVL CX, c+16(FP)
	MOVL DX, d+20(FP)
	RET

// func xgetbv0() uint64
TEXT ·xgetbv0(SB), NOSPLIT, $0-8
	XORL CX, CX
	XGETBV
	SHLQ $32, DX
	ORQ  DX, AX
	MOVQ AX, ret+0(FP)
	RET

// func mxcsrMask() uint32: FXSAVE's MXCSR_MASK, 0 on old processors
TEXT ·mxcsrMask(SB), NOSPLIT, $528-4
	LEAQ buf-528(SP), DI
	ADDQ $15, DI
	ANDQ $~15, DI
	FXSAVE64 (DI)
	MOVL 28(DI), AX
	MOVL AX, ret+0(FP)
	RET
