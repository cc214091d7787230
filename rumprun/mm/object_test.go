package mm

import (
	"bytes"
	"testing"

	"golang.org/x/sys/unix"
)

// rewrittenSource is an object of four pages of file: headers, text (rewritten
// at one place), data; addresses 0 to 0x6000, stubs at 0x6000.
type rewrittenSource struct{ memSource }

const objectSpan = 0x6000

func newRewritten() (rewrittenSource, *File) {
	b := make(memSource, 4*PageSize)
	for i := range b {
		b[i] = byte(1 + i/PageSize)
	}
	s := rewrittenSource{b}
	return s, NewFile(&File{Source: s, Ino: 7, Dev: 3}, nil)
}

func (s rewrittenSource) Rewriting() (Rewriting, bool) {
	return Rewriting{Stubs: []byte("stubs"), StubVaddr: objectSpan, Lo: 0, Hi: objectSpan - 10, Segments: []Segment{{Off: 0x1000, Vaddr: 0x1000, Filesz: 0x1800}}}, true
}

func (s rewrittenSource) PreadRewritten(p []byte, off int64) (int, error) {
	n, err := s.Pread(p, off)
	if i := 0x1234 - off; i >= 0 && i < int64(n) {
		p[i] = 0xe9
	}
	return n, err
}

// mapLib maps the object as ld.so does.
func mapLib(t *testing.T, as *AddressSpace, f *File) uintptr {
	t.Helper()
	base := mustMap(t, as, Mapping{Len: objectSpan - 10, Prot: unix.PROT_READ, Flags: unix.MAP_PRIVATE, File: f})
	fixed := func(at, n uintptr, prot int, off int64) {
		mustMap(t, as, Mapping{Addr: base + at, Len: uint64(n), Prot: prot, Flags: unix.MAP_PRIVATE | unix.MAP_FIXED, File: f, Off: off})
	}
	fixed(0x1000, 0x1800, unix.PROT_READ|unix.PROT_EXEC, 0x1000)
	fixed(0x3000, 0x1000, rw, 0x3000)
	mustMap(t, as, Mapping{Addr: base + 0x4000, Len: 0x2000, Prot: rw, Flags: anon | unix.MAP_FIXED})
	return base
}

func TestRewrittenObject(t *testing.T) {
	a := testArena(t, 0, 16<<20)
	as := a.NewAddressSpace()
	_, f := newRewritten()
	neighbour := mustMap(t, as, Mapping{Len: PageSize, Prot: rw, Flags: anon})
	base := mapLib(t, as, f)
	check(t, a, as)
	if got := memory(Range{base + 0x1234, base + 0x1235})[0]; got != 0xe9 {
		t.Errorf("text has %#x, want the rewritten byte", got)
	}
	if got := memory(Range{base + objectSpan, base + objectSpan + 5}); string(got) != "stubs" {
		t.Errorf("%q where the stubs belong", got)
	}
	// The guest sees none of it.
	if _, err := as.Bytes(base+objectSpan, 1, false); err != unix.EFAULT {
		t.Errorf("the guest can read the stubs: %v", err)
	}
	for v := range as.VMAs() {
		if v.End > base+objectSpan {
			t.Errorf("maps shows %#x-%#x", v.Start, v.End)
		}
	}
	// A read-only mapping elsewhere has the original.
	p := mustMap(t, as, Mapping{Len: 4 * PageSize, Prot: unix.PROT_READ, Flags: unix.MAP_PRIVATE, File: f})
	if memory(Range{p + 0x1234, p + 0x1235})[0] != 2 {
		t.Error("a mapping for reading has rewritten bytes")
	}
	as.Unmap(p, 4*PageSize)
	// dlclose gives everything back, stubs included.
	if err := as.Unmap(base, objectSpan); err != nil {
		t.Fatal(err)
	}
	check(t, a, as)
	if len(as.objects) != 0 || len(as.vmas) != 1 {
		t.Errorf("%d objects and %d mappings are left", len(as.objects), len(as.vmas))
	}
	if f.refs.Load() != 1 {
		t.Errorf("%d references to the file are left", f.refs.Load())
	}
	// And the place is used again.
	if again := mapLib(t, as, f); again != base {
		t.Errorf("mapped at %#x, was %#x", again, base)
	}
	as.Unmap(neighbour, PageSize)
	as.Clear()
	check(t, a, as)
}

