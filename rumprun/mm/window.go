package mm

import (
	"bytes"
	"slices"

	"golang.org/x/sys/unix"
)

// window is a range of addresses to which more than one running program is
// linked. One of them has its bytes there, the others' are kept elsewhere in
// the arena; Enter exchanges them. The range belongs to no one's free memory
// until the last member has gone.
type window struct {
	Range
	members  []*member
	resident *member
}

// member is an address space in a window.
type member struct {
	as    *AddressSpace
	store Range            // its bytes, in the order of the mappings in kept
	kept  map[*vma]uintptr // where mappings without write permission were stored
}

// Claim reserves for the program f, which is linked to [lo, hi), its addresses
// and the room of its stubs. If other programs that are linked there run, as
// becomes a member of a window with them: from then on each needs Enter before
// its memory is touched. busy is called, without a lock, for every other
// address space that was not in a window before, and must see to it that
// nothing touches its memory until the function that it returns is called.
//
// ENOMEM if a part of the range is used for something else.
func (as *AddressSpace) Claim(f *File, lo, hi uintptr, busy func(*AddressSpace) (done func())) error {
	r := Range{pageDown(lo), pageUp(hi)}
	if p := planOf(f); p != nil {
		r.End = max(r.End, uintptr(p.StubVaddr)+p.stubsLen)
	}
	as.mu.Lock()
	defer as.mu.Unlock()
	if as.arena.free.covers(r) {
		as.setFixed(r)
		return nil
	}
	w, newcomers, err := as.arena.claimable(r, as)
	if err != nil {
		return err
	}
	for _, o := range newcomers {
		as.mu.Unlock()
		done := busy(o)
		as.mu.Lock()
		defer done()
	}
	// The lock was let go of: look again.
	if w, newcomers, err = as.arena.claimable(r, as); err != nil {
		return err
	}
	union := r
	for _, o := range newcomers {
		union = Range{min(union.Start, o.fixed.Start), max(union.End, o.fixed.End)}
	}
	if w == nil {
		w = &window{}
	} else {
		union = Range{min(union.Start, w.Start), max(union.End, w.End)}
	}
	w.Range = union
	as.arena.free.remove(union)
	for _, o := range newcomers {
		o.win = &member{as: o}
		o.window, w.resident = w, o.win
		w.members = append(w.members, o.win)
	}
	as.setFixed(r)
	as.win = &member{as: as}
	as.window, w.members = w, append(w.members, as.win)
	return as.enter()
}

func (as *AddressSpace) setFixed(r Range) {
	as.fixed = r
	if !slices.Contains(as.arena.fixed, as) {
		as.arena.fixed = append(as.arena.fixed, as)
	}
}

// claimable finds the window that r touches, if any, and the address spaces
// whose programs are linked to a part of r but are in no window yet.
func (a *Arena) claimable(r Range, but *AddressSpace) (w *window, newcomers []*AddressSpace, err error) {
	if !a.contains(r) {
		return nil, nil, unix.ENOMEM
	}
	union := r
	for _, o := range a.fixed {
		if o == but || o.fixed.clip(r).Len() == 0 && (o.window == nil || o.window.clip(r).Len() == 0) {
			continue
		}
		if o.window == nil {
			// One at a time is resident, so only one can be there without a window.
			if len(newcomers) > 0 || w != nil {
				return nil, nil, unix.ENOMEM
			}
			newcomers = append(newcomers, o)
			union = Range{min(union.Start, o.fixed.Start), max(union.End, o.fixed.End)}
		} else {
			if w != nil && w != o.window || len(newcomers) > 0 {
				return nil, nil, unix.ENOMEM
			}
			w = o.window
			union = Range{min(union.Start, w.Start), max(union.End, w.End)}
		}
	}
	if w == nil && len(newcomers) == 0 {
		return nil, nil, unix.ENOMEM
	}
	// What is neither theirs nor free is used for something else.
	free := uintptr(0)
	a.free.each(union, func(f Range) { free += f.Len() })
	switch {
	case w != nil:
		free += w.Len()
	default:
		o := newcomers[0]
		o.within(o.fixed, func(v *vma) { free += v.Len() })
	}
	if free != union.Len() {
		return nil, nil, unix.ENOMEM
	}
	return w, newcomers, nil
}

