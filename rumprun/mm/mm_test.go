package mm

import (
	"testing"

	"golang.org/x/sys/unix"
)

// testArena reserves real memory, as the tender does: a low range and a high
// one.
func testArena(t testing.TB, low, high uintptr) *Arena {
	t.Helper()
	var rs []Range
	for i, n := range []uintptr{low, high} {
		if n == 0 {
			continue
		}
		flags := unix.MAP_PRIVATE | unix.MAP_ANONYMOUS | unix.MAP_NORESERVE
		var hint uintptr
		if i == 0 {
			hint = 0x50000000
			flags |= unix.MAP_FIXED_NOREPLACE
		}
		p, err := unix.MmapPtr(-1, 0, ptr(hint), n, unix.PROT_READ|unix.PROT_WRITE|unix.PROT_EXEC, flags)
		if err != nil {
			t.Fatalf("reserve %#x bytes: %v", n, err)
		}
		t.Cleanup(func() { unix.MunmapPtr(p, n) })
		rs = append(rs, Range{uintptr(p), uintptr(p) + n})
	}
	a, err := NewArena(rs, 1<<30)
	if err != nil {
		t.Fatal(err)
	}
	return a
}

const (
	anon = unix.MAP_PRIVATE | unix.MAP_ANONYMOUS
	rw   = unix.PROT_READ | unix.PROT_WRITE
)

func mustMap(t testing.TB, as *AddressSpace, m Mapping) uintptr {
	t.Helper()
	a, err := as.Map(m)
	if err != nil {
		t.Fatalf("map %+v: %v", m, err)
	}
	return a
}

func mustBytes(t testing.TB, as *AddressSpace, addr uintptr, n int) []byte {
	t.Helper()
	b, err := as.Bytes(addr, n, false)
	if err != nil {
		t.Fatalf("bytes %#x+%#x: %v", addr, n, err)
	}
	return b
}

func fillWith(b []byte, v byte) {
	for i := range b {
		b[i] = v
	}
}

func allAre(b []byte, v byte) bool {
	for _, x := range b {
		if x != v {
			return false
		}
	}
	return true
}

// check verifies what holds at any time.
func check(t testing.TB, a *Arena, spaces ...*AddressSpace) {
	t.Helper()
	var used rangeSet
	var committed uint64
	for _, as := range spaces {
		end := uintptr(0)
		var mapped uint64
		for i, v := range as.vmas {
			if v.Start >= v.End || v.Start < end || v.Start&pageMask != 0 || v.End&pageMask != 0 {
				t.Fatalf("mapping %#x-%#x out of order after %#x", v.Start, v.End, end)
			}
			if i > 0 && as.vmas[i-1].joins(v) {
				t.Fatalf("mappings %#x-%#x and %#x-%#x are not joined", as.vmas[i-1].Start, as.vmas[i-1].End, v.Start, v.End)
			}
			end = v.End
			used.add(v.Range)
			if !v.hidden {
				mapped += uint64(v.Len())
			}
			committed += v.charge()
			if v.prot != 0 && !a.dirty.covers(v.Range) {
				t.Fatalf("accessible mapping %#x-%#x is not in the dirty record", v.Start, v.End)
			}
		}
		if mapped != as.mapped {
			t.Fatalf("mapped %#x, counted %#x", mapped, as.mapped)
		}
		used.add(as.brkRoom)
	}
	if committed != a.committed {
		t.Fatalf("committed %#x, counted %#x", committed, a.committed)
	}
	for _, r := range used {
		a.free.each(r, func(f Range) { t.Fatalf("%#x-%#x is both used and free", f.Start, f.End) })
		a.free.each(Range{r.Start, r.End}, func(Range) {})
	}
	var total uintptr
	for _, r := range append(append(rangeSet{}, used...), a.free...) {
		total += r.Len()
	}
	var want uintptr
	for _, r := range a.ranges {
		want += r.Len()
	}
	if total != want {
		t.Fatalf("used and free make %#x bytes, the arena has %#x", total, want)
	}
}