// Where the stubs' place is taken, the original bytes are mapped.
func TestNoRoomForStubs(t *testing.T) {
	a := testArena(t, 0, 16<<20)
	as := a.NewAddressSpace()
	_, f := newRewritten()
	base := a.ranges[0].Start + 1<<20
	mustMap(t, as, Mapping{Addr: base + objectSpan, Len: PageSize, Prot: rw, Flags: anon | unix.MAP_FIXED})
	at := mustMap(t, as, Mapping{Addr: base + 0x1000, Len: 0x1800, Prot: unix.PROT_READ | unix.PROT_EXEC, Flags: unix.MAP_PRIVATE | unix.MAP_FIXED, File: f, Off: 0x1000})
	if memory(Range{at + 0x234, at + 0x235})[0] != 2 {
		t.Error("rewritten bytes without stubs")
	}
	check(t, a, as)
}

// A mapping over the stubs turns the object into the original.
func TestStubsMappedOver(t *testing.T) {
	a := testArena(t, 0, 16<<20)
	as := a.NewAddressSpace()
	src, f := newRewritten()
	base := mapLib(t, as, f)
	mustMap(t, as, Mapping{Addr: base + objectSpan, Len: PageSize, Prot: rw, Flags: anon | unix.MAP_FIXED})
	if got := memory(Range{base + 0x1000, base + 0x2800}); !bytes.Equal(got, src.memSource[0x1000:0x2800]) {
		t.Error("text still has rewritten bytes")
	}
	if len(as.objects) != 0 {
		t.Error("the object is still there")
	}
	check(t, a, as)
	as.Clear()
	check(t, a, as)
	if f.refs.Load() != 1 {
		t.Errorf("%d references to the file are left", f.refs.Load())
	}
}

// inode is a Shareable in memory.
type inode struct {
	b    []byte
	maps Mappings
}

func (n *inode) Pread(p []byte, off int64) (int, error) {
	n.maps.Flush(n, off, int64(len(p)))
	return n.Load(p, off)
}
func (n *inode) Mappings() *Mappings                   { return &n.maps }
func (n *inode) Load(p []byte, off int64) (int, error) { return memSource(n.b).Pread(p, off) }
func (n *inode) Store(p []byte, off int64) (int, error) {
	return copy(n.b[min(off, int64(len(n.b))):], p), nil
}
func (n *inode) write(p string, off int64) {
	n.maps.Flush(n, off, int64(len(p)))
	copy(n.b[off:], p)
	n.maps.Changed([]byte(p), off)
}

