package rewrite

import (
	"bytes"
	"debug/elf"
	"encoding/binary"
	"encoding/hex"
	"strings"
	"testing"

	"github.com/nabla-build/nabla-build/archive"
	"github.com/nabla-build/nabla-build/link/object"
	"github.com/nabla-build/nabla-build/link/scan"
)

// image describes a small shared object: text at 0x1000, data at 0x2000.
type image struct {
	typ     elf.Type
	text    []byte
	data    []byte
	symbols []symbol
	frames  []frame
	flags   elf.ProgFlag // added to those of the text
	textrel bool
}

type symbol struct {
	typ         elf.SymType
	value, size uint64
}

// frame is an FDE; signal ones have an "S" in the CIE's augmentation.
type frame struct {
	lo, hi uint64
	signal bool
}

const (
	textAddr = 0x1000
	dataAddr = 0x2000
)

// build makes the ELF file (gABI chapters 4 and 5).
func (im image) build() []byte {
	le := binary.LittleEndian
	if im.typ == 0 {
		im.typ = elf.ET_DYN
	}
	b := make([]byte, 0x3000)
	copy(b[textAddr:], im.text)
	copy(b[dataAddr:], im.data)
	type section struct {
		name  string
		typ   elf.SectionType
		flags elf.SectionFlag
		addr  uint64
		off   int
		n     int
	}
	secs := []section{{},
		{".text", elf.SHT_PROGBITS, elf.SHF_ALLOC | elf.SHF_EXECINSTR, textAddr, textAddr, len(im.text)},
		{".data", elf.SHT_PROGBITS, elf.SHF_ALLOC | elf.SHF_WRITE, dataAddr, dataAddr, len(im.data)}}
	if len(im.frames) > 0 {
		eh := im.ehFrame(0x500)
		copy(b[0x500:], eh)
		secs = append(secs, section{".eh_frame", elf.SHT_PROGBITS, elf.SHF_ALLOC, 0x500, 0x500, len(eh)})
	}
	if im.textrel {
		le.PutUint64(b[0x400:], uint64(elf.DT_TEXTREL))
	}
	sym := make([]byte, 24)
	for _, s := range im.symbols {
		e := make([]byte, 24)
		e[4] = byte(s.typ)
		le.PutUint16(e[6:], 1)
		le.PutUint64(e[8:], s.value)
		le.PutUint64(e[16:], s.size)
		sym = append(sym, e...)
	}
	secs = append(secs, section{".symtab", elf.SHT_SYMTAB, 0, 0, len(b), len(sym)})
	b = append(b, sym...)
	names := "\x00"
	var sh []byte
	secs = append(secs, section{name: ".shstrtab", typ: elf.SHT_STRTAB})
	for i, s := range secs {
		if i == len(secs)-1 {
			s.off, s.n = len(b), len(names)+len(s.name)+1
		}
		e := make([]byte, 64)
		le.PutUint32(e, uint32(len(names)))
		names += s.name + "\x00"
		le.PutUint32(e[4:], uint32(s.typ))
		le.PutUint64(e[8:], uint64(s.flags))
		le.PutUint64(e[16:], s.addr)
		le.PutUint64(e[24:], uint64(s.off))
		le.PutUint64(e[32:], uint64(s.n))
		sh = append(sh, e...)
	}
	b = append(b, names...)
	shoff := len(b)
	b = append(b, sh...)

	copy(b, "\x7fELF\x02\x01\x01")
	le.PutUint16(b[16:], uint16(im.typ))
	le.PutUint16(b[18:], uint16(elf.EM_X86_64))
	le.PutUint32(b[20:], 1)
	le.PutUint64(b[32:], 64)
	le.PutUint64(b[40:], uint64(shoff))
	le.PutUint16(b[52:], 64)
	le.PutUint16(b[54:], 56)
	le.PutUint16(b[56:], 4)
	le.PutUint16(b[58:], 64)
	le.PutUint16(b[60:], uint16(len(secs)))
	le.PutUint16(b[62:], uint16(len(secs)-1))
	dyn := b[64+56*3:]
	if le.PutUint32(dyn, uint32(elf.PT_NULL)); im.textrel {
		le.PutUint32(dyn, uint32(elf.PT_DYNAMIC))
		le.PutUint64(dyn[8:], 0x400)
		le.PutUint64(dyn[32:], 32)
	}
	for i, p := range []struct {
		flags    elf.ProgFlag
		addr     uint64
		filesz   int
		memExtra uint64
	}{{elf.PF_R, 0, 0x1000, 0}, {elf.PF_R | elf.PF_X | im.flags, textAddr, 0x1000, 0}, {elf.PF_R | elf.PF_W, dataAddr, 0x1000, 0x123}} {
		e := b[64+56*i:]
		le.PutUint32(e, uint32(elf.PT_LOAD))
		le.PutUint32(e[4:], uint32(p.flags))
		le.PutUint64(e[8:], p.addr)
		le.PutUint64(e[16:], p.addr)
		le.PutUint64(e[32:], uint64(p.filesz))
		le.PutUint64(e[40:], uint64(p.filesz)+p.memExtra)
		le.PutUint64(e[48:], 0x1000)
	}
	return b
}

