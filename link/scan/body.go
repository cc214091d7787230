package scan

import (
	"cmp"
	"encoding/binary"
	"slices"

	"golang.org/x/arch/x86/x86asm"

	"github.com/nabla-build/nabla-build/link/x86"
)

// maxFunction bounds the functions that are decoded.
const maxFunction = 1 << 20

// body is a decoded function, with what follows its end if control does.
type body struct {
	lo, hi, reach uint64
	data          []byte          // from lo to reach
	insns         []insn          // in ascending order
	targets       map[uint32]bool // offsets that a branch or a jump table goes to
	decoded       uint32          // where the last instruction ends
	computed      bool            // has jumps to computed labels, whose targets are not known
	why           string          // why nothing of it may be rewritten
}

type insn struct {
	x86.Inst
	off uint32
}

// decode decodes a function.
func (s *scanner) decode(fn function) *body {
	b := &body{lo: fn.lo, hi: fn.hi, reach: fn.reach, targets: map[uint32]bool{}}
	for _, c := range s.f.Code {
		if fn.lo >= c.Addr && fn.lo < c.End() {
			b.hi, b.reach = min(fn.hi, c.End()), min(fn.reach, c.End())
			b.data = c.Data[fn.lo-c.Addr : b.reach-c.Addr]
		}
	}
	switch {
	case b.data == nil || b.hi != fn.hi:
		b.why = WhyUndecoded
		return b
	case len(b.data) > maxFunction || len(b.data) > s.budget:
		b.why = WhyTooLarge
		return b
	}
	s.budget -= len(b.data)
	size := uint32(b.hi - b.lo)
	off := uint32(0)
	for off < size {
		in, ok := x86.Decode(b.data[off:])
		if !ok {
			b.why = WhyUndecoded
			return b
		}
		b.insns = append(b.insns, insn{in, off})
		off += uint32(in.Len)
	}
	if off != size {
		b.why = WhyUndecoded
		return b
	}
	b.decoded = size
	if fn.gap && !b.ends() {
		b.why = WhyUndecoded
		return b
	}
	b.beyond()
	var indirect, labels bool
	for _, in := range b.insns {
		at := b.data[in.off:]
		t := int64(in.off) + int64(in.Len) + in.Rel(at)
		switch {
		case in.Branch() && t >= 0 && t < int64(b.decoded):
			b.targets[uint32(t)] = true
			if _, ok := b.at(uint32(t)); ok {
				continue
			}
			// glibc jumps over lock prefixes; nothing else enters an instruction.
			if k, ok := b.at(uint32(t - 1)); t == 0 || !ok || !b.insns[k].Lock {
				b.why = WhyBranches
			}
		case in.Lea && t >= 0 && t < int64(len(b.data)):
			b.targets[uint32(t)] = true
			labels = true
		case in.Lea:
			s.table(b, b.lo+uint64(t))
		case in.Kind == x86.JmpIndirect && in.RelSize == 0:
			indirect = true
		}
	}
	b.computed = indirect && labels
	return b
}

// at is the number of the instruction at an offset.
func (b *body) at(off uint32) (int, bool) {
	return slices.BinarySearchFunc(b.insns, off, func(in insn, off uint32) int { return cmp.Compare(in.off, off) })
}

// ends says whether control does not run out of the end of a gap: what does is
// not code, but data that happens to decode.
func (b *body) ends() bool {
	for i := len(b.insns) - 1; i >= 0; i-- {
		in := b.insns[i]
		if !in.Falls() || in.Kind == x86.Call || in.Kind == x86.CallIndirect {
			return true
		}
		if !padding(b.data[in.off:][:in.Len]) {
			return false
		}
	}
	return false
}

