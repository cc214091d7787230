package inet

import (
	"net/netip"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/sys/unix"

	"gvisor.dev/gvisor/pkg/tcpip"
	"gvisor.dev/gvisor/pkg/tcpip/transport/tcp"
	"gvisor.dev/gvisor/pkg/waiter"

	"github.com/nabla-build/nabla-build/rumprun/socket"
	"github.com/nabla-build/nabla-build/rumprun/vfs"
)

// Socket is an AF_INET or AF_INET6 socket.
type Socket struct {
	vfs.Base
	common socket.Common
	kind   socket.Kind
	stack  *Stack
	now    atomic.Pointer[tcpip.Endpoint] // see ep
	queue  *waiter.Queue
	ino    uint64

	// shut are the directions that the guest closed (shutdown(2)): bits
	// 1<<SHUT_RD and 1<<SHUT_WR.
	shut atomic.Uint32

	// readMu and writeMu make rd and wr one caller's at a time.
	readMu  sync.Mutex
	rd      reader
	writeMu sync.Mutex
	wr      payload
	corked  []byte // what MSG_MORE holds back of a datagram; writeMu

	mu       sync.Mutex
	pending  error // an error taken from the endpoint that nobody has seen
	kept     map[option]int
	lastRecv time.Time // SIOCGSTAMP
	retry    retry
}

func (s *Stack) newSocket(k socket.Kind, ep tcpip.Endpoint, q *waiter.Queue, flags uint32) *Socket {
	o := &Socket{kind: k, stack: s, queue: q, ino: s.nextIno()}
	o.now.Store(&ep)
	o.SetStatusFlags(unix.O_RDWR | flags)
	return o
}

// ep is the endpoint of now: connect(2) after a connection failed makes a new one.
func (s *Socket) ep() tcpip.Endpoint { return *s.now.Load() }

func (s *Socket) Kind() socket.Kind      { return s.kind }
func (s *Socket) Common() *socket.Common { return &s.common }

func (s *Socket) stream() bool { return s.kind.Type == unix.SOCK_STREAM }
func (s *Socket) inet6() bool  { return s.kind.Family == unix.AF_INET6 }

// destination decodes where to connect or send to. An IPv6 socket takes IPv4
// addresses where its kind allows; the unspecified address is the loopback.
func (s *Socket) destination(b []byte) (tcpip.FullAddress, error) {
	fam, err := socket.Family(b)
	if err != nil {
		return tcpip.FullAddress{}, err
	}
	inet6 := s.inet6()
	if inet6 && fam == unix.AF_INET && !s.stream() {
		inet6 = false // a datagram socket of AF_INET6 sends to sockaddr_in, too
	}
	if !inet6 && fam == unix.AF_UNSPEC && !s.stream() && len(b) >= 16 {
		// sendto(2) with AF_UNSPEC means AF_INET.
		b = append([]byte{unix.AF_INET, 0}, b[2:]...)
	}
	ap, scope, err := socket.Inet(b, inet6)
	if err != nil {
		return tcpip.FullAddress{}, err
	}
	if s.inet6() && !inet6 {
		ap = netip.AddrPortFrom(netip.AddrFrom16(ap.Addr().As16()), ap.Port())
	}
	switch a := ap.Addr(); {
	case a.Is4() && a.IsUnspecified():
		ap = netip.AddrPortFrom(netip.AddrFrom4([4]byte{127, 0, 0, 1}), ap.Port())
	case a.Is4In6() && a.Unmap().IsUnspecified():
		ap = netip.AddrPortFrom(netip.AddrFrom16(netip.AddrFrom4([4]byte{127, 0, 0, 1}).As16()), ap.Port())
	case a.IsUnspecified():
		ap = netip.AddrPortFrom(netip.IPv6Loopback(), ap.Port())
	}
	return full(ap, scope), nil
}

