package netlink

import (
	"encoding/binary"

	"golang.org/x/sys/unix"

	"gvisor.dev/gvisor/pkg/tcpip"
	"gvisor.dev/gvisor/pkg/tcpip/header"

	"github.com/nabla-build/nabla-build/rumprun/inet"
)

const (
	sizeHeader = 16 // struct nlmsghdr
	// batch is how much of a dump goes into one datagram: what the buffers of
	// all libraries hold.
	batch = 4096
)

func align(n int) int { return (n + 3) &^ 3 }

// request is one message that a guest sent.
type request struct {
	typ, flags uint16
	seq        uint32
	body       []byte
	raw        []byte // all of it
}

// parse splits b into requests; what is malformed ends it, as in the kernel
// (netlink_rcv_skb).
func parse(b []byte) []request {
	var out []request
	for len(b) >= sizeHeader {
		n := int(le.Uint32(b))
		if n < sizeHeader || n > len(b) {
			return out
		}
		out = append(out, request{typ: le.Uint16(b[4:]), flags: le.Uint16(b[6:]), seq: le.Uint32(b[8:]), body: b[sizeHeader:n], raw: b[:n]})
		b = b[min(align(n), len(b)):]
	}
	return out
}

// message makes a message: header, then parts.
func message(typ, flags uint16, seq, port uint32, parts ...[]byte) []byte {
	n := sizeHeader
	for _, p := range parts {
		n += len(p)
	}
	b := make([]byte, sizeHeader, align(n))
	le.PutUint32(b, uint32(n))
	le.PutUint16(b[4:], typ)
	le.PutUint16(b[6:], flags)
	le.PutUint32(b[8:], seq)
	le.PutUint32(b[12:], port)
	for _, p := range parts {
		b = append(b, p...)
	}
	return append(b, make([]byte, align(n)-n)...)
}

// attr is one attribute (struct rtattr).
func attr(typ uint16, v []byte) []byte {
	b := make([]byte, 4, 4+align(len(v)))
	le.PutUint16(b, uint16(4+len(v)))
	le.PutUint16(b[2:], typ)
	b = append(b, v...)
	return append(b, make([]byte, align(len(v))-len(v))...)
}

func u32(v uint32) []byte { return binary.LittleEndian.AppendUint32(nil, v) }

// answer makes the datagrams that answer the requests in b, from port.
func (sp *Space) answer(b []byte, port uint32) [][]byte {
	var out [][]byte
	for _, r := range parse(b) {
		if r.flags&unix.NLM_F_REQUEST == 0 || r.typ < 16 {
			continue // control messages: nothing to do
		}
		errno := unix.Errno(0)
		var msgs [][]byte
		dump := r.flags&unix.NLM_F_DUMP == unix.NLM_F_DUMP
		flags := uint16(0)
		if dump {
			flags = unix.NLM_F_MULTI
		}
		switch r.typ {
		case unix.RTM_GETLINK:
			msgs, errno = sp.links(r, dump, flags, port)
		case unix.RTM_GETADDR:
			msgs, errno = sp.addresses(r, dump, flags, port)
		case unix.RTM_GETROUTE:
			msgs, errno = sp.routes(r, dump, flags, port)
		case unix.RTM_GETNEIGH, unix.RTM_GETRULE, unix.RTM_GETQDISC:
			if !dump {
				errno = unix.EOPNOTSUPP
			}
		default:
			errno = unix.EOPNOTSUPP
			if (r.typ-unix.RTM_NEWLINK)%4 != 2 { // NEW, DEL, GET, SET
				errno = unix.EPERM
			}
		}
		switch {
		case errno != 0:
			out = append(out, failure(r, port, errno))
			continue
		case dump:
			out = append(out, gather(msgs)...)
			out = append(out, message(unix.NLMSG_DONE, unix.NLM_F_MULTI, r.seq, port, u32(0)))
			continue
		}
		out = append(out, gather(msgs)...)
		if r.flags&unix.NLM_F_ACK != 0 {
			out = append(out, failure(r, port, 0))
		}
	}
	return out
}

