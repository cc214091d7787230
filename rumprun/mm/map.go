package mm

import (
	"golang.org/x/sys/unix"
)

// Mapping is a request of mmap(2).
type Mapping struct {
	Addr  uintptr // a hint, or the address with MAP_FIXED
	Len   uint64
	Prot  int   // PROT_*
	Flags int   // MAP_*
	File  *File // nil: anonymous
	Off   int64 // page-aligned

	Name    string  // of an anonymous mapping, for /proc/PID/maps
	Align   uintptr // a power of two; 0: a page
	Room    uint64  // free address space to choose, if more than Len
	TopDown bool    // choose the highest place
}

// Map is mmap(2) and returns the address. The mapping takes a reference of its
// own to File. All of a file mapping is copied at once; bytes beyond the end of
// the file are zero (Linux sends SIGBUS for pages wholly beyond it).
// MAP_GROWSDOWN, MAP_STACK, MAP_LOCKED and MAP_POPULATE have no effect.
//
// Errors are those of mmap(2); an address outside the arena is ENOMEM with
// MAP_FIXED and EEXIST with MAP_FIXED_NOREPLACE.
func (as *AddressSpace) Map(m Mapping) (uintptr, error) {
	if m.Len == 0 || m.Prot&^protMask != 0 {
		return 0, unix.EINVAL
	}
	if m.Len > maxAddr {
		return 0, unix.ENOMEM
	}
	n := pageUp(uintptr(m.Len))
	if m.File != nil {
		if m.Off < 0 || m.Off&pageMask != 0 {
			return 0, unix.EINVAL
		}
		if m.Off+int64(n) < 0 {
			return 0, unix.EOVERFLOW
		}
	}
	v := &vma{prot: m.Prot, file: m.File, off: m.Off, noReserve: m.Flags&unix.MAP_NORESERVE != 0}
	switch m.Flags & unix.MAP_TYPE {
	case unix.MAP_SHARED, unix.MAP_SHARED_VALIDATE:
		v.shared = true
	case unix.MAP_PRIVATE:
	default:
		return 0, unix.EINVAL
	}
	if v.file == nil {
		v.name, v.off = m.Name, 0
	} else if v.shared && m.Prot&unix.PROT_WRITE != 0 {
		if !v.file.Writable {
			return 0, unix.EACCES
		}
		if _, ok := v.file.Source.(Shareable); !ok {
			return 0, unix.ENODEV
		}
	}
	fixed := m.Flags&(unix.MAP_FIXED|unix.MAP_FIXED_NOREPLACE) != 0
	if fixed && (m.Addr&pageMask != 0) {
		return 0, unix.EINVAL
	}
	as.mu.Lock()
	defer as.mu.Unlock()
	defer as.reap()
	if len(as.vmas) >= MaxMaps {
		return 0, unix.ENOMEM
	}
	var p *plan
	if v.file != nil && !v.shared {
		p = planOf(v.file)
	}
	var room *object
	switch {
	case fixed:
		v.Range = Range{m.Addr, m.Addr + n}
		if err := as.checkFixed(v.Range, m.Flags&unix.MAP_FIXED_NOREPLACE != 0); err != nil {
			return 0, err
		}
	default:
		want := max(n, pageUp(uintptr(min(m.Room, maxAddr))))
		addr := pageDown(m.Addr)
		if m.Addr != 0 && addr+want > addr && as.arena.free.covers(Range{addr, addr + want}) {
			v.Range = Range{addr, addr + n}
			break
		}
		if v.file != nil && m.Flags&unix.MAP_32BIT == 0 {
			if r, ok := as.aliasFor(v, n); ok {
				v.Range = r
				if err := as.placeAlias(v); err != nil {
					return 0, err
				}
				return v.Start, nil
			}
		}
		align := max(m.Align, PageSize)
		low := m.Flags&unix.MAP_32BIT != 0
		if p != nil && v.off == 0 {
			if at, ok := as.arena.choose(max(want, p.room), align, 0, low, m.TopDown); ok {
				v.Range = Range{at, at + n}
				if n <= uintptr(p.StubVaddr)-p.lo {
					room = as.reserve(v.file, p, at-p.lo)
				}
				break
			}
		}
		at, ok := as.arena.choose(want, align, 0, low, m.TopDown)
		if !ok {
			return 0, unix.ENOMEM
		}
		v.Range = Range{at, at + n}
	}
	if err := as.place(v, p, room); err != nil {
		return 0, err
	}
	return v.Start, nil
}

