package inet

import (
	"encoding/binary"
	"math"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"gvisor.dev/gvisor/pkg/abi/linux"
	"gvisor.dev/gvisor/pkg/tcpip"
	"gvisor.dev/gvisor/pkg/tcpip/transport/tcp"

	"github.com/nabla-build/nabla-build/rumprun/socket"
)

// option names a socket option.
type option struct{ level, name int }

// boolOption is an option that netstack keeps as a flag.
type boolOption struct {
	get func(*tcpip.SocketOptions) bool
	set func(*tcpip.SocketOptions, bool)
	// only names the family (AF_INET6) or type that the option is for; 0: all.
	inet6, stream bool
}

// bools are the flags. TCP_NODELAY is the opposite of netstack's.
var bools = map[option]boolOption{
	{unix.SOL_SOCKET, unix.SO_REUSEADDR}: {(*tcpip.SocketOptions).GetReuseAddress, (*tcpip.SocketOptions).SetReuseAddress, false, false},
	{unix.SOL_SOCKET, unix.SO_REUSEPORT}: {(*tcpip.SocketOptions).GetReusePort, (*tcpip.SocketOptions).SetReusePort, false, false},
	{unix.SOL_SOCKET, unix.SO_KEEPALIVE}: {(*tcpip.SocketOptions).GetKeepAlive, (*tcpip.SocketOptions).SetKeepAlive, false, false},
	{unix.SOL_SOCKET, unix.SO_BROADCAST}: {(*tcpip.SocketOptions).GetBroadcast, (*tcpip.SocketOptions).SetBroadcast, false, false},
	{unix.SOL_SOCKET, unix.SO_NO_CHECK}:  {(*tcpip.SocketOptions).GetNoChecksum, (*tcpip.SocketOptions).SetNoChecksum, false, false},
	{unix.IPPROTO_TCP, unix.TCP_NODELAY}: {
		func(o *tcpip.SocketOptions) bool { return !o.GetDelayOption() },
		func(o *tcpip.SocketOptions, v bool) { o.SetDelayOption(!v) }, false, true,
	},
	{unix.IPPROTO_TCP, unix.TCP_CORK}:             {(*tcpip.SocketOptions).GetCorkOption, (*tcpip.SocketOptions).SetCorkOption, false, true},
	{unix.IPPROTO_TCP, unix.TCP_QUICKACK}:         {(*tcpip.SocketOptions).GetQuickAck, (*tcpip.SocketOptions).SetQuickAck, false, true},
	{unix.IPPROTO_IP, unix.IP_MULTICAST_LOOP}:     {(*tcpip.SocketOptions).GetMulticastLoop, (*tcpip.SocketOptions).SetMulticastLoop, false, false},
	{unix.IPPROTO_IP, unix.IP_RECVTOS}:            {(*tcpip.SocketOptions).GetReceiveTOS, (*tcpip.SocketOptions).SetReceiveTOS, false, false},
	{unix.IPPROTO_IP, unix.IP_RECVTTL}:            {(*tcpip.SocketOptions).GetReceiveTTL, (*tcpip.SocketOptions).SetReceiveTTL, false, false},
	{unix.IPPROTO_IP, unix.IP_PKTINFO}:            {(*tcpip.SocketOptions).GetReceivePacketInfo, (*tcpip.SocketOptions).SetReceivePacketInfo, false, false},
	{unix.IPPROTO_IP, unix.IP_HDRINCL}:            {(*tcpip.SocketOptions).GetHeaderIncluded, (*tcpip.SocketOptions).SetHeaderIncluded, false, false},
	{unix.IPPROTO_IPV6, unix.IPV6_RECVTCLASS}:     {(*tcpip.SocketOptions).GetReceiveTClass, (*tcpip.SocketOptions).SetReceiveTClass, true, false},
	{unix.IPPROTO_IPV6, unix.IPV6_RECVHOPLIMIT}:   {(*tcpip.SocketOptions).GetReceiveHopLimit, (*tcpip.SocketOptions).SetReceiveHopLimit, true, false},
	{unix.IPPROTO_IPV6, unix.IPV6_RECVPKTINFO}:    {(*tcpip.SocketOptions).GetIPv6ReceivePacketInfo, (*tcpip.SocketOptions).SetIPv6ReceivePacketInfo, true, false},
	{unix.IPPROTO_IPV6, unix.IPV6_MULTICAST_LOOP}: {(*tcpip.SocketOptions).GetMulticastLoop, (*tcpip.SocketOptions).SetMulticastLoop, true, false},
	{unix.IPPROTO_IPV6, unix.IPV6_V6ONLY}:         {(*tcpip.SocketOptions).GetV6Only, (*tcpip.SocketOptions).SetV6Only, true, false},
}

