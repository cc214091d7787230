package selfexe

import (
	"bytes"
	"errors"
	"io"
	"strings"
	"testing"
)

func build(t testing.TB) []byte {
	t.Helper()
	var b bytes.Buffer
	w, err := NewWriter(&b, strings.NewReader(strings.Repeat("ELF", 3000)))
	if err != nil {
		t.Fatal(err)
	}
	for _, s := range []struct {
		k Kind
		c string
	}{{Archive, strings.Repeat("a", 5000)}, {Archive, ""}, {Netd, "netd"}, {Manifest, "{}"}} {
		if err := w.Add(s.k, strings.NewReader(s.c)); err != nil {
			t.Fatal(err)
		}
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	return b.Bytes()
}

func TestRoundTrip(t *testing.T) {
	b := build(t)
	s, err := Read(bytes.NewReader(b), int64(len(b)))
	if err != nil {
		t.Fatal(err)
	}
	if len(s) != 4 || s[0].Kind != Archive || s[0].Size != 5000 || s[2].Kind != Netd || s[3].Kind != Manifest {
		t.Fatalf("sections %v", s)
	}
	for i, x := range s {
		if x.Offset%Align != 0 {
			t.Errorf("section %d at %d", i, x.Offset)
		}
		if err := x.Verify(bytes.NewReader(b)); err != nil {
			t.Error(err)
		}
	}
	got, _ := io.ReadAll(s[3].Reader(bytes.NewReader(b)))
	if string(got) != "{}" {
		t.Errorf("manifest %q", got)
	}
	b[s[0].Offset] ^= 1
	if err := s[0].Verify(bytes.NewReader(b)); !errors.Is(err, ErrCorrupt) {
		t.Errorf("changed byte: %v", err)
	}
}

// TestEveryBit changes each byte of table and trailer: none goes unnoticed.
func TestEveryBit(t *testing.T) {
	b := build(t)
	n := 4*entrySize + trailerSize
	for i := len(b) - n; i < len(b); i++ {
		c := bytes.Clone(b)
		c[i] ^= 0x10
		if _, err := Read(bytes.NewReader(c), int64(len(c))); err == nil {
			t.Errorf("byte %d changed, no error", i)
		}
	}
	for i := range n {
		if _, err := Read(bytes.NewReader(b[:len(b)-1-i]), int64(len(b)-1-i)); err == nil {
			t.Errorf("cut by %d, no error", i+1)
		}
	}
}

func TestOrdinaryFile(t *testing.T) {
	for _, s := range []string{"", "x", strings.Repeat("x", 1000)} {
		if _, err := Read(strings.NewReader(s), int64(len(s))); !errors.Is(err, ErrNone) {
			t.Errorf("%d bytes: %v", len(s), err)
		}
	}
}

func FuzzRead(f *testing.F) {
	f.Add(build(f))
	f.Add([]byte(magic))
	f.Fuzz(func(t *testing.T, b []byte) {
		s, err := Read(bytes.NewReader(b), int64(len(b)))
		if err != nil {
			return
		}
		for _, x := range s {
			if x.Offset < 0 || x.Size < 0 || x.Offset+x.Size > int64(len(b)) {
				t.Fatalf("section %v of %d bytes", x, len(b))
			}
		}
	})
}
