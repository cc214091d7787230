#include "check.h"
#include <arpa/inet.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <sys/socket.h>
#include <sys/un.h>
static struct sockaddr_in lo(int port) { struct sockaddr_in a = {AF_INET, htons(port), {htonl(INADDR_LOOPBACK)}}; return a; }
static int port_of(int fd) { struct sockaddr_in a; socklen_t n = sizeof a; getsockname(fd, (void *)&a, &n); return ntohs(a.sin_port); }
static int opt(int fd, int l, int o) { int v = -1; socklen_t n = sizeof v; if (getsockopt(fd, l, o, &v, &n)) return -errno; return v; }
static void *echo(void *p)
{
	int c = accept(*(int *)p, 0, 0);
	char b[8192];
	for (int n; (n = read(c, b, sizeof b)) > 0;)
		write(c, b, n);
	close(c);
	return 0;
}
int main(void)
{
	char b[100000];
	signal(SIGPIPE, SIG_IGN);
	int s = socket(AF_INET, SOCK_STREAM, 0);
	struct sockaddr_in a = lo(0);
	CALL(opt(s, SOL_SOCKET, SO_TYPE));
	CALL(opt(s, SOL_SOCKET, SO_ERROR));
	CALL(opt(s, SOL_SOCKET, SO_REUSEADDR));
	int one = 1;
	CALL(setsockopt(s, SOL_SOCKET, SO_REUSEADDR, &one, 4));
	CALL(opt(s, SOL_SOCKET, SO_REUSEADDR));
	CALL(bind(s, (void *)&a, sizeof a));
	CALL(listen(s, 16));
	CALL(opt(s, SOL_SOCKET, SO_ACCEPTCONN));
	int port = port_of(s);
	a = lo(port);
	int s2 = socket(AF_INET, SOCK_STREAM, 0);
	CALL(bind(s2, (void *)&a, sizeof a));
	pthread_t t;
	pthread_create(&t, 0, echo, &s);
	int c = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
	CALL(send(c, "x", 1, MSG_NOSIGNAL));
	CALL(getpeername(c, (void *)b, &(socklen_t){sizeof a}));
	CALL(connect(c, (void *)&a, sizeof a));
	CALL(connect(c, (void *)&a, sizeof a));
	CALL(setsockopt(c, IPPROTO_TCP, TCP_NODELAY, &one, 4));
	CALL(opt(c, IPPROTO_TCP, TCP_NODELAY));
	CALL(write(c, "ping", 4));
	CALL(recv(c, b, 2, MSG_PEEK));
	CALL(recv(c, b, 4, MSG_WAITALL));
	printf("%.4s\n", b);
	CALL(recv(c, b, 1, MSG_DONTWAIT));
	long sent = 0, got = 0;
	for (int i = 0; i < 50; i++) {
		memset(b, i, sizeof b);
		for (size_t k = 0; k < 50000;)
			k += write(c, b, 50000 - k);
		sent += 50000;
		for (size_t k = 0; k < 50000;) {
			int n = read(c, b, 50000 - k);
			for (int j = 0; j < n; j++)
				if (b[j] != i)
					printf("wrong byte\n");
			k += n;
			got += n;
		}
	}
	printf("sent %ld got %ld\n", sent, got);
	CALL(shutdown(c, SHUT_WR));
	CALL(read(c, b, 10));
	pthread_join(t, 0);
	CALL(write(c, "x", 1));
	close(c);
	close(s);
	c = socket(AF_INET, SOCK_STREAM, 0);
	CALL(connect(c, (void *)&a, sizeof a));
	close(c);
	c = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK, 0);
	int r = connect(c, (void *)&a, sizeof a);
	printf("non-blocking connect %s\n", r == 0 ? "ok" : errno == EINPROGRESS || errno == ECONNREFUSED ? "refused or in progress" : strerrorname_np(errno));
	struct pollfd pf = {c, POLLOUT, 0};
	poll(&pf, 1, 1000);
	close(c);
	// UDP
	int u = socket(AF_INET, SOCK_DGRAM, 0), w = socket(AF_INET, SOCK_DGRAM, 0);
	a = lo(0);
	CALL(bind(u, (void *)&a, sizeof a));
	a = lo(port_of(u));
	CALL(sendto(w, "datagram", 8, 0, (void *)&a, sizeof a));
	CALL(sendto(w, "", 0, 0, (void *)&a, sizeof a));
	CALL(recv(u, b, 4, MSG_TRUNC));
	CALL(recv(u, b, 4, 0));
	CALL(recv(u, b, 4, MSG_DONTWAIT));
	CALL(connect(w, (void *)&a, sizeof a));
	CALL(write(w, "one", 3));
	struct iovec v = {b, sizeof b};
	struct sockaddr_in from;
	struct msghdr mh = {&from, sizeof from, &v, 1, 0, 0, 0};
	CALL(recvmsg(u, &mh, 0));
	TRUE(ntohs(from.sin_port) == port_of(w));
	struct timeval tv = {0, 20000};
	CALL(setsockopt(u, SOL_SOCKET, SO_RCVTIMEO, &tv, sizeof tv));
	CALL(recv(u, b, 4, 0));
	// Unix
	int sp[2];
	CALL(socketpair(AF_UNIX, SOCK_STREAM, 0, sp));
	CALL(write(sp[0], "abc", 3));
	CALL(read(sp[1], b, 2));
	CALL(read(sp[1], b, 2));
	int fds[2];
	pipe(fds);
	union { char buf[CMSG_SPACE(4)]; struct cmsghdr h; } cm = {0};
	struct iovec one_ = {"f", 1};
	struct msghdr m = {0, 0, &one_, 1, cm.buf, sizeof cm.buf, 0};
	cm.h = (struct cmsghdr){CMSG_LEN(4), SOL_SOCKET, SCM_RIGHTS};
	memcpy(CMSG_DATA(&cm.h), &fds[1], 4);
	CALL(sendmsg(sp[0], &m, 0));
	close(fds[1]);
	memset(&cm, 0, sizeof cm);
	one_.iov_base = b;
	CALL(recvmsg(sp[1], &m, 0));
	int passed;
	memcpy(&passed, CMSG_DATA(&cm.h), 4);
	CALL(write(passed, "through", 7));
	CALL(read(fds[0], b, 10));
	close(sp[0]);
	CALL(read(sp[1], b, 1));
	CALL(write(sp[1], b, 1));
	struct sockaddr_un ua = {AF_UNIX, "sockets.tmp"};
	unlink("sockets.tmp");
	int us = socket(AF_UNIX, SOCK_STREAM, 0);
	CALL(bind(us, (void *)&ua, sizeof ua));
	CALL(bind(socket(AF_UNIX, SOCK_STREAM, 0), (void *)&ua, sizeof ua));
	CALL(connect(socket(AF_UNIX, SOCK_STREAM, 0), (void *)&ua, sizeof ua));
	CALL(listen(us, 4));
	int uc = socket(AF_UNIX, SOCK_STREAM, 0);
	CALL(connect(uc, (void *)&ua, sizeof ua));
	int ua2 = accept(us, 0, 0);
	CALL(write(ua2, "hi", 2));
	CALL(read(uc, b, 10));
	struct ucred cr;
	socklen_t n = sizeof cr;
	CALL(getsockopt(uc, SOL_SOCKET, SO_PEERCRED, &cr, &n));
	TRUE(cr.pid == getpid());
	struct stat st;
	stat("sockets.tmp", &st);
	printf("type %o\n", st.st_mode & S_IFMT);
	unlink("sockets.tmp");
	CALL(connect(socket(AF_UNIX, SOCK_STREAM, 0), (void *)&ua, sizeof ua));
	CALL(socketpair(AF_UNIX, SOCK_SEQPACKET, 0, sp));
	CALL(write(sp[0], "packet", 6));
	CALL(write(sp[0], "second", 6));
	CALL(read(sp[1], b, 3));
	CALL(read(sp[1], b, 30));
	CALL(socket(AF_INET, 99, 0));
	CALL(socket(99, SOCK_STREAM, 0));
	CALL(accept(0x7fff, 0, 0));
	CALL(listen(u, 1));
	int six = socket(AF_INET6, SOCK_STREAM, 0);
	struct sockaddr_in6 a6 = {AF_INET6, 0, 0, IN6ADDR_LOOPBACK_INIT, 0};
	CALL(bind(six, (void *)&a6, sizeof a6));
	CALL(listen(six, 1));
	n = sizeof a6;
	getsockname(six, (void *)&a6, &n);
	CALL(connect(socket(AF_INET6, SOCK_STREAM, 0), (void *)&a6, sizeof a6));
	return 0;
}
