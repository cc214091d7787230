// Package inet is the guest's internet: gVisor's netstack, and AF_INET and
// AF_INET6 sockets on it as files. It may import vfs, socket and netstack; it
// knows nothing of tasks or descriptors. The type at its heart is Stack.
package inet

import (
	"encoding/binary"
	"fmt"
	"io"
	"net/netip"
	"sync"
	"time"

	"golang.org/x/sys/unix"

	gvrand "gvisor.dev/gvisor/pkg/rand"
	"gvisor.dev/gvisor/pkg/tcpip"
	"gvisor.dev/gvisor/pkg/tcpip/header"
	"gvisor.dev/gvisor/pkg/tcpip/link/loopback"
	"gvisor.dev/gvisor/pkg/tcpip/network/arp"
	"gvisor.dev/gvisor/pkg/tcpip/network/ipv4"
	"gvisor.dev/gvisor/pkg/tcpip/network/ipv6"
	"gvisor.dev/gvisor/pkg/tcpip/stack"
	"gvisor.dev/gvisor/pkg/tcpip/transport/icmp"
	"gvisor.dev/gvisor/pkg/tcpip/transport/raw"
	"gvisor.dev/gvisor/pkg/tcpip/transport/tcp"
	"gvisor.dev/gvisor/pkg/tcpip/transport/udp"
	"gvisor.dev/gvisor/pkg/waiter"

	"github.com/nabla-build/nabla-build/rumprun/socket"
)

// Config describes a stack.
type Config struct {
	// NICs get the interface numbers 2, 3, ... in order; 1 is the loopback.
	NICs []NIC
	// Routes are consulted in order, after those of the interfaces' own
	// networks.
	Routes []tcpip.Route
	// Random is where all random numbers come from; it must be
	// cryptographically secure, safe for several goroutines and never fail.
	Random io.Reader
	// NextIno gives the inode numbers of sockets.
	NextIno func() uint64
}

// NIC is a network interface.
type NIC struct {
	Name      string
	Link      stack.LinkEndpoint
	Addresses []tcpip.ProtocolAddress
}

// loopbackNIC is the number of lo.
const loopbackNIC = 1

// Stack is the network of one kernel.
type Stack struct {
	*stack.Stack
	nextIno func() uint64
	start   time.Time
}

// randSource makes netstack's math/rand from the secure source.
type randSource struct {
	mu sync.Mutex
	r  io.Reader
}

func (s *randSource) Uint64() uint64 {
	var b [8]byte
	s.mu.Lock()
	defer s.mu.Unlock()
	io.ReadFull(s.r, b[:])
	return binary.LittleEndian.Uint64(b[:])
}
func (s *randSource) Int63() int64 { return int64(s.Uint64() >> 1) }
func (s *randSource) Seed(int64)   {}

// New makes a stack with the loopback and cfg's interfaces up. After it has
// returned the stack makes no host call. It sets gVisor's default source of
// random numbers (pkg/rand), which parts of netstack use directly.
func New(cfg Config) (*Stack, error) {
	gvrand.Reader = cfg.Random
	s := &Stack{nextIno: cfg.NextIno, start: time.Now()}
	s.Stack = stack.New(stack.Options{
		NetworkProtocols: []stack.NetworkProtocolFactory{ipv4.NewProtocol, ipv6.NewProtocol, arp.NewProtocol},
		TransportProtocols: []stack.TransportProtocolFactory{
			tcp.NewProtocol, udp.NewProtocol, icmp.NewProtocol4, icmp.NewProtocol6,
		},
		HandleLocal: true,
		RawFactory:  raw.EndpointFactory{},
		RandSource:  &randSource{r: cfg.Random},
		SecureRNG:   cfg.Random,
	})
	if err := s.tune(); err != nil {
		return nil, err
	}
	lo := NIC{Name: "lo", Link: loopback.New(), Addresses: []tcpip.ProtocolAddress{
		{Protocol: ipv4.ProtocolNumber, AddressWithPrefix: tcpip.AddressWithPrefix{Address: tcpip.AddrFrom4([4]byte{127, 0, 0, 1}), PrefixLen: 8}},
		{Protocol: ipv6.ProtocolNumber, AddressWithPrefix: tcpip.AddressWithPrefix{Address: header.IPv6Loopback, PrefixLen: 128}},
	}}
	var routes []tcpip.Route
	for i, n := range append([]NIC{lo}, cfg.NICs...) {
		id := tcpip.NICID(loopbackNIC + i)
		if err := s.CreateNICWithOptions(id, n.Link, stack.NICOptions{Name: n.Name}); err != nil {
			return nil, fmt.Errorf("network: attach interface %s: %s", n.Name, err)
		}
		for _, a := range n.Addresses {
			if err := s.AddProtocolAddress(id, a, stack.AddressProperties{}); err != nil {
				return nil, fmt.Errorf("network: give interface %s address %s: %s", n.Name, a.AddressWithPrefix, err)
			}
			routes = append(routes, tcpip.Route{Destination: a.AddressWithPrefix.Subnet(), NIC: id})
		}
	}
	s.SetRouteTable(append(routes, cfg.Routes...))
	return s, nil
}

