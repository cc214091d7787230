package tender

import (
	"net/netip"

	"gvisor.dev/gvisor/pkg/tcpip"

	"github.com/nabla-build/nabla-build/rumprun"
	"github.com/nabla-build/nabla-build/tender/policy"
)

// network is a network mode: how frames get in and out. Everything that needs
// the host happens before lockdown, in open.
type network interface {
	// describe names the mode and why it was chosen, for the log.
	describe() string
	// configure adds the interfaces, routes and resolver to the configuration.
	configure(c *rumprun.Config)
	// rules and descriptors are what it needs from the filter.
	rules() []policy.Rule
	descriptors() []int
	// start runs it after lockdown; fatal ends the container.
	start(fatal func(reason error))
	// ownSignal reports that a signal sent to the process is the mode's own
	// (SIGCHLD of a helper) and not the guest's.
	ownSignal(signo int) bool
}

// openNetwork attaches the mode that was asked for, or the best that the
// container's rights allow: the tap device that NABLA_TAP names, packet, user.
func openNetwork(im *image, s settings) (network, error) {
	switch mode := networkMode(im.manifest, s); mode {
	case "none":
		return noNetwork{}, nil
	case "user":
		return openUser(im, s, "asked for")
	case "packet":
		return openPacket(s, "asked for")
	case "tap":
		return openTap(s, "asked for")
	}
	if s.tap != "" {
		return openTap(s, "NABLA_TAP names it")
	}
	if why := packetObstacle(); why != "" {
		return openUser(im, s, why)
	}
	return openPacket(s, "CAP_NET_ADMIN and CAP_NET_RAW are there")
}

// address4 converts an IPv4 address constant.
func address4(s string) tcpip.Address {
	return tcpip.AddrFrom4(netip.MustParseAddr(s).As4())
}

// noNetwork is mode none: the guest has its loopback.
type noNetwork struct{}

func (noNetwork) describe() string          { return "none" }
func (noNetwork) configure(*rumprun.Config) {}
func (noNetwork) rules() []policy.Rule      { return nil }
func (noNetwork) descriptors() []int        { return nil }
func (noNetwork) start(func(error))         {}
func (noNetwork) ownSignal(int) bool        { return false }
