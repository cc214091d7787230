package rumprun

import (
	"encoding/binary"
	"time"

	"golang.org/x/sys/unix"

	"gvisor.dev/gvisor/pkg/waiter"

	"github.com/nabla-build/nabla-build/rumprun/socket"
)

// messageCalls send and receive on sockets.
var messageCalls = []Call{
	{unix.SYS_SENDTO, "sendto", sysSendto, Partial, "MSG_OOB is EOPNOTSUPP; MSG_FASTOPEN and MSG_ZEROCOPY change nothing"},
	{unix.SYS_RECVFROM, "recvfrom", sysRecvfrom, Partial, "MSG_OOB finds nothing; MSG_ERRQUEUE is empty"},
	{unix.SYS_SENDMSG, "sendmsg", sysSendmsg, Partial, "as sendto; of IP_PKTINFO the source address is ignored"},
	{unix.SYS_RECVMSG, "recvmsg", sysRecvmsg, Partial, "as recvfrom"},
	{unix.SYS_SENDMMSG, "sendmmsg", sysSendmmsg, Partial, "as sendmsg"},
	{unix.SYS_RECVMMSG, "recvmmsg", sysRecvmmsg, Partial, "as recvmsg"},
}

// nonblocking reports whether a call with flags must not wait.
func nonblocking(s socket.Socket, flags int) bool {
	return flags&unix.MSG_DONTWAIT != 0 || s.StatusFlags()&unix.O_NONBLOCK != 0
}

// sendMessage sends m, waiting for room; a stream takes all of it. SIGPIPE
// comes with EPIPE from a stream unless MSG_NOSIGNAL is set.
func (t *Task) sendMessage(s socket.Socket, m *socket.Message, flags int) (int, error) {
	typ := s.Kind().Type
	total := m.Len()
	done := 0
	var err error
	for {
		var n int
		op := func() (err error) {
			n, err = s.Send(t, m, flags)
			return err
		}
		if nonblocking(s, flags) {
			err = op()
		} else {
			err = t.Retry(s, waiter.WritableEvents, time.Time{}, op)
		}
		if err != nil {
			break
		}
		done += n
		if typ != unix.SOCK_STREAM || done >= total || n == 0 || nonblocking(s, flags) {
			return done, nil
		}
		m.Data = skipBytes(m.Data, n)
		m.Control, m.Files = nil, nil // they went with the first byte
	}
	if done > 0 {
		return done, nil
	}
	if err == unix.EPIPE && flags&unix.MSG_NOSIGNAL == 0 && typ == unix.SOCK_STREAM {
		t.raise(unix.SIGPIPE)
	}
	return 0, err
}

// skipBytes returns v without its first n bytes.
func skipBytes(v [][]byte, n int) [][]byte {
	for len(v) > 0 && n >= len(v[0]) {
		n -= len(v[0])
		v = v[1:]
	}
	if n == 0 {
		return v
	}
	return append([][]byte{v[0][n:]}, v[1:]...)
}

// recvMessage receives into m, waiting for something; with MSG_WAITALL a
// stream waits for all.
func (t *Task) recvMessage(s socket.Socket, m *socket.Message, flags int) (int, error) {
	all := flags&unix.MSG_WAITALL != 0 && flags&unix.MSG_PEEK == 0 && s.Kind().Type == unix.SOCK_STREAM
	total := m.Len()
	done := 0
	for {
		var n int
		op := func() (err error) {
			n, err = s.Recv(t, m, flags)
			return err
		}
		var err error
		if nonblocking(s, flags) || flags&unix.MSG_ERRQUEUE != 0 {
			err = op()
		} else {
			err = t.Retry(s, waiter.ReadableEvents, time.Time{}, op)
		}
		if err != nil {
			if done > 0 {
				return done, nil
			}
			return 0, err
		}
		done += n
		if !all || n == 0 || done >= total || len(m.Files) > 0 {
			return done, nil
		}
		m.Data = skipBytes(m.Data, n)
	}
}

// buffers is the one guest buffer of sendto and recvfrom, as a Message's Data.
func (t *Task) buffers(addr, n uintptr, write bool) ([][]byte, error) {
	n = min(n, maxRW)
	b, err := t.userBuf(addr, n, write)
	switch {
	case err != nil, n == 0:
		return nil, err
	case uintptr(len(b)) < n && !write:
		return nil, unix.EFAULT // a message is not sent in part
	}
	return [][]byte{b}, nil
}

