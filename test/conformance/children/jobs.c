/* Job control: stopping and continuing children, and what wait says of it. */
#include "../c/check.h"
#include <spawn.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#if !defined(__GLIBC__) && !defined(strerrorname_np)
#define strerrorname_np strerror
#endif
extern char **environ;
static char *self = "/proc/self/exe";

static volatile sig_atomic_t conts;
static void oncont(int n) { conts++; }

static void *second(void *p)
{
	for (;;)
		usleep(500);
}

static int child(char **v)
{
	char b = 'x';
	if (!strcmp(v[1], "pause")) {
		write(1, &b, 1);
		for (;;)
			pause();
	}
	if (!strcmp(v[1], "busy")) { /* writes as long as it runs */
		for (;;) {
			if (write(1, &b, 1) != 1)
				exit(3);
			for (volatile int i = 0; i < 100000; i++)
				;
		}
	}
	if (!strcmp(v[1], "threads")) {
		pthread_t t;
		for (int i = 0; i < 3; i++)
			pthread_create(&t, 0, second, 0);
		write(1, &b, 1);
		for (volatile long i = 0;; i++)
			;
	}
	if (!strcmp(v[1], "read")) {
		char c;
		write(1, &b, 1);
		ssize_t n = read(0, &c, 1); /* goes on after a stop */
		exit(n == 1 ? c : 100);
	}
	if (!strcmp(v[1], "sleep")) {
		struct timespec t = {0, 150000000};
		write(1, &b, 1);
		exit(nanosleep(&t, 0) ? 1 : 0);
	}
	if (!strcmp(v[1], "handler")) {
		signal(SIGCONT, oncont);
		signal(SIGTSTP, SIG_IGN);
		write(1, &b, 1);
		while (!conts)
			pause();
		exit(40 + conts);
	}
	if (!strcmp(v[1], "self")) {
		write(1, &b, 1);
		raise(SIGSTOP);
		raise(SIGTSTP);
		exit(8);
	}
	if (!strcmp(v[1], "blocked")) {
		sigset_t s;
		sigemptyset(&s), sigaddset(&s, SIGTSTP), sigaddset(&s, SIGCONT);
		sigprocmask(SIG_BLOCK, &s, 0);
		raise(SIGTSTP);
		sigpending(&s);
		int a = sigismember(&s, SIGTSTP);
		raise(SIGCONT); /* takes the other away */
		sigpending(&s);
		int d = sigismember(&s, SIGTSTP), e = sigismember(&s, SIGCONT);
		write(1, &b, 1);
		exit(a * 4 + d * 2 + e);
	}
	if (!strcmp(v[1], "leader")) {
		/* The end of a session's leader leaves a stopped group alone. */
		char *a[] = {self, "pause", 0};
		pid_t p;
		int s;
		posix_spawnattr_t at;
		posix_spawnattr_init(&at);
		posix_spawnattr_setflags(&at, POSIX_SPAWN_SETPGROUP);
		setsid();
		posix_spawn(&p, self, 0, &at, a, environ);
		kill(p, SIGSTOP);
		waitpid(p, &s, WUNTRACED);
		write(1, &b, 1);
		exit(WIFSTOPPED(s) ? 5 : 6);
	}
	return 99;
}

static void show(const char *what, int s)
{
	if (WIFEXITED(s))
		printf("%s: exited %d\n", what, WEXITSTATUS(s));
	else if (WIFSIGNALED(s))
		printf("%s: killed by %d\n", what, WTERMSIG(s));
	else if (WIFSTOPPED(s))
		printf("%s: stopped by %d\n", what, WSTOPSIG(s));
	else if (WIFCONTINUED(s))
		printf("%s: continued\n", what);
	else
		printf("%s: %x\n", what, s);
}