// beyond follows control past the end of the function: by falling through, and
// to branch targets in the gap. Only what is reached is code.
func (b *body) beyond() {
	off, end := b.decoded, uint32(len(b.data))
	var todo []uint32
	add := func(in x86.Inst, at uint32) {
		if t := int64(at) + int64(in.Len) + in.Rel(b.data[at:]); in.Branch() && t >= int64(off) && t < int64(end) {
			todo = append(todo, uint32(t))
		}
	}
	if off >= end || len(b.insns) == 0 {
		return
	}
	for _, in := range b.insns {
		add(in.Inst, in.off)
	}
	if last := b.insns[len(b.insns)-1]; last.Falls() && last.Kind != x86.Call && last.Kind != x86.CallIndirect {
		todo = append(todo, off)
	}
	seen := map[uint32]x86.Inst{}
	for len(todo) > 0 {
		at := todo[len(todo)-1]
		todo = todo[:len(todo)-1]
		for at < end {
			if _, ok := seen[at]; ok {
				break
			}
			in, ok := x86.Decode(b.data[at:])
			if !ok || at+uint32(in.Len) > end {
				break
			}
			seen[at] = in
			add(in, at)
			if !in.Falls() {
				break
			}
			at += uint32(in.Len)
		}
	}
	// In order, as long as they do not overlap.
	for at := off; at < end; at++ {
		in, ok := seen[at]
		if !ok {
			continue
		}
		if k := len(b.insns) - 1; b.insns[k].off+uint32(b.insns[k].Len) > at {
			b.why = WhyBranches
			return
		}
		b.insns = append(b.insns, insn{in, at})
		b.decoded = at + uint32(in.Len)
	}
}

// table marks the targets of a jump table at addr, if there is one: 32-bit
// distances from the table (what compilers emit for position-independent
// code). Words are taken as long as they lead into the function.
func (s *scanner) table(b *body, addr uint64) {
	if c := s.code(addr); c {
		return
	}
	t := s.f.At(addr)
	for n := 0; len(t) >= 4 && n < 1<<16; n++ {
		to := addr + uint64(int64(int32(binary.LittleEndian.Uint32(t))))
		if to < b.lo || to >= b.lo+uint64(len(b.data)) || s.budget <= 0 {
			return
		}
		b.targets[uint32(to-b.lo)] = true
		s.budget--
		t = t[4:]
	}
}

// code says whether addr is in executable code.
func (s *scanner) code(addr uint64) bool {
	for _, c := range s.f.Code {
		if addr >= c.Addr && addr < c.End() {
			return true
		}
	}
	return false
}

// sigreturn is the number of rt_sigreturn.
const sigreturn = 15

// number decides whether the site is an instruction, and whether the number is
// loaded right before it. Why is "" for a site that is still to be decided.
func (b *body) number(s *Site) {
	s.Why = b.why
	if b.why != "" {
		return
	}
	off := uint32(s.Addr - b.lo)
	k, ok := b.at(off)
	if !ok {
		if off >= b.decoded {
			s.Why = WhyNoFunction
			return
		}
		if k, ok = b.holder(off); !ok {
			s.Why = WhyNoFunction
			return
		}
		s.Class, s.Why = Bogus, ""
		return
	}
	if b.insns[k].Kind != x86.Syscall {
		s.Why = WhyUndecoded // 0f 05 with a prefix: never seen
		return
	}
	if k == 0 {
		return
	}
	p := b.insns[k-1]
	if p.off+uint32(p.Len) != off {
		return
	}
	code := b.data[p.off:off]
	switch {
	case len(code) == 5 && code[0] == 0xb8:
		s.Class, s.NR = Mov7, binary.LittleEndian.Uint32(code[1:])
	case len(code) == 7 && code[0] == 0x48 && code[1] == 0xc7 && code[2] == 0xc0 && code[6] < 0x80:
		s.Class, s.NR = Mov9, binary.LittleEndian.Uint32(code[3:])
	default:
		return
	}
	s.Start, s.End = s.Addr-uint64(len(code)), s.Addr+2
	if s.NR == sigreturn {
		s.Class, s.Why = Slow, WhySignal
	}
}

// holder is the instruction that has offset off in its inside.
func (b *body) holder(off uint32) (int, bool) {
	for d := uint32(0); d < 15 && d <= off; d++ {
		if k, ok := b.at(off - d); ok {
			return k, off < b.insns[k].off+uint32(b.insns[k].Len)
		}
	}
	return 0, false
}

