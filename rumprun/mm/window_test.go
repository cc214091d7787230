package mm

import (
	"testing"

	"golang.org/x/sys/unix"
)

// TestWindow runs three programs at the same addresses in turn: each finds its
// own bytes, and when all have gone the range is free again.
func TestWindow(t *testing.T) {
	a := testArena(t, 16<<20, 64<<20)
	low := a.ranges[0].Start
	lo, hi := low+PageSize, low+9*PageSize
	fixed := unix.MAP_FIXED | anon
	total := func() (n uintptr) {
		for _, r := range a.free {
			n += r.Len()
		}
		return
	}
	all := total()
	busy := 0
	var spaces []*AddressSpace
	for i := range 3 {
		as := a.NewAddressSpace()
		// The third is longer than the others.
		end := hi + uintptr(i/2)*4*PageSize
		err := as.Claim(&File{}, lo, end, func(o *AddressSpace) func() {
			if o != spaces[0] {
				t.Error("not the first program was to be kept away")
			}
			busy++
			return func() { busy-- }
		})
		if err != nil {
			t.Fatalf("program %d: %v", i, err)
		}
		if as.Windowed() != (i > 0) {
			t.Errorf("program %d: in a window: %v", i, as.Windowed())
		}
		at := mustMap(t, as, Mapping{Addr: lo, Len: uint64(end - lo), Prot: rw, Flags: fixed})
		for p := at; p < end; p += PageSize {
			memory(Range{p, p + 1})[0] = byte(10*i + 1)
		}
		if i == 0 {
			// Read-only from now on, as code is.
			if err := as.Protect(lo, PageSize, unix.PROT_READ); err != nil {
				t.Fatal(err)
			}
		}
		spaces = append(spaces, as)
	}
	if busy != 0 {
		t.Errorf("%d programs are kept away still", busy)
	}
	for round := range 4 {
		for i, as := range spaces {
			if err := as.Enter(); err != nil {
				t.Fatal(err)
			}
			for p := lo; p < hi; p += PageSize {
				want := byte(10*i + 1)
				if p > lo {
					want += byte(round)
				}
				if b := memory(Range{p, p + 1}); b[0] != want {
					t.Fatalf("round %d, program %d: page %#x holds %d, not %d", round, i, p, b[0], want)
				} else if p > lo {
					b[0]++
				}
			}
		}
	}
	// What is not free cannot be claimed: the place behind belongs to somebody.
	mustMap(t, spaces[2], Mapping{Addr: hi + 5*PageSize, Len: PageSize, Prot: rw, Flags: fixed})
	if err := a.NewAddressSpace().Claim(&File{}, lo, hi+6*PageSize, nil); err != unix.ENOMEM {
		t.Errorf("claim of another mapping's place: %v, want ENOMEM", err)
	}
	for i, as := range spaces {
		if as.Clear(); i < 2 && !spaces[2].Windowed() {
			t.Error("the window went with its first programs")
		}
	}
	if got := total(); got != all {
		t.Errorf("%#x bytes are free at the end, there were %#x", got, all)
	}
	if len(a.fixed) != 0 {
		t.Errorf("%d programs are noted still", len(a.fixed))
	}
}