// Buffer sizes of sockets: least, default and most bytes. The defaults grow by
// themselves (tcp(7), tcp_moderate_rcvbuf).
const (
	tcpBufferMin, tcpBufferDefault, tcpBufferMax = 4 << 10, 1 << 20, 8 << 20
)

func (s *Stack) tune() error {
	sack := tcpip.TCPSACKEnabled(true)
	nagle := tcpip.TCPDelayEnabled(true)
	moderate := tcpip.TCPModerateReceiveBufferOption(true)
	rack := tcpip.TCPRACKLossDetection
	snd := tcpip.TCPSendBufferSizeRangeOption{Min: tcpBufferMin, Default: tcpBufferDefault, Max: tcpBufferMax}
	rcv := tcpip.TCPReceiveBufferSizeRangeOption{Min: tcpBufferMin, Default: tcpBufferDefault, Max: tcpBufferMax}
	reuse := tcpip.TCPTimeWaitReuseLoopbackOnly
	for _, o := range []tcpip.SettableTransportProtocolOption{&sack, &nagle, &moderate, &rack, &snd, &rcv, &reuse} {
		if err := s.SetTransportProtocolOption(tcp.ProtocolNumber, o); err != nil {
			return fmt.Errorf("network: set TCP option %T: %s", o, err)
		}
	}
	return nil
}

// NewSocket is socket(2) for AF_INET and AF_INET6. typ is the type without
// flags, flags are the file's status flags, privileged allows raw sockets.
func (s *Stack) NewSocket(family, typ, protocol int, flags uint32, privileged bool) (*Socket, error) {
	if protocol < 0 || protocol >= 256+7 {
		return nil, unix.EINVAL
	}
	net := tcpip.NetworkProtocolNumber(ipv4.ProtocolNumber)
	if family == unix.AF_INET6 {
		net = ipv6.ProtocolNumber
	}
	var trans tcpip.TransportProtocolNumber
	switch typ {
	case unix.SOCK_STREAM:
		if protocol != 0 && protocol != unix.IPPROTO_TCP {
			return nil, unix.EPROTONOSUPPORT
		}
		protocol, trans = unix.IPPROTO_TCP, tcp.ProtocolNumber
	case unix.SOCK_DGRAM:
		switch {
		case protocol == 0 || protocol == unix.IPPROTO_UDP:
			protocol, trans = unix.IPPROTO_UDP, udp.ProtocolNumber
		case protocol == unix.IPPROTO_ICMP && family == unix.AF_INET:
			trans = icmp.ProtocolNumber4
		case protocol == unix.IPPROTO_ICMPV6 && family == unix.AF_INET6:
			trans = icmp.ProtocolNumber6
		default:
			return nil, unix.EPROTONOSUPPORT
		}
	case unix.SOCK_RAW:
		if protocol == 0 {
			return nil, unix.EPROTONOSUPPORT
		}
		if !privileged {
			return nil, unix.EPERM
		}
		trans = tcpip.TransportProtocolNumber(protocol)
	default:
		return nil, unix.ESOCKTNOSUPPORT
	}
	q := new(waiter.Queue)
	var ep tcpip.Endpoint
	var terr tcpip.Error
	if typ == unix.SOCK_RAW {
		ep, terr = s.NewRawEndpoint(trans, net, q, protocol != unix.IPPROTO_RAW)
	} else {
		ep, terr = s.NewEndpoint(trans, net, q)
	}
	if terr != nil {
		return nil, errno(terr)
	}
	k := socket.Kind{Family: family, Type: typ, Protocol: protocol}
	if typ == unix.SOCK_RAW && protocol == unix.IPPROTO_RAW {
		ep.SocketOptions().SetHeaderIncluded(true)
	}
	return s.newSocket(k, ep, q, flags), nil
}

// addr turns an address of the stack into netip's.
func addr(a tcpip.Address) netip.Addr {
	switch a.Len() {
	case 4:
		return netip.AddrFrom4(a.As4())
	case 16:
		return netip.AddrFrom16(a.As16())
	}
	return netip.Addr{}
}

// full turns an address into the stack's; the unspecified one is empty there.
func full(ap netip.AddrPort, scope uint32) tcpip.FullAddress {
	f := tcpip.FullAddress{Port: ap.Port()}
	a := ap.Addr()
	switch {
	case a.IsUnspecified():
	case a.Is4():
		f.Addr = tcpip.AddrFrom4(a.As4())
	default:
		f.Addr = tcpip.AddrFrom16(a.As16())
		if a.IsLinkLocalUnicast() || a.IsLinkLocalMulticast() {
			f.NIC = tcpip.NICID(scope)
		}
	}
	return f
}