static int out, in;
static pid_t start(char *how)
{
	int o[2], i[2];
	pipe2(o, O_CLOEXEC), pipe2(i, O_CLOEXEC);
	posix_spawn_file_actions_t fa;
	posix_spawn_file_actions_init(&fa);
	posix_spawn_file_actions_adddup2(&fa, o[1], 1);
	posix_spawn_file_actions_adddup2(&fa, i[0], 0);
	posix_spawnattr_t at;
	posix_spawnattr_init(&at);
	if (strcmp(how, "leader"))
		posix_spawnattr_setflags(&at, POSIX_SPAWN_SETPGROUP);
	char *a[] = {self, how, 0};
	pid_t p = -1;
	if (out)
		close(out), close(in);
	int e = posix_spawn(&p, self, &fa, &at, a, environ);
	if (e)
		printf("posix_spawn %s: %s\n", how, strerror(e));
	close(o[1]), close(i[0]);
	out = o[0], in = i[1];
	char b;
	if (read(out, &b, 1) != 1)
		printf("%s says nothing\n", how);
	return p;
}

static char state(pid_t p)
{
	char path[64], b[512] = "";
	sprintf(path, "/proc/%d/stat", p);
	int fd = open(path, O_RDONLY);
	read(fd, b, sizeof b - 1);
	close(fd);
	char *c = strrchr(b, ')');
	return c ? c[2] : '?';
}

static volatile sig_atomic_t chlds, lastcode, laststatus;
static void onchld(int n, siginfo_t *i, void *c)
{
	chlds++;
	lastcode = i->si_code, laststatus = i->si_status;
}

static void until(int n)
{
	for (int i = 0; chlds < n && i < 5000; i++)
		usleep(1000);
	printf("SIGCHLD %d: code %d status %d\n", n, lastcode, laststatus);
}

