/* A session leader with a terminal ends: its group is told, the terminal is
   nobody's and can be another session's. */
#include "../c/check.h"
#include <spawn.h>
#include <sys/ioctl.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <termios.h>
#if !defined(__GLIBC__) && !defined(strerrorname_np)
#define strerrorname_np strerror
#endif
extern char **environ;
static volatile sig_atomic_t hups;
static void onhup(int n) { hups++; }

static pid_t spawn(int flags, char *a1, char *a2)
{
	char *a[] = {"/proc/self/exe", a1, a2, 0};
	posix_spawnattr_t at;
	pid_t p = -1;
	posix_spawnattr_init(&at);
	posix_spawnattr_setflags(&at, flags);
	if (posix_spawn(&p, a[0], 0, &at, a, environ))
		printf("posix_spawn %s failed\n", a1);
	return p;
}

int main(int c, char **v)
{
	char b[256];
	int s;
	setvbuf(stdout, 0, _IOLBF, 0);
	if (c > 1 && !strcmp(v[1], "leader")) {
		/* Opening a terminal makes it the session's; a child stays behind. */
		int fd = open(v[2], O_RDWR);
		pid_t sid = -1;
		printf("leader: has the terminal %d, foreground %d\n", ioctl(fd, TIOCGSID, &sid) == 0 && sid == getpid(), tcgetpgrp(fd) == getpgrp());
		int p[2];
		pipe(p);
		dup2(p[1], 60);
		spawn(0, "member", v[2]);
		close(p[1]), close(60);
		read(p[0], b, 1); /* it has its handler */
		exit(0);
	}
	if (c > 1 && !strcmp(v[1], "member")) {
		signal(SIGHUP, onhup);
		int before = open("/dev/tty", O_RDWR);
		write(60, "x", 1);
		for (int i = 0; i < 3000 && !hups; i++)
			usleep(1000);
		usleep(20000);
		printf("member: hang-ups %d, had a terminal %d\n", hups, before >= 0);
		OK(open("/dev/tty", O_RDWR));
		exit(0);
	}
	if (c > 1 && !strcmp(v[1], "second")) {
		int fd = open(v[2], O_RDWR);
		pid_t sid = -1;
		printf("second: has the terminal %d\n", ioctl(fd, TIOCGSID, &sid) == 0 && sid == getpid());
		exit(0);
	}
	prctl(PR_SET_CHILD_SUBREAPER, 1);
	int m = posix_openpt(O_RDWR | O_NOCTTY);
	CALL(grantpt(m));
	CALL(unlockpt(m));
	char *name = ptsname(m);
	/* Keeps the terminal alive between the sessions. */
	int keep = open(name, O_RDWR | O_NOCTTY);
	CALL(keep >= 0);
	pid_t sid = -1;
	CALL(ioctl(keep, TIOCGSID, &sid));
	pid_t p = spawn(POSIX_SPAWN_SETSID, "leader", name);
	CALL(waitpid(p, &s, 0) == p);
	int n = 0;
	while (waitpid(-1, &s, 0) > 0)
		n++;
	printf("others ended: %d\n", n);
	CALL(ioctl(keep, TIOCGSID, &sid));
	p = spawn(POSIX_SPAWN_SETSID, "second", name);
	CALL(waitpid(p, &s, 0) == p);
	return 0;
}
