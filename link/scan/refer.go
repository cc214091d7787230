package scan

import (
	"bytes"
	"debug/elf"
	"encoding/binary"
)

// inner and demote make sure that nothing outside the decoded functions refers
// to the inside of a window. The search believes no structure: any 32 bits of
// the code that, read as a pc-relative value, lead into a window, any 64 bits
// of the file that are such an address (jump tables, relocations and their
// addends), and any symbol there forbid it.

// filter is a small set of addresses that may hold more than was put in; the
// zero value is empty.
type filter struct {
	lo, n uint64 // what was put in is in [lo, lo+n)
	bits  [1 << 10]uint64
}

func (f *filter) add(a uint64) {
	switch {
	case f.n == 0:
		f.lo, f.n = a, 1
	case a < f.lo:
		f.lo, f.n = a, f.n+(f.lo-a)
	case a-f.lo >= f.n:
		f.n = a - f.lo + 1
	}
	f.bits[a>>6&(1<<10-1)] |= 1 << (a & 63)
}

// has needs no memory for what is out of range: most of what is asked for.
func (f *filter) has(a uint64) bool {
	return a-f.lo < f.n && f.bits[a>>6&(1<<10-1)]&(1<<(a&63)) != 0
}

// inner notes the syscall instructions whose address is taken, before windows
// are chosen: code that compares an interrupted program counter with it (musl's
// and newer glibc's cancellation points) must find the instruction unmoved.
func (s *scanner) inner() {
	want := map[uint64]int{}
	var flt filter
	for i := range s.sites {
		if st := &s.sites[i]; st.Class != Bogus && (st.Class != Slow || st.Why == "") {
			for _, a := range [2]uint64{st.Addr, st.Addr + 2} {
				want[a] = i
				flt.add(a)
			}
		}
	}
	if len(want) == 0 {
		return
	}
	taken := func(i int) { s.sites[i].Class, s.sites[i].Why = Slow, WhyTaken }
	le := binary.LittleEndian
	s.passes(func(b []byte, addr uint64) {
		for p := 0; s.f.Exec && p+4 <= len(b); p++ {
			if a := uint64(le.Uint32(b[p:])); flt.has(a) {
				if i, ok := want[a]; ok && s.immediate(addr+uint64(p)) { // mov $a, reg; cmp $a, reg
					taken(i)
				}
			}
		}
		for p := 0; p+6 <= len(b); p++ {
			n := bytes.IndexByte(b[p:len(b)-5], 0x8d)
			if n < 0 {
				break
			}
			if p += n; b[p+1]&0xc7 != 5 {
				continue
			}
			// lea a(%rip), reg
			a := addr + uint64(p+6) + uint64(int64(int32(le.Uint32(b[p+2:]))))
			if flt.has(a) {
				if i, ok := want[a]; ok && s.relative(addr+uint64(p+2)) {
					taken(i)
				}
			}
		}
	})
	s.f.Symbols(func(t elf.SymType, value, _ uint64) bool {
		if t == elf.STT_NOTYPE && flt.has(value) { // a label, not the next function
			if i, ok := want[value]; ok {
				taken(i)
			}
		}
		return true
	})
}

// passes calls f for all code, piece by piece, with the address of the piece.
func (s *scanner) passes(f func(b []byte, addr uint64)) {
	for _, c := range s.f.Code {
		s.f.Pass(c.Data, func(b []byte, at int) { f(b, c.Addr+uint64(at)) })
	}
}