// checkFixed reports whether a mapping may be made at r.
func (as *AddressSpace) checkFixed(r Range, noReplace bool) error {
	taken := error(unix.ENOMEM)
	if noReplace {
		taken = unix.EEXIST
	}
	if r.End < r.Start || r.End > maxAddr {
		return unix.ENOMEM
	}
	if !as.owns(r) || as.arena.othersHave(r) {
		return taken
	}
	if noReplace {
		if i := as.index(r.Start); i < len(as.vmas) && as.vmas[i].Start < r.End {
			return unix.EEXIST
		}
	}
	return nil
}

// owns reports whether every page of r is free in the arena or this address
// space's already.
func (as *AddressSpace) owns(r Range) bool {
	if !as.arena.contains(r) {
		return false
	}
	free := uintptr(0)
	as.arena.free.each(r, func(f Range) { free += f.Len() })
	as.within(r, func(v *vma) { free += v.Len() })
	// What the heap's room has not given to mappings.
	heap := as.brkRoom.clip(r)
	if heap.Len() > 0 {
		free += heap.Len()
		as.within(heap, func(v *vma) { free -= v.Len() })
	}
	// What the window has not given to mappings.
	if win := as.inWindow(r); win.Len() > 0 {
		free += win.Len()
		as.within(win, func(v *vma) { free -= v.Len() })
	}
	return free == r.Len()
}

// place makes v, whose range has been checked, instead of what is there.
func (as *AddressSpace) place(v *vma, p *plan, room *object) error {
	have := as.charged(v.Range)
	if err := as.recharge(have, v.charge()); err != nil {
		return err
	}
	// From here on the old mappings are lost, as they are on Linux.
	as.vacate(v.Range)
	as.sync(v.Range)
	as.replace(v.Range)
	as.arena.free.remove(v.Range)
	v.object = room
	if p != nil && v.prot&unix.PROT_EXEC != 0 {
		if bias, ok := p.bias(v.Start, v.off, v.Len()); ok {
			if o := as.objectAt(v.file, p, bias); o != nil {
				as.fill(o, p)
				v.object, v.rewritten = o, true
			}
		}
	}
	if v.object == nil && p != nil {
		v.object = as.objectAround(v)
	}
	if err := as.load(v, p); err != nil {
		as.recharge(v.charge(), 0)
		as.release(v.Range)
		return err
	}
	as.replace(v.Range, v)
	if v.shared && v.file != nil {
		if s, ok := v.file.Source.(Shareable); ok && as.find(v.Start) != v {
			s.Mappings().remove(v) // it was joined with its neighbour
		}
	}
	return nil
}

// objectAround returns the object that v's file was reserved for around v, so
// that its room is kept as long as any mapping of it.
func (as *AddressSpace) objectAround(v *vma) *object {
	for _, o := range as.objects {
		if o.ino == v.file.Ino && o.dev == v.file.Dev && v.Start >= o.bias && v.End <= o.stubs.Start {
			return o
		}
	}
	return nil
}

// load gives v its first content.
func (as *AddressSpace) load(v *vma, p *plan) error {
	if v.file == nil {
		if v.prot == 0 {
			v.fresh = true
		} else {
			as.arena.open(v.Range)
		}
		return nil
	}
	if s, ok := v.file.Source.(Shareable); ok && v.shared {
		as.arena.dirty.add(v.Range)
		return s.Mappings().populate(s, v)
	}
	var o *object
	if v.rewritten {
		o = v.object
	}
	return as.fileContent(v.Range, v.file, v.off, p, o)
}

// charged is what the mappings in r count against the limit.
func (as *AddressSpace) charged(r Range) uint64 {
	var n uint64
	as.within(r, func(v *vma) { n += v.charge() })
	return n
}

func (as *AddressSpace) recharge(have, want uint64) error {
	if want > have {
		return as.commit(want - have)
	}
	as.uncommit(have - want)
	return nil
}

