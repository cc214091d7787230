// Package socket is the contract between the socket system calls and the
// address families, and the encodings that both need: socket addresses and
// control messages as guest memory holds them. It may import vfs. The type at
// its heart is Socket.
package socket

import (
	"sync/atomic"
	"time"

	"golang.org/x/sys/unix"

	"github.com/nabla-build/nabla-build/rumprun/vfs"
)

// Socket is a File that socket(2) or accept(2) made. No method blocks: what
// would is unix.EAGAIN (a connection that has been started: EINPROGRESS), and
// the caller waits for the file's events. All errors are unix.Errno values.
// Addresses are the bytes of a struct sockaddr_*.
type Socket interface {
	vfs.File

	// Kind is what socket(2) was called with; the type without flags.
	Kind() Kind
	// Common holds the state that all families keep alike.
	Common() *Common

	Bind(c Caller, addr []byte) error
	// Listen takes a backlog of at least 0.
	Listen(backlog int) error
	// Connect answers EINPROGRESS when it has started what takes time; called
	// again when the socket is writable it answers the outcome.
	Connect(c Caller, addr []byte) error
	// Accept takes a connection; peer is its address.
	Accept() (s Socket, peer []byte, err error)
	Shutdown(how int) error
	LocalAddr() ([]byte, error)
	PeerAddr() ([]byte, error)

	// Send sends m.Data as one unit where the type has units; a stream may
	// take a part. flags are MSG_* of send(2).
	Send(c Caller, m *Message, flags int) (int, error)
	// Recv receives into m.Data and fills in the rest of m. It returns the
	// count that recv(2) does.
	Recv(c Caller, m *Message, flags int) (int, error)

	// GetOption stores the option's value into buf, at most len(buf) bytes,
	// and returns how many. SetOption reads it from v.
	GetOption(c Caller, level, name int, buf []byte) (int, error)
	SetOption(c Caller, level, name int, v []byte) error
}

// Kind is what a socket is.
type Kind struct {
	Family, Type, Protocol int
}

// Message is what one send or receive moves.
type Message struct {
	// Data are the buffers, guest memory: not kept.
	Data [][]byte
	// Addr is the destination (nil: the peer), or the source that was
	// received; it may be kept.
	Addr []byte
	// Control are the control messages, encoded.
	Control []byte
	// Files are the descriptions of SCM_RIGHTS: a Send that succeeds takes
	// their references over, a Recv hands them to the caller.
	Files []FileRef
	// WantAddr and WantControl tell Recv what is worth making.
	WantAddr, WantControl bool
	// Flags are msg_flags of recvmsg(2).
	Flags int
}

// Len is the number of bytes in Data.
func (m *Message) Len() int {
	n := 0
	for _, b := range m.Data {
		n += len(b)
	}
	return n
}

// FileRef is a reference to an open file description.
type FileRef interface {
	IncRef()
	DecRef()
}

// Credentials are struct ucred of unix(7).
type Credentials struct {
	PID      int32
	UID, GID uint32
}

// Caller is the thread on whose behalf a method runs.
type Caller interface {
	Credentials() Credentials
	// MayClaim reports whether the thread may send cr as its credentials.
	MayClaim(cr Credentials) bool
	// BindPath makes a socket inode at path and attaches object to it.
	BindPath(path string, object any) error
	// LookupPath finds the object of the socket inode at path: ECONNREFUSED if
	// it has none.
	LookupPath(path string) (any, error)
}

// Common is the state that the system call layer needs of every socket.
type Common struct {
	recvTimeout, sendTimeout atomic.Int64
}

// RecvTimeout and SendTimeout are SO_RCVTIMEO and SO_SNDTIMEO; 0: none.
func (c *Common) RecvTimeout() time.Duration { return time.Duration(c.recvTimeout.Load()) }
func (c *Common) SendTimeout() time.Duration { return time.Duration(c.sendTimeout.Load()) }

// SetOption handles the options of SOL_SOCKET that live here; handled is false
// for others.
func (c *Common) SetOption(name int, v []byte) (handled bool, err error) {
	var t *atomic.Int64
	switch name {
	case unix.SO_RCVTIMEO, unix.SO_RCVTIMEO_NEW:
		t = &c.recvTimeout
	case unix.SO_SNDTIMEO, unix.SO_SNDTIMEO_NEW:
		t = &c.sendTimeout
	default:
		return false, nil
	}
	if len(v) < 16 {
		return true, unix.EINVAL
	}
	sec, usec := int64(le.Uint64(v)), int64(le.Uint64(v[8:]))
	switch {
	case usec < 0 || usec >= 1e6:
		return true, unix.EDOM
	case sec < 0, sec > 1<<33:
		t.Store(0)
		if sec < 0 {
			t.Store(1) // an instant, as the kernel has it
		}
	default:
		t.Store(sec*int64(time.Second) + usec*int64(time.Microsecond))
	}
	return true, nil
}

// GetOption is SetOption's counterpart.
func (c *Common) GetOption(name int, buf []byte) (n int, handled bool) {
	var d time.Duration
	switch name {
	case unix.SO_RCVTIMEO, unix.SO_RCVTIMEO_NEW:
		d = c.RecvTimeout()
	case unix.SO_SNDTIMEO, unix.SO_SNDTIMEO_NEW:
		d = c.SendTimeout()
	default:
		return 0, false
	}
	var b [16]byte
	le.PutUint64(b[:], uint64(d/time.Second))
	le.PutUint64(b[8:], uint64(d%time.Second/time.Microsecond))
	return copy(buf, b[:]), true
}

// IntOption decodes the int that most options are; EINVAL if it is too short.
func IntOption(v []byte) (int, error) {
	if len(v) < 4 {
		return 0, unix.EINVAL
	}
	return int(int32(le.Uint32(v))), nil
}

// PutInt encodes an int option.
func PutInt(buf []byte, v int) int {
	var b [4]byte
	le.PutUint32(b[:], uint32(v))
	return copy(buf, b[:])
}

// Bool is 1 for true.
func Bool(b bool) int {
	if b {
		return 1
	}
	return 0
}