// Windowed reports whether Enter is needed before the memory is touched.
func (as *AddressSpace) Windowed() bool {
	as.mu.Lock()
	defer as.mu.Unlock()
	return as.window != nil
}

// Enter brings the address space's bytes into its window; nothing if they are
// there. What belongs to the one that was there must not be touched until that
// enters again. ENOMEM if its bytes cannot be kept.
func (as *AddressSpace) Enter() error {
	as.mu.Lock()
	defer as.mu.Unlock()
	return as.enter()
}

func (as *AddressSpace) enter() error {
	w := as.window
	if w == nil || w.resident == as.win {
		return nil
	}
	if w.resident != nil {
		if err := w.resident.save(w); err != nil {
			return err
		}
	}
	w.resident = as.win
	as.win.load(w)
	return nil
}

// save copies the member's bytes out of the window. What cannot have changed
// since the last time is passed over.
func (m *member) save(w *window) error {
	a := m.as.arena
	n := uintptr(0)
	m.as.within(w.Range, func(v *vma) { n += v.Len() })
	if m.store.Len() != n {
		m.free()
		at, ok := a.choose(n, PageSize, 0, false, false)
		if !ok {
			return unix.ENOMEM
		}
		m.store = Range{at, at + n}
		a.free.remove(m.store)
		a.dirty.add(m.store)
	}
	at := m.store.Start
	kept := map[*vma]uintptr{}
	m.as.within(w.Range, func(v *vma) {
		if was, ok := m.kept[v]; !ok || was != at {
			copyChanged(Range{at, at + v.Len()}, v.Range)
		}
		if !v.writable() {
			kept[v] = at
		}
		at += v.Len()
	})
	m.kept = kept
	return nil
}

// load copies the member's bytes into the window.
func (m *member) load(w *window) {
	if m.store.Len() == 0 {
		return
	}
	at := m.store.Start
	m.as.within(w.Range, func(v *vma) {
		copyChanged(v.Range, Range{at, at + v.Len()})
		at += v.Len()
	})
}

// copyChanged makes to what from is, page by page, without writing where they
// are the same.
func copyChanged(to, from Range) {
	for i := uintptr(0); i < to.Len(); i += PageSize {
		t, f := memory(Range{to.Start + i, to.Start + i + PageSize}), memory(Range{from.Start + i, from.Start + i + PageSize})
		if !bytes.Equal(t, f) {
			copy(t, f)
		}
	}
}

func (m *member) free() {
	if m.store.Len() > 0 {
		m.as.arena.free.add(m.store)
	}
	m.store, m.kept = Range{}, nil
}

// leaveWindow ends the membership of an address space without mappings.
func (as *AddressSpace) leaveWindow() {
	as.arena.fixed = slices.DeleteFunc(as.arena.fixed, func(o *AddressSpace) bool { return o == as })
	as.fixed = Range{}
	w := as.window
	if w == nil {
		return
	}
	as.win.free()
	w.members = slices.DeleteFunc(w.members, func(m *member) bool { return m == as.win })
	if w.resident == as.win {
		w.resident = nil
	}
	as.window, as.win = nil, nil
	if len(w.members) == 0 {
		as.arena.free.add(w.Range)
	}
}

// inWindow is the part of r in the address space's window.
func (as *AddressSpace) inWindow(r Range) Range {
	if as.window == nil {
		return Range{}
	}
	return as.window.clip(r)
}

// Claimable reports whether a program linked to [lo, hi) could be loaded into
// an address space of its own, once as has been cleared, or beside it with stays.
func (as *AddressSpace) Claimable(lo, hi uintptr, stays bool) bool {
	as.mu.Lock()
	defer as.mu.Unlock()
	a, r := as.arena, Range{pageDown(lo), pageUp(hi)}
	if a.free.covers(r) || !stays && as.window == nil && as.owns(r) {
		return true
	}
	_, _, err := a.claimable(r, nil)
	return err == nil
}
