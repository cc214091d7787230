/* Child processes: the program is parent and child, by its first argument. */
#include "../c/check.h"
#include <poll.h>
#include <sched.h>
#include <spawn.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/wait.h>
#if !defined(__GLIBC__) && !defined(strerrorname_np)
#define strerrorname_np strerror
#endif
extern char **environ;
static char *self;

static int child(char **v)
{
	if (!strcmp(v[1], "exit"))
		exit(atoi(v[2]));
	if (!strcmp(v[1], "kill")) {
		raise(atoi(v[2]));
		pause();
	}
	if (!strcmp(v[1], "echo")) {
		char b[256];
		ssize_t n;
		while ((n = read(0, b, sizeof b)) > 0)
			write(1, b, n);
		exit(0);
	}
	if (!strcmp(v[1], "show")) {
		sigset_t s;
		struct sigaction a;
		char dir[256];
		sigprocmask(0, 0, &s);
		sigaction(SIGUSR1, 0, &a);
		printf("child: argument %s variable %s\n", v[2], getenv("CHILD"));
		printf("child: blocked %d default %d\n", sigismember(&s, SIGUSR2), a.sa_handler == SIG_DFL);
		printf("child: in %s, descriptor 40 %d, 41 %d\n", getcwd(dir, sizeof dir), fcntl(40, F_GETFD), fcntl(41, F_GETFD));
		printf("child: leads its group %d, its session %d\n", getpgrp() == getpid(), getsid(0) == getpid());
		fflush(stdout);
		exit(0);
	}
	if (!strcmp(v[1], "wait")) {
		pause();
		exit(1);
	}
	if (!strcmp(v[1], "orphan")) {
		/* Its child outlives it and says who its parent is then. */
		char *a[] = {self, "adopted", v[2], 0};
		pid_t p;
		posix_spawn(&p, self, 0, 0, a, environ);
		exit(0);
	}
	if (!strcmp(v[1], "adopted")) {
		int n = 0;
		while (getppid() != atoi(v[2]) && n++ < 2000)
			usleep(1000);
		exit(getppid() == atoi(v[2]) ? 33 : 34);
	}
	if (!strcmp(v[1], "memory")) {
		/* A program with memory, threads' stacks and a heap of its own. */
		char *m = malloc(3 << 20);
		memset(m, 7, 3 << 20);
		exit(m[1 << 20] == 7 ? 12 : 13);
	}
	return 99;
}

static void status(const char *what, int s)
{
	if (WIFEXITED(s))
		printf("%s: exited %d\n", what, WEXITSTATUS(s));
	else if (WIFSIGNALED(s))
		printf("%s: killed by %d\n", what, WTERMSIG(s));
	else
		printf("%s: %x\n", what, s);
}

static pid_t spawn(char *a1, char *a2)
{
	char *a[] = {self, a1, a2, 0};
	pid_t p = -1;
	int e = posix_spawn(&p, self, 0, 0, a, environ);
	if (e)
		printf("posix_spawn %s: %s\n", a1, strerror(e));
	return p;
}

static volatile sig_atomic_t chld, code, st;
static volatile pid_t from;
static void onchld(int n, siginfo_t *i, void *c)
{
	chld++;
	code = i->si_code;
	st = i->si_status;
	from = i->si_pid;
}

static int global = 1;

