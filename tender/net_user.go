package tender

import (
	"bufio"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"strings"
	"syscall"

	"golang.org/x/sys/unix"

	"gvisor.dev/gvisor/pkg/tcpip"
	"gvisor.dev/gvisor/pkg/tcpip/header"
	"gvisor.dev/gvisor/pkg/tcpip/network/ipv4"

	"github.com/nabla-build/nabla-build/rumprun"
	"github.com/nabla-build/nabla-build/tender/policy"
)

// Addresses of the user network, as gvisor-tap-vsock's users know them.
const (
	userSubnet     = "192.168.127.0/24"
	userGateway    = "192.168.127.1"
	userGuest      = "192.168.127.2"
	userGatewayMAC = "5a:94:ef:e4:0c:dd"
	userGuestMAC   = "5a:94:ef:e4:0c:ee"
	userMTU        = 65520 - ethernetHeader
)

// userNetwork is mode user: a helper process without rights carries frames
// between a socketpair and ordinary sockets.
type userNetwork struct {
	link   *link
	helper *os.Process
	why    string
}

// openUser starts the helper and waits until it has bound its ports.
func openUser(im *image, s settings, why string) (*userNetwork, error) {
	fail := func(err error) (*userNetwork, error) {
		return nil, fmt.Errorf("user network: %w", err)
	}
	if im.netd == nil {
		return fail(errors.New("the image holds no helper: relink it"))
	}
	exe, err := im.netd()
	if err != nil {
		return fail(fmt.Errorf("open the helper: %w", err))
	}
	defer exe.Close()
	pair, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_SEQPACKET|unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK, 0)
	if err != nil {
		return fail(fmt.Errorf("socketpair: %w", err))
	}
	for _, fd := range pair { // room for a few of the largest frames; the kernel's limit is fine too
		unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_SNDBUF, 4<<20)
	}
	theirs := os.NewFile(uintptr(pair[1]), "frames")
	defer theirs.Close()
	status, statusW, err := os.Pipe()
	if err != nil {
		return fail(err)
	}
	defer status.Close()
	type port struct {
		Host     uint16 `json:"host"`
		Guest    uint16 `json:"guest"`
		Protocol string `json:"protocol"`
	}
	config := struct {
		MTU     int    `json:"mtu"`
		Subnet  string `json:"subnet"`
		Gateway string `json:"gateway"`
		Guest   string `json:"guest"`
		MAC     string `json:"mac"`
		Publish []port `json:"publish"`
	}{userMTU, userSubnet, userGateway, userGuest, userGatewayMAC, nil}
	for _, p := range s.ports(im.manifest) {
		config.Publish = append(config.Publish, port(p))
	}
	arg, err := json.Marshal(config)
	if err != nil {
		return fail(err)
	}
	cmd := exec.Command(fmt.Sprintf("/proc/self/fd/%d", exe.Fd()), string(arg))
	cmd.Args[0] = "nabla-netd"
	cmd.Env = []string{}
	cmd.Stderr = os.Stderr
	cmd.ExtraFiles = []*os.File{theirs, statusW}
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: unix.SIGKILL}
	if err := cmd.Start(); err != nil {
		return fail(fmt.Errorf("start the helper: %w", err))
	}
	statusW.Close()
	line, err := bufio.NewReader(status).ReadString('\n')
	if line = strings.TrimSpace(line); line != "ok" {
		if line == "" {
			line = fmt.Sprintf("the helper ended before it was ready (%v)", err)
		}
		return fail(errors.New(line))
	}
	mac, err := tcpip.ParseMACAddress(userGuestMAC)
	if err != nil {
		return fail(err)
	}
	l, err := newLink(pair[0], userMTU, mac, false)
	if err != nil {
		return fail(err)
	}
	return &userNetwork{link: l, helper: cmd.Process, why: why}, nil
}

func (u *userNetwork) describe() string {
	return fmt.Sprintf("user (%s), guest %s, helper process %d", u.why, userGuest, u.helper.Pid)
}

func (u *userNetwork) configure(c *rumprun.Config) {
	guest, gateway := address4(userGuest), address4(userGateway)
	c.NICs = append(c.NICs, rumprun.NIC{Name: "eth0", Link: u.link.ep, Addresses: []tcpip.ProtocolAddress{{
		Protocol: ipv4.ProtocolNumber, AddressWithPrefix: tcpip.AddressWithPrefix{Address: guest, PrefixLen: 24},
	}}})
	nic := tcpip.NICID(len(c.NICs) + 1)
	subnet := tcpip.AddressWithPrefix{Address: guest, PrefixLen: 24}.Subnet()
	c.Routes = append(c.Routes,
		tcpip.Route{Destination: subnet, NIC: nic},
		tcpip.Route{Destination: header.IPv4EmptySubnet, Gateway: gateway, NIC: nic})
	c.Files["/etc/resolv.conf"] = userResolver(c.Files["/etc/resolv.conf"])
	c.Files["/etc/hosts"] = append(withoutOwnName(c.Files["/etc/hosts"], c.Hostname), userGuest+"\t"+c.Hostname+"\n"...)
}

// userResolver is resolv.conf with the helper as the name server.
func userResolver(container []byte) []byte {
	out := "nameserver " + userGateway + "\n"
	for line := range strings.Lines(string(container)) {
		if f := strings.Fields(line); len(f) > 1 && (f[0] == "search" || f[0] == "domain" || f[0] == "options") {
			out += strings.TrimSpace(line) + "\n"
		}
	}
	return []byte(out)
}

// withoutOwnName is the hosts file without the container's own address, which
// is not the guest's.
func withoutOwnName(hosts []byte, name string) []byte {
	var out []byte
	for line := range strings.Lines(string(hosts)) {
		f := strings.Fields(line)
		own := false
		for _, n := range f[min(1, len(f)):] {
			own = own || n == name && name != "localhost"
		}
		if !own {
			out = append(out, strings.TrimRight(line, "\n")+"\n"...)
		}
	}
	return out
}

func (u *userNetwork) rules() []policy.Rule { return u.link.rules() }
func (u *userNetwork) descriptors() []int   { return []int{u.link.fd.Sysfd()} }

func (u *userNetwork) start(fatal func(error)) {
	u.link.start(func(err error) {
		fatal(fmt.Errorf("user network: the helper has ended: %w", err))
	})
}

func (u *userNetwork) ownSignal(signo int) bool { return unix.Signal(signo) == unix.SIGCHLD }
