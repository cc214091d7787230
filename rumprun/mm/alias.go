package mm

// A file that several processes map shared is one piece of memory: a second
// address space gets the mapping at the address where the first has it, for all
// memory is one. So stores are seen at once, and a futex in it is the same
// futex. It is done where the guest leaves the address to the kernel; at an
// address of the guest's choice the mapping is a copy (see Mappings).

// sharedFrom is where such mappings may lie: below are programs that are linked
// to the same addresses.
const sharedFrom = 1 << 32

// aliasFor finds the mapping of another address space that has content
// [off, off+n) of v's file, and returns where.
func (as *AddressSpace) aliasFor(v *vma, n uintptr) (Range, bool) {
	s, ok := v.file.Source.(Shareable)
	if !ok || !v.shared {
		return Range{}, false
	}
	m := s.Mappings()
	m.mu.Lock()
	defer m.mu.Unlock()
	for _, w := range m.list {
		if w.off > v.off || v.off-w.off >= int64(w.Len()) {
			continue
		}
		at := w.Start + uintptr(v.off-w.off)
		r := Range{at, at + n}
		if at >= sharedFrom && n <= w.End-at && as.empty(r) {
			return r, true
		}
	}
	return Range{}, false
}

// placeAlias makes v, whose memory another address space has already.
func (as *AddressSpace) placeAlias(v *vma) error {
	if err := as.recharge(0, v.charge()); err != nil {
		return err
	}
	if as.arena.owners == nil {
		as.arena.owners = make(map[uintptr]int)
	}
	for p := v.Start; p < v.End; p += PageSize {
		as.arena.owners[p]++
	}
	as.arena.aliased.add(v.Range)
	as.replace(v.Range, v)
	return nil
}

// othersHave reports whether another address space has a part of r, too.
func (a *Arena) othersHave(r Range) bool {
	have := false
	a.aliased.each(r, func(Range) { have = true })
	return have
}

// giveBack makes r free, but for what another address space still has.
func (a *Arena) giveBack(r Range) {
	if len(a.aliased) == 0 {
		a.free.add(r)
		return
	}
	var shared []Range
	a.aliased.each(r, func(s Range) { shared = append(shared, s) })
	for _, s := range shared {
		a.free.add(Range{r.Start, s.Start})
		for p := s.Start; p < s.End; p += PageSize {
			if a.owners[p]--; a.owners[p] == 0 {
				delete(a.owners, p)
				a.aliased.remove(Range{p, p + PageSize})
			}
		}
		r.Start = s.End
	}
	a.free.add(r)
}
