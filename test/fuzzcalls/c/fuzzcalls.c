// fuzzcalls.c: a guest that makes random system calls with random and hostile
// arguments from several threads, for as many seconds as it is told. What it
// looks for is a library OS that panics, hangs or leaves its filter; what the
// calls answer does not matter.
//
//	fuzzcalls SEED SECONDS [TRACE]
//
// The calls of one seed are the same in each run but for how the threads
// interleave. It refuses to run anywhere but as the first process of a root
// file system with a file /fuzz-inside: on a real kernel, as root, it would do
// harm.
#define _GNU_SOURCE
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <sched.h>
#include <setjmp.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/ioctl.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/un.h>
#include <netinet/in.h>
#include <time.h>
#include <unistd.h>

enum { THREADS = 4, PAGE = 4096, JUNK = 16 * PAGE, SCRATCH = 64 << 20 };

struct worker {
	uint64_t rng;
	pthread_t thread;
	atomic_int tid;
	_Atomic uint64_t calls;
	_Atomic long nr; // the call being made; -1: none
	uint64_t args[6];
	sigjmp_buf out;
	int id;
};
static struct worker workers[THREADS];
static unsigned char *junk;    // JUNK bytes, an inaccessible page after them
static unsigned char *scratch; // SCRATCH bytes whose mappings may be changed
static atomic_int stop;
static int tracing;
static int report_fd; // out of the calls' reach
static __thread struct worker *self;

static uint64_t next(struct worker *w)
{
	// splitmix64
	uint64_t z = w->rng += 0x9e3779b97f4a7c15;
	z = (z ^ z >> 30) * 0xbf58476d1ce4e5b9;
	z = (z ^ z >> 27) * 0x94d049bb133111eb;
	return z ^ z >> 31;
}
static uint64_t below(struct worker *w, uint64_t n) { return next(w) % n; }
static int one_in(struct worker *w, int n) { return next(w) % n == 0; }

static const char *const paths[] = {
	"/", ".", "..", "", "/work", "f1", "f2", "d1", "d1/f3", "d2", "s1", "loop", "fifo", "sock", "/dev/null", "/dev/zero",
	"/dev/full", "/dev/urandom", "/dev/tty", "/dev/ptmx", "/dev/pts", "/dev/pts/0", "/dev/shm/x", "/proc/self", "/proc/self/fd",
	"/proc/self/fd/3", "/proc/self/fd/5", "/proc/self/maps", "/proc/self/status", "/proc/self/mem", "/proc/self/exe",
	"/proc/self/task", "/proc/self/environ", "/proc/self/cmdline", "/proc/self/stat", "/proc/net/tcp", "/proc/self/mountinfo",
	"/proc/meminfo", "/proc/stat", "/proc/1", "/proc/999999", "/proc/sys/kernel/pid_max", "/proc/sys", "/sys", "/sys/devices",
	"/sys/devices/system/cpu/online", "/tmp/a/b/c", "/work/../work/./d1/../f1", "f1/", "d1//", "/tmp", "new", "/bin/fuzzcalls",
	"user.a", "security.x", "trusted.b", "system.posix_acl_access", "user.", "/proc/self/cwd/f1", "/proc/self/root/work/f2",
};
enum { NPATHS = sizeof paths / sizeof *paths };

// Numbers at which code goes wrong.
static const uint64_t edges[] = {
	0, 1, 2, 3, 7, 8, 15, 16, 63, 64, 65, 127, 128, 255, 256, 511, 512, 1023, 1024, 1025, 4095, 4096, 4097, 65535, 65536,
	1 << 20, 0x7fffffff, 0x80000000, 0x80000001, 0xfffffffe, 0xffffffff, 0x100000000, 0x7ffff000, 0x7ffff001,
	0x7fffffffffff, 0x800000000000, 0x7fffffffffffffff, 0x8000000000000000, 0x7ffffffffffff000, 0xfffffffffffff000,
	0xffffffffffffffff, 0xfffffffffffffffe, 0xffffffffffffff9c, // AT_FDCWD
	1000000000, 999999999, 0x123456789abcdef,
};
// Addresses that are not the guest's, among them those of the library OS: its
// text, Go's heap, the kernel's half, the vsyscall page.
static const uint64_t hostile[] = {
	0, 1, 8, 0xfff, 0x1000, 0x10000, 0x10000000000, 0x10000001000, 0x10000400000, 0x10001000000, 0x10002000000,
	0xc000000000, 0xc000001000, 0xc000100000, 0x7ffffffff000, 0x7fffffffe000, 0x7fffffffffff, 0x800000000000,
	0xffff800000000000, 0xffffffff81000000, 0xffffffffff600000, 0xffffffffffffffff, 0xfffffffffffff000, 0x8000000000000000,
	0x7fffffffffffffff, 0xdeadbeefdeadbeef, 0xffffffff00000000, 0x7f0000000000, 0x555555555000,
};
#define ANY(w, a) (a)[below(w, sizeof(a) / sizeof *(a))]

