// Package rewrite turns the system call sites of an x86-64 object into jumps to
// stubs, and verifies independently that what came out does what the original
// did. It may import link/object, link/scan and archive (for the patch record);
// the type at its heart is Result.
package rewrite

import (
	"debug/elf"
	"encoding/binary"
	"errors"
	"fmt"

	"github.com/nabla-build/nabla-build/archive"
	"github.com/nabla-build/nabla-build/link/object"
	"github.com/nabla-build/nabla-build/link/scan"
	"github.com/nabla-build/nabla-build/link/x86"
)

// EntryOffset is the place, relative to the gs base, of the address of the
// crossing's fast entry.
const EntryOffset = 8

const pageSize = 4096

// Result says what was done to an object.
type Result struct {
	// Patch is what has to be stored beside the bytes; nil if nothing was
	// rewritten.
	Patch *archive.Patch
	// Sites are all places with the bytes of a syscall instruction.
	Sites []scan.Site
}

// Object rewrites, in place, the ELF object b, the whole content of a file. An
// error says that b is none the relinker works on (object.ErrNotELF or an
// *object.UnsupportedError); b is then unchanged. The same bytes give the same
// result. release, if given, is called with parts of b when a pass over them is
// over, so that the memory of a mapping can be dropped (changes must survive).
//
// To run the result: map the segments as usual, copy Patch.Stubs to
// Patch.StubVaddr plus the load bias, and keep the address of the fast entry
// in the word at gs:8. The entry is reached by a jump with the system call's
// registers as the syscall instruction would find them, but rcx, which holds
// the address to return to; rcx and r11 are free to be changed, as syscall does.
func Object(b []byte, release ...func([]byte)) (Result, error) {
	f, err := object.Parse(b)
	if err != nil {
		return Result{}, err
	}
	if len(release) > 0 {
		f.Release = release[0]
	}
	res := Result{Sites: scan.Object(f)}
	any := false
	for i := range res.Sites {
		any = any || res.Sites[i].Rewritable()
	}
	if !any {
		return res, nil
	}
	p := &archive.Patch{StubVaddr: (f.Hi + pageSize - 1) &^ (pageSize - 1), Lo: f.Lo, Hi: f.Hi}
	for _, s := range f.Segments {
		if s.Flags&elf.PF_X != 0 {
			p.Segments = append(p.Segments, archive.Segment{Off: s.Off, Vaddr: s.Vaddr, Filesz: s.Filesz})
		}
	}
	for i := range res.Sites {
		s := &res.Sites[i]
		if !s.Rewritable() {
			continue
		}
		off := s.Off - (s.Addr - s.Start)
		code := b[off : s.Off+(s.End-s.Addr)]
		at := p.StubVaddr + uint64(len(p.Stubs))
		stub, err := stub(s, code, at)
		jump, ok := rel32(s.Start+5, at)
		if err != nil || !ok {
			s.Class, s.Why = scan.Slow, whyFar
			continue
		}
		n := overwritten(s)
		p.Undo = append(p.Undo, archive.Undo{Off: off, Orig: append([]byte(nil), code[:n]...)})
		code[0] = 0xe9
		binary.LittleEndian.PutUint32(code[1:], jump)
		for j := 5; j < n; j++ {
			code[j] = 0xcc
		}
		p.Stubs = append(p.Stubs, stub...)
		for len(p.Stubs)%16 != 0 {
			p.Stubs = append(p.Stubs, 0xcc)
		}
	}
	if len(p.Undo) > 0 {
		res.Patch = p
	}
	return res, nil
}

const whyFar = "stub out of reach"

// overwritten is how many bytes of the window change. The syscall instruction
// stays where the jump does not cover it: code that jumps to it still works.
func overwritten(s *scan.Site) int {
	switch n := s.Addr - s.Start; {
	case s.Class == scan.Post || n < 5:
		return int(s.End - s.Start)
	default:
		return int(n)
	}
}

// rel32 is the displacement from the end of an instruction to a target.
func rel32(end, target uint64) (uint32, bool) {
	d := int64(target - end)
	return uint32(d), d == int64(int32(d))
}

var errFar = errors.New("target out of reach")

// stub emits the stub of a site, to lie at address at. code is the window.
//
//	[instructions moved from before the syscall]
//	mov $nr, %eax              where the window held it
//	lea return(%rip), %rcx
//	jmp *%gs:8
//	[return: instructions moved from after the syscall; jmp window's end]
func stub(s *scan.Site, code []byte, at uint64) ([]byte, error) {
	e := emitter{at: at}
	switch s.Class {
	case scan.Mov7, scan.Mov9:
		e.bytes(0xb8)
		e.word(s.NR)
		e.enter(s.End)
	case scan.Pre:
		for _, m := range s.Moved {
			e.move(code[m.Off:][:m.Len], s.Start+uint64(m.Off))
		}
		e.enter(s.End)
	case scan.Post:
		e.enter(e.pc() + 7 + 8)
		falls := true
		for _, m := range s.Moved {
			falls = e.move(code[m.Off:][:m.Len], s.Start+uint64(m.Off))
		}
		if falls {
			e.bytes(0xe9)
			e.rel(s.End, 0)
		}
	default:
		return nil, fmt.Errorf("a site of class %v has no stub", s.Class)
	}
	return e.code, e.err
}

// emitter assembles code for an address.
type emitter struct {
	at   uint64
	code []byte
	err  error
}

func (e *emitter) pc() uint64      { return e.at + uint64(len(e.code)) }
func (e *emitter) bytes(b ...byte) { e.code = append(e.code, b...) }
func (e *emitter) word(v uint32)   { e.code = binary.LittleEndian.AppendUint32(e.code, v) }

// rel emits the displacement to target of an instruction that has tail more
// bytes behind it.
func (e *emitter) rel(target uint64, tail int) {
	v, ok := rel32(e.pc()+4+uint64(tail), target)
	if !ok {
		e.err = errFar
	}
	e.word(v)
}

// enter emits the jump to the crossing: it touches no stack (the red zone stays
// whole), no flags, and of the registers only rcx.
func (e *emitter) enter(ret uint64) {
	e.bytes(0x48, 0x8d, 0x0d) // lea ret(%rip), %rcx
	e.rel(ret, 0)
	e.bytes(0x65, 0xff, 0x24, 0x25) // jmp *%gs:EntryOffset
	e.word(EntryOffset)
}

// move emits a copy of the instruction b at address from, with its pc-relative
// field made right; it says whether control can go on behind it.
func (e *emitter) move(b []byte, from uint64) bool {
	in, ok := x86.Decode(b)
	if !ok || int(in.Len) != len(b) {
		e.err = fmt.Errorf("cannot decode % x", b)
		return true
	}
	target := from + uint64(len(b)) + uint64(in.Rel(b))
	switch in.RelSize {
	case 0:
		e.bytes(b...)
	case 1: // a short jump becomes a long one
		if b[0] == 0xeb {
			e.bytes(0xe9)
		} else {
			e.bytes(0x0f, 0x80|b[0]&0xf)
		}
		e.rel(target, 0)
	case 4:
		e.bytes(b[:in.RelOff]...)
		e.rel(target, len(b)-int(in.RelOff)-4)
		e.bytes(b[in.RelOff+4:]...)
	}
	return in.Falls()
}