// intOption is an option that the endpoint keeps as a number.
type intOption struct {
	opt           tcpip.SockOptInt
	min, max      int
	inet6, stream bool
}

var ints = map[option]intOption{
	{unix.IPPROTO_TCP, unix.TCP_KEEPCNT}:      {tcpip.KeepaliveCountOption, 1, linux.MAX_TCP_KEEPCNT, false, true},
	{unix.IPPROTO_TCP, unix.TCP_MAXSEG}:       {tcpip.MaxSegOption, 88, 32767, false, true},
	{unix.IPPROTO_TCP, unix.TCP_SYNCNT}:       {tcpip.TCPSynCountOption, 1, 127, false, true},
	{unix.IPPROTO_TCP, unix.TCP_WINDOW_CLAMP}: {tcpip.TCPWindowClampOption, 0, math.MaxInt32, false, true},
	{unix.IPPROTO_IP, unix.IP_TOS}:            {tcpip.IPv4TOSOption, math.MinInt32, math.MaxInt32, false, false},
}

// keptOptions are taken, remembered and change nothing here: hints, and what
// has no meaning without the kernel's machinery. The value is the default.
var keptOptions = map[option]int{
	{unix.SOL_SOCKET, unix.SO_PRIORITY}:               0,
	{unix.SOL_SOCKET, unix.SO_OOBINLINE}:              0,
	{unix.SOL_SOCKET, unix.SO_TIMESTAMP}:              0,
	{unix.SOL_SOCKET, unix.SO_TIMESTAMPNS}:            0,
	{unix.SOL_SOCKET, unix.SO_DEBUG}:                  0,
	{unix.SOL_SOCKET, unix.SO_DONTROUTE}:              0,
	{unix.SOL_SOCKET, unix.SO_BUSY_POLL}:              0,
	{unix.SOL_SOCKET, unix.SO_INCOMING_CPU}:           -1,
	{unix.SOL_SOCKET, unix.SO_RXQ_OVFL}:               0,
	{unix.SOL_SOCKET, unix.SO_SELECT_ERR_QUEUE}:       0,
	{unix.SOL_SOCKET, unix.SO_SNDLOWAT}:               1,
	{unix.SOL_SOCKET, unix.SO_RCVLOWAT}:               1,
	{unix.SOL_SOCKET, unix.SO_PASSCRED}:               0,
	{unix.IPPROTO_TCP, unix.TCP_FASTOPEN}:             0,
	{unix.IPPROTO_TCP, unix.TCP_FASTOPEN_CONNECT}:     0,
	{unix.IPPROTO_TCP, unix.TCP_NOTSENT_LOWAT}:        0,
	{unix.IPPROTO_TCP, unix.TCP_THIN_LINEAR_TIMEOUTS}: 0,
	{unix.IPPROTO_TCP, unix.TCP_THIN_DUPACK}:          0,
	{unix.IPPROTO_TCP, unix.TCP_TIMESTAMP}:            0,
	{unix.IPPROTO_TCP, unix.TCP_SAVE_SYN}:             0,
	{unix.IPPROTO_IP, unix.IP_RECVERR}:                0,
	{unix.IPPROTO_IP, unix.IP_FREEBIND}:               0,
	{unix.IPPROTO_IP, unix.IP_BIND_ADDRESS_NO_PORT}:   0,
	{unix.IPPROTO_IP, unix.IP_MULTICAST_ALL}:          1,
	{unix.IPPROTO_IP, unix.IP_RECVOPTS}:               0,
	{unix.IPPROTO_IP, unix.IP_LOCAL_PORT_RANGE}:       0,
	{unix.IPPROTO_IPV6, unix.IPV6_RECVERR}:            0,
	{unix.IPPROTO_IPV6, unix.IPV6_FREEBIND}:           0,
	{unix.IPPROTO_IPV6, unix.IPV6_MULTICAST_ALL}:      1,
	{unix.IPPROTO_IPV6, unix.IPV6_AUTOFLOWLABEL}:      1,
	{unix.IPPROTO_IPV6, unix.IPV6_DONTFRAG}:           0,
	{unix.IPPROTO_IPV6, unix.IPV6_ADDR_PREFERENCES}:   0,
	{unix.IPPROTO_IP, unix.IP_MULTICAST_LOOP}:         1,
	{unix.IPPROTO_IPV6, unix.IPV6_TCLASS}:             0,
	{unix.IPPROTO_UDP, unix.UDP_CORK}:                 0,
	{unix.IPPROTO_UDP, unix.UDP_GRO}:                  0,
}