static uint64_t number(struct worker *w)
{
	switch (below(w, 6)) {
	case 0: return next(w);
	case 1: return ANY(w, edges) + below(w, 3) - 1;
	case 2: return 1ull << below(w, 64);
	case 3: return -below(w, 4096);
	default: return below(w, 64);
	}
}

static uint64_t address(struct worker *w)
{
	switch (below(w, 12)) {
	case 0: return ANY(w, hostile);
	case 1: return (uint64_t)junk + JUNK - below(w, 64); // runs into the inaccessible page
	case 2: return 0;
	case 3: return next(w);
	case 4: return (uint64_t)scratch + below(w, SCRATCH);
	default: return (uint64_t)junk + below(w, JUNK / 64) * 64 + (one_in(w, 8) ? below(w, 64) : 0);
	}
}

static uint64_t descriptor(struct worker *w)
{
	if (one_in(w, 12))
		return number(w);
	return 3 + below(w, 40);
}

// fill puts numbers, addresses, descriptors, small structures into the junk.
static void fill(struct worker *w)
{
	for (int n = below(w, 24); n >= 0; n--) {
		unsigned char *at = junk + below(w, JUNK / 8 - 32) * 8;
		uint64_t v;
		switch (below(w, 9)) {
		case 0: v = number(w); memcpy(at, &v, 8); break;
		case 1: v = (uint64_t)junk + below(w, JUNK); memcpy(at, &v, 8); break;
		case 2: v = ANY(w, hostile); memcpy(at, &v, 8); break;
		case 3: v = descriptor(w) | below(w, 1024) << 32; memcpy(at, &v, 8); break;
		case 4: { // iovec
			uint64_t iov[4] = {(uint64_t)junk + below(w, JUNK), below(w, 9000), address(w), number(w)};
			if (iov[2] >= (uint64_t)scratch && iov[2] < (uint64_t)scratch + SCRATCH)
				iov[2] = 0;
			memcpy(at, iov, sizeof iov);
			break;
		}
		case 5: { // timespec, itimerspec
			uint64_t t[4] = {0, below(w, 3000000), one_in(w, 4) ? number(w) : 0, below(w, 1000000)};
			memcpy(at, t, sizeof t);
			break;
		}
		case 6: { // socket address
			struct sockaddr_in in = {.sin_family = one_in(w, 4) ? below(w, 50) : AF_INET, .sin_port = htons(1000 + below(w, 8)), .sin_addr.s_addr = htonl(one_in(w, 4) ? next(w) : INADDR_LOOPBACK)};
			memcpy(at, &in, sizeof in);
			break;
		}
		case 7: { // Unix address
			struct sockaddr_un un = {.sun_family = AF_UNIX};
			strcpy(un.sun_path + one_in(w, 2), paths[below(w, NPATHS)]);
			memcpy(at, &un, 64);
			break;
		}
		case 8: { // msghdr
			uint64_t m[7] = {address(w), below(w, 130), (uint64_t)junk + below(w, JUNK), below(w, 5), (uint64_t)junk + below(w, JUNK), below(w, 256), next(w) & 0xff};
			memcpy(at, m, sizeof m);
			break;
		}
		}
	}
}

static uint64_t path(struct worker *w)
{
	if (one_in(w, 10))
		return address(w);
	if (one_in(w, 20)) {
		// A path of the greatest length, one shorter, one longer; or no end.
		unsigned char *p = junk + JUNK - 4096 - below(w, 3);
		memset(p, one_in(w, 2) ? '/' : 'x', junk + JUNK - p);
		if (one_in(w, 2))
			junk[JUNK - 1] = 0;
		return (uint64_t)p;
	}
	return (uint64_t)paths[below(w, NPATHS)];
}

