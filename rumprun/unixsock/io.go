package unixsock

import (
	"golang.org/x/sys/unix"

	"gvisor.dev/gvisor/pkg/waiter"

	"github.com/nabla-build/nabla-build/rumprun/socket"
)

// Read implements vfs.File.
func (s *Socket) Read(b []byte) (int, error) { return s.Readv([][]byte{b}) }

// Readv reads into several buffers, as one.
func (s *Socket) Readv(v [][]byte) (int, error) {
	m := socket.Message{Data: v}
	n, err := s.Recv(nil, &m, 0)
	for _, f := range m.Files {
		f.DecRef() // read(2) drops what it cannot hand over
	}
	return n, err
}

// Write implements vfs.File.
func (s *Socket) Write(b []byte) (int, error) { return s.Writev([][]byte{b}) }

// Writev writes several buffers, as one.
func (s *Socket) Writev(v [][]byte) (int, error) {
	return s.Send(nil, &socket.Message{Data: v}, 0)
}

// Send implements socket.Socket. c is nil for write(2): the credentials are
// those that the socket was connected with, then.
func (s *Socket) Send(c socket.Caller, m *socket.Message, flags int) (int, error) {
	if flags&unix.MSG_OOB != 0 {
		return 0, unix.EOPNOTSUPP
	}
	cred := s.cred
	if c != nil {
		cred = c.Credentials()
		cms, err := socket.ParseControl(m.Control)
		if err != nil {
			return 0, err
		}
		for _, cm := range cms {
			if cm.Level != unix.SOL_SOCKET {
				continue
			}
			switch cm.Type {
			case unix.SCM_RIGHTS:
			case unix.SCM_CREDENTIALS:
				if cred, err = socket.ParseCredentials(cm.Data); err != nil {
					return 0, err
				}
				if !c.MayClaim(cred) {
					return 0, unix.EPERM
				}
			default:
				return 0, unix.EINVAL
			}
		}
	}
	if s.datagram() {
		return s.sendDatagram(c, m, cred)
	}
	return s.sendConnected(m, cred)
}

// sendDatagram sends to m's address or the peer.
func (s *Socket) sendDatagram(c socket.Caller, m *socket.Message, cred socket.Credentials) (int, error) {
	var to *Socket
	if m.Addr != nil {
		var err error
		if to, err = s.find(c, m.Addr); err != nil {
			return 0, err
		}
	}
	n := m.Len()
	sp := s.space
	sp.mu.Lock()
	if to == nil {
		if to = s.peer; to == nil {
			sp.mu.Unlock()
			return 0, unix.ENOTCONN
		}
	}
	var err error
	switch {
	case n > s.sndbuf-32:
		err = unix.EMSGSIZE
	case s.shut&shutWrite != 0:
		err = unix.EPIPE
	case to.state == dead:
		if s.peer == to {
			s.peer, s.state = nil, unconnected
		}
		err = unix.ECONNREFUSED
	case to.peer != nil && to.peer != s:
		err = unix.EPERM
	case to.shut&shutRead != 0:
		err = unix.EPIPE
	case s.out+n > s.sndbuf, to != s && to.peer != s && len(to.in) > maxDatagrams:
		s.blocked = true
		err = unix.EAGAIN
		if s.out+n <= s.sndbuf && !contains(to.waiting, s) {
			to.waiting = append(to.waiting, s) // until the receiver reads
		}
	}
	if err != nil {
		sp.mu.Unlock()
		return 0, err
	}
	if s.passcred && !s.bound {
		s.bindAbstract("")
	}
	s.pushLocked(to, m, n, cred)
	sp.mu.Unlock()
	to.queue.Notify(waiter.ReadableEvents)
	return n, nil
}

func contains(l []*Socket, s *Socket) bool {
	for _, x := range l {
		if x == s {
			return true
		}
	}
	return false
}

// sendConnected sends on a stream or seqpacket connection.
func (s *Socket) sendConnected(m *socket.Message, cred socket.Credentials) (int, error) {
	n := m.Len()
	stream := s.kind.Type == unix.SOCK_STREAM
	sp := s.space
	sp.mu.Lock()
	to := s.peer
	var err error
	switch {
	case m.Addr != nil && stream && s.state == connected:
		err = unix.EISCONN
	case m.Addr != nil && stream:
		err = unix.EOPNOTSUPP
	case s.state != connected:
		err = unix.ENOTCONN
	case s.shut&shutWrite != 0, to == nil, to.state == dead, to.shut&shutRead != 0:
		err = unix.EPIPE
	case !stream && n > s.sndbuf-32:
		err = unix.EMSGSIZE
	case stream && n > 0 && s.out >= s.sndbuf, !stream && s.out+n > s.sndbuf:
		s.blocked = true
		err = unix.EAGAIN
	}
	if err != nil {
		sp.mu.Unlock()
		return 0, err
	}
	if stream {
		if n == 0 {
			sp.mu.Unlock()
			return 0, nil
		}
		n = min(n, s.sndbuf-s.out)
	}
	s.pushLocked(to, m, n, cred)
	sp.mu.Unlock()
	to.queue.Notify(waiter.ReadableEvents)
	return n, nil
}

