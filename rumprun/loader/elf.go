// Package loader starts programs: it reads ELF and #! files as Linux's
// fs/binfmt_elf.c and fs/binfmt_script.c do, maps them, and lays out the
// initial stack of the psABI. It may import mm; it knows nothing of tasks,
// descriptors or paths. The type at its heart is Image.
package loader

import (
	"debug/elf"
	"encoding/binary"
	"io"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/nabla-build/nabla-build/rumprun/mm"
)

const (
	ehdrSize = 64 // gABI, ELF header, ELFCLASS64
	phdrSize = 56 // gABI, program header
	// maxPhdrs is what fits in ELF_MIN_ALIGN's 64 KiB (load_elf_phdrs).
	maxPhdrs = 65536 / phdrSize
	// maxAlign bounds p_align of a position-independent program.
	maxAlign = 1 << 30
	// maxVaddr is beyond every address that a program can be at.
	maxVaddr = 1<<47 - mm.PageSize
)

// Segment is a PT_LOAD program header (gABI).
type Segment struct {
	Off, Vaddr, Filesz, Memsz, Align uint64
	Prot                             int // PROT_*
}

// Image is what the loader needs to know of an ELF file.
type Image struct {
	// PIE: the file is ET_DYN and may be anywhere.
	PIE      bool
	Entry    uint64
	Phoff    uint64
	Phnum    int
	Segments []Segment // by address; at least one
	// Interp is the PT_INTERP path; empty: none.
	Interp string
	// ExecStack says that PT_GNU_STACK asks for an executable stack. A file
	// without one does not get it (x86-64, Linux 5.8 and later).
	ExecStack bool
}

// Lo and Hi are the page-aligned span of the image, before the load bias.
func (im *Image) Lo() uint64 { return im.Segments[0].Vaddr &^ (mm.PageSize - 1) }
func (im *Image) Hi() uint64 {
	s := im.Segments[len(im.Segments)-1]
	return (s.Vaddr + s.Memsz + mm.PageSize - 1) &^ (mm.PageSize - 1)
}

// readFull reads len(p) bytes at off; false if the file is shorter.
func readFull(src mm.Source, p []byte, off int64) (bool, error) {
	for len(p) > 0 {
		n, err := src.Pread(p, off)
		if n == 0 {
			if err == nil || err == io.EOF {
				return false, nil
			}
			return false, err
		}
		p, off = p[n:], off+int64(n)
	}
	return true, nil
}

// Parse reads the headers of a program. A file that is no x86-64 ELF program,
// or whose headers cannot be right, is ENOEXEC; other errors are the source's.
func Parse(src mm.Source) (*Image, error) {
	var h [ehdrSize]byte
	ok, err := readFull(src, h[:], 0)
	if err != nil {
		return nil, err
	}
	le := binary.LittleEndian
	if !ok || string(h[:4]) != elf.ELFMAG || elf.Class(h[4]) != elf.ELFCLASS64 || elf.Data(h[5]) != elf.ELFDATA2LSB ||
		elf.Machine(le.Uint16(h[18:])) != elf.EM_X86_64 {
		return nil, unix.ENOEXEC
	}
	im := &Image{Entry: le.Uint64(h[24:]), Phoff: le.Uint64(h[32:]), Phnum: int(le.Uint16(h[56:]))}
	switch elf.Type(le.Uint16(h[16:])) {
	case elf.ET_EXEC:
	case elf.ET_DYN:
		im.PIE = true
	default:
		return nil, unix.ENOEXEC
	}
	if le.Uint16(h[54:]) != phdrSize || im.Phnum == 0 || im.Phnum > maxPhdrs || im.Phoff > 1<<62 {
		return nil, unix.ENOEXEC
	}
	table := make([]byte, im.Phnum*phdrSize)
	if ok, err = readFull(src, table, int64(im.Phoff)); err != nil {
		return nil, err
	} else if !ok {
		return nil, unix.ENOEXEC
	}
	for ph := table; len(ph) > 0; ph = ph[phdrSize:] {
		if err := im.header(src, ph[:phdrSize]); err != nil {
			return nil, err
		}
	}
	if len(im.Segments) == 0 {
		return nil, unix.ENOEXEC
	}
	return im, nil
}

// header takes one program header into account.
func (im *Image) header(src mm.Source, ph []byte) error {
	le := binary.LittleEndian
	flags := elf.ProgFlag(le.Uint32(ph[4:]))
	s := Segment{Off: le.Uint64(ph[8:]), Vaddr: le.Uint64(ph[16:]), Filesz: le.Uint64(ph[32:]), Memsz: le.Uint64(ph[40:]), Align: le.Uint64(ph[48:])}
	switch elf.ProgType(le.Uint32(ph)) {
	case elf.PT_GNU_STACK:
		im.ExecStack = flags&elf.PF_X != 0
	case elf.PT_INTERP:
		if im.Interp != "" {
			return nil // Linux looks at the first only
		}
		if s.Filesz < 2 || s.Filesz > unix.PathMax || s.Off > 1<<62 {
			return unix.ENOEXEC
		}
		b := make([]byte, s.Filesz)
		if ok, err := readFull(src, b, int64(s.Off)); err != nil {
			return err
		} else if !ok || b[len(b)-1] != 0 {
			return unix.ENOEXEC
		}
		im.Interp, _, _ = strings.Cut(string(b), "\x00")
		if im.Interp == "" {
			return unix.ENOEXEC
		}
	case elf.PT_LOAD:
		if flags&elf.PF_R != 0 {
			s.Prot |= unix.PROT_READ
		}
		if flags&elf.PF_W != 0 {
			s.Prot |= unix.PROT_WRITE
		}
		if flags&elf.PF_X != 0 {
			s.Prot |= unix.PROT_EXEC
		}
		if s.Memsz == 0 {
			return nil
		}
		if s.Filesz > s.Memsz || s.Vaddr >= maxVaddr || s.Memsz > maxVaddr-s.Vaddr || s.Off > 1<<62 || (s.Vaddr-s.Off)%mm.PageSize != 0 {
			return unix.ENOEXEC
		}
		// gABI: PT_LOAD entries ascend by address. What overlaps is a lie.
		if n := len(im.Segments); n > 0 && s.Vaddr < im.Segments[n-1].Vaddr+im.Segments[n-1].Memsz {
			return unix.ENOEXEC
		}
		im.Segments = append(im.Segments, s)
	}
	return nil
}

// align is the alignment that a position-independent image wants: the largest
// p_align that is a power of two (maximum_alignment of fs/binfmt_elf.c).
func (im *Image) align() uintptr {
	a := uint64(mm.PageSize)
	for _, s := range im.Segments {
		if s.Align&(s.Align-1) == 0 && s.Align <= maxAlign {
			a = max(a, s.Align)
		}
	}
	return uintptr(a)
}

// phdr is the virtual address of the program headers (AT_PHDR), before the load
// bias; not ok if no segment holds them.
func (im *Image) phdr() (uint64, bool) {
	for _, s := range im.Segments {
		if im.Phoff >= s.Off && im.Phoff-s.Off < s.Filesz {
			return im.Phoff - s.Off + s.Vaddr, true
		}
	}
	return 0, false
}
