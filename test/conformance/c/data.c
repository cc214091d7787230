#include "check.h"
#include <linux/falloc.h>
#include <sys/file.h>
#include <sys/sendfile.h>
static char buf[65536];
static void blocks(int fd)
{
	struct stat st;
	fstat(fd, &st);
	printf("size %ld allocated %s\n", (long)st.st_size, st.st_blocks ? "some" : "none");
}
static void map(int fd, off_t end)
{
	off_t at = 0;
	printf("data:");
	while ((at = lseek(fd, at, SEEK_DATA)) >= 0 && at < end) {
		off_t hole = lseek(fd, at, SEEK_HOLE);
		printf(" %ld-%ld", (long)at, (long)hole);
		at = hole;
	}
	printf("\n");
}
static unsigned sum(int fd)
{
	unsigned s = 0;
	ssize_t n;
	for (off_t at = 0; (n = pread(fd, buf, sizeof buf, at)) > 0; at += n)
		for (int i = 0; i < n; i++)
			s = s * 31 + (unsigned char)buf[i];
	return s;
}
int main(void)
{
	mkdir("/dev/shm/data.tmp", 0777);
	if (chdir("/dev/shm/data.tmp"))
		return 1;
	// Sparse files.
	int fd = open("sparse", O_RDWR | O_CREAT | O_TRUNC, 0644);
	CALL(ftruncate(fd, 1 << 20));
	blocks(fd);
	map(fd, 1 << 20);
	CALL(lseek(fd, 0, SEEK_DATA));
	CALL(lseek(fd, 0, SEEK_HOLE));
	CALL(pwrite(fd, "x", 1, 65536));
	map(fd, 1 << 20);
	CALL(lseek(fd, 65536, SEEK_DATA));
	CALL(lseek(fd, 65537, SEEK_HOLE));
	CALL(lseek(fd, 1 << 20, SEEK_HOLE));
	CALL(lseek(fd, (1 << 20) + 1, SEEK_DATA));
	CALL(lseek(fd, -1, SEEK_HOLE));
	CALL(lseek(fd, 0, 9));
	CALL(fallocate(fd, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, 65536, 4096));
	blocks(fd);
	CALL(pread(fd, buf, 1, 65536));
	printf("%d\n", buf[0]);
	CALL(fallocate(fd, FALLOC_FL_PUNCH_HOLE, 0, 4096));
	CALL(fallocate(fd, 0, 0, 0));
	CALL(fallocate(fd, 0, -1, 10));
	CALL(fallocate(fd, 0, 0, -10));
	CALL(fallocate(fd, 0, 0x7fffffffffffffff, 1));
	CALL(fallocate(fd, 0x1000, 0, 4096));
	CALL(fallocate(fd, 0, 1 << 20, 8192));
	blocks(fd);
	CALL(fallocate(fd, FALLOC_FL_KEEP_SIZE, 2 << 20, 4096));
	blocks(fd);
	CALL(posix_fallocate(fd, 0, 100));
	CALL(posix_fadvise(fd, 0, 0, POSIX_FADV_SEQUENTIAL));
	CALL(posix_fadvise(fd, 0, 0, 99));
	CALL(readahead(fd, 0, 4096));
	CALL(sync_file_range(fd, 0, 4096, 7));
	CALL(sync_file_range(fd, -1, 4096, 0));
	CALL(fsync(fd));
	CALL(fdatasync(1000));
	CALL(ftruncate(fd, -1));
	int ro = open("sparse", O_RDONLY);
	CALL(ftruncate(ro, 0));
	CALL(fallocate(ro, 0, 0, 10));
	CALL(truncate("sparse", 5));
	CALL(truncate("missing", 5));
	CALL(truncate(".", 5));
	CALL(truncate("", 5));
	// preadv2, pwritev2.
	struct iovec v[3] = {{"abc", 3}, {"", 0}, {"defg", 4}}, in[2] = {{buf, 2}, {buf + 100, 50}};
	CALL(pwritev(fd, v, 3, 0));
	CALL(preadv(fd, in, 2, 1));
	printf("%.2s %.4s\n", buf, buf + 100);
	CALL(preadv(fd, in, 2, -1));
	CALL(preadv(fd, in, -1, 0));
	CALL(preadv(fd, in, 1025, 0));
	CALL(syscall(SYS_pwritev2, fd, v, 3, -1, 0, 0));
	CALL(lseek(fd, 0, SEEK_CUR));
	CALL(syscall(SYS_pwritev2, fd, v, 1, 0, 0, 0x10));
	CALL(lseek(fd, 0, SEEK_END));
	CALL(syscall(SYS_preadv2, fd, in, 2, 0, 0, 0x4000));
	CALL(syscall(SYS_preadv2, fd, in, 2, -2, 0, 0));
	struct iovec badv[2] = {{buf, 2}, {(void *)8, 4}}, huge[2] = {{buf, 1}, {buf, -1}};
	CALL(writev(fd, badv, 2));
	CALL(writev(fd, huge, 2));
	CALL(readv(ro, NULL, 1));
	CALL(writev(fd, v, 0));
	// copy_file_range, sendfile.
	for (int i = 0; i < sizeof buf; i++)
		buf[i] = i * 7 + i / 256;
	int a = open("a", O_RDWR | O_CREAT | O_TRUNC, 0644), b = open("b", O_RDWR | O_CREAT | O_TRUNC, 0644);
	write(a, buf, sizeof buf);
	loff_t from = 100, to = 10;
	CALL(syscall(SYS_copy_file_range, a, &from, b, &to, 1000, 0));
	printf("%ld %ld\n", (long)from, (long)to);
	blocks(b);
	CALL(syscall(SYS_copy_file_range, a, NULL, b, NULL, 1000, 0));
	CALL(lseek(a, 0, SEEK_SET));
	CALL(syscall(SYS_copy_file_range, a, NULL, b, NULL, 100000, 0));
	CALL(lseek(b, 0, SEEK_CUR));
	CALL(syscall(SYS_copy_file_range, a, NULL, b, NULL, 10, 1));
	CALL(syscall(SYS_copy_file_range, ro, NULL, ro, NULL, 10, 0));
	from = 0, to = 10;
	CALL(syscall(SYS_copy_file_range, a, &from, a, &to, 100, 0));
	from = -1;
	CALL(syscall(SYS_copy_file_range, a, &from, b, NULL, 10, 0));
	from = 1 << 20;
	CALL(syscall(SYS_copy_file_range, a, &from, b, NULL, 10, 0));
	int ap = open("a", O_WRONLY | O_APPEND), dir = open(".", O_RDONLY);
	from = 0;
	CALL(syscall(SYS_copy_file_range, a, &from, ap, NULL, 10, 0));
	CALL(syscall(SYS_copy_file_range, a, &from, dir, NULL, 10, 0));
	CALL(syscall(SYS_copy_file_range, dir, NULL, a, NULL, 10, 0));
	TRUE(sum(a) != 0);
	ftruncate(b, 0), lseek(b, 0, SEEK_SET);
	off_t off = 5;
	CALL(sendfile(b, a, &off, 50000));
	printf("%ld\n", (long)off);
	lseek(a, 0, SEEK_SET);
	CALL(sendfile(b, a, NULL, 1 << 20));
	CALL(sendfile(b, a, NULL, 100));
	CALL(sendfile(ro, a, NULL, 100));
	CALL(sendfile(ap, a, NULL, 100));
	CALL(sendfile(b, dir, NULL, 100));
	CALL(sendfile(b, 1000, NULL, 100));
	off = -5;
	CALL(sendfile(b, a, &off, 10));
	printf("%x\n", sum(b));
	// Pipes: splice, tee, vmsplice.
	int p[2], q[2];
	pipe(p), pipe2(q, O_NONBLOCK);
	lseek(a, 0, SEEK_SET);
	CALL(splice(a, NULL, p[1], NULL, 1000, 0));
	CALL(tee(p[0], q[1], 500, 0));
	CALL(tee(p[0], p[1], 500, 0));
	CALL(tee(a, q[1], 500, 0));
	CALL(splice(p[0], NULL, q[1], NULL, 300, 0));
	CALL(read(q[0], buf, 2000));
	CALL(splice(q[0], NULL, p[1], NULL, 10, SPLICE_F_NONBLOCK));
	loff_t at = 4000;
	CALL(splice(p[0], NULL, b, &at, 10000, 0));
	printf("%ld\n", (long)at);
	CALL(splice(p[0], &at, b, NULL, 10, 0));
	CALL(splice(a, NULL, b, NULL, 10, 0));
	CALL(splice(a, NULL, p[1], NULL, 10, 0x100));
	CALL(splice(p[0], NULL, p[1], NULL, 10, 0));
	CALL(splice(p[0], NULL, ap, NULL, 10, 0));
	CALL(splice(a, NULL, p[1], NULL, 0, 0));
	struct iovec w[2] = {{"hello", 5}, {" world", 6}};
	CALL(vmsplice(p[1], w, 2, 0));
	CALL(vmsplice(a, w, 2, 0));
	CALL(read(p[0], buf, 100));
	printf("%.11s\n", buf);
	close(p[0]);
	signal(SIGPIPE, SIG_IGN);
	CALL(splice(a, NULL, p[1], NULL, 10, 0));
	// fcntl on pipes.
	CALL(fcntl(q[1], F_GETPIPE_SZ));
	CALL(fcntl(q[1], F_SETPIPE_SZ, 4096));
	CALL(fcntl(q[1], F_SETPIPE_SZ, 5000));
	CALL(fcntl(a, F_GETPIPE_SZ));
	memset(buf, 'p', sizeof buf);
	CALL(write(q[1], buf, 10000));
	CALL(write(q[1], buf, 1));
	CALL(fcntl(q[1], F_SETPIPE_SZ, 4096));
	// Locks.
	struct flock l = {.l_type = F_WRLCK, .l_start = 10, .l_len = 10};
	CALL(fcntl(a, F_SETLK, &l));
	CALL(fcntl(b, F_OFD_GETLK, &l));
	l.l_pid = 0, l.l_type = F_WRLCK, l.l_start = 0, l.l_len = 0;
	CALL(fcntl(ap, F_OFD_GETLK, &l));
	printf("%d %ld %ld %d\n", l.l_type, (long)l.l_start, (long)l.l_len, l.l_pid == getpid());
	l = (struct flock){.l_type = F_RDLCK, .l_start = 15, .l_len = 1};
	CALL(fcntl(a, F_SETLK, &l));
	l = (struct flock){.l_type = F_RDLCK};
	CALL(fcntl(ap, F_OFD_GETLK, &l));
	printf("%d %ld %ld\n", l.l_type, (long)l.l_start, (long)l.l_len);
	CALL(fcntl(ap, F_OFD_SETLK, &l));
	l = (struct flock){.l_type = F_WRLCK};
	CALL(fcntl(ap, F_OFD_SETLK, &l));
	l = (struct flock){.l_type = 77};
	CALL(fcntl(a, F_SETLK, &l));
	l = (struct flock){.l_type = F_WRLCK, .l_start = -1};
	CALL(fcntl(a, F_SETLK, &l));
	l = (struct flock){.l_type = F_WRLCK, .l_whence = SEEK_END, .l_start = -5, .l_len = -5};
	CALL(fcntl(a, F_SETLK, &l));
	CALL(fcntl(a, F_SETLK, NULL));
	CALL(fcntl(p[1], F_SETLK, &l));
	CALL(flock(a, LOCK_EX));
	CALL(flock(b, LOCK_SH | LOCK_NB));
	int a2 = open("a", O_RDWR);
	CALL(flock(a2, LOCK_SH | LOCK_NB));
	CALL(flock(a, LOCK_SH));
	CALL(flock(a2, LOCK_SH | LOCK_NB));
	CALL(flock(a2, LOCK_EX | LOCK_NB));
	CALL(flock(a2, LOCK_UN));
	CALL(flock(a2, 99));
	CALL(flock(1000, LOCK_SH));
	// memfd and seals.
	int m = syscall(SYS_memfd_create, "name", 3);
	CALL(fcntl(m, F_GET_SEALS));
	CALL(write(m, "sealed", 6));
	CALL(fcntl(m, F_ADD_SEALS, F_SEAL_SHRINK));
	CALL(ftruncate(m, 2));
	CALL(ftruncate(m, 20));
	CALL(fcntl(m, F_ADD_SEALS, F_SEAL_GROW));
	CALL(ftruncate(m, 30));
	CALL(pwrite(m, "0123456789", 10, 15));
	void *map1 = mmap(NULL, 4096, PROT_READ | PROT_WRITE, MAP_SHARED, m, 0);
	CALL(fcntl(m, F_ADD_SEALS, F_SEAL_WRITE));
	munmap(map1, 4096);
	CALL(fcntl(m, F_ADD_SEALS, F_SEAL_WRITE));
	CALL(write(m, "x", 1));
	OK(mmap(NULL, 4096, PROT_READ | PROT_WRITE, MAP_SHARED, m, 0));
	OK(mmap(NULL, 4096, PROT_READ | PROT_WRITE, MAP_PRIVATE, m, 0));
	CALL(fcntl(m, F_ADD_SEALS, F_SEAL_SEAL));
	CALL(fcntl(m, F_ADD_SEALS, F_SEAL_SHRINK));
	CALL(fcntl(m, F_GET_SEALS));
	CALL(fcntl(a, F_GET_SEALS));
	CALL(fcntl(p[1], F_GET_SEALS));
	CALL(syscall(SYS_memfd_create, "name", 0x100));
	CALL(syscall(SYS_memfd_create, NULL, 0));
	unlink("a"), unlink("b"), unlink("sparse"), chdir("/"), rmdir("/dev/shm/data.tmp");
	return 0;
}
