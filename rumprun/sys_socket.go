package rumprun

import (
	"encoding/binary"
	"time"

	"golang.org/x/sys/unix"

	"gvisor.dev/gvisor/pkg/waiter"

	"github.com/nabla-build/nabla-build/rumprun/socket"
	"github.com/nabla-build/nabla-build/rumprun/vfs"
)

// socketCalls make sockets and connections.
var socketCalls = []Call{
	{unix.SYS_SOCKET, "socket", sysSocket, Partial, "AF_INET, AF_INET6, AF_UNIX and AF_NETLINK (NETLINK_ROUTE, reading); others are EAFNOSUPPORT"},
	{unix.SYS_SOCKETPAIR, "socketpair", sysSocketpair, Full, ""},
	{unix.SYS_BIND, "bind", sysBind, Full, ""},
	{unix.SYS_LISTEN, "listen", sysListen, Full, ""},
	{unix.SYS_ACCEPT, "accept", sysAccept, Full, ""},
	{unix.SYS_ACCEPT4, "accept4", sysAccept4, Full, ""},
	{unix.SYS_CONNECT, "connect", sysConnect, Full, ""},
	{unix.SYS_GETSOCKNAME, "getsockname", sysGetsockname, Full, ""},
	{unix.SYS_GETPEERNAME, "getpeername", sysGetpeername, Full, ""},
	{unix.SYS_SHUTDOWN, "shutdown", sysShutdown, Full, ""},
	{unix.SYS_GETSOCKOPT, "getsockopt", sysGetsockopt, Partial, "options: see sockets.md; others are ENOPROTOOPT"},
	{unix.SYS_SETSOCKOPT, "setsockopt", sysSetsockopt, Partial, "options: see sockets.md; others are ENOPROTOOPT"},
}

// sockTypeFlags are the flags in socket(2)'s type.
const (
	sockTypeMask  = 0xf
	sockTypeFlags = unix.SOCK_NONBLOCK | unix.SOCK_CLOEXEC
)

// socket returns the socket of fd with a reference to its description, which
// the caller drops; ENOTSOCK for another file.
func (t *Task) socket(fd int) (socket.Socket, *Description, error) {
	d, err := t.p.fds.Get(fd)
	if err != nil {
		return nil, nil, err
	}
	if d.StatusFlags()&unix.O_PATH != 0 {
		d.DecRef()
		return nil, nil, unix.EBADF
	}
	s, ok := d.File.(socket.Socket)
	if !ok {
		d.DecRef()
		return nil, nil, unix.ENOTSOCK
	}
	return s, d, nil
}

// sysSocket is socket(2).
func sysSocket(t *Task, a Args) (uintptr, error) {
	family, typ, protocol := a.Int(0), a.Int(1), a.Int(2)
	if typ&^(sockTypeMask|sockTypeFlags) != 0 {
		return 0, unix.EINVAL
	}
	flags := uint32(typ & unix.SOCK_NONBLOCK)
	var f vfs.File
	var err error
	switch family {
	case unix.AF_INET, unix.AF_INET6:
		f, err = t.k.net.inet.NewSocket(family, typ&sockTypeMask, protocol, flags, t.p.uid() == 0)
	case unix.AF_UNIX:
		f, err = t.k.net.unix.NewSocket(t.Credentials(), typ&sockTypeMask, protocol, flags)
	case unix.AF_NETLINK:
		f, err = t.k.net.link.NewSocket(typ&sockTypeMask, protocol, flags)
	default:
		err = unix.EAFNOSUPPORT
	}
	if err != nil {
		return 0, err
	}
	return t.newFD(f, typ&unix.SOCK_CLOEXEC != 0)
}