func TestReusedMemoryIsZero(t *testing.T) {
	a := testArena(t, 0, 64<<20)
	as := a.NewAddressSpace()
	p := mustMap(t, as, Mapping{Len: 1 << 20, Prot: rw, Flags: anon})
	fillWith(mustBytes(t, as, p, 1<<20), 0xaa)
	if err := as.Unmap(p+PageSize, 1<<20-2*PageSize); err != nil {
		t.Fatal(err)
	}
	check(t, a, as)
	q := mustMap(t, as, Mapping{Len: 1<<20 - 2*PageSize, Prot: rw, Flags: anon})
	if q != p+PageSize {
		t.Errorf("mapped at %#x, want the hole at %#x", q, p+PageSize)
	}
	if !allAre(mustBytes(t, as, q, 1<<20-2*PageSize), 0) {
		t.Error("reused memory is not zero")
	}
	if !allAre(mustBytes(t, as, p, PageSize), 0xaa) {
		t.Error("what was not unmapped has changed")
	}
	// Through PROT_NONE: zero only when it becomes accessible.
	fillWith(mustBytes(t, as, q, PageSize), 0xbb)
	as.Unmap(q, 1<<20-2*PageSize)
	q = mustMap(t, as, Mapping{Len: PageSize * 4, Flags: anon})
	if _, err := as.Bytes(q, 1, false); err != unix.EFAULT {
		t.Errorf("reading PROT_NONE: %v, want EFAULT", err)
	}
	as.Protect(q, PageSize*4, rw)
	if !allAre(mustBytes(t, as, q, PageSize*4), 0) {
		t.Error("memory is not zero after mprotect of a reservation")
	}
	// Data survives PROT_NONE.
	fillWith(mustBytes(t, as, q, PageSize), 0xcc)
	as.Protect(q, PageSize, 0)
	as.Protect(q, PageSize, unix.PROT_READ)
	if !allAre(mustBytes(t, as, q, PageSize), 0xcc) {
		t.Error("data is lost after mprotect to PROT_NONE and back")
	}
	as.Clear()
	check(t, a, as)
	if len(a.free) != 1 {
		t.Errorf("after Clear the arena is in %d parts, want 1", len(a.free))
	}
}

func TestFootprintStaysFlat(t *testing.T) {
	a := testArena(t, 0, 1<<30)
	as := a.NewAddressSpace()
	keep := mustMap(t, as, Mapping{Len: 1 << 20, Prot: rw, Flags: anon})
	for i := range 100_000 {
		p := mustMap(t, as, Mapping{Len: uint64(1+i%37) * PageSize, Prot: rw, Flags: anon})
		mustBytes(t, as, p, 1)[0] = 1
		if err := as.Unmap(p, uint64(1+i%37)*PageSize); err != nil {
			t.Fatal(err)
		}
	}
	as.Unmap(keep, 1<<20)
	dirty := uintptr(0)
	for _, r := range a.dirty {
		dirty += r.Len()
	}
	if dirty > 1<<20+37*PageSize {
		t.Errorf("%d KiB were used, want at most %d", dirty>>10, 1<<10+37*4)
	}
}

func TestLargeReservationsAreCheap(t *testing.T) {
	a := testArena(t, 0, 128<<30)
	as := a.NewAddressSpace()
	for range 3 {
		p := mustMap(t, as, Mapping{Len: 40 << 30, Flags: anon | unix.MAP_NORESERVE})
		if err := as.Protect(p+20<<30, 1<<20, rw); err != nil {
			t.Fatal(err)
		}
	}
	if len(a.dirty) > 3 {
		t.Errorf("%d dirty ranges, want 3", len(a.dirty))
	}
	if _, err := as.Map(Mapping{Len: 40 << 30, Flags: anon}); err != unix.ENOMEM {
		t.Errorf("a mapping larger than what is left: %v, want ENOMEM", err)
	}
	if _, err := as.Map(Mapping{Len: 2 << 30, Prot: rw, Flags: anon}); err != unix.ENOMEM {
		t.Errorf("a writable mapping beyond the limit: %v, want ENOMEM", err)
	}
	check(t, a, as)
}

