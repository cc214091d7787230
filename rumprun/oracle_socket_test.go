package rumprun

import (
	"encoding/binary"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/nabla-build/nabla-build/rumprun/socket"
)

// settle lets packets of both kernels arrive.
func settle() { time.Sleep(20 * time.Millisecond) }

const nosignal = unix.MSG_NOSIGNAL

// inetAddr is a sockaddr_in.
func inetAddr(a, b, c, d byte, port uint16) []byte {
	x := make([]byte, 16)
	binary.LittleEndian.PutUint16(x, unix.AF_INET)
	binary.BigEndian.PutUint16(x[2:], port)
	copy(x[4:], []byte{a, b, c, d})
	return x
}

// name returns the addresses of a socket in both, which only their ports tell
// apart.
func (b *both) name(nr uintptr, f fdArg) [2][]byte {
	b.t.Helper()
	n := binary.LittleEndian.AppendUint32(nil, 128)
	b.call(nr, f, outRaw(128), n)
	var out [2][]byte
	for k := range out {
		out[k] = append([]byte(nil), b.outs[k][0][:binary.LittleEndian.Uint32(b.outs[k][1])]...)
	}
	if len(out[0]) != len(out[1]) {
		b.t.Fatalf("addresses %x, want %x", out[1], out[0])
	}
	for i := range out[0] {
		if i != 2 && i != 3 && out[0][i] != out[1][i] {
			b.t.Errorf("address %x, want %x", out[1], out[0])
			break
		}
	}
	return out
}

// option compares an option's value.
func (b *both) option(f fdArg, level, name, size int) {
	b.t.Helper()
	b.call(unix.SYS_GETSOCKOPT, f, level, name, outBuf(size), binary.LittleEndian.AppendUint32(nil, uint32(size)))
}

func (b *both) setInt(f fdArg, level, name, v int) {
	b.t.Helper()
	b.call(unix.SYS_SETSOCKOPT, f, level, name, binary.LittleEndian.AppendUint32(nil, uint32(v)), 4)
}

func (b *both) listener(family, typ int, addr any, n int) (fdArg, [2][]byte) {
	b.t.Helper()
	l := b.newFD(unix.SYS_SOCKET, family, typ|unix.SOCK_NONBLOCK, 0)
	b.call(unix.SYS_BIND, l, addr, n)
	b.call(unix.SYS_LISTEN, l, 5)
	return l, b.name(unix.SYS_GETSOCKNAME, l)
}

func (b *both) send(f fdArg, s string, flags int) {
	b.t.Helper()
	b.call(unix.SYS_SENDTO, f, []byte(s), len(s), flags|nosignal, 0, 0)
}

func (b *both) recv(f fdArg, n, flags int) {
	b.t.Helper()
	b.call(unix.SYS_RECVFROM, f, outBuf(n), n, flags|unix.MSG_DONTWAIT, 0, 0)
}