// release gives r, which holds no mapping any more, back: to the heap's room or
// to the arena.
func (as *AddressSpace) release(r Range) {
	if w := as.inWindow(r); w.Len() > 0 {
		if r.Start < w.Start {
			as.release(Range{r.Start, w.Start})
		}
		if w.End < r.End {
			as.release(Range{w.End, r.End})
		}
		return
	}
	keep := as.brkRoom.clip(r)
	if keep.Len() == 0 {
		as.arena.giveBack(r)
		return
	}
	as.arena.free.add(Range{r.Start, keep.Start})
	as.arena.free.add(Range{keep.End, r.End})
}

// pages checks the range of a call: addr page-aligned, n rounded up.
func pages(addr uintptr, n uint64) (Range, error) {
	if addr&pageMask != 0 {
		return Range{}, unix.EINVAL
	}
	if n > maxAddr || addr > maxAddr || pageUp(uintptr(n)) > maxAddr-addr {
		return Range{}, unix.ENOMEM
	}
	return Range{addr, addr + pageUp(uintptr(n))}, nil
}

// Unmap is munmap(2).
func (as *AddressSpace) Unmap(addr uintptr, n uint64) error {
	r, err := pages(addr, n)
	if err != nil || n == 0 {
		return unix.EINVAL
	}
	as.mu.Lock()
	defer as.mu.Unlock()
	if i := as.index(r.Start); i < len(as.vmas) && as.vmas[i].Start < r.Start && as.vmas[i].End > r.End && len(as.vmas) >= MaxMaps {
		return unix.ENOMEM
	}
	as.unmap(r)
	as.reap()
	return nil
}

// unmap removes what the guest has mapped in r. Stubs stay: they go with their
// object.
func (as *AddressSpace) unmap(r Range) {
	as.sync(r)
	var gone []Range
	as.within(r, func(v *vma) {
		if !v.hidden {
			as.uncommit(v.charge())
			gone = append(gone, v.Range)
		}
	})
	for _, g := range gone {
		as.replace(g)
		as.release(g)
	}
}

// Clear unmaps everything: what exit and execve do with the old program. Shared
// mappings are written back.
func (as *AddressSpace) Clear() {
	as.mu.Lock()
	defer as.mu.Unlock()
	as.unmap(everywhere)
	as.reap()
	as.dropHeap()
	as.leaveWindow()
}

// Protect is mprotect(2). It is bookkeeping: it bounds what system calls may do
// with the memory, not what guest code does. Where a part is not mapped, what
// comes before it has been changed (ENOMEM).
func (as *AddressSpace) Protect(addr uintptr, n uint64, prot int) error {
	prot &^= unix.PROT_GROWSDOWN | unix.PROT_GROWSUP
	if addr&pageMask != 0 || prot&^(protMask|protSem) != 0 {
		return unix.EINVAL
	}
	prot &= protMask
	if n == 0 {
		return nil
	}
	r, err := pages(addr, n)
	if err != nil {
		return err
	}
	as.mu.Lock()
	defer as.mu.Unlock()
	if len(as.vmas)+2 > MaxMaps {
		return unix.ENOMEM
	}
	var parts []*vma
	as.within(r, func(v *vma) { parts = append(parts, v) })
	at := r.Start
	for _, v := range parts {
		if v.Start != at || v.hidden {
			return unix.ENOMEM
		}
		at = v.End
		if v.prot == prot {
			continue
		}
		if prot&unix.PROT_WRITE != 0 && v.shared && v.file != nil {
			if !v.file.Writable {
				return unix.EACCES
			}
			if _, ok := v.file.Source.(Shareable); !ok {
				return unix.EACCES
			}
		}
		w := *v
		w.prot = prot
		if err := as.recharge(v.charge(), max(v.charge(), w.charge())); err != nil {
			return err
		}
		if v.charge() > w.charge() {
			// Linux keeps memory accounted once it was writable; what is
			// counted here is what is writable now.
			as.uncommit(v.charge() - w.charge())
		}
		if v.fresh && prot != 0 {
			as.arena.open(v.Range)
			w.fresh = false
		}
		as.replace(v.Range, &w)
	}
	if at != r.End {
		return unix.ENOMEM
	}
	return nil
}

// protSem is PROT_SEM, which Linux accepts and ignores.
const protSem = 0x8