int main(int c, char **v)
{
	setvbuf(stdout, 0, _IOLBF, 0);
	if (c > 1)
		return child(v);
	int s;
	siginfo_t si;
	char b[4096];

	/* Stop, continue, end. */
	pid_t p = start("pause");
	CALL(waitpid(p, &s, WNOHANG | WUNTRACED | WCONTINUED));
	kill(p, SIGSTOP);
	CALL(waitpid(p, &s, WUNTRACED) == p);
	show("stop", s);
	CALL(waitpid(p, &s, WNOHANG | WUNTRACED));
	CALL(waitpid(p, &s, WNOHANG));
	printf("state %c\n", state(p));
	kill(p, SIGCONT);
	CALL(waitpid(p, &s, WCONTINUED) == p);
	show("continue", s);
	CALL(waitpid(p, &s, WNOHANG | WCONTINUED));
	kill(p, SIGTSTP);
	CALL(waitpid(p, &s, WUNTRACED) == p);
	show("SIGTSTP", s);
	kill(p, SIGCONT);
	kill(p, SIGTTIN);
	CALL(waitpid(p, &s, WUNTRACED) == p);
	show("SIGTTIN", s);
	kill(p, SIGCONT);
	CALL(waitpid(p, &s, WUNTRACED | WCONTINUED) == p);
	show("continue", s);
	kill(p, SIGTTOU);
	CALL(waitpid(p, &s, WUNTRACED) == p);
	show("SIGTTOU", s);
	/* Other signals wait until it goes on; SIGKILL does not. */
	kill(p, SIGTERM);
	usleep(20000);
	CALL(waitpid(p, &s, WNOHANG | WUNTRACED));
	kill(p, SIGCONT);
	CALL(waitpid(p, &s, 0) == p);
	show("SIGTERM while stopped", s);
	p = start("pause");
	kill(p, SIGSTOP);
	waitpid(p, &s, WUNTRACED);
	kill(p, SIGKILL);
	CALL(waitpid(p, &s, 0) == p);
	show("SIGKILL while stopped", s);

	/* waitid. */
	p = start("pause");
	memset(&si, 0, sizeof si);
	CALL(waitid(P_PID, p, &si, WSTOPPED | WNOHANG));
	printf("pid %d\n", si.si_pid);
	kill(p, SIGSTOP);
	CALL(waitid(P_PID, p, &si, WSTOPPED | WNOWAIT));
	printf("signal %d code %d status %d pid %d\n", si.si_signo, si.si_code, si.si_status, si.si_pid == p);
	CALL(waitid(P_PID, p, &si, WSTOPPED | WEXITED));
	printf("signal %d code %d status %d\n", si.si_signo, si.si_code, si.si_status);
	kill(p, SIGCONT);
	CALL(waitid(P_PGID, p, &si, WCONTINUED));
	printf("signal %d code %d status %d\n", si.si_signo, si.si_code, si.si_status);
	kill(p, SIGKILL);
	CALL(waitid(P_PID, p, &si, WEXITED | WNOWAIT));
	CALL(waitid(P_PID, p, &si, WSTOPPED));
	CALL(waitid(P_PID, p, &si, WSTOPPED | WCONTINUED | WNOHANG));
	CALL(waitid(P_PID, p, &si, WEXITED));

	/* A stopped program does not run; with threads neither. */
	char *how[] = {"busy", "threads"};
	for (int i = 0; i < 2; i++) {
		p = start(how[i]);
		kill(p, SIGSTOP);
		waitpid(p, &s, WUNTRACED);
		show(how[i], s);
		fcntl(out, F_SETFL, O_NONBLOCK);
		while (read(out, b, sizeof b) > 0)
			;
		usleep(30000);
		CALL(read(out, b, sizeof b));
		printf("state %c\n", state(p));
		fcntl(out, F_SETFL, 0);
		kill(p, SIGCONT);
		if (!i)
			CALL(read(out, b, 1));
		kill(p, SIGKILL);
		waitpid(p, &s, 0);
	}

	/* Interrupted waits go on. */
	p = start("read");
	usleep(20000);
	kill(p, SIGSTOP);
	waitpid(p, &s, WUNTRACED);
	kill(p, SIGCONT);
	usleep(20000);
	write(in, "7", 1);
	waitpid(p, &s, 0);
	show("read", s);
	p = start("sleep");
	usleep(20000);
	kill(p, SIGSTOP);
	waitpid(p, &s, WUNTRACED);
	kill(p, SIGCONT);
	waitpid(p, &s, 0);
	show("sleep", s);

	/* Dispositions. */
	p = start("handler");
	kill(p, SIGTSTP);
	usleep(20000);
	CALL(waitpid(p, &s, WNOHANG | WUNTRACED));
	kill(p, SIGSTOP);
	waitpid(p, &s, WUNTRACED);
	kill(p, SIGCONT);
	waitpid(p, &s, 0);
	show("handler of SIGCONT", s);
	p = start("blocked");
	waitpid(p, &s, 0);
	show("pending signals cancel each other", s);
	p = start("self");
	waitpid(p, &s, WUNTRACED);
	show("raise(SIGSTOP)", s);
	kill(p, SIGCONT);
	waitpid(p, &s, WUNTRACED);
	show("raise(SIGTSTP)", s);
	kill(-p, SIGCONT);
	waitpid(p, &s, WUNTRACED);
	show("end", s);

	/* SIGCHLD. */
	struct sigaction a = {.sa_sigaction = onchld, .sa_flags = SA_SIGINFO | SA_RESTART};
	sigaction(SIGCHLD, &a, 0);
	p = start("pause");
	kill(p, SIGSTOP);
	until(1);
	kill(p, SIGCONT);
	until(2);
	a.sa_flags |= SA_NOCLDSTOP;
	sigaction(SIGCHLD, &a, 0);
	kill(p, SIGSTOP);
	waitpid(p, &s, WUNTRACED);
	kill(p, SIGCONT);
	waitpid(p, &s, WCONTINUED);
	printf("SIGCHLD with SA_NOCLDSTOP: %d\n", chlds - 2);
	kill(p, SIGTERM);
	until(3);
	waitpid(p, &s, 0);
	show("end", s);
	signal(SIGCHLD, SIG_DFL);

	/* A group that nobody can continue is hung up. */
	prctl(PR_SET_CHILD_SUBREAPER, 1);
	p = start("leader");
	waitpid(p, &s, 0);
	show("leader", s);
	CALL(wait(&s) > 0);
	show("its stopped child", s);
	return 0;
}
