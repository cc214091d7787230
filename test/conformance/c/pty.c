#include "check.h"
#include <sys/ioctl.h>
#include <termios.h>
static int m, s;
static struct termios raw, cooked;
static volatile sig_atomic_t got[65];
static void handler(int sig) { got[sig]++; }
static void show(const char *what, const char *b, int n)
{
	printf("%s: %d ", what, n);
	if (n < 0)
		printf("%s", strerrorname_np(errno));
	for (int i = 0; i < n; i++)
		if (b[i] < ' ' || b[i] == 127)
			printf("\\x%02x", b[i] & 0xff);
		else
			putchar(b[i]);
	printf("\n");
}
static char buf[70000];
// Reads what is there; a terminal hands input over a moment after the write.
static void rd(const char *what, int fd, int max)
{
	struct pollfd p = {fd, POLLIN};
	poll(&p, 1, 50);
	usleep(5000);
	int n = read(fd, buf, max);
	show(what, buf, n);
}
static void type(const char *t) { write(m, t, strlen(t)); usleep(20000); }
static void flags(int fd)
{
	struct pollfd p = {fd, POLLIN | POLLOUT | POLLPRI};
	poll(&p, 1, 0);
	printf("poll %x\n", p.revents);
}
static void signals(const char *what)
{
	usleep(10000);
	printf("%s:", what);
	for (int i = 1; i < 65; i++)
		if (got[i])
			printf(" %d*%d", i, got[i]);
	memset((void *)got, 0, sizeof got);
	printf("\n");
}
int main(void)
{
	int n;
	struct winsize w;
	struct stat st;
	char name[64];
	for (int i = 1; i < 30; i++)
		if (i != SIGSEGV && i != SIGKILL && i != SIGSTOP)
			signal(i, handler);
	setsid();
	m = open("/dev/ptmx", O_RDWR | O_NOCTTY | O_NONBLOCK);
	TRUE(m >= 0);
	CALL(isatty(m));
	CALL(ioctl(m, TIOCGPTN, &n));
	snprintf(name, sizeof name, "/dev/pts/%d", n);
	CALL(open(name, O_RDWR | O_NOCTTY));
	flags(m);
	rd("master read before the slave is open", m, 10);
	CALL(unlockpt(m));
	CALL(grantpt(m));
	TRUE(!strcmp(ptsname(m), name));
	CALL(stat(name, &st));
	printf("type %o major %d\n", st.st_mode & S_IFMT, (int)(st.st_rdev >> 8));
	s = open(name, O_RDWR | O_NOCTTY | O_NONBLOCK);
	TRUE(s >= 0);
	CALL(isatty(s));
	char other[64];
	CALL(ttyname_r(s, other, sizeof other));
	TRUE(!strcmp(other, name));
	CALL(ioctl(s, TIOCGPTN, &n));
	CALL(lseek(s, 0, SEEK_SET));
	// Attributes.
	CALL(tcgetattr(s, &cooked));
	printf("%o %o %o %o\n", cooked.c_iflag, cooked.c_oflag, cooked.c_cflag, cooked.c_lflag);
	for (int i = 0; i < 19; i++)
		printf("%x ", cooked.c_cc[i]);
	printf("\n");
	CALL(cfgetospeed(&cooked) == B38400);
	struct termios viamaster;
	CALL(tcgetattr(m, &viamaster));
	TRUE(!memcmp(&viamaster, &cooked, sizeof cooked));
	// Canonical mode.
	flags(s);
	rd("nothing typed", s, 10);
	type("ab");
	flags(s);
	rd("no line", s, 10);
	rd("echo", m, 100);
	type("c\n");
	flags(s);
	CALL(ioctl(s, FIONREAD, &n));
	printf("FIONREAD %d\n", n);
	rd("line in parts", s, 2);
	rd("line in parts", s, 100);
	rd("echo", m, 100);
	type("one\ntwo\r");
	rd("line", s, 100);
	rd("line", s, 100);
	rd("echo", m, 100);
	type("hello\x7f\x7f\x7f" "ap\n");
	rd("erase", s, 100);
	rd("echo", m, 100);
	type("one two_2 three \x17" "3\n");
	rd("werase", s, 100);
	rd("echo", m, 100);
	type("gone\x15" "here\n");
	rd("kill", s, 100);
	rd("echo", m, 100);
	type("a\tb\x7f\x7f.\n");
	rd("erase of a tab", s, 100);
	rd("echo", m, 100);
	type("\x16\x03\x01\x7f\x7f" "x\x16\x04\n");
	rd("literal next, control characters", s, 100);
	rd("echo", m, 100);
	type("part\x04");
	rd("end of file after text", s, 100);
	type("\x04");
	rd("end of file", s, 100);
	rd("nothing", s, 100);
	type("re\x12" "print\n");
	rd("reprint", s, 100);
	rd("echo", m, 100);
	// Output.
	CALL(write(s, "a\nb\tc\r\n", 7));
	rd("opost", m, 100);
	struct termios t = cooked;
	t.c_oflag &= ~OPOST;
	CALL(tcsetattr(s, TCSANOW, &t));
	write(s, "a\nb\n", 4);
	rd("raw output", m, 100);
	t = cooked;
	t.c_oflag |= XTABS;
	t.c_oflag &= ~ONLCR;
	CALL(tcsetattr(s, TCSADRAIN, &t));
	write(s, "a\tb\n", 4);
	rd("expanded tab", m, 100);
	t = cooked;
	t.c_lflag &= ~ECHO;
	tcsetattr(s, TCSANOW, &t);
	type("secret\n");
	rd("without echo", s, 100);
	rd("nothing echoed", m, 100);
	t.c_lflag |= ECHONL;
	tcsetattr(s, TCSANOW, &t);
	type("x\n");
	rd("echonl", m, 100);
	t = cooked;
	t.c_lflag &= ~(ECHOE | ECHOKE | ECHOCTL);
	tcsetattr(s, TCSAFLUSH, &t);
	type("ab\x7f\x15z\x01\n");
	rd("other echo flags", m, 100);
	rd("line", s, 100);
	t = cooked;
	t.c_iflag = IGNCR | INLCR | ISTRIP;
	tcsetattr(s, TCSANOW, &t);
	type("a\r\xe1\nb");
	t.c_iflag = ICRNL;
	tcsetattr(s, TCSANOW, &t);
	type("\r");
	rd("input flags", s, 100);
	rd("echo", m, 100);
	t = cooked;
	t.c_cc[VEOL] = ';';
	tcsetattr(s, TCSANOW, &t);
	type("a;b\n");
	rd("eol", s, 100);
	rd("eol", s, 100);
	rd("echo", m, 100);
	// Raw mode.
	raw = cooked;
	cfmakeraw(&raw);
	CALL(tcsetattr(s, TCSANOW, &raw));
	type("a\r\n\x03\x7f");
	rd("raw", s, 100);
	rd("no echo", m, 100);
	rd("nothing", s, 100);
	raw.c_cc[VMIN] = 3;
	tcsetattr(s, TCSANOW, &raw);
	type("ab");
	flags(s);
	type("c");
	flags(s);
	rd("vmin 3", s, 100);
	raw.c_cc[VMIN] = 0;
	tcsetattr(s, TCSANOW, &raw);
	rd("vmin 0", s, 100);
	fcntl(s, F_SETFL, 0);
	raw.c_cc[VTIME] = 2;
	tcsetattr(s, TCSANOW, &raw);
	double begin = now();
	CALL(read(s, buf, 10));
	TRUE(now() - begin > 0.15 && now() - begin < 1);
	raw.c_cc[VMIN] = 5, raw.c_cc[VTIME] = 1;
	tcsetattr(s, TCSANOW, &raw);
	type("xy");
	begin = now();
	CALL(read(s, buf, 10));
	TRUE(now() - begin > 0.05 && now() - begin < 1);
	raw.c_cc[VMIN] = 1, raw.c_cc[VTIME] = 0;
	tcsetattr(s, TCSANOW, &raw);
	type("typed raw");
	tcsetattr(s, TCSANOW, &cooked);
	fcntl(s, F_SETFL, O_NONBLOCK);
	rd("then canonical", s, 100);
	// Flushing.
	type("xyz\n");
	CALL(tcflush(s, TCIFLUSH));
	rd("flushed input", s, 100);
	rd("echo stays", m, 100);
	write(s, "out", 3);
	usleep(20000);
	CALL(tcflush(s, TCOFLUSH));
	rd("output has arrived already", m, 100);
	CALL(tcflush(s, 7));
	CALL(tcdrain(s));
	CALL(tcsendbreak(s, 0));
	CALL(ioctl(s, TIOCOUTQ, &n));
	printf("TIOCOUTQ %d\n", n);
	// Flow control.
	type("\x13");
	CALL(write(s, "held", 4));
	flags(s);
	type("\x11");
	CALL(write(s, "held", 4));
	rd("after start", m, 100);
	CALL(tcflow(s, TCOOFF));
	CALL(write(s, "x", 1));
	CALL(tcflow(s, TCOON));
	CALL(tcflow(s, TCIOFF));
	rd("stop character", m, 10);
	CALL(tcflow(s, TCION));
	rd("start character", m, 10);
	// Window size.
	CALL(ioctl(s, TIOCGWINSZ, &w));
	printf("%d %d\n", w.ws_row, w.ws_col);
	w = (struct winsize){24, 80, 1, 2};
	CALL(ioctl(m, TIOCSWINSZ, &w));
	w = (struct winsize){0};
	CALL(ioctl(s, TIOCGWINSZ, &w));
	printf("%d %d %d %d\n", w.ws_row, w.ws_col, w.ws_xpixel, w.ws_ypixel);
	signals("no controlling terminal, no signal");
	// Controlling terminal.
	CALL(ioctl(s, TIOCGPGRP, &n));
	CALL(open("/dev/tty", O_RDWR));
	type("\x03");
	signals("nobody to interrupt");
	rd("echo", m, 100);
	CALL(ioctl(s, TIOCSCTTY, 0));
	CALL(ioctl(s, TIOCSCTTY, 0));
	CALL(tcgetpgrp(s) == getpgrp());
	CALL(tcgetsid(s) == getsid(0));
	CALL(ioctl(m, TIOCGPGRP, &n));
	TRUE(n == getpgrp());
	int tty = open("/dev/tty", O_RDWR | O_NONBLOCK);
	TRUE(tty >= 0);
	write(tty, "via tty", 7);
	rd("via /dev/tty", m, 100);
	CALL(tcsetpgrp(s, 999999));
	CALL(tcsetpgrp(s, -1));
	CALL(tcsetpgrp(s, getpgrp()));
	rd("echo so far", m, 100);
	type("typed");
	type("\x03");
	signals("interrupt");
	rd("what was typed is gone", s, 100);
	rd("echo", m, 100);
	type("\x1c");
	signals("quit");
	type("\x1a");
	signals("suspend");
	rd("echo", m, 100);
	t = cooked;
	t.c_lflag |= NOFLSH;
	tcsetattr(s, TCSANOW, &t);
	type("kept\x03\n");
	signals("interrupt");
	rd("noflsh", s, 100);
	rd("echo", m, 100);
	t.c_lflag &= ~ISIG;
	tcsetattr(s, TCSANOW, &t);
	type("a\x03\n");
	signals("without isig");
	rd("line", s, 100);
	tcsetattr(s, TCSANOW, &cooked);
	rd("echo", m, 100);
	w.ws_row = 50;
	CALL(ioctl(s, TIOCSWINSZ, &w));
	signals("window size");
	CALL(ioctl(s, TIOCSWINSZ, &w));
	signals("the same window size");
	CALL(ioctl(m, 0x40045436, SIGUSR1));
	CALL(ioctl(m, 0x40045436, SIGQUIT));
	signals("TIOCSIG");
	// Packet mode.
	n = 1;
	CALL(ioctl(m, TIOCPKT, &n));
	write(s, "data", 4);
	rd("packet", m, 100);
	tcflush(s, TCIOFLUSH);
	flags(m);
	rd("packet", m, 100);
	tcflow(s, TCOOFF);
	rd("packet", m, 100);
	tcflow(s, TCOON);
	rd("packet", m, 100);
	t = cooked;
	t.c_iflag &= ~IXON;
	tcsetattr(s, TCSANOW, &t);
	rd("packet", m, 100);
	tcsetattr(s, TCSANOW, &cooked);
	rd("packet", m, 100);
	n = 0;
	CALL(ioctl(m, TIOCPKT, &n));
	CALL(ioctl(s, TIOCPKT, &n));
	// Long input, much output.
	tcsetattr(s, TCSANOW, &raw);
	memset(buf, 'o', sizeof buf);
	int total = 0, k;
	while ((k = write(s, buf, 1000)) > 0 && total < 1000000)
		total += k;
	printf("%d %s\n", k, strerrorname_np(errno));
	TRUE(total > 4000 && total < 1000000);
	flags(s);
	while ((k = read(m, buf, sizeof buf)) > 0 || (usleep(5000), k = read(m, buf, sizeof buf)) > 0)
		total -= k;
	printf("%d\n", total);
	tcsetattr(s, TCSANOW, &cooked);
	memset(buf, 'i', 4000);
	buf[4000] = '\n';
	struct pollfd p = {m, POLLOUT};
	for (total = 0; total < 4001 && poll(&p, 1, 100) > 0 && (k = write(m, buf + total, 4001 - total)) > 0;) {
		total += k;
		usleep(10000);
	}
	usleep(20000);
	CALL(read(s, buf, sizeof buf));
	tcflush(m, TCIOFLUSH);
	// The other end by TIOCGPTPEER; exclusive use.
	int peer = ioctl(m, 0x5441, O_RDWR | O_NOCTTY);
	TRUE(peer >= 0);
	CALL(ttyname_r(peer, other, sizeof other));
	TRUE(!strcmp(other, name));
	close(peer);
	// Hanging up.
	close(tty);
	close(s);
	flags(m);
	while (read(m, buf, sizeof buf) > 0)
		;
	rd("slave closed", m, 10);
	s = open(name, O_RDWR | O_NOCTTY | O_NONBLOCK);
	rd("open again", m, 10);
	flags(m);
	CALL(ioctl(s, TIOCNOTTY));
	signals("terminal given up");
	CALL(ioctl(s, TIOCNOTTY));
	CALL(ioctl(s, TIOCSCTTY, 0));
	close(m);
	signals("hang-up");
	flags(s);
	CALL(read(s, buf, 10));
	CALL(write(s, "x", 1));
	CALL(tcgetattr(s, &t));
	CALL(ioctl(s, TIOCGWINSZ, &w));
	CALL(open(name, O_RDWR | O_NOCTTY));
	CALL(open("/dev/tty", O_RDWR));
	close(s);
	return 0;
}
