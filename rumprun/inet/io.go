package inet

import (
	"encoding/binary"
	"io"
	"time"

	"golang.org/x/sys/unix"

	"gvisor.dev/gvisor/pkg/tcpip"

	"github.com/nabla-build/nabla-build/rumprun/socket"
)

// reader takes what an endpoint gives straight into the guest's buffers.
type reader struct {
	v    [][]byte
	b    []byte
	one  [1][]byte
	drop int // discard this many bytes instead (MSG_TRUNC of a stream)
}

func (r *reader) Write(p []byte) (int, error) {
	n := 0
	for n < len(p) {
		if r.drop > 0 {
			k := min(r.drop, len(p)-n)
			r.drop -= k
			n += k
			continue
		}
		for len(r.b) == 0 {
			if len(r.v) == 0 {
				return n, io.ErrShortWrite
			}
			r.b, r.v = r.v[0], r.v[1:]
		}
		k := copy(r.b, p[n:])
		r.b = r.b[k:]
		n += k
	}
	return n, nil
}

// payload gives the guest's buffers to an endpoint, which copies them once.
type payload struct {
	v   [][]byte
	b   []byte
	n   int
	one [1][]byte
}

func (p *payload) set(v [][]byte) {
	p.v, p.b, p.n = v, nil, 0
	for _, b := range v {
		p.n += len(b)
	}
}

// Len implements tcpip.Payloader.
func (p *payload) Len() int { return p.n }

func (p *payload) Read(dst []byte) (int, error) {
	n := 0
	for n < len(dst) {
		for len(p.b) == 0 {
			if len(p.v) == 0 {
				if n == 0 {
					return 0, io.EOF
				}
				return n, nil
			}
			p.b, p.v = p.v[0], p.v[1:]
		}
		k := copy(dst[n:], p.b)
		p.b = p.b[k:]
		p.n -= k
		n += k
	}
	return n, nil
}

// Read implements vfs.File.
func (s *Socket) Read(b []byte) (int, error) {
	s.readMu.Lock()
	defer s.readMu.Unlock()
	s.rd.one[0] = b
	res, err := s.recv(s.rd.one[:], tcpip.ReadOptions{}, 0, false)
	return res.Count, err
}

// Readv reads into several buffers, as one.
func (s *Socket) Readv(v [][]byte) (int, error) {
	s.readMu.Lock()
	defer s.readMu.Unlock()
	res, err := s.recv(v, tcpip.ReadOptions{}, 0, false)
	return res.Count, err
}

// recv reads once into v, or discards up to drop bytes. now says that the call
// does not wait whatever the status flags. readMu is held.
func (s *Socket) recv(v [][]byte, o tcpip.ReadOptions, drop int, now bool) (tcpip.ReadResult, error) {
	room := drop
	for _, b := range v {
		room += len(b)
	}
	if room == 0 && s.stream() {
		return tcpip.ReadResult{}, nil
	}
	s.rd.v, s.rd.b, s.rd.drop = v, nil, drop
	res, terr := s.ep().Read(&s.rd, o)
	s.rd.v, s.rd.b, s.rd.one[0] = nil, nil, nil
	switch terr.(type) {
	case nil:
		if s.stream() {
			if !o.Peek && res.Count > 0 {
				s.ep().ModerateRecvBuf(res.Count)
			}
		} else if !res.ControlMessages.Timestamp.IsZero() {
			s.mu.Lock()
			s.lastRecv = res.ControlMessages.Timestamp
			s.mu.Unlock()
		}
		return res, nil
	case *tcpip.ErrBadBuffer:
		// Nothing fitted: a datagram into no room.
		res.Count = 0
		return res, nil
	case *tcpip.ErrClosedForReceive:
		if !s.stream() && (now || s.StatusFlags()&unix.O_NONBLOCK != 0) {
			return tcpip.ReadResult{}, unix.EAGAIN // only who waits sees the end
		}
		return tcpip.ReadResult{}, s.takePending()
	case *tcpip.ErrWouldBlock:
		if s.stream() && s.shut.Load()&1 != 0 {
			return tcpip.ReadResult{}, nil
		}
	}
	return tcpip.ReadResult{}, errno(terr)
}

// Write implements vfs.File.
func (s *Socket) Write(b []byte) (int, error) {
	s.writeMu.Lock()
	defer s.writeMu.Unlock()
	s.wr.one[0] = b
	return s.send(s.wr.one[:], tcpip.WriteOptions{})
}

// Writev writes several buffers, as one.
func (s *Socket) Writev(v [][]byte) (int, error) {
	s.writeMu.Lock()
	defer s.writeMu.Unlock()
	return s.send(v, tcpip.WriteOptions{})
}

