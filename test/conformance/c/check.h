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
