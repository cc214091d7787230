#include "check.h"
#include <dirent.h>
#include <sys/file.h>
#include <sys/sendfile.h>
#include <sys/statfs.h>
static void show(const char *path)
{
	struct stat st;
	if (lstat(path, &st))
		printf("%s: %s\n", path, strerrorname_np(errno));
	else
		printf("%s: mode %o size %ld nlink %ld\n", path, st.st_mode, S_ISDIR(st.st_mode) ? 0L : (long)st.st_size, (long)st.st_nlink);
}
static int names(const void *a, const void *b) { return strcmp(*(char **)a, *(char **)b); }
static void list(const char *path)
{
	DIR *d = opendir(path);
	char *n[64];
	int k = 0;
	for (struct dirent *e; d && (e = readdir(d)) && k < 64;)
		n[k++] = strdup(e->d_name);
	if (d)
		closedir(d);
	qsort(n, k, sizeof *n, names);
	printf("%s:", path);
	for (int i = 0; i < k; i++)
		printf(" %s", n[i]);
	printf("\n");
}
int main(void)
{
	char buf[256], *dir = "files.tmp";
	umask(022);
	CALL(mkdir(dir, 0777));
	CALL(chdir(dir));
	show(".");
	int fd = CALL(open("a", O_RDWR | O_CREAT | O_EXCL, 0666));
	CALL(open("a", O_RDWR | O_CREAT | O_EXCL, 0666));
	CALL(write(fd, "hello world", 11));
	CALL(lseek(fd, 0, SEEK_SET));
	CALL(read(fd, buf, 5));
	CALL(pread(fd, buf, 5, 6));
	CALL(pwrite(fd, "W", 1, 6));
	CALL(lseek(fd, 100, SEEK_END));
	CALL(write(fd, "x", 1));
	show("a");
	CALL(lseek(fd, 0, SEEK_DATA));
	CALL(lseek(fd, -5, SEEK_SET));
	CALL(ftruncate(fd, 20));
	show("a");
	CALL(read(fd, buf, 1));
	struct iovec v[2] = {{buf, 3}, {buf + 100, 4}};
	lseek(fd, 0, SEEK_SET);
	CALL(readv(fd, v, 2));
	printf("%.3s|%.4s\n", buf, buf + 100);
	CALL(link("a", "b"));
	CALL(symlink("a", "s"));
	CALL(symlink("loop", "loop"));
	CALL(open("loop", O_RDONLY));
	CALL(open("s", O_RDONLY | O_NOFOLLOW));
	CALL(readlink("s", buf, sizeof buf));
	show("a");
	show("s");
	CALL(mkdir("d", 0755));
	CALL(mkdir("d/e", 0755));
	CALL(rmdir("d"));
	CALL(unlink("d"));
	CALL(rename("a", "d/e/a2"));
	list(".");
	list("d/e");
	CALL(rename("d", "d/e/inside"));
	CALL(rename("b", "d"));
	CALL(rename("s", "b"));
	show("b");
	CALL(renameat2(AT_FDCWD, "b", AT_FDCWD, "d", RENAME_NOREPLACE));
	CALL(renameat2(AT_FDCWD, "b", AT_FDCWD, "d", RENAME_EXCHANGE));
	show("b");
	CALL(chmod("d", 0700));
	CALL(access("nothing", F_OK));
	CALL(access("b", R_OK | W_OK));
	CALL(open("nothing/x", O_RDONLY));
	CALL(open("d/x", O_RDONLY));
	CALL(open("b", O_WRONLY));
	CALL(open("b", O_RDONLY | O_DIRECTORY) >= 0);
	CALL(stat("b/e/a2/", (struct stat *)buf));
	memset(buf, 'n', sizeof buf);
	char longname[300];
	memset(longname, 'l', 299);
	longname[299] = 0;
	CALL(open(longname, O_RDONLY));
	int t = CALL(open(".", O_TMPFILE | O_RDWR, 0600)) >= 0;
	(void)t;
	unlink("b/e/a2");
	show("b/e/a2");
	CALL(pread(fd, buf, 5, 0));
	int dfd = CALL(dup(fd)) ;
	CALL(fcntl(dfd, F_GETFD));
	CALL(fcntl(dfd, F_SETFD, FD_CLOEXEC));
	CALL(fcntl(dfd, F_GETFD));
	CALL(fcntl(fd, F_GETFL) & O_ACCMODE);
	CALL(fcntl(fd, F_DUPFD, 50));
	CALL(dup2(fd, 60));
	CALL(dup3(fd, fd, 0));
	CALL(close(60));
	CALL(close(60));
	CALL(read(-1, buf, 1));
	CALL(write(fd, (void *)8, 10));
	CALL(read(open("/", O_RDONLY), buf, 10));
	int o = open("append", O_WRONLY | O_CREAT | O_APPEND, 0640);
	write(o, "one", 3);
	lseek(o, 0, SEEK_SET);
	write(o, "two", 3);
	show("append");
	CALL(read(o, buf, 1));
	struct timespec ts[2] = {{1000, 500}, {2000, 600}};
	CALL(utimensat(AT_FDCWD, "append", ts, 0));
	struct stat st;
	stat("append", &st);
	printf("times %ld.%ld %ld.%ld\n", st.st_atim.tv_sec, st.st_atim.tv_nsec, st.st_mtim.tv_sec, st.st_mtim.tv_nsec);
	int in = open("append", O_RDONLY), out = open("copy", O_RDWR | O_CREAT, 0600);
	CALL(sendfile(out, in, 0, 100));
	CALL(copy_file_range(in, &(loff_t){0}, out, &(loff_t){6}, 6, 0));
	show("copy");
	CALL(flock(in, LOCK_EX));
	CALL(flock(open("append", O_RDONLY), LOCK_EX | LOCK_NB));
	CALL(fsync(out));
	CALL(getcwd(buf, 4) == 0 ? errno : 0);
	TRUE(strstr(getcwd(buf, sizeof buf), "files.tmp") != 0);
	CALL(fallocate(out, 0, 0, 1000));
	show("copy");
	CALL(setxattr("copy", "user.k", "v", 1, 0));
	CALL(getxattr("copy", "user.k", buf, 10));
	CALL(getxattr("copy", "user.none", buf, 10));
	CALL(fcntl(open(".", O_RDONLY), F_NOTIFY, 0));
	CALL(fcntl(open(".", O_RDONLY), F_NOTIFY, 0x80000000));
	CALL(fcntl(fd, F_NOTIFY, 1));
	int mfd = memfd_create("m", 0);
	CALL(write(mfd, "mem", 3));
	CALL(pread(mfd, buf, 3, 0));
	// devices and proc
	int z = open("/dev/zero", O_RDONLY), n = open("/dev/null", O_RDWR), full = open("/dev/full", O_WRONLY);
	CALL(read(z, buf, 16));
	CALL(read(n, buf, 16));
	CALL(write(n, buf, 16));
	CALL(write(full, buf, 16));
	CALL(read(open("/dev/urandom", O_RDONLY), buf, 16));
	memset(buf, 0, sizeof buf); // readlink ends with no NUL
	CALL(getpid() == atoi((readlink("/proc/self", buf, sizeof buf), buf)));
	TRUE(readlink("/proc/self/exe", buf, sizeof buf) > 0);
	snprintf(buf, sizeof buf, "/proc/self/fd/%d", in);
	char l[256] = "";
	CALL(readlink(buf, l, sizeof l) > 0 && strstr(l, "append") != 0);
	CALL(lseek(open("append", O_RDONLY), 3, SEEK_SET));
	FILE *f = fopen("/proc/self/comm", "r");
	fgets(buf, sizeof buf, f);
	printf("comm %s", buf);
	f = fopen("/proc/self/status", "r");
	while (fgets(buf, sizeof buf, f))
		if (!strncmp(buf, "Threads:", 8))
			printf("%s", buf);
	unlink("copy"), unlink("append"), unlink("d"), unlink("s"), unlink("loop"), rmdir("b/e"), rmdir("b"), rmdir("d/e"), rmdir("d");
	list(".");
	chdir("..");
	CALL(rmdir(dir));
	return 0;
}
