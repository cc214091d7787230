#include "check.h"
#include <dirent.h>
#include <sys/epoll.h>
#include <sys/inotify.h>
#include <sys/ioctl.h>
#include <sys/xattr.h>
static int in;
static const struct { unsigned bit; const char *name; } bits[] = {
	{IN_ACCESS, "ACCESS"}, {IN_MODIFY, "MODIFY"}, {IN_ATTRIB, "ATTRIB"}, {IN_CLOSE_WRITE, "CLOSE_WRITE"},
	{IN_CLOSE_NOWRITE, "CLOSE_NOWRITE"}, {IN_OPEN, "OPEN"}, {IN_MOVED_FROM, "MOVED_FROM"}, {IN_MOVED_TO, "MOVED_TO"},
	{IN_CREATE, "CREATE"}, {IN_DELETE, "DELETE"}, {IN_DELETE_SELF, "DELETE_SELF"}, {IN_MOVE_SELF, "MOVE_SELF"},
	{IN_ISDIR, "ISDIR"}, {IN_IGNORED, "IGNORED"}, {IN_Q_OVERFLOW, "Q_OVERFLOW"},
};
// events prints all that is queued; cookies as their order of appearance.
static void events(const char *what)
{
	static char buf[1 << 16] __attribute__((aligned(8)));
	unsigned seen[64], cookies = 0;
	printf("%s:\n", what);
	for (;;) {
		ssize_t n = read(in, buf, sizeof buf);
		if (n <= 0)
			break;
		for (char *p = buf; p < buf + n;) {
			struct inotify_event *e = (void *)p;
			printf("  wd %d len %u", e->wd, e->len);
			for (unsigned i = 0; i < sizeof bits / sizeof *bits; i++)
				if (e->mask & bits[i].bit)
					printf(" %s", bits[i].name);
			if (e->len)
				printf(" \"%s\"", e->name);
			if (e->cookie) {
				unsigned k = 0;
				while (k < cookies && seen[k] != e->cookie)
					k++;
				if (k == cookies)
					seen[cookies++] = e->cookie;
				printf(" cookie %u", k);
			}
			printf("\n");
			p += sizeof *e + e->len;
		}
	}
}
static void put(const char *name, const char *text)
{
	int fd = open(name, O_WRONLY | O_CREAT, 0644);
	write(fd, text, strlen(text));
	close(fd);
}
int main(void)
{
	char buf[512];
	int n;
	umask(022);
	mkdir("inotify.tmp", 0777);
	chdir("inotify.tmp");
	CALL(inotify_init1(0x40000000));
	in = inotify_init1(IN_NONBLOCK | IN_CLOEXEC);
	CALL(read(in, buf, sizeof buf));
	CALL(inotify_add_watch(in, ".", 0));
	CALL(inotify_add_watch(in, "missing", IN_OPEN));
	CALL(inotify_add_watch(0x7fff, ".", IN_OPEN));
	CALL(inotify_add_watch(1, ".", IN_OPEN | IN_MASK_ADD | IN_MASK_CREATE));
	CALL(inotify_rm_watch(in, 1));
	CALL(inotify_rm_watch(1, 1));
	CALL(write(in, "x", 1));
	put("f", "x");
	CALL(inotify_add_watch(in, "f", IN_ONLYDIR | IN_OPEN));
	CALL(inotify_add_watch(in, ".", IN_ALL_EVENTS));
	CALL(inotify_add_watch(in, ".", IN_ALL_EVENTS | IN_MASK_CREATE));
	events("nothing");
	put("a", "hello");
	events("file made and written");
	int fd = open("a", O_RDWR);
	read(fd, buf, 2), read(fd, buf, 2);
	pread(fd, buf, 1, 0);
	write(fd, "x", 1), pwrite(fd, "y", 1, 0);
	CALL(ioctl(in, FIONREAD, &n));
	printf("FIONREAD %d\n", n);
	events("read and written: equal events are one");
	ftruncate(fd, 3);
	events("ftruncate");
	truncate("a", 2);
	events("truncate");
	fchmod(fd, 0600);
	chmod("a", 0644);
	events("chmod twice");
	chown("a", -1, getgid());
	events("chown");
	struct timespec ts[2] = {{1, 0}, {2, 0}};
	utimensat(AT_FDCWD, "a", ts, 0);
	events("utimensat");
	setxattr("a", "user.x", "1", 1, 0);
	removexattr("a", "user.x");
	events("xattr");
	read(fd, buf, 0);
	events("empty read");
	close(fd);
	events("close");
	symlink("a", "s");
	events("symlink");
	link("a", "b");
	events("link");
	mkdir("d", 0777);
	events("mkdir");
	mkfifo("p", 0666);
	events("mkfifo");
	rename("a", "c");
	events("rename in the directory");
	rename("c", "d/c");
	events("rename away");
	rename("d/c", "e");
	events("rename back");
	rename("e", "b");
	events("rename to a link of the same file");
	put("x", "1");
	put("y", "2");
	events("two files");
	rename("x", "y");
	events("rename over");
	put("x", "3");
	syscall(SYS_renameat2, AT_FDCWD, "x", AT_FDCWD, "y", 2);
	events("exchange");
	unlink("x");
	events("unlink");
	DIR *dir = opendir("d");
	while (readdir(dir))
		;
	closedir(dir);
	events("directory read");
	rmdir("d");
	events("rmdir");
	fd = open("y", O_RDWR);
	unlink("y");
	events("open file unlinked");
	write(fd, "z", 1);
	close(fd);
	events("unlinked file written and closed");
	// A watch on a file.
	put("w", "1");
	events("file");
	int wd = CALL(inotify_add_watch(in, "w", IN_ALL_EVENTS));
	CALL(inotify_add_watch(in, "w", IN_OPEN) == wd);
	put("w", "2");
	events("only the directory sees all");
	CALL(inotify_add_watch(in, "w", IN_CLOSE | IN_MASK_ADD) == wd);
	put("w", "2");
	events("more of the mask");
	CALL(inotify_add_watch(in, "w", IN_ALL_EVENTS) == wd);
	link("w", "w2");
	events("link");
	put("w2", "3");
	events("through the other name");
	rename("w", "w3");
	events("rename");
	unlink("w3");
	events("one name unlinked");
	fd = open("w2", O_RDONLY);
	unlink("w2");
	events("last name unlinked, still open");
	close(fd);
	events("closed");
	CALL(inotify_rm_watch(in, wd));
	// A watch on a directory that goes.
	mkdir("d", 0777);
	CALL(inotify_add_watch(in, "d", IN_ALL_EVENTS));
	put("d/f", "1");
	rename("d", "d2");
	unlink("d2/f");
	rmdir("d2");
	events("watched directory");
	// Flags.
	CALL(inotify_rm_watch(in, 1));
	events("rm_watch");
	put("o", "1");
	wd = inotify_add_watch(in, "o", IN_OPEN | IN_ONESHOT);
	put("o", "1"), put("o", "1");
	events("oneshot");
	CALL(inotify_rm_watch(in, wd));
	mkdir("d", 0777);
	put("d/f", "1"), put("d/g", "1");
	inotify_add_watch(in, "d", IN_MODIFY | IN_EXCL_UNLINK | IN_CLOSE);
	fd = open("d/f", O_WRONLY);
	write(fd, "1", 1);
	unlink("d/f");
	write(fd, "1", 1);
	close(fd);
	events("excl_unlink");
	symlink("d", "l");
	CALL(inotify_add_watch(in, "l", IN_DONT_FOLLOW | IN_ATTRIB | IN_DELETE_SELF));
	CALL(inotify_add_watch(in, "l", IN_DONT_FOLLOW | IN_ATTRIB | IN_DELETE_SELF | IN_ONLYDIR));
	unlink("l");
	events("symbolic link");
	// Small buffers, waiting.
	put("d/long-name-of-a-file", "1");
	CALL(read(in, buf, 15));
	CALL(read(in, buf, 31));
	CALL(read(in, buf, 48));
	struct pollfd p = {in, POLLIN | POLLOUT};
	CALL(poll(&p, 1, 0));
	printf("%x\n", p.revents);
	events("rest");
	CALL(poll(&p, 1, 0));
	int ep = epoll_create1(0);
	struct epoll_event ev = {EPOLLIN | EPOLLET};
	CALL(epoll_ctl(ep, EPOLL_CTL_ADD, in, &ev));
	CALL(epoll_wait(ep, &ev, 1, 0));
	put("d/g", "1");
	CALL(epoll_wait(ep, &ev, 1, 1000));
	CALL(epoll_wait(ep, &ev, 1, 0));
	events("after epoll");
	// Overflow.
	inotify_add_watch(in, ".", IN_CREATE | IN_DELETE);
	for (int i = 0; i < 9000; i++) {
		close(open("t", O_CREAT | O_WRONLY, 0600));
		unlink("t");
	}
	CALL(ioctl(in, FIONREAD, &n));
	printf("FIONREAD %d\n", n);
	int count = 0, last = 0;
	static char big[1 << 16] __attribute__((aligned(8)));
	for (ssize_t k; (k = read(in, big, sizeof big)) > 0;)
		for (char *q = big; q < big + k; q += sizeof(struct inotify_event) + ((struct inotify_event *)q)->len, count++)
			last = ((struct inotify_event *)q)->mask;
	printf("%d events, the last %x\n", count, last);
	CALL(close(in));
	put("d/g", "1");
	return 0;
}