func (s *Socket) keptInt(o option) int {
	s.mu.Lock()
	defer s.mu.Unlock()
	if v, ok := s.kept[o]; ok {
		return v
	}
	return keptOptions[o]
}

func (s *Socket) keep(o option, v int) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.kept == nil {
		s.kept = map[option]int{}
	}
	s.kept[o] = v
}

// apart reports whether an option is one that netstack has once and the kernel
// twice: the one of IPv4 on a socket of IPv6, which is kept only.
func (s *Socket) apart(o option) bool {
	return s.inet6() && o == option{unix.IPPROTO_IP, unix.IP_MULTICAST_LOOP}
}

// Buffer limits of SO_SNDBUF and SO_RCVBUF (/proc/sys/net/core/wmem_max).
const (
	maxSockBuf = 4 << 20
	minSndBuf  = 4608
	minRcvBuf  = 2304
)

// bufSize is what SO_SNDBUF makes of v: twice of it, for the kernel's overhead
// (socket(7)).
func bufSize(v, least int, force bool) int64 {
	if v < 0 || v > math.MaxInt32/2 {
		v = math.MaxInt32 / 2
	}
	if !force {
		v = min(v, maxSockBuf/2)
	}
	return int64(max(v*2, least))
}

// checkLevel refuses options of another protocol as the kernel does: setting
// is ENOPROTOOPT, getting EOPNOTSUPP on a socket of AF_INET.
func (s *Socket) checkLevel(level int, get bool) error {
	switch level {
	case unix.SOL_SOCKET, unix.IPPROTO_IP:
		return nil
	case unix.IPPROTO_IPV6:
		if s.inet6() {
			return nil
		}
	case unix.IPPROTO_TCP:
		if s.stream() {
			return nil
		}
	case unix.IPPROTO_UDP:
		if s.kind.Protocol == unix.IPPROTO_UDP {
			return nil
		}
	case unix.IPPROTO_ICMPV6, unix.SOL_RAW:
		if s.kind.Type == unix.SOCK_RAW {
			return nil
		}
	}
	if get && !s.inet6() {
		return unix.EOPNOTSUPP
	}
	return unix.ENOPROTOOPT
}

// ipInt decodes an option of IPPROTO_IP, which may be a byte, too.
func ipInt(level int, v []byte) (int, error) {
	if level == unix.IPPROTO_IP && len(v) >= 1 && len(v) < 4 {
		return int(v[0]), nil
	}
	return socket.IntOption(v)
}

// SetOption is setsockopt(2).
func (s *Socket) SetOption(_ socket.Caller, level, name int, v []byte) error {
	if err := s.setOption(level, name, v); err != nil {
		return err
	}
	s.noteOption(level, name, v)
	return nil
}