// streamSteps drives a connection of any family: addr is where l listens.
func streamSteps(t *testing.T, b *both, l fdArg, addr [2][]byte, family, typ int) {
	n := len(addr[0])
	b.ready("listening", l)
	b.option(l, unix.SOL_SOCKET, unix.SO_ACCEPTCONN, 4)
	b.call(unix.SYS_ACCEPT4, l, 0, 0, 0)
	b.recv(l, 10, 0)
	b.send(l, "x", 0)
	b.call(unix.SYS_CONNECT, l, addr, n)
	c := b.newFD(unix.SYS_SOCKET, family, typ|unix.SOCK_NONBLOCK, 0)
	b.ready("new", c)
	b.recv(c, 10, 0)
	b.send(c, "x", 0)
	b.call(unix.SYS_GETPEERNAME, c, outRaw(128), binary.LittleEndian.AppendUint32(nil, 128))
	b.call(unix.SYS_ACCEPT4, c, 0, 0, 0)
	b.call(unix.SYS_CONNECT, c, addr, n)
	settle()
	b.ready("connected", c, l)
	b.option(c, unix.SOL_SOCKET, unix.SO_ERROR, 4)
	if family != unix.AF_UNIX {
		b.call(unix.SYS_CONNECT, c, addr, n)
	}
	b.call(unix.SYS_CONNECT, c, addr, n)
	b.call(unix.SYS_LISTEN, c, 1)
	s := b.newFD(unix.SYS_ACCEPT4, l, outRaw(128), binary.LittleEndian.AppendUint32(nil, 128), unix.SOCK_NONBLOCK)
	b.call(unix.SYS_ACCEPT4, l, 0, 0, 0)
	b.ready("accepted", c, s, l)
	b.call(unix.SYS_FCNTL, s, unix.F_GETFL)
	b.name(unix.SYS_GETSOCKNAME, s)
	b.name(unix.SYS_GETPEERNAME, s)
	b.name(unix.SYS_GETPEERNAME, c)

	b.recv(s, 10, 0)
	b.send(c, "hello world", 0)
	settle()
	b.ready("data", c, s)
	b.call(unix.SYS_IOCTL, s, unix.TIOCINQ, outBuf(4))
	b.recv(s, 5, unix.MSG_PEEK)
	b.recv(s, 5, unix.MSG_PEEK|unix.MSG_TRUNC)
	b.recv(s, 5, 0)
	b.call(unix.SYS_READ, s, outBuf(100), 100)
	b.call(unix.SYS_READ, s, outBuf(100), 100)
	b.call(unix.SYS_WRITEV, s, vec{"one ", "two ", "", "three"}, 4)
	settle()
	b.call(unix.SYS_READV, c, vec{3, 0, 200}, 3)
	b.call(unix.SYS_WRITE, c, []byte(""), 0)
	b.call(unix.SYS_LSEEK, c, 0, 0)
	b.call(unix.SYS_PREAD64, c, outBuf(1), 1, 0)
	b.call(unix.SYS_FSYNC, c)
	b.call(unix.SYS_FTRUNCATE, c, 0)
	b.recv(s, 1, unix.MSG_OOB)
	b.recv(s, 10, unix.MSG_ERRQUEUE)

	// Half closed: c says that it has no more.
	b.send(c, "last", 0)
	b.call(unix.SYS_SHUTDOWN, c, 7)
	b.call(unix.SYS_SHUTDOWN, c, unix.SHUT_WR)
	settle()
	b.ready("half closed", c, s)
	b.send(c, "x", 0)
	b.recv(s, 100, 0)
	b.recv(s, 100, 0)
	b.send(s, "answer", 0)
	settle()
	b.recv(c, 100, 0)
	b.ready("half closed, drained", c, s)
	b.close(s)
	settle()
	b.ready("closed by both", c)
	b.recv(c, 100, 0)
	b.send(c, "x", 0)
	b.close(c)

	// The other end goes with data unread: reset.
	c = b.newFD(unix.SYS_SOCKET, family, typ|unix.SOCK_NONBLOCK, 0)
	b.call(unix.SYS_CONNECT, c, addr, n)
	settle()
	s = b.newFD(unix.SYS_ACCEPT4, l, 0, 0, unix.SOCK_NONBLOCK)
	b.send(c, "never read", 0)
	settle()
	b.close(s)
	settle()
	b.ready("reset", c)
	b.recv(c, 100, 0)
	b.ready("reset, seen", c)
	b.recv(c, 100, 0)
	b.send(c, "x", 0)
	b.send(c, "x", 0)
	b.close(c)

	// Shut for reading.
	c = b.newFD(unix.SYS_SOCKET, family, typ|unix.SOCK_NONBLOCK, 0)
	b.call(unix.SYS_CONNECT, c, addr, n)
	settle()
	s = b.newFD(unix.SYS_ACCEPT4, l, 0, 0, unix.SOCK_NONBLOCK)
	b.call(unix.SYS_SHUTDOWN, s, unix.SHUT_RD)
	b.ready("shut for reading", c, s)
	b.recv(s, 10, 0)
	b.call(unix.SYS_SHUTDOWN, s, unix.SHUT_RDWR)
	settle()
	b.ready("shut", c, s)
	b.recv(c, 10, 0)
	b.close(s)
	b.close(c)

	// A listener that goes refuses.
	b.close(l)
	c = b.newFD(unix.SYS_SOCKET, family, typ|unix.SOCK_NONBLOCK, 0)
	if family == unix.AF_UNIX {
		b.call(unix.SYS_CONNECT, c, addr, n)
		b.ready("refused", c)
		return
	}
	b.call(unix.SYS_CONNECT, c, addr, n)
	settle()
	b.ready("refused", c)
	b.option(c, unix.SOL_SOCKET, unix.SO_ERROR, 4)
	b.option(c, unix.SOL_SOCKET, unix.SO_ERROR, 4)
	b.ready("refused, seen", c)
	b.call(unix.SYS_CONNECT, c, addr, n)
}

