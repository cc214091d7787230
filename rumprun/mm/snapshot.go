package mm

import (
	"bytes"

	"golang.org/x/sys/unix"
)

// Snapshot is what the private writable memory of an address space held when it
// was taken, and the list of its mappings. It lies in free memory of the arena.
type Snapshot struct {
	as     *AddressSpace
	vmas   []*vma
	brkEnd uintptr
	kept   []Range // pages that were not zero, in the order they lie in store
	store  Range
}

// Snapshot copies what a child process that runs in the same memory could
// change: private writable mappings, pages that hold something only. ENOMEM if
// there is no room for the copy. Nothing but that child may write to the memory
// until Restore.
func (as *AddressSpace) Snapshot() (*Snapshot, error) {
	as.mu.Lock()
	defer as.mu.Unlock()
	s := &Snapshot{as: as, vmas: append([]*vma(nil), as.vmas...), brkEnd: as.brkEnd}
	n := uintptr(0)
	for _, v := range as.vmas {
		if !v.private() {
			continue
		}
		for p := v.Start; p < v.End; p += PageSize {
			if bytes.Equal(memory(Range{p, p + PageSize}), zeroPage[:]) {
				continue
			}
			if k := len(s.kept) - 1; p > v.Start && k >= 0 && s.kept[k].End == p { // no run spans two mappings
				s.kept[k].End += PageSize
			} else {
				s.kept = append(s.kept, Range{p, p + PageSize})
			}
			n += PageSize
		}
	}
	if n == 0 {
		return s, nil
	}
	if err := as.commit(uint64(n)); err != nil {
		return nil, err
	}
	at, ok := as.arena.choose(n, PageSize, 0, false, false)
	if !ok {
		as.uncommit(uint64(n))
		return nil, unix.ENOMEM
	}
	s.store = Range{at, at + n}
	as.arena.free.remove(s.store)
	as.arena.dirty.add(s.store)
	for _, r := range s.kept {
		copy(memory(Range{at, at + r.Len()}), memory(r))
		at += r.Len()
	}
	return s, nil
}

// private says that what is stored to v is seen by no other mapping.
func (v *vma) private() bool { return !v.shared && v.writable() && !v.fresh }

// Restore makes the memory what it was when the snapshot was taken, mappings
// included, and gives the copy's room back. It is called once. Mappings of that
// time must still be there: the child may add some and change protections.
func (s *Snapshot) Restore() {
	as := s.as
	as.mu.Lock()
	defer as.mu.Unlock()
	// What was mapped since.
	at := uintptr(0)
	for _, v := range s.vmas {
		as.unmap(Range{at, v.Start})
		at = v.End
	}
	as.unmap(Range{at, maxAddr})
	as.brkEnd = s.brkEnd
	have := as.committed
	for _, v := range s.vmas {
		as.replace(v.Range, v)
	}
	want := uint64(s.store.Len())
	for _, v := range as.vmas {
		want += v.charge()
	}
	as.arena.committed += want - have
	as.committed = want
	as.reap()

	kept, from := s.kept, s.store.Start
	for _, v := range s.vmas {
		if !v.private() {
			continue
		}
		for p := v.Start; p < v.End; {
			if len(kept) > 0 && kept[0].Start == p {
				n := kept[0].Len()
				for q := uintptr(0); q < n; q += PageSize {
					to, was := memory(Range{p + q, p + q + PageSize}), memory(Range{from + q, from + q + PageSize})
					if !bytes.Equal(to, was) {
						copy(to, was)
					}
				}
				p, from, kept = p+n, from+n, kept[1:]
				continue
			}
			zero(Range{p, p + PageSize})
			p += PageSize
		}
	}
	if s.store.Len() > 0 {
		as.uncommit(uint64(s.store.Len()))
		as.arena.free.add(s.store)
	}
}