// What an argument is:
//   f descriptor  p path  b address of a buffer  l length  n number  o offset
//   i small flags  m memory address that may be remapped  s signal  t timeout
//   F open flags  M mode  c small command  P protection  A mmap flags
//   d domain  y socket type  r protocol  L socket level  O option  q ioctl
//   0 nothing  T thread or process
struct call {
	long nr;
	const char *args;
};
#define C(name, args) {SYS_##name, args}
static const struct call calls[] = {
	C(read, "fbl"), C(write, "fbl"), C(open, "pFM"), C(close, "f"), C(stat, "pb"), C(fstat, "fb"), C(lstat, "pb"), C(poll, "bit"),
	C(lseek, "foc"), C(mmap, "mlPAfo"), C(mprotect, "mlP"), C(munmap, "ml"), C(ioctl, "fqb"), C(pread64, "fblo"),
	C(pwrite64, "fblo"), C(readv, "fbi"), C(writev, "fbi"), C(access, "pi"), C(pipe, "b"), C(select, "ibbbb"), C(sched_yield, ""),
	C(mremap, "mllim"), C(msync, "mli"), C(mincore, "mlb"), C(madvise, "mlc"), C(shmget, "nli"), C(dup, "f"), C(dup2, "ff"),
	C(nanosleep, "bb"), C(getitimer, "cb"), C(alarm, "i"), C(setitimer, "cbb"), C(getpid, ""), C(sendfile, "ffbl"),
	C(socket, "dyr"), C(connect, "fb1"), C(accept, "fbb"), C(sendto, "fblzbi"), C(recvfrom, "fblzbb"), C(sendmsg, "fbz"),
	C(recvmsg, "fbz"), C(shutdown, "fi"), C(bind, "fb1"), C(listen, "fi"), C(getsockname, "fbb"), C(getpeername, "fbb"),
	C(socketpair, "dyrb"), C(setsockopt, "fLObi"), C(getsockopt, "fLObb"), C(wait4, "nbib"), C(uname, "b"), C(fcntl, "fcn"),
	C(fcntl, "fcb"), C(flock, "fc"), C(fsync, "f"), C(fdatasync, "f"), C(truncate, "po"), C(ftruncate, "fo"), C(getdents, "fbl"),
	C(getcwd, "bl"), C(chdir, "p"), C(fchdir, "f"), C(rename, "pp"), C(mkdir, "pM"), C(rmdir, "p"), C(creat, "pM"), C(link, "pp"),
	C(unlink, "p"), C(symlink, "pp"), C(readlink, "pbl"), C(chmod, "gM"), C(chown, "gnn"), 	C(lchown, "gnn"), C(umask, "M"), C(gettimeofday, "bb"), C(getrlimit, "cb"), C(getrusage, "nb"), C(sysinfo, "b"), C(times, "b"),
	C(getgroups, "nb"), C(capget, "bb"), C(rt_sigpending, "bl"), C(rt_sigqueueinfo, "Tsb"), C(sigaltstack, "0b"),
	C(utime, "pb"), C(mknod, "pMn"), C(personality, "n"), C(statfs, "pb"), C(fstatfs, "fb"), C(getpriority, "nn"),
	C(sched_getparam, "nb"), C(sched_setscheduler, "0cb"), C(sched_rr_get_interval, "nb"), C(mlock, "ml"), C(munlock, "ml"),
	C(prctl, "vnnnn"), C(arch_prctl, "n0"), C(gettid, ""), C(readahead, "fol"), C(setxattr, "pxblz"), C(lsetxattr, "pxblz"),
	C(fsetxattr, "fxblz"), C(getxattr, "pxbl"), C(lgetxattr, "pxbl"), C(fgetxattr, "fxbl"), C(listxattr, "pbl"), C(flistxattr, "fbl"),
	C(removexattr, "px"), C(fremovexattr, "fx"), C(tkill, "Ts"), C(futex, "buibbn"), C(sched_getaffinity, "nlb"),
	C(sched_setaffinity, "nlb"), C(epoll_create, "n"), C(getdents64, "fbl"), C(fadvise64, "folc"), C(timer_create, "k0b"),
	C(timer_settime, "iibb"), C(timer_gettime, "ib"), C(timer_getoverrun, "i"), C(timer_delete, "i"), C(clock_settime, "cb"),
	C(clock_gettime, "kb"), C(clock_getres, "kb"), C(clock_nanosleep, "cibb"), C(epoll_wait, "fbit"), C(epoll_ctl, "fefb"),
	C(tgkill, "TTs"), C(utimes, "pb"), C(waitid, "cnbib"), C(ioprio_get, "cn"), C(inotify_init, ""), C(inotify_add_watch, "fpw"),
	C(inotify_rm_watch, "fi"), C(openat, "fpFM"), C(mkdirat, "fpM"), C(mknodat, "fpMn"), C(fchownat, "fgnnz"), C(futimesat, "fpb"),
	C(newfstatat, "fpbz"), C(unlinkat, "fpz"), C(renameat, "fpfp"), C(linkat, "fpfpz"), C(symlinkat, "pfp"), C(readlinkat, "fpbl"),
	C(fchmodat, "fgM"), C(faccessat, "fpi"), C(pselect6, "ibbbb0"), C(ppoll, "bib0l"), C(set_robust_list, "bl"),
	C(get_robust_list, "nbb"), C(splice, "f0f0lz"), C(tee, "fflz"), C(sync_file_range, "folz"), C(vmsplice, "fbiz"),
	C(move_pages, "nlbbbi"), C(utimensat, "fpbz"), C(epoll_pwait, "fbit00"), C(signalfd, "fb8"), C(timerfd_create, "kz"),
	C(eventfd, "n"), C(fallocate, "fzol"), C(timerfd_settime, "fzbb"), C(timerfd_gettime, "fb"), C(accept4, "fbbz"),
	C(signalfd4, "fb8z"), C(eventfd2, "nz"), C(epoll_create1, "z"), C(dup3, "ffz"), C(pipe2, "bz"), C(inotify_init1, "z"),
	C(preadv, "fbio"), C(pwritev, "fbio"), C(rt_tgsigqueueinfo, "TTsb"), C(recvmmsg, "fbizb"), C(prlimit64, "0ibb"), C(name_to_handle_at, "fpbbn"),
	C(syncfs, "f"), C(sendmmsg, "fbiz"), C(getcpu, "bbb"), C(process_vm_readv, "nbibin"), C(kcmp, "nncnn"), C(renameat2, "fpfpz"),
	C(getrandom, "blz"), C(memfd_create, "pz"), C(copy_file_range, "f0f0l0"), C(preadv2, "fbio0z"), C(pwritev2, "fbio0z"),
	C(pkey_mprotect, "mlPn"), C(statx, "fpznb"), C(membarrier, "nn"), C(mlock2, "mln"), C(io_uring_setup, "nb"), C(pidfd_send_signal, "fsbn"),
	C(pidfd_open, "nn"), C(clone3, "hl"), C(close_range, "ffz"), C(openat2, "fpb2"), C(pidfd_getfd, "ffn"), C(faccessat2, "fpin"),
	C(epoll_pwait2, "fbib00"), C(futex_waitv, "bnnbn"), C(capset, "bb"), C(execve, "hbb"), C(execveat, "fhbbn"), C(setgroups, "nb"),
	C(mbind, "mlnbnn"), C(get_mempolicy, "bbnmn"), C(brk, "h"), C(setns, "fn"), C(unshare, "n"), C(shmat, "nmn"), C(semget, "nnn"),
	C(msgget, "nn"), C(mq_open, "pFMb"), C(io_setup, "nb"), C(seccomp, "nnb"), C(kill, "Ts"), C(process_madvise, "fbicn"),
	C(setpgid, "nn"), C(getsid, "n"), C(setsid, ""), C(fanotify_init, "nn"), C(rseq, "blnn"), C(clone, "hhhhh"), C(vfork, "0"), C(fork, "0"),
};
enum { NCALLS = sizeof calls / sizeof *calls };