func TestTCPAgainstKernel(t *testing.T) {
	b := newBoth(t)
	l, addr := b.listener(unix.AF_INET, unix.SOCK_STREAM, inetAddr(127, 0, 0, 1, 0), 16)
	b.call(unix.SYS_BIND, l, addr, 16)
	shut := b.newFD(unix.SYS_SOCKET, unix.AF_INET, unix.SOCK_STREAM, 0)
	b.call(unix.SYS_SHUTDOWN, shut, unix.SHUT_RD)
	b.ready("shut before it is connected", shut)
	two := b.newFD(unix.SYS_SOCKET, unix.AF_INET, unix.SOCK_STREAM, 0)
	b.call(unix.SYS_BIND, two, addr, 16)
	b.call(unix.SYS_BIND, two, inetAddr(192, 0, 2, 1, 0), 16)
	b.call(unix.SYS_BIND, two, inetAddr(127, 0, 0, 1, 0), 15)
	b.call(unix.SYS_BIND, two, append([]byte{99, 0}, inetAddr(127, 0, 0, 1, 0)[2:]...), 16)
	b.call(unix.SYS_BIND, two, socket.PutUnix("x"), 4)
	b.call(unix.SYS_CONNECT, two, inetAddr(127, 0, 0, 1, 1), 8)
	b.call(unix.SYS_CONNECT, two, append([]byte{99, 0}, inetAddr(127, 0, 0, 1, 0)[2:]...), 16)
	b.name(unix.SYS_GETSOCKNAME, two)
	streamSteps(t, b, l, addr, unix.AF_INET, unix.SOCK_STREAM)
}

func TestTCP6AgainstKernel(t *testing.T) {
	b := newBoth(t)
	lo := make([]byte, 28)
	lo[0], lo[23] = unix.AF_INET6, 1
	l, addr := b.listener(unix.AF_INET6, unix.SOCK_STREAM, lo, 28)
	streamSteps(t, b, l, addr, unix.AF_INET6, unix.SOCK_STREAM)

	// Dual stack: an IPv4 client of an IPv6 listener on all addresses.
	lo[23] = 0
	l, addr = b.listener(unix.AF_INET6, unix.SOCK_STREAM, lo, 28)
	four := [2][]byte{inetAddr(127, 0, 0, 1, binary.BigEndian.Uint16(addr[0][2:])), inetAddr(127, 0, 0, 1, binary.BigEndian.Uint16(addr[1][2:]))}
	c := b.newFD(unix.SYS_SOCKET, unix.AF_INET, unix.SOCK_STREAM|unix.SOCK_NONBLOCK, 0)
	b.call(unix.SYS_BIND, c, inetAddr(0, 0, 0, 0, 0), 16)
	b.call(unix.SYS_CONNECT, c, four, 16)
	settle()
	s := b.newFD(unix.SYS_ACCEPT4, l, 0, 0, unix.SOCK_NONBLOCK)
	b.name(unix.SYS_GETSOCKNAME, s)
	b.name(unix.SYS_GETPEERNAME, s)
	b.name(unix.SYS_GETPEERNAME, c)
	// And to the unspecified address.
	for _, to := range [][2][]byte{addr, {inetAddr(0, 0, 0, 0, binary.BigEndian.Uint16(addr[0][2:])), inetAddr(0, 0, 0, 0, binary.BigEndian.Uint16(addr[1][2:]))}} {
		fam := int(to[0][0])
		c := b.newFD(unix.SYS_SOCKET, fam, unix.SOCK_STREAM|unix.SOCK_NONBLOCK, 0)
		b.call(unix.SYS_CONNECT, c, to, len(to[0]))
		settle()
		b.name(unix.SYS_GETPEERNAME, c)
	}
	// Only IPv6.
	six := b.newFD(unix.SYS_SOCKET, unix.AF_INET6, unix.SOCK_STREAM|unix.SOCK_NONBLOCK, 0)
	b.setInt(six, unix.IPPROTO_IPV6, unix.IPV6_V6ONLY, 1)
	b.call(unix.SYS_BIND, six, lo, 28)
	b.call(unix.SYS_CONNECT, six, four, 16)
}