func (s *Socket) setOption(level, name int, v []byte) error {
	if level == unix.SOL_SOCKET {
		if handled, err := s.common.SetOption(name, v); handled {
			return err
		}
	}
	if err := s.checkLevel(level, false); err != nil {
		return err
	}
	o := option{level, name}
	switch o {
	case option{unix.IPPROTO_TCP, unix.TCP_CONGESTION}:
		name := strings.TrimRight(string(v[:min(len(v), 15)]), "\x00")
		c := tcpip.CongestionControlOption(name)
		if err := s.ep().SetSockOpt(&c); err != nil {
			return unix.ENOENT
		}
		return nil
	case option{unix.SOL_SOCKET, unix.SO_BINDTODEVICE}:
		return s.bindToDevice(strings.TrimRight(string(v[:min(len(v), 15)]), "\x00"))
	case option{unix.SOL_SOCKET, unix.SO_LINGER}:
		if len(v) < 8 {
			return unix.EINVAL
		}
		on, sec := binary.LittleEndian.Uint32(v), int32(binary.LittleEndian.Uint32(v[4:]))
		s.ep().SocketOptions().SetLinger(tcpip.LingerOption{Enabled: on != 0, Timeout: time.Duration(sec) * time.Second})
		return nil
	case option{unix.SOL_SOCKET, unix.SO_ATTACH_FILTER}, option{unix.SOL_SOCKET, unix.SO_ATTACH_REUSEPORT_CBPF}:
		return unix.EPERM
	case option{unix.IPPROTO_IP, unix.IP_ADD_MEMBERSHIP}, option{unix.IPPROTO_IP, unix.IP_DROP_MEMBERSHIP},
		option{unix.IPPROTO_IPV6, unix.IPV6_ADD_MEMBERSHIP}, option{unix.IPPROTO_IPV6, unix.IPV6_DROP_MEMBERSHIP},
		option{unix.IPPROTO_IP, unix.IP_MULTICAST_IF}:
		return s.setMulticast(o, v)
	}
	n, err := ipInt(level, v)
	if err != nil {
		return err
	}
	if s.apart(o) {
		s.keep(o, socket.Bool(n != 0))
		return nil
	}
	if b, ok := bools[o]; ok {
		b.set(s.ep().SocketOptions(), n != 0)
		if o == (option{unix.IPPROTO_IPV6, unix.IPV6_V6ONLY}) {
			if a, err := s.ep().GetLocalAddress(); err == nil && a.Port != 0 {
				return unix.EINVAL
			}
		}
		return nil
	}
	if i, ok := ints[o]; ok {
		if n < i.min || n > i.max {
			return unix.EINVAL
		}
		return errno(s.ep().SetSockOptInt(i.opt, n))
	}
	seconds := func(max int) (time.Duration, error) {
		if n < 1 || n > max {
			return 0, unix.EINVAL
		}
		return time.Duration(n) * time.Second, nil
	}
	so := s.ep().SocketOptions()
	switch o {
	case option{unix.SOL_SOCKET, unix.SO_SNDBUF}, option{unix.SOL_SOCKET, unix.SO_SNDBUFFORCE}:
		so.SetSendBufferSize(bufSize(n, minSndBuf, name == unix.SO_SNDBUFFORCE), true)
	case option{unix.SOL_SOCKET, unix.SO_RCVBUF}, option{unix.SOL_SOCKET, unix.SO_RCVBUFFORCE}:
		so.SetReceiveBufferSize(bufSize(n, minRcvBuf, name == unix.SO_RCVBUFFORCE), true)
	case option{unix.SOL_SOCKET, unix.SO_MARK}:
		so.SetMark(uint32(n))
	case option{unix.IPPROTO_TCP, unix.TCP_KEEPIDLE}:
		d, err := seconds(linux.MAX_TCP_KEEPIDLE)
		if err != nil {
			return err
		}
		v := tcpip.KeepaliveIdleOption(d)
		return errno(s.ep().SetSockOpt(&v))
	case option{unix.IPPROTO_TCP, unix.TCP_KEEPINTVL}:
		d, err := seconds(linux.MAX_TCP_KEEPINTVL)
		if err != nil {
			return err
		}
		v := tcpip.KeepaliveIntervalOption(d)
		return errno(s.ep().SetSockOpt(&v))
	case option{unix.IPPROTO_TCP, unix.TCP_USER_TIMEOUT}:
		if n < 0 {
			return unix.EINVAL
		}
		v := tcpip.TCPUserTimeoutOption(time.Duration(n) * time.Millisecond)
		return errno(s.ep().SetSockOpt(&v))
	case option{unix.IPPROTO_TCP, unix.TCP_DEFER_ACCEPT}:
		v := tcpip.TCPDeferAcceptOption(time.Duration(max(n, 0)) * time.Second)
		return errno(s.ep().SetSockOpt(&v))
	case option{unix.IPPROTO_TCP, unix.TCP_LINGER2}:
		v := tcpip.TCPLingerTimeoutOption(time.Duration(n) * time.Second)
		return errno(s.ep().SetSockOpt(&v))
	case option{unix.IPPROTO_IP, unix.IP_TTL}:
		switch {
		case n == -1:
			n = tcpip.UseDefaultIPv4TTL
		case n < 1 || n > 255:
			return unix.EINVAL
		}
		return errno(s.ep().SetSockOptInt(tcpip.IPv4TTLOption, n))
	case option{unix.IPPROTO_IPV6, unix.IPV6_UNICAST_HOPS}:
		if n < -1 || n > 255 {
			return unix.EINVAL
		}
		return errno(s.ep().SetSockOptInt(tcpip.IPv6HopLimitOption, n))
	case option{unix.IPPROTO_IP, unix.IP_MULTICAST_TTL}, option{unix.IPPROTO_IPV6, unix.IPV6_MULTICAST_HOPS}:
		switch {
		case s.stream() && level == unix.IPPROTO_IPV6:
			return unix.ENOPROTOOPT
		case n < -1 || n > 255 || s.stream():
			return unix.EINVAL
		}
		if n == -1 {
			n = 1
		}
		return errno(s.ep().SetSockOptInt(tcpip.MulticastTTLOption, n))
	case option{unix.IPPROTO_IPV6, unix.IPV6_TCLASS}:
		if n < -1 || n > 255 {
			return unix.EINVAL
		}
		n = max(n, 0)
		if s.stream() {
			n &^= 3 // TCP's own: explicit congestion notification
		}
		s.keep(o, n)
		return errno(s.ep().SetSockOptInt(tcpip.IPv6TrafficClassOption, n))
	case option{unix.IPPROTO_IPV6, unix.IPV6_MULTICAST_IF}:
		if n != 0 && !s.stack.HasNIC(tcpip.NICID(n)) {
			return unix.ENODEV
		}
		return errno(s.ep().SetSockOpt(&tcpip.MulticastInterfaceOption{NIC: tcpip.NICID(n)}))
	case option{unix.IPPROTO_IP, unix.IP_MTU_DISCOVER}, option{unix.IPPROTO_IPV6, unix.IPV6_MTU_DISCOVER}:
		if n < 0 || n > unix.IP_PMTUDISC_OMIT {
			return unix.EINVAL
		}
		s.keep(o, n)
		if n <= unix.IP_PMTUDISC_PROBE {
			d := [...]tcpip.PMTUDStrategy{tcpip.PMTUDiscoveryDont, tcpip.PMTUDiscoveryWant, tcpip.PMTUDiscoveryDo, tcpip.PMTUDiscoveryProbe}[n]
			s.ep().SetSockOptInt(tcpip.MTUDiscoverOption, int(d))
		}
	default:
		if _, ok := keptOptions[o]; !ok {
			return unix.ENOPROTOOPT
		}
		s.keep(o, n)
	}
	return nil
}

