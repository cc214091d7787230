// Calls with arguments that no program should pass: what the fuzzer
// (test/fuzzcalls) found, and what is like it.
#include "check.h"
#include <dirent.h>
#include <linux/futex.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <sys/inotify.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/timerfd.h>
#include <netinet/in.h>
#define BAD ((void *)8)
#define KERNEL ((void *)0xffffffff81000000)
#define NONCANONICAL ((void *)0x8000000000000000)
static volatile int stop;
static void ignore(int sig) { (void)sig; }
// Two threads that used to wait for each other's lock: the name space's and a
// directory's position's.
static void *walker(void *arg)
{
	struct stat st;
	while (!stop)
		stat(arg, &st);
	return NULL;
}
int main(void)
{
	setvbuf(stdout, NULL, _IONBF, 0);
	char *page = mmap(NULL, 8192, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	char *edge = page + 4096;
	munmap(edge, 4096);
	struct iovec v[4];
	int p[2], s[2], fd = open("hostile.tmp", O_RDWR | O_CREAT | O_TRUNC, 0644), n;
	pipe2(p, O_NONBLOCK);
	socketpair(AF_UNIX, SOCK_STREAM, 0, s);
	signal(SIGPIPE, SIG_IGN);
	// Addresses.
	void *addresses[] = {BAD, KERNEL, NONCANONICAL, (void *)-1, (void *)0x7ffffffff000, (void *)0xffffffffff600000};
	for (int i = 0; i < 6; i++) {
		void *a = addresses[i];
		printf("address %d\n", i);
		CALL(write(fd, a, 10));
		CALL(pread(open("/dev/zero", O_RDONLY), a, 10, 0));
		CALL(write(p[1], a, 10));
		CALL(send(s[0], a, 10, 0));
		CALL(open(a, O_RDONLY));
		CALL(stat("/", a));
		CALL(pipe(a));
		CALL(syscall(SYS_clock_gettime, CLOCK_MONOTONIC, a));
		CALL(nanosleep(a, NULL));
		CALL(poll(a, 1, 0));
		CALL(syscall(SYS_select, 1, a, NULL, NULL, &(struct timeval){0}));
		CALL(syscall(SYS_futex, a, FUTEX_WAKE, 1, NULL, NULL, 0));
		CALL(syscall(SYS_futex, a, FUTEX_WAIT, 1, NULL, NULL, 0));
		CALL(syscall(SYS_rt_sigaction, SIGUSR1, a, NULL, 8));
		CALL(syscall(SYS_rt_sigprocmask, SIG_SETMASK, a, NULL, 8));
		CALL(getcwd(a, 100) != NULL);
		CALL(getsockname(s[0], a, a));
		CALL(recvmsg(s[0], a, MSG_DONTWAIT));
		CALL(epoll_ctl(epoll_create1(0), EPOLL_CTL_ADD, p[0], a));
		CALL(ioctl(p[0], 0x541b, a));
		CALL(syscall(SYS_getrandom, a, 10, 0));
		CALL(syscall(SYS_execve, a, NULL, NULL));
		CALL(syscall(SYS_execve, "/nothing", a, NULL));
		CALL(munmap(a, 4096));
		CALL(mprotect(a, 4096, PROT_READ));
	}
	// Lengths.
	size_t lengths[] = {0x7fffffffffffffff, 0x8000000000000000, (size_t)-1, 0x7ffff001, 1ul << 47};
	for (int i = 0; i < 5; i++) {
		size_t l = lengths[i];
		printf("length %d\n", i);
		CALL(pwrite(fd, page, l, 0) > 0);
		CALL(pread(fd, page, l, 1 << 20));
		if (i != 3) {
			OK(mmap(NULL, l, PROT_READ, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0));
			CALL(munmap(page, l & ~4095ul));
		}
		CALL(munmap((char *)1, l));
		ftruncate(fd, 0);
		CALL(lseek(fd, l, SEEK_SET) == -1 || i == 3 || i == 4 || i == 0);
		CALL(recv(s[0], page, l, MSG_DONTWAIT));
		CALL(syscall(SYS_poll, page, l, 0));
		CALL(syscall(SYS_getdents64, fd, page, l));
		v[0] = (struct iovec){page, 1}, v[1] = (struct iovec){page, l};
		CALL(writev(p[1], v, 2) != 0);
		CALL(syscall(SYS_epoll_wait, fd, page, l, 0));
		CALL(readlink("/proc/self/exe", page, l) > 0);
		page = mmap(page, 4096, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED, -1, 0);
	}
	// Buffers that end at a page that is not there.
	memset(page, 'x', 4096);
	ftruncate(fd, 0);
	CALL(pwrite(fd, edge - 10, 20, 0));
	CALL(pread(fd, edge - 5, 20, 0));
	CALL(write(p[1], edge - 10, 20));
	CALL(open(edge - 4, O_RDONLY));
	CALL(stat("/", (void *)(edge - 8)));
	CALL(getcwd(edge - 1, 100) != NULL);
	CALL(syscall(SYS_futex, edge - 4, FUTEX_WAKE, 1, NULL, NULL, 0));
	CALL(syscall(SYS_futex, edge - 3, FUTEX_WAKE, 1, NULL, NULL, 0));
	v[0] = (struct iovec){edge - 3, 3}, v[1] = (struct iovec){edge, 3}, v[2] = (struct iovec){page, 3};
	CALL(pwritev(fd, v, 3, 0));
	CALL(preadv(fd, v, 3, 0));
	CALL(send(s[0], edge - 3, 6, 0));
	// Descriptors.
	int fds[] = {-1, -100, 1 << 20, 0x7fffffff, 0x80000000};
	for (int i = 0; i < 5; i++) {
		int f = fds[i];
		CALL(read(f, page, 1));
		CALL(close(f));
		CALL(dup(f));
		CALL(dup2(0, f));
		CALL(fcntl(0, F_DUPFD, f));
		CALL(epoll_ctl(f, EPOLL_CTL_ADD, 0, NULL));
		CALL(syscall(SYS_close_range, f, f, 0));
		CALL(syscall(SYS_mmap, 0, 4096, PROT_READ, MAP_PRIVATE, f, 0));
		CALL(fchdir(f));
		CALL(syscall(SYS_pidfd_open, f, 0));
		CALL(kill(f == -1 ? -999999 : f, 0));
		CALL(syscall(SYS_sendfile, f, f, NULL, 1));
	}
	CALL(syscall(SYS_close_range, 5, 3, 0));
	CALL(syscall(SYS_close_range, 1000, ~0u, 77));
	// What refers to itself.
	CALL(splice(p[0], NULL, p[1], NULL, 10, 0));
	CALL(tee(p[0], p[1], 10, 0));
	int e1 = epoll_create1(0), e2 = epoll_create1(0);
	struct epoll_event ev = {EPOLLIN};
	CALL(epoll_ctl(e1, EPOLL_CTL_ADD, e1, &ev));
	CALL(epoll_ctl(e1, EPOLL_CTL_ADD, e2, &ev));
	CALL(epoll_ctl(e2, EPOLL_CTL_ADD, e1, &ev));
	CALL(epoll_ctl(e2, EPOLL_CTL_ADD, fd, &ev));
	CALL(dup2(e1, e1) == e1);
	CALL(dup3(e1, e1, 0));
	CALL(rename("hostile.tmp", "hostile.tmp"));
	CALL(link("hostile.tmp", "hostile.tmp"));
	CALL(symlink("hostile.link", "hostile.link"));
	CALL(stat("hostile.link/x", (void *)page));
	CALL(unlink("hostile.link"));
	// Structures.
	CALL(timerfd_settime(timerfd_create(CLOCK_MONOTONIC, 0), 0, &(struct itimerspec){{0}, {0, 1000000000}}, NULL));
	CALL(nanosleep(&(struct timespec){-1, 0}, NULL));
	CALL(nanosleep(&(struct timespec){0, -1}, NULL));
	CALL(clock_nanosleep(99, 0, &(struct timespec){0}, NULL));
	CALL(syscall(SYS_ppoll, NULL, 0, &(struct timespec){0, 2000000000}, NULL, 8));
	CALL(syscall(SYS_ppoll, NULL, 0, &(struct timespec){0}, page, 7));
	CALL(syscall(SYS_rt_sigprocmask, 9, page, NULL, 8));
	CALL(syscall(SYS_rt_sigaction, SIGUSR1, NULL, NULL, 4));
	CALL(syscall(SYS_clone3, NULL, 88));
	CALL(syscall(SYS_clone3, memset(page, 0, 88), 7));
	CALL(syscall(SYS_clone3, memset(page, 255, 88), 88));
	CALL(syscall(SYS_clone, 0x00010000, 0, 0, 0, 0)); // CLONE_THREAD alone
	CALL(syscall(SYS_openat2, -100, "/", memset(page, 0, 64), 8));
	CALL(syscall(SYS_openat2, -100, "/", memset(page, 255, 64), 24));
	CALL(setsockopt(s[0], SOL_SOCKET, SO_RCVTIMEO, page, 3));
	CALL(setsockopt(s[0], SOL_SOCKET, 12345, page, 4));
	CALL(getsockopt(s[0], SOL_SOCKET, SO_TYPE, page, memset(page + 8, 255, 4)));
	CALL(bind(s[0], (void *)page, 200));
	CALL(bind(s[0], (void *)page, 1));
	CALL(connect(socket(AF_INET, SOCK_STREAM, 0), (void *)page, 4));
	CALL(sendto(socket(AF_INET, SOCK_DGRAM, 0), page, 10, 0, (void *)page, 300));
	CALL(sendto(socket(AF_INET, SOCK_DGRAM, 0), page, 5000, 0, (void *)&(struct sockaddr_in){AF_INET, 1, {htonl(0x7f000001)}}, 16));
	struct msghdr m = {.msg_iov = v, .msg_iovlen = 5000};
	CALL(sendmsg(s[0], &m, 0));
	m = (struct msghdr){.msg_iov = v, .msg_iovlen = 1, .msg_control = page, .msg_controllen = 8};
	v[0] = (struct iovec){page, 1};
	CALL(sendmsg(s[0], &m, 0));
	struct { struct cmsghdr h; int fd[1]; } c = {{.cmsg_len = CMSG_LEN(4), .cmsg_level = SOL_SOCKET, .cmsg_type = SCM_RIGHTS}, {-1}};
	m.msg_control = &c, m.msg_controllen = CMSG_SPACE(4);
	CALL(sendmsg(s[0], &m, 0));
	c.h.cmsg_len = 0xffffffff;
	CALL(sendmsg(s[0], &m, 0));
	CALL(syscall(SYS_socket, AF_INET, SOCK_STREAM | 0x100000, 0));
	CALL(socket(AF_INET, 99, 0));
	CALL(socket(99, SOCK_STREAM, 0));
	CALL(listen(s[0], 5));
	CALL(shutdown(s[0], 9));
	CALL(syscall(SYS_mremap, page, 4096, 0, 0, 0));
	CALL(syscall(SYS_mremap, page + 1, 4096, 4096, 0, 0));
	CALL(syscall(SYS_mremap, page, 4096, 4096, 3, page) == -1);
	CALL(syscall(SYS_mmap, page + 1, 4096, PROT_READ, MAP_FIXED | MAP_PRIVATE | MAP_ANONYMOUS, -1, 0));
	CALL(syscall(SYS_mmap, 0, 4096, PROT_READ, MAP_PRIVATE, fd, 1));
	CALL(syscall(SYS_mmap, 0, 0, PROT_READ, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0));
	CALL(syscall(SYS_mmap, 0, 4096, PROT_READ, 0, -1, 0));
	CALL(syscall(SYS_mmap, (void *)0x7fffffffe000, 1 << 20, PROT_READ, MAP_FIXED | MAP_PRIVATE | MAP_ANONYMOUS, -1, 0));
	CALL(syscall(600));
	CALL(syscall(-1));
	// A copy of the process onto a stack that is none: its handler cannot run.
	signal(SIGSEGV, ignore);
	int status = 0;
	long child = syscall(SYS_clone, 0, 0x1000, 0, 0, 0);
	TRUE(child > 0);
	TRUE(waitpid(child, &status, 0x40000000) == child);
	printf("signal %d\n", WTERMSIG(status));
	signal(SIGSEGV, SIG_DFL);
	// Races.
	char path[64];
	DIR *d = opendir("/proc");
	snprintf(path, sizeof path, "/proc/self/fd/%d/self", dirfd(d));
	pthread_t t;
	pthread_create(&t, NULL, walker, path);
	for (double end = now() + 0.5; now() < end; rewinddir(d))
		while (readdir(d))
			;
	stop = 1;
	pthread_join(t, NULL);
	printf("no deadlock\n");
	return 0;
}