static const uint64_t requests[] = {
	0x5401, 0x5402, 0x5403, 0x5404, 0x5405, 0x5406, 0x5409, 0x540a, 0x540b, 0x540e, 0x540f, 0x5410, 0x5411, 0x5413, 0x5414, 0x541b, 0x5420,
	0x5421, 0x5422, 0x5425, 0x5429, 0x5441, 0x80045430, 0x40045431, 0x80045438, 0x80045440, 0x5450, 0x5451, 0x5452, 0x5460,
	0x8901, 0x8902, 0x8903, 0x8904, 0x8906, 0x8907, 0x8910, 0x8912, 0x8913, 0x8915, 0x8921, 0x8927, 0x8933, 0x8942, 0x40049409, 0xc020660b,
	0x80045200, 0x40045201, 0x40085203,
};

static uint64_t argument(struct worker *w, char kind)
{
	if (one_in(w, 40) && strchr("fblnoicMPtdyrLOqsh", kind)) {
		uint64_t v = one_in(w, 2) ? number(w) : address(w);
		// These must not name memory or a thread of the fuzzer itself.
		if (kind != 'h')
			return v;
	}
	switch (kind) {
	case 'f': return one_in(w, 30) ? (uint64_t)AT_FDCWD : descriptor(w);
	case 'p': return path(w);
	case 'b': return address(w);
	case 'l': return one_in(w, 4) ? number(w) : below(w, one_in(w, 4) ? 100000 : 600);
	case 'n': return number(w);
	case 'o': return one_in(w, 3) ? number(w) : below(w, 100000);
	case 'i': return below(w, 32);
	case 'm': // only what is ours to remap, or what is nobody's
		switch (below(w, 6)) {
		case 0: return ANY(w, hostile);
		case 1: return (uint64_t)scratch + below(w, SCRATCH);
		default: return (uint64_t)scratch + below(w, SCRATCH / PAGE) * PAGE;
		}
	case 's': return one_in(w, 4) ? below(w, 70) : SIGUSR1;
	case 't': return below(w, 4);
	case 'F': return below(w, 4) | (next(w) & next(w) & (O_CREAT | O_EXCL | O_TRUNC | O_APPEND | O_NONBLOCK | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC | O_PATH | O_NOATIME | 020000000 | O_DSYNC | O_DIRECT)) | (one_in(w, 3) ? O_CREAT : 0) | O_NONBLOCK * !one_in(w, 3);
	case 'M': return one_in(w, 3) ? next(w) & 07777 : (one_in(w, 2) ? 0644 : (uint64_t[]){S_IFREG, S_IFIFO, S_IFSOCK, S_IFCHR, S_IFDIR, S_IFBLK}[below(w, 6)] | 0700);
	case 'c': return below(w, one_in(w, 4) ? 2048 : 20);
	case 'P': return below(w, 8);
	case 'A': return (one_in(w, 4) ? next(w) & 0xfffff : (next(w) & (MAP_ANONYMOUS | MAP_NORESERVE | MAP_GROWSDOWN | MAP_POPULATE | MAP_FIXED | MAP_FIXED_NOREPLACE))) | 1 + below(w, 2);
	case 'd': return one_in(w, 6) ? below(w, 50) : (uint64_t[]){AF_UNIX, AF_INET, AF_INET6, AF_NETLINK}[below(w, 4)];
	case 'y': return (1 + below(w, one_in(w, 4) ? 10 : 3)) | (one_in(w, 2) ? SOCK_NONBLOCK : 0) | (one_in(w, 4) ? SOCK_CLOEXEC : 0);
	case 'r': return one_in(w, 3) ? (uint64_t[]){1, 6, 17, 58, 255}[below(w, 5)] : 0;
	case 'L': return (uint64_t[]){SOL_SOCKET, IPPROTO_IP, IPPROTO_TCP, IPPROTO_UDP, IPPROTO_IPV6, 58, 255, 270}[below(w, 8)];
	case 'O': return below(w, one_in(w, 3) ? 256 : 64);
	case 'q': return one_in(w, 10) ? next(w) : ANY(w, requests);
	case 'z': return one_in(w, 3) ? (one_in(w, 2) ? number(w) : 1ull << below(w, 20)) : 0;
	case '8': return 8;
	case '2': return 24;
	case '1': return one_in(w, 2) ? 16 : below(w, 130);
	case 'k': return below(w, 13);
	case 'w': return one_in(w, 2) ? 0xfff : next(w) & 0xf7000fff;
	case 'e': return 1 + below(w, 4);
	case 'u': return below(w, 14) | (one_in(w, 2) ? 128 : 0);
	case 'v': return one_in(w, 3) ? number(w) : below(w, 70);
	case 'x': return one_in(w, 8) ? path(w) : (uint64_t)(const char *[]){"user.a", "user.b", "security.x", "trusted.c"}[below(w, 4)];
	case 'g': return one_in(w, 8) ? address(w) : (uint64_t)(const char *[]){"f1", "f2", "d1/f3", "s1", "sock", "new"}[below(w, 6)];
	case 'T': return one_in(w, 3) ? number(w) : 1 + below(w, THREADS + 2);
	case 'h': return one_in(w, 2) ? ANY(w, hostile) : one_in(w, 2) ? (uint64_t)junk + below(w, JUNK) : number(w);
	}
	return 0;
}

