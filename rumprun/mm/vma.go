package mm

import (
	"slices"

	"golang.org/x/sys/unix"
)

const protMask = unix.PROT_READ | unix.PROT_WRITE | unix.PROT_EXEC

// vma is a mapping. It does not change once it is in an address space.
type vma struct {
	Range
	prot int
	// file and off: what it was filled from; nil: anonymous.
	file *File
	off  int64
	name string // of an anonymous mapping: "[heap]", "[stack]"
	// object is the rewritten object that it is a part of, if any.
	object *object

	shared    bool
	noReserve bool
	// fresh: was never accessible, what its pages hold is of no account.
	fresh bool
	// rewritten: holds rewritten bytes of object.
	rewritten bool
	// hidden: stubs of object; the guest does not see the mapping.
	hidden bool
}

// readable and writable say what the guest may do, and the library OS on its
// behalf. x86 has neither write-only nor (without protection keys) execute-only
// pages.
func (v *vma) readable() bool { return v.prot != 0 && !v.hidden }
func (v *vma) writable() bool { return v.prot&unix.PROT_WRITE != 0 && !v.hidden }

// part is the part of v inside r, which overlaps it.
func (v *vma) part(r Range) *vma {
	c := v.clip(r)
	if c == v.Range {
		return v
	}
	n := *v
	n.Range = c
	if n.file != nil {
		n.off += int64(c.Start - v.Start)
	}
	return &n
}

// charge is what v counts against the limit (Linux: accountable_mapping).
func (v *vma) charge() uint64 {
	if v.noReserve || v.hidden || v.prot&unix.PROT_WRITE == 0 || v.shared && v.file != nil {
		return 0
	}
	return uint64(v.Len())
}

// joins reports whether v and w, which begins where v ends, can be one.
func (v *vma) joins(w *vma) bool {
	return v.End == w.Start && v.prot == w.prot && v.file == w.file && v.name == w.name &&
		v.object == w.object && v.shared == w.shared && v.noReserve == w.noReserve &&
		v.fresh == w.fresh && v.rewritten == w.rewritten && v.hidden == w.hidden &&
		(v.file == nil || v.off+int64(v.Len()) == w.off)
}

// index returns the index of the first mapping that ends after addr.
func (as *AddressSpace) index(addr uintptr) int {
	i, _ := slices.BinarySearchFunc(as.vmas, addr, func(v *vma, a uintptr) int {
		if v.End <= a {
			return -1
		}
		return 1
	})
	return i
}

// find returns the mapping that holds addr, or nil.
func (as *AddressSpace) find(addr uintptr) *vma {
	if i := as.index(addr); i < len(as.vmas) && as.vmas[i].Start <= addr {
		return as.vmas[i]
	}
	return nil
}

// within calls f for the parts of the mappings inside r. f must not change the
// list.
func (as *AddressSpace) within(r Range, f func(*vma)) {
	for i := as.index(r.Start); i < len(as.vmas) && as.vmas[i].Start < r.End; i++ {
		f(as.vmas[i].part(r))
	}
}

// covered reports whether the guest has every page of r mapped.
func (as *AddressSpace) covered(r Range) bool {
	at := r.Start
	for i := as.index(at); at < r.End; i++ {
		if i >= len(as.vmas) || as.vmas[i].Start > at || as.vmas[i].hidden {
			return false
		}
		at = as.vmas[i].End
	}
	return true
}

// replace puts in (by address, inside r) where the mappings of r were, and
// joins what can be joined. References and totals follow; memory stays.
func (as *AddressSpace) replace(r Range, in ...*vma) {
	i := as.index(r.Start)
	j := i
	for j < len(as.vmas) && as.vmas[j].Start < r.End {
		j++
	}
	var list []*vma
	if i > 0 { // the neighbours, for joining
		i--
		list = append(list, as.vmas[i])
	}
	for k := i; k < j; k++ {
		v := as.vmas[k]
		if v.Start < r.Start && v.End > r.Start {
			list = append(list, v.part(Range{v.Start, r.Start}))
		}
	}
	list = append(list, in...)
	for k := i; k < j; k++ {
		if v := as.vmas[k]; v.End > r.End && v.Start < r.End {
			list = append(list, v.part(Range{r.End, v.End}))
		}
	}
	if j < len(as.vmas) {
		list = append(list, as.vmas[j])
		j++
	}
	out := list[:0]
	for _, v := range list {
		if n := len(out); n > 0 && out[n-1].joins(v) {
			w := *out[n-1]
			w.End = v.End
			out[n-1] = &w
			continue
		}
		out = append(out, v)
	}
	// Neighbours that stayed what they were.
	old := as.vmas[i:j]
	for len(out) > 0 && len(old) > 0 && out[0] == old[0] {
		out, old, i = out[1:], old[1:], i+1
	}
	for len(out) > 0 && len(old) > 0 && out[len(out)-1] == old[len(old)-1] {
		out, old, j = out[:len(out)-1], old[:len(old)-1], j-1
	}
	old = slices.Clone(old)
	for _, v := range out {
		as.count(v, 1)
	}
	as.vmas = slices.Replace(as.vmas, i, j, out...)
	for k := range as.hot {
		as.hot[k].Store(nil)
	}
	for _, v := range old {
		as.count(v, -1)
	}
}

// count takes (1) or drops (-1) what v holds: references and totals.
func (as *AddressSpace) count(v *vma, n int) {
	if !v.hidden {
		as.mapped += uint64(n) * uint64(v.Len())
		if v.object != nil {
			v.object.maps += n
		}
	}
	if v.file == nil {
		return
	}
	if s, ok := v.file.Source.(Shareable); ok && v.shared {
		if n > 0 {
			s.Mappings().add(v)
		} else {
			s.Mappings().remove(v)
		}
	}
	if n > 0 {
		v.file.IncRef()
	} else {
		v.file.DecRef()
	}
}
