package socket

import (
	"bytes"
	"net/netip"
	"testing"

	"golang.org/x/sys/unix"
)

func TestControlRoundTrip(t *testing.T) {
	var b []byte
	for i := range 5 {
		b = AppendControl(b, i, 10+i, bytes.Repeat([]byte{byte(i)}, i*3))
	}
	cms, err := ParseControl(b)
	if err != nil || len(cms) != 5 {
		t.Fatalf("%d messages, %v", len(cms), err)
	}
	for i, c := range cms {
		if c.Level != i || c.Type != 10+i || !bytes.Equal(c.Data, bytes.Repeat([]byte{byte(i)}, i*3)) {
			t.Errorf("message %d is %+v", i, c)
		}
	}
	// The encoding is the C library's, which x/sys has, too.
	rights := AppendControl(nil, unix.SOL_SOCKET, unix.SCM_RIGHTS, []byte{5, 0, 0, 0})
	if want := unix.UnixRights(5); !bytes.Equal(rights, want) {
		t.Errorf("SCM_RIGHTS is %x, want %x", rights, want)
	}
	creds := AppendControl(nil, unix.SOL_SOCKET, unix.SCM_CREDENTIALS, Credentials{7, 8, 9}.AppendTo(nil))
	if want := unix.UnixCredentials(&unix.Ucred{Pid: 7, Uid: 8, Gid: 9}); !bytes.Equal(creds, want) {
		t.Errorf("SCM_CREDENTIALS is %x, want %x", creds, want)
	}
}

func FuzzControl(f *testing.F) {
	f.Add(unix.UnixRights(1, 2, 3), 16)
	f.Add(AppendControl(AppendControl(nil, 1, 2, []byte("abc")), 3, 4, nil), 30)
	f.Add([]byte{16, 0, 0, 0, 0, 0, 0, 0x80, 0, 0, 0, 0, 0, 0, 0, 0}, 0)
	f.Fuzz(func(t *testing.T, b []byte, max int) {
		FitsUnpadded(b, max)
		cms, err := ParseControl(b)
		if err != nil {
			return
		}
		want, werr := unix.ParseSocketControlMessage(b)
		if werr == nil && len(b) >= sizeCmsghdr && len(want) != len(cms) {
			t.Errorf("%d messages, x/sys finds %d", len(cms), len(want))
		}
		var again []byte
		for _, c := range cms {
			ParseFiles(c.Data)
			ParseCredentials(c.Data)
			again = AppendControl(again, c.Level, c.Type, c.Data)
		}
		if back, err := ParseControl(again); err != nil || len(back) != len(cms) {
			t.Errorf("encoded again: %d messages, %v; want %d", len(back), err, len(cms))
		}
	})
}

func FuzzAddresses(f *testing.F) {
	f.Add(PutInet(netip.MustParseAddrPort("127.0.0.1:80"), 0, false))
	f.Add(PutInet(netip.MustParseAddrPort("[fe80::1]:80"), 2, true))
	f.Add(PutUnix("/run/x"))
	f.Add(PutUnix("\x00abstract\x00name"))
	f.Add([]byte{1})
	f.Fuzz(func(t *testing.T, b []byte) {
		for _, six := range []bool{false, true} {
			if ap, scope, err := Inet(b, six); err == nil {
				back, s, err := Inet(PutInet(ap, scope, six), six)
				if err != nil || back != ap || s != scope {
					t.Errorf("%x: %v%%%d comes back as %v%%%d, %v", b, ap, scope, back, s, err)
				}
			}
		}
		if name, err := Unix(b); err == nil {
			if back, err := Unix(PutUnix(name)); err == nil && back != name {
				t.Errorf("%x: %q comes back as %q", b, name, back)
			}
		}
	})
}
