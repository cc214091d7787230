package tender

import (
	"errors"
	"fmt"
	"net"
	"os"
	"strings"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"gvisor.dev/gvisor/pkg/tcpip"
	"gvisor.dev/gvisor/pkg/tcpip/network/ipv4"
	"gvisor.dev/gvisor/pkg/tcpip/network/ipv6"

	"github.com/nabla-build/nabla-build/rumprun"
	"github.com/nabla-build/nabla-build/tender/policy"
)

// packetNetwork is mode packet: the guest takes the place of the kernel on the
// container's interfaces. Their addresses and routes move to the guest; frames
// go through AF_PACKET sockets (packet(7)).
type packetNetwork struct {
	nics   []takenInterface
	routes []netlink.Route
	why    string
}

// takenInterface is an interface with what the kernel had configured on it.
type takenInterface struct {
	name  string
	index int
	link  *link
	addrs []netlink.Addr
}

// packetObstacle says what keeps mode packet from working here; empty: nothing.
func packetObstacle() string {
	h := unix.CapUserHeader{Version: unix.LINUX_CAPABILITY_VERSION_3}
	var d [2]unix.CapUserData
	if err := unix.Capget(&h, &d[0]); err != nil {
		return "capabilities cannot be read"
	}
	if d[0].Effective&(1<<unix.CAP_NET_ADMIN) == 0 || d[0].Effective&(1<<unix.CAP_NET_RAW) == 0 {
		return "CAP_NET_ADMIN or CAP_NET_RAW is missing"
	}
	if sharedNamespace() {
		return "the network namespace is the host's"
	}
	if ifs, err := usableInterfaces(); err != nil || len(ifs) == 0 {
		return "no interface with an address"
	}
	return ""
}

// sharedNamespace reports whether the network namespace is the host's own: it
// is that of another process 1, or holds a hardware device or a bridge.
// Addresses are never taken from it.
func sharedNamespace() bool {
	if os.Getpid() != 1 {
		own, err1 := os.Readlink("/proc/self/ns/net")
		first, err2 := os.Readlink("/proc/1/ns/net")
		if err1 == nil && err2 == nil && own == first {
			return true
		}
	}
	links, err := netlink.LinkList()
	if err != nil {
		return true
	}
	for _, l := range links {
		if a := l.Attrs(); l.Type() == "bridge" || a.MasterIndex != 0 || a.ParentDev != "" {
			return true
		}
	}
	return false
}

// usableInterfaces are those that are up, are no loopback and have an address.
func usableInterfaces() ([]netlink.Link, error) {
	links, err := netlink.LinkList()
	if err != nil {
		return nil, err
	}
	var out []netlink.Link
	for _, l := range links {
		a := l.Attrs()
		if a.Flags&net.FlagLoopback != 0 || a.Flags&net.FlagUp == 0 || len(a.HardwareAddr) != 6 {
			continue
		}
		if addrs, err := netlink.AddrList(l, netlink.FAMILY_V4); err == nil && len(addrs) > 0 {
			out = append(out, l)
		}
	}
	return out, nil
}

func openPacket(s settings, why string) (*packetNetwork, error) {
	fail := func(err error) (*packetNetwork, error) {
		return nil, fmt.Errorf("packet network: %w", err)
	}
	if sharedNamespace() {
		return fail(errors.New("the network namespace holds the host's own interfaces, which are not taken over: use the user network, or give the container a namespace of its own"))
	}
	links, err := usableInterfaces()
	if err != nil {
		return fail(err)
	}
	if len(links) == 0 {
		return fail(errors.New("no interface with an address in this network namespace"))
	}
	p := &packetNetwork{why: why}
	for _, l := range links {
		a := l.Attrs()
		fd, err := packetSocket(a.Index)
		if err != nil {
			return fail(fmt.Errorf("open a packet socket on %s: %w", a.Name, err))
		}
		t := takenInterface{name: a.Name, index: a.Index}
		if t.addrs, err = netlink.AddrList(l, netlink.FAMILY_ALL); err != nil {
			return fail(err)
		}
		if t.link, err = newLink(fd, uint32(a.MTU), tcpip.LinkAddress(a.HardwareAddr), true); err != nil {
			return fail(err)
		}
		routes, err := netlink.RouteList(l, netlink.FAMILY_ALL)
		if err != nil {
			return fail(err)
		}
		p.routes = append(p.routes, routes...)
		p.nics = append(p.nics, t)
	}
	// Only now, when nothing can fail any more, do the addresses go.
	for _, t := range p.nics {
		l, err := netlink.LinkByIndex(t.index)
		if err != nil {
			return fail(err)
		}
		for i := range t.addrs {
			// The kernel drops an address's secondaries with it (ip-sysctl,
			// promote_secondaries), so one may be gone already.
			if err := netlink.AddrDel(l, &t.addrs[i]); err != nil && !errors.Is(err, unix.EADDRNOTAVAIL) {
				return fail(fmt.Errorf("take over %s of %s: %w", t.addrs[i].IPNet, t.name, err))
			}
		}
	}
	return p, nil
}

