package mm

import (
	"bytes"
	"fmt"
	"slices"
	"sync"
	"unsafe"

	"golang.org/x/sys/unix"
)

// Arena is the memory that all address spaces share. Which part of it is whose
// is decided here; what a part holds, in AddressSpace.
type Arena struct {
	mu     sync.Mutex
	ranges []Range // by address
	limit  uint64
	// free is what belongs to no address space.
	free rangeSet
	// dirty is what may hold something else than zeroes: every page that was
	// once accessible to a guest.
	dirty rangeSet
	// committed is the sum over the address spaces.
	committed uint64
	// owners counts, for pages that several address spaces have (aliasFor), those
	// beside the first; aliased are these pages.
	owners  map[uintptr]int
	aliased rangeSet
	// fixed are the address spaces with programs linked to fixed addresses.
	fixed []*AddressSpace
}

// NewArena makes an arena of ranges, which must be page-aligned, disjoint and
// zero. limit is the most memory that the guest should use, in bytes.
func NewArena(ranges []Range, limit uint64) (*Arena, error) {
	a := &Arena{ranges: slices.Clone(ranges), limit: limit}
	slices.SortFunc(a.ranges, func(x, y Range) int {
		if x.Start < y.Start {
			return -1
		}
		return 1
	})
	if len(ranges) == 0 {
		return nil, fmt.Errorf("no memory range was reserved")
	}
	end := uintptr(0)
	for _, r := range a.ranges {
		if r.Start&pageMask != 0 || r.End&pageMask != 0 || r.Start >= r.End || r.Start < end || r.Start == 0 || r.End > maxAddr {
			return nil, fmt.Errorf("range %#x-%#x is empty, not page-aligned, overlaps another, or is no user address", r.Start, r.End)
		}
		end = r.End
		a.free.add(r)
	}
	return a, nil
}

// NewAddressSpace makes an empty address space.
func (a *Arena) NewAddressSpace() *AddressSpace {
	return &AddressSpace{arena: a, mu: &a.mu}
}

// contains reports whether r lies in one of the arena's ranges.
func (a *Arena) contains(r Range) bool {
	for _, x := range a.ranges {
		if x.Start <= r.Start && r.End <= x.End {
			return true
		}
	}
	return false
}

// MAP_32BIT mappings lie below 2 GiB; Linux begins at 1 GiB (mmap_base of
// arch/x86), which leaves programs that are linked low their place.
var (
	low32First = Range{1 << 30, 1 << 31}
	low32All   = Range{0, 1 << 31}
	everywhere = Range{0, maxAddr}
)

// choose finds n free bytes. Without low32 the highest range of the arena comes
// first and the range below 4 GiB last: programs are linked there. The lowest
// place that fits is taken, so that what was used before is used again.
func (a *Arena) choose(n, align, bias uintptr, low32, topDown bool) (uintptr, bool) {
	if low32 {
		if at, ok := a.free.lowest(low32First, n, align, bias); ok {
			return at, ok
		}
		return a.free.lowest(low32All, n, align, bias)
	}
	for _, r := range slices.Backward(a.ranges) {
		if topDown {
			if at, ok := a.free.highest(r, n); ok {
				return at, ok
			}
			continue
		}
		if at, ok := a.free.lowest(r, n, align, bias); ok {
			return at, ok
		}
	}
	return a.free.lowest(everywhere, n, align, bias)
}

// scrub makes the pages of r zero, whatever they held.
//
// Only pages that hold something are written to: a page that was never touched
// reads as the host's zero page and takes no memory.
func (a *Arena) scrub(r Range) {
	a.dirty.each(r, func(d Range) { zero(d) })
}

// open makes r accessible to a guest: zeroed, and dirty from now on.
func (a *Arena) open(r Range) {
	a.scrub(r)
	a.dirty.add(r)
}

var zeroPage [PageSize]byte

// zero clears r, page-aligned, without writing to pages that are zero.
func zero(r Range) {
	for p := r.Start; p < r.End; p += PageSize {
		if b := memory(Range{p, p + PageSize}); !bytes.Equal(b, zeroPage[:]) {
			clear(b)
		}
	}
}

// memory is the bytes of r themselves.
func memory(r Range) []byte {
	if r.Len() == 0 {
		return nil
	}
	return unsafe.Slice((*byte)(unsafe.Pointer(r.Start)), r.Len())
}

// Limits of what may be mapped writable, private and without MAP_NORESERVE.
// Which of it is in use cannot be seen without page tables, and every runtime
// maps far more than it uses, so what the limit itself bounds is the cgroup's
// affair. As Linux's default (vm.overcommit_memory 0) has it, one request for
// more than there is fails; the sum fails far later.
const (
	// smallestLimit is what limits below count as, so that Go's 64 MiB heap
	// arenas and the like work in small containers.
	smallestLimit = 1 << 30
	// overcommit times the limit is the most that may be mapped in all.
	overcommit = 32
)

// commit counts n more bytes; ENOMEM beyond the limits above.
func (as *AddressSpace) commit(n uint64) error {
	a := as.arena
	limit := max(a.limit, smallestLimit)
	if n > limit || a.committed+n > limit*overcommit {
		return unix.ENOMEM
	}
	a.committed += n
	as.committed += n
	return nil
}

func (as *AddressSpace) uncommit(n uint64) {
	as.arena.committed -= n
	as.committed -= n
}

// Contains reports whether the arena has all of r, used or not.
func (a *Arena) Contains(r Range) bool { return r.Start < r.End && a.contains(r) }
