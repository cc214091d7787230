package tender

import (
	"encoding/binary"
	"fmt"
	"sync"

	"golang.org/x/sys/unix"

	"gvisor.dev/gvisor/pkg/buffer"
	"gvisor.dev/gvisor/pkg/tcpip"
	"gvisor.dev/gvisor/pkg/tcpip/checksum"
	"gvisor.dev/gvisor/pkg/tcpip/header"
	"gvisor.dev/gvisor/pkg/tcpip/link/channel"
	"gvisor.dev/gvisor/pkg/tcpip/link/ethernet"
	"gvisor.dev/gvisor/pkg/tcpip/stack"

	"github.com/nabla-build/nabla-build/rumprun/hypercall"
	"github.com/nabla-build/nabla-build/tender/policy"
)

// link carries Ethernet frames between netstack and a descriptor that gives
// and takes one frame a call, non-blocking.
type link struct {
	fd     *hypercall.FD
	queue  outQueue // frames on their way out
	ep     stack.LinkEndpoint
	vnet   int // bytes of virtio_net_hdr before each frame; 0: none
	mtu    uint32
	closed func(error)

	mu   sync.Mutex // one writer at a time
	out  []byte
	full bool // a frame waits in out[:pend] for room
	pend int
	room chan struct{} // capacity 1: wakes the goroutine that waits for room
}

const (
	ethernetHeader = 14
	vnetHeader     = 10 // struct virtio_net_hdr without num_buffers
	queueLength    = 4096
	maxFrame       = 65536 + ethernetHeader + vnetHeader

	vnetNeedsChecksum = 1 // VIRTIO_NET_HDR_F_NEEDS_CSUM: still to be computed
	vnetDataValid     = 2 // VIRTIO_NET_HDR_F_DATA_VALID: checked
	vnetTCPv4         = 1 // VIRTIO_NET_HDR_GSO_TCPV4: to be cut into segments
	vnetTCPv6         = 4 // VIRTIO_NET_HDR_GSO_TCPV6
)

// outQueue is netstack's queue of frames. Where the link can segment, TCP gives
// it segments of up to 64 KiB.
type outQueue struct{ *channel.Endpoint }

// GSOMaxSize implements stack.GSOEndpoint: an IP packet's most.
func (outQueue) GSOMaxSize() uint32 { return 65535 }

// newLink makes the link over fd. vnet says that a virtio_net_hdr stands before
// each frame.
func newLink(fd int, mtu uint32, mac tcpip.LinkAddress, vnet bool) (*link, error) {
	h, err := hypercall.Register(fd)
	if err != nil {
		return nil, err
	}
	l := &link{fd: h, mtu: mtu, out: make([]byte, maxFrame), room: make(chan struct{}, 1)}
	l.queue = outQueue{channel.New(queueLength, mtu, mac)}
	if vnet {
		l.vnet = vnetHeader
		// The frame's virtio_net_hdr says whether the kernel knows the transport
		// checksum to be right, or the packet never left this host and has none.
		// receive checks those of which it says neither.
		l.queue.LinkEPCapabilities |= stack.CapabilityRXChecksumOffload
		// TCP's checksums and segments are made beyond the descriptor, if at
		// all: within one machine a segment stays whole.
		l.queue.SupportedGSOKind = stack.HostGSOSupported
	}
	l.queue.AddNotify(l)
	l.ep = ethernet.New(l.queue)
	return l, nil
}

func (l *link) rules() []policy.Rule {
	fd := policy.Arg{Index: 0, Name: "fd", OneOf: []uint64{uint64(l.fd.Sysfd())}}
	length := policy.Arg{Index: 2, Name: "length", Max: 1 << 20}
	return []policy.Rule{
		{NR: unix.SYS_READ, Name: "read", Args: []policy.Arg{fd, length}},
		{NR: unix.SYS_WRITE, Name: "write", Args: []policy.Arg{fd, length}},
	}
}

// start begins to carry frames. closed is called once the far end has gone.
func (l *link) start(closed func(error)) {
	l.closed = closed
	go l.receive()
	go l.waitForRoom()
}

func (l *link) receive() {
	buf := make([]byte, maxFrame)
	for {
		n, err := l.fd.Read(buf)
		switch {
		case err == unix.EAGAIN:
			l.fd.WaitReadable()
			continue
		case err == unix.EINTR:
			continue
		case err == unix.ENETDOWN || err == unix.ENOBUFS:
			l.fd.WaitReadable()
			continue
		case err != nil:
			l.closed(fmt.Errorf("the network device failed: %w", err))
			return
		case n == 0:
			l.closed(fmt.Errorf("the network device closed"))
			return
		}
		if n < l.vnet+ethernetHeader {
			continue
		}
		if l.vnet > 0 && buf[0]&(vnetNeedsChecksum|vnetDataValid) == 0 && !transportChecksumValid(buf[l.vnet:n]) {
			continue
		}
		pkt := stack.NewPacketBuffer(stack.PacketBufferOptions{Payload: frame(buf[l.vnet:n])})
		// The Ethernet endpoint above the queue reads the header and finds the
		// protocol in it.
		l.queue.InjectInbound(0, pkt)
		pkt.DecRef()
	}
}

