package inet

import (
	"slices"

	"golang.org/x/sys/unix"

	"gvisor.dev/gvisor/pkg/tcpip"
	"gvisor.dev/gvisor/pkg/tcpip/network/ipv4"
	"gvisor.dev/gvisor/pkg/tcpip/network/ipv6"
	"gvisor.dev/gvisor/pkg/tcpip/transport/tcp"
)

// retry is what a TCP socket needs to connect again after a connection failed:
// in Linux the socket goes back to its first state, an endpoint of netstack
// stays in its error state for good. So another endpoint takes its place, with
// the same options and, if the guest bound it, the same address. Socket.mu
// protects it.
type retry struct {
	// connecting is Linux's SS_CONNECTING: a connection was begun and connect(2)
	// has not reported its end.
	connecting bool
	bound      *tcpip.FullAddress
	options    []setOption // in the order of setting
}

type setOption struct {
	option
	value []byte
}

// noteBind keeps what bind(2) asked for: a port that was not asked for is
// another one next time, as in Linux.
func (s *Socket) noteBind(f tcpip.FullAddress) {
	if !s.stream() {
		return
	}
	s.mu.Lock()
	s.retry.bound = &f
	s.mu.Unlock()
}

func (s *Socket) noteOption(level, name int, v []byte) {
	if !s.stream() {
		return
	}
	o := option{level, name}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.retry.options = slices.DeleteFunc(s.retry.options, func(p setOption) bool { return p.option == o })
	s.retry.options = append(s.retry.options, setOption{o, slices.Clone(v)})
}

// connected keeps what connect(2) answered.
func (s *Socket) connected(err error) error {
	s.mu.Lock()
	s.retry.connecting = err == unix.EINPROGRESS || err == unix.EALREADY
	s.mu.Unlock()
	return err
}

// renew is for connect(2) where the endpoint is in its error state. As in
// Linux (__inet_stream_connect) the first call reports how the connection that was
// begun ended, ECONNABORTED if somebody else has been told; the next one
// connects anew.
func (s *Socket) renew() error {
	s.mu.Lock()
	connecting := s.retry.connecting
	s.retry.connecting = false
	bound, options := s.retry.bound, slices.Clone(s.retry.options)
	s.mu.Unlock()
	err := s.takeError()
	if connecting {
		if err == nil {
			err = unix.ECONNABORTED
		}
		return err
	}
	if err != nil {
		return err
	}
	net := tcpip.NetworkProtocolNumber(ipv4.ProtocolNumber)
	if s.inet6() {
		net = ipv6.ProtocolNumber
	}
	ep, terr := s.stack.NewEndpoint(tcp.ProtocolNumber, net, s.queue)
	if terr != nil {
		return errno(terr)
	}
	s.ep().Close()
	s.now.Store(&ep)
	s.shut.Store(0)
	for _, o := range options {
		s.setOption(o.level, o.name, o.value) // was accepted before
	}
	if bound != nil {
		return errno(ep.Bind(*bound))
	}
	return nil
}