// window looks for room for a jump with neighbouring instructions, before the
// syscall first: then the address to which the call returns is in the original
// code, where unwinders know it.
func (b *body) window(sites []Site, i int) {
	s := &sites[i]
	lo, hi := b.lo, b.lo+uint64(b.decoded) // room between the windows of neighbours
	for j := i - 1; j >= 0 && j > i-16; j-- {
		if sites[j].Rewritable() {
			lo = max(lo, sites[j].End)
		}
	}
	for j := i + 1; j < len(sites) && j < i+16; j++ {
		if sites[j].Rewritable() {
			hi = min(hi, sites[j].Start)
		}
	}
	k, _ := b.at(uint32(s.Addr - b.lo))
	if b.computed {
		s.Why = WhyComputed
		return
	}
	why := b.before(s, k, lo)
	if why != "" {
		if w := b.after(s, k, hi); w == "" || why != WhyTarget {
			why = w
		}
	}
	s.Why = why
}

// before tries a window of instructions before the syscall.
func (b *body) before(s *Site, k int, lo uint64) string {
	so := uint32(s.Addr - b.lo)
	start, j := so, k
	// The syscall itself may be a branch target as long as its bytes stay.
	for so-start < 3 || so-start < 5 && b.targets[so] {
		if start != so && b.targets[start] {
			return WhyTarget
		}
		if j--; j < 0 {
			return WhyShort
		}
		p := b.insns[j]
		if p.off+uint32(p.Len) != start || b.lo+uint64(p.off) < lo || !p.Falls() || !movable(p, b.data) {
			return WhyShort
		}
		start = p.off
	}
	s.Class, s.Start, s.End, s.Moved = Pre, b.lo+uint64(start), s.Addr+2, nil
	for ; j < k; j++ {
		s.Moved = append(s.Moved, Insn{uint8(b.insns[j].off - start), b.insns[j].Len})
	}
	return ""
}

// after tries a window of instructions after the syscall.
func (b *body) after(s *Site, k int, hi uint64) string {
	so := uint32(s.Addr - b.lo)
	end := so + 2
	var moved []Insn
	ended := false
	for j := k + 1; end < so+5; j++ {
		if j >= len(b.insns) || b.insns[j].off != end || b.lo+uint64(end)+uint64(b.insns[j].Len) > hi {
			return WhyShort
		}
		if b.targets[end] {
			return WhyTarget
		}
		in := b.insns[j]
		if ended {
			// Only padding may be overwritten behind the end of the flow.
			if !padding(b.data[in.off:][:in.Len]) {
				return WhyShort
			}
			end += uint32(in.Len)
			continue
		}
		if !movable(in, b.data) {
			return WhyShort
		}
		moved = append(moved, Insn{uint8(in.off - so), in.Len})
		end += uint32(in.Len)
		ended = !in.Falls()
	}
	s.Class, s.Start, s.End, s.Moved = Post, s.Addr, b.lo+uint64(end), moved
	return ""
}

// padding says whether an instruction is a nop or int3.
func padding(b []byte) bool {
	if len(b) == 1 && (b[0] == 0x90 || b[0] == 0xcc) {
		return true
	}
	in, err := x86asm.Decode(b, 64)
	return err == nil && in.Op == x86asm.NOP
}

// movable says whether a copy of the instruction elsewhere does the same. The
// full disassembler must know it and agree about its length.
func movable(in insn, data []byte) bool {
	if in.Endbr || in.Lock {
		return false
	}
	switch in.Kind {
	case x86.Plain, x86.Jcc, x86.Jmp, x86.JmpIndirect, x86.Ret:
	default:
		return false
	}
	b := data[in.off:][:in.Len]
	x, err := x86asm.Decode(b, 64)
	if err != nil || x.Len != int(in.Len) || x.PCRel != int(in.RelSize) || x.PCRel != 0 && x.PCRelOff != int(in.RelOff) {
		return false
	}
	switch x.Op {
	case x86asm.INT, x86asm.ICEBP, x86asm.INTO, x86asm.SYSENTER, x86asm.SYSEXIT, x86asm.XBEGIN, x86asm.XABORT, x86asm.XEND,
		x86asm.RSM, x86asm.IRET, x86asm.IRETD, x86asm.IRETQ, x86asm.LRET, x86asm.LJMP, x86asm.LCALL:
		return false
	}
	// A short jump is written anew with 32 bits; that is known for plain ones.
	return in.RelSize != 1 || len(b) == 2 && (b[0] == 0xeb || b[0]&0xf0 == 0x70)
}