func TestUnixStreamAgainstKernel(t *testing.T) {
	for _, typ := range []int{unix.SOCK_STREAM, unix.SOCK_SEQPACKET} {
		b := newBoth(t)
		a := socket.PutUnix("sock")
		l, addr := b.listener(unix.AF_UNIX, typ, a, len(a))
		two := b.newFD(unix.SYS_SOCKET, unix.AF_UNIX, typ, 0)
		b.call(unix.SYS_LISTEN, two, 1)
		b.call(unix.SYS_BIND, two, a, len(a))
		b.call(unix.SYS_BIND, l, a, len(a))
		b.call(unix.SYS_BIND, two, []byte{unix.AF_INET, 0, 'x'}, 3)
		b.call(unix.SYS_CONNECT, two, []byte{unix.AF_UNIX, 0}, 2)
		none := socket.PutUnix("none")
		b.call(unix.SYS_CONNECT, two, none, len(none))
		b.open("plain", unix.O_CREAT|unix.O_RDWR, 0o644)
		plain := socket.PutUnix("plain")
		b.call(unix.SYS_CONNECT, two, plain, len(plain))
		dgram := b.newFD(unix.SYS_SOCKET, unix.AF_UNIX, unix.SOCK_DGRAM, 0)
		b.call(unix.SYS_CONNECT, dgram, a, len(a))
		b.call(unix.SYS_OPENAT, atCWD, "sock", unix.O_RDWR, 0)
		b.name(unix.SYS_GETSOCKNAME, two)
		streamSteps(t, b, l, addr, unix.AF_UNIX, typ)
	}
}

func TestUnixPairsAgainstKernel(t *testing.T) {
	for _, typ := range []int{unix.SOCK_STREAM, unix.SOCK_DGRAM, unix.SOCK_SEQPACKET} {
		b := newBoth(t)
		x, y := b.pair4(typ)
		b.ready("new", x, y)
		b.name(unix.SYS_GETSOCKNAME, x)
		b.name(unix.SYS_GETPEERNAME, x)
		b.send(x, "one", 0)
		b.send(x, "two", 0)
		b.send(x, "", 0)
		b.ready("data", x, y)
		b.call(unix.SYS_IOCTL, y, unix.TIOCINQ, outBuf(4))
		b.recv(y, 2, unix.MSG_PEEK)
		b.recv(y, 2, 0)
		b.recv(y, 100, unix.MSG_TRUNC)
		b.recv(y, 100, 0)
		b.recv(y, 100, 0)
		if typ != unix.SOCK_STREAM { // of a stream the kernel takes what its pages hold
			b.send(y, string(make([]byte, 300000)), 0)
		}
		b.call(unix.SYS_SENDTO, x, []byte("x"), 1, nosignal, socket.PutUnix("none"), 7)
		for _, o := range []int{unix.SO_TYPE, unix.SO_DOMAIN, unix.SO_PROTOCOL, unix.SO_ERROR, unix.SO_SNDBUF, unix.SO_RCVBUF, unix.SO_PASSCRED, unix.SO_LINGER, unix.SO_REUSEADDR, unix.SO_KEEPALIVE, unix.SO_ACCEPTCONN, 999} {
			b.option(x, unix.SOL_SOCKET, o, 8)
		}
		b.option(x, unix.IPPROTO_TCP, unix.TCP_NODELAY, 4)
		b.setInt(x, unix.IPPROTO_TCP, unix.TCP_NODELAY, 1)
		b.setInt(x, unix.SOL_SOCKET, unix.SO_SNDBUF, 10000)
		b.option(x, unix.SOL_SOCKET, unix.SO_SNDBUF, 4)
		b.call(unix.SYS_LISTEN, x, 1)
		b.call(unix.SYS_ACCEPT4, x, 0, 0, 0)
		b.call(unix.SYS_SHUTDOWN, x, unix.SHUT_WR)
		b.ready("half closed", x, y)
		b.send(x, "x", 0)
		b.send(y, "y", 0)
		b.close(y)
		b.ready("alone", x)
		b.recv(x, 300000, 0)
		b.send(x, "x", 0)
		b.recv(x, 100, 0)
		b.ready("alone, drained", x)
	}
}

