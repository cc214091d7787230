package scan

import (
	"bytes"
	"cmp"
	"debug/elf"
	"encoding/binary"
	"slices"

	"github.com/nabla-build/nabla-build/link/object"
)

// function is a range that starts with an instruction.
type function struct {
	lo, hi uint64
	// reach is where the next function starts: code after an early end of the
	// FDE (clone, clone3 in glibc) lies between hi and reach.
	reach  uint64
	signal bool // a signal trampoline
	gap    bool // not described by anything: what lies between functions
}

// maxGap is how far code may reach beyond the end of its function.
const maxGap = 4096

// functions lists the functions of f by address. Ranges may be nested; equal
// ones appear once.
func functions(f *object.File) []function {
	var fns []function
	add := func(lo, hi uint64, signal bool) {
		if lo < hi && hi <= f.Hi {
			fns = append(fns, function{lo: lo, hi: hi, reach: hi, signal: signal})
		}
	}
	fdes(f, add)
	f.Symbols(func(t elf.SymType, value, size uint64) bool {
		if (t == elf.STT_FUNC || t == elf.STT_GNU_IFUNC) && size > 0 && value < f.Hi && size <= f.Hi-value {
			add(value, value+size, false)
		}
		return true
	})
	goFunctions(f, add)
	slices.SortFunc(fns, func(a, b function) int {
		if c := cmp.Compare(a.lo, b.lo); c != 0 {
			return c
		}
		if c := cmp.Compare(b.hi, a.hi); c != 0 { // the innermost last
			return c
		}
		if a.signal != b.signal { // a trampoline's FDE outweighs its symbol
			if a.signal {
				return 1
			}
			return -1
		}
		return 0
	})
	fns = slices.CompactFunc(fns, func(a, b function) bool { return a.lo == b.lo && a.hi == b.hi && a.signal == b.signal })
	var trampoline uint64 // end of the last one
	for i := range fns {
		if fns[i].signal {
			trampoline = max(trampoline, fns[i].hi)
		} else if fns[i].lo < trampoline {
			fns[i].signal = true
		}
		next := i + 1
		for next < len(fns) && next < i+16 && fns[next].lo < fns[i].hi {
			next++
		}
		if next < len(fns) && fns[next].lo > fns[i].hi {
			fns[i].reach = min(fns[next].lo, fns[i].hi+maxGap)
		}
	}
	return fns
}

// gap returns what lies between the functions around addr: in stripped objects
// (musl's libc) local functions without any description.
func (s *scanner) gap(addr uint64) (function, bool) {
	i, _ := slices.BinarySearchFunc(s.fns, addr, func(f function, a uint64) int { return cmp.Compare(f.lo, a) })
	g := function{gap: true}
	for j := i - 1; j >= 0 && j >= i-16; j-- {
		g.lo = max(g.lo, s.fns[j].hi)
	}
	for _, c := range s.f.Code {
		if addr >= c.Addr && addr < c.End() {
			g.hi = c.End()
			if g.lo < c.Addr {
				return g, false // no function before it: its start is not known
			}
		}
	}
	if i < len(s.fns) {
		g.hi = min(g.hi, s.fns[i].lo)
	}
	g.reach = g.hi
	return g, g.lo <= addr && addr < g.hi && g.hi-g.lo <= maxFunction
}

// fdes calls add for the FDEs of .eh_frame (LSB core, Exception Frames) whose
// pointers are pc-relative 32-bit ones, which is what compilers emit.
func fdes(f *object.File, add func(lo, hi uint64, signal bool)) {
	addr, b := f.EhFrame()
	type cie struct{ pcrel, signal bool }
	cies := map[int]cie{}
	le := binary.LittleEndian
	for off := 0; off+8 <= len(b); {
		n := int(le.Uint32(b[off:]))
		if n == 0 { // terminator; linkers may join several tables
			off += 4
			continue
		}
		if n < 4 || n > len(b)-off-4 {
			return // 64-bit lengths do not occur, the rest is not a table
		}
		id := int(le.Uint32(b[off+4:]))
		body := b[off+8 : off+4+n]
		if id == 0 {
			enc, signal := augmentation(body)
			cies[off] = cie{enc == 0x1b, signal}
		} else if c := cies[off+4-id]; c.pcrel && len(body) >= 8 {
			lo := addr + uint64(off) + 8 + uint64(int64(int32(le.Uint32(body))))
			// A signal trampoline's FDE starts one byte early, so that an
			// unwinder's pc-1 finds it: linear decoding from there would be
			// misaligned. Its bytes are left alone altogether.
			add(lo, lo+uint64(le.Uint32(body[4:])), c.signal)
		}
		off += 4 + n
	}
}