int main(int c, char **v)
{
	setvbuf(stdout, 0, _IOLBF, 0);
	self = "/proc/self/exe";
	if (c == 1)
		chdir("/");
	if (c > 1)
		return child(v);
	int s;
	siginfo_t si;
	struct rusage ru;
	char b[64];

	CALL(wait4(-1, &s, 0, 0));
	CALL(waitid(P_ALL, 0, &si, WEXITED));
	pid_t p = spawn("exit", "5");
	CALL(waitpid(p, &s, 0) == p);
	status("exit 5", s);
	CALL(waitpid(p, &s, 0));
	p = spawn("memory", "0");
	waitpid(p, &s, 0);
	status("memory", s);
	int sigs[] = {SIGKILL, SIGTERM, SIGSEGV, SIGABRT, SIGHUP, SIGUSR1};
	for (int i = 0; i < 6; i++) {
		sprintf(b, "%d", sigs[i]);
		p = spawn("kill", b);
		waitpid(p, &s, 0);
		printf("signal %d: ", sigs[i]);
		printf("%d %d\n", WIFSIGNALED(s), WTERMSIG(s));
	}

	/* Errors of posix_spawn come from the child's execve. */
	char *none[] = {"none", 0};
	printf("spawn of nothing: %d\n", posix_spawn(&p, "/nonexistent", 0, 0, none, environ));
	printf("spawn of a directory: %d\n", posix_spawn(&p, "/", 0, 0, none, environ));
	CALL(wait4(-1, &s, 0, 0));

	/* File actions and attributes. */
	int in[2], out[2];
	pipe2(in, O_CLOEXEC), pipe2(out, O_CLOEXEC);
	posix_spawn_file_actions_t fa;
	posix_spawnattr_t at;
	posix_spawn_file_actions_init(&fa);
	posix_spawn_file_actions_adddup2(&fa, in[0], 0);
	posix_spawn_file_actions_adddup2(&fa, out[1], 1);
	char *echo[] = {self, "echo", 0};
	printf("spawn: %d\n", posix_spawn(&p, self, &fa, 0, echo, environ));
	close(in[0]), close(out[1]);
	CALL(write(in[1], "through the child", 17));
	close(in[1]);
	CALL(read(out[0], b, sizeof b));
	printf("%.17s\n", b);
	CALL(read(out[0], b, sizeof b));
	waitpid(p, &s, 0);
	status("echo", s);
	close(out[0]);

	dup2(1, 40), dup2(1, 41);
	fcntl(41, F_SETFD, FD_CLOEXEC);
	sigset_t set, old;
	sigemptyset(&set);
	sigaddset(&set, SIGUSR2);
	signal(SIGUSR1, (void (*)(int))main);
	posix_spawnattr_init(&at);
	posix_spawnattr_setflags(&at, POSIX_SPAWN_SETPGROUP | POSIX_SPAWN_SETSIGMASK);
	posix_spawnattr_setsigmask(&at, &set);
	posix_spawn_file_actions_init(&fa);
	posix_spawn_file_actions_addopen(&fa, 7, "/dev/null", O_RDONLY, 0);
	char *show[] = {self, "show", "one", 0}, *env[] = {"CHILD=two", 0};
	fflush(stdout);
	posix_spawn(&p, self, &fa, &at, show, env);
	waitpid(p, &s, 0);
	status("show", s);
	posix_spawnattr_setflags(&at, POSIX_SPAWN_SETSID);
	chdir("/tmp");
	posix_spawn(&p, self, 0, &at, show, env);
	waitpid(p, &s, 0);
	chdir("/");

	/* vfork shares memory until the end of the child. */
	p = vfork();
	if (!p) {
		global = 2;
		_exit(9);
	}
	waitpid(p, &s, 0);
	status("vfork", s);
	printf("global %d\n", global);
	p = vfork();
	if (!p) {
		close(40);
		execl(self, self, "exit", "21", (char *)0);
		_exit(1);
	}
	printf("descriptor 40 after the child closed its own: %d\n", fcntl(40, F_GETFD));
	waitpid(p, &s, 0);
	status("vfork, exec", s);

	/* fork does not. */
	char *heap = malloc(100000);
	strcpy(heap, "before");
	fflush(stdout);
	p = fork();
	if (!p) {
		global = 3;
		strcpy(heap, "after");
		execl(self, self, "exit", "22", (char *)0);
		_exit(1);
	}
	printf("after fork: %s %d\n", heap, global);
	waitpid(p, &s, 0);
	status("fork, exec", s);
	p = fork();
	if (!p) {
		global = 4;
		_exit(23);
	}
	waitpid(p, &s, 0);
	status("fork, exit", s);
	printf("global %d\n", global);
	p = fork();
	if (!p) {
		execl("/nonexistent", "x", (char *)0);
		_exit(errno == ENOENT ? 24 : 25);
	}
	waitpid(p, &s, 0);
	status("fork, failed exec", s);

	/* A child that waits for its parent: refused inside, so only that nothing
	   hangs is compared. */
	int pp[2];
	pipe(pp);
	double t0 = now();
	p = fork();
	if (!p) {
		alarm(1);
		read(pp[0], b, 1);
		_exit(0);
	}
	close(pp[1]), close(pp[0]);
	if (p > 0)
		waitpid(p, &s, 0);
	TRUE(now() - t0 < 3);

	/* SIGCHLD, with what it says. */
	struct sigaction a = {.sa_sigaction = onchld, .sa_flags = SA_SIGINFO | SA_RESTART};
	sigaction(SIGCHLD, &a, 0);
	p = spawn("exit", "3");
	while (!chld)
		usleep(1000);
	printf("SIGCHLD: code %d status %d from it %d\n", code, st, from == p);
	CALL(waitpid(p, &s, WNOHANG) == p);
	chld = 0;
	p = spawn("wait", "0");
	CALL(waitpid(p, &s, WNOHANG));
	kill(p, SIGTERM);
	while (!chld)
		usleep(1000);
	printf("SIGCHLD: code %d status %d from it %d\n", code, st, from == p);
	/* A zombie takes signals and keeps its number. */
	CALL(kill(p, 0));
	CALL(kill(p, SIGKILL));
	memset(&si, 0, sizeof si);
	CALL(waitid(P_PID, p, &si, WEXITED | WNOWAIT));
	printf("waitid: signal %d code %d status %d pid %d\n", si.si_signo, si.si_code, si.si_status, si.si_pid == p);
	CALL(waitid(P_PID, p, &si, WEXITED));
	CALL(waitid(P_PID, p, &si, WEXITED));
	CALL(kill(p, 0));
	CALL(waitid(P_PID, getpid(), &si, WEXITED));
	CALL(waitid(P_ALL, 0, &si, 0));
	CALL(waitid(9, 0, &si, WEXITED));
	CALL(wait4(-1, &s, 0x100, 0));

	/* Groups. */
	char *wait_[] = {self, "wait", 0};
	pid_t q;
	posix_spawnattr_setflags(&at, POSIX_SPAWN_SETPGROUP);
	posix_spawnattr_setpgroup(&at, 0);
	CALL(posix_spawn(&p, self, 0, &at, wait_, environ));
	posix_spawnattr_setpgroup(&at, p);
	CALL(posix_spawn(&q, self, 0, &at, wait_, environ));
	CALL(setpgid(q, q));
	CALL(getpgid(p) == p);
	CALL(getpgid(q) == p);
	CALL(getsid(q) == getsid(0));
	CALL(setpgid(p, 77777));
	CALL(waitpid(0, &s, WNOHANG));
	CALL(waitpid(-p, &s, WNOHANG));
	CALL(kill(-p, SIGINT));
	int n = 0;
	while (waitpid(-1, &s, 0) > 0)
		n += WTERMSIG(s) == SIGINT;
	printf("of the group: %d\n", n);
	CALL(kill(-p, 0));

	/* Many at once, in any order. */
	pid_t ps[8];
	for (int i = 0; i < 8; i++) {
		sprintf(b, "%d", i);
		ps[i] = spawn("exit", b);
	}
	int sum = 0;
	for (int i = 7; i >= 0; i--) {
		waitpid(ps[i], &s, 0);
		sum = sum * 8 + WEXITSTATUS(s);
	}
	printf("sum %d\n", sum);

	/* pidfd. */
	p = spawn("wait", "0");
	int fd = syscall(SYS_pidfd_open, p, 0);
	struct pollfd pf = {fd, POLLIN};
	CALL(poll(&pf, 1, 0));
	CALL(waitid(3, fd, &si, WEXITED | WNOHANG));
	CALL(syscall(SYS_pidfd_send_signal, fd, SIGUSR2, 0, 0));
	CALL(poll(&pf, 1, 5000));
	printf("revents %x\n", pf.revents);
	CALL(waitid(3, fd, &si, WEXITED));
	printf("waitid: code %d status %d\n", si.si_code, si.si_status);
	CALL(syscall(SYS_pidfd_send_signal, fd, 0, 0, 0));
	CALL(read(fd, b, 8));
	CALL(syscall(SYS_pidfd_open, p, 0));
	CALL(syscall(SYS_pidfd_open, 0, 0));
	CALL(syscall(SYS_pidfd_open, getpid(), 1));
	CALL(waitid(3, 1, &si, WEXITED));
	close(fd);

	/* Orphans go to whoever asked for them. */
	CALL(prctl(PR_SET_CHILD_SUBREAPER, 1));
	sprintf(b, "%d", getpid());
	p = spawn("orphan", b);
	n = 0;
	while (waitpid(-1, &s, 0) > 0)
		n += WEXITSTATUS(s);
	printf("orphan and its child: %d\n", n);

	/* Children that nobody waits for. */
	signal(SIGCHLD, SIG_IGN);
	p = spawn("exit", "1");
	CALL(waitpid(p, &s, 0));
	a.sa_flags |= SA_NOCLDWAIT;
	chld = 0;
	sigaction(SIGCHLD, &a, 0);
	p = spawn("exit", "1");
	CALL(waitpid(p, &s, 0));
	TRUE(chld == 1);
	signal(SIGCHLD, SIG_DFL);

	/* Their time counts once they were waited for. */
	p = spawn("memory", "0");
	wait4(p, &s, 0, &ru);
	status("memory", s);
	getrusage(RUSAGE_CHILDREN, &ru);
	TRUE(ru.ru_utime.tv_sec < 100);

	return 0;
}
