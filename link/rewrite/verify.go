package rewrite

import (
	"bytes"
	"debug/elf"
	"encoding/binary"
	"fmt"

	"golang.org/x/arch/x86/x86asm"

	"github.com/nabla-build/nabla-build/archive"
	"github.com/nabla-build/nabla-build/link/object"
)

// Verify proves that the rewritten object stored, with the stubs of p, does
// what the original (stored with p.Undo applied) does. It uses nothing of the
// code that made the patch: it disassembles the original window and the stub
// with golang.org/x/arch and compares them instruction by instruction. For
// every run of rewritten bytes:
//   - it lies in an executable segment and holds a jump to a stub, then int3;
//   - the stub does what the window did up to the syscall, loads the address
//     behind it, enters the crossing, and goes on as the window did;
//   - stubs do not overlap and hold nothing else.
//
// Whether something else jumps into a window is not decided here.
func Verify(stored []byte, p *archive.Patch) error {
	f, err := object.Parse(stored)
	if err != nil {
		return fmt.Errorf("verify: %w", err)
	}
	if p.Lo != f.Lo || p.Hi != f.Hi || p.StubVaddr != (f.Hi+pageSize-1)/pageSize*pageSize {
		return fmt.Errorf("verify: stubs at %#x beside an object at %#x to %#x", p.StubVaddr, f.Lo, f.Hi)
	}
	n := 0
	for _, s := range f.Segments {
		if s.Flags&elf.PF_X == 0 {
			continue
		}
		if n >= len(p.Segments) || p.Segments[n] != (archive.Segment{Off: s.Off, Vaddr: s.Vaddr, Filesz: s.Filesz}) {
			return fmt.Errorf("verify: executable segment at %#x is not in the patch", s.Vaddr)
		}
		n++
	}
	if n != len(p.Segments) {
		return fmt.Errorf("verify: %d executable segments, the patch has %d", n, len(p.Segments))
	}
	v := &verifier{stored: stored, p: p}
	end := uint64(0)
	for i := range p.Undo {
		u := &p.Undo[i]
		if u.Off < end || u.Off > uint64(len(stored)) || uint64(len(u.Orig)) > uint64(len(stored))-u.Off {
			return fmt.Errorf("verify: undo records out of order or outside the file at %#x", u.Off)
		}
		end = u.Off + uint64(len(u.Orig))
		if err := v.site(i); err != nil {
			return fmt.Errorf("verify: site at file offset %#x: %w", u.Off, err)
		}
	}
	for i, used := range v.used() {
		if !used && p.Stubs[i] != 0xcc {
			return fmt.Errorf("verify: stub byte %#x belongs to no site", i)
		}
	}
	return nil
}

type verifier struct {
	stored []byte
	p      *archive.Patch
	spans  [][2]int // of stubs
}

func (v *verifier) used() []bool {
	u := make([]bool, len(v.p.Stubs))
	for _, s := range v.spans {
		for i := s[0]; i < s[1]; i++ {
			u[i] = true
		}
	}
	return u
}

// original is the original content at off, n bytes at most, which lie in seg.
func (v *verifier) original(i int, seg archive.Segment, n int) []byte {
	u := v.p.Undo[i]
	end := min(u.Off+uint64(n), seg.Off+seg.Filesz)
	b := bytes.Clone(v.stored[u.Off:end])
	for ; i < len(v.p.Undo) && v.p.Undo[i].Off < end; i++ {
		copy(b[v.p.Undo[i].Off-u.Off:], v.p.Undo[i].Orig)
	}
	return b
}

// code is a cursor over instructions.
type code struct {
	b  []byte
	pc uint64
}

func (c *code) next() (x86asm.Inst, error) {
	in, err := x86asm.Decode(c.b, 64)
	if err != nil {
		return in, fmt.Errorf("undecodable at %#x: %w", c.pc, err)
	}
	c.b, c.pc = c.b[in.Len:], c.pc+uint64(in.Len)
	return in, nil
}

// maxWindow is more than any window holds: four bytes before or behind a
// syscall instruction, and an instruction of 15 bytes.
const maxWindow = 32

