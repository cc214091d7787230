package socket

import (
	"golang.org/x/sys/unix"
)

const (
	sizeCmsghdr = 16
	// MaxControl is /proc/sys/net/core/optmem_max.
	MaxControl = 131072
	// MaxFiles is SCM_MAX_FD.
	MaxFiles = 253
)

func cmsgAlign(n int) int { return (n + 7) &^ 7 }

// ControlMessage is one message of cmsg(3).
type ControlMessage struct {
	Level, Type int
	Data        []byte // part of what was parsed
}

// ParseControl splits b into its messages, EINVAL if one of them is malformed.
// Data that is too short for a further header is ignored, as the kernel's
// CMSG_NXTHDR does.
func ParseControl(b []byte) ([]ControlMessage, error) {
	var out []ControlMessage
	for len(b) >= sizeCmsghdr {
		n := le.Uint64(b)
		if n < sizeCmsghdr || n > uint64(len(b)) {
			return nil, unix.EINVAL
		}
		out = append(out, ControlMessage{
			Level: int(int32(le.Uint32(b[8:]))), Type: int(int32(le.Uint32(b[12:]))), Data: b[sizeCmsghdr:n],
		})
		b = b[min(cmsgAlign(int(n)), len(b)):]
	}
	return out, nil
}

// AppendControl adds a message to b.
func AppendControl(b []byte, level, typ int, data []byte) []byte {
	b = append(b, make([]byte, cmsgAlign(len(b))-len(b))...)
	var h [sizeCmsghdr]byte
	le.PutUint64(h[:], uint64(sizeCmsghdr+len(data)))
	le.PutUint32(h[8:], uint32(level))
	le.PutUint32(h[12:], uint32(typ))
	b = append(b, h[:]...)
	b = append(b, data...)
	return append(b, make([]byte, cmsgAlign(len(b))-len(b))...)
}

// Room is how many bytes of data a message may have that goes at the end of b
// into a buffer of max bytes; negative if not even its header fits.
func Room(b []byte, max int) int { return max - cmsgAlign(len(b)) - sizeCmsghdr }

// FitsUnpadded reports whether the messages in b have room in max bytes but for
// the padding after the last one.
func FitsUnpadded(b []byte, max int) bool {
	cms, err := ParseControl(b)
	if err != nil || len(cms) == 0 {
		return len(b) <= max
	}
	last := len(cms[len(cms)-1].Data)
	return len(b)-(cmsgAlign(last)-last) <= max
}

// ParseFiles decodes the descriptors of SCM_RIGHTS: EINVAL if there are too
// many.
func ParseFiles(data []byte) ([]int, error) {
	n := len(data) / 4
	if n > MaxFiles {
		return nil, unix.EINVAL
	}
	fds := make([]int, n)
	for i := range fds {
		fds[i] = int(int32(le.Uint32(data[i*4:])))
	}
	return fds, nil
}

// ParseCredentials decodes SCM_CREDENTIALS.
func ParseCredentials(data []byte) (Credentials, error) {
	if len(data) != 12 {
		return Credentials{}, unix.EINVAL
	}
	return Credentials{PID: int32(le.Uint32(data)), UID: le.Uint32(data[4:]), GID: le.Uint32(data[8:])}, nil
}

// AppendTo encodes the credentials as struct ucred.
func (c Credentials) AppendTo(b []byte) []byte {
	b = le.AppendUint32(b, uint32(c.PID))
	b = le.AppendUint32(b, c.UID)
	return le.AppendUint32(b, c.GID)
}