// Bind is bind(2). All ports are free to all users, as in a container
// (net.ipv4.ip_unprivileged_port_start=0).
func (s *Socket) Bind(_ socket.Caller, b []byte) error {
	if fam, err := socket.Family(b); err == nil && fam == unix.AF_UNSPEC && !s.inet6() && len(b) >= 8 && [4]byte(b[4:8]) == [4]byte{} {
		b = append([]byte{unix.AF_INET, 0}, b[2:]...) // compatibility with old programs (ip(7))
	}
	ap, scope, err := socket.Inet(b, s.inet6())
	if err != nil {
		return err
	}
	f := full(ap, scope)
	if ap.Addr().Is4In6() && ap.Addr().Unmap().IsUnspecified() {
		f.Addr = tcpip.AddrFrom16(ap.Addr().As16())
	}
	if err := s.ep().Bind(f); err != nil {
		return errno(err)
	}
	s.noteBind(f)
	return nil
}

// maxBacklog is /proc/sys/net/core/somaxconn.
const maxBacklog = 4096

// Listen is listen(2).
func (s *Socket) Listen(backlog int) error {
	if !s.stream() {
		return unix.EOPNOTSUPP
	}
	return errno(s.ep().Listen(min(backlog, maxBacklog-1) + 1))
}

// Connect is connect(2).
func (s *Socket) Connect(_ socket.Caller, b []byte) error {
	fam, err := socket.Family(b)
	if err != nil {
		return err
	}
	if fam == unix.AF_UNSPEC {
		err := s.ep().Disconnect()
		if _, ok := err.(*tcpip.ErrNotSupported); ok {
			return unix.EAFNOSUPPORT
		}
		return errno(err)
	}
	f, err := s.destination(b)
	if err != nil {
		return err
	}
	if !s.stream() {
		return errno(s.ep().Connect(f))
	}
	switch tcp.EndpointState(s.ep().State()) {
	case tcp.StateListen:
		return unix.EISCONN
	case tcp.StateError:
		if err := s.renew(); err != nil {
			return err
		}
	default:
		if err := s.takePending(); err != nil {
			return err
		}
	}
	return s.connected(errno(s.ep().Connect(f)))
}

// Accept is accept(2).
func (s *Socket) Accept() (socket.Socket, []byte, error) {
	if !s.stream() {
		return nil, nil, unix.EOPNOTSUPP
	}
	var peer tcpip.FullAddress
	ep, q, err := s.ep().Accept(&peer)
	if err != nil {
		return nil, nil, errno(err)
	}
	return s.stack.newSocket(s.kind, ep, q, 0), s.encode(peer), nil
}

// encode gives an address in the socket's family.
func (s *Socket) encode(f tcpip.FullAddress) []byte {
	a := addr(f.Addr)
	if s.inet6() && !a.IsValid() {
		a = netip.IPv6Unspecified()
	}
	scope := uint32(0)
	if a.IsLinkLocalUnicast() {
		scope = uint32(f.NIC)
	}
	return socket.PutInet(netip.AddrPortFrom(a, f.Port), scope, s.inet6())
}

// Shutdown is shutdown(2).
func (s *Socket) Shutdown(how int) error {
	var f tcpip.ShutdownFlags
	var bits uint32
	switch how {
	case unix.SHUT_RD:
		f, bits = tcpip.ShutdownRead, 1
	case unix.SHUT_WR:
		f, bits = tcpip.ShutdownWrite, 2
	case unix.SHUT_RDWR:
		f, bits = tcpip.ShutdownRead|tcpip.ShutdownWrite, 3
	default:
		return unix.EINVAL
	}
	// As in Linux the direction counts as closed even where there is no
	// connection.
	s.shut.Or(bits)
	if s.stream() {
		switch tcp.EndpointState(s.ep().State()) {
		case tcp.StateInitial, tcp.StateBound, tcp.StateError, tcp.StateClose, tcp.StateTimeWait:
			return unix.ENOTCONN
		}
	}
	if err := s.ep().Shutdown(f); err != nil {
		return errno(err)
	}
	s.queue.Notify(waiter.ReadableEvents | waiter.WritableEvents | waiter.EventHUp | waiter.EventRdHUp)
	return nil
}

// LocalAddr is getsockname(2).
func (s *Socket) LocalAddr() ([]byte, error) {
	if s.stream() && tcp.EndpointState(s.ep().State()) == tcp.StateInitial {
		// The endpoint may still hold what a failed bind asked for.
		return s.encode(tcpip.FullAddress{}), nil
	}
	f, err := s.ep().GetLocalAddress()
	if err != nil {
		return nil, errno(err)
	}
	return s.encode(f), nil
}