func TestSharedFile(t *testing.T) {
	a := testArena(t, 0, 16<<20)
	as := a.NewAddressSpace()
	n := &inode{b: bytes.Repeat([]byte{'.'}, 2*PageSize+100)}
	f := NewFile(&File{Source: n, Writable: true}, nil)
	share := func() []byte {
		p := mustMap(t, as, Mapping{Len: 3 * PageSize, Prot: rw, Flags: unix.MAP_SHARED, File: f})
		return memory(Range{p, p + 3*PageSize})
	}
	m1 := share()
	copy(m1[10:], "store")
	m2 := share()
	if string(m2[10:15]) != "store" {
		t.Error("a new mapping does not see what was stored through another")
	}
	var b [5]byte
	n.write("write", PageSize)
	if string(m1[PageSize:PageSize+5]) != "write" || string(m2[PageSize:PageSize+5]) != "write" {
		t.Error("mappings do not see what was written")
	}
	copy(m2[20:], "second")
	n.Pread(b[:], 20)
	if string(b[:]) != "secon" {
		t.Errorf("read gives %q, stored was second", b)
	}
	if string(m1[20:26]) == "second" {
		t.Log("the first mapping was told at once")
	}
	// Both stores stay, whatever order they are written back in.
	copy(m1[30:], "A")
	copy(m2[31:], "B")
	base := uintptr(0)
	for v := range as.VMAs() {
		if base == 0 {
			base = v.Start
		}
		if err := as.Unmap(v.Start, uint64(v.End-v.Start)); err != nil {
			t.Fatal(err)
		}
	}
	if string(n.b[30:32]) != "AB" || string(n.b[10:15]) != "store" || len(n.b) != 2*PageSize+100 {
		t.Errorf("after munmap the file has %q", n.b[30:32])
	}
	if len(n.maps.list) != 0 || f.refs.Load() != 1 {
		t.Errorf("%d mappings, %d references are left", len(n.maps.list), f.refs.Load())
	}
	// Read-only descriptors.
	ro := NewFile(&File{Source: n}, nil)
	p := mustMap(t, as, Mapping{Len: PageSize, Prot: unix.PROT_READ, Flags: unix.MAP_SHARED, File: ro})
	if err := as.Protect(p, PageSize, rw); err != unix.EACCES {
		t.Errorf("mprotect of a read-only file's mapping: %v", err)
	}
	if err := mapErr(as, Mapping{Len: PageSize, Prot: rw, Flags: unix.MAP_SHARED, File: ro}); err != unix.EACCES {
		t.Errorf("writable mapping of a read-only file: %v", err)
	}
	check(t, a, as)
}

func TestMove(t *testing.T) {
	a := testArena(t, 0, 16<<20)
	as := a.NewAddressSpace()
	p := mustMap(t, as, Mapping{Len: 4 * PageSize, Prot: rw, Flags: anon})
	q := mustMap(t, as, Mapping{Len: PageSize, Prot: rw, Flags: anon})
	fillWith(memory(Range{p, p + 4*PageSize}), 0x55)
	to, err := as.Remap(p, 4*PageSize, 16*PageSize, unix.MREMAP_MAYMOVE, 0)
	if err != nil || to == p {
		t.Fatalf("%#x, %v", to, err)
	}
	b := mustBytes(t, as, to, 16*PageSize)
	if !allAre(b[:4*PageSize], 0x55) || !allAre(b[4*PageSize:], 0) {
		t.Error("content after the move")
	}
	if _, err := as.Bytes(p, 1, false); err != unix.EFAULT {
		t.Error("the old place is still mapped")
	}
	// In place, once the neighbour has gone.
	as.Unmap(to+8*PageSize, 8*PageSize)
	if got, err := as.Remap(to, 8*PageSize, 12*PageSize, 0, 0); got != to || err != nil {
		t.Errorf("growing in place: %#x, %v", got, err)
	}
	if !allAre(mustBytes(t, as, to, 12*PageSize)[4*PageSize:], 0) {
		t.Error("what was grown is not zero")
	}
	as.Unmap(q, PageSize)
	check(t, a, as)
}

// Two address spaces never overlap, and what one leaves the other finds zero.
func TestTwoSpaces(t *testing.T) {
	a := testArena(t, 0, 16<<20)
	x, y := a.NewAddressSpace(), a.NewAddressSpace()
	p := mustMap(t, x, Mapping{Len: 1 << 20, Prot: rw, Flags: anon})
	fillWith(memory(Range{p, p + 1<<20}), 9)
	if _, err := y.Bytes(p, 1, false); err != unix.EFAULT {
		t.Errorf("another process's memory: %v", err)
	}
	if err := mapErr(y, Mapping{Addr: p, Len: PageSize, Prot: rw, Flags: anon | unix.MAP_FIXED}); err != unix.ENOMEM {
		t.Errorf("MAP_FIXED over another process: %v", err)
	}
	check(t, a, x, y)
	x.Clear()
	q := mustMap(t, y, Mapping{Len: 1 << 20, Prot: rw, Flags: anon})
	if q != p || !allAre(memory(Range{q, q + 1<<20}), 0) {
		t.Error("the second process does not find the first one's memory zeroed")
	}
	check(t, a, x, y)
}
