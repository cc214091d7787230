package loader

import (
	"golang.org/x/sys/unix"

	"github.com/nabla-build/nabla-build/rumprun/mm"
)

const pageMask = mm.PageSize - 1

// Program is a program to be started.
type Program struct {
	File  *mm.File
	Image *Image
	// Interp is the ELF interpreter, where Image names one.
	Interp      *mm.File
	InterpImage *Image

	Argv, Env []string
	ExecFn    string // AT_EXECFN: the path given to execve(2)
	// StackSize is RLIMIT_STACK.
	StackSize uint64
	Random    [16]byte // AT_RANDOM

	UID, EUID, GID, EGID uint32
	// Host gives the entries of the auxiliary vector that are the host's.
	Host HostAux
}

// HostAux are the auxiliary vector entries that describe the machine; 0 leaves
// an entry out.
type HostAux struct {
	VDSO                                  uintptr // AT_SYSINFO_EHDR
	HWCap, HWCap2, ClockTick, MinSigStack uint64
}

// Start says how a loaded program begins, and where its stack keeps what /proc
// shows.
type Start struct {
	Entry, SP          uintptr
	ArgStart, ArgEnd   uintptr
	EnvStart, EnvEnd   uintptr
	AuxvStart, AuxvEnd uintptr
}

// Fits reports whether a program that is linked to fixed addresses can be where
// it wants: ENOMEM if those lie outside the arena.
func Fits(a *mm.Arena, im *Image) error {
	if !im.PIE && !a.Contains(mm.Range{Start: uintptr(im.Lo()), End: uintptr(im.Hi())}) {
		return unix.ENOMEM
	}
	return nil
}

// Load maps p into as, which must be empty, and builds the stack. After an
// error as is in no particular state.
func Load(as *mm.AddressSpace, p *Program) (*Start, error) {
	bias, err := mapImage(as, p.File, p.Image)
	if err != nil {
		return nil, err
	}
	if err := as.SetBrk(bias + uintptr(p.Image.Hi())); err != nil {
		return nil, err
	}
	entry := bias + uintptr(p.Image.Entry)
	st := &Start{Entry: entry}
	var base uintptr
	if p.Interp != nil {
		ib, err := mapImage(as, p.Interp, p.InterpImage)
		if err != nil {
			return nil, err
		}
		base = ib
		st.Entry = ib + uintptr(p.InterpImage.Entry)
	}
	return st, p.stack(as, st, bias, base, entry)
}

// mapImage maps the segments of an image and returns the load bias.
func mapImage(as *mm.AddressSpace, f *mm.File, im *Image) (uintptr, error) {
	var bias uintptr
	for i, s := range im.Segments {
		m := mm.Mapping{
			Addr: bias + uintptr(s.Vaddr&^pageMask), Prot: s.Prot,
			Flags: unix.MAP_PRIVATE | unix.MAP_FIXED,
		}
		if i == 0 {
			m.Room = im.Hi() - im.Lo()
			if im.PIE {
				m.Addr, m.Flags, m.Align = 0, unix.MAP_PRIVATE, im.align()
			} else {
				m.Flags = unix.MAP_PRIVATE | unix.MAP_FIXED_NOREPLACE
			}
		}
		at, err := mapSegment(as, f, s, m)
		if err != nil {
			return 0, err
		}
		if i == 0 && im.PIE {
			bias = at - uintptr(s.Vaddr&^pageMask)
		}
	}
	return bias, nil
}

// mapSegment maps one segment: the pages that have file content from the file,
// the rest of the last of them zero where the segment is longer, the pages
// behind anonymous. m has the address and is used for the first mapping made.
func mapSegment(as *mm.AddressSpace, f *mm.File, s Segment, m mm.Mapping) (uintptr, error) {
	lead := s.Vaddr & pageMask
	filePages := (lead + s.Filesz + pageMask) &^ pageMask
	if s.Filesz == 0 {
		filePages = 0
	}
	allPages := (lead + s.Memsz + pageMask) &^ pageMask
	at := m.Addr
	if filePages > 0 {
		m.File, m.Off, m.Len = f, int64(s.Off-lead), filePages
		var err error
		if at, err = as.Map(m); err != nil {
			return 0, err
		}
		if end := lead + s.Filesz; s.Memsz > s.Filesz && end < filePages {
			// Linux's padzero ignores segments that are not writable as well.
			if b, err := as.Bytes(at+uintptr(end), int(filePages-end), true); err == nil {
				clear(b)
			}
		}
		m.Addr = at + uintptr(filePages)
		m.Flags = unix.MAP_PRIVATE | unix.MAP_FIXED
	}
	if allPages > filePages {
		m.File, m.Off, m.Len, m.Room = nil, 0, allPages-filePages, max(m.Room, allPages)
		m.Flags |= unix.MAP_ANONYMOUS
		a, err := as.Map(m)
		if err != nil {
			return 0, err
		}
		if filePages == 0 {
			at = a
		}
	}
	return at, nil
}
