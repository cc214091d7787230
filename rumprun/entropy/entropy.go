// Package entropy is the guest's source of random numbers: a ChaCha20
// generator with fast key erasure (D. J. Bernstein, "Fast-key-erasure random-
// number generators", 2017). Each block of output begins with the next key, so
// that what was given out cannot be computed from the state. The type at its
// heart is Source.
package entropy

import (
	"crypto/sha256"
	"sync"

	"golang.org/x/crypto/chacha20"
)

const (
	blockSize = 1024
	// streamMax limits what one key gives in a large request.
	streamMax = 1 << 20
)

// Source gives random bytes. Its methods lock for themselves.
type Source struct {
	mu   sync.Mutex
	key  [chacha20.KeySize]byte
	buf  [blockSize]byte
	left int // bytes of buf not given out yet; they are at its end
}

// New makes a source from a seed of the host's random numbers. The same seed
// gives the same numbers: it must never be used twice.
func New(seed [64]byte) *Source {
	return &Source{key: sha256.Sum256(seed[:])}
}

// keystream fills p from key and replaces key by what follows.
func (s *Source) keystream(p []byte) {
	var nonce [chacha20.NonceSize]byte
	c, err := chacha20.NewUnauthenticatedCipher(s.key[:], nonce[:])
	if err != nil {
		panic("entropy: " + err.Error()) // the sizes are constants
	}
	clear(s.key[:])
	c.XORKeyStream(s.key[:], s.key[:])
	clear(p)
	c.XORKeyStream(p, p)
}

// Read fills p. It never fails; it has the shape of io.Reader.
func (s *Source) Read(p []byte) (int, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	n := len(p)
	if n > blockSize {
		for len(p) > 0 {
			k := min(len(p), streamMax)
			s.keystream(p[:k])
			p = p[k:]
		}
		return n, nil
	}
	for len(p) > 0 {
		if s.left == 0 {
			s.keystream(s.buf[:])
			s.left = blockSize
		}
		b := s.buf[blockSize-s.left:]
		k := copy(p, b)
		clear(b[:k])
		s.left -= k
		p = p[k:]
	}
	return n, nil
}

// Mix stirs p into the key: what a guest writes to /dev/random. It cannot make
// the source weaker.
func (s *Source) Mix(p []byte) {
	s.mu.Lock()
	defer s.mu.Unlock()
	h := sha256.New()
	h.Write(s.key[:])
	h.Write(p)
	h.Sum(s.key[:0])
	s.left = 0
}
