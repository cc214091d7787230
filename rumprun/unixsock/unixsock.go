// Package unixsock is AF_UNIX: stream, datagram and seqpacket sockets between
// the processes of the guest (unix(7)). It may import vfs and socket; names in
// the file system and passed descriptions come through socket.Caller and
// socket.FileRef. The type at its heart is Socket.
package unixsock

import (
	"fmt"
	"sync"

	"golang.org/x/sys/unix"

	"gvisor.dev/gvisor/pkg/waiter"

	"github.com/nabla-build/nabla-build/rumprun/socket"
	"github.com/nabla-build/nabla-build/rumprun/vfs"
)

// Ioctl handles requests that are not a socket's own: those on interfaces.
type Ioctl func(m vfs.UserMemory, req uint32, arg uintptr) (uintptr, error)

// Space is the abstract socket namespace of one kernel. Its lock protects all
// of its sockets; notifications are sent and references dropped after it has
// been released.
type Space struct {
	nextIno func() uint64
	ioctl   Ioctl

	mu       sync.Mutex
	abstract map[string]*Socket
	autobind uint32
}

// New makes a Space. nextIno gives the sockets' inode numbers.
func New(nextIno func() uint64, ioctl Ioctl) *Space {
	return &Space{nextIno: nextIno, ioctl: ioctl, abstract: map[string]*Socket{}}
}

type state uint8

const (
	unconnected state = iota
	listening
	connected
	dead // released
)

// Buffer sizes (/proc/sys/net/core/wmem_default, wmem_max) and the most
// datagrams that wait at a socket (/proc/sys/net/unix/max_dgram_qlen).
const (
	defaultBuf   = 212992
	maxBuf       = 425984
	minSndBuf    = 4608
	maxDatagrams = 10
	chunk        = 4096
	keepSpare    = 64 << 10
)

// message is what one send put into a receiver's queue. A stream's may hold
// several sends.
type message struct {
	buf   []byte
	off   int // of buf, read already
	from  *Socket
	name  string // the sender's
	cred  socket.Credentials
	files []socket.FileRef
}

func (m *message) left() []byte { return m.buf[m.off:] }

// Socket is an AF_UNIX socket.
type Socket struct {
	vfs.Base
	common socket.Common
	kind   socket.Kind
	space  *Space
	ino    uint64
	queue  waiter.Queue

	// All below: space.mu.
	state    state
	bound    bool
	name     string
	peer     *Socket
	in       []*message
	spare    []byte // a buffer to use again
	out      int    // bytes of this socket in other sockets' queues
	blocked  bool   // a send found no room
	shut     int    // directions closed: bits 1<<SHUT_RD, 1<<SHUT_WR
	err      error  // SO_ERROR
	sndbuf   int
	rcvbuf   int
	passcred bool
	kept     map[int]int

	cred, peerCred socket.Credentials

	backlog int
	pending []*Socket // connections not accepted
	waiting []*Socket // sockets whose connect found the backlog full
}

const (
	shutRead  = 1 << unix.SHUT_RD
	shutWrite = 1 << unix.SHUT_WR
	shutBoth  = shutRead | shutWrite
)

// noCred is what SO_PEERCRED shows of no peer.
var noCred = socket.Credentials{UID: ^uint32(0), GID: ^uint32(0)}

// NewSocket is socket(2) for a process with credentials cred.
func (sp *Space) NewSocket(cred socket.Credentials, typ, protocol int, flags uint32) (*Socket, error) {
	if protocol != 0 && protocol != unix.AF_UNIX {
		return nil, unix.EPROTONOSUPPORT
	}
	switch typ {
	case unix.SOCK_RAW:
		typ = unix.SOCK_DGRAM
	case unix.SOCK_STREAM, unix.SOCK_DGRAM, unix.SOCK_SEQPACKET:
	default:
		return nil, unix.ESOCKTNOSUPPORT
	}
	s := sp.newSocket(typ, flags)
	s.cred = cred
	return s, nil
}

func (sp *Space) newSocket(typ int, flags uint32) *Socket {
	s := &Socket{
		kind: socket.Kind{Family: unix.AF_UNIX, Type: typ}, space: sp, ino: sp.nextIno(),
		sndbuf: defaultBuf, rcvbuf: defaultBuf, peerCred: noCred,
	}
	s.SetStatusFlags(unix.O_RDWR | flags)
	return s
}

// NewPair is socketpair(2) for a process with credentials cred.
func (sp *Space) NewPair(cred socket.Credentials, typ, protocol int, flags uint32) (a, b *Socket, err error) {
	if a, err = sp.NewSocket(cred, typ, protocol, flags); err != nil {
		return nil, nil, err
	}
	if b, err = sp.NewSocket(cred, typ, protocol, flags); err != nil {
		return nil, nil, err
	}
	a.peer, b.peer = b, a
	a.state, b.state = connected, connected
	a.peerCred, b.peerCred = cred, cred
	return a, b, nil
}

func (s *Socket) Kind() socket.Kind      { return s.kind }
func (s *Socket) Common() *socket.Common { return &s.common }
func (s *Socket) datagram() bool         { return s.kind.Type == unix.SOCK_DGRAM }

