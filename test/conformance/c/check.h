// check.h: every conformance program prints what the kernel answered, one line
// an assertion. It runs natively and inside, and the outputs must be equal, so
// a line holds nothing that differs between two runs.
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <pthread.h>
#include <sched.h>
#include <signal.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/time.h>
#include <sys/types.h>
#include <sys/uio.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#ifndef __GLIBC__
// What musl does not have.
#include <errno.h>
static inline const char *strerrorname_np(int e)
{
	static const struct { int e; const char *name; } names[] = {
#define E(x) {x, #x}
		E(EPERM), E(ENOENT), E(ESRCH), E(EINTR), E(EIO), E(ENXIO), E(E2BIG), E(ENOEXEC), E(EBADF), E(ECHILD), E(EAGAIN), E(ENOMEM),
		E(EACCES), E(EFAULT), E(ENOTBLK), E(EBUSY), E(EEXIST), E(EXDEV), E(ENODEV), E(ENOTDIR), E(EISDIR), E(EINVAL), E(ENFILE),
		E(EMFILE), E(ENOTTY), E(ETXTBSY), E(EFBIG), E(ENOSPC), E(ESPIPE), E(EROFS), E(EMLINK), E(EPIPE), E(EDOM), E(ERANGE),
		E(EDEADLK), E(ENAMETOOLONG), E(ENOLCK), E(ENOSYS), E(ENOTEMPTY), E(ELOOP), E(ENODATA), E(EOVERFLOW), E(EILSEQ),
		E(ENOTSOCK), E(EDESTADDRREQ), E(EMSGSIZE), E(EPROTOTYPE), E(ENOPROTOOPT), E(EPROTONOSUPPORT), E(ESOCKTNOSUPPORT),
		E(ENOTSUP), E(EPFNOSUPPORT), E(EAFNOSUPPORT), E(EADDRINUSE), E(EADDRNOTAVAIL), E(ENETDOWN), E(ENETUNREACH),
		E(ECONNABORTED), E(ECONNRESET), E(ENOBUFS), E(EISCONN), E(ENOTCONN), E(ESHUTDOWN), E(ETIMEDOUT), E(ECONNREFUSED),
		E(EHOSTUNREACH), E(EALREADY), E(EINPROGRESS), E(ECANCELED), E(ENOPKG), E(ENODEV), E(EPROTO), E(EBADMSG), E(ESTALE),
#undef E
	};
	for (unsigned i = 0; i < sizeof names / sizeof *names; i++)
		if (names[i].e == e)
			return names[i].name;
	return "?";
}
#endif
#ifndef RENAME_NOREPLACE
#define RENAME_NOREPLACE 1
#define RENAME_EXCHANGE 2
#define RENAME_WHITEOUT 4
#define renameat2(a, b, c, d, e) syscall(SYS_renameat2, a, b, c, d, e)
#endif
// CALL prints an expression with its value, and errno's name if it is -1.
#define CALL(e)                                                            \
	({                                                                 \
		errno = 0;                                                 \
		long r_ = (long)(e);                                       \
		if (r_ == -1)                                              \
			printf("%s = -1 %s\n", #e, strerrorname_np(errno)); \
		else                                                       \
			printf("%s = %ld\n", #e, r_);                      \
		r_;                                                        \
	})
// OK prints whether an expression failed, for results that differ by run.
#define OK(e)                                                              \
	({                                                                 \
		errno = 0;                                                 \
		long r_ = (long)(e);                                       \
		printf("%s: %s\n", #e, r_ == -1 ? strerrorname_np(errno) : "ok"); \
		r_;                                                        \
	})
#define TRUE(e) printf("%s: %s\n", #e, (e) ? "true" : "FALSE")
static inline double now(void)
{
	struct timespec t;
	clock_gettime(CLOCK_MONOTONIC, &t);
	return t.tv_sec + t.tv_nsec / 1e9;
}
