#include "check.h"
#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <sys/ioctl.h>
#include <sys/select.h>
#include <sys/timerfd.h>
#include <sys/signalfd.h>
static void wait_(int ep, int ms)
{
	struct epoll_event e[8];
	int n = epoll_wait(ep, e, 8, ms);
	printf("epoll %d:", n);
	for (int i = 0; i < n; i++)
		printf(" %u:%x", e[i].data.u32, e[i].events);
	printf("\n");
}
static void *later(void *p)
{
	usleep(20000);
	write(*(int *)p, "later", 5);
	return 0;
}
int main(void)
{
	int p[2], q[2];
	char buf[70000];
	CALL(pipe2(p, O_NONBLOCK));
	CALL(read(p[0], buf, 10));
	CALL(write(p[1], "abc", 3));
	int n = 0;
	ioctl(p[0], FIONREAD, &n);
	printf("FIONREAD %d\n", n);
	CALL(read(p[0], buf, 2));
	CALL(write(p[1], buf, 65536));
	CALL(write(p[1], buf, 5000));
	CALL(write(p[1], buf, 4096));
	while (read(p[0], buf, sizeof buf) > 0)
		;
	struct pollfd pf[2] = {{p[0], POLLIN, 0}, {p[1], POLLOUT, 0}};
	CALL(poll(pf, 2, 0));
	printf("%x %x\n", pf[0].revents, pf[1].revents);
	int ep = CALL(epoll_create1(0)) >= 0 ? epoll_create1(EPOLL_CLOEXEC) : -1;
	struct epoll_event ev = {EPOLLIN, {.u32 = 1}};
	CALL(epoll_ctl(ep, EPOLL_CTL_ADD, p[0], &ev));
	CALL(epoll_ctl(ep, EPOLL_CTL_ADD, p[0], &ev));
	wait_(ep, 0);
	write(p[1], "x", 1);
	wait_(ep, 0);
	wait_(ep, 0);
	ev.events = EPOLLIN | EPOLLET;
	CALL(epoll_ctl(ep, EPOLL_CTL_MOD, p[0], &ev));
	wait_(ep, 0);
	wait_(ep, 0);
	write(p[1], "y", 1);
	wait_(ep, 0);
	ev.events = EPOLLIN | EPOLLONESHOT;
	CALL(epoll_ctl(ep, EPOLL_CTL_MOD, p[0], &ev));
	wait_(ep, 0);
	write(p[1], "z", 1);
	wait_(ep, 0);
	CALL(epoll_ctl(ep, EPOLL_CTL_DEL, p[0], 0));
	CALL(epoll_ctl(ep, EPOLL_CTL_DEL, p[0], 0));
	CALL(epoll_ctl(ep, EPOLL_CTL_ADD, ep, &ev));
	int file = open("/etc/passwd", O_RDONLY);
	CALL(epoll_ctl(ep, EPOLL_CTL_ADD, file, &ev));
	int e2 = epoll_create1(0);
	ev.events = EPOLLIN, ev.data.u32 = 9;
	CALL(epoll_ctl(e2, EPOLL_CTL_ADD, ep, &ev));
	ev.data.u32 = 2;
	epoll_ctl(ep, EPOLL_CTL_ADD, p[0], &ev);
	wait_(e2, 0);
	int d = dup(p[0]);
	close(p[0]);
	wait_(ep, 0);
	close(d);
	wait_(ep, 0);
	pipe(q);
	pthread_t t;
	pthread_create(&t, 0, later, &q[1]);
	ev.data.u32 = 3;
	epoll_ctl(ep, EPOLL_CTL_ADD, q[0], &ev);
	wait_(ep, 2000);
	pthread_join(t, 0);
	CALL(read(q[0], buf, 100));
	close(q[1]);
	wait_(ep, 0);
	CALL(read(q[0], buf, 1));
	int ef = CALL(eventfd(3, EFD_NONBLOCK));
	uint64_t v;
	CALL(read(ef, &v, 8));
	printf("value %lu\n", v);
	CALL(read(ef, &v, 8));
	v = 5;
	CALL(write(ef, &v, 8));
	v = ~0ULL - 1;
	CALL(write(ef, &v, 8));
	v = ~0ULL;
	CALL(write(ef, &v, 8));
	CALL(read(ef, &v, 4));
	int es = eventfd(2, EFD_NONBLOCK | EFD_SEMAPHORE);
	CALL(read(es, &v, 8));
	printf("value %lu\n", v);
	CALL(read(es, &v, 8));
	CALL(read(es, &v, 8));
	int tf = timerfd_create(CLOCK_MONOTONIC, TFD_NONBLOCK);
	struct itimerspec its = {{0, 10000000}, {0, 10000000}}, cur;
	CALL(read(tf, &v, 8));
	CALL(timerfd_settime(tf, 0, &its, 0));
	CALL(timerfd_gettime(tf, &cur));
	printf("interval %ld\n", cur.it_interval.tv_nsec);
	usleep(35000);
	CALL(read(tf, &v, 8));
	TRUE(v >= 2 && v < 20);
	double a = now();
	CALL(poll(0, 0, 30));
	TRUE(now() - a >= 0.029 && now() - a < 0.5);
	fd_set r;
	FD_ZERO(&r);
	FD_SET(ef, &r);
	struct timeval tv = {0, 1000};
	CALL(select(ef + 1, &r, 0, 0, &tv));
	FD_ZERO(&r);
	FD_SET(200, &r);
	/* Linux looks no further than the table has slots: give it enough. */
	dup2(1, 250);
	close(250);
	CALL(select(201, &r, 0, 0, &tv));
	sigset_t m;
	sigemptyset(&m);
	sigaddset(&m, SIGUSR1);
	sigprocmask(SIG_BLOCK, &m, 0);
	int sf = signalfd(-1, &m, SFD_NONBLOCK);
	struct signalfd_siginfo si;
	CALL(read(sf, &si, sizeof si));
	raise(SIGUSR1);
	CALL(read(sf, &si, sizeof si));
	printf("signal %u\n", si.ssi_signo);
	pf[0].fd = 77, pf[0].events = POLLIN;
	CALL(poll(pf, 1, 0));
	printf("%x\n", pf[0].revents);
	CALL(epoll_wait(ep, 0, 0, 0));
	CALL(epoll_wait(file, (void *)buf, 1, 0));
	return 0;
}