// GetOption is getsockopt(2).
func (s *Socket) GetOption(_ socket.Caller, level, name int, buf []byte) (int, error) {
	if level == unix.SOL_SOCKET {
		if n, handled := s.common.GetOption(name, buf); handled {
			return n, nil
		}
	}
	if err := s.checkLevel(level, true); err != nil {
		return 0, err
	}
	o := option{level, name}
	put := func(v int, err error) (int, error) {
		if err != nil {
			return 0, err
		}
		if level == unix.IPPROTO_IP && len(buf) >= 1 && len(buf) < 4 && v >= 0 && v <= 255 {
			return copy(buf, []byte{byte(v)}), nil
		}
		return socket.PutInt(buf, v), nil
	}
	so := s.ep().SocketOptions()
	if s.apart(o) {
		return put(s.keptInt(o), nil)
	}
	if b, ok := bools[o]; ok {
		return put(socket.Bool(b.get(so)), nil)
	}
	if i, ok := ints[o]; ok {
		v, err := s.ep().GetSockOptInt(i.opt)
		return put(v, errno(err))
	}
	switch o {
	case option{unix.SOL_SOCKET, unix.SO_ERROR}:
		if err, ok := s.takeError().(unix.Errno); ok {
			return put(int(err), nil)
		}
		return put(0, nil)
	case option{unix.SOL_SOCKET, unix.SO_TYPE}:
		return put(s.kind.Type, nil)
	case option{unix.SOL_SOCKET, unix.SO_DOMAIN}:
		return put(s.kind.Family, nil)
	case option{unix.SOL_SOCKET, unix.SO_PROTOCOL}:
		return put(s.kind.Protocol, nil)
	case option{unix.SOL_SOCKET, unix.SO_ACCEPTCONN}:
		return put(socket.Bool(s.stream() && tcp.EndpointState(s.ep().State()) == tcp.StateListen), nil)
	case option{unix.SOL_SOCKET, unix.SO_SNDBUF}:
		return put(int(min(so.GetSendBufferSize(), math.MaxInt32)), nil)
	case option{unix.SOL_SOCKET, unix.SO_RCVBUF}:
		return put(int(min(so.GetReceiveBufferSize(), math.MaxInt32)), nil)
	case option{unix.SOL_SOCKET, unix.SO_LINGER}:
		l := so.GetLinger()
		b := binary.LittleEndian.AppendUint32(nil, uint32(socket.Bool(l.Enabled)))
		b = binary.LittleEndian.AppendUint32(b, uint32(l.Timeout/time.Second))
		return copy(buf, b), nil
	case option{unix.SOL_SOCKET, unix.SO_MARK}:
		return put(int(so.GetMark()), nil)
	case option{unix.SOL_SOCKET, unix.SO_COOKIE}:
		return copy(buf, binary.LittleEndian.AppendUint64(nil, s.ino)), nil
	case option{unix.SOL_SOCKET, unix.SO_BINDTODEVICE}:
		id := so.GetBindToDevice()
		if id == 0 {
			return 0, nil
		}
		name := append([]byte(s.stack.FindNICNameFromID(tcpip.NICID(id))), 0)
		if len(buf) < 16 {
			return 0, unix.EINVAL
		}
		return copy(buf, name), nil
	case option{unix.SOL_SOCKET, unix.SO_PEERCRED}:
		b := socket.Credentials{UID: math.MaxUint32, GID: math.MaxUint32}.AppendTo(nil)
		return copy(buf, b), nil
	case option{unix.IPPROTO_TCP, unix.TCP_KEEPIDLE}:
		var v tcpip.KeepaliveIdleOption
		err := s.ep().GetSockOpt(&v)
		return put(int(time.Duration(v)/time.Second), errno(err))
	case option{unix.IPPROTO_TCP, unix.TCP_KEEPINTVL}:
		var v tcpip.KeepaliveIntervalOption
		err := s.ep().GetSockOpt(&v)
		return put(int(time.Duration(v)/time.Second), errno(err))
	case option{unix.IPPROTO_TCP, unix.TCP_USER_TIMEOUT}:
		var v tcpip.TCPUserTimeoutOption
		err := s.ep().GetSockOpt(&v)
		return put(int(time.Duration(v)/time.Millisecond), errno(err))
	case option{unix.IPPROTO_TCP, unix.TCP_DEFER_ACCEPT}:
		var v tcpip.TCPDeferAcceptOption
		err := s.ep().GetSockOpt(&v)
		return put(int(time.Duration(v)/time.Second), errno(err))
	case option{unix.IPPROTO_TCP, unix.TCP_LINGER2}:
		var v tcpip.TCPLingerTimeoutOption
		err := s.ep().GetSockOpt(&v)
		return put(int(time.Duration(v)/time.Second), errno(err))
	case option{unix.IPPROTO_TCP, unix.TCP_CONGESTION}:
		var v tcpip.CongestionControlOption
		if err := s.ep().GetSockOpt(&v); err != nil {
			return 0, errno(err)
		}
		var name [16]byte
		copy(name[:], v)
		return copy(buf, name[:]), nil
	case option{unix.IPPROTO_TCP, unix.TCP_INFO}:
		return s.tcpInfo(buf)
	case option{unix.IPPROTO_IP, unix.IP_TTL}:
		v, err := s.ep().GetSockOptInt(tcpip.IPv4TTLOption)
		if v == tcpip.UseDefaultIPv4TTL {
			v = 64
		}
		return put(v, errno(err))
	case option{unix.IPPROTO_IPV6, unix.IPV6_UNICAST_HOPS}:
		v, err := s.ep().GetSockOptInt(tcpip.IPv6HopLimitOption)
		if v == tcpip.UseDefaultIPv6HopLimit {
			v = 64
		}
		return put(v, errno(err))
	case option{unix.IPPROTO_IP, unix.IP_MULTICAST_TTL}, option{unix.IPPROTO_IPV6, unix.IPV6_MULTICAST_HOPS}:
		v, err := s.ep().GetSockOptInt(tcpip.MulticastTTLOption)
		return put(v, errno(err))
	case option{unix.IPPROTO_IP, unix.IP_MULTICAST_IF}:
		var v tcpip.MulticastInterfaceOption
		if err := s.ep().GetSockOpt(&v); err != nil {
			return 0, errno(err)
		}
		var a [4]byte
		if v.InterfaceAddr.Len() == 4 {
			a = v.InterfaceAddr.As4()
		}
		return copy(buf, a[:]), nil
	case option{unix.IPPROTO_IPV6, unix.IPV6_MULTICAST_IF}:
		var v tcpip.MulticastInterfaceOption
		err := s.ep().GetSockOpt(&v)
		return put(int(v.NIC), errno(err))
	case option{unix.IPPROTO_IP, unix.IP_MTU_DISCOVER}, option{unix.IPPROTO_IPV6, unix.IPV6_MTU_DISCOVER}:
		s.mu.Lock()
		v, ok := s.kept[o]
		s.mu.Unlock()
		if !ok {
			v = unix.IP_PMTUDISC_WANT
		}
		return put(v, nil)
	case option{unix.IPPROTO_IP, unix.IP_MTU}, option{unix.IPPROTO_IPV6, unix.IPV6_MTU}:
		return s.mtu(buf)
	}
	if _, ok := keptOptions[o]; ok {
		return put(s.keptInt(o), nil)
	}
	return 0, unix.ENOPROTOOPT
}