// PeerAddr is getpeername(2).
func (s *Socket) PeerAddr() ([]byte, error) {
	f, err := s.ep().GetRemoteAddress()
	if err != nil {
		return nil, errno(err)
	}
	return s.encode(f), nil
}

// Stat is fstat(2).
func (s *Socket) Stat() (unix.Stat_t, error) {
	return unix.Stat_t{Dev: 8, Ino: s.ino, Nlink: 1, Mode: unix.S_IFSOCK | 0o777, Blksize: 4096}, nil
}

// Release closes the socket. Data not sent yet goes out in the background
// (SO_LINGER with time 0 resets the connection).
func (s *Socket) Release() { s.ep().Close() }

// takePending takes the error that Readiness set aside.
func (s *Socket) takePending() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	err := s.pending
	s.pending = nil
	return err
}

// takeError is SO_ERROR: the last error, which is gone then.
func (s *Socket) takeError() error {
	if err := s.takePending(); err != nil {
		return err
	}
	return s.endpointError()
}

// endpointError takes the endpoint's error. One of TCP that ends the
// connection is there twice.
func (s *Socket) endpointError() error {
	err := s.ep().LastError()
	if err != nil && s.stream() {
		s.ep().LastError()
	}
	return errno(err)
}

// hasError reports whether an error waits to be seen. It moves the endpoint's
// error, which can only be taken, to where it can be looked at.
func (s *Socket) hasError() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.pending == nil {
		s.pending = s.endpointError()
	}
	return s.pending != nil
}

// closedStates reports which directions of a TCP connection are over, and
// whether all of it is.
func (s *Socket) closedStates(st tcp.EndpointState) (rd, wr, dead bool) {
	shut := s.shut.Load()
	rd, wr = shut&1 != 0, shut&2 != 0
	switch st {
	case tcp.StateCloseWait, tcp.StateClosing, tcp.StateLastAck:
		rd = true
	case tcp.StateTimeWait, tcp.StateClose, tcp.StateError:
		return true, true, true
	}
	return rd, wr, false
}

// Readiness implements waiter.Waitable, with the events of Linux's tcp_poll
// and datagram_poll where netstack has others.
func (s *Socket) Readiness(mask waiter.EventMask) waiter.EventMask {
	const always = waiter.EventErr | waiter.EventHUp
	if !s.stream() {
		m := s.ep().Readiness(mask | waiter.ReadableEvents | waiter.WritableEvents)
		switch s.shut.Load() {
		case 1:
			m |= waiter.ReadableEvents | waiter.EventRdHUp
		case 3:
			m |= waiter.ReadableEvents | waiter.EventRdHUp | waiter.EventHUp
		}
		return m & (mask | always)
	}
	st := tcp.EndpointState(s.ep().State())
	var m waiter.EventMask
	switch st {
	case tcp.StateListen:
		return s.ep().Readiness(mask) & mask & waiter.ReadableEvents
	case tcp.StateInitial, tcp.StateBound:
		m = waiter.EventHUp | waiter.WritableEvents
		if s.shut.Load()&1 != 0 {
			m |= waiter.ReadableEvents | waiter.EventRdHUp
		}
	case tcp.StateConnecting, tcp.StateSynSent, tcp.StateSynRecv:
		return 0
	default:
		rd, wr, dead := s.closedStates(st)
		if rd {
			m |= waiter.ReadableEvents | waiter.EventRdHUp
		}
		if wr {
			m |= waiter.WritableEvents
		}
		if rd && wr || dead {
			m |= waiter.EventHUp
		}
		if !dead {
			m |= s.ep().Readiness(mask) & (waiter.ReadableEvents | waiter.WritableEvents)
		}
		if st == tcp.StateError && s.hasError() {
			m |= waiter.EventErr
		}
	}
	return m & (mask | always)
}

func (s *Socket) EventRegister(e *waiter.Entry) error {
	s.queue.EventRegister(e)
	return nil
}
func (s *Socket) EventUnregister(e *waiter.Entry) { s.queue.EventUnregister(e) }