// sysSendto is sendto(2).
func sysSendto(t *Task, a Args) (uintptr, error) {
	s, d, err := t.socket(a.Int(0))
	if err != nil {
		return 0, err
	}
	defer d.DecRef()
	var m socket.Message
	if m.Data, err = t.buffers(a[1], a[2], false); err != nil {
		return 0, err
	}
	if a[4] != 0 {
		if m.Addr, err = t.addrArg(a[4], a.Int(5)); err != nil {
			return 0, err
		}
	}
	n, err := t.sendMessage(s, &m, a.Int(3))
	return uintptr(n), err
}

// sysRecvfrom is recvfrom(2).
func sysRecvfrom(t *Task, a Args) (uintptr, error) {
	s, d, err := t.socket(a.Int(0))
	if err != nil {
		return 0, err
	}
	defer d.DecRef()
	m := socket.Message{WantAddr: a[4] != 0}
	if m.Data, err = t.buffers(a[1], a[2], true); err != nil {
		return 0, err
	}
	n, err := t.recvMessage(s, &m, a.Int(3))
	if err != nil {
		return 0, err
	}
	dropFiles(m.Files)
	if err := t.putAddr(a[4], a[5], m.Addr); err != nil {
		return 0, err
	}
	return uintptr(n), nil
}

func dropFiles(fs []socket.FileRef) {
	for _, f := range fs {
		f.DecRef()
	}
}

// msghdr is struct msghdr (sendmsg(2)).
type msghdr struct {
	Name       uintptr
	Namelen    int32
	_          int32
	Iov        uintptr
	Iovlen     uint64
	Control    uintptr
	Controllen uint64
	Flags      int32
	_          int32
}

// mmsghdr is struct mmsghdr (sendmmsg(2)).
type mmsghdr struct {
	msghdr
	Len uint32
	_   uint32
}

const (
	sizeMsghdr  = 56
	sizeMmsghdr = 64
	maxIovlen   = 1024
	// Offsets of the fields that recvmsg writes.
	offNamelen    = 8
	offControllen = 40
	offFlags      = 48
	offMmsgLen    = 56
)

func (t *Task) sendmsg(s socket.Socket, addr uintptr, flags int) (int, error) {
	h, err := copyIn[msghdr](t, addr)
	if err != nil {
		return 0, err
	}
	var m socket.Message
	if h.Name != 0 && h.Namelen != 0 {
		if m.Addr, err = t.addrArg(h.Name, int(min(h.Namelen, socket.MaxAddr))); err != nil {
			return 0, err
		}
	}
	if h.Iovlen > maxIovlen {
		return 0, unix.EMSGSIZE
	}
	if m.Data, err = t.iovecs(h.Iov, int(h.Iovlen), false); err != nil {
		return 0, err
	}
	if h.Control != 0 && h.Controllen > 0 {
		if h.Controllen > socket.MaxControl {
			return 0, unix.ENOBUFS
		}
		m.Control = make([]byte, h.Controllen)
		if err := t.CopyIn(h.Control, m.Control); err != nil {
			return 0, err
		}
		if s.Kind().Family == unix.AF_UNIX {
			if m.Files, err = t.controlFiles(m.Control); err != nil {
				return 0, err
			}
		}
	}
	files := m.Files
	n, err := t.sendMessage(s, &m, flags)
	if err != nil {
		dropFiles(files)
	}
	return n, err
}

// controlFiles takes references to the descriptions that SCM_RIGHTS messages
// name.
func (t *Task) controlFiles(control []byte) ([]socket.FileRef, error) {
	cms, err := socket.ParseControl(control)
	if err != nil {
		return nil, err
	}
	var out []socket.FileRef
	for _, c := range cms {
		if c.Level != unix.SOL_SOCKET || c.Type != unix.SCM_RIGHTS {
			continue
		}
		fds, err := socket.ParseFiles(c.Data)
		if err == nil && len(out)+len(fds) > socket.MaxFiles {
			err = unix.EINVAL
		}
		for _, fd := range fds {
			if err != nil {
				break
			}
			var d *Description
			if d, err = t.p.fds.Get(fd); err == nil {
				out = append(out, d)
			}
		}
		if err != nil {
			dropFiles(out)
			return nil, err
		}
	}
	return out, nil
}