// mtu is IP_MTU: of the interface that leads to the peer.
func (s *Socket) mtu(buf []byte) (int, error) {
	f, err := s.ep().GetRemoteAddress()
	if err != nil {
		return 0, unix.ENOTCONN
	}
	net := tcpip.NetworkProtocolNumber(0x0800)
	if f.Addr.Len() == 16 {
		net = 0x86dd
	}
	r, err := s.stack.FindRoute(0, tcpip.Address{}, f.Addr, net, false)
	if err != nil {
		return 0, errno(err)
	}
	defer r.Release()
	info := s.stack.NICInfo()[r.NICID()]
	return socket.PutInt(buf, int(info.MTU)), nil
}

// bindToDevice is SO_BINDTODEVICE; an empty name undoes it.
func (s *Socket) bindToDevice(name string) error {
	if name == "" {
		return errno(s.ep().SocketOptions().SetBindToDevice(0))
	}
	for id, info := range s.stack.NICInfo() {
		if info.Name == name {
			return errno(s.ep().SocketOptions().SetBindToDevice(int32(id)))
		}
	}
	return unix.ENODEV
}

// setMulticast handles the memberships and the interface of multicast.
func (s *Socket) setMulticast(o option, v []byte) error {
	le := binary.LittleEndian
	if o.level == unix.IPPROTO_IPV6 {
		if len(v) < 20 {
			return unix.EINVAL
		}
		m := tcpip.MembershipOption{MulticastAddr: tcpip.AddrFrom16([16]byte(v)), NIC: tcpip.NICID(le.Uint32(v[16:]))}
		if o.name == unix.IPV6_ADD_MEMBERSHIP {
			a := tcpip.AddMembershipOption(m)
			return membership(s.ep().SetSockOpt(&a))
		}
		r := tcpip.RemoveMembershipOption(m)
		return membership(s.ep().SetSockOpt(&r))
	}
	// struct in_addr, ip_mreq or ip_mreqn.
	switch {
	case o.name == unix.IP_MULTICAST_IF && len(v) >= 4 && len(v) < 8:
		a := tcpip.AddrFrom4([4]byte(v))
		if a == tcpip.AddrFrom4([4]byte{}) {
			a = tcpip.Address{}
		}
		return errno(s.ep().SetSockOpt(&tcpip.MulticastInterfaceOption{InterfaceAddr: a}))
	case len(v) < 8:
		return unix.EINVAL
	}
	nic := tcpip.NICID(0)
	if len(v) >= 12 {
		nic = tcpip.NICID(le.Uint32(v[8:]))
	}
	group, local := tcpip.AddrFrom4([4]byte(v)), tcpip.AddrFrom4([4]byte(v[4:]))
	if local == tcpip.AddrFrom4([4]byte{}) {
		local = tcpip.Address{}
	}
	m := tcpip.MembershipOption{MulticastAddr: group, InterfaceAddr: local, NIC: nic}
	switch o.name {
	case unix.IP_MULTICAST_IF:
		return errno(s.ep().SetSockOpt(&tcpip.MulticastInterfaceOption{InterfaceAddr: local, NIC: nic}))
	case unix.IP_ADD_MEMBERSHIP:
		a := tcpip.AddMembershipOption(m)
		return membership(s.ep().SetSockOpt(&a))
	}
	r := tcpip.RemoveMembershipOption(m)
	return membership(s.ep().SetSockOpt(&r))
}