// pushLocked puts the first n bytes of m into to's queue. A stream's bytes go
// behind those of the message before, where nothing keeps them apart.
func (s *Socket) pushLocked(to *Socket, m *socket.Message, n int, cred socket.Credentials) {
	var t *message
	if s.kind.Type == unix.SOCK_STREAM && len(m.Files) == 0 && len(to.in) > 0 {
		last := to.in[len(to.in)-1]
		if last.from == s && last.cred == cred && len(last.files) == 0 && cap(last.buf)-len(last.buf) >= n {
			t = last
		}
	}
	if t == nil {
		t = &message{from: s, name: s.name, cred: cred, files: m.Files}
		if cap(to.spare) >= n {
			t.buf, to.spare = to.spare[:0], nil
		} else if s.kind.Type == unix.SOCK_STREAM {
			t.buf = make([]byte, 0, max(n, chunk))
		} else {
			t.buf = make([]byte, 0, n)
		}
		to.in = append(to.in, t)
	}
	left := n
	for _, b := range m.Data {
		b = b[:min(len(b), left)]
		t.buf = append(t.buf, b...)
		left -= len(b)
	}
	s.out += n
}

// Recv implements socket.Socket.
func (s *Socket) Recv(_ socket.Caller, m *socket.Message, flags int) (int, error) {
	m.Flags = 0
	m.Addr, m.Control, m.Files = nil, nil, nil
	switch {
	case flags&unix.MSG_OOB != 0 && s.kind.Type == unix.SOCK_STREAM:
		return 0, unix.EINVAL
	case flags&unix.MSG_OOB != 0:
		return 0, unix.EOPNOTSUPP
	}
	sp := s.space
	sp.mu.Lock()
	if !s.datagram() && s.state != connected {
		sp.mu.Unlock()
		if s.kind.Type == unix.SOCK_STREAM {
			return 0, unix.EINVAL
		}
		return 0, unix.ENOTCONN
	}
	room := m.Len()
	if s.kind.Type == unix.SOCK_STREAM && room == 0 {
		sp.mu.Unlock()
		return 0, nil
	}
	if len(s.in) == 0 || s.err != nil && s.kind.Type != unix.SOCK_STREAM {
		err := s.err
		s.err = nil
		if err == nil && s.shut&shutRead == 0 {
			err = unix.EAGAIN
		}
		sp.mu.Unlock()
		return 0, err
	}
	peek := flags&unix.MSG_PEEK != 0
	first := s.in[0]
	if m.WantAddr && first.name != "" {
		m.Addr = socket.PutUnix(first.name)
	}
	if m.WantControl && s.passcred {
		m.Control = socket.AppendControl(nil, unix.SOL_SOCKET, unix.SCM_CREDENTIALS, first.cred.AppendTo(nil))
	}
	var n int
	wake := make([]*Socket, 0, 4)
	if s.kind.Type == unix.SOCK_STREAM {
		n = s.takeStream(m, first, peek, &wake)
	} else {
		first.takeFiles(m, peek)
		n = scatter(m.Data, first.left())
		full := len(first.left())
		if n < full {
			m.Flags |= unix.MSG_TRUNC
			if flags&unix.MSG_TRUNC != 0 {
				n = full
			}
		}
		if !peek {
			first.off = len(first.buf)
			first.from.out -= full
			wake = append(wake, first.from)
			s.dropLocked()
			wake = append(wake, s.waiting...)
			s.waiting = nil
		}
	}
	sp.mu.Unlock()
	for _, w := range wake {
		w.queue.Notify(waiter.WritableEvents)
	}
	return n, nil
}

// takeFiles hands the message's descriptions over, or further references to
// them.
func (t *message) takeFiles(m *socket.Message, peek bool) {
	m.Files = t.files
	if !peek {
		t.files = nil
		return
	}
	for _, f := range m.Files {
		f.IncRef()
	}
}

// takeStream reads through the messages, to the end of the first that has
// files and not into one of other credentials. space.mu is held.
func (s *Socket) takeStream(m *socket.Message, first *message, peek bool, wake *[]*Socket) int {
	n := 0
	data := m.Data
	i := 0
	for len(data) > 0 && i < len(s.in) {
		t := s.in[i]
		if len(m.Files) > 0 || s.passcred && t.cred != first.cred {
			break
		}
		t.takeFiles(m, peek)
		src := t.left()
		k := 0
		for len(data) > 0 && k < len(src) {
			c := copy(data[0], src[k:])
			k += c
			if c == len(data[0]) {
				data = data[1:]
			} else {
				// Not in place: the slice is the caller's.
				data = append([][]byte{data[0][c:]}, data[1:]...)
			}
		}
		n += k
		if peek {
			i++
			continue
		}
		t.off += k
		t.from.out -= k
		if !contains(*wake, t.from) {
			*wake = append(*wake, t.from)
		}
		if t.off < len(t.buf) {
			break
		}
		s.dropLocked()
	}
	return n
}

// dropLocked removes the first message, keeping its buffer.
func (s *Socket) dropLocked() {
	t := s.in[0]
	s.in[0] = nil
	s.in = s.in[1:]
	if len(s.in) == 0 {
		s.in = nil
	}
	if cap(t.buf) <= keepSpare && cap(t.buf) > cap(s.spare) {
		s.spare = t.buf[:0]
	}
}

// scatter copies src into the buffers.
func scatter(v [][]byte, src []byte) int {
	n := 0
	for _, b := range v {
		k := copy(b, src[n:])
		n += k
	}
	return n
}
