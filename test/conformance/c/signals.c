#include "check.h"
#include <setjmp.h>
#include <ucontext.h>
static volatile int hits, last, code;
static volatile void *addr;
static sigjmp_buf env;
static void count(int s) { hits++; last = s; }
static void info(int s, siginfo_t *i, void *u) { hits++; last = s; code = i->si_code; addr = i->si_addr; }
static void jump(int s, siginfo_t *i, void *u) { last = s; code = i->si_code; addr = i->si_addr; siglongjmp(env, 1); }
static void skip(int s, siginfo_t *i, void *u)
{
	ucontext_t *c = u;
	hits++;
	c->uc_mcontext.gregs[REG_RIP] += 2; // ud2
	c->uc_mcontext.gregs[REG_RBX] = 42;
}
static int onstack;
static char *alt;
static void where(int s)
{
	char here;
	onstack = &here >= alt && &here < alt + 65536;
}
static void *killer(void *p)
{
	usleep(20000);
	pthread_kill(*(pthread_t *)p, SIGUSR1);
	return 0;
}
static double fp_handler_result;
static void fp(int s)
{
	double x = 1.0;
	for (int i = 0; i < 50; i++)
		x = x * 1.5 + 0.25;
	fp_handler_result = x;
}
int main(void)
{
	struct sigaction sa = {0};
	sigset_t set, old;
	sa.sa_handler = count;
	sigaction(SIGUSR1, &sa, 0);
	CALL(raise(SIGUSR1));
	printf("hits %d last %d\n", hits, last);

	sigemptyset(&set);
	sigaddset(&set, SIGUSR1);
	sigprocmask(SIG_BLOCK, &set, &old);
	raise(SIGUSR1);
	raise(SIGUSR1);
	printf("blocked: hits %d\n", hits);
	sigset_t pend;
	sigpending(&pend);
	printf("pending %d\n", sigismember(&pend, SIGUSR1));
	sigprocmask(SIG_SETMASK, &old, 0);
	printf("unblocked: hits %d\n", hits);

	sa.sa_sigaction = info;
	sa.sa_flags = SA_SIGINFO;
	sigaction(SIGRTMIN + 1, &sa, 0);
	sigemptyset(&set);
	sigaddset(&set, SIGRTMIN + 1);
	sigprocmask(SIG_BLOCK, &set, &old);
	hits = 0;
	for (int i = 0; i < 3; i++)
		sigqueue(getpid(), SIGRTMIN + 1, (union sigval){.sival_int = i});
	sigprocmask(SIG_SETMASK, &old, 0);
	printf("queued: hits %d code %d\n", hits, code);

	// Faults.
	sa.sa_sigaction = jump;
	sa.sa_flags = SA_SIGINFO | SA_NODEFER;
	sigaction(SIGSEGV, &sa, 0);
	sigaction(SIGFPE, &sa, 0);
	sigaction(SIGILL, &sa, 0);
	sigaction(SIGTRAP, &sa, 0);
	for (int i = 0; i < 3; i++) {
		if (!sigsetjmp(env, 1))
			*(volatile int *)(long)(8 + i) = 1;
		printf("fault %d code %d addr %p\n", last, code, (void *)addr);
	}
	if (!sigsetjmp(env, 1)) {
		volatile int z = 0;
		printf("%d\n", 1 / z);
	}
	printf("fault %d code %d\n", last, code);
	if (!sigsetjmp(env, 1))
		__asm__ volatile("ud2");
	printf("fault %d code %d\n", last, code);
	if (!sigsetjmp(env, 1))
		__asm__ volatile("int3");
	printf("fault %d code %d\n", last, code);
	if (!sigsetjmp(env, 1))
		__asm__ volatile("hlt");
	printf("fault %d code %d addr %p\n", last, code, (void *)addr);

	sa.sa_sigaction = skip;
	sa.sa_flags = SA_SIGINFO;
	sigaction(SIGILL, &sa, 0);
	long rbx = 0;
	__asm__ volatile("ud2" : "=b"(rbx) : "b"(1L));
	printf("edited context: rbx %ld\n", rbx);

	// Alternate stack.
	alt = malloc(65536);
	stack_t ss = {.ss_sp = alt, .ss_size = 65536}, oss;
	CALL(sigaltstack(&ss, &oss));
	printf("old flags %d\n", oss.ss_flags);
	sa.sa_handler = where;
	sa.sa_flags = SA_ONSTACK;
	sigaction(SIGUSR2, &sa, 0);
	raise(SIGUSR2);
	printf("on alternate stack %d\n", onstack);
	sa.sa_flags = 0;
	sigaction(SIGUSR2, &sa, 0);
	raise(SIGUSR2);
	printf("on alternate stack %d\n", onstack);

	// Interrupted calls.
	int p[2];
	char b;
	pipe(p);
	pthread_t self = pthread_self(), k;
	sa.sa_handler = count;
	sa.sa_flags = 0;
	sigaction(SIGUSR1, &sa, 0);
	pthread_create(&k, 0, killer, &self);
	CALL(read(p[0], &b, 1));
	pthread_join(k, 0);
	sa.sa_flags = SA_RESTART;
	sigaction(SIGUSR1, &sa, 0);
	signal(SIGALRM, count);
	struct sigaction oa;
	sigaction(SIGALRM, 0, &oa);
	printf("signal() restarts %d\n", !!(oa.sa_flags & SA_RESTART));
	pthread_create(&k, 0, killer, &self);
	struct timeval tv = {0, 60000};
	(void)tv;
	hits = 0;
	// the writer comes after the signal: a restarted read gets its byte
	if (1) {
		struct itimerval it = {{0, 0}, {0, 60000}};
		setitimer(ITIMER_REAL, &it, 0);
		struct sigaction wa = {0};
		wa.sa_handler = count;
		wa.sa_flags = SA_RESTART;
		sigaction(SIGALRM, &wa, 0);
	}
	struct pollfd pf = {p[0], POLLIN, 0};
	CALL(poll(&pf, 1, 1000));
	pthread_join(k, 0);
	struct timespec rem, ts = {5, 0};
	struct itimerval it = {{0, 0}, {0, 30000}};
	setitimer(ITIMER_REAL, &it, 0);
	CALL(nanosleep(&ts, &rem));
	printf("remaining over 4 s: %d\n", rem.tv_sec >= 4);

	// sigtimedwait, sigsuspend
	sigemptyset(&set);
	sigaddset(&set, SIGUSR2);
	sigprocmask(SIG_BLOCK, &set, &old);
	struct timespec zero = {0, 1000000};
	siginfo_t si;
	CALL(sigtimedwait(&set, &si, &zero));
	raise(SIGUSR2);
	CALL(sigtimedwait(&set, &si, &zero));
	printf("si_signo %d si_code %d\n", si.si_signo, si.si_code);
	setitimer(ITIMER_REAL, &it, 0);
	sigset_t none;
	sigemptyset(&none);
	CALL(sigsuspend(&none));

	signal(SIGPIPE, SIG_IGN);
	close(p[0]);
	CALL(write(p[1], "x", 1));
	signal(SIGPIPE, count);
	hits = 0;
	CALL(write(p[1], "x", 1));
	printf("SIGPIPE hits %d\n", hits);

	// FP state survives a handler.
	signal(SIGUSR1, fp);
	volatile double d = 3.25;
	double e = d * 2;
	raise(SIGUSR1);
	printf("fp %.3f %.3f\n", e, fp_handler_result);
	CALL(kill(getpid(), 0));
	CALL(kill(999999, 0));
	CALL(kill(getpid(), 65));
	CALL(sigaction(SIGKILL, &sa, 0));
	timer_t tm;
	struct sigevent ev = {.sigev_notify = SIGEV_SIGNAL, .sigev_signo = SIGUSR1};
	signal(SIGUSR1, count);
	hits = 0;
	CALL(timer_create(CLOCK_MONOTONIC, &ev, &tm));
	struct itimerspec its = {{0, 5000000}, {0, 5000000}};
	CALL(timer_settime(tm, 0, &its, 0));
	while (hits < 3)
		pause();
	printf("timer fired\n");
	CALL(timer_delete(tm));

	// A descriptor of /proc/PID is as good as a pidfd, of others it is not.
	char me[32];
	snprintf(me, sizeof me, "/proc/%d", getpid());
	hits = 0;
	int pd = open(me, O_DIRECTORY), pp = open(me, O_PATH), proc = open("/proc", O_DIRECTORY);
	CALL(syscall(SYS_pidfd_send_signal, pd, SIGUSR1, 0, 0));
	CALL(hits);
	CALL(syscall(SYS_pidfd_send_signal, pd, 0, 0, 0));
	CALL(syscall(SYS_pidfd_send_signal, pd, 65, 0, 0));
	CALL(syscall(SYS_pidfd_send_signal, pp, 0, 0, 0));
	CALL(syscall(SYS_pidfd_send_signal, proc, 0, 0, 0));
	CALL(syscall(SYS_pidfd_send_signal, -1, 0, 0, 0));
	return 0;
}
