package mm

import "testing"

// TestClaimable: a program that replaces another in its own address space may
// have what the old one had beside it, one in a child may not.
func TestClaimable(t *testing.T) {
	a := testArena(t, 16<<20, 64<<20)
	lo := a.ranges[0].Start
	as := a.NewAddressSpace()
	if err := as.Claim(&File{}, lo, lo+4*PageSize, nil); err != nil {
		t.Fatal(err)
	}
	mustMap(t, as, Mapping{Addr: lo, Len: 4 * PageSize, Prot: rw, Flags: anon | 0x10})
	if err := as.SetBrk(lo + 4*PageSize); err != nil {
		t.Fatal(err)
	}
	as.Brk(as.Brk(0) + 4*PageSize)
	if !as.Claimable(lo, lo+8*PageSize, false) {
		t.Error("the old program's heap is in the way of the one that replaces it")
	}
	if as.Claimable(lo, lo+8*PageSize, true) {
		t.Error("a child's program may lie on its parent's heap")
	}
	if !as.Claimable(lo, lo+4*PageSize, true) {
		t.Error("a child's program may not share its parent's addresses")
	}
}
