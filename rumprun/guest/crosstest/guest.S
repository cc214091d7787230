// The guest of the crossing's tests: routines that load every register from a
// block of memory, let something happen, and store every register. A block is
// addressed by fs, so that no general register is needed for it and the fs
// base is tested too. There is no libc here and no system call but through the
// shapes below. Build: gcc -nostdlib -static -Wl,-Ttext-segment=0x400000.

// A block: what to load, at +outOffset what was stored. main.go has the same.
	.set bGPR, 0x000            // rax rbx rcx rdx rsi rdi rbp rsp r8..r15
	.set bFlags, 0x080
	.set bMXCSR, 0x088
	.set bRedzone, 0x090        // pattern for the red zone
	.set bAux, 0x098            // a stack for this code itself
	.set bZero, 0x0a0
	.set bK, 0x100
	.set bFX, 0x200             // fxsave image, for x87
	.set bVec, 0x400
	.set bOut, 0x1000

	.macro stub nr:req, ret:req // what the relinker writes for a site
	mov $\nr, %eax
	lea \ret(%rip), %rcx
	jmp *%gs:8
	.endm


	.macro load_gpr
	mov %fs:bGPR+0x00, %rax
	mov %fs:bGPR+0x08, %rbx
	mov %fs:bGPR+0x10, %rcx
	mov %fs:bGPR+0x18, %rdx
	mov %fs:bGPR+0x20, %rsi
	mov %fs:bGPR+0x28, %rdi
	mov %fs:bGPR+0x30, %rbp
	mov %fs:bGPR+0x40, %r8
	mov %fs:bGPR+0x48, %r9
	mov %fs:bGPR+0x50, %r10
	mov %fs:bGPR+0x58, %r11
	mov %fs:bGPR+0x60, %r12
	mov %fs:bGPR+0x68, %r13
	mov %fs:bGPR+0x70, %r14
	mov %fs:bGPR+0x78, %r15
	.endm

	.macro store_gpr
	mov %rax, %fs:bOut+bGPR+0x00
	mov %rbx, %fs:bOut+bGPR+0x08
	mov %rcx, %fs:bOut+bGPR+0x10
	mov %rdx, %fs:bOut+bGPR+0x18
	mov %rsi, %fs:bOut+bGPR+0x20
	mov %rdi, %fs:bOut+bGPR+0x28
	mov %rbp, %fs:bOut+bGPR+0x30
	mov %rsp, %fs:bOut+bGPR+0x38
	mov %r8, %fs:bOut+bGPR+0x40
	mov %r9, %fs:bOut+bGPR+0x48
	mov %r10, %fs:bOut+bGPR+0x50
	mov %r11, %fs:bOut+bGPR+0x58
	mov %r12, %fs:bOut+bGPR+0x60
	mov %r13, %fs:bOut+bGPR+0x68
	mov %r14, %fs:bOut+bGPR+0x70
	mov %r15, %fs:bOut+bGPR+0x78
	.endm

	.macro load_vec kind:req
	.irp r,0,1,2,3,4,5,6,7,8,9,10,11,12,13,14,15
	.ifc \kind,xmm
	movups %fs:bVec+64*\r, %xmm\r
	.endif
	.ifc \kind,ymm
	vmovups %fs:bVec+64*\r, %ymm\r
	.endif
	.ifc \kind,zmm
	vmovups %fs:bVec+64*\r, %zmm\r
	.endif
	.endr
	.ifc \kind,zmm
	.irp r,16,17,18,19,20,21,22,23,24,25,26,27,28,29,30,31
	vmovups %fs:bVec+64*\r, %zmm\r
	.endr
	.irp r,0,1,2,3,4,5,6,7
	kmovq %fs:bK+8*\r, %k\r
	.endr
	.endif
	.endm

	.macro store_vec kind:req
	.irp r,0,1,2,3,4,5,6,7,8,9,10,11,12,13,14,15
	.ifc \kind,xmm
	movups %xmm\r, %fs:bOut+bVec+64*\r
	.endif
	.ifc \kind,ymm
	vmovups %ymm\r, %fs:bOut+bVec+64*\r
	.endif
	.ifc \kind,zmm
	vmovups %zmm\r, %fs:bOut+bVec+64*\r
	.endif
	.endr
	.ifc \kind,zmm
	.irp r,16,17,18,19,20,21,22,23,24,25,26,27,28,29,30,31
	vmovups %zmm\r, %fs:bOut+bVec+64*\r
	.endr
	.irp r,0,1,2,3,4,5,6,7
	kmovq %k\r, %fs:bOut+bK+8*\r
	.endr
	.endif
	.endm

	// probe kind, event: the routine probe_KIND_EVENT.
	.macro probe kind:req, event:req
	.globl probe_\kind\()_\event
	.balign 64