func TestHeap(t *testing.T) {
	a := testArena(t, 64<<20, 64<<20)
	as := a.NewAddressSpace()
	low := a.ranges[0].Start
	mustMap(t, as, Mapping{Addr: low, Len: PageSize, Prot: rw, Flags: anon | unix.MAP_FIXED})
	if err := as.SetBrk(low + 100); err != nil {
		t.Fatal(err)
	}
	start := as.Brk(0)
	if start != low+PageSize {
		t.Fatalf("heap begins at %#x, want %#x", start, low+PageSize)
	}
	if got := as.Brk(start + 10000); got != start+10000 {
		t.Fatalf("brk = %#x", got)
	}
	fillWith(mustBytes(t, as, start, 10000), 1)
	as.Brk(start + 1)
	check(t, a, as)
	if _, err := as.Bytes(start+PageSize, 1, false); err != unix.EFAULT {
		t.Errorf("memory beyond the heap: %v, want EFAULT", err)
	}
	as.Brk(start + 3*PageSize)
	if !allAre(mustBytes(t, as, start+PageSize, 2*PageSize), 0) {
		t.Error("the heap's new pages are not zero")
	}
	// Not over another mapping, nor beyond the arena.
	mustMap(t, as, Mapping{Addr: start + 8*PageSize, Len: PageSize, Prot: rw, Flags: anon | unix.MAP_FIXED})
	for _, end := range []uintptr{start + 9*PageSize, low - 1, 1 << 46} {
		if got := as.Brk(end); got != start+3*PageSize {
			t.Errorf("brk(%#x) = %#x, want it to stay %#x", end, got, start+3*PageSize)
		}
	}
	check(t, a, as)
	// A MAP_32BIT mapping does not take the heap's room.
	if p := mustMap(t, as, Mapping{Len: PageSize, Prot: rw, Flags: anon | unix.MAP_32BIT}); p < start+10*PageSize && p >= start {
		t.Errorf("a mapping at %#x lies in the heap's room", p)
	}
	as.Clear()
	check(t, a, as)
}

