package tender

import (
	"errors"
	"fmt"
	"net"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"gvisor.dev/gvisor/pkg/tcpip"
	"gvisor.dev/gvisor/pkg/tcpip/header"
	"gvisor.dev/gvisor/pkg/tcpip/network/ipv4"

	"github.com/nabla-build/nabla-build/rumprun"
	"github.com/nabla-build/nabla-build/tender/policy"
)

// tapNetwork is mode tap: frames go through a tap device whose other side is
// the network namespace. The device's address names the subnet: the guest has
// the address after it, and the device's is its gateway.
type tapNetwork struct {
	link    *link
	name    string
	guest   net.IPNet
	gateway net.IP
	why     string
}

const defaultTap = "nabla0"

// openTap attaches to the device that NABLA_TAP names, or makes one.
func openTap(s settings, why string) (*tapNetwork, error) {
	fail := func(err error) (*tapNetwork, error) {
		return nil, fmt.Errorf("tap network: %w", err)
	}
	name := s.tap
	if name == "" {
		name = defaultTap
	}
	fd, err := unix.Open("/dev/net/tun", unix.O_RDWR|unix.O_NONBLOCK|unix.O_CLOEXEC, 0)
	if err != nil {
		return fail(fmt.Errorf("open /dev/net/tun: %w (docker run --device /dev/net/tun --cap-add NET_ADMIN gives it)", err))
	}
	req, err := unix.NewIfreq(name)
	if err != nil {
		return fail(err)
	}
	req.SetUint16(unix.IFF_TAP | unix.IFF_NO_PI | unix.IFF_VNET_HDR)
	if err := unix.IoctlIfreq(fd, unix.TUNSETIFF, req); err != nil {
		return fail(fmt.Errorf("attach to %s: %w (CAP_NET_ADMIN is needed to make it)", name, err))
	}
	// The guest takes TCP segments whole and with the checksum left out (tun.txt
	// in Linux's documentation has none of it; see TUNSETOFFLOAD in tun.c).
	const offload = unix.TUN_F_CSUM | unix.TUN_F_TSO4 | unix.TUN_F_TSO6
	if err := unix.IoctlSetInt(fd, unix.TUNSETOFFLOAD, offload); err != nil {
		return fail(fmt.Errorf("set the offloads of %s: %w", name, err))
	}
	l, err := netlink.LinkByName(name)
	if err != nil {
		return fail(err)
	}
	addrs, err := netlink.AddrList(l, netlink.FAMILY_V4)
	if err != nil {
		return fail(err)
	}
	if len(addrs) == 0 {
		own := &netlink.Addr{IPNet: &net.IPNet{IP: net.ParseIP(userGateway).To4(), Mask: net.CIDRMask(24, 32)}}
		if err := netlink.AddrAdd(l, own); err != nil {
			return fail(fmt.Errorf("give %s an address: %w", name, err))
		}
		addrs = []netlink.Addr{*own}
	}
	if err := netlink.LinkSetUp(l); err != nil {
		return fail(fmt.Errorf("bring %s up: %w", name, err))
	}
	t := &tapNetwork{name: name, why: why, gateway: addrs[0].IP.To4()}
	guest := append(net.IP{}, t.gateway...)
	guest[3]++
	if !addrs[0].Contains(guest) {
		return fail(errors.New("the subnet of " + name + " has no room for the guest"))
	}
	t.guest = net.IPNet{IP: guest, Mask: addrs[0].Mask}
	mac, err := tcpip.ParseMACAddress(userGuestMAC)
	if err != nil {
		return fail(err)
	}
	if t.link, err = newLink(fd, uint32(l.Attrs().MTU), mac, true); err != nil {
		return fail(err)
	}
	return t, nil
}

func (t *tapNetwork) describe() string {
	return fmt.Sprintf("tap (%s), %s, guest %s", t.why, t.name, t.guest.String())
}

func (t *tapNetwork) configure(c *rumprun.Config) {
	ones, _ := t.guest.Mask.Size()
	a := tcpip.AddressWithPrefix{Address: tcpip.AddrFromSlice(t.guest.IP.To4()), PrefixLen: ones}
	c.NICs = append(c.NICs, rumprun.NIC{Name: "eth0", Link: t.link.ep, Addresses: []tcpip.ProtocolAddress{{Protocol: ipv4.ProtocolNumber, AddressWithPrefix: a}}})
	nic := tcpip.NICID(len(c.NICs) + 1)
	c.Routes = append(c.Routes, tcpip.Route{Destination: a.Subnet(), NIC: nic},
		tcpip.Route{Destination: header.IPv4EmptySubnet, Gateway: tcpip.AddrFromSlice(t.gateway), NIC: nic})
}

func (t *tapNetwork) rules() []policy.Rule { return t.link.rules() }
func (t *tapNetwork) descriptors() []int   { return []int{t.link.fd.Sysfd()} }

func (t *tapNetwork) start(fatal func(error)) {
	t.link.start(func(err error) { fatal(fmt.Errorf("tap network: %w", err)) })
}

func (t *tapNetwork) ownSignal(int) bool { return false }
