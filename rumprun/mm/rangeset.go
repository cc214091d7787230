package mm

import "slices"

// rangeSet is a set of addresses: disjoint ranges by address that never touch.
type rangeSet []Range

// search returns the index of the first range that ends after addr.
func (s rangeSet) search(addr uintptr) int {
	i, _ := slices.BinarySearchFunc(s, addr, func(r Range, a uintptr) int {
		if r.End <= a {
			return -1
		}
		return 1
	})
	return i
}

func (s *rangeSet) add(r Range) {
	if r.Len() == 0 {
		return
	}
	i := s.search(r.Start)
	if i > 0 && (*s)[i-1].End == r.Start {
		i--
	}
	j := i
	for j < len(*s) && (*s)[j].Start <= r.End {
		r.Start = min(r.Start, (*s)[j].Start)
		r.End = max(r.End, (*s)[j].End)
		j++
	}
	*s = slices.Replace(*s, i, j, r)
}

func (s *rangeSet) remove(r Range) {
	if r.Len() == 0 {
		return
	}
	i := s.search(r.Start)
	j := i
	var keep [2]Range
	n := 0
	for j < len(*s) && (*s)[j].Start < r.End {
		o := (*s)[j]
		if o.Start < r.Start {
			keep[n] = Range{o.Start, r.Start}
			n++
		}
		if o.End > r.End {
			keep[n] = Range{r.End, o.End}
			n++
		}
		j++
	}
	if i != j {
		*s = slices.Replace(*s, i, j, keep[:n]...)
	}
}

// covers reports whether all of r is in s.
func (s rangeSet) covers(r Range) bool {
	i := s.search(r.Start)
	return i < len(s) && s[i].Start <= r.Start && r.End <= s[i].End
}

// each calls f for the parts of s inside r. f must not change s.
func (s rangeSet) each(r Range, f func(Range)) {
	for i := s.search(r.Start); i < len(s) && s[i].Start < r.End; i++ {
		f(s[i].clip(r))
	}
}

// lowest returns the lowest address in bounds where n bytes of s begin at
// bias plus a multiple of align, a power of two.
func (s rangeSet) lowest(bounds Range, n, align, bias uintptr) (uintptr, bool) {
	for i := s.search(bounds.Start); i < len(s) && s[i].Start < bounds.End; i++ {
		r := s[i].clip(bounds)
		if r.Len() < n {
			continue
		}
		a := r.Start + (bias-r.Start)&(align-1)
		if a >= r.Start && a <= r.End && r.End-a >= n {
			return a, true
		}
	}
	return 0, false
}

// highest is lowest from the other end; without alignment beyond the page.
func (s rangeSet) highest(bounds Range, n uintptr) (uintptr, bool) {
	for i := len(s) - 1; i >= 0 && s[i].End > bounds.Start; i-- {
		if r := s[i].clip(bounds); r.Len() >= n && n > 0 {
			return r.End - n, true
		}
	}
	return 0, false
}