// Bind is bind(2): to a path, an abstract name, or, with the family alone, an
// abstract name of the kernel's choice.
func (s *Socket) Bind(c socket.Caller, b []byte) error {
	name, err := socket.Unix(b)
	if err != nil {
		return err
	}
	sp := s.space
	sp.mu.Lock()
	bound := s.bound
	sp.mu.Unlock()
	if bound {
		if name != "" && name[0] != 0 {
			// A name that is taken comes first.
			if _, err := c.LookupPath(name); err == nil || err == unix.ECONNREFUSED {
				return unix.EADDRINUSE
			}
		}
		return unix.EINVAL
	}
	if name != "" && name[0] != 0 {
		if err := c.BindPath(name, s); err != nil {
			return err
		}
		sp.mu.Lock()
		s.bound, s.name = true, name
		sp.mu.Unlock()
		return nil
	}
	sp.mu.Lock()
	defer sp.mu.Unlock()
	return s.bindAbstract(name)
}

// bindAbstract binds to an abstract name, one of its own for "". space.mu is
// held.
func (s *Socket) bindAbstract(name string) error {
	sp := s.space
	for name == "" {
		sp.autobind++
		if n := fmt.Sprintf("\x00%05x", sp.autobind&0xfffff); sp.abstract[n] == nil {
			name = n
		}
	}
	if sp.abstract[name] != nil {
		return unix.EADDRINUSE
	}
	sp.abstract[name] = s
	s.bound, s.name = true, name
	return nil
}

// find returns the socket that an address names.
func (s *Socket) find(c socket.Caller, b []byte) (*Socket, error) {
	name, err := socket.Unix(b)
	if err != nil {
		return nil, err
	}
	if name == "" {
		return nil, unix.EINVAL
	}
	var o *Socket
	if name[0] != 0 {
		obj, err := c.LookupPath(name)
		if err != nil {
			return nil, err
		}
		o, _ = obj.(*Socket)
	} else {
		s.space.mu.Lock()
		o = s.space.abstract[name]
		s.space.mu.Unlock()
	}
	switch {
	case o == nil:
		return nil, unix.ECONNREFUSED
	case o.kind.Type != s.kind.Type:
		return nil, unix.EPROTOTYPE
	}
	return o, nil
}

// Listen is listen(2).
func (s *Socket) Listen(backlog int) error {
	if s.datagram() {
		return unix.EOPNOTSUPP
	}
	sp := s.space
	sp.mu.Lock()
	if !s.bound || s.state == connected {
		sp.mu.Unlock()
		return unix.EINVAL
	}
	s.state, s.backlog = listening, backlog
	wake := s.waiting
	s.waiting = nil
	sp.mu.Unlock()
	notify(wake)
	return nil
}

func notify(l []*Socket) {
	for _, s := range l {
		s.queue.Notify(waiter.WritableEvents)
	}
}

// Connect is connect(2). It is done at once, or EAGAIN while the backlog is
// full; the socket is notified as writable then.
func (s *Socket) Connect(c socket.Caller, b []byte) error {
	fam, err := socket.Family(b)
	if err != nil {
		return err
	}
	sp := s.space
	if s.datagram() && fam == unix.AF_UNSPEC {
		sp.mu.Lock()
		s.peer, s.state = nil, unconnected
		sp.mu.Unlock()
		return nil
	}
	l, err := s.find(c, b)
	if err != nil {
		return err
	}
	cred := c.Credentials()
	sp.mu.Lock()
	if s.passcred && !s.bound {
		s.bindAbstract("")
	}
	if s.datagram() {
		defer sp.mu.Unlock()
		switch {
		case l.state == dead:
			return unix.ECONNREFUSED
		case l.peer != nil && l.peer != s:
			return unix.EPERM
		}
		s.peer, s.state = l, connected
		return nil
	}
	err = nil
	switch {
	case s.state == connected:
		err = unix.EISCONN
	case l.state != listening || l.shut&shutRead != 0:
		err = unix.ECONNREFUSED
	case s.state != unconnected:
		err = unix.EINVAL
	case len(l.pending) > l.backlog:
		l.waiting = append(l.waiting, s)
		err = unix.EAGAIN
	}
	if err != nil {
		sp.mu.Unlock()
		return err
	}
	o := sp.newSocket(s.kind.Type, 0)
	o.state, o.peer, o.peerCred, o.cred = connected, s, cred, l.cred
	o.bound, o.name = l.bound, l.name
	o.passcred = l.passcred
	s.state, s.peer, s.peerCred, s.cred = connected, o, l.cred, cred
	l.pending = append(l.pending, o)
	sp.mu.Unlock()
	l.queue.Notify(waiter.ReadableEvents)
	s.queue.Notify(waiter.WritableEvents)
	return nil
}