// frame copies a frame into netstack's buffers. The headers have one of their
// own: netstack copies the buffer of a header that is also referred to elsewhere,
// and would copy the whole frame.
func frame(b []byte) buffer.Buffer {
	const headers = 128
	var f buffer.Buffer
	if len(b) > 2*headers {
		f.Append(buffer.NewViewWithData(b[:headers]))
		b = b[headers:]
	}
	f.Append(buffer.NewViewWithData(b))
	return f
}

// transportChecksumValid checks the TCP or UDP checksum of an Ethernet frame.
// It is true of all that carries none or where it cannot be told: other
// protocols (netstack checks ICMP itself), fragments, IPv6 extension headers,
// and malformed packets, which netstack refuses.
func transportChecksumValid(frame []byte) bool {
	b := frame[ethernetHeader:]
	var proto tcpip.TransportProtocolNumber
	var src, dst tcpip.Address
	switch header.Ethernet(frame).Type() {
	case header.IPv4ProtocolNumber:
		h := header.IPv4(b)
		if !h.IsValid(len(b)) || h.More() || h.FragmentOffset() != 0 {
			return true
		}
		proto, src, dst, b = h.TransportProtocol(), h.SourceAddress(), h.DestinationAddress(), h.Payload()
	case header.IPv6ProtocolNumber:
		h := header.IPv6(b)
		if !h.IsValid(len(b)) {
			return true
		}
		proto, src, dst, b = h.TransportProtocol(), h.SourceAddress(), h.DestinationAddress(), h.Payload()
	default:
		return true
	}
	switch proto {
	case header.TCPProtocolNumber:
		if len(b) < header.TCPMinimumSize {
			return true
		}
	case header.UDPProtocolNumber:
		if len(b) < header.UDPMinimumSize || src.Len() == 4 && header.UDP(b).Checksum() == 0 {
			return true // over IPv4, zero says that the sender made none (RFC 768)
		}
	default:
		return true
	}
	sum := header.PseudoHeaderChecksum(proto, src, dst, uint16(len(b)))
	return checksum.Checksum(b, sum) == 0xffff
}

// WriteNotify implements channel.Notification: netstack has queued frames.
func (l *link) WriteNotify() { l.send() }

// send writes queued frames until there are none or the device is full. A
// frame that did not fit is kept and goes first.
func (l *link) send() {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.full {
		return
	}
	for {
		pkt := l.queue.Read()
		if pkt == nil {
			return
		}
		if l.vnet > 0 {
			putVnetHeader(l.out, pkt)
		}
		n := l.vnet
		for _, s := range pkt.AsSlices() {
			n += copy(l.out[n:], s)
		}
		pkt.DecRef()
		if !l.write(n) {
			l.full, l.pend = true, n
			poke(l.room)
			return
		}
	}
}

// putVnetHeader writes the virtio_net_hdr of an outgoing frame (virtio 1.2,
// 5.1.6): what is left to do for it.
func putVnetHeader(b []byte, pkt *stack.PacketBuffer) {
	clear(b[:vnetHeader])
	gso := pkt.GSOOptions
	if gso.Type == stack.GSONone {
		return
	}
	ne := binary.NativeEndian
	ne.PutUint16(b[2:], uint16(pkt.HeaderSize()))
	if gso.NeedsCsum {
		b[0] = vnetNeedsChecksum
		ne.PutUint16(b[6:], ethernetHeader+gso.L3HdrLen)
		ne.PutUint16(b[8:], gso.CsumOffset)
	}
	if pkt.Data().Size() > int(gso.MSS) {
		b[1] = vnetTCPv4
		if gso.Type == stack.GSOTCPv6 {
			b[1] = vnetTCPv6
		}
		ne.PutUint16(b[4:], gso.MSS)
	}
}

// write reports false if the device has no room. Other failures lose the
// frame, as a wire does.
func (l *link) write(n int) bool {
	_, err := l.fd.Write(l.out[:n])
	return err != unix.EAGAIN && err != unix.ENOBUFS
}

func (l *link) waitForRoom() {
	for range l.room {
		for done := false; !done; {
			l.fd.WaitWritable()
			l.mu.Lock()
			if done = l.write(l.pend); done {
				l.full = false
			}
			l.mu.Unlock()
		}
		l.send()
	}
}
