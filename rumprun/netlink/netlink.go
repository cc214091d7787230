// Package netlink is AF_NETLINK with the one protocol that programs need to
// look at the network: NETLINK_ROUTE (netlink(7), rtnetlink(7)), reading only.
// It may import vfs, socket and inet. The type at its heart is Socket.
package netlink

import (
	"encoding/binary"
	"sync"

	"golang.org/x/sys/unix"

	"gvisor.dev/gvisor/pkg/waiter"

	"github.com/nabla-build/nabla-build/rumprun/inet"
	"github.com/nabla-build/nabla-build/rumprun/socket"
	"github.com/nabla-build/nabla-build/rumprun/vfs"
)

var le = binary.LittleEndian

// sizeAddr is the size of struct sockaddr_nl.
const sizeAddr = 12

// Space is the netlink of one kernel: which port numbers are taken.
type Space struct {
	stack   *inet.Stack
	nextIno func() uint64

	mu    sync.Mutex
	ports map[uint32]*Socket
	next  uint32 // the port for who does not get its process number
}

// New makes a Space that shows stack.
func New(stack *inet.Stack, nextIno func() uint64) *Space {
	return &Space{stack: stack, nextIno: nextIno, ports: map[uint32]*Socket{}, next: 0xffffefff}
}

// Socket is a socket of NETLINK_ROUTE. Multicast groups can be joined;
// nothing changes, so that they stay silent.
type Socket struct {
	vfs.Base
	common socket.Common
	kind   socket.Kind
	space  *Space
	ino    uint64
	queue  waiter.Queue

	mu       sync.Mutex
	port     uint32 // 0: not bound
	groups   uint32
	in       [][]byte // answers, datagrams
	passcred bool
	kept     map[[2]int]int
}

// NewSocket is socket(2): EPROTONOSUPPORT for other protocols.
func (sp *Space) NewSocket(typ, protocol int, flags uint32) (*Socket, error) {
	if typ != unix.SOCK_RAW && typ != unix.SOCK_DGRAM {
		return nil, unix.ESOCKTNOSUPPORT
	}
	if protocol != unix.NETLINK_ROUTE {
		return nil, unix.EPROTONOSUPPORT
	}
	s := &Socket{kind: socket.Kind{Family: unix.AF_NETLINK, Type: typ, Protocol: protocol}, space: sp, ino: sp.nextIno()}
	s.SetStatusFlags(unix.O_RDWR | flags)
	return s, nil
}

func (s *Socket) Kind() socket.Kind      { return s.kind }
func (s *Socket) Common() *socket.Common { return &s.common }

// bind takes port, or one of the kernel's choice for 0: the caller's process
// number if that is free.
func (s *Socket) bind(c socket.Caller, port uint32) error {
	sp := s.space
	sp.mu.Lock()
	defer sp.mu.Unlock()
	s.mu.Lock()
	defer s.mu.Unlock()
	switch {
	case s.port != 0 && port != 0 && port != s.port:
		return unix.EINVAL
	case s.port != 0:
		return nil
	case port != 0 && sp.ports[port] != nil:
		return unix.EADDRINUSE
	case port == 0 && c != nil:
		port = uint32(c.Credentials().PID)
	}
	for port == 0 || sp.ports[port] != nil {
		port = sp.next
		sp.next--
	}
	sp.ports[port] = s
	s.port = port
	return nil
}

// Bind is bind(2).
func (s *Socket) Bind(c socket.Caller, b []byte) error {
	fam, err := socket.Family(b)
	switch {
	case err != nil, len(b) < sizeAddr, fam != unix.AF_NETLINK:
		return unix.EINVAL
	}
	if err := s.bind(c, le.Uint32(b[4:])); err != nil {
		return err
	}
	s.mu.Lock()
	s.groups = le.Uint32(b[8:])
	s.mu.Unlock()
	return nil
}

// Connect is connect(2): to the kernel only.
func (s *Socket) Connect(c socket.Caller, b []byte) error {
	fam, err := socket.Family(b)
	switch {
	case err != nil:
		return err
	case fam == unix.AF_UNSPEC:
		return nil
	case fam != unix.AF_NETLINK, len(b) < sizeAddr:
		return unix.EINVAL
	case le.Uint32(b[4:]) != 0:
		return unix.EPERM
	}
	return s.bind(c, 0)
}

func (s *Socket) Listen(int) error { return unix.EOPNOTSUPP }
func (s *Socket) Accept() (socket.Socket, []byte, error) {
	return nil, nil, unix.EOPNOTSUPP
}
func (s *Socket) Shutdown(int) error { return unix.EOPNOTSUPP }

func address(port, groups uint32) []byte {
	b := make([]byte, sizeAddr)
	le.PutUint16(b, unix.AF_NETLINK)
	le.PutUint32(b[4:], port)
	le.PutUint32(b[8:], groups)
	return b
}

// LocalAddr is getsockname(2); PeerAddr, getpeername(2), is the kernel.
func (s *Socket) LocalAddr() ([]byte, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return address(s.port, s.groups), nil
}
func (s *Socket) PeerAddr() ([]byte, error) { return address(0, 0), nil }

