package rumprun

import (
	"bytes"
	"encoding/binary"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/nabla-build/nabla-build/rumprun/socket"
)

// parcel is a message of sendmsg or recvmsg in both kernels' memory.
type parcel struct {
	hdr                 [2][]byte // struct msghdr
	data, name, control [2][]byte
}

// newParcel lays out buffers with the given content, the same in both but for
// the control data.
func (b *both) newParcel(data []byte, name []byte, control [2][]byte) *parcel {
	p := &parcel{}
	for k := range p.hdr {
		put := func(v []byte) []byte {
			s := b.alloc(max(len(v), 1))[:len(v)]
			copy(s, v)
			return s
		}
		p.data[k], p.name[k], p.control[k] = put(data), put(name), put(control[k])
		iov := b.alloc(16)
		binary.LittleEndian.PutUint64(iov, uint64(addr(p.data[k])))
		binary.LittleEndian.PutUint64(iov[8:], uint64(len(data)))
		h := b.alloc(sizeMsghdr)
		if name != nil {
			binary.LittleEndian.PutUint64(h, uint64(addr(p.name[k])))
			binary.LittleEndian.PutUint32(h[8:], uint32(len(name)))
		}
		binary.LittleEndian.PutUint64(h[16:], uint64(addr(iov)))
		binary.LittleEndian.PutUint64(h[24:], 1)
		if control[k] != nil {
			binary.LittleEndian.PutUint64(h[32:], uint64(addr(p.control[k])))
			binary.LittleEndian.PutUint64(h[40:], uint64(len(control[k])))
		}
		p.hdr[k] = h
	}
	return p
}

// msg makes the call with the headers in place.
func (b *both) msg(nr uintptr, f fdArg, p *parcel, flags int) outcome {
	b.t.Helper()
	var n [2]uintptr
	var err [2]unix.Errno
	n[0], _, err[0] = unix.RawSyscall(nr, uintptr(b.fds[f][0]), addr(p.hdr[0]), uintptr(flags))
	r, e := b.task.k.table[nr].Handler(b.task, Args{uintptr(b.fds[f][1]), addr(p.hdr[1]), uintptr(flags)})
	if e != nil {
		err[1] = e.(unix.Errno)
	}
	n[1] = r
	name := b.task.k.table[nr].Name
	if err[0] != err[1] {
		b.t.Errorf("%s: errno %v, want %v", name, err[1], err[0])
	}
	if err[0] == 0 && err[1] == 0 {
		if n[0] != n[1] {
			b.t.Errorf("%s: result %d, want %d", name, n[1], n[0])
		}
		// Lengths and flags of the header.
		for _, at := range [][2]int{{8, 12}, {40, 48}, {48, 52}} {
			if g, w := p.hdr[1][at[0]:at[1]], p.hdr[0][at[0]:at[1]]; !bytes.Equal(g, w) {
				b.t.Errorf("%s: header at %d is %x, want %x", name, at[0], g, w)
			}
		}
		if !bytes.Equal(p.data[0], p.data[1]) {
			b.t.Errorf("%s: data %x, want %x", name, p.data[1], p.data[0])
		}
		if !bytes.Equal(p.name[0], p.name[1]) {
			b.t.Errorf("%s: address %x, want %x", name, p.name[1], p.name[0])
		}
	}
	return outcome{n: n[1], err: e}
}

// rights is an SCM_RIGHTS message in both.
func (b *both) rights(fds ...fdArg) [2][]byte {
	var out [2][]byte
	for k := range out {
		var v []byte
		for _, f := range fds {
			v = binary.LittleEndian.AppendUint32(v, uint32(b.fds[f][k]))
		}
		out[k] = socket.AppendControl(nil, unix.SOL_SOCKET, unix.SCM_RIGHTS, v)
	}
	return out
}

// received takes the descriptors out of a received message.
func (b *both) received(p *parcel) []fdArg {
	b.t.Helper()
	var got [2][]int
	for k := range got {
		n := binary.LittleEndian.Uint64(p.hdr[k][40:])
		cms, err := socket.ParseControl(p.control[k][:n])
		if err != nil {
			b.t.Fatal(err)
		}
		for _, c := range cms {
			if c.Type == unix.SCM_RIGHTS {
				got[k], _ = socket.ParseFiles(c.Data)
			}
		}
	}
	if len(got[0]) != len(got[1]) {
		b.t.Fatalf("%d descriptors, want %d", len(got[1]), len(got[0]))
	}
	var out []fdArg
	for i := range got[0] {
		out = append(out, fdArg(len(b.fds)))
		b.fds = append(b.fds, [2]int{got[0][i], got[1][i]})
	}
	return out
}

func space(n int) [2][]byte { return [2][]byte{make([]byte, n), make([]byte, n)} }

var nothing [2][]byte

