#include "check.h"
#include <sys/auxv.h>
#include <sys/resource.h>
#include <sys/utsname.h>
int main(int c, char **v)
{
	extern char **environ;
	setvbuf(stdout, 0, _IONBF, 0);
	if (c > 1 && !strcmp(v[1], "again")) {
		printf("again: argc %d argv[2] %s FOO %s\n", c, v[2], getenv("FOO"));
		printf("kept descriptor: %d, closed: %d\n", fcntl(50, F_GETFD) >= 0, fcntl(51, F_GETFD));
		sigset_t s;
		sigprocmask(0, 0, &s);
		struct sigaction a;
		sigaction(SIGUSR1, 0, &a);
		printf("mask kept %d, handler reset %d\n", sigismember(&s, SIGUSR2), a.sa_handler == SIG_DFL);
		sigaction(SIGHUP, 0, &a);
		printf("ignored kept %d\n", a.sa_handler == SIG_IGN);
		exit(7);
	}
	printf("argc %d\n", c);
	TRUE(getauxval(AT_PAGESZ) == 4096);
	TRUE(getauxval(AT_RANDOM) != 0);
	TRUE(getauxval(AT_PHDR) != 0);
	TRUE(getauxval(AT_UID) == getuid());
	TRUE(((uintptr_t)__builtin_frame_address(0) & 15) == 0);
	struct utsname u;
	uname(&u);
	printf("%s %s\n", u.sysname, u.machine);
	struct rlimit r;
	getrlimit(RLIMIT_STACK, &r);
	TRUE(r.rlim_cur == 8 << 20);
	char b[64];
	CALL(getrandom(b, 64, 0));
	CALL(syscall(SYS_gettid) == getpid());
	dup2(1, 50);
	dup2(1, 51);
	fcntl(51, F_SETFD, FD_CLOEXEC);
	sigset_t set;
	sigemptyset(&set);
	sigaddset(&set, SIGUSR2);
	sigprocmask(SIG_BLOCK, &set, 0);
	signal(SIGUSR1, (void (*)(int))main);
	signal(SIGHUP, SIG_IGN);
	CALL(execl("/nonexistent", "x", (char *)0));
	CALL(execl("/", "x", (char *)0));
	CALL(execl("/dev/null", "x", (char *)0));
	char *args[] = {v[0], "again", "third", 0}, *env[] = {"FOO=bar", 0};
	execve("/proc/self/exe", args, env);
	return 1;
}