// ehFrame makes .eh_frame at an address: one CIE and one FDE a frame.
func (im image) ehFrame(addr uint64) []byte {
	var out []byte
	le := binary.LittleEndian
	for _, f := range im.frames {
		aug := "zR"
		if f.signal {
			aug = "zRS"
		}
		cie := len(out)
		body := append([]byte{0, 0, 0, 0, 1}, aug...)
		body = append(body, 0, 1, 0x78, 16, 1, 0x1b)
		for len(body)%4 != 0 {
			body = append(body, 0)
		}
		out = append(le.AppendUint32(out, uint32(len(body))), body...)
		fde := le.AppendUint32(nil, uint32(len(out)+4-cie))
		fde = le.AppendUint32(fde, uint32(f.lo-(addr+uint64(len(out)+8))))
		fde = le.AppendUint32(fde, uint32(f.hi-f.lo))
		fde = append(fde, 0, 0, 0, 0)
		out = append(le.AppendUint32(out, uint32(len(fde))), fde...)
	}
	return append(out, 0, 0, 0, 0)
}

func asm(t testing.TB, s string) []byte {
	t.Helper()
	var clean strings.Builder
	for line := range strings.Lines(s) {
		line, _, _ = strings.Cut(line, "#")
		clean.WriteString(strings.ReplaceAll(strings.TrimSpace(line), " ", ""))
	}
	b, err := hex.DecodeString(clean.String())
	if err != nil {
		t.Fatal(err)
	}
	return b
}

// whole is a function symbol for the whole text.
func whole(text []byte) []symbol {
	return []symbol{{elf.STT_FUNC, textAddr, uint64(len(text))}}
}

