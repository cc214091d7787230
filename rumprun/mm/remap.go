package mm

import "golang.org/x/sys/unix"

// Remap is mremap(2) and returns the new address. Memory that moves is copied.
// MREMAP_DONTUNMAP is EINVAL, as in kernels before 5.7; an old size of zero
// (a second mapping of shared pages) is EINVAL as well; executable mappings of
// rewritten objects do not move (ENOMEM).
func (as *AddressSpace) Remap(addr uintptr, oldLen, newLen uint64, flags int, newAddr uintptr) (uintptr, error) {
	const known = unix.MREMAP_MAYMOVE | unix.MREMAP_FIXED
	fixed := flags&unix.MREMAP_FIXED != 0
	if flags&^known != 0 || fixed && flags&unix.MREMAP_MAYMOVE == 0 || addr&pageMask != 0 || newLen == 0 || oldLen == 0 ||
		newLen > maxAddr || oldLen > maxAddr {
		return 0, unix.EINVAL
	}
	newN := pageUp(uintptr(newLen))
	old, err := pages(addr, oldLen)
	if err != nil {
		return 0, unix.EFAULT
	}
	to := Range{newAddr, newAddr + newN}
	if fixed && (newAddr&pageMask != 0 || to.End < to.Start || to.End > maxAddr || to.Start < old.End && old.Start < to.End) {
		return 0, unix.EINVAL
	}
	as.mu.Lock()
	defer as.mu.Unlock()
	defer as.reap()
	if fixed {
		if err := as.checkFixed(to, false); err != nil {
			return 0, err
		}
	} else if newN <= old.Len() {
		// A smaller size is munmap of the tail, whatever is mapped.
		if !as.covered(Range{old.Start, old.Start + PageSize}) {
			return 0, unix.EFAULT
		}
		as.unmap(Range{old.Start + newN, old.End})
		return addr, nil
	}
	v := as.find(old.Start)
	if v == nil || v.hidden {
		return 0, unix.EFAULT
	}
	if v.End < min(old.End, old.Start+newN) {
		return 0, unix.EFAULT // several mappings
	}
	if len(as.vmas)+3 > MaxMaps {
		return 0, unix.ENOMEM
	}
	if fixed && newN < old.Len() {
		as.unmap(Range{old.Start + newN, old.End})
		old.End = old.Start + newN
		v = as.find(old.Start)
	}
	grow := Range{old.End, old.Start + newN}
	if !fixed {
		if v.End == old.End && as.growable(grow) {
			return addr, as.extend(v, grow)
		}
		if flags&unix.MREMAP_MAYMOVE == 0 {
			return 0, unix.ENOMEM
		}
	}
	if v.rewritten {
		return 0, unix.ENOMEM
	}
	if !fixed {
		at, ok := as.arena.choose(newN, PageSize, 0, false, false)
		if !ok {
			return 0, unix.ENOMEM
		}
		to = Range{at, at + newN}
	}
	return to.Start, as.move(v, old, to)
}

// growable reports whether a mapping may be made longer by r.
func (as *AddressSpace) growable(r Range) bool {
	if i := as.index(r.Start); i < len(as.vmas) && as.vmas[i].Start < r.End {
		return false
	}
	return as.owns(r)
}

// extend makes v longer by r, which is free and follows it.
func (as *AddressSpace) extend(v *vma, r Range) error {
	w := *v
	w.Range = r
	w.fresh = false
	w.object, w.rewritten = nil, false
	if w.file != nil {
		w.off += int64(v.Len())
	}
	return as.place(&w, nil, nil)
}

// move copies old, a part of v, to to and unmaps it. What to has more is new.
func (as *AddressSpace) move(v *vma, old, to Range) error {
	w := *v.part(old)
	src := w.Range
	w.Range = to
	w.fresh = false
	w.object = nil
	if w.file == nil && v.fresh && v.prot == 0 {
		// Never accessible: there is nothing to copy.
		if err := as.place(&w, nil, nil); err != nil {
			return err
		}
		as.unmap(src)
		return nil
	}
	as.sync(src)
	if err := as.place(&w, nil, nil); err != nil {
		return err
	}
	if n := min(src.Len(), to.Len()); !(w.shared && w.file != nil) {
		as.arena.dirty.add(Range{to.Start, to.Start + n})
		copyPages(Range{to.Start, to.Start + n}, src.Start)
		if w.file == nil && v.prot == 0 {
			as.unfresh(to)
		}
	}
	as.unmap(src)
	return nil
}

// copyPages copies to r, which is zero or to be overwritten, and leaves pages
// alone that are alike: untouched memory stays untouched.
func copyPages(r Range, from uintptr) {
	for p := r.Start; p < r.End; p += PageSize {
		d := memory(Range{p, p + PageSize})
		s := memory(Range{from, from + PageSize})
		if string(d) != string(s) {
			copy(d, s)
		}
		from += PageSize
	}
}

// unfresh marks r, inaccessible but holding data, as not to be zeroed.
func (as *AddressSpace) unfresh(r Range) {
	var parts []*vma
	as.within(r, func(v *vma) { parts = append(parts, v) })
	for _, v := range parts {
		w := *v
		w.fresh = false
		as.arena.dirty.add(w.Range)
		as.replace(w.Range, &w)
	}
}