// gather puts messages together into datagrams of at most batch bytes.
func gather(msgs [][]byte) [][]byte {
	var out [][]byte
	for _, m := range msgs {
		if l := len(out); l > 0 && len(out[l-1])+len(m) <= batch {
			out[l-1] = append(out[l-1], m...)
		} else {
			out = append(out, m)
		}
	}
	return out
}

// failure is NLMSG_ERROR; 0 is an acknowledgement, which has the request's
// header alone.
func failure(r request, port uint32, errno unix.Errno) []byte {
	raw := r.raw
	if errno == 0 {
		raw = raw[:sizeHeader]
	}
	return message(unix.NLMSG_ERROR, 0, r.seq, port, u32(uint32(-int32(errno))), raw)
}

// attribute finds an attribute of type typ in the attributes b.
func attribute(b []byte, typ uint16) []byte {
	for len(b) >= 4 {
		n := int(le.Uint16(b))
		if n < 4 || n > len(b) {
			return nil
		}
		if le.Uint16(b[2:])&0x3fff == typ {
			return b[4:n]
		}
		b = b[min(align(n), len(b)):]
	}
	return nil
}

func (sp *Space) links(r request, dump bool, flags uint16, port uint32) ([][]byte, unix.Errno) {
	const sizeInfo = 16 // struct ifinfomsg
	index, name := 0, ""
	if !dump {
		if len(r.body) < sizeInfo {
			return nil, unix.EINVAL
		}
		index = int(int32(le.Uint32(r.body[4:])))
		if v := attribute(r.body[sizeInfo:], unix.IFLA_IFNAME); len(v) > 0 {
			name = string(v[:len(v)-1])
		}
		if index == 0 && name == "" {
			return nil, unix.EINVAL
		}
	}
	var out [][]byte
	for _, i := range sp.stack.Interfaces() {
		if !dump && (index != 0 && i.Index != index || index == 0 && i.Name != name) {
			continue
		}
		info := make([]byte, sizeInfo)
		le.PutUint16(info[2:], i.HWType)
		le.PutUint32(info[4:], uint32(i.Index))
		le.PutUint32(info[8:], i.Flags)
		broadcast := []byte{0xff, 0xff, 0xff, 0xff, 0xff, 0xff}
		const up, unknown = 6, 0 // operational states (RFC 2863)
		state := byte(up)
		if i.Flags&unix.IFF_LOOPBACK != 0 {
			broadcast, state = make([]byte, 6), unknown
		}
		out = append(out, message(unix.RTM_NEWLINK, flags, r.seq, port, info,
			attr(unix.IFLA_IFNAME, append([]byte(i.Name), 0)),
			attr(unix.IFLA_TXQLEN, u32(1000)),
			attr(unix.IFLA_OPERSTATE, []byte{state}),
			attr(unix.IFLA_MTU, u32(i.MTU)),
			attr(unix.IFLA_ADDRESS, i.HWAddr),
			attr(unix.IFLA_BROADCAST, broadcast)))
	}
	if !dump && len(out) == 0 {
		return nil, unix.ENODEV
	}
	return out, 0
}

// family is the address family of a protocol.
func family(p tcpip.NetworkProtocolNumber) byte {
	if p == header.IPv6ProtocolNumber {
		return unix.AF_INET6
	}
	return unix.AF_INET
}

// scope is an address's scope (rtnetlink(7)).
func scope(a tcpip.Address, i *inet.Interface) byte {
	switch {
	case i.Flags&unix.IFF_LOOPBACK != 0:
		return unix.RT_SCOPE_HOST
	case a.Len() == 16 && header.IsV6LinkLocalUnicastAddress(a):
		return unix.RT_SCOPE_LINK
	}
	return unix.RT_SCOPE_UNIVERSE
}

