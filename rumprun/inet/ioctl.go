package inet

import (
	"cmp"
	"encoding/binary"
	"slices"

	"golang.org/x/sys/unix"

	"gvisor.dev/gvisor/pkg/tcpip"
	"gvisor.dev/gvisor/pkg/tcpip/header"
	"gvisor.dev/gvisor/pkg/tcpip/transport/tcp"

	"github.com/nabla-build/nabla-build/rumprun/vfs"
)

// Ioctl knows the requests of tcp(7), udp(7) and netdevice(7).
func (s *Socket) Ioctl(m vfs.UserMemory, req uint32, arg uintptr) (uintptr, error) {
	le := binary.LittleEndian
	switch req {
	case unix.TIOCINQ: // FIONREAD, SIOCINQ
		if s.stream() && tcp.EndpointState(s.ep().State()) == tcp.StateListen {
			return 0, unix.EINVAL
		}
		n, err := s.ep().GetSockOptInt(tcpip.ReceiveQueueSizeOption)
		if err != nil {
			return 0, errno(err)
		}
		return 0, m.CopyOut(arg, le.AppendUint32(nil, uint32(n)))
	case unix.TIOCOUTQ: // SIOCOUTQ
		n, err := s.ep().GetSockOptInt(tcpip.SendQueueSizeOption)
		if err != nil {
			n = 0
		}
		return 0, m.CopyOut(arg, le.AppendUint32(nil, uint32(n)))
	case unix.SIOCGSTAMP, unix.SIOCGSTAMPNS:
		s.mu.Lock()
		t := s.lastRecv
		s.mu.Unlock()
		if t.IsZero() {
			return 0, unix.ENOENT
		}
		unit := int64(1000)
		if req == unix.SIOCGSTAMPNS {
			unit = 1
		}
		return 0, m.CopyOut(arg, stamp(t, unit))
	}
	return s.stack.InterfaceIoctl(m, req, arg)
}

// Interface is what netdevice(7) and rtnetlink(7) show of an interface.
type Interface struct {
	Index     int
	Name      string
	Flags     uint32 // IFF_*
	MTU       uint32
	HWAddr    []byte
	HWType    uint16 // ARPHRD_*
	Addresses []tcpip.ProtocolAddress
}

const (
	arphrdEther    = 1
	arphrdLoopback = 772
)

// Interfaces lists the interfaces by number.
func (s *Stack) Interfaces() []Interface {
	var out []Interface
	for id, info := range s.NICInfo() {
		i := Interface{Index: int(id), Name: info.Name, MTU: info.MTU, HWAddr: []byte(info.LinkAddress), HWType: arphrdEther}
		if len(i.HWAddr) != 6 {
			i.HWAddr = make([]byte, 6)
		}
		if info.Flags.Up {
			i.Flags |= unix.IFF_UP | unix.IFF_LOWER_UP
		}
		if info.Flags.Running {
			i.Flags |= unix.IFF_RUNNING
		}
		if info.Flags.Loopback {
			i.Flags |= unix.IFF_LOOPBACK
			i.HWType = arphrdLoopback
		} else {
			i.Flags |= unix.IFF_BROADCAST | unix.IFF_MULTICAST
		}
		for _, a := range info.ProtocolAddresses {
			if a.Protocol == header.IPv4ProtocolNumber || a.Protocol == header.IPv6ProtocolNumber {
				i.Addresses = append(i.Addresses, a)
			}
		}
		out = append(out, i)
	}
	slices.SortFunc(out, func(a, b Interface) int { return cmp.Compare(a.Index, b.Index) })
	return out
}

const (
	sizeIfreq = 40
	sizeName  = 16 // IFNAMSIZ
)