probe_\kind\()_\event:
	fxrstor64 %fs:bFX
	load_vec \kind
	ldmxcsr %fs:bMXCSR
	mov %fs:bAux, %rsp
	pushq %fs:bFlags
	popfq
	mov %fs:bGPR+0x38, %rsp
	mov %fs:bRedzone, %rax
	.set i, 16
	.rept 16
	mov %rax, -8*i(%rsp)
	.set i, i-1
	.endr
	load_gpr
	event_\event \kind
	store_gpr
	mov %fs:bAux, %rsp
	pushfq
	popq %fs:bOut+bFlags
	store_vec \kind
	fxsave64 %fs:bOut+bFX
	jmp done
	.endm

	// mov $nr,%eax; syscall with its site rewritten: the 0f 05 stays.
	.macro event_mov7 kind
	jmp 5f
	.byte 0x0f, 0x05
7:	jmp 6f
5:	stub 39, 7b
6:
	.endm

	// Something jumps to the 0f 05 behind a rewritten mov.
	.macro event_behind kind
	jmp 8f
	jmp 5f
8:	.byte 0x0f, 0x05
7:	jmp 6f
5:	stub 39, 7b
6:
	.endm

	// A neighbour before the site moved into the stub.
	.macro event_before kind
	jmp 5f
	nop
7:	jmp 6f
5:	lea 1(%rdx), %rdx
	stub 39, 7b
6:
	.endm

	// A neighbour behind the site moved too: it runs after the call.
	.macro event_after kind
	jmp 5f
5:	stub 39, 7f
7:	lea 1(%rdx), %rdx
	.endm

	.macro event_trap kind
	syscall
	.endm

	// Runs until preempted; main.go moves rip on to spun.
	.macro event_spin kind
	.globl spin_\kind
	.globl spun_\kind
spin_\kind:
	jmp spin_\kind
spun_\kind:
	.endm

	// Faults; main.go moves rip on to fault end.
	.macro faulting kind, name, insn:vararg
	.globl fault_\kind\()_\name
	.globl faulted_\kind\()_\name
fault_\kind\()_\name:
	\insn
faulted_\kind\()_\name:
	.endm
	.macro event_segv kind
	faulting \kind, segv, movb $0, 0x10
	.endm
	.macro event_ill kind
	faulting \kind, ill, ud2
	.endm
	.macro event_trap3 kind
	faulting \kind, trap3, int3
	.endm
	.macro event_div kind
	faulting \kind, div, divq %fs:bZero
	.endm
	.macro event_align kind
	faulting \kind, align, lock decl %fs:bZero+1
	.endm

	// The guest moves gs away (rax) and calls by trap, then by stub.
	.macro event_gs kind
	wrgsbase %rax
	mov %fs:bGPR+0x00, %rax
	syscall
	jmp 5f
5:	stub 39, 7f
7:
	.endm

	// The guest moves fs to another block (rax), then calls.
	.macro event_fs kind
	wrfsbase %rax
	syscall
	jmp 5f
5:	stub 39, 7f
7:
	.endm

	.macro probes kind:req
	.irp e,mov7,behind,before,after,trap,spin,segv,ill,trap3,div,align,gs,fs
	probe \kind, \e
	.endr
	.endm

	.text
	.globl _start
_start:
	ud2
	probes xmm
	probes ymm
	probes zmm

done:	jmp 5f
5:	stub 1000, 7f
7:	ud2

	// A signal handler as a guest has it: spoils every register, then
	// "returns" by call 15.
	.globl handler
handler:
	mov $-1, %rax
	mov %rax, %rbx
	mov %rax, %rcx
	mov %rax, %rdx
	mov %rax, %rsi
	mov %rax, %rdi
	mov %rax, %rbp
	mov %rax, %r8
	mov %rax, %r9
	mov %rax, %r10
	mov %rax, %r11
	mov %rax, %r12
	mov %rax, %r13
	mov %rax, %r14
	mov %rax, %r15
	fninit
	fldpi
	.irp r,0,1,2,3,4,5,6,7,8,9,10,11,12,13,14,15
	movq %rax, %xmm\r
	.endr
	mov $15, %eax
	syscall
	ud2

	// Calls without end, for measurements: %ebx counts down, then call 1000.
	.globl bench_fast
bench_fast:
1:	jmp 5f
5:	stub 39, 7f
7:	dec %ebx
	jnz 1b
	jmp done
	.globl bench_trap
bench_trap:
1:	mov $39, %eax
	syscall
	dec %ebx
	jnz 1b
	jmp done

	.section .note.GNU-stack,"",@progbits
