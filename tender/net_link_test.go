package tender

import (
	"bytes"
	"testing"

	"gvisor.dev/gvisor/pkg/buffer"
	"gvisor.dev/gvisor/pkg/tcpip"
	"gvisor.dev/gvisor/pkg/tcpip/checksum"
	"gvisor.dev/gvisor/pkg/tcpip/header"
	"gvisor.dev/gvisor/pkg/tcpip/stack"
)

// frame4 makes a UDP datagram over IPv4 with the right checksums.
func frame4(payload string) []byte {
	src, dst := tcpip.AddrFrom4([4]byte{10, 0, 0, 1}), tcpip.AddrFrom4([4]byte{10, 0, 0, 2})
	u := header.UDP(make([]byte, header.UDPMinimumSize+len(payload)))
	copy(u[header.UDPMinimumSize:], payload)
	u.Encode(&header.UDPFields{SrcPort: 1, DstPort: 2, Length: uint16(len(u))})
	sum := header.PseudoHeaderChecksum(header.UDPProtocolNumber, src, dst, uint16(len(u)))
	u.SetChecksum(^checksum.Checksum(u, sum))
	h := header.IPv4(make([]byte, header.IPv4MinimumSize))
	h.Encode(&header.IPv4Fields{TotalLength: uint16(len(h) + len(u)), TTL: 64, Protocol: uint8(header.UDPProtocolNumber), SrcAddr: src, DstAddr: dst})
	h.SetChecksum(^h.CalculateChecksum())
	e := header.Ethernet(make([]byte, header.EthernetMinimumSize))
	e.Encode(&header.EthernetFields{Type: header.IPv4ProtocolNumber})
	return append(append(e, h...), u...)
}

// frame6 makes a TCP segment over IPv6 with the right checksum.
func frame6(payload string) []byte {
	src, dst := tcpip.AddrFrom16([16]byte{0xfd, 15: 1}), tcpip.AddrFrom16([16]byte{0xfd, 15: 2})
	s := header.TCP(make([]byte, header.TCPMinimumSize+len(payload)))
	copy(s[header.TCPMinimumSize:], payload)
	s.Encode(&header.TCPFields{SrcPort: 1, DstPort: 2, DataOffset: header.TCPMinimumSize, Flags: header.TCPFlagAck})
	sum := header.PseudoHeaderChecksum(header.TCPProtocolNumber, src, dst, uint16(len(s)))
	s.SetChecksum(^checksum.Checksum(s, sum))
	h := header.IPv6(make([]byte, header.IPv6MinimumSize))
	h.Encode(&header.IPv6Fields{PayloadLength: uint16(len(s)), TransportProtocol: header.TCPProtocolNumber, HopLimit: 64, SrcAddr: src, DstAddr: dst})
	e := header.Ethernet(make([]byte, header.EthernetMinimumSize))
	e.Encode(&header.EthernetFields{Type: header.IPv6ProtocolNumber})
	return append(append(e, h...), s...)
}

// TestTransportChecksum: any one bit that changes in the transport header or
// data is found; padding, fragments and UDP without a checksum pass.
func TestTransportChecksum(t *testing.T) {
	const udp4 = header.EthernetMinimumSize + header.IPv4MinimumSize
	for name, c := range map[string]struct {
		frame     []byte
		transport int
	}{
		"udp4": {frame4("odd"), udp4},
		"tcp6": {frame6("even"), header.EthernetMinimumSize + header.IPv6MinimumSize},
	} {
		if !transportChecksumValid(c.frame) {
			t.Errorf("%s: a right checksum is refused", name)
		}
		if !transportChecksumValid(append(append([]byte{}, c.frame...), 7, 7, 7)) {
			t.Errorf("%s: padding counts", name)
		}
		for bit := 8 * c.transport; bit < 8*len(c.frame); bit++ {
			c.frame[bit/8] ^= 1 << (bit % 8)
			if transportChecksumValid(c.frame) {
				t.Errorf("%s: bit %d of byte %d changed and was not found", name, bit%8, bit/8)
			}
			c.frame[bit/8] ^= 1 << (bit % 8)
		}
		for n := header.EthernetMinimumSize; n < len(c.frame); n++ {
			transportChecksumValid(c.frame[:n]) // must not panic
		}
	}
	none := frame4("x")
	none[udp4+6], none[udp4+7] = 0, 0
	if !transportChecksumValid(none) {
		t.Error("UDP over IPv4 without a checksum is refused")
	}
	fragment := frame4("x")
	fragment[header.EthernetMinimumSize+6] |= 0x20 // more fragments
	fragment[len(fragment)-1] ^= 1
	if !transportChecksumValid(fragment) {
		t.Error("a fragment is refused by the checksum of the whole")
	}
}

// TestVnetHeader has what the kernel's virtio_net_hdr_to_skb reads: offsets
// from the start of the frame, and a segment size where there is more than one.
func TestVnetHeader(t *testing.T) {
	out := func(size int, gso stack.GSO) []byte {
		pkt := stack.NewPacketBuffer(stack.PacketBufferOptions{
			ReserveHeaderBytes: 20,
			Payload:            buffer.MakeWithData(make([]byte, size)),
		})
		defer pkt.DecRef()
		pkt.TransportHeader().Push(20)
		pkt.GSOOptions = gso
		b := bytes.Repeat([]byte{0xff}, vnetHeader)
		putVnetHeader(b, pkt)
		return b
	}
	tcp := stack.GSO{Type: stack.GSOTCPv4, NeedsCsum: true, CsumOffset: 16, MSS: 1000, L3HdrLen: 20}
	tcp6 := tcp
	tcp6.Type, tcp6.L3HdrLen = stack.GSOTCPv6, 40
	for _, c := range []struct {
		name string
		size int
		gso  stack.GSO
		want []byte
	}{
		{"no TCP", 5000, stack.GSO{}, []byte{0, 0, 0, 0, 0, 0, 0, 0, 0, 0}},
		{"one segment", 1000, tcp, []byte{1, 0, 20, 0, 0, 0, 34, 0, 16, 0}},
		{"two segments", 1001, tcp, []byte{1, 1, 20, 0, 0xe8, 3, 34, 0, 16, 0}},
		{"more than 16 bits", 1 << 16, tcp, []byte{1, 1, 20, 0, 0xe8, 3, 34, 0, 16, 0}},
		{"IPv6", 1001, tcp6, []byte{1, 4, 20, 0, 0xe8, 3, 54, 0, 16, 0}},
	} {
		if got := out(c.size, c.gso); !bytes.Equal(got, c.want) {
			t.Errorf("%s: header % x, want % x", c.name, got, c.want)
		}
	}
}
