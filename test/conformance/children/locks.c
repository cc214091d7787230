// Record locks of two processes: who waits for whom, deadlocks, what close and
// exit give up. SIGPIPE on sockets.
#include "../c/check.h"
#include <spawn.h>
#include <sys/socket.h>
extern char **environ;
static volatile sig_atomic_t got;
static void handler(int sig) { got = sig; }
static int lock(int fd, int cmd, int type, int at)
{
	struct flock l = {.l_type = type, .l_start = at, .l_len = 1};
	return fcntl(fd, cmd, &l);
}
static pid_t start(const char *what)
{
	pid_t pid;
	char *argv[] = {"locks", (char *)what, NULL};
	fflush(stdout);
	if (posix_spawn(&pid, "/proc/self/exe", NULL, NULL, argv, environ))
		return -1;
	return pid;
}
static int end(pid_t pid)
{
	int status = -1;
	waitpid(pid, &status, 0);
	return status;
}
int main(int argc, char **argv)
{
	int fd = open("locks.tmp", O_RDWR | O_CREAT, 0644);
	struct flock l;
	if (argc > 1 && !strcmp(argv[1], "circle")) {
		if (lock(fd, F_SETLK, F_WRLCK, 2))
			return 1;
		if (lock(fd, F_SETLKW, F_WRLCK, 1)) // waits for the parent
			return 2;
		return 0;
	}
	if (argc > 1) {
		printf("child: ");
		CALL(lock(fd, F_SETLK, F_WRLCK, 1));
		printf("child: ");
		CALL(lock(fd, F_SETLK, F_RDLCK, 5));
		l = (struct flock){.l_type = F_WRLCK};
		fcntl(fd, F_GETLK, &l);
		printf("child: %d %ld %ld %d\n", l.l_type, (long)l.l_start, (long)l.l_len, l.l_pid == getppid());
		fflush(stdout);
		return 0;
	}
	CALL(lock(fd, F_SETLK, F_WRLCK, 1));
	CALL(lock(fd, F_SETLK, F_RDLCK, 5));
	CALL(end(start("look")));
	pid_t pid = start("circle");
	l = (struct flock){.l_type = F_UNLCK};
	do { // until the child has its lock
		usleep(10000);
		l = (struct flock){.l_type = F_WRLCK, .l_start = 2, .l_len = 1};
		fcntl(fd, F_GETLK, &l);
	} while (l.l_type == F_UNLCK);
	TRUE(l.l_pid == pid);
	usleep(200000);
	CALL(lock(fd, F_SETLK, F_WRLCK, 2));
	CALL(lock(fd, F_SETLKW, F_WRLCK, 2));
	CALL(lock(fd, F_SETLK, F_UNLCK, 1));
	CALL(end(pid));
	CALL(lock(fd, F_SETLKW, F_WRLCK, 2));
	// Any descriptor of the file that is closed gives up all of its locks.
	close(open("locks.tmp", O_RDONLY));
	CALL(end(start("look")));
	unlink("locks.tmp");
	// A datagram socket is no pipe.
	signal(SIGPIPE, handler);
	int types[] = {SOCK_STREAM, SOCK_DGRAM, SOCK_SEQPACKET}, s[2];
	for (int i = 0; i < 3; i++) {
		CALL(socketpair(AF_UNIX, types[i], 0, s));
		shutdown(s[1], SHUT_RD);
		got = 0;
		CALL(write(s[0], "x", 1));
		printf("SIGPIPE: %d\n", got);
		got = 0;
		CALL(send(s[0], "x", 1, 0));
		printf("SIGPIPE: %d\n", got);
		got = 0;
		CALL(send(s[0], "x", 1, MSG_NOSIGNAL));
		printf("SIGPIPE: %d\n", got);
		close(s[1]);
		got = 0;
		CALL(write(s[0], "x", 1));
		printf("SIGPIPE: %d\n", got);
		close(s[0]);
	}
	return 0;
}