func (t *Task) recvmsg(s socket.Socket, addr uintptr, flags int) (int, error) {
	h, err := copyIn[msghdr](t, addr)
	if err != nil {
		return 0, err
	}
	if h.Namelen < 0 {
		return 0, unix.EINVAL
	}
	if h.Iovlen > maxIovlen {
		return 0, unix.EMSGSIZE
	}
	m := socket.Message{WantAddr: h.Name != 0, WantControl: true}
	if m.Data, err = t.iovecs(h.Iov, int(h.Iovlen), true); err != nil {
		return 0, err
	}
	n, err := t.recvMessage(s, &m, flags)
	if err != nil {
		return 0, err
	}
	out := m.Flags
	if flags&unix.MSG_CMSG_CLOEXEC != 0 {
		out |= unix.MSG_CMSG_CLOEXEC
	}
	room := int(min(h.Controllen, socket.MaxControl))
	if h.Control == 0 {
		room = 0
	}
	control := m.Control
	if len(m.Files) > 0 {
		fit := max(socket.Room(control, room)/4, 0)
		var fds []byte
		for i, f := range m.Files {
			if i >= fit {
				out |= unix.MSG_CTRUNC
				f.DecRef()
				continue
			}
			fd, err := t.p.fds.Install(f.(*Description), 0, flags&unix.MSG_CMSG_CLOEXEC != 0)
			if err != nil {
				out |= unix.MSG_CTRUNC
				fit = 0
				f.DecRef()
				continue
			}
			fds = binary.LittleEndian.AppendUint32(fds, uint32(fd))
		}
		if len(fds) > 0 {
			control = socket.AppendControl(control, unix.SOL_SOCKET, unix.SCM_RIGHTS, fds)
		}
	}
	if len(control) > room {
		// The kernel cuts the message that does not fit; the padding of the
		// last one is not worth a mention.
		if !socket.FitsUnpadded(control, room) {
			out |= unix.MSG_CTRUNC
		}
		control = control[:room]
	}
	if len(control) > 0 {
		if err := t.CopyOut(h.Control, control); err != nil {
			return 0, err
		}
	}
	if h.Name != 0 {
		if err := t.CopyOut(h.Name, m.Addr[:min(len(m.Addr), int(h.Namelen))]); err != nil {
			return 0, err
		}
		if err := t.putUint32(addr+offNamelen, uint32(len(m.Addr))); err != nil {
			return 0, err
		}
	}
	if err := copyOut(t, addr+offControllen, uint64(len(control))); err != nil {
		return 0, err
	}
	return n, t.putUint32(addr+offFlags, uint32(out))
}

// sysSendmsg is sendmsg(2).
func sysSendmsg(t *Task, a Args) (uintptr, error) {
	s, d, err := t.socket(a.Int(0))
	if err != nil {
		return 0, err
	}
	defer d.DecRef()
	n, err := t.sendmsg(s, a[1], a.Int(2))
	return uintptr(n), err
}

// sysRecvmsg is recvmsg(2).
func sysRecvmsg(t *Task, a Args) (uintptr, error) {
	s, d, err := t.socket(a.Int(0))
	if err != nil {
		return 0, err
	}
	defer d.DecRef()
	n, err := t.recvmsg(s, a[1], a.Int(2))
	return uintptr(n), err
}

// sysSendmmsg is sendmmsg(2).
func sysSendmmsg(t *Task, a Args) (uintptr, error) {
	s, d, err := t.socket(a.Int(0))
	if err != nil {
		return 0, err
	}
	defer d.DecRef()
	count := min(uint32(a[2]), maxIovlen)
	for i := range uintptr(count) {
		addr := a[1] + i*sizeMmsghdr
		n, err := t.sendmsg(s, addr, a.Int(3))
		if err == nil {
			err = t.putUint32(addr+offMmsgLen, uint32(n))
		}
		if err != nil {
			if i > 0 {
				return i, nil
			}
			return 0, err
		}
	}
	return uintptr(count), nil
}

// sysRecvmmsg is recvmmsg(2). As in Linux the timeout is looked at after each
// message only.
func sysRecvmmsg(t *Task, a Args) (uintptr, error) {
	deadline, _, err := t.timeoutArg(a[4])
	if err != nil {
		return 0, err
	}
	expires := a[4] != 0
	s, d, err := t.socket(a.Int(0))
	if err != nil {
		return 0, err
	}
	defer d.DecRef()
	flags := a.Int(3)
	count := min(uint32(a[2]), maxIovlen)
	done := uintptr(0)
	for done < uintptr(count) {
		addr := a[1] + done*sizeMmsghdr
		var n int
		if n, err = t.recvmsg(s, addr, flags&^unix.MSG_WAITFORONE); err == nil {
			err = t.putUint32(addr+offMmsgLen, uint32(n))
		}
		if err != nil {
			break
		}
		done++
		if flags&unix.MSG_WAITFORONE != 0 {
			flags |= unix.MSG_DONTWAIT
		}
		if expires && !time.Now().Before(deadline) {
			break
		}
	}
	t.leaveTimespec(a[4], deadline)
	if done > 0 {
		return done, nil
	}
	return 0, err
}
