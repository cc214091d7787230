// Package mm is the guest's memory: the arena that is reserved before lockdown
// and the VMA list over it. mmap, munmap, mprotect, mremap, brk and madvise are
// bookkeeping here; no host call is made. The type at its heart is
// AddressSpace. It imports neither vfs nor tasks: file contents come through
// the Source interface. docs/memory.md tells what differs from Linux.
package mm

import (
	"sync"
	"sync/atomic"
)

// PageSize is the size of a page; everything is mapped in multiples of it.
const PageSize = 4096

const pageMask = PageSize - 1

// maxAddr is the end of user addresses (TASK_SIZE on x86-64).
const maxAddr = 1<<47 - PageSize

// MaxMaps is the largest number of mappings of an address space
// (vm.max_map_count).
const MaxMaps = 65530

func pageDown(a uintptr) uintptr { return a &^ pageMask }

// pageUp rounds up; the caller has made sure that a is at most maxAddr.
func pageUp(a uintptr) uintptr { return (a + pageMask) &^ pageMask }

// Range is a page-aligned range of host memory, readable, writable and
// executable, that the tender reserved for the guest. Pages not yet touched
// are zero. Addresses are the guest's own (one address space).
type Range struct {
	Start, End uintptr
}

// Len is the size of r in bytes.
func (r Range) Len() uintptr { return r.End - r.Start }

// clip returns the part of r inside c; empty ranges have Len 0.
func (r Range) clip(c Range) Range {
	out := Range{max(r.Start, c.Start), min(r.End, c.End)}
	if out.End < out.Start {
		out.End = out.Start
	}
	return out
}

// Source is what a file mapping is filled from.
type Source interface {
	// Pread reads file content at off; short at end of file.
	Pread(p []byte, off int64) (int, error)
}

// Shareable is a Source that writable MAP_SHARED mappings can be made of. An
// inode implements it by holding a Mappings and telling it of reads and writes;
// Load and Store are called by Mappings, with its lock held, and must not call
// it back.
type Shareable interface {
	Source
	// Mappings returns the registry of the inode's shared mappings.
	Mappings() *Mappings
	// Load is Pread of what the inode holds, without Mappings.Flush.
	Load(p []byte, off int64) (int, error)
	// Store writes p at off as a store to a mapped page does: it never grows
	// the file and does not call Mappings.Changed.
	Store(p []byte, off int64) (int, error)
}

// Rewritten is a Source of an ELF object whose call sites the relinker has
// rewritten. Pread reads the original bytes.
type Rewritten interface {
	Source
	// Rewriting describes the object; not ok if it is an ordinary file.
	Rewriting() (Rewriting, bool)
	// PreadRewritten is Pread of the rewritten bytes.
	PreadRewritten(p []byte, off int64) (int, error)
}

// Rewriting says what belongs beside a rewritten object. Virtual addresses are
// the object's own; the load bias is added by mm.
type Rewriting struct {
	// Stubs is code that must lie at StubVaddr, which is page-aligned, before
	// a rewritten byte is executed.
	Stubs     []byte
	StubVaddr uint64
	// Lo and Hi are the lowest and highest virtual address of the object.
	Lo, Hi uint64
	// Segments are the executable PT_LOAD segments.
	Segments []Segment
}

// Segment is an executable PT_LOAD segment (gABI, program header).
type Segment struct {
	Off, Vaddr, Filesz uint64
}

// File is the file of mappings: what it is filled from and how /proc/PID/maps
// shows it. It is reference-counted: its maker holds one reference, each
// mapping another.
type File struct {
	Source   Source
	Writable bool          // MAP_SHARED mappings of it may be writable
	Name     func() string // path, computed when it is asked for
	Dev, Ino uint64

	release func()
	refs    atomic.Int64
}

// NewFile returns f with one reference, the caller's. release is called when
// the last reference has gone; it must not call back into mm.
func NewFile(f *File, release func()) *File {
	f.release = release
	f.refs.Store(1)
	return f
}

// IncRef takes a reference.
func (f *File) IncRef() { f.refs.Add(1) }

// DecRef drops a reference.
func (f *File) DecRef() {
	if f.refs.Add(-1) == 0 && f.release != nil {
		f.release()
	}
}

// AddressSpace is the memory of one guest process. Its methods lock for
// themselves: one lock serves all address spaces of an arena. A Source is
// called with that lock held and must not call back.
type AddressSpace struct {
	arena *Arena
	mu    *sync.Mutex // the arena's

	// vmas are the mappings, by address. A *vma in the list is never changed,
	// only replaced, so that hot may be read without the lock.
	vmas []*vma
	// hot are the mappings that Bytes last found; cleared by every change.
	hot     [hotEntries]atomic.Pointer[vma]
	hotNext atomic.Uint32

	brkStart, brkEnd uintptr
	brkRoom          Range // taken from the arena for the heap alone
	objects          []*object

	fixed  Range   // addresses that the program is linked to, if it is
	window *window // shared with other programs linked there; nil: none
	win    *member // of window

	mapped    uint64 // bytes in vmas that the guest sees
	committed uint64 // bytes that count against the limit
}