func TestPassedDescriptorsAgainstKernel(t *testing.T) {
	for _, typ := range []int{unix.SOCK_STREAM, unix.SOCK_DGRAM, unix.SOCK_SEQPACKET} {
		b := newBoth(t)
		x, y := b.pair4(typ)
		r, w := b.pair(unix.SYS_PIPE2, outRaw(8), unix.O_NONBLOCK)
		send := func(s string, control [2][]byte) {
			t.Helper()
			b.msg(unix.SYS_SENDMSG, x, b.newParcel([]byte(s), nil, control), nosignal)
		}
		recv := func(n, room, flags int) []fdArg {
			t.Helper()
			p := b.newParcel(make([]byte, n), make([]byte, 110), space(room))
			if o := b.msg(unix.SYS_RECVMSG, y, p, flags); o.err != nil {
				return nil
			}
			return b.received(p)
		}
		send("two", b.rights(r, w))
		for i, f := range recv(100, 100, 0) {
			b.call(unix.SYS_FCNTL, f, unix.F_GETFD)
			if i == 1 {
				b.call(unix.SYS_WRITE, f, []byte("through"), 7)
			}
		}
		b.call(unix.SYS_READ, r, outBuf(20), 20)
		// Close-on-exec, peeking, too little room, none.
		send("one", b.rights(r))
		for _, f := range recv(100, 100, unix.MSG_PEEK) {
			b.close(f)
		}
		for _, f := range recv(100, 100, unix.MSG_CMSG_CLOEXEC) {
			b.call(unix.SYS_FCNTL, f, unix.F_GETFD)
		}
		send("cut", b.rights(r, w))
		recv(100, 20, 0)
		send("none", b.rights(r, w))
		recv(100, 0, 0)
		send("tiny", b.rights(r))
		recv(100, 10, 0)
		// A stream keeps what has descriptors apart.
		send("a", nothing)
		send("b", b.rights(r))
		send("c", nothing)
		send("d", b.rights(w))
		for range 5 {
			recv(100, 100, 0)
		}
		// Descriptors that are not.
		bad := socket.AppendControl(nil, unix.SOL_SOCKET, unix.SCM_RIGHTS, []byte{0xe7, 3, 0, 0})
		send("bad", [2][]byte{bad, bad})
		send("malformed", [2][]byte{le64(1 << 40), le64(1 << 40)})
		long := append(le64(1<<40), le64(0)...)
		send("malformed", [2][]byte{long, long})
		unknown := socket.AppendControl(nil, unix.SOL_SOCKET, 99, []byte{1})
		send("unknown", [2][]byte{unknown, unknown})
		recv(100, 100, unix.MSG_DONTWAIT)
		// Credentials, once asked for.
		b.setInt(y, unix.SOL_SOCKET, unix.SO_PASSCRED, 1)
		send("cred", nothing)
		p := b.newParcel(make([]byte, 10), nil, space(100))
		b.msg(unix.SYS_RECVMSG, y, p, 0)
		cms, err := socket.ParseControl(p.control[1][:binary.LittleEndian.Uint64(p.hdr[1][40:])])
		if err != nil || len(cms) == 0 || cms[0].Type != unix.SCM_CREDENTIALS || cms[0].Data[0] != byte(b.task.p.pid) {
			t.Errorf("credentials %x", p.control[1])
		}
		// In flight when the socket goes: the pipe's end goes with it.
		send("lost", b.rights(w))
		b.close(w)
		b.close(y)
		b.ready("pipe", r)
	}
}

func TestMessagesAgainstKernel(t *testing.T) {
	b := newBoth(t)
	s := b.newFD(unix.SYS_SOCKET, unix.AF_INET, unix.SOCK_DGRAM|unix.SOCK_NONBLOCK, 0)
	b.call(unix.SYS_BIND, s, inetAddr(127, 0, 0, 1, 0), 16)
	to := b.name(unix.SYS_GETSOCKNAME, s)
	c := b.newFD(unix.SYS_SOCKET, unix.AF_INET, unix.SOCK_DGRAM|unix.SOCK_NONBLOCK, 0)
	b.setInt(s, unix.IPPROTO_IP, unix.IP_PKTINFO, 1)
	b.setInt(s, unix.IPPROTO_IP, unix.IP_RECVTTL, 1)
	b.setInt(s, unix.IPPROTO_IP, unix.IP_RECVTOS, 1)
	b.call(unix.SYS_CONNECT, c, to, 16)
	b.msg(unix.SYS_SENDMSG, c, b.newParcel([]byte("hello"), nil, nothing), 0)
	ttl := socket.AppendControl(nil, unix.IPPROTO_IP, unix.IP_TTL, []byte{9, 0, 0, 0})
	b.msg(unix.SYS_SENDMSG, c, b.newParcel([]byte("ttl"), nil, [2][]byte{ttl, ttl}), 0)
	for _, v := range [][]byte{{0, 0, 0, 0}, {0, 1, 0, 0}, {1}} {
		bad := socket.AppendControl(nil, unix.IPPROTO_IP, unix.IP_TTL, v)
		b.msg(unix.SYS_SENDMSG, c, b.newParcel([]byte("bad"), nil, [2][]byte{bad, bad}), 0)
	}
	settle()
	for range 3 {
		p := b.newParcel(make([]byte, 4), nil, space(200))
		if o := b.msg(unix.SYS_RECVMSG, s, p, 0); o.err != nil {
			continue
		}
		var cms [2][]socket.ControlMessage
		for k := range cms {
			cms[k], _ = socket.ParseControl(p.control[k][:binary.LittleEndian.Uint64(p.hdr[k][40:])])
		}
		for _, want := range cms[0] {
			found := false
			for _, c := range cms[1] {
				if c.Type == want.Type && c.Level == want.Level {
					found = true
					g, w := c.Data, want.Data
					if !bytes.Equal(g, w) {
						t.Errorf("control message %d: %x, want %x", c.Type, g, w)
					}
				}
			}
			if !found {
				t.Errorf("no control message %d", want.Type)
			}
		}
	}
}