func TestErrors(t *testing.T) {
	a := testArena(t, 0, 64<<20)
	as := a.NewAddressSpace()
	base := a.ranges[0].Start
	p := mustMap(t, as, Mapping{Addr: base, Len: 3 * PageSize, Prot: rw, Flags: anon | unix.MAP_FIXED})
	as.Unmap(p+PageSize, PageSize)
	for name, c := range map[string]struct{ got, want error }{
		"length 0":            {mapErr(as, Mapping{Flags: anon}), unix.EINVAL},
		"no type":             {mapErr(as, Mapping{Len: 1, Flags: unix.MAP_ANONYMOUS}), unix.EINVAL},
		"fixed unaligned":     {mapErr(as, Mapping{Addr: base + 1, Len: 1, Flags: anon | unix.MAP_FIXED}), unix.EINVAL},
		"fixed outside":       {mapErr(as, Mapping{Addr: 0x1000, Len: 1, Flags: anon | unix.MAP_FIXED}), unix.ENOMEM},
		"noreplace taken":     {mapErr(as, Mapping{Addr: base, Len: 1, Flags: anon | unix.MAP_FIXED_NOREPLACE}), unix.EEXIST},
		"noreplace outside":   {mapErr(as, Mapping{Addr: 0x1000, Len: 1, Flags: anon | unix.MAP_FIXED_NOREPLACE}), unix.EEXIST},
		"fixed wraps":         {mapErr(as, Mapping{Addr: ^uintptr(pageMask), Len: 1 << 20, Flags: anon | unix.MAP_FIXED}), unix.ENOMEM},
		"huge":                {mapErr(as, Mapping{Len: 1 << 63, Flags: anon}), unix.ENOMEM},
		"munmap unaligned":    {as.Unmap(p+1, 1), unix.EINVAL},
		"munmap length 0":     {as.Unmap(p, 0), unix.EINVAL},
		"munmap hole":         {as.Unmap(p+PageSize, PageSize), nil},
		"mprotect hole":       {as.Protect(p, 3*PageSize, unix.PROT_READ), unix.ENOMEM},
		"mprotect bad prot":   {as.Protect(p, PageSize, 0x40), unix.EINVAL},
		"madvise hole":        {as.Advise(p, 3*PageSize, unix.MADV_DONTNEED), unix.ENOMEM},
		"madvise unknown":     {as.Advise(p, PageSize, 12345), unix.EINVAL},
		"madvise remove":      {as.Advise(p, PageSize, unix.MADV_REMOVE), unix.EINVAL},
		"mremap hole":         {remapErr(as, p, 3*PageSize, 4*PageSize, unix.MREMAP_MAYMOVE), unix.EFAULT},
		"mremap fixed only":   {remapErr(as, p, PageSize, PageSize, unix.MREMAP_FIXED), unix.EINVAL},
		"mremap size 0":       {remapErr(as, p, PageSize, 0, 0), unix.EINVAL},
		"mremap cannot grow":  {remapErr(as, p, PageSize, 4*PageSize, 0), unix.ENOMEM},
		"msync hole":          {as.Sync(p, 3*PageSize), unix.ENOMEM},
		"bytes wraps":         {bytesErr(as, ^uintptr(0)-10, 100), unix.EFAULT},
		"bytes negative":      {bytesErr(as, p, -1), unix.EFAULT},
		"bytes across a hole": {bytesErr(as, p, 3*PageSize), unix.EFAULT},
	} {
		if c.got != c.want {
			t.Errorf("%s: %v, want %v", name, c.got, c.want)
		}
	}
	// mprotect changed what came before the hole.
	if _, err := as.Bytes(p, 1, true); err != unix.EFAULT {
		t.Errorf("writing to the read-only page: %v", err)
	}
	check(t, a, as)
}

func mapErr(as *AddressSpace, m Mapping) error { _, err := as.Map(m); return err }
func remapErr(as *AddressSpace, p uintptr, o, n uint64, f int) error {
	_, err := as.Remap(p, o, n, f, 0)
	return err
}
func bytesErr(as *AddressSpace, p uintptr, n int) error { _, err := as.Bytes(p, n, false); return err }

func TestCString(t *testing.T) {
	a := testArena(t, 0, 1<<20)
	as := a.NewAddressSpace()
	p := mustMap(t, as, Mapping{Len: 2 * PageSize, Prot: rw, Flags: anon})
	b := mustBytes(t, as, p, 2*PageSize)
	copy(b[PageSize-3:], "hello\x00")
	if s, err := as.CString(p+PageSize-3, 100); s != "hello" || err != nil {
		t.Errorf("%q, %v", s, err)
	}
	if _, err := as.CString(p+PageSize-3, 5); err != unix.ENAMETOOLONG {
		t.Errorf("%v, want ENAMETOOLONG", err)
	}
	fillWith(b, 'x')
	if _, err := as.CString(p, 1<<20); err != unix.EFAULT {
		t.Errorf("%v, want EFAULT", err)
	}
}

func BenchmarkBytes(b *testing.B) {
	a := testArena(b, 0, 64<<20)
	as := a.NewAddressSpace()
	p := mustMap(b, as, Mapping{Len: 1 << 20, Prot: rw, Flags: anon})
	for b.Loop() {
		as.Bytes(p+100, 64, true)
	}
}