// Accept is accept(2).
func (s *Socket) Accept() (socket.Socket, []byte, error) {
	if s.datagram() {
		return nil, nil, unix.EOPNOTSUPP
	}
	sp := s.space
	sp.mu.Lock()
	switch {
	case s.state != listening, s.shut&shutRead != 0:
		sp.mu.Unlock()
		return nil, nil, unix.EINVAL
	case len(s.pending) == 0:
		sp.mu.Unlock()
		return nil, nil, unix.EAGAIN
	}
	o := s.pending[0]
	s.pending = s.pending[1:]
	wake := s.waiting
	s.waiting = nil
	name := ""
	if o.peer != nil {
		name = o.peer.name
	}
	sp.mu.Unlock()
	notify(wake)
	return o, socket.PutUnix(name), nil
}

// Shutdown is shutdown(2); a connection's other end sees it, too.
func (s *Socket) Shutdown(how int) error {
	var bits, peerBits int
	switch how {
	case unix.SHUT_RD:
		bits, peerBits = shutRead, shutWrite
	case unix.SHUT_WR:
		bits, peerBits = shutWrite, shutRead
	case unix.SHUT_RDWR:
		bits, peerBits = shutBoth, shutBoth
	default:
		return unix.EINVAL
	}
	sp := s.space
	sp.mu.Lock()
	s.shut |= bits
	p := s.peer
	if p != nil && !s.datagram() {
		p.shut |= peerBits
	}
	wake := s.waiting
	s.waiting = nil
	sp.mu.Unlock()
	s.queue.Notify(allEvents)
	if p != nil && !s.datagram() {
		p.queue.Notify(allEvents)
	}
	notify(wake)
	return nil
}

const allEvents = waiter.ReadableEvents | waiter.WritableEvents | waiter.EventHUp | waiter.EventRdHUp | waiter.EventErr

// LocalAddr is getsockname(2).
func (s *Socket) LocalAddr() ([]byte, error) {
	s.space.mu.Lock()
	defer s.space.mu.Unlock()
	return socket.PutUnix(s.name), nil
}

// PeerAddr is getpeername(2).
func (s *Socket) PeerAddr() ([]byte, error) {
	s.space.mu.Lock()
	defer s.space.mu.Unlock()
	if s.peer == nil {
		return nil, unix.ENOTCONN
	}
	return socket.PutUnix(s.peer.name), nil
}

// Stat is fstat(2).
func (s *Socket) Stat() (unix.Stat_t, error) {
	return unix.Stat_t{Dev: 8, Ino: s.ino, Nlink: 1, Mode: unix.S_IFSOCK | 0o777, Blksize: 4096}, nil
}

// writableLocked is the kernel's unix_writable: at most a quarter of the
// buffer is on its way, and a datagram's receiver has room.
func (s *Socket) writableLocked() bool {
	if s.state == listening || s.out*4 > s.sndbuf {
		return false
	}
	if s.datagram() && s.peer != nil && s.peer.peer != s && len(s.peer.in) > maxDatagrams {
		return false
	}
	return true
}

// Readiness implements waiter.Waitable (unix_poll of the kernel).
func (s *Socket) Readiness(mask waiter.EventMask) waiter.EventMask {
	s.space.mu.Lock()
	defer s.space.mu.Unlock()
	var m waiter.EventMask
	if s.err != nil {
		m |= waiter.EventErr
	}
	if s.shut == shutBoth {
		m |= waiter.EventHUp
	}
	if s.shut&shutRead != 0 {
		m |= waiter.EventRdHUp | waiter.ReadableEvents
	}
	if len(s.in) > 0 || len(s.pending) > 0 {
		m |= waiter.ReadableEvents
	}
	if !s.datagram() && s.state == unconnected {
		m |= waiter.EventHUp
	}
	if s.writableLocked() {
		m |= waiter.WritableEvents
	}
	return m & (mask | waiter.EventErr | waiter.EventHUp)
}

func (s *Socket) EventRegister(e *waiter.Entry) error {
	s.queue.EventRegister(e)
	return nil
}
func (s *Socket) EventUnregister(e *waiter.Entry) { s.queue.EventUnregister(e) }

// Release closes the socket: its connection, those not accepted, and what
// nobody has read. A name in the file system stays, without a socket.
func (s *Socket) Release() {
	sp := s.space
	sp.mu.Lock()
	if sp.abstract[s.name] == s {
		delete(sp.abstract, s.name)
	}
	s.state = dead
	p := s.peer
	s.peer = nil
	if p != nil && p.peer == s && !s.datagram() {
		p.shut = shutBoth
		if len(s.in) > 0 {
			p.err = unix.ECONNRESET
		}
	} else if !s.datagram() {
		p = nil
	}
	in := s.in
	s.in = nil
	var freed []*Socket
	for _, m := range in {
		m.from.out -= len(m.left())
		freed = append(freed, m.from)
	}
	pending, wake := s.pending, s.waiting
	s.pending, s.waiting = nil, nil
	for _, o := range pending {
		if o.peer != nil {
			o.peer.err = unix.ECONNRESET
		}
	}
	sp.mu.Unlock()
	for _, m := range in {
		for _, f := range m.files {
			f.DecRef()
		}
	}
	if p != nil {
		p.queue.Notify(allEvents)
	}
	notify(freed)
	for _, o := range pending {
		o.Release()
	}
	notify(wake)
}