// fresh puts something open at a descriptor, so that calls get beyond EBADF.
static void fresh(struct worker *w)
{
	int fd = -1, two[2] = {-1, -1};
	int flags = one_in(w, 4) ? 0 : O_NONBLOCK;
	struct sockaddr_in in = {.sin_family = AF_INET, .sin_port = htons(1000 + below(w, 8)), .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
	switch (below(w, 18)) {
	case 0: pipe2(two, flags); break;
	case 1: socketpair(AF_UNIX, 1 + below(w, 2), 0, two); break;
	case 2: socketpair(AF_UNIX, SOCK_SEQPACKET, 0, two); break;
	case 3: fd = socket(AF_INET, SOCK_STREAM | flags, 0); break;
	case 4: fd = socket(one_in(w, 2) ? AF_INET : AF_INET6, SOCK_DGRAM | flags, 0); bind(fd, (void *)&in, sizeof in); break;
	case 5:
		fd = socket(AF_INET, SOCK_STREAM | flags, 0);
		setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &(int){1}, 4);
		bind(fd, (void *)&in, sizeof in), listen(fd, 5);
		break;
	case 6: fd = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK, 0); connect(fd, (void *)&in, sizeof in); break;
	case 7: fd = socket(AF_NETLINK, SOCK_RAW | flags, 0); break;
	case 8: fd = syscall(SYS_epoll_create1, 0); break;
	case 9: fd = syscall(SYS_eventfd2, below(w, 3), flags); break;
	case 10: fd = syscall(SYS_timerfd_create, below(w, 2), flags); break;
	case 11: fd = syscall(SYS_inotify_init1, flags); break;
	case 12: fd = syscall(SYS_memfd_create, "m", below(w, 4)); break;
	case 13: { uint64_t set = ~(1ull << (SIGUSR1 - 1)); fd = syscall(SYS_signalfd4, -1, &set, 8, flags); break; }
	case 14: fd = open("/dev/ptmx", O_RDWR | flags); ioctl(fd, TIOCSPTLCK, &(int){0}); break;
	case 15: fd = open(paths[16 + below(w, 6)], O_RDWR | flags); break;
	default: fd = open(paths[5 + below(w, 4)], O_RDWR | O_CREAT | flags, 0644); break;
	}
	if (two[0] >= 0) {
		dup2(two[1], 3 + below(w, 40));
		close(two[1]);
		fd = two[0];
	}
	if (fd >= 0) {
		dup2(fd, 3 + below(w, 40));
		if (fd > 42)
			close(fd);
	}
}

