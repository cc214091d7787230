package unixsock

import (
	"encoding/binary"
	"math"

	"golang.org/x/sys/unix"

	"github.com/nabla-build/nabla-build/rumprun/socket"
	"github.com/nabla-build/nabla-build/rumprun/vfs"
)

// keptOptions are taken and remembered; they change nothing for AF_UNIX.
var keptOptions = map[int]bool{
	unix.SO_REUSEADDR: true, unix.SO_KEEPALIVE: true, unix.SO_BROADCAST: true, unix.SO_PRIORITY: true,
	unix.SO_OOBINLINE: true, unix.SO_DONTROUTE: true, unix.SO_DEBUG: true, unix.SO_TIMESTAMP: true, unix.SO_TIMESTAMPNS: true,
	unix.SO_RCVLOWAT: true, unix.SO_NO_CHECK: true, unix.SO_MARK: true, unix.SO_BUSY_POLL: true, unix.SO_PASSSEC: true,
}

// SetOption is setsockopt(2).
func (s *Socket) SetOption(_ socket.Caller, level, name int, v []byte) error {
	if level != unix.SOL_SOCKET {
		return unix.EOPNOTSUPP
	}
	if handled, err := s.common.SetOption(name, v); handled {
		return err
	}
	if name == unix.SO_LINGER {
		if len(v) < 8 {
			return unix.EINVAL
		}
		return nil
	}
	n, err := socket.IntOption(v)
	if err != nil {
		return err
	}
	size := func(force bool) int {
		if n < 0 || n > math.MaxInt32/2 {
			n = math.MaxInt32 / 2
		}
		if !force {
			n = min(n, maxBuf/2)
		}
		return max(n*2, minSndBuf)
	}
	s.space.mu.Lock()
	defer s.space.mu.Unlock()
	switch name {
	case unix.SO_SNDBUF, unix.SO_SNDBUFFORCE:
		s.sndbuf = size(name == unix.SO_SNDBUFFORCE)
	case unix.SO_RCVBUF, unix.SO_RCVBUFFORCE:
		s.rcvbuf = size(name == unix.SO_RCVBUFFORCE)
	case unix.SO_PASSCRED:
		s.passcred = n != 0
	case unix.SO_REUSEPORT:
		return unix.EOPNOTSUPP
	default:
		if !keptOptions[name] {
			return unix.ENOPROTOOPT
		}
		if s.kept == nil {
			s.kept = map[int]int{}
		}
		s.kept[name] = n
	}
	return nil
}

// GetOption is getsockopt(2).
func (s *Socket) GetOption(_ socket.Caller, level, name int, buf []byte) (int, error) {
	if level != unix.SOL_SOCKET {
		return 0, unix.EOPNOTSUPP
	}
	if n, handled := s.common.GetOption(name, buf); handled {
		return n, nil
	}
	s.space.mu.Lock()
	defer s.space.mu.Unlock()
	v := 0
	switch name {
	case unix.SO_TYPE:
		v = s.kind.Type
	case unix.SO_DOMAIN:
		v = unix.AF_UNIX
	case unix.SO_PROTOCOL:
	case unix.SO_ERROR:
		if e, ok := s.err.(unix.Errno); ok {
			v = int(e)
		}
		s.err = nil
	case unix.SO_ACCEPTCONN:
		v = socket.Bool(s.state == listening)
	case unix.SO_SNDBUF:
		v = s.sndbuf
	case unix.SO_RCVBUF:
		v = s.rcvbuf
	case unix.SO_PASSCRED:
		v = socket.Bool(s.passcred)
	case unix.SO_LINGER:
		return copy(buf, make([]byte, 8)), nil
	case unix.SO_PEERCRED:
		return copy(buf, s.peerCred.AppendTo(nil)), nil
	case unix.SO_COOKIE:
		return copy(buf, binary.LittleEndian.AppendUint64(nil, s.ino)), nil
	default:
		if !keptOptions[name] {
			return 0, unix.ENOPROTOOPT
		}
		v = s.kept[name]
	}
	return socket.PutInt(buf, v), nil
}

// Ioctl knows SIOCINQ (FIONREAD) and SIOCOUTQ.
func (s *Socket) Ioctl(m vfs.UserMemory, req uint32, arg uintptr) (uintptr, error) {
	n := 0
	s.space.mu.Lock()
	switch req {
	case unix.TIOCINQ:
		if s.state == listening {
			s.space.mu.Unlock()
			return 0, unix.EINVAL
		}
		for _, t := range s.in {
			n += len(t.left())
			if s.datagram() {
				break
			}
		}
	case unix.TIOCOUTQ:
		n = s.out
	default:
		s.space.mu.Unlock()
		return s.space.ioctl(m, req, arg)
	}
	s.space.mu.Unlock()
	return 0, m.CopyOut(arg, binary.LittleEndian.AppendUint32(nil, uint32(n)))
}
