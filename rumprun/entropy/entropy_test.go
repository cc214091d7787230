package entropy

import (
	"bytes"
	"math/bits"
	"testing"
)

func seeded(b byte) *Source {
	var seed [64]byte
	seed[0] = b
	return New(seed)
}

func TestStreams(t *testing.T) {
	read := func(s *Source, n int) []byte {
		p := bytes.Repeat([]byte{0xaa}, n)
		if k, err := s.Read(p); k != n || err != nil {
			t.Fatalf("Read: %d, %v", k, err)
		}
		return p
	}
	if !bytes.Equal(read(seeded(1), 5000), read(seeded(1), 5000)) {
		t.Error("the same seed gives different numbers")
	}
	if bytes.Equal(read(seeded(1), 32), read(seeded(2), 32)) {
		t.Error("different seeds give the same numbers")
	}
	// No 16 bytes come twice, whatever the sizes of the requests are, and
	// what was in the buffer does not show.
	s := seeded(3)
	seen := make(map[[16]byte]bool)
	ones := 0
	total := 0
	for _, n := range []int{1, 16, 17, 1000, 1023, 1024, 1025, 4096, 3 << 20, 64, 15} {
		p := read(s, n)
		total += n
		for _, b := range p {
			ones += bits.OnesCount8(b)
		}
		for ; len(p) >= 16; p = p[16:] {
			k := [16]byte(p)
			if seen[k] {
				t.Fatalf("16 bytes come twice in a request of %d", n)
			}
			seen[k] = true
		}
	}
	// Half of the bits are set: 6 standard deviations of slack.
	if d := float64(ones - total*4); d*d > 36*float64(total)*2 {
		t.Errorf("%d of %d bits are set", ones, total*8)
	}
}

// TestKeyErasure makes sure that what was given out cannot be made again from
// the state.
func TestKeyErasure(t *testing.T) {
	s := seeded(1)
	out := make([]byte, 100)
	s.Read(out)
	if bytes.Contains(s.buf[:], out[:16]) {
		t.Error("the buffer still holds what was given out")
	}
	old := s.key
	s.Read(make([]byte, 2*blockSize))
	if s.key == old {
		t.Error("the key stays")
	}
}

func TestMix(t *testing.T) {
	a, b := seeded(1), seeded(1)
	a.Mix([]byte("x"))
	p, q := make([]byte, 32), make([]byte, 32)
	a.Read(p)
	b.Read(q)
	if bytes.Equal(p, q) {
		t.Error("Mix changes nothing")
	}
}