// demote turns sites into slow ones whose window is referred to.
func (s *scanner) demote() {
	want := map[uint64]int{}
	var flt filter
	for i := range s.sites {
		st := &s.sites[i]
		if st.Class != Pre && st.Class != Post {
			continue // one instruction is overwritten: nothing can enter it
		}
		// Everything that is overwritten but the first byte.
		end := max(st.Start+5, st.Addr)
		switch st.Class {
		case Post:
			end = st.End
		case Pre:
			if end > st.Addr {
				end = st.End
			}
		}
		for a := st.Start + 1; a < end; a++ {
			want[a] = i
			flt.add(a)
		}
	}
	if len(want) == 0 {
		return
	}
	refer := func(a uint64, why string) {
		if i, ok := want[a]; ok && s.sites[i].Rewritable() {
			s.sites[i].Class, s.sites[i].Why, s.sites[i].Moved = Slow, why, nil
		}
	}
	le := binary.LittleEndian
	s.passes(func(b []byte, addr uint64) {
		// This loop is most of the work of a scan: it does little for each byte.
		lo, n := flt.lo, flt.n
		from := addr + 4 - lo
		for p := range max(len(b)-3, 0) {
			if d := from + uint64(p) + uint64(int64(int32(le.Uint32(b[p:])))); d < n {
				if a := lo + d; flt.has(a) && s.boundary(a, want) && s.relative(addr+uint64(p)) {
					refer(a, WhyReferred)
				}
			}
		}
		// Absolute addresses of 32 bits occur in code below 2 GiB.
		for p := 0; s.f.Exec && p+4 <= len(b); p++ {
			if a := uint64(le.Uint32(b[p:])); flt.has(a) && s.boundary(a, want) && s.immediate(addr+uint64(p)) {
				refer(a, WhyReferred)
			}
		}
	})
	s.f.Pass(s.f.Bytes, func(b []byte, _ int) {
		for ; len(b) >= 8; b = b[8:] {
			if a := le.Uint64(b); flt.has(a) && s.boundary(a, want) {
				refer(a, WhyReferred)
			}
		}
	})
	s.f.Symbols(func(t elf.SymType, value, _ uint64) bool {
		if t != elf.STT_SECTION && t != elf.STT_FILE && t != elf.STT_TLS && flt.has(value) {
			refer(value, WhyReferred)
		}
		return true
	})
	s.short(want, refer)
}

// boundary says whether a starts an instruction of its window: a reference to
// the inside of an instruction is not one that a program can mean.
func (s *scanner) boundary(a uint64, want map[uint64]int) bool {
	i, ok := want[a]
	if !ok {
		return false
	}
	st := &s.sites[i]
	if a == st.Addr {
		return true
	}
	for _, m := range st.Moved {
		if st.Start+uint64(m.Off) == a {
			return true
		}
	}
	// Padding at the end of a Post window.
	if n := len(st.Moved); st.Class == Post && n > 0 {
		return a >= st.Start+uint64(st.Moved[n-1].Off)+uint64(st.Moved[n-1].Len)
	}
	return false
}

// relative and immediate say whether the four bytes at address a can be a
// pc-relative field or an absolute one (an immediate operand or a displacement).
// Only a decoded function can rule that out.
func (s *scanner) relative(a uint64) bool {
	in, off, ok := s.insn(a)
	return !ok || in.RelSize == 4 && off == uint32(in.RelOff)
}

func (s *scanner) immediate(a uint64) bool {
	in, off, ok := s.insn(a)
	if !ok {
		return true
	}
	rest := int(in.Len) - int(off) - 4
	return off > 0 && (rest == 0 || rest == 1 || rest == 4) && in.RelSize == 0
}

// insn is the instruction that holds the byte at a, and the place of that byte
// in it; not ok if no function is known there, or it could not be decoded.
func (s *scanner) insn(a uint64) (in insn, off uint32, ok bool) {
	fn, ok := s.function(a)
	if !ok || fn.signal {
		return in, 0, false
	}
	b := s.body(fn)
	if b.why != "" {
		return in, 0, false
	}
	o := uint32(a - b.lo)
	k, ok := b.holder(o)
	if !ok {
		return in, 0, false
	}
	return b.insns[k], o - b.insns[k].off, true
}

// short looks for two-byte jumps into windows from around them; those of the
// function itself are known.
func (s *scanner) short(want map[uint64]int, refer func(uint64, string)) {
	for i := range s.sites {
		st := &s.sites[i]
		if st.Class != Pre && st.Class != Post {
			continue
		}
		for _, c := range s.f.Code {
			if st.Addr < c.Addr || st.Addr >= c.End() {
				continue
			}
			lo, hi := max(c.Addr, st.Start-min(st.Start, 140)), min(c.End(), st.End+140)
			for a := lo; a+2 <= hi; a++ {
				op := c.Data[a-c.Addr]
				if op != 0xeb && op&0xf0 != 0x70 && op&0xfc != 0xe0 {
					continue
				}
				t := a + 2 + uint64(int64(int8(c.Data[a+1-c.Addr])))
				if !s.boundary(t, want) {
					continue
				}
				if in, off, ok := s.insn(a); !ok || in.RelSize == 1 && off+1 == uint32(in.RelOff) {
					refer(t, WhyReferred)
				}
			}
		}
	}
}