func (sp *Space) addresses(r request, dump bool, flags uint16, port uint32) ([][]byte, unix.Errno) {
	if !dump {
		return nil, unix.EOPNOTSUPP
	}
	want := byte(unix.AF_UNSPEC)
	if len(r.body) > 0 {
		want = r.body[0]
	}
	var out [][]byte
	for _, i := range sp.stack.Interfaces() {
		for _, a := range i.Addresses {
			fam := family(a.Protocol)
			if want != unix.AF_UNSPEC && want != fam {
				continue
			}
			ip := a.AddressWithPrefix.Address
			const permanent = 0x80 // IFA_F_PERMANENT
			info := append([]byte{fam, byte(a.AddressWithPrefix.PrefixLen), permanent, scope(ip, &i)}, u32(uint32(i.Index))...)
			parts := [][]byte{info, attr(unix.IFA_ADDRESS, ip.AsSlice())}
			if fam == unix.AF_INET {
				parts = append(parts, attr(unix.IFA_LOCAL, ip.AsSlice()))
				if i.Flags&unix.IFF_BROADCAST != 0 {
					n := a.AddressWithPrefix.Subnet()
					b := n.Broadcast()
					parts = append(parts, attr(unix.IFA_BROADCAST, b.AsSlice()))
				}
				parts = append(parts, attr(unix.IFA_LABEL, append([]byte(i.Name), 0)))
			}
			parts = append(parts, attr(unix.IFA_FLAGS, u32(permanent)))
			out = append(out, message(unix.RTM_NEWADDR, flags, r.seq, port, parts...))
		}
	}
	return out, 0
}

// routes shows the main table. One route is asked for by destination.
func (sp *Space) routes(r request, dump bool, flags uint16, port uint32) ([][]byte, unix.Errno) {
	const sizeInfo = 12 // struct rtmsg
	want := byte(unix.AF_UNSPEC)
	if len(r.body) > 0 {
		want = r.body[0]
	}
	var dst tcpip.Address
	if !dump {
		if len(r.body) < sizeInfo {
			return nil, unix.EINVAL
		}
		switch v := attribute(r.body[sizeInfo:], unix.RTA_DST); len(v) {
		case 4, 16:
			dst = tcpip.AddrFromSlice(v)
		default:
			return nil, unix.EINVAL
		}
	}
	var out [][]byte
	for _, rt := range sp.stack.GetRouteTable() {
		id := rt.Destination.ID()
		fam := byte(unix.AF_INET)
		if id.Len() == 16 {
			fam = unix.AF_INET6
		}
		if want != unix.AF_UNSPEC && want != fam {
			continue
		}
		bits := rt.Destination.Prefix()
		if !dump && !rt.Destination.Contains(dst) {
			continue
		}
		if dump && rt.NIC == 1 && fam == unix.AF_INET {
			continue // loopback routes are in the table "local"
		}
		info := make([]byte, sizeInfo)
		const protoKernel, protoBoot, unicast = 2, 3, 1
		info[0], info[1], info[4], info[5], info[6], info[7] = fam, byte(bits), unix.RT_TABLE_MAIN, protoKernel, unix.RT_SCOPE_LINK, unicast
		parts := [][]byte{info, attr(unix.RTA_TABLE, u32(unix.RT_TABLE_MAIN))}
		switch {
		case !dump:
			info[1] = byte(dst.BitLen())
			parts = append(parts, attr(unix.RTA_DST, dst.AsSlice()))
		case bits > 0:
			parts = append(parts, attr(unix.RTA_DST, id.AsSlice()))
		}
		if rt.Gateway.Len() > 0 {
			info[5], info[6] = protoBoot, unix.RT_SCOPE_UNIVERSE
			parts = append(parts, attr(unix.RTA_GATEWAY, rt.Gateway.AsSlice()))
		}
		parts = append(parts, attr(unix.RTA_OIF, u32(uint32(rt.NIC))))
		out = append(out, message(unix.RTM_NEWROUTE, flags, r.seq, port, parts...))
		if !dump {
			break
		}
	}
	if !dump && len(out) == 0 {
		return nil, unix.ENETUNREACH
	}
	return out, 0
}
