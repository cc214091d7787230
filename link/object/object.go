// Package object reads what the relinker needs of an ELF file: program headers,
// sections and the places of code. It works on the bytes in place and believes
// no offset; debug/elf supplies the names of constants. The type at its heart
// is File.
//
// Source: System V gABI, chapters 4 and 5 (object files, program loading), and
// the x86-64 psABI.
package object

import (
	"bytes"
	"debug/elf"
	"encoding/binary"
	"errors"
	"fmt"
)

// ErrNotELF says that a file does not begin as an ELF file does.
var ErrNotELF = errors.New("not an ELF file")

// UnsupportedError says why an ELF file is not one the relinker works on: it
// is left as it is.
type UnsupportedError struct{ Why string }

func (e *UnsupportedError) Error() string { return e.Why }

func unsupported(format string, a ...any) error {
	return &UnsupportedError{fmt.Sprintf(format, a...)}
}

// Segment is one PT_LOAD program header.
type Segment struct {
	Flags                     elf.ProgFlag
	Off, Vaddr, Filesz, Memsz uint64
}

// Section is one section header that has bytes in the file.
type Section struct {
	Name  string
	Type  elf.SectionType
	Flags elf.SectionFlag
	Addr  uint64
	Off   uint64
	Link  uint32
	Data  []byte
}

// Code is a piece of executable code: a section, or a segment where there are
// no sections.
type Code struct {
	Addr, Off uint64
	Data      []byte
}

// End is the address after the last byte.
func (c Code) End() uint64 { return c.Addr + uint64(len(c.Data)) }

// File is an x86-64 executable or shared object.
type File struct {
	Bytes    []byte
	Exec     bool // ET_EXEC: link-time addresses are run-time addresses
	Entry    uint64
	Segments []Segment // PT_LOAD, in ascending order of address
	Sections []Section
	Code     []Code // in ascending order of address, without overlap
	Lo, Hi   uint64 // span of the segments
	// Release, if not nil, is told that a pass over a part of Bytes is over:
	// where Bytes is a mapping its memory can be dropped.
	Release    func([]byte)
	ehFrameHdr uint64 // address, from PT_GNU_EH_FRAME
	dynamic    []byte // PT_DYNAMIC
	headers    uint64 // file offset behind ELF header and program headers
}

const (
	maxHeaders = 1 << 16
	maxAddr    = 1 << 47
)

// Magic says whether b begins like an ELF file; 4 bytes are enough.
func Magic(b []byte) bool { return len(b) >= 4 && string(b[:4]) == elf.ELFMAG }

// Head says whether the first 64 bytes of a file are those of an object the
// relinker works on. ErrNotELF, or an UnsupportedError that says why not.
func Head(b []byte) error {
	if !Magic(b) {
		return ErrNotELF
	}
	if len(b) < 64 {
		return unsupported("cut short in the ELF header")
	}
	le := binary.LittleEndian
	machine := elf.Machine(le.Uint16(b[18:]))
	switch {
	case elf.Data(b[elf.EI_DATA]) == elf.ELFDATA2MSB:
		return unsupported("not an x86-64 ELF object (big-endian, machine %v)", elf.Machine(binary.BigEndian.Uint16(b[18:])))
	case machine != elf.EM_X86_64:
		return unsupported("not an x86-64 ELF object (machine %v)", machine)
	case elf.Class(b[elf.EI_CLASS]) != elf.ELFCLASS64 || elf.Data(b[elf.EI_DATA]) != elf.ELFDATA2LSB:
		return unsupported("not a 64-bit ELF object (x32)")
	}
	if t := elf.Type(le.Uint16(b[16:])); t != elf.ET_EXEC && t != elf.ET_DYN {
		return unsupported("not an executable or a shared object (%v)", t)
	}
	return nil
}

// Relocatable says whether the object of header b is one that never runs as
// it is (ET_REL, ET_CORE): nothing worth a report.
func Relocatable(b []byte) bool {
	if !Magic(b) || len(b) < 18 {
		return false
	}
	t := elf.Type(binary.LittleEndian.Uint16(b[16:]))
	return t == elf.ET_REL || t == elf.ET_CORE
}

func slice(b []byte, off, n uint64) ([]byte, bool) {
	if off > uint64(len(b)) || n > uint64(len(b))-off {
		return nil, false
	}
	return b[off : off+n : off+n], true
}