// pair4 makes a pair of non-blocking AF_UNIX sockets.
func (b *both) pair4(typ int) (fdArg, fdArg) {
	b.t.Helper()
	return b.pair2(unix.SYS_SOCKETPAIR, unix.AF_UNIX, typ|unix.SOCK_NONBLOCK, 0, outRaw(8))
}

func (b *both) pair2(nr uintptr, args ...any) (fdArg, fdArg) {
	b.t.Helper()
	return b.pair(nr, args...)
}

func TestUnixDatagramsAgainstKernel(t *testing.T) {
	b := newBoth(t)
	mk := func(name string) fdArg {
		t.Helper()
		f := b.newFD(unix.SYS_SOCKET, unix.AF_UNIX, unix.SOCK_DGRAM|unix.SOCK_NONBLOCK, 0)
		if name != "" {
			a := socket.PutUnix(name)
			b.call(unix.SYS_BIND, f, a, len(a))
		}
		return f
	}
	s, c, d := mk("\x00oracle-server"), mk("c"), mk("")
	to := socket.PutUnix("\x00oracle-server")
	b.ready("new", s, c, d)
	sendTo := func(f fdArg, x string, a []byte) {
		t.Helper()
		b.call(unix.SYS_SENDTO, f, []byte(x), len(x), nosignal, a, len(a))
	}
	sendTo(c, "from c", to)
	sendTo(d, "from d", to)
	for range 2 {
		b.call(unix.SYS_RECVFROM, s, outBuf(100), 100, 0, outBuf(20), binary.LittleEndian.AppendUint32(nil, 20))
	}
	b.send(c, "no address", 0)
	b.call(unix.SYS_CONNECT, c, to, len(to))
	b.send(c, "connected", 0)
	b.recv(s, 4, 0)
	sendTo(s, "to c", socket.PutUnix("c"))
	b.recv(c, 100, 0)
	sendTo(d, "not for you", socket.PutUnix("c"))
	sendTo(d, "nobody", socket.PutUnix("\x00nobody"))
	for range 15 {
		b.send(c, "fill", 0)
	}
	b.ready("full", c, s)
	b.recv(s, 100, 0)
	b.ready("room again", c, s)
	b.close(s)
	b.ready("server gone", c)
	b.send(c, "x", 0)
	b.send(c, "x", 0)
	b.call(unix.SYS_CONNECT, c, []byte{0, 0}, 2)
	b.name(unix.SYS_GETSOCKNAME, c)
}