// Send answers the requests in m at once; the answers wait to be received.
func (s *Socket) Send(c socket.Caller, m *socket.Message, flags int) (int, error) {
	if flags&unix.MSG_OOB != 0 {
		return 0, unix.EOPNOTSUPP
	}
	if m.Addr != nil {
		if len(m.Addr) < sizeAddr || le.Uint16(m.Addr) != unix.AF_NETLINK {
			return 0, unix.EINVAL
		}
		if le.Uint32(m.Addr[4:]) != 0 {
			return 0, unix.ECONNREFUSED
		}
	}
	if err := s.bind(c, 0); err != nil {
		return 0, err
	}
	n := m.Len()
	if n > maxRequest {
		return 0, unix.EMSGSIZE
	}
	req := make([]byte, 0, n)
	for _, b := range m.Data {
		req = append(req, b...)
	}
	s.mu.Lock()
	port := s.port
	s.mu.Unlock()
	out := s.space.answer(req, port)
	s.mu.Lock()
	if len(s.in)+len(out) > maxQueued {
		s.mu.Unlock()
		return 0, unix.ENOBUFS
	}
	s.in = append(s.in, out...)
	s.mu.Unlock()
	if len(out) > 0 {
		s.queue.Notify(waiter.ReadableEvents)
	}
	return n, nil
}

// Limits of what a guest can make the kernel keep.
const (
	maxRequest = 32 << 10
	maxQueued  = 256
)

// Recv implements socket.Socket.
func (s *Socket) Recv(_ socket.Caller, m *socket.Message, flags int) (int, error) {
	m.Flags, m.Control, m.Files = 0, nil, nil
	if flags&unix.MSG_OOB != 0 {
		return 0, unix.EOPNOTSUPP
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if len(s.in) == 0 {
		return 0, unix.EAGAIN
	}
	d := s.in[0]
	if flags&unix.MSG_PEEK == 0 {
		s.in = s.in[1:]
	}
	n := 0
	for _, b := range m.Data {
		n += copy(b, d[n:])
	}
	if m.WantAddr {
		m.Addr = address(0, 0)
	}
	if m.WantControl && s.passcred {
		m.Control = socket.AppendControl(nil, unix.SOL_SOCKET, unix.SCM_CREDENTIALS, socket.Credentials{}.AppendTo(nil))
	}
	if n < len(d) {
		m.Flags |= unix.MSG_TRUNC
		if flags&unix.MSG_TRUNC != 0 {
			return len(d), nil
		}
	}
	return n, nil
}

// Read and Write implement vfs.File.
func (s *Socket) Read(b []byte) (int, error) {
	return s.Recv(nil, &socket.Message{Data: [][]byte{b}}, 0)
}
func (s *Socket) Write(b []byte) (int, error) {
	return s.Send(nil, &socket.Message{Data: [][]byte{b}}, 0)
}

// Readiness implements waiter.Waitable.
func (s *Socket) Readiness(mask waiter.EventMask) waiter.EventMask {
	s.mu.Lock()
	defer s.mu.Unlock()
	m := waiter.WritableEvents
	if len(s.in) > 0 {
		m |= waiter.ReadableEvents
	}
	return m & mask
}

func (s *Socket) EventRegister(e *waiter.Entry) error {
	s.queue.EventRegister(e)
	return nil
}
func (s *Socket) EventUnregister(e *waiter.Entry) { s.queue.EventUnregister(e) }

// SetOption is setsockopt(2): options are taken and remembered.
func (s *Socket) SetOption(_ socket.Caller, level, name int, v []byte) error {
	if level == unix.SOL_SOCKET {
		if handled, err := s.common.SetOption(name, v); handled {
			return err
		}
	}
	if level != unix.SOL_SOCKET && level != unix.SOL_NETLINK {
		return unix.ENOPROTOOPT
	}
	n, err := socket.IntOption(v)
	if err != nil {
		return err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if level == unix.SOL_SOCKET && name == unix.SO_PASSCRED {
		s.passcred = n != 0
	}
	if s.kept == nil {
		s.kept = map[[2]int]int{}
	}
	s.kept[[2]int{level, name}] = n
	return nil
}

// GetOption is getsockopt(2).
func (s *Socket) GetOption(_ socket.Caller, level, name int, buf []byte) (int, error) {
	if level == unix.SOL_SOCKET {
		if n, handled := s.common.GetOption(name, buf); handled {
			return n, nil
		}
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	v, ok := s.kept[[2]int{level, name}]
	if level == unix.SOL_SOCKET && !ok {
		ok = true
		switch name {
		case unix.SO_TYPE:
			v = s.kind.Type
		case unix.SO_DOMAIN:
			v = unix.AF_NETLINK
		case unix.SO_PROTOCOL, unix.SO_ERROR, unix.SO_ACCEPTCONN, unix.SO_PASSCRED:
		case unix.SO_SNDBUF, unix.SO_RCVBUF:
			v = 212992
		default:
			ok = false
		}
	}
	if !ok {
		return 0, unix.ENOPROTOOPT
	}
	return socket.PutInt(buf, v), nil
}

// Ioctl handles the requests on interfaces.
func (s *Socket) Ioctl(m vfs.UserMemory, req uint32, arg uintptr) (uintptr, error) {
	return s.space.stack.InterfaceIoctl(m, req, arg)
}

// Stat is fstat(2).
func (s *Socket) Stat() (unix.Stat_t, error) {
	return unix.Stat_t{Dev: 8, Ino: s.ino, Nlink: 1, Mode: unix.S_IFSOCK | 0o777, Blksize: 4096}, nil
}

// Release gives the port back.
func (s *Socket) Release() {
	sp := s.space
	sp.mu.Lock()
	defer sp.mu.Unlock()
	if sp.ports[s.port] == s {
		delete(sp.ports, s.port)
	}
}
