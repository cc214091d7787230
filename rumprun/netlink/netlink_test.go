package netlink

import (
	crand "crypto/rand"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/nabla-build/nabla-build/rumprun/inet"
	"github.com/nabla-build/nabla-build/rumprun/socket"
)

func newSpace(t testing.TB) *Space {
	t.Helper()
	next := func() uint64 { return 1 }
	s, err := inet.New(inet.Config{Random: crand.Reader, NextIno: next})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(s.Destroy)
	return New(s, next)
}

// dump asks as package syscall's NetlinkRIB does and parses the answer with
// its parser, which is what Go's net.Interfaces uses.
func dump(t *testing.T, s *Socket, typ uint16) []syscall.NetlinkMessage {
	t.Helper()
	req := message(typ, unix.NLM_F_DUMP|unix.NLM_F_REQUEST, 1, 0, []byte{unix.AF_UNSPEC})
	if _, err := s.Write(req); err != nil {
		t.Fatal(err)
	}
	var tab []byte
	buf := make([]byte, 4096)
	for {
		n, err := s.Read(buf)
		if err != nil {
			t.Fatal(err)
		}
		tab = append(tab, buf[:n]...)
		msgs, err := syscall.ParseNetlinkMessage(buf[:n])
		if err != nil {
			t.Fatal(err)
		}
		for _, m := range msgs {
			if m.Header.Seq != 1 {
				t.Fatalf("sequence number %d", m.Header.Seq)
			}
			if m.Header.Type == unix.NLMSG_DONE {
				all, err := syscall.ParseNetlinkMessage(tab)
				if err != nil {
					t.Fatal(err)
				}
				return all
			}
		}
	}
}

func TestLoopbackIsShown(t *testing.T) {
	sp := newSpace(t)
	s, err := sp.NewSocket(unix.SOCK_RAW, unix.NETLINK_ROUTE, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer s.Release()
	links := dump(t, s, unix.RTM_GETLINK)
	if len(links) != 2 {
		t.Fatalf("%d messages, want lo and the end", len(links))
	}
	attrs, err := syscall.ParseNetlinkRouteAttr(&links[0])
	if err != nil {
		t.Fatal(err)
	}
	name := ""
	for _, a := range attrs {
		if a.Attr.Type == unix.IFLA_IFNAME {
			name = string(a.Value)
		}
	}
	if name != "lo\x00" {
		t.Errorf("the interface is called %q", name)
	}
	addrs := dump(t, s, unix.RTM_GETADDR)
	if len(addrs) != 3 {
		t.Errorf("%d messages, want 127.0.0.1, ::1 and the end", len(addrs))
	}
	dump(t, s, unix.RTM_GETROUTE)
	// What changes is refused.
	if _, err := s.Write(message(unix.RTM_NEWLINK, unix.NLM_F_REQUEST|unix.NLM_F_ACK, 7, 0, make([]byte, 16))); err != nil {
		t.Fatal(err)
	}
	buf := make([]byte, 4096)
	n, err := s.Read(buf)
	if err != nil || n < 20 || le.Uint16(buf[4:]) != unix.NLMSG_ERROR || unix.Errno(-int32(le.Uint32(buf[16:]))) != unix.EPERM {
		t.Errorf("a change is answered by %x, %v", buf[:n], err)
	}
}

func FuzzRequests(f *testing.F) {
	f.Add(message(unix.RTM_GETLINK, unix.NLM_F_DUMP|unix.NLM_F_REQUEST, 1, 0, []byte{0}))
	f.Add(message(unix.RTM_GETLINK, unix.NLM_F_REQUEST, 1, 0, make([]byte, 16), attr(unix.IFLA_IFNAME, []byte("lo\x00"))))
	f.Add(message(unix.RTM_GETROUTE, unix.NLM_F_REQUEST, 1, 0, make([]byte, 12), attr(unix.RTA_DST, []byte{127, 0, 0, 1})))
	sp := newSpace(f)
	f.Fuzz(func(t *testing.T, b []byte) {
		for _, d := range sp.answer(b, 1) {
			if _, err := syscall.ParseNetlinkMessage(d); err != nil {
				t.Errorf("answer %x: %v", d, err)
			}
		}
	})
}

var _ socket.Socket = (*Socket)(nil)
