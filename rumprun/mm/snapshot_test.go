package mm

import (
	"bytes"
	"testing"

	"golang.org/x/sys/unix"
)

// TestSnapshot changes memory, protections, the heap and the mappings in every
// way that a child before its execve may, and wants all of it undone.
func TestSnapshot(t *testing.T) {
	as := testArena(t, 0, 64<<20).NewAddressSpace()
	mapIt := func(prot, flags int) uintptr {
		t.Helper()
		return mustMap(t, as, Mapping{Len: 16 * PageSize, Prot: prot, Flags: flags})
	}
	x := mapIt(rw, anon)
	shared := mapIt(rw, unix.MAP_SHARED|unix.MAP_ANONYMOUS)
	empty := mapIt(rw, anon)
	// Two mappings side by side that do not join.
	if err := as.Protect(x+8*PageSize, 8*PageSize, rw|unix.PROT_EXEC); err != nil {
		t.Fatal(err)
	}
	if err := as.SetBrk(0); err != nil {
		t.Fatal(err)
	}
	heap := as.Brk(0)
	as.Brk(heap + 4*PageSize)
	fill := func(at uintptr, n int, c byte) {
		b := memory(Range{at, at + uintptr(n)})
		for i := range b {
			b[i] = c
		}
	}
	fill(x, 16*PageSize, 1)
	fill(x+3*PageSize, PageSize, 0)
	fill(heap, 4*PageSize, 2)
	fill(shared, PageSize, 3)
	free, committed := as.arena.free, as.committed
	free = append(rangeSet(nil), free...)
	vmas := as.list()

	s, err := as.Snapshot()
	if err != nil {
		t.Fatal(err)
	}
	fill(x+2*PageSize, 2*PageSize, 9)
	fill(empty, 3*PageSize, 9)
	fill(heap+PageSize, 1, 9)
	fill(shared, PageSize, 9)
	as.Brk(heap + 9*PageSize)
	more := mapIt(rw, anon)
	fill(more, PageSize, 9)
	if err := as.Protect(x, 2*PageSize, unix.PROT_READ); err != nil {
		t.Fatal(err)
	}
	s.Restore()

	want := append(bytes.Repeat([]byte{1}, 3*PageSize), make([]byte, PageSize)...)
	want = append(want, bytes.Repeat([]byte{1}, 12*PageSize)...)
	if !bytes.Equal(memory(Range{x, x + 16*PageSize}), want) {
		t.Error("private memory is not what it was")
	}
	if !bytes.Equal(memory(Range{empty, empty + 16*PageSize}), make([]byte, 16*PageSize)) {
		t.Error("memory that was zero is not")
	}
	if !bytes.Equal(memory(Range{heap, heap + 4*PageSize}), bytes.Repeat([]byte{2}, 4*PageSize)) {
		t.Error("the heap is not what it was")
	}
	if b := memory(Range{shared, shared + 1}); b[0] != 9 {
		t.Error("a store to shared memory was undone")
	}
	if got := as.Brk(0); got != heap+4*PageSize {
		t.Errorf("the heap ends at %#x, not %#x", got, heap+4*PageSize)
	}
	now := as.list()
	if len(now) != len(vmas) {
		t.Errorf("%d mappings, there were %d", len(now), len(vmas))
	}
	for i := range min(len(now), len(vmas)) {
		if now[i].Start != vmas[i].Start || now[i].End != vmas[i].End || now[i].Prot != vmas[i].Prot {
			t.Errorf("mapping %d is %+v, was %+v", i, now[i], vmas[i])
		}
	}
	if as.committed != committed || as.arena.committed != committed {
		t.Errorf("%d bytes count (%d in all), not %d", as.committed, as.arena.committed, committed)
	}
	if len(as.arena.free) != len(free) {
		t.Errorf("free ranges %v, were %v", as.arena.free, free)
	}
	// Memory of the snapshot that is mapped again is zero.
	again := mapIt(rw, anon)
	if !bytes.Equal(memory(Range{again, again + 16*PageSize}), make([]byte, 16*PageSize)) {
		t.Error("memory of the snapshot is not zero when mapped again")
	}
}
