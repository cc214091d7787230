// Offsets in the kernel's struct ucontext (asm/ucontext.h, asm/sigcontext.h)
// and siginfo_t. The kernel's ABI fixes them.
#define u_r8 40
#define u_r9 48
#define u_r10 56
#define u_r11 64
#define u_r12 72
#define u_r13 80
#define u_r14 88
#define u_r15 96
#define u_rdi 104
#define u_rsi 112
#define u_rbp 120
#define u_rbx 128
#define u_rdx 136
#define u_rax 144
#define u_rcx 152
#define u_rsp 160
#define u_rip 168
#define u_rflags 176
#define u_cs 184
#define u_ss 190
#define u_err 192
#define u_trapno 200
#define u_fpstate 224

#define si_code 8
#define si_addr 16
#define si_syscall 24

// Words of the host thread, from the gs base (m.tls[1]); 8 is the entry that
// the relinker's stubs know.
#define entryRip 16