// sysSocketpair is socketpair(2).
func sysSocketpair(t *Task, a Args) (uintptr, error) {
	family, typ, protocol := a.Int(0), a.Int(1), a.Int(2)
	if typ&^(sockTypeMask|sockTypeFlags) != 0 {
		return 0, unix.EINVAL
	}
	switch family {
	case unix.AF_UNIX:
	case unix.AF_INET, unix.AF_INET6:
		s, err := t.k.net.inet.NewSocket(family, typ&sockTypeMask, protocol, 0, t.p.uid() == 0)
		if err != nil {
			return 0, err
		}
		s.Release()
		return 0, unix.EOPNOTSUPP
	default:
		return 0, unix.EAFNOSUPPORT
	}
	x, y, err := t.k.net.unix.NewPair(t.Credentials(), typ&sockTypeMask, protocol, uint32(typ&unix.SOCK_NONBLOCK))
	if err != nil {
		return 0, err
	}
	return 0, t.newFDPair(x, y, typ&unix.SOCK_CLOEXEC != 0, a[3])
}

// addrArg copies a socket address in.
func (t *Task) addrArg(addr uintptr, n int) ([]byte, error) {
	if n < 0 || n > socket.MaxAddr {
		return nil, unix.EINVAL
	}
	b := make([]byte, n)
	return b, t.CopyIn(addr, b)
}

// putAddr copies a socket address out as far as the int at lenAddr says there
// is room, and stores its full length there. Null pointers want nothing.
func (t *Task) putAddr(addr, lenAddr uintptr, b []byte) error {
	if addr == 0 {
		return nil
	}
	n, err := copyIn[int32](t, lenAddr)
	if err != nil {
		return err
	}
	if n < 0 {
		return unix.EINVAL
	}
	if err := t.CopyOut(addr, b[:min(int(n), len(b))]); err != nil {
		return err
	}
	return copyOut(t, lenAddr, int32(len(b)))
}

// sysBind is bind(2).
func sysBind(t *Task, a Args) (uintptr, error) {
	s, d, err := t.socket(a.Int(0))
	if err != nil {
		return 0, err
	}
	defer d.DecRef()
	b, err := t.addrArg(a[1], a.Int(2))
	if err != nil {
		return 0, err
	}
	return 0, s.Bind(t, b)
}

// sysListen is listen(2). A negative backlog is the largest.
func sysListen(t *Task, a Args) (uintptr, error) {
	s, d, err := t.socket(a.Int(0))
	if err != nil {
		return 0, err
	}
	defer d.DecRef()
	const somaxconn = 4096
	return 0, s.Listen(int(min(uint32(a[1]), somaxconn)))
}

// sysAccept is accept(2).
func sysAccept(t *Task, a Args) (uintptr, error) {
	a[3] = 0
	return sysAccept4(t, a)
}

// sysAccept4 is accept4(2).
func sysAccept4(t *Task, a Args) (uintptr, error) {
	flags := a.Int(3)
	if flags&^sockTypeFlags != 0 {
		return 0, unix.EINVAL
	}
	s, d, err := t.socket(a.Int(0))
	if err != nil {
		return 0, err
	}
	defer d.DecRef()
	var c socket.Socket
	var peer []byte
	err = t.Retry(s, waiter.ReadableEvents, time.Time{}, func() (err error) {
		c, peer, err = s.Accept()
		return err
	})
	if err != nil {
		return 0, err
	}
	c.SetStatusFlags(unix.O_RDWR | uint32(flags&unix.SOCK_NONBLOCK))
	fd, err := t.newFD(c, flags&unix.SOCK_CLOEXEC != 0)
	if err != nil {
		return 0, err
	}
	if err := t.putAddr(a[1], a[2], peer); err != nil {
		t.p.fds.Close(int(fd))
		return 0, err
	}
	return fd, nil
}

// sysConnect is connect(2). A blocking call that a signal interrupts goes on
// connecting.
func sysConnect(t *Task, a Args) (uintptr, error) {
	s, d, err := t.socket(a.Int(0))
	if err != nil {
		return 0, err
	}
	defer d.DecRef()
	b, err := t.addrArg(a[1], a.Int(2))
	if err != nil {
		return 0, err
	}
	return 0, t.connect(s, b)
}

