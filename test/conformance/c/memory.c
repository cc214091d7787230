#include "check.h"
static int zero(char *p, size_t n) { for (size_t i = 0; i < n; i++) if (p[i]) return 0; return 1; }
#ifndef __GLIBC__
// musl's sbrk(3) refuses.
static void *by_brk(long n)
{
	char *old = (void *)syscall(SYS_brk, 0);
	return (char *)syscall(SYS_brk, old + n) == old + n ? old : (void *)-1;
}
#define sbrk by_brk
#endif
int main(void)
{
	size_t pg = 4096;
	char *a = mmap(0, 16 * pg, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	TRUE(a != MAP_FAILED && zero(a, 16 * pg));
	memset(a, 1, 16 * pg);
	CALL(munmap(a + 4 * pg, 4 * pg));
	CALL(write(1, a + 4 * pg, 1) == -1 ? errno == EFAULT : 0);
	char *b = mmap(a + 4 * pg, 4 * pg, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED, -1, 0);
	TRUE(b == a + 4 * pg && zero(b, 4 * pg));
	TRUE(a[3 * pg] == 1 && a[8 * pg] == 1);
	TRUE(mmap(a, pg, PROT_READ, MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED_NOREPLACE, -1, 0) == MAP_FAILED && errno == EEXIST);
	CALL(madvise(a, 2 * pg, MADV_DONTNEED));
	TRUE(zero(a, 2 * pg));
	TRUE(a[2 * pg] == 1);
	for (int i = 0; i < 200; i++) {
		size_t n = (i % 7 + 1) * pg;
		char *p = mmap(0, n, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
		if (!zero(p, n))
			printf("reused page is not zero\n");
		memset(p, i, n);
		munmap(p, n);
	}
	a = mremap(a, 16 * pg, 64 * pg, MREMAP_MAYMOVE);
	TRUE(a != MAP_FAILED && a[8 * pg] == 1 && zero(a + 16 * pg, 48 * pg));
	char *big = mmap(0, 32UL << 30, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
	TRUE(big != MAP_FAILED);
	CALL(mprotect(big + (1 << 30), 1 << 20, PROT_READ | PROT_WRITE));
	big[1 << 30] = 5;
	CALL(munmap(big, 32UL << 30));
	char *low = mmap(0, pg, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_32BIT, -1, 0);
	TRUE((uintptr_t)low < 1UL << 31);
	void *brk0 = sbrk(0);
	TRUE(sbrk(1 << 20) == brk0);
	memset(brk0, 3, 1 << 20);
	TRUE(sbrk(-(1 << 20)) == (char *)brk0 + (1 << 20));
	sbrk(1 << 20);
	TRUE(zero(brk0, 1 << 20));

	int fd = open("memory.tmp", O_RDWR | O_CREAT | O_TRUNC, 0644);
	for (int i = 0; i < 3; i++) {
		char page[4096];
		memset(page, 'a' + i, sizeof page);
		write(fd, page, sizeof page);
	}
	write(fd, "tail", 4);
	char *f = mmap(0, 4 * pg, PROT_READ | PROT_WRITE, MAP_PRIVATE, fd, 0);
	printf("%c %c %c %.4s %d\n", f[0], f[pg], f[2 * pg], f + 3 * pg, f[3 * pg + 4]);
	f[0] = 'z';
	char c;
	pread(fd, &c, 1, 0);
	printf("file keeps %c\n", c);
	char *g = mmap(0, pg, PROT_READ, MAP_PRIVATE, fd, pg);
	printf("offset %c\n", g[0]);
	char *s = mmap(0, pg, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
	s[1] = 'S';
	CALL(msync(s, pg, MS_SYNC));
	pread(fd, &c, 1, 1);
	printf("shared wrote %c\n", c);
	CALL(munmap(s, pg));
	CALL(mmap(0, pg, PROT_READ, MAP_PRIVATE, 99, 0) == MAP_FAILED ? errno : 0);
	CALL(mmap(0, 0, PROT_READ, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0) == MAP_FAILED ? errno : 0);
	CALL(munmap(a + 1, pg));
	CALL(mprotect((void *)0x10, pg, PROT_READ));
	unlink("memory.tmp");
	int ro = mprotect(a, pg, PROT_READ);
	printf("read-only %d, kernel write into it: %ld\n", ro, read(open("/dev/zero", O_RDONLY), a, 8) == -1 ? (long)errno : 0L);
	// code made at run time
	unsigned char *code = mmap(0, pg, PROT_READ | PROT_WRITE | PROT_EXEC, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	memcpy(code, "\xb8\x27\x00\x00\x00\x0f\x05\xc3", 8); // getpid by a bare syscall
	TRUE(((int (*)(void))code)() == getpid());
	return 0;
}