// InterfaceIoctl handles the requests of netdevice(7) that read: they work on
// sockets of every family. Requests that change are EPERM, others ENOTTY.
func (s *Stack) InterfaceIoctl(m vfs.UserMemory, req uint32, arg uintptr) (uintptr, error) {
	le := binary.LittleEndian
	switch req {
	case unix.SIOCGIFCONF:
		return 0, s.ifconf(m, arg)
	case unix.SIOCSIFFLAGS, unix.SIOCSIFADDR, unix.SIOCSIFNETMASK, unix.SIOCSIFMTU, unix.SIOCSIFHWADDR, unix.SIOCADDRT, unix.SIOCDELRT:
		return 0, unix.EPERM
	case unix.SIOCGIFNAME, unix.SIOCGIFINDEX, unix.SIOCGIFADDR, unix.SIOCGIFNETMASK, unix.SIOCGIFBRDADDR, unix.SIOCGIFDSTADDR,
		unix.SIOCGIFFLAGS, unix.SIOCGIFMTU, unix.SIOCGIFHWADDR, unix.SIOCGIFTXQLEN, unix.SIOCGIFMETRIC:
	default:
		return 0, unix.ENOTTY
	}
	var r [sizeIfreq]byte
	if err := m.CopyIn(arg, r[:]); err != nil {
		return 0, err
	}
	name := string(r[:min(slices.Index(append(r[:sizeName-1:sizeName-1], 0), 0), sizeName-1)])
	var ifc *Interface
	for _, i := range s.Interfaces() {
		if req == unix.SIOCGIFNAME && i.Index == int(int32(le.Uint32(r[sizeName:]))) || req != unix.SIOCGIFNAME && i.Name == name {
			ifc = &i
			break
		}
	}
	if ifc == nil {
		return 0, unix.ENODEV
	}
	v := r[sizeName:]
	var four *tcpip.AddressWithPrefix
	for i := range ifc.Addresses {
		if a := &ifc.Addresses[i]; a.Protocol == header.IPv4ProtocolNumber {
			four = &a.AddressWithPrefix
			break
		}
	}
	putAddr := func(a [4]byte) error {
		clear(v[:16])
		le.PutUint16(v, unix.AF_INET)
		copy(v[4:], a[:])
		return nil
	}
	switch req {
	case unix.SIOCGIFNAME:
		clear(r[:sizeName])
		copy(r[:sizeName-1], ifc.Name)
	case unix.SIOCGIFINDEX:
		le.PutUint32(v, uint32(ifc.Index))
	case unix.SIOCGIFFLAGS:
		le.PutUint16(v, uint16(ifc.Flags))
	case unix.SIOCGIFMTU:
		le.PutUint32(v, ifc.MTU)
	case unix.SIOCGIFTXQLEN:
		le.PutUint32(v, 1000)
	case unix.SIOCGIFMETRIC:
		le.PutUint32(v, 0)
	case unix.SIOCGIFHWADDR:
		clear(v[:16])
		le.PutUint16(v, ifc.HWType)
		copy(v[2:], ifc.HWAddr)
	default:
		if four == nil {
			return 0, unix.EADDRNOTAVAIL
		}
		a := four.Address.As4()
		mask := [4]byte{}
		be := binary.BigEndian
		be.PutUint32(mask[:], ^uint32(0)<<(32-four.PrefixLen))
		switch req {
		case unix.SIOCGIFNETMASK:
			putAddr(mask)
		case unix.SIOCGIFBRDADDR:
			if ifc.Flags&unix.IFF_BROADCAST == 0 {
				putAddr([4]byte{})
			} else {
				var b [4]byte
				be.PutUint32(b[:], be.Uint32(a[:])|^be.Uint32(mask[:]))
				putAddr(b)
			}
		default:
			putAddr(a)
		}
	}
	return 0, m.CopyOut(arg, r[:])
}

// ifconf is SIOCGIFCONF: struct ifconf, the IPv4 addresses.
func (s *Stack) ifconf(m vfs.UserMemory, arg uintptr) error {
	le := binary.LittleEndian
	var c [16]byte
	if err := m.CopyIn(arg, c[:]); err != nil {
		return err
	}
	room, to := int(int32(le.Uint32(c[:]))), uintptr(le.Uint64(c[8:]))
	var out []byte
	for _, i := range s.Interfaces() {
		for _, a := range i.Addresses {
			if a.Protocol != header.IPv4ProtocolNumber {
				continue
			}
			var r [sizeIfreq]byte
			copy(r[:sizeName-1], i.Name)
			le.PutUint16(r[sizeName:], unix.AF_INET)
			a4 := a.AddressWithPrefix.Address.As4()
			copy(r[sizeName+4:], a4[:])
			out = append(out, r[:]...)
		}
	}
	if to != 0 {
		out = out[:min(len(out), max(room, 0)/sizeIfreq*sizeIfreq)]
		if err := m.CopyOut(to, out); err != nil {
			return err
		}
	}
	le.PutUint32(c[:], uint32(len(out)))
	return m.CopyOut(arg, c[:])
}
