// connect(2) on a TCP socket whose connection failed.
#include "check.h"
#include <arpa/inet.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <sys/socket.h>

static struct sockaddr_in lo(int port)
{
	struct sockaddr_in a = {AF_INET, htons(port), {htonl(INADDR_LOOPBACK)}};
	return a;
}
static int port_of(int s)
{
	struct sockaddr_in a;
	socklen_t n = sizeof a;
	getsockname(s, (void *)&a, &n);
	return ntohs(a.sin_port);
}
static int opt(int s, int level, int name)
{
	int v = -1;
	socklen_t n = sizeof v;
	getsockopt(s, level, name, &v, &n);
	return v;
}
// poll prints the events, as there may be an error or none.
static void events(int s)
{
	struct pollfd p = {s, POLLIN | POLLOUT, 0};
	printf("poll %d", poll(&p, 1, 1000));
	printf(" events %x\n", p.revents);
}

int main(void)
{
	// A port that nobody listens on, until later.
	int l = socket(AF_INET, SOCK_STREAM, 0), on = 1;
	struct sockaddr_in a = lo(0);
	CALL(setsockopt(l, SOL_SOCKET, SO_REUSEADDR, &on, sizeof on));
	CALL(bind(l, (void *)&a, sizeof a));
	a = lo(port_of(l));

	// Blocking: refused, refused, accepted. Options and the bound port stay.
	int c = socket(AF_INET, SOCK_STREAM, 0);
	int free_ = socket(AF_INET, SOCK_STREAM, 0);
	struct sockaddr_in me = lo(0);
	CALL(bind(free_, (void *)&me, sizeof me));
	me = lo(port_of(free_)); // a port that was asked for stays
	close(free_);
	CALL(setsockopt(c, SOL_SOCKET, SO_KEEPALIVE, &on, sizeof on));
	CALL(setsockopt(c, IPPROTO_TCP, TCP_NODELAY, &on, sizeof on));
	CALL(bind(c, (void *)&me, sizeof me));
	int port = port_of(c);
	CALL(connect(c, (void *)&a, sizeof a));
	CALL(opt(c, SOL_SOCKET, SO_ERROR));
	CALL(connect(c, (void *)&a, sizeof a));
	CALL(send(c, "x", 1, MSG_NOSIGNAL));
	// Non-blocking: the error is reported once.
	int n = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK, 0);
	CALL(connect(n, (void *)&a, sizeof a));
	events(n);
	CALL(connect(n, (void *)&a, sizeof a));
	CALL(opt(n, SOL_SOCKET, SO_ERROR));
	// ... and by SO_ERROR, then connect(2) has nothing better to say.
	CALL(connect(n, (void *)&a, sizeof a));
	events(n);
	CALL(opt(n, SOL_SOCKET, SO_ERROR) == ECONNREFUSED);
	CALL(connect(n, (void *)&a, sizeof a));

	CALL(listen(l, 5));
	CALL(connect(c, (void *)&a, sizeof a));
	TRUE(port_of(c) == port);
	CALL(opt(c, SOL_SOCKET, SO_KEEPALIVE));
	CALL(opt(c, IPPROTO_TCP, TCP_NODELAY));
	CALL(connect(c, (void *)&a, sizeof a));
	int s = accept(l, 0, 0);
	char b[8];
	CALL(write(c, "hello", 5));
	CALL(read(s, b, sizeof b));
	OK(connect(n, (void *)&a, sizeof a) == -1 && errno != EINPROGRESS ? -1 : 0);
	events(n);
	CALL(opt(n, SOL_SOCKET, SO_ERROR));
	CALL(connect(n, (void *)&a, sizeof a));
	CALL(connect(n, (void *)&a, sizeof a));
	CALL(write(n, "again", 5));
	int s2 = accept(l, 0, 0);
	CALL(read(s2, b, sizeof b));
	return 0;
}
