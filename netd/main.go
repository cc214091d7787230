// Nabla-netd is the helper of the user network: it carries Ethernet frames
// between the tender's socketpair and ordinary sockets, so that a container
// without any right has a network. It publishes ports and resolves names.
//
//	nabla-netd CONFIG
//
// CONFIG is JSON (type config). Descriptor 3 is the socketpair's end, one frame
// a message; descriptor 4 is written to once: "ok" when the ports are bound,
// or why not. It ends when the socketpair closes.
//
// It is a module of its own because gvisor-tap-vsock pins an older netstack
// than the library OS uses.
package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"os"
	"strings"
	"syscall"
	"unsafe"

	"github.com/containers/gvisor-tap-vsock/pkg/types"
	"github.com/containers/gvisor-tap-vsock/pkg/virtualnetwork"
	"github.com/sirupsen/logrus"
	"golang.org/x/sys/unix"
)

// config is what the tender asks for.
type config struct {
	MTU     int    `json:"mtu"`
	Subnet  string `json:"subnet"`  // "192.168.127.0/24"
	Gateway string `json:"gateway"` // its own address
	Guest   string `json:"guest"`   // the guest's address
	MAC     string `json:"mac"`     // the gateway's
	Publish []port `json:"publish"`
}

type port struct {
	Host     uint16 `json:"host"`
	Guest    uint16 `json:"guest"`
	Protocol string `json:"protocol"` // tcp, udp
}

func main() {
	logrus.SetLevel(logrus.FatalLevel)
	status := os.NewFile(4, "status")
	conn, n, err := start(os.Args[1:])
	if err != nil {
		fmt.Fprintln(status, err)
		os.Exit(1)
	}
	if err := dropCapabilities(); err != nil {
		fmt.Fprintln(status, err)
		os.Exit(1)
	}
	fmt.Fprintln(status, "ok")
	status.Close()
	if err := n.AcceptBess(context.Background(), conn); err != nil && !errors.Is(err, net.ErrClosed) {
		os.Exit(0) // the tender has gone
	}
}

// start gives up rights, then makes the network and binds the ports.
func start(args []string) (net.Conn, *virtualnetwork.VirtualNetwork, error) {
	if len(args) != 1 {
		return nil, nil, errors.New("nabla-netd is started by the tender, with its configuration as argument")
	}
	var c config
	if err := json.Unmarshal([]byte(args[0]), &c); err != nil {
		return nil, nil, fmt.Errorf("configuration: %w", err)
	}
	if err := unix.Prctl(unix.PR_SET_PDEATHSIG, uintptr(unix.SIGKILL), 0, 0, 0); err != nil {
		return nil, nil, fmt.Errorf("ask to end with the tender: %w", err)
	}
	if err := unix.Prctl(unix.PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0); err != nil {
		return nil, nil, fmt.Errorf("set no_new_privs: %w", err)
	}
	f := os.NewFile(3, "frames")
	raw, err := net.FileConn(f)
	if err != nil {
		return nil, nil, fmt.Errorf("descriptor 3: %w", err)
	}
	f.Close()
	forwards := map[string]string{}
	for _, p := range c.Publish {
		local := fmt.Sprintf(":%d", p.Host)
		if err := probe(p.Protocol, local); err != nil {
			return nil, nil, err
		}
		if p.Protocol == "udp" {
			local = "udp:" + local
		}
		forwards[local] = fmt.Sprintf("%s:%d", c.Guest, p.Guest)
	}
	n, err := virtualnetwork.New(&types.Configuration{
		MTU: c.MTU, Subnet: c.Subnet, GatewayIP: c.Gateway, GatewayMacAddress: c.MAC, Forwards: forwards,
	})
	if err != nil {
		return nil, nil, err
	}
	return frames{raw}, n, nil
}

// dropCapabilities empties the capability sets of every thread: the ports are
// bound, nothing else needs a right.
func dropCapabilities() error {
	h := unix.CapUserHeader{Version: unix.LINUX_CAPABILITY_VERSION_3}
	var d [2]unix.CapUserData
	if _, _, e := syscall.AllThreadsSyscall(unix.SYS_CAPSET, uintptr(unsafe.Pointer(&h)), uintptr(unsafe.Pointer(&d[0])), 0); e != 0 {
		return fmt.Errorf("drop capabilities: %w", e)
	}
	return nil
}

// probe binds a port for a moment, so that the reason is plain if that fails.
func probe(protocol, local string) error {
	var err error
	if protocol == "udp" {
		var c net.PacketConn
		if c, err = net.ListenPacket("udp", local); err == nil {
			return c.Close()
		}
	} else {
		var l net.Listener
		if l, err = net.Listen("tcp", local); err == nil {
			return l.Close()
		}
	}
	what := "port " + strings.TrimPrefix(local, ":")
	switch {
	case errors.Is(err, syscall.EADDRINUSE):
		return fmt.Errorf("publish %s: it is in use", what)
	case errors.Is(err, syscall.EACCES):
		return fmt.Errorf("publish %s: not allowed: ports below net.ipv4.ip_unprivileged_port_start need a right that this process does not have; choose a higher one", what)
	}
	return fmt.Errorf("publish %s: %w", what, err)
}

// frames passes on whole Ethernet frames only: what the guest sends is not to
// be trusted, and a message shorter than a header is none.
type frames struct{ net.Conn }

func (f frames) Read(p []byte) (int, error) {
	const header = 14
	for {
		n, err := f.Conn.Read(p)
		if err != nil || n >= header {
			return n, err
		}
	}
}