static long raw(long nr, const uint64_t *a)
{
	long r;
	register long r10 __asm__("r10") = a[3];
	register long r8 __asm__("r8") = a[4];
	register long r9 __asm__("r9") = a[5];
	__asm__ volatile("syscall" : "=a"(r) : "a"(nr), "D"(a[0]), "S"(a[1]), "d"(a[2]), "r"(r10), "r"(r8), "r"(r9) : "rcx", "r11", "memory");
	return r;
}

static int mine(uint64_t a) { return a >= (uint64_t)scratch && a < (uint64_t)scratch + SCRATCH; }

// Calls that end the fuzzer or take away what it needs are not made.
static int harmful(long nr, const uint64_t *a)
{
	switch (nr) {
	case SYS_exit: case SYS_exit_group: case SYS_rt_sigreturn: case SYS_pause: case SYS_rt_sigsuspend: case SYS_rt_sigprocmask:
	case SYS_rt_sigaction: case SYS_set_tid_address: case SYS_mlockall: case SYS_restart_syscall: case SYS_chroot:
		return 1;
	case SYS_rt_sigtimedwait: // it may take what frees a thread that waits
	case SYS_setrlimit:
		return 1;
	case SYS_signalfd: case SYS_signalfd4:
		return 0;
	case SYS_arch_prctl:
		return a[0] == 0x1002 || a[0] == 0x1001; // ARCH_SET_FS, ARCH_SET_GS
	case SYS_prctl:
		return (int)a[0] == 59; // PR_SET_SYSCALL_USER_DISPATCH
	case SYS_mmap: // a fixed mapping only where nothing of ours is
		if (!mine(a[0]) || a[1] > (uint64_t)scratch + SCRATCH - a[0]) {
			for (unsigned i = 0; i < sizeof hostile / sizeof *hostile; i++)
				if (a[0] == hostile[i] && (a[0] >= 0x10000000000 || a[0] < 0x1000) && !(a[3] & MAP_FIXED && a[1] > 1 << 30))
					return 0;
			return (a[3] & MAP_FIXED) != 0;
		}
		return 0;
	case SYS_munmap: case SYS_mprotect: case SYS_madvise: case SYS_pkey_mprotect: case SYS_mbind:
		if (a[0] >= 0x800000000000)
			return 0;
		return !mine(a[0]) || a[1] > (uint64_t)scratch + SCRATCH - a[0];
	case SYS_mremap:
		return !mine(a[0]) || a[1] > (uint64_t)scratch + SCRATCH - a[0] || ((a[3] & 2) && (!mine(a[4]) || a[2] > (uint64_t)scratch + SCRATCH - a[4]));
	case SYS_setuid: case SYS_setgid: case SYS_setreuid: case SYS_setregid: case SYS_setresuid: case SYS_setresgid:
	case SYS_setfsuid: case SYS_setfsgid: case SYS_setgroups: case SYS_capset: case SYS_fchmod: case SYS_fchown:
		return 1;
	case SYS_shmat:
		return 1;
	case SYS_brk:
		return mine(a[0]);
	case SYS_clone: case SYS_vfork: case SYS_fork: // a child of a stack of its own: see spawn
		// One that runs in this memory would never end; a copy stops all
		// others for as long as it lives, at most five seconds.
		return nr == SYS_vfork || nr == SYS_clone && (a[0] & 0x100) != 0 || below(self, 5000) != 0;
	case SYS_clone3:
		// Memory of zeros is a copy too.
		return below(self, 5000) != 0 || mine(a[0]) || (a[0] >= (uint64_t)junk && a[0] < (uint64_t)junk + JUNK);
	case SYS_prlimit64:
		return a[2] != 0 && (a[1] != 7);
	case SYS_close_range:
		return (uint32_t)a[0] <= report_fd && (uint32_t)a[1] >= report_fd && !((int)a[2] & ~6);
	case SYS_kill: case SYS_tkill: case SYS_rt_sigqueueinfo: case SYS_pidfd_send_signal: // the C library's own
		return (int)a[1] == 32 || (int)a[1] == 33;
	case SYS_tgkill: case SYS_rt_tgsigqueueinfo:
		return (int)a[2] == 32 || (int)a[2] == 33;
	case SYS_ppoll: // a mask would keep the watchdog's signal away
		return a[3] != 0;
	case SYS_epoll_pwait: case SYS_epoll_pwait2:
		return a[4] != 0;
	case SYS_pselect6:
		return a[5] != 0;
	case SYS_sigaltstack:
		return a[0] != 0;
	case SYS_execve:
		return a[0] >= (uint64_t)paths && mine(a[0]);
	}
	return 0;
}