func TestUDPAgainstKernel(t *testing.T) {
	b := newBoth(t)
	mk := func() (fdArg, [2][]byte) {
		t.Helper()
		f := b.newFD(unix.SYS_SOCKET, unix.AF_INET, unix.SOCK_DGRAM|unix.SOCK_NONBLOCK, 0)
		b.call(unix.SYS_BIND, f, inetAddr(127, 0, 0, 1, 0), 16)
		return f, b.name(unix.SYS_GETSOCKNAME, f)
	}
	s, sa := mk()
	c, _ := mk()
	b.ready("new", s, c)
	b.recv(s, 10, 0)
	b.send(c, "no address", 0)
	b.call(unix.SYS_SENDTO, c, []byte("hello"), 5, 0, sa, 16)
	b.call(unix.SYS_SENDTO, c, []byte(""), 0, 0, sa, 16)
	b.call(unix.SYS_SENDTO, c, make([]byte, 65507), 65507, 0, sa, 16)
	b.call(unix.SYS_SENDTO, c, make([]byte, 65508), 65508, 0, sa, 16)
	b.call(unix.SYS_SENDTO, c, []byte("x"), 1, 0, inetAddr(127, 0, 0, 1, 0), 16)
	b.call(unix.SYS_SENDTO, c, []byte("x"), 1, 0, inetAddr(127, 0, 0, 1, 9), 15)
	b.call(unix.SYS_SENDTO, c, []byte("x"), 1, 0, inetAddr(255, 255, 255, 255, 9), 16)
	settle()
	b.ready("data", s, c)
	b.call(unix.SYS_IOCTL, s, unix.TIOCINQ, outBuf(4))
	b.recv(s, 3, unix.MSG_PEEK)
	b.recv(s, 3, unix.MSG_TRUNC)
	b.recv(s, 3, 0)
	b.recv(s, 70000, 0)
	b.recv(s, 3, 0)
	b.call(unix.SYS_CONNECT, c, sa, 16)
	b.send(c, "more", unix.MSG_MORE)
	b.send(c, " and more", 0)
	b.call(unix.SYS_WRITEV, c, vec{"a", "b"}, 2)
	settle()
	b.recv(s, 100, 0)
	b.recv(s, 100, 0)
	b.name(unix.SYS_GETPEERNAME, c)
	b.call(unix.SYS_LISTEN, c, 1)
	b.call(unix.SYS_ACCEPT4, c, 0, 0, 0)
	b.close(s)
	b.send(c, "refused", 0)
	settle()
	b.ready("refused", c)
	b.option(c, unix.SOL_SOCKET, unix.SO_ERROR, 4)
	b.send(c, "refused", 0)
	settle()
	b.recv(c, 10, 0)
	b.recv(c, 10, 0)
	b.ready("quiet", c)
	b.call(unix.SYS_CONNECT, c, []byte{0, 0}, 2)
	b.send(c, "no address", 0)
	b.call(unix.SYS_SHUTDOWN, c, unix.SHUT_RDWR)
	s, sa = mk()
	b.call(unix.SYS_CONNECT, c, sa, 16)
	b.call(unix.SYS_SHUTDOWN, c, unix.SHUT_RD)
	b.ready("shut for reading", c)
	b.recv(c, 10, 0)
	b.call(unix.SYS_SHUTDOWN, c, unix.SHUT_WR)
	b.ready("shut", c)
	b.send(c, "x", 0)
}

func TestSocketErrorsAgainstKernel(t *testing.T) {
	b := newBoth(t)
	for _, a := range [][3]int{
		{99, unix.SOCK_STREAM, 0}, {unix.AF_INET, 99, 0}, {unix.AF_INET, unix.SOCK_STREAM, unix.IPPROTO_UDP}, {unix.AF_INET, unix.SOCK_DGRAM, unix.IPPROTO_TCP},
		{unix.AF_INET, unix.SOCK_RAW, 0}, {unix.AF_UNIX, 99, 0}, {unix.AF_UNIX, unix.SOCK_STREAM, 99}, {unix.AF_INET, unix.SOCK_STREAM | 0x100, 0},
		{unix.AF_INET, unix.SOCK_SEQPACKET, 0}, {unix.AF_INET, 9, 0}, {unix.AF_INET, unix.SOCK_STREAM, -1}, {unix.AF_INET, unix.SOCK_STREAM, 1000},
	} {
		b.call(unix.SYS_SOCKET, a[0], a[1], a[2])
		b.call(unix.SYS_SOCKETPAIR, a[0], a[1], a[2], outRaw(8))
	}
	f := b.open("f", unix.O_RDWR|unix.O_CREAT, 0o644)
	for _, nr := range []uintptr{unix.SYS_LISTEN, unix.SYS_BIND, unix.SYS_CONNECT, unix.SYS_SHUTDOWN, unix.SYS_GETSOCKNAME, unix.SYS_GETPEERNAME, unix.SYS_SENDTO, unix.SYS_RECVFROM, unix.SYS_SENDMSG, unix.SYS_RECVMSG, unix.SYS_GETSOCKOPT, unix.SYS_SETSOCKOPT} {
		b.call(nr, f, 0, 0, 0, 0, 0)
		b.call(nr, 999, 0, 0, 0, 0, 0)
	}
	s := b.newFD(unix.SYS_SOCKET, unix.AF_INET, unix.SOCK_STREAM|unix.SOCK_NONBLOCK, 0)
	b.call(unix.SYS_BIND, s, 1<<20, 16)
	b.call(unix.SYS_BIND, s, inetAddr(0, 0, 0, 0, 0), -1)
	b.call(unix.SYS_BIND, s, inetAddr(0, 0, 0, 0, 0), 200)
	b.call(unix.SYS_CONNECT, s, inetAddr(0, 0, 0, 0, 0), 1)
	b.call(unix.SYS_GETSOCKNAME, s, outRaw(16), 1<<20)
	b.call(unix.SYS_GETSOCKNAME, s, 1<<20, le64(16))
	b.call(unix.SYS_GETSOCKNAME, s, outBuf(16), binary.LittleEndian.AppendUint32(nil, 4))
	b.call(unix.SYS_GETSOCKNAME, s, outBuf(16), binary.LittleEndian.AppendUint32(nil, 0xffffffff))
	b.call(unix.SYS_ACCEPT4, s, 0, 0, 1)
	b.call(unix.SYS_ACCEPT4, s, 0, 0, 0)
}

