package socket

import (
	"bytes"
	"encoding/binary"
	"net/netip"

	"golang.org/x/sys/unix"
)

var le, be = binary.LittleEndian, binary.BigEndian

// Sizes of struct sockaddr_*.
const (
	sizeInet4      = 16
	sizeInet6      = 28
	sizeInet6Old   = 24 // without sin6_scope_id (RFC 2133)
	sizeUnixHeader = 2
	sizeUnix       = 110
	// MaxAddr is the most that an address may have (struct sockaddr_storage).
	MaxAddr = 128
)

// Family is the sa_family of an address; EINVAL if it is too short for one.
func Family(addr []byte) (int, error) {
	if len(addr) < 2 {
		return 0, unix.EINVAL
	}
	return int(le.Uint16(addr)), nil
}

// Inet decodes a sockaddr_in (inet6 false) or sockaddr_in6 for a socket of
// that family: EINVAL if it is too short, EAFNOSUPPORT for another family. A
// sockaddr_in6 may name a scope.
func Inet(addr []byte, inet6 bool) (ap netip.AddrPort, scope uint32, err error) {
	fam, err := Family(addr)
	if err != nil {
		return ap, 0, err
	}
	if !inet6 {
		switch {
		case len(addr) < sizeInet4:
			return ap, 0, unix.EINVAL
		case fam != unix.AF_INET:
			return ap, 0, unix.EAFNOSUPPORT
		}
		return netip.AddrPortFrom(netip.AddrFrom4([4]byte(addr[4:8])), be.Uint16(addr[2:])), 0, nil
	}
	switch {
	case len(addr) < sizeInet6Old:
		return ap, 0, unix.EINVAL
	case fam != unix.AF_INET6:
		return ap, 0, unix.EAFNOSUPPORT
	}
	if len(addr) >= sizeInet6 {
		scope = le.Uint32(addr[24:])
	}
	return netip.AddrPortFrom(netip.AddrFrom16([16]byte(addr[8:24])), be.Uint16(addr[2:])), scope, nil
}

// PutInet encodes ap as a sockaddr_in or sockaddr_in6; IPv4 addresses are
// mapped in the latter.
func PutInet(ap netip.AddrPort, scope uint32, inet6 bool) []byte {
	if !inet6 {
		b := make([]byte, sizeInet4)
		le.PutUint16(b, unix.AF_INET)
		be.PutUint16(b[2:], ap.Port())
		a := ap.Addr().Unmap()
		if a.Is4() {
			a4 := a.As4()
			copy(b[4:], a4[:])
		}
		return b
	}
	b := make([]byte, sizeInet6)
	le.PutUint16(b, unix.AF_INET6)
	be.PutUint16(b[2:], ap.Port())
	if ap.Addr().IsValid() {
		a := ap.Addr().As16()
		copy(b[8:], a[:])
	}
	le.PutUint32(b[24:], scope)
	return b
}

// Unix decodes a sockaddr_un (unix(7)): a path, an abstract name (its first
// byte is 0), or, where only the family is given, an empty name.
func Unix(addr []byte) (name string, err error) {
	fam, err := Family(addr)
	if err != nil {
		return "", err
	}
	switch {
	case len(addr) > sizeUnix:
		return "", unix.EINVAL
	case fam != unix.AF_UNIX:
		return "", unix.EINVAL
	}
	b := addr[sizeUnixHeader:]
	if len(b) > 0 && b[0] != 0 {
		if i := bytes.IndexByte(b, 0); i >= 0 {
			b = b[:i]
		}
	}
	return string(b), nil
}

// PutUnix encodes a name that Unix decodes.
func PutUnix(name string) []byte {
	b := make([]byte, sizeUnixHeader, sizeUnixHeader+len(name)+1)
	le.PutUint16(b, unix.AF_UNIX)
	b = append(b, name...)
	if name != "" && name[0] != 0 {
		b = append(b, 0)
	}
	return b
}