// send writes once. writeMu is held.
func (s *Socket) send(v [][]byte, o tcpip.WriteOptions) (int, error) {
	s.wr.set(v)
	defer func() { s.wr.v, s.wr.b, s.wr.one[0] = nil, nil, nil }()
	if s.stream() {
		if s.wr.n == 0 {
			return 0, nil
		}
		if err := s.takePending(); err != nil {
			return 0, err
		}
		// The endpoint takes what there is room for at once; go on as long as
		// it takes all it asked for.
		done := 0
		for {
			n, err := s.ep().Write(&s.wr, o)
			done += int(n)
			if err != nil {
				if done > 0 {
					return done, nil
				}
				return 0, errno(err)
			}
			if s.wr.n == 0 || n == 0 {
				return done, nil
			}
			// What a write hands over it may have read beyond: start again
			// after what was taken.
			s.wr.set(skip(v, done))
		}
	}
	if s.shut.Load()&2 != 0 {
		return 0, unix.EPIPE
	}
	o.Atomic = true
	n, err := s.ep().Write(&s.wr, o)
	return int(n), errno(err)
}

// skip returns v without its first n bytes.
func skip(v [][]byte, n int) [][]byte {
	for n > 0 && n >= len(v[0]) {
		n -= len(v[0])
		v = v[1:]
		if len(v) == 0 {
			return nil
		}
	}
	if n == 0 {
		return v
	}
	out := append([][]byte{v[0][n:]}, v[1:]...)
	return out
}

// maxDatagram bounds what MSG_MORE collects.
const maxDatagram = 65535

// Send implements socket.Socket. MSG_MORE holds datagrams back as UDP_CORK
// does; for a stream it is TCP_CORK for one call, which makes no difference
// but in the packets.
func (s *Socket) Send(_ socket.Caller, m *socket.Message, flags int) (int, error) {
	if flags&unix.MSG_OOB != 0 {
		return 0, unix.EOPNOTSUPP
	}
	o := tcpip.WriteOptions{More: flags&unix.MSG_MORE != 0, EndOfRecord: flags&unix.MSG_EOR != 0}
	if m.Addr != nil && !s.stream() {
		to, err := s.destination(m.Addr)
		if err != nil {
			return 0, err
		}
		if to.Port == 0 && s.kind.Protocol == unix.IPPROTO_UDP {
			return 0, unix.EINVAL
		}
		o.To = &to
	}
	if len(m.Control) > 0 {
		cms, err := socket.ParseControl(m.Control)
		if err != nil {
			return 0, err
		}
		if err := s.sendControl(cms, &o.ControlMessages); err != nil {
			return 0, err
		}
	}
	s.writeMu.Lock()
	defer s.writeMu.Unlock()
	if s.stream() || s.kind.Protocol != unix.IPPROTO_UDP || !o.More && len(s.corked) == 0 {
		return s.send(m.Data, o)
	}
	n := m.Len()
	if len(s.corked)+n > maxDatagram {
		return 0, unix.EMSGSIZE
	}
	for _, b := range m.Data {
		s.corked = append(s.corked, b...)
	}
	if o.More {
		return n, nil
	}
	all := s.corked
	s.corked = nil
	if _, err := s.send([][]byte{all}, o); err != nil {
		return 0, err
	}
	return n, nil
}

// Recv implements socket.Socket.
func (s *Socket) Recv(_ socket.Caller, m *socket.Message, flags int) (int, error) {
	m.Flags = 0
	switch {
	case flags&unix.MSG_ERRQUEUE != 0:
		return 0, unix.EAGAIN
	case flags&unix.MSG_OOB != 0:
		if s.stream() {
			return 0, unix.EINVAL
		}
		return 0, unix.EOPNOTSUPP
	}
	o := tcpip.ReadOptions{Peek: flags&unix.MSG_PEEK != 0, NeedRemoteAddr: m.WantAddr && !s.stream()}
	trunc := flags&unix.MSG_TRUNC != 0
	now := flags&unix.MSG_DONTWAIT != 0
	s.readMu.Lock()
	if s.stream() && trunc {
		n := m.Len()
		if o.Peek {
			s.readMu.Unlock()
			q, err := s.ep().GetSockOptInt(tcpip.ReceiveQueueSizeOption)
			if err != nil {
				return 0, errno(err)
			}
			if q == 0 {
				return 0, unix.EAGAIN
			}
			return min(n, q), nil
		}
		res, err := s.recv(nil, o, n, now)
		s.readMu.Unlock()
		return res.Count, err
	}
	res, err := s.recv(m.Data, o, 0, now)
	s.readMu.Unlock()
	if err != nil || s.stream() {
		return res.Count, err
	}
	if o.NeedRemoteAddr {
		if s.kind.Type == unix.SOCK_RAW {
			res.RemoteAddr.Port = 0
		}
		m.Addr = s.encode(res.RemoteAddr)
	}
	if m.WantControl {
		m.Control = s.recvControl(&res.ControlMessages)
	}
	if res.Total > res.Count {
		m.Flags |= unix.MSG_TRUNC
		if trunc {
			return res.Total, nil
		}
	}
	return res.Count, nil
}