// membership is the errno of a change of memberships.
func membership(err tcpip.Error) error {
	switch err.(type) {
	case *tcpip.ErrPortInUse:
		return unix.EADDRINUSE // a member already
	case *tcpip.ErrBadLocalAddress:
		return unix.EADDRNOTAVAIL
	case *tcpip.ErrUnknownDevice, *tcpip.ErrHostUnreachable:
		return unix.ENODEV
	}
	return errno(err)
}

// tcpInfo is TCP_INFO with what netstack knows; the rest is 0.
func (s *Socket) tcpInfo(buf []byte) (int, error) {
	var v tcpip.TCPInfoOption
	if err := s.ep().GetSockOpt(&v); err != nil {
		return 0, errno(err)
	}
	state := v.State
	switch tcp.EndpointState(state) {
	case tcp.StateInitial, tcp.StateBound, tcp.StateError:
		state = tcpip.EndpointState(tcp.StateClose)
	case tcp.StateConnecting:
		state = tcpip.EndpointState(tcp.StateSynSent)
	}
	ca := uint8(linux.TCP_CA_Open)
	switch v.CcState {
	case tcpip.RTORecovery:
		ca = linux.TCP_CA_Loss
	case tcpip.FastRecovery, tcpip.SACKRecovery:
		ca = linux.TCP_CA_Recovery
	case tcpip.Disorder:
		ca = linux.TCP_CA_Disorder
	}
	mss, _ := s.ep().GetSockOptInt(tcpip.MaxSegOption)
	info := linux.TCPInfo{
		State: uint8(state), CaState: ca,
		RTO: uint32(v.RTO / time.Microsecond), RTT: uint32(v.RTT / time.Microsecond), RTTVar: uint32(v.RTTVar / time.Microsecond),
		SndSsthresh: v.SndSsthresh, SndCwnd: v.SndCwnd, SndMss: uint32(mss), RcvMss: uint32(mss), Advmss: uint32(mss),
	}
	b := make([]byte, info.SizeBytes())
	info.MarshalBytes(b)
	return copy(buf, b), nil
}