// augmentation returns the FDE pointer encoding of a CIE and whether it is for
// signal frames ("S").
func augmentation(b []byte) (enc byte, signal bool) {
	const unknown = 0xff
	if len(b) < 2 {
		return unknown, false
	}
	z := bytes.IndexByte(b[1:], 0)
	if z < 0 {
		return unknown, false
	}
	aug, p := b[1:1+z], b[2+z:]
	signal = bytes.IndexByte(aug, 'S') >= 0
	leb := func() {
		for len(p) > 0 && p[0]&0x80 != 0 {
			p = p[1:]
		}
		if len(p) > 0 {
			p = p[1:]
		}
	}
	leb()
	leb()
	leb() // code and data alignment, return address register
	if len(aug) == 0 || aug[0] != 'z' {
		return 0, signal
	}
	leb()
	for _, c := range aug[1:] {
		if len(p) == 0 && c != 'S' && c != 'B' {
			return unknown, signal
		}
		switch c {
		case 'R':
			return p[0], signal
		case 'L':
			p = p[1:]
		case 'P':
			n := 1 + 4
			switch p[0] & 0xf {
			case 0, 4, 0xc:
				n = 1 + 8
			case 2, 0xa:
				n = 1 + 2
			}
			p = p[min(n, len(p)):]
		case 'S', 'B':
		default:
			return unknown, signal
		}
	}
	return 0, signal
}

// goFunctions calls add for the functions of .gopclntab, the table the Go
// linker writes (runtime/symtab.go, type pcHeader; versions 1.18 and 1.20).
func goFunctions(f *object.File, add func(lo, hi uint64, signal bool)) {
	text := f.Section(".text")
	addr, b := goTable(f)
	if b == nil || text == nil {
		return
	}
	le := binary.LittleEndian
	n, start, at := le.Uint64(b[8:]), le.Uint64(b[24:]), le.Uint64(b[64:])
	if at > uint64(len(b)) || n >= uint64(len(b))/8 || at+8*n+4 > uint64(len(b)) {
		return
	}
	tab := b[at:]
	end := uint64(le.Uint32(tab[8*n:]))
	if start == 0 { // a relocation has it
		start = addend(f, addr+24)
	}
	if start == 0 {
		// Newer linkers leave it out. It is that of .text if the functions fill
		// the section to its end; otherwise it is not known.
		start = text.Addr
		if size := uint64(len(text.Data)); end > size || size-end >= 64 {
			return
		}
	}
	prev := uint64(0)
	for i := range n {
		lo, hi := uint64(le.Uint32(tab[8*i:])), uint64(le.Uint32(tab[8*i+8:]))
		if lo < prev || hi < lo {
			return
		}
		prev = lo
		add(start+lo, start+hi, false)
	}
}

// goTable finds the table; external linkers may have merged it with other data.
func goTable(f *object.File) (addr uint64, b []byte) {
	header := func(b []byte) bool {
		m := binary.LittleEndian.Uint32(b)
		return (m == 0xfffffff0 || m == 0xfffffff1) && b[4] == 0 && b[5] == 0 && b[6] == 1 && b[7] == 8
	}
	if s := f.Section(".gopclntab"); s != nil {
		if len(s.Data) >= 72 && header(s.Data) {
			return s.Addr, s.Data
		}
		return 0, nil
	}
	if f.Section(".go.buildinfo") == nil {
		return 0, nil
	}
	for _, name := range []string{".data.rel.ro", ".rodata"} {
		s := f.Section(name)
		if s == nil {
			continue
		}
		for at := int(-s.Addr & 31); at+72 <= len(s.Data); at += 32 {
			if header(s.Data[at:]) {
				return s.Addr + uint64(at), s.Data[at:]
			}
		}
	}
	return 0, nil
}

// addend is the addend of the R_X86_64_RELATIVE relocation of the word at addr,
// 0 if there is none.
func addend(f *object.File, addr uint64) uint64 {
	le := binary.LittleEndian
	for _, s := range f.Sections {
		if s.Type != elf.SHT_RELA {
			continue
		}
		for d := s.Data; len(d) >= 24; d = d[24:] {
			if le.Uint64(d) == addr && le.Uint64(d[8:]) == uint64(elf.R_X86_64_RELATIVE) {
				return le.Uint64(d[16:])
			}
		}
	}
	return 0
}