// Parse reads an ELF file. Its errors are ErrNotELF or an UnsupportedError; a
// file that contradicts itself is unsupported, too. The File refers to b.
func Parse(b []byte) (*File, error) {
	if err := Head(b); err != nil {
		return nil, err
	}
	le := binary.LittleEndian
	f := &File{Bytes: b, Exec: elf.Type(le.Uint16(b[16:])) == elf.ET_EXEC, Entry: le.Uint64(b[24:])}
	if err := f.segments(le.Uint64(b[32:]), le.Uint16(b[54:]), le.Uint16(b[56:])); err != nil {
		return nil, err
	}
	f.sections(le.Uint64(b[40:]), le.Uint16(b[58:]), uint32(le.Uint16(b[60:])), uint32(le.Uint16(b[62:])))
	if f.textRelocations() {
		return nil, unsupported("its text is relocated when it is loaded (DT_TEXTREL)")
	}
	f.code()
	return f, nil
}

func (f *File) segments(off uint64, size, n uint16) error {
	le := binary.LittleEndian
	if size != 56 || n == 0xffff {
		return unsupported("program headers of an unknown size")
	}
	ph, ok := slice(f.Bytes, off, uint64(n)*56)
	if !ok {
		return unsupported("program headers outside the file")
	}
	f.headers = off + uint64(n)*56
	for ; len(ph) > 0; ph = ph[56:] {
		s := Segment{elf.ProgFlag(le.Uint32(ph[4:])), le.Uint64(ph[8:]), le.Uint64(ph[16:]), le.Uint64(ph[32:]), le.Uint64(ph[40:])}
		switch elf.ProgType(le.Uint32(ph)) {
		case elf.PT_DYNAMIC:
			f.dynamic, _ = slice(f.Bytes, s.Off, s.Filesz)
		case elf.PT_GNU_EH_FRAME:
			f.ehFrameHdr = s.Vaddr
		case elf.PT_LOAD:
			if _, ok := slice(f.Bytes, s.Off, s.Filesz); !ok {
				return unsupported("a segment lies outside the file (cut short?)")
			}
			if s.Filesz > s.Memsz || s.Vaddr >= maxAddr || s.Memsz > maxAddr-s.Vaddr || s.Vaddr%4096 != s.Off%4096 {
				return unsupported("a segment that cannot be loaded at %#x", s.Vaddr)
			}
			if k := len(f.Segments); k > 0 && s.Vaddr < f.Segments[k-1].Vaddr+f.Segments[k-1].Memsz {
				return unsupported("segments that overlap or are not in ascending order")
			}
			f.Segments = append(f.Segments, s)
		}
	}
	if len(f.Segments) == 0 {
		return unsupported("nothing to load")
	}
	f.Lo = f.Segments[0].Vaddr
	last := f.Segments[len(f.Segments)-1]
	f.Hi = last.Vaddr + last.Memsz
	for i, s := range f.Segments {
		if s.Flags&elf.PF_X == 0 {
			continue
		}
		for j, t := range f.Segments {
			if i != j && t.Flags&elf.PF_X != 0 && s.Off < t.Off+t.Filesz && t.Off < s.Off+s.Filesz {
				return unsupported("two executable segments with the same bytes")
			}
		}
	}
	return nil
}

// sections reads section headers as far as they make sense; an object runs
// without any, so none is an error.
func (f *File) sections(off uint64, size uint16, n, str uint32) {
	le := binary.LittleEndian
	if size != 64 || off == 0 {
		return
	}
	if n == 0 { // more than 0xff00: the number is in the first header
		h, ok := slice(f.Bytes, off, 64)
		if !ok {
			return
		}
		n = uint32(min(le.Uint64(h[32:]), maxHeaders))
	}
	sh, ok := slice(f.Bytes, off, uint64(n)*64)
	if !ok {
		return
	}
	if str == uint32(elf.SHN_XINDEX) && n > 0 {
		str = le.Uint32(sh[40:])
	}
	var names []byte
	if str < n {
		h := sh[uint64(str)*64:]
		names, _ = slice(f.Bytes, le.Uint64(h[24:]), le.Uint64(h[32:]))
	}
	for i := range n {
		h := sh[uint64(i)*64:]
		s := Section{
			Type: elf.SectionType(le.Uint32(h[4:])), Flags: elf.SectionFlag(le.Uint64(h[8:])),
			Addr: le.Uint64(h[16:]), Off: le.Uint64(h[24:]), Link: le.Uint32(h[40:]),
		}
		if at := uint64(le.Uint32(h)); at < uint64(len(names)) {
			name, _, _ := bytes.Cut(names[at:min(at+64, uint64(len(names)))], []byte{0})
			s.Name = string(name)
		}
		if s.Type != elf.SHT_NOBITS && s.Flags&elf.SHF_COMPRESSED == 0 {
			s.Data, _ = slice(f.Bytes, s.Off, le.Uint64(h[32:]))
		}
		f.Sections = append(f.Sections, s)
	}
}