static void *child(void *arg) { return arg; }

static void report(struct worker *w, const char *what)
{
	char b[256];
	int n = snprintf(b, sizeof b, "%s: thread %d call %ld(%#lx, %#lx, %#lx, %#lx, %#lx, %#lx)\n", what, w->id, (long)w->nr,
		w->args[0], w->args[1], w->args[2], w->args[3], w->args[4], w->args[5]);
	write(report_fd, b, n);
}

static void one(struct worker *w)
{
	uint64_t *a = w->args;
	fill(w);
	if (one_in(w, 6))
		fresh(w);
	long nr;
	const struct call *c = &calls[below(w, NCALLS)];
	nr = c->nr;
	int plain = one_in(w, 8); // arguments without regard to what they are
	if (one_in(w, 100))
		nr = below(w, 480);
	int n = strlen(c->args);
	for (int i = 0; i < 6; i++) {
		char kind = i < n && nr == c->nr ? c->args[i] : "nbh"[below(w, 3)];
		if (plain && kind != '0' && kind != 'm')
			a[i] = one_in(w, 3) ? descriptor(w) : one_in(w, 2) ? number(w) : address(w);
		else
			a[i] = argument(w, kind);
	}
	if (harmful(nr, a))
		return;
	w->nr = nr;
	if (tracing)
		report(w, "trace");
	struct timespec t0, t1;
	clock_gettime(CLOCK_MONOTONIC, &t0);
	raw(nr, a);
	clock_gettime(CLOCK_MONOTONIC, &t1);
	if (t1.tv_sec - t0.tv_sec > 3)
		report(w, "slow");
	w->nr = -1;
	if (one_in(w, 2000)) {
		pthread_t t;
		if (!pthread_create(&t, NULL, child, NULL))
			pthread_join(t, NULL);
	}
	if (one_in(w, 500)) {
		// Fresh descriptors and scratch memory.
		for (int fd = 3 + below(w, 40), k = 0; k < 4; k++, fd = 3 + below(w, 40))
			close(fd);
		mmap(scratch, SCRATCH, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE | MAP_FIXED, -1, 0);
		open(paths[5 + below(w, 20)], O_RDWR | O_CREAT | O_NONBLOCK, 0644);
	}
	w->calls++;
}