func (v *verifier) site(i int) error {
	u := v.p.Undo[i]
	var seg archive.Segment
	for _, s := range v.p.Segments {
		if u.Off >= s.Off && u.Off+uint64(len(u.Orig)) <= s.Off+s.Filesz {
			seg = s
		}
	}
	if seg.Filesz == 0 {
		return fmt.Errorf("not in an executable segment")
	}
	start := seg.Vaddr + (u.Off - seg.Off)
	run := v.stored[u.Off:][:len(u.Orig)]
	if len(run) < 5 || len(run) > maxWindow || run[0] != 0xe9 {
		return fmt.Errorf("no jump")
	}
	for _, c := range run[5:] {
		if c != 0xcc {
			return fmt.Errorf("byte %#x behind the jump", c)
		}
	}
	at := start + 5 + uint64(int64(int32(binary.LittleEndian.Uint32(run[1:]))))
	if at < v.p.StubVaddr || at-v.p.StubVaddr >= uint64(len(v.p.Stubs)) {
		return fmt.Errorf("jump to %#x, which is no stub", at)
	}
	orig := &code{v.original(i, seg, maxWindow), start}
	stub := &code{v.p.Stubs[at-v.p.StubVaddr:], at}

	// What comes before the syscall.
	before := 0
	var in x86asm.Inst
	for {
		var err error
		if in, err = orig.next(); err != nil {
			return err
		}
		if in.Op == x86asm.SYSCALL {
			break
		}
		before++
		if err := same(in, orig.pc, stub); err != nil {
			return err
		}
		if orig.pc > start+uint64(maxWindow-2) {
			return fmt.Errorf("no syscall in the window")
		}
	}
	if in.Len != 2 {
		return fmt.Errorf("syscall with prefixes")
	}
	behind := orig.pc // of the syscall
	end := start + uint64(len(u.Orig))
	if before > 0 && end != behind && end != behind-2 {
		return fmt.Errorf("the window ends at %#x, the syscall at %#x", end, behind)
	}

	// The crossing.
	if !bytes.HasPrefix(stub.b, []byte{0x48, 0x8d, 0x0d}) || len(stub.b) < 7 { // lea disp32(%rip), %rcx
		return fmt.Errorf("the stub does not load rcx")
	}
	ret := stub.pc + 7 + uint64(int64(int32(binary.LittleEndian.Uint32(stub.b[3:]))))
	stub.b, stub.pc = stub.b[7:], stub.pc+7
	enter := []byte{0x65, 0xff, 0x24, 0x25, EntryOffset, 0, 0, 0}
	if !bytes.HasPrefix(stub.b, enter) {
		return fmt.Errorf("stub does not enter the crossing")
	}
	stub.b, stub.pc = stub.b[len(enter):], stub.pc+uint64(len(enter))

	// What comes after it.
	if before > 0 {
		if ret != behind {
			return fmt.Errorf("returns to %#x, not to %#x", ret, behind)
		}
		return v.span(at, stub.pc)
	}
	if ret != stub.pc {
		return fmt.Errorf("returns to %#x, not to the rest of the stub at %#x", ret, stub.pc)
	}
	var err error
	for orig.pc < end {
		if in, err = orig.next(); err != nil {
			return err
		}
		if err := same(in, orig.pc, stub); err != nil {
			return err
		}
		if in.Op == x86asm.RET || in.Op == x86asm.JMP {
			// The rest of the window is not reached by falling through.
			for orig.pc < end {
				if in, err = orig.next(); err != nil || in.Op != x86asm.NOP && !(in.Op == x86asm.INT && in.Len == 1) {
					return fmt.Errorf("code behind the end of the window is overwritten")
				}
			}
			return v.span(at, stub.pc)
		}
	}
	if orig.pc != end {
		return fmt.Errorf("the window ends inside an instruction")
	}
	if in, err = stub.next(); err != nil {
		return err
	}
	if to, ok := in.Args[0].(x86asm.Rel); in.Op != x86asm.JMP || !ok || stub.pc+uint64(int64(to)) != end {
		return fmt.Errorf("the stub does not go back to %#x", end)
	}
	return v.span(at, stub.pc)
}

// span notes the range of a stub, which no other stub may touch.
func (v *verifier) span(from, to uint64) error {
	a, b := int(from-v.p.StubVaddr), int(to-v.p.StubVaddr)
	if k := len(v.spans); k > 0 && v.spans[k-1][1] > a {
		return fmt.Errorf("its stub overlaps another")
	}
	v.spans = append(v.spans, [2]int{a, b})
	return nil
}

// same checks that the next instruction of the stub does what in, which ends at
// end, did.
func same(in x86asm.Inst, end uint64, stub *code) error {
	got, err := stub.next()
	if err != nil {
		return err
	}
	bad := fmt.Errorf("the stub has %v where the original has %v", got, in)
	switch in.Op {
	case x86asm.CALL, x86asm.LCALL, x86asm.LJMP, x86asm.LOOP, x86asm.LOOPE, x86asm.LOOPNE, x86asm.JCXZ, x86asm.JECXZ, x86asm.JRCXZ, x86asm.XBEGIN, x86asm.INT, x86asm.UD1, x86asm.UD2:
		return fmt.Errorf("%v cannot be moved", in)
	case x86asm.MOV:
		// mov $nr, %rax may have become mov $nr, %eax, which clears the upper half.
		a, aok := in.Args[1].(x86asm.Imm)
		b, bok := got.Args[1].(x86asm.Imm)
		if in.Args[0] == x86asm.RAX && got.Op == x86asm.MOV && got.Args[0] == x86asm.EAX && aok && bok && a == b && a >= 0 && int64(a) == int64(uint32(a)) {
			return nil
		}
	}
	if got.Op != in.Op || got.DataSize != in.DataSize || got.AddrSize != in.AddrSize || got.MemBytes != in.MemBytes {
		return bad
	}
	for i := range in.Args {
		switch a := in.Args[i].(type) {
		case x86asm.Rel:
			b, ok := got.Args[i].(x86asm.Rel)
			if !ok || end+uint64(int64(a)) != stub.pc+uint64(int64(b)) {
				return bad
			}
		case x86asm.Mem:
			b, ok := got.Args[i].(x86asm.Mem)
			if !ok {
				return bad
			}
			if a.Base == x86asm.RIP {
				if b.Base != x86asm.RIP || end+uint64(int64(int32(a.Disp))) != stub.pc+uint64(int64(int32(b.Disp))) {
					return bad
				}
				a.Disp, b.Disp = 0, 0
			}
			if a != b {
				return bad
			}
		default:
			if in.Args[i] != got.Args[i] {
				return bad
			}
		}
	}
	for i := range in.Prefix {
		if in.Prefix[i]&^x86asm.PrefixImplicit != got.Prefix[i]&^x86asm.PrefixImplicit && !short(in) {
			return bad
		}
	}
	return nil
}

// short says whether in is a two-byte jump, whose copy has another encoding.
func short(in x86asm.Inst) bool { return in.Len == 2 && in.PCRel == 1 }