func TestSites(t *testing.T) {
	fn := func(typ elf.SymType, v, n uint64) symbol { return symbol{typ, v, n} }
	for _, c := range []struct {
		name string
		text string
		im   image
		want string // classes; slow ones with a reason
	}{
		{name: "mov7", text: "b8 27000000 0f05 c3", want: "mov7"},
		{name: "mov9", text: "48c7c0 27000000 0f05 c3", want: "mov9"},
		{name: "mov9 of a negative number", text: "48c7c0 ffffffff 0f05 c3", want: "pre"},
		{name: "before", text: "4889df 0f05 c3", want: "pre"},
		{name: "before, with a conditional jump", text: "7404 31c0 0f05 c3 c3", want: "pre"},
		{name: "before, rip-relative", text: "8b0511000000 0f05 c3", want: "pre"},
		{name: "after", text: "0f05 483d00f0ffff c3", want: "post"},
		{name: "after, with a jump", text: "0f05 483d00f0ffff 7701 c3 c3", want: "post"},
		{name: "return and padding", text: "0f05 c3 0f1f00", want: "post"},
		{name: "return, then code", text: "0f05 c3 4889df", want: "slow: " + scan.WhyShort},
		{name: "call before", text: "e800000000 0f05 c3", want: "slow: " + scan.WhyShort},
		{name: "too short", text: "31c0 0f05 c3", want: "slow: " + scan.WhyShort},
		{name: "branch into the window before", text: `
			eb03       # to the xor
			4889df
			31c0
			0f05 c3`, want: "slow: " + scan.WhyTarget},
		{name: "branch to the syscall, whose bytes stay", text: `
			eb06       # to the syscall
			be01000000 # mov
			90
			0f05
			ebf0`, im: image{}, want: "pre"},
		{name: "branch to the syscall, which would be covered", text: "eb03 4889df 0f05 483d00f0ffff c3", want: "post"},
		{name: "jump straight to the syscall of a mov7", text: "eb05 b801000000 0f05 c3", want: "mov7"},
		{name: "inside an immediate", text: "b8 000f0500 c3", want: "bogus"},
		{name: "inside a displacement of an EVEX instruction", text: "62f1fd486f050f050000 c3", want: "bogus"},
		{name: "behind VEX and endbr", text: "f30f1efa c5fd6f0500000000 b801000000 0f05 c5f877 c3", want: "mov7"},
		{name: "rt_sigreturn", text: "48c7c0 0f000000 0f05", want: "slow: " + scan.WhySignal},
		{name: "unknown function", text: "b8 27000000 0f05 c3", im: image{symbols: []symbol{}}, want: "slow: " + scan.WhyNoFunction},
		{name: "undecodable function", text: "06 b8 27000000 0f05 c3", want: "slow: " + scan.WhyUndecoded},
		{name: "branch into an instruction", text: "eb01 b8 27000000 0f05 c3", want: "slow: " + scan.WhyBranches},
		{name: "jump over a lock prefix", text: "7401 f00fb111 b801000000 0f05 c3", want: "mov7"},
		{name: "two calls, one window each", text: "4889df 0f05 4889df 0f05 c3", want: "pre pre"},
		{name: "the next call's number is not taken away", text: "31c0 0f05 b803000000 0f05 c3", want: "slow: " + scan.WhyShort + " mov7"},
		{name: "writable code", text: "b8 27000000 0f05 c3", im: image{flags: elf.PF_W}, want: ""},
		// The trampoline's FDE starts one byte early: the byte before is not
		// an instruction, linear decoding would be misaligned.
		{name: "signal trampoline", text: "90 b827000000 0f05", im: image{symbols: []symbol{fn(elf.STT_FUNC, 0x1001, 7)}, frames: []frame{{0x1000, 0x1008, true}}}, want: "slow: " + scan.WhySignal},
		// clone3 in glibc: the FDE ends before the syscall.
		{name: "early end of the FDE", text: "b8b3010000 0f05 4885c0 c3", im: image{symbols: []symbol{}, frames: []frame{{0x1000, 0x1005, false}, {0x100b, 0x100c, false}}}, want: "mov7"},
		// A local function of a stripped object, and data that is none.
		{name: "between functions", text: "c3 b8b3010000 0f05 c3 c3", im: image{symbols: []symbol{}, frames: []frame{{0x1000, 0x1001, false}, {0x1009, 0x100a, false}}}, want: "mov7"},
		{name: "data between functions", text: "c3 b8b3010000 0f05 01c3 c3", im: image{symbols: []symbol{}, frames: []frame{{0x1000, 0x1001, false}, {0x100a, 0x100b, false}}}, want: "slow: " + scan.WhyUndecoded},
		{name: "a symbol in the window", text: "4889df 31c0 0f05 c3", im: image{symbols: []symbol{fn(elf.STT_FUNC, 0x1000, 8), fn(elf.STT_NOTYPE, 0x1003, 0)}}, want: "slow: " + scan.WhyReferred},
		{name: "a data pointer into the window", text: "4889df 31c0 0f05 c3", im: image{data: binary.LittleEndian.AppendUint64(nil, 0x1003)}, want: "slow: " + scan.WhyReferred},
		{name: "a data pointer to its start", text: "4889df 0f05 c3", im: image{data: binary.LittleEndian.AppendUint64(nil, 0x1000)}, want: "pre"},
		{name: "a jump table into the window", text: `
			488d05f90f0000 # lea 0x2000(%rip)
			486308         # movslq (%rax),%rcx
			4801c8
			ffe0
			4889df
			31c0           # 0x1012
			0f05 c3`, im: image{data: binary.LittleEndian.AppendUint32(nil, 0xfffff012)}, want: "slow: " + scan.WhyTarget},
		{name: "computed labels", text: "488d0d05000000 4801c8 ffe0 4889df 0f05 c3", want: "slow: " + scan.WhyComputed},
		{name: "another function jumps into the window", text: "4889df 31c0 0f05 c3 e9f6ffffff", im: image{symbols: []symbol{fn(elf.STT_FUNC, 0x1000, 8), fn(elf.STT_FUNC, 0x1008, 5)}}, want: "slow: " + scan.WhyReferred},
		{name: "unknown bytes jump into the window", text: "4889df 31c0 0f05 c3 ebf9", im: image{symbols: []symbol{fn(elf.STT_FUNC, 0x1000, 8)}}, want: "slow: " + scan.WhyReferred},
		// musl's and newer glibc's cancellation points compare program counters.
		{name: "address taken", text: "b802000000 0f05 c3 488d05f8ffffff c3", im: image{symbols: []symbol{fn(elf.STT_FUNC, 0x1000, 8), fn(elf.STT_FUNC, 0x1008, 8)}}, want: "slow: " + scan.WhyTaken},
	} {
		t.Run(c.name, func(t *testing.T) {
			c.im.text = asm(t, c.text)
			if c.im.symbols == nil {
				c.im.symbols = whole(c.im.text)
			}
			orig := c.im.build()
			b := bytes.Clone(orig)
			res, err := Object(b)
			if err != nil {
				t.Fatal(err)
			}
			var got []string
			for _, s := range res.Sites {
				if s.Class == scan.Slow {
					got = append(got, "slow: "+s.Why)
				} else {
					got = append(got, s.Class.String())
				}
			}
			if g := strings.Join(got, " "); g != c.want {
				t.Errorf("got %q, want %q", g, c.want)
			}
			checkResult(t, orig, b, res)
		})
	}
}