static void interrupted(int sig) { (void)sig; }

static void faulted(int sig, siginfo_t *info, void *context)
{
	if (info->si_code <= 0 || info->si_code > 3 && info->si_code != 128) // kill(2) and the like
		return;
	// The fuzzer read its own scratch memory where that is gone.
	if (self)
		siglongjmp(self->out, 1);
	dprintf(report_fd, "fault outside the workers: signal %d code %d at %p\n", sig, info->si_code, info->si_addr);
	_exit(4);
}

static void *work(void *arg)
{
	struct worker *w = self = arg;
	w->tid = gettid();
	sigsetjmp(w->out, 1);
	while (!stop)
		one(w);
	w->tid = 0;
	return NULL;
}

int main(int argc, char **argv)
{
	uint64_t seed = argc > 1 ? strtoull(argv[1], NULL, 0) : 1;
	int seconds = argc > 2 ? atoi(argv[2]) : 10;
	tracing = argc > 3;
	if (getpid() != 1 || access("/fuzz-inside", F_OK)) {
		fprintf(stderr, "fuzzcalls: this is not a nabla image made for it; it would do harm here\n");
		return 2;
	}
	printf("seed %llu\n", (unsigned long long)seed);
	fflush(stdout);
	report_fd = fcntl(2, F_DUPFD_CLOEXEC, 900);
	mkdir("/tmp", 0777), mkdir("/work", 0777), chdir("/work");
	mkdir("d1", 0777), mkdir("d2", 0777), symlink("f1", "s1"), symlink("loop", "loop"), mkfifo("fifo", 0666);
	junk = mmap(NULL, JUNK + PAGE, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	mprotect(junk + JUNK, PAGE, PROT_NONE);
	scratch = mmap(NULL, SCRATCH, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
	struct sigaction sa = {.sa_handler = interrupted};
	for (int s = 1; s <= 64; s++)
		sigaction(s, &sa, NULL);
	sa.sa_sigaction = faulted;
	sa.sa_flags = SA_NODEFER | SA_SIGINFO;
	sigaction(SIGSEGV, &sa, NULL);
	sigaction(SIGBUS, &sa, NULL);
	for (int i = 0; i < THREADS; i++) {
		workers[i].id = i, workers[i].nr = -1, workers[i].rng = seed * 1000003 + i;
		pthread_create(&workers[i].thread, NULL, work, &workers[i]);
	}
	// The watchdog: a thread that waits is interrupted; one that does not come
	// back in spite of it hangs.
	uint64_t last[THREADS] = {0}, total = 0;
	double stuck[THREADS] = {0};
	struct timespec begin, now;
	clock_gettime(CLOCK_MONOTONIC, &begin);
	for (int hung = 0; !hung;) {
		usleep(2000);
		clock_gettime(CLOCK_MONOTONIC, &now);
		double t = now.tv_sec - begin.tv_sec + (now.tv_nsec - begin.tv_nsec) / 1e9;
		int live = 0;
		if (t > seconds)
			stop = 1;
		for (int i = 0; i < THREADS; i++) {
			struct worker *w = &workers[i];
			uint64_t n = w->calls;
			if (w->tid == 0 && (stop || t > 1))
				continue;
			live++;
			if (n != last[i]) {
				last[i] = n, stuck[i] = t;
			} else if (w->tid) {
				syscall(SYS_tgkill, 1, w->tid, SIGUSR1);
				if (t - stuck[i] > 30) {
					report(w, "HANG");
					hung = 3;
				}
			}
		}
		if (stop && !live)
			break;
		if (hung)
			_exit(hung);
	}
	for (int i = 0; i < THREADS; i++)
		total += workers[i].calls;
	dprintf(report_fd, "fuzzcalls: %llu calls\n", (unsigned long long)total);
	_exit(0);
}