// Pass calls f for b, a part of Bytes, piece by piece, each with its offset in
// b. Pieces overlap by 7 bytes, so that nothing of up to 8 bytes is missed, and
// start at multiples of 8.
func (f *File) Pass(b []byte, do func(piece []byte, at int)) {
	const size = 8 << 20
	for at := 0; ; at += size {
		end := min(at+size+7, len(b))
		do(b[at:end], at)
		if f.Release != nil {
			f.Release(b[at:end])
		}
		if end == len(b) {
			return
		}
	}
}

// Section returns the first section of a name, or nil.
func (f *File) Section(name string) *Section {
	for i := range f.Sections {
		if f.Sections[i].Name == name {
			return &f.Sections[i]
		}
	}
	return nil
}

func (f *File) textRelocations() bool {
	le := binary.LittleEndian
	for d := f.dynamic; len(d) >= 16; d = d[16:] {
		tag, v := elf.DynTag(le.Uint64(d)), le.Uint64(d[8:])
		if tag == elf.DT_TEXTREL || tag == elf.DT_FLAGS && elf.DynFlag(v)&elf.DF_TEXTREL != 0 {
			return true
		}
		if tag == elf.DT_NULL {
			break
		}
	}
	return false
}

// code lists executable sections that lie where an executable segment puts
// them, or, without section headers, the executable segments. Writable code is
// left out: its program may change it.
func (f *File) code() {
	add := func(addr, off, n uint64) {
		if d := f.headers - off; off < f.headers { // whatever is said to be there
			if d >= n {
				return
			}
			addr, off, n = addr+d, off+d, n-d
		}
		if s := f.segment(addr, off, n); s != nil && n > 0 {
			c := Code{Addr: addr, Off: off, Data: f.Bytes[off : off+n]}
			if k := len(f.Code); k == 0 || f.Code[k-1].End() <= addr {
				f.Code = append(f.Code, c)
			}
		}
	}
	any := false
	for _, s := range f.Sections {
		if s.Type == elf.SHT_PROGBITS && s.Flags&(elf.SHF_EXECINSTR|elf.SHF_ALLOC) == elf.SHF_EXECINSTR|elf.SHF_ALLOC {
			any = true
			add(s.Addr, s.Off, uint64(len(s.Data)))
		}
	}
	if any {
		return
	}
	for _, s := range f.Segments {
		if s.Flags&elf.PF_X != 0 {
			add(s.Vaddr, s.Off, s.Filesz)
		}
	}
}

// segment is the executable, not writable segment that puts the n bytes at
// file offset off to addr.
func (f *File) segment(addr, off, n uint64) *Segment {
	for i := range f.Segments {
		s := &f.Segments[i]
		if s.Flags&(elf.PF_X|elf.PF_W) == elf.PF_X && addr >= s.Vaddr && addr-s.Vaddr <= s.Filesz &&
			n <= s.Filesz-(addr-s.Vaddr) && off == s.Off+(addr-s.Vaddr) {
			return s
		}
	}
	return nil
}

// At is the file content at address addr up to the end of its segment; nil if
// no segment has file content there.
func (f *File) At(addr uint64) []byte {
	for _, s := range f.Segments {
		if addr >= s.Vaddr && addr-s.Vaddr < s.Filesz {
			return f.Bytes[s.Off+(addr-s.Vaddr) : s.Off+s.Filesz]
		}
	}
	return nil
}

// EhFrame returns the .eh_frame data and its address; nil if there is none.
// Without a section it is found by PT_GNU_EH_FRAME (LSB, .eh_frame_hdr).
func (f *File) EhFrame() (addr uint64, data []byte) {
	if s := f.Section(".eh_frame"); s != nil && len(s.Data) > 0 {
		return s.Addr, s.Data
	}
	h := f.At(f.ehFrameHdr)
	// version 1, eh_frame_ptr as DW_EH_PE_pcrel|sdata4
	if f.ehFrameHdr == 0 || len(h) < 8 || h[0] != 1 || h[1] != 0x1b {
		return 0, nil
	}
	addr = f.ehFrameHdr + 4 + uint64(int64(int32(binary.LittleEndian.Uint32(h[4:]))))
	return addr, f.At(addr)
}

// SymbolSize is the size of an Elf64_Sym.
const SymbolSize = 24

// Symbols calls yield with type, value and size of every symbol that is
// defined in a section, of .symtab and .dynsym.
func (f *File) Symbols(yield func(t elf.SymType, value, size uint64) bool) {
	le := binary.LittleEndian
	for _, s := range f.Sections {
		if s.Type != elf.SHT_SYMTAB && s.Type != elf.SHT_DYNSYM {
			continue
		}
		for d := s.Data; len(d) >= SymbolSize; d = d[SymbolSize:] {
			if le.Uint16(d[6:]) != 0 && !yield(elf.SymType(d[4]&15), le.Uint64(d[8:]), le.Uint64(d[16:])) {
				return
			}
		}
	}
}