// checkResult verifies a result and that it can be undone.
func checkResult(t testing.TB, orig, b []byte, res Result) {
	t.Helper()
	if res.Patch == nil {
		if !bytes.Equal(orig, b) {
			t.Error("nothing is rewritten, but bytes differ")
		}
		return
	}
	if err := Verify(b, res.Patch); err != nil {
		t.Error(err)
	}
	back := bytes.Clone(b)
	for _, u := range res.Patch.Undo {
		copy(back[u.Off:], u.Orig)
	}
	if !bytes.Equal(orig, back) {
		t.Error("undo does not give the original")
	}
	again := bytes.Clone(orig)
	res2, err := Object(again)
	if err != nil || !bytes.Equal(again, b) || !bytes.Equal(res2.Patch.Stubs, res.Patch.Stubs) {
		t.Error("the second time gave something else")
	}
}

// What the jump does not cover stays: code that jumps straight to the syscall
// still works.
func TestSyscallStaysInPlace(t *testing.T) {
	for _, text := range []string{"b827000000 0f05 c3", "48c7c027000000 0f05 c3"} {
		im := image{text: asm(t, text)}
		im.symbols = whole(im.text)
		b := im.build()
		res, err := Object(b)
		if err != nil || len(res.Sites) != 1 {
			t.Fatal(err, res.Sites)
		}
		if at := res.Sites[0].Addr; b[at] != 0x0f || b[at+1] != 0x05 {
			t.Errorf("%s: % x", text, b[textAddr:textAddr+9])
		}
	}
}

