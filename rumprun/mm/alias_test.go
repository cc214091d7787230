package mm

import (
	"bytes"
	"testing"

	"golang.org/x/sys/unix"
)

// TestTwoSpacesShareAFile: what one address space stores, the other sees at
// once, and the memory stays until both have let go.
func TestTwoSpacesShareAFile(t *testing.T) {
	a := testArena(t, 0, 16<<20)
	one, two := a.NewAddressSpace(), a.NewAddressSpace()
	n := &inode{b: bytes.Repeat([]byte{'.'}, 4*PageSize)}
	m := func(as *AddressSpace, off int64, pages uint64) uintptr {
		f := NewFile(&File{Source: n, Writable: true}, nil) // each process has opened it
		return mustMap(t, as, Mapping{Len: pages * PageSize, Prot: rw, Flags: unix.MAP_SHARED, File: f, Off: off})
	}
	p := m(one, 0, 4)
	copy(memory(Range{p, p + PageSize}), "first")
	q := m(two, PageSize, 2)
	if q != p+PageSize {
		t.Fatalf("the second process has the file at %#x, the first at %#x", q, p)
	}
	if again := m(two, PageSize, 2); again == q {
		t.Error("a process has two mappings at one address")
	}
	memory(Range{q, q + PageSize})[7] = 'x'
	if memory(Range{p, p + 4*PageSize})[PageSize+7] != 'x' {
		t.Error("a store is not seen")
	}
	for name, as := range map[string]*AddressSpace{"first": one, "second": two} {
		if err := mapErr(as, Mapping{Addr: q, Len: PageSize, Prot: rw, Flags: anon | unix.MAP_FIXED}); err != unix.ENOMEM {
			t.Errorf("MAP_FIXED of the %s over memory of both: %v", name, err)
		}
	}
	one.Clear()
	if a.free.covers(Range{q, q + PageSize}) || !a.free.covers(Range{p, p + PageSize}) {
		t.Error("what the second process still has is free, or what it has not is taken")
	}
	if got := memory(Range{q, q + PageSize})[7]; got != 'x' || n.b[PageSize+7] != 'x' || string(n.b[:5]) != "first" {
		t.Errorf("after the first has ended: memory %q, file %q %q", got, n.b[PageSize+7], n.b[:5])
	}
	two.Clear()
	if !a.free.covers(Range{p, p + 4*PageSize}) || len(a.aliased) != 0 || len(a.owners) != 0 || len(n.maps.list) != 0 {
		t.Errorf("memory is left: %v %v, %d mappings", a.aliased, a.owners, len(n.maps.list))
	}
}