func TestSocketOptionsAgainstKernel(t *testing.T) {
	b := newBoth(t)
	tcp := b.newFD(unix.SYS_SOCKET, unix.AF_INET, unix.SOCK_STREAM|unix.SOCK_NONBLOCK, 0)
	udp := b.newFD(unix.SYS_SOCKET, unix.AF_INET, unix.SOCK_DGRAM|unix.SOCK_NONBLOCK, 0)
	tcp6 := b.newFD(unix.SYS_SOCKET, unix.AF_INET6, unix.SOCK_STREAM|unix.SOCK_NONBLOCK, 0)
	type opt struct{ level, name int }
	bools := []opt{
		{unix.SOL_SOCKET, unix.SO_REUSEADDR}, {unix.SOL_SOCKET, unix.SO_REUSEPORT}, {unix.SOL_SOCKET, unix.SO_KEEPALIVE}, {unix.SOL_SOCKET, unix.SO_BROADCAST},
		{unix.SOL_SOCKET, unix.SO_OOBINLINE}, {unix.SOL_SOCKET, unix.SO_TIMESTAMP}, {unix.SOL_SOCKET, unix.SO_DONTROUTE},
		{unix.IPPROTO_TCP, unix.TCP_NODELAY}, {unix.IPPROTO_TCP, unix.TCP_CORK}, {unix.IPPROTO_IP, unix.IP_MULTICAST_LOOP}, {unix.IPPROTO_IP, unix.IP_PKTINFO},
		{unix.IPPROTO_IP, unix.IP_RECVTOS}, {unix.IPPROTO_IP, unix.IP_RECVTTL}, {unix.IPPROTO_IP, unix.IP_RECVERR}, {unix.IPPROTO_IPV6, unix.IPV6_V6ONLY},
		{unix.IPPROTO_IPV6, unix.IPV6_RECVPKTINFO}, {unix.IPPROTO_IPV6, unix.IPV6_MULTICAST_LOOP}, {unix.IPPROTO_IP, unix.IP_FREEBIND},
		{unix.IPPROTO_IP, unix.IP_BIND_ADDRESS_NO_PORT},
	}
	ints := []opt{
		{unix.SOL_SOCKET, unix.SO_PRIORITY}, {unix.IPPROTO_TCP, unix.TCP_KEEPIDLE}, {unix.IPPROTO_TCP, unix.TCP_KEEPINTVL}, {unix.IPPROTO_TCP, unix.TCP_KEEPCNT},
		{unix.IPPROTO_TCP, unix.TCP_USER_TIMEOUT}, {unix.IPPROTO_TCP, unix.TCP_SYNCNT}, {unix.IPPROTO_IP, unix.IP_TOS}, {unix.IPPROTO_IP, unix.IP_TTL},
		{unix.IPPROTO_IP, unix.IP_MULTICAST_TTL}, {unix.IPPROTO_IP, unix.IP_MTU_DISCOVER}, {unix.IPPROTO_IPV6, unix.IPV6_UNICAST_HOPS},
		{unix.IPPROTO_IPV6, unix.IPV6_MULTICAST_HOPS}, {unix.IPPROTO_IPV6, unix.IPV6_TCLASS},
	}
	for _, f := range []fdArg{tcp, udp, tcp6} {
		for _, o := range []int{unix.SO_TYPE, unix.SO_DOMAIN, unix.SO_PROTOCOL, unix.SO_ERROR, unix.SO_ACCEPTCONN, unix.SO_LINGER, unix.SO_BINDTODEVICE, unix.SO_RCVTIMEO, unix.SO_PEERCRED, 999} {
			b.option(f, unix.SOL_SOCKET, o, 16)
		}
		for _, o := range bools {
			b.option(f, o.level, o.name, 4)
			b.setInt(f, o.level, o.name, 1)
			b.option(f, o.level, o.name, 4)
			b.call(unix.SYS_SETSOCKOPT, f, o.level, o.name, []byte{0, 0, 0, 0}, 4)
			b.option(f, o.level, o.name, 4)
		}
		for _, o := range ints {
			b.option(f, o.level, o.name, 4)
			for _, v := range []int{1, 5, 64, 0, -1, -2, 256, 100000} {
				b.setInt(f, o.level, o.name, v)
				b.option(f, o.level, o.name, 4)
			}
		}
		for _, v := range []int{1, 5000, 100000, 0} {
			b.setInt(f, unix.SOL_SOCKET, unix.SO_SNDBUF, v)
			b.option(f, unix.SOL_SOCKET, unix.SO_SNDBUF, 4)
			b.setInt(f, unix.SOL_SOCKET, unix.SO_RCVBUF, v)
			b.option(f, unix.SOL_SOCKET, unix.SO_RCVBUF, 4)
		}
		b.call(unix.SYS_SETSOCKOPT, f, unix.SOL_SOCKET, unix.SO_LINGER, append(le64(1)[:4], le64(5)[:4]...), 8)
		b.option(f, unix.SOL_SOCKET, unix.SO_LINGER, 8)
		b.call(unix.SYS_SETSOCKOPT, f, unix.SOL_SOCKET, unix.SO_LINGER, le64(1), 4)
		b.call(unix.SYS_SETSOCKOPT, f, unix.SOL_SOCKET, unix.SO_RCVTIMEO, append(le64(2), le64(500000)...), 16)
		b.option(f, unix.SOL_SOCKET, unix.SO_RCVTIMEO, 16)
		b.call(unix.SYS_SETSOCKOPT, f, unix.SOL_SOCKET, unix.SO_RCVTIMEO, append(le64(2), le64(5000000)...), 16)
		b.call(unix.SYS_SETSOCKOPT, f, unix.SOL_SOCKET, unix.SO_REUSEADDR, le64(1), 3)
		b.call(unix.SYS_SETSOCKOPT, f, unix.SOL_SOCKET, unix.SO_REUSEADDR, 1<<20, 4)
		b.call(unix.SYS_SETSOCKOPT, f, unix.SOL_SOCKET, unix.SO_REUSEADDR, le64(1), -1)
		b.call(unix.SYS_SETSOCKOPT, f, unix.IPPROTO_TCP, unix.TCP_CONGESTION, []byte("nonesuch"), 8)
		b.call(unix.SYS_SETSOCKOPT, f, unix.IPPROTO_TCP, unix.TCP_CONGESTION, []byte("reno"), 4)
		b.call(unix.SYS_SETSOCKOPT, f, unix.SOL_SOCKET, unix.SO_BINDTODEVICE, []byte("lo"), 2)
		b.option(f, unix.SOL_SOCKET, unix.SO_BINDTODEVICE, 16)
		b.call(unix.SYS_SETSOCKOPT, f, unix.SOL_SOCKET, unix.SO_BINDTODEVICE, []byte("none0"), 5)
		b.setInt(f, 999, 1, 1)
		b.option(f, 999, 1, 4)
	}
}