func (t *Task) connect(s socket.Socket, addr []byte) error {
	pending := func(err error) bool {
		return err == unix.EINPROGRESS || err == unix.EALREADY || err == unix.EAGAIN
	}
	if s.StatusFlags()&unix.O_NONBLOCK != 0 {
		return s.Connect(t, addr)
	}
	const events = waiter.WritableEvents | waiter.EventErr | waiter.EventHUp
	e, ch := waiter.NewChannelEntry(events)
	if err := s.EventRegister(&e); err != nil {
		return err
	}
	defer s.EventUnregister(&e)
	deadline := socketDeadline(s, waiter.WritableEvents)
	err := s.Connect(t, addr)
	for pending(err) {
		if err == unix.EAGAIN || s.Readiness(events) == 0 {
			switch werr := t.Wait(ch, deadline); {
			case werr == unix.ETIMEDOUT && err == unix.EAGAIN:
				return unix.EAGAIN
			case werr == unix.ETIMEDOUT:
				return unix.EINPROGRESS
			case werr != nil && !deadline.IsZero():
				return unix.EINTR
			case werr != nil:
				return werr
			}
		}
		err = s.Connect(t, addr)
	}
	return err
}

// sysGetsockname is getsockname(2).
func sysGetsockname(t *Task, a Args) (uintptr, error) {
	s, d, err := t.socket(a.Int(0))
	if err != nil {
		return 0, err
	}
	defer d.DecRef()
	b, err := s.LocalAddr()
	if err != nil {
		return 0, err
	}
	if a[1] == 0 {
		return 0, unix.EFAULT
	}
	return 0, t.putAddr(a[1], a[2], b)
}

// sysGetpeername is getpeername(2).
func sysGetpeername(t *Task, a Args) (uintptr, error) {
	s, d, err := t.socket(a.Int(0))
	if err != nil {
		return 0, err
	}
	defer d.DecRef()
	b, err := s.PeerAddr()
	if err != nil {
		return 0, err
	}
	if a[1] == 0 {
		return 0, unix.EFAULT
	}
	return 0, t.putAddr(a[1], a[2], b)
}

// sysShutdown is shutdown(2).
func sysShutdown(t *Task, a Args) (uintptr, error) {
	s, d, err := t.socket(a.Int(0))
	if err != nil {
		return 0, err
	}
	defer d.DecRef()
	return 0, s.Shutdown(a.Int(1))
}

// maxOption bounds the size of an option's value.
const maxOption = 4096

// sysGetsockopt is getsockopt(2).
func sysGetsockopt(t *Task, a Args) (uintptr, error) {
	s, d, err := t.socket(a.Int(0))
	if err != nil {
		return 0, err
	}
	defer d.DecRef()
	n, err := copyIn[int32](t, a[4])
	if err != nil {
		return 0, err
	}
	if n < 0 {
		return 0, unix.EINVAL
	}
	buf := make([]byte, min(n, maxOption))
	k, err := s.GetOption(t, a.Int(1), a.Int(2), buf)
	if err != nil {
		return 0, err
	}
	if err := t.CopyOut(a[3], buf[:k]); err != nil {
		return 0, err
	}
	return 0, copyOut(t, a[4], int32(k))
}

// sysSetsockopt is setsockopt(2).
func sysSetsockopt(t *Task, a Args) (uintptr, error) {
	s, d, err := t.socket(a.Int(0))
	if err != nil {
		return 0, err
	}
	defer d.DecRef()
	n := a.Int(4)
	if n < 0 {
		return 0, unix.EINVAL
	}
	v := make([]byte, min(n, maxOption))
	if err := t.CopyIn(a[3], v); err != nil {
		return 0, err
	}
	return 0, s.SetOption(t, a.Int(1), a.Int(2), v)
}

// putUint32 stores an int at addr.
func (t *Task) putUint32(addr uintptr, v uint32) error {
	var b [4]byte
	binary.LittleEndian.PutUint32(b[:], v)
	return t.CopyOut(addr, b[:])
}