// sendControl takes the control messages of ip(7) and ipv6(7) over.
func (s *Socket) sendControl(cms []socket.ControlMessage, out *tcpip.SendableControlMessages) error {
	le := binary.LittleEndian
	for _, c := range cms {
		switch {
		case c.Level == unix.IPPROTO_IP && c.Type == unix.IP_TTL:
			if len(c.Data) < 4 {
				return unix.EINVAL
			}
			v := int32(le.Uint32(c.Data))
			if v < 1 || v > 255 {
				return unix.EINVAL
			}
			out.HasTTL, out.TTL = true, uint8(v)
		case c.Level == unix.IPPROTO_IPV6 && c.Type == unix.IPV6_HOPLIMIT:
			if len(c.Data) < 4 {
				return unix.EINVAL
			}
			v := int32(le.Uint32(c.Data))
			if v < -1 || v > 255 {
				return unix.EINVAL
			}
			if v >= 0 {
				out.HasHopLimit, out.HopLimit = true, uint8(v)
			}
		case c.Level == unix.IPPROTO_IPV6 && c.Type == unix.IPV6_PKTINFO:
			if len(c.Data) < 20 {
				return unix.EINVAL
			}
			out.HasIPv6PacketInfo = true
			out.IPv6PacketInfo = tcpip.IPv6PacketInfo{Addr: tcpip.AddrFrom16([16]byte(c.Data)), NIC: tcpip.NICID(le.Uint32(c.Data[16:]))}
		case c.Level == unix.IPPROTO_IP && (c.Type == unix.IP_PKTINFO || c.Type == unix.IP_TOS),
			c.Level == unix.IPPROTO_IPV6 && c.Type == unix.IPV6_TCLASS,
			c.Level == unix.SOL_SOCKET && (c.Type == unix.SCM_RIGHTS || c.Type == unix.SCM_CREDENTIALS):
			// Accepted: the route decides the source address.
		case c.Level == unix.SOL_SOCKET, c.Level == unix.IPPROTO_IP, c.Level == unix.IPPROTO_IPV6:
			return unix.EINVAL
		}
	}
	return nil
}

// recvControl encodes what came with a datagram.
func (s *Socket) recvControl(cm *tcpip.ReceivableControlMessages) []byte {
	le := binary.LittleEndian
	var out []byte
	if cm.HasTimestamp {
		switch {
		case s.keptInt(option{unix.SOL_SOCKET, unix.SO_TIMESTAMPNS}) != 0:
			out = socket.AppendControl(out, unix.SOL_SOCKET, unix.SO_TIMESTAMPNS, stamp(cm.Timestamp, 1))
		case s.keptInt(option{unix.SOL_SOCKET, unix.SO_TIMESTAMP}) != 0:
			out = socket.AppendControl(out, unix.SOL_SOCKET, unix.SO_TIMESTAMP, stamp(cm.Timestamp, 1000))
		}
	}
	if cm.HasIPPacketInfo {
		var b [12]byte
		le.PutUint32(b[:], uint32(cm.PacketInfo.NIC))
		l, d := cm.PacketInfo.LocalAddr.As4(), cm.PacketInfo.DestinationAddr.As4()
		copy(b[4:], l[:])
		copy(b[8:], d[:])
		out = socket.AppendControl(out, unix.IPPROTO_IP, unix.IP_PKTINFO, b[:])
	}
	if cm.HasTTL {
		out = socket.AppendControl(out, unix.IPPROTO_IP, unix.IP_TTL, le.AppendUint32(nil, uint32(cm.TTL)))
	}
	if cm.HasTOS {
		out = socket.AppendControl(out, unix.IPPROTO_IP, unix.IP_TOS, []byte{cm.TOS})
	}
	if cm.HasIPv6PacketInfo {
		var b [20]byte
		a := addr(cm.IPv6PacketInfo.Addr).As16()
		copy(b[:], a[:])
		le.PutUint32(b[16:], uint32(cm.IPv6PacketInfo.NIC))
		out = socket.AppendControl(out, unix.IPPROTO_IPV6, unix.IPV6_PKTINFO, b[:])
	}
	if cm.HasHopLimit {
		out = socket.AppendControl(out, unix.IPPROTO_IPV6, unix.IPV6_HOPLIMIT, le.AppendUint32(nil, uint32(cm.HopLimit)))
	}
	if cm.HasTClass {
		out = socket.AppendControl(out, unix.IPPROTO_IPV6, unix.IPV6_TCLASS, le.AppendUint32(nil, cm.TClass))
	}
	return out
}

// stamp encodes a time as seconds and a fraction in units of unit nanoseconds.
func stamp(t time.Time, unit int64) []byte {
	b := binary.LittleEndian.AppendUint64(nil, uint64(t.Unix()))
	return binary.LittleEndian.AppendUint64(b, uint64(int64(t.Nanosecond())/unit))
}