func TestUnsupported(t *testing.T) {
	im := image{text: asm(t, "b827000000 0f05 c3")}
	im.symbols = whole(im.text)
	good := im.build()
	change := func(f func(b []byte)) []byte { b := bytes.Clone(good); f(b); return b }
	im.textrel = true
	for _, c := range []struct {
		name string
		b    []byte
		want string
	}{
		{"text", []byte("#!/bin/sh\n"), "not an ELF"},
		{"short", good[:40], "cut short"},
		{"truncated", good[:0x1500], "cut short"},
		{"arm64", change(func(b []byte) { b[18] = 183 }), "EM_AARCH64"},
		{"i386", change(func(b []byte) { b[18], b[4] = 3, 1 }), "EM_386"},
		{"x32", change(func(b []byte) { b[4] = 1 }), "x32"},
		{"s390x", change(func(b []byte) { b[5], b[18], b[19] = 2, 0, 22 }), "EM_S390"},
		{"relocatable", change(func(b []byte) { b[16] = 1 }), "ET_REL"},
		{"program headers far away", change(func(b []byte) { b[39] = 0xff }), "program headers"},
		{"segment at the end of the world", change(func(b []byte) { b[64+56+22] = 0xff }), "cannot be loaded"},
		{"segments overlap", change(func(b []byte) { b[64+112+17] = 0x10 }), "overlap"},
		{"text relocations", im.build(), "DT_TEXTREL"},
	} {
		b := bytes.Clone(c.b)
		_, err := Object(b)
		if err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%s: %v, want %q", c.name, err, c.want)
		}
		if !bytes.Equal(b, c.b) {
			t.Errorf("%s: changed", c.name)
		}
	}
}

// Without section headers .eh_frame is found by its program header, and the
// file's own headers are never taken for code.
func TestNoSections(t *testing.T) {
	im := image{text: asm(t, "b827000000 0f05 c3"), frames: []frame{{0x1000, 0x1008, false}}, symbols: []symbol{}}
	b := im.build()
	le := binary.LittleEndian
	copy(b[40:48], make([]byte, 8)) // e_shoff
	hdr := 0x480
	b[hdr], b[hdr+1] = 1, 0x1b
	le.PutUint32(b[hdr+4:], uint32(0x500-(hdr+4)))
	p := b[64+56*3:]
	le.PutUint32(p, uint32(elf.PT_GNU_EH_FRAME))
	le.PutUint64(p[16:], uint64(hdr))
	orig := bytes.Clone(b)
	res, err := Object(b)
	if err != nil || len(res.Sites) != 1 || res.Sites[0].Class != scan.Mov7 {
		t.Fatalf("%v %+v", err, res.Sites)
	}
	checkResult(t, orig, b, res)

	f, err := object.Parse(orig)
	if err != nil {
		t.Fatal(err)
	}
	for _, c := range f.Code {
		if c.Off < 64+4*56 {
			t.Errorf("code at file offset %#x", c.Off)
		}
	}
	le.PutUint32(orig[64+4:], uint32(elf.PF_R|elf.PF_X)) // the segment with the headers
	if f, err = object.Parse(orig); err != nil {
		t.Fatal(err)
	}
	if f.Code[0].Off != 64+4*56 || f.Code[0].Addr != 64+4*56 {
		t.Errorf("code at file offset %#x, address %#x", f.Code[0].Off, f.Code[0].Addr)
	}
}