// packetSocket opens an AF_PACKET socket with a virtio_net_hdr before each
// frame, bound to an interface.
func packetSocket(index int) (int, error) {
	fd, err := unix.Socket(unix.AF_PACKET, unix.SOCK_RAW|unix.SOCK_NONBLOCK|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return -1, err
	}
	const vnetHdr = 15 // PACKET_VNET_HDR
	err = unix.SetsockoptInt(fd, unix.SOL_PACKET, vnetHdr, 1)
	if err == nil {
		unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_RCVBUFFORCE, 4<<20)
		unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_SNDBUFFORCE, 4<<20)
		const ignoreOutgoing = 23 // PACKET_IGNORE_OUTGOING
		err = unix.SetsockoptInt(fd, unix.SOL_PACKET, ignoreOutgoing, 1)
	}
	if err == nil {
		all := uint16(unix.ETH_P_ALL)
		err = unix.Bind(fd, &unix.SockaddrLinklayer{Protocol: all<<8 | all>>8, Ifindex: index})
	}
	if err != nil {
		unix.Close(fd)
		return -1, err
	}
	return fd, nil
}

func (p *packetNetwork) describe() string {
	var names []string
	for _, t := range p.nics {
		for _, a := range t.addrs {
			names = append(names, t.name+" "+a.IPNet.String())
		}
	}
	return "packet (" + p.why + "), " + strings.Join(names, ", ")
}

func (p *packetNetwork) configure(c *rumprun.Config) {
	ids := map[int]tcpip.NICID{}
	for _, t := range p.nics {
		n := rumprun.NIC{Name: t.name, Link: t.link.ep}
		for _, a := range t.addrs {
			ones, _ := a.Mask.Size()
			proto, ip := ipv6.ProtocolNumber, a.IP.To16()
			if v4 := a.IP.To4(); v4 != nil {
				proto, ip = ipv4.ProtocolNumber, v4
			}
			n.Addresses = append(n.Addresses, tcpip.ProtocolAddress{Protocol: proto, AddressWithPrefix: tcpip.AddressWithPrefix{
				Address: tcpip.AddrFromSlice(ip), PrefixLen: ones,
			}})
		}
		c.NICs = append(c.NICs, n)
		ids[t.index] = tcpip.NICID(len(c.NICs) + 1)
	}
	// The most specific route first: netstack takes the first that matches.
	for ones := 128; ones >= 0; ones-- {
		for _, r := range p.routes {
			nic, ok := ids[r.LinkIndex]
			if !ok || r.Dst == nil && ones != 0 {
				continue
			}
			out := tcpip.Route{NIC: nic}
			v6 := r.Family == netlink.FAMILY_V6
			size := 4
			if v6 {
				size = 16
			}
			dst := tcpip.AddrFromSlice(make([]byte, size))
			if r.Dst != nil {
				n, _ := r.Dst.Mask.Size()
				if n != ones {
					continue
				}
				ip := r.Dst.IP.To16()
				if !v6 {
					ip = r.Dst.IP.To4()
				}
				dst = tcpip.AddrFromSlice(ip)
			}
			out.Destination = tcpip.AddressWithPrefix{Address: dst, PrefixLen: ones}.Subnet()
			if r.Gw != nil {
				gw := r.Gw.To16()
				if v4 := r.Gw.To4(); v4 != nil {
					gw = v4
				}
				out.Gateway = tcpip.AddrFromSlice(gw)
			}
			c.Routes = append(c.Routes, out)
		}
	}
}

func (p *packetNetwork) rules() []policy.Rule {
	var r []policy.Rule
	for _, t := range p.nics {
		r = append(r, t.link.rules()...)
	}
	return r
}

func (p *packetNetwork) descriptors() []int {
	var fds []int
	for _, t := range p.nics {
		fds = append(fds, t.link.fd.Sysfd())
	}
	return fds
}

func (p *packetNetwork) start(fatal func(error)) {
	for _, t := range p.nics {
		t.link.start(func(err error) { fatal(fmt.Errorf("packet network: %s: %w", t.name, err)) })
	}
}

func (p *packetNetwork) ownSignal(int) bool { return false }
