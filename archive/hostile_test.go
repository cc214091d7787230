package archive

import (
	"bytes"
	"hash/crc32"
	"io"
	"math/rand"
	"slices"
	"strings"
	"testing"
)

// sample is an archive with one of everything.
func sample(t testing.TB) []byte {
	_, b := build(t, func(w *Writer) {
		stored := []byte(strings.Repeat("x", 5000))
		p := &Patch{Stubs: []byte("stub"), StubVaddr: 0x3000, Hi: 0x2800, Segments: []Segment{{0, 0, 5000}}, Undo: []Undo{{10, []byte("abc")}, {4000, []byte("defg")}}}
		must(t, w.Add(Header{Name: "usr/lib/x.so", Mode: typeReg | 0o755, Size: 5000, Patch: p, Xattrs: []Xattr{{"user.a", []byte("b")}}}, bytes.NewReader(stored)))
		must(t, w.Add(reg("usr/f", "hello")))
		must(t, w.HardLink("usr/g", "usr/f"))
		must(t, w.HardLink("low", "bin/sh"))
		must(t, w.Add(Header{Name: "l", Mode: typeLink, Link: "usr/f"}, nil))
		must(t, w.Whiteout("etc/gone"))
		must(t, w.Opaque("var"))
	})
	return b
}

// walkAll uses everything a Reader has, and must come to an end.
func walkAll(t testing.TB, b []byte) {
	r, err := Open(b)
	if err != nil {
		return
	}
	_ = r.Check()
	left := len(b) + 1000 // more names than fit are a circle
	var walk func(d Node, depth int)
	walk = func(d Node, depth int) {
		for n := range r.ReadDir(d) {
			if left--; left < 0 {
				t.Fatal("the walk does not end")
			}
			name := n.Name()
			r.Lookup(d, name)
			n.Mode()
			n.Nlink()
			n.Mtime()
			n.Rdev()
			n.Opaque()
			n.Implied()
			n.LowerLink()
			if len(n.Link()) > len(b) || n.Size() > int64(len(b)) || n.Ino() > r.Inodes() {
				t.Fatalf("%q: impossible attributes", name)
			}
			if p := n.Parent(); p != d && !n.Whiteout() {
				t.Fatalf("%q: another parent", name)
			}
			if c := 0; true {
				for range n.Xattrs() {
					if c++; c > len(b) {
						t.Fatal("too many attributes")
					}
				}
			}
			if data, err := n.Data(); err == nil {
				buf := make([]byte, min(len(data)+10, 70))
				if c, err := n.ReadAt(buf, int64(max(0, len(data)-60))); err != nil && err != io.EOF || c > len(data) {
					t.Fatalf("%q: read %d, %v", name, c, err)
				}
			}
			if p, ok := n.Patch(); ok {
				if p.StubVaddr%pageSize != 0 || p.StubVaddr < p.Hi {
					t.Fatalf("patch %+v", p)
				}
				for _, u := range p.Undo {
					if u.Off+uint64(len(u.Orig)) > uint64(n.Size()) {
						t.Fatalf("undo %+v", u)
					}
				}
			}
			if n.IsDir() {
				walk(n, depth+1)
			}
		}
	}
	walk(r.Root(), 0)
}

func TestCheck(t *testing.T) {
	b := sample(t)
	r, err := Open(b)
	must(t, err)
	must(t, r.Check())
	walkAll(t, b)
	index := int(r.index)
	for i := index; i < len(b)-trailerSize; i += 7 {
		c := slices.Clone(b)
		c[i] ^= 0x10
		if r, err := Open(c); err == nil && r.Check() == nil {
			t.Fatalf("byte %#x of the index changed, not seen", i-index)
		}
	}
}

// seal makes the checksums of a changed archive right.
func seal(b []byte) {
	t := b[len(b)-trailerSize:]
	if ix, ok := slice(b, u64(t, trIndexOff), u64(t, trIndexLen)); ok {
		put32(t, trIndexCRC, crc32.Checksum(ix, castagnoli))
	}
	put32(t, trCRC, crc32.Checksum(t[:trCRC], castagnoli))
}

func TestLyingArchive(t *testing.T) {
	b := sample(t)
	r, err := Open(b)
	must(t, err)
	index := int(r.index)
	rnd := rand.New(rand.NewSource(1))
	// The records: everything of the index but the page-aligned stubs.
	n := len(b) - trailerSize - index - pageSize
	for range 20000 {
		c := slices.Clone(b)
		for range 1 + rnd.Intn(6) {
			c[index+rnd.Intn(min(n, 2500))] = []byte{0, 1, 0xff, 0x7f, 0x80, byte(rnd.Intn(256))}[rnd.Intn(6)]
		}
		seal(c)
		walkAll(t, c)
	}
}

func FuzzOpen(f *testing.F) {
	b := sample(f)
	f.Add(b)
	f.Fuzz(func(t *testing.T, b []byte) {
		b = slices.Clone(b)
		if len(b) > trailerSize {
			seal(b)
		}
		walkAll(t, b)
	})
}