// The verifier must see every single changed byte of the stubs and jumps.
func TestVerifySees(t *testing.T) {
	im := image{text: asm(t, "b827000000 0f05 48c7c001000000 0f05 4889df 0f05 e800100000 0f05 483d00f0ffff c3 7408 8b0511000000 0f05 c3")}
	im.symbols = whole(im.text)
	b := im.build()
	res, err := Object(b)
	if err != nil || len(res.Patch.Undo) != 5 {
		t.Fatalf("%v %+v", err, res.Sites)
	}
	if err := Verify(b, res.Patch); err != nil {
		t.Fatal(err)
	}
	for i := range res.Patch.Stubs {
		res.Patch.Stubs[i] ^= 1
		if Verify(b, res.Patch) == nil {
			t.Errorf("stub byte %d changed, not seen", i)
		}
		res.Patch.Stubs[i] ^= 1
	}
	for _, u := range res.Patch.Undo {
		for i := range u.Orig {
			b[int(u.Off)+i] ^= 2
			if Verify(b, res.Patch) == nil {
				t.Errorf("byte %#x changed, not seen", int(u.Off)+i)
			}
			b[int(u.Off)+i] ^= 2
		}
	}
	bad := []func(p *archive.Patch){
		func(p *archive.Patch) { p.StubVaddr += pageSize },
		func(p *archive.Patch) { p.Hi++ },
		func(p *archive.Patch) { p.Segments = nil },
		func(p *archive.Patch) { p.Undo = p.Undo[1:] },
		func(p *archive.Patch) { p.Stubs = p.Stubs[:len(p.Stubs)-16] },
	}
	for i, f := range bad {
		p := *res.Patch
		if f(&p); Verify(b, &p) == nil {
			t.Errorf("change %d not seen", i)
		}
	}
}

func FuzzObject(f *testing.F) {
	for _, text := range []string{"b827000000 0f05 c3", "48c7c027000000 0f05 c3", "4889df 0f05 c3", "0f05 483d00f0ffff 7701 c3 c3", "7408 8b0511000000 0f05 c3"} {
		im := image{text: asm(f, text), frames: []frame{{0x1000, 0x1008, false}}}
		im.symbols = whole(im.text)
		f.Add(im.build())
		im.typ = elf.ET_EXEC
		f.Add(im.build())
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		orig := bytes.Clone(b)
		res, err := Object(b)
		if err != nil {
			if !bytes.Equal(orig, b) {
				t.Fatal("refused, but changed")
			}
			return
		}
		checkResult(t, orig, b, res)
	})
}

// FuzzCode fuzzes the text alone: what is rewritten must stand verification,
// whatever the instructions are.
func FuzzCode(f *testing.F) {
	for _, text := range []string{"b827000000 0f05 c3", "4889df 0f05 c3", "0f05 483d00f0ffff 7701 c3 c3", "7408 8b0511000000 0f05 c3"} {
		f.Add(asm(f, text))
	}
	f.Fuzz(func(t *testing.T, text []byte) {
		text = append(text[:min(len(text), 2000)], 0x0f, 0x05, 0xc3)
		im := image{text: text, symbols: whole(text)}
		orig := im.build()
		b := bytes.Clone(orig)
		res, err := Object(b)
		if err != nil {
			t.Fatal(err)
		}
		checkResult(t, orig, b, res)
	})
}

// FuzzVerify: a lying patch is refused or accepted, but never a panic.
func FuzzVerify(f *testing.F) {
	im := image{text: asm(f, "4889df 0f05 c3")}
	im.symbols = whole(im.text)
	b := im.build()
	res, _ := Object(b)
	f.Add(res.Patch.Stubs, res.Patch.StubVaddr, uint64(0x1000), []byte{0x48, 0x89, 0xdf, 0x0f, 0x05}, b[textAddr:textAddr+5])
	f.Fuzz(func(t *testing.T, stubs []byte, vaddr, off uint64, orig, stored []byte) {
		c := bytes.Clone(b)
		copy(c[textAddr:textAddr+0x1000], stored)
		p := *res.Patch
		p.Stubs, p.StubVaddr, p.Undo = stubs, vaddr, []archive.Undo{{Off: off, Orig: orig}}
		_ = Verify(c, &p)
	})
}
