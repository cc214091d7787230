// Package scan finds the system call sites of an x86-64 object and decides how
// each can be turned into a jump to a stub. Nothing is believed that is not
// proved: function bounds come from .eh_frame, symbols and .gopclntab, each
// function that holds the bytes 0f 05 is decoded from its start to its end, all
// its branches must meet instruction boundaries, and nothing in the object may
// refer to the inside of a window that is to be overwritten. What is in doubt
// stays a syscall instruction, which the crossing's slow path handles.
// docs/relinking.md has the rules. It may import link/object and link/x86; the
// type at its heart is Site.
package scan

import (
	"bytes"
	"slices"

	"github.com/nabla-build/nabla-build/link/object"
)

// Class says how a site is rewritten.
type Class uint8

const (
	Mov7  Class = iota // mov $nr,%eax (5 bytes); syscall
	Mov9               // mov $nr,%rax (7 bytes); syscall
	Pre                // instructions before the syscall move into the stub
	Post               // instructions after the syscall move into the stub
	Slow               // stays a syscall instruction; Why says why
	Bogus              // the bytes 0f 05 inside another instruction
	numClasses
)

// Names of the classes, as reports have them.
var classNames = [numClasses]string{"mov7", "mov9", "pre", "post", "slow", "bogus"}

func (c Class) String() string { return classNames[c] }

// Insn is one instruction of a window, other than the syscall.
type Insn struct {
	Off, Len uint8 // in the window
}

// Site is one place with the bytes 0f 05. Addresses are link-time addresses.
type Site struct {
	Addr  uint64 // of the syscall instruction
	Off   uint64 // the same as an offset in the file
	Class Class
	NR    uint32 // system call number, if Mov7 or Mov9
	// Start and End bound the window: a five-byte jump goes to Start, the
	// program goes on at End.
	Start, End uint64
	// Moved are the instructions that go into the stub.
	Moved []Insn
	// Why says why a site is Slow.
	Why string
}

// Rewritable says whether the site can be turned into a jump.
func (s *Site) Rewritable() bool { return s.Class < Slow }

// Reasons for leaving a site.
const (
	WhyNoFunction = "no function bounds known"
	WhyUndecoded  = "function not decoded"
	WhyTooLarge   = "function too large to decode"
	WhyBranches   = "branches of the function do not meet instructions"
	WhySignal     = "signal trampoline: unwinders match its bytes"
	WhyComputed   = "function jumps to computed labels"
	WhyShort      = "no room for a jump"
	WhyTarget     = "branch target inside the window"
	WhyReferred   = "address inside the window is referred to"
	WhyTaken      = "address of the instruction is taken"
)

// pair is the syscall instruction.
var pair = []byte{0x0f, 0x05}

// Candidates says whether b holds the bytes of a syscall instruction at all.
func Candidates(b []byte) bool { return bytes.Contains(b, pair) }

// Object finds all sites of f, in ascending order of address. Time and memory
// are linear in the size of the file, whatever is in it.
func Object(f *object.File) []Site {
	var sites []Site
	for _, c := range f.Code {
		f.Pass(c.Data, func(b []byte, at int) {
			for off := 0; ; off++ {
				i := bytes.Index(b[off:], pair)
				if i < 0 {
					return
				}
				off += i
				addr := c.Addr + uint64(at+off)
				if k := len(sites); k > 0 && sites[k-1].Addr >= addr {
					continue // seen in the piece before
				}
				sites = append(sites, Site{Addr: addr, Off: c.Off + uint64(at+off), Class: Slow, Why: WhyNoFunction})
			}
		})
	}
	if len(sites) == 0 {
		return nil
	}
	s := &scanner{f: f, fns: functions(f), sites: sites, bodies: map[uint64]*body{}}
	// Room for each function several times over (functions may be nested).
	s.budget = 1 << 20
	for _, c := range f.Code {
		s.budget += 4 * len(c.Data)
	}
	s.run()
	return s.sites
}

// scanner holds the state of one object's scan.
type scanner struct {
	f      *object.File
	fns    []function
	sites  []Site
	budget int              // bytes that may still be decoded
	bodies map[uint64]*body // by address of the function
}

func (s *scanner) run() {
	where := make([]*body, len(s.sites))
	for i := range s.sites {
		site := &s.sites[i]
		fn, ok := s.function(site.Addr)
		switch {
		case !ok:
			continue
		case fn.signal:
			site.Why = WhySignal
			continue
		}
		where[i] = s.body(fn)
	}
	// Sites with their number loaded right before have no choice and come
	// first; the others take what room is left.
	for i := range s.sites {
		if where[i] != nil {
			where[i].number(&s.sites[i])
		}
	}
	s.inner()
	for i := range s.sites {
		if where[i] != nil && s.sites[i].Class == Slow && s.sites[i].Why == "" {
			where[i].window(s.sites, i)
		}
	}
	s.demote()
}

// body is the decoded function fn.
func (s *scanner) body(fn function) *body {
	b := s.bodies[fn.lo]
	if b == nil || b.hi != fn.hi {
		b = s.decode(fn)
		s.bodies[fn.lo] = b
	}
	return b
}

// function returns the innermost function that holds addr, or the gap.
func (s *scanner) function(addr uint64) (function, bool) {
	i, _ := slices.BinarySearchFunc(s.fns, addr, func(f function, a uint64) int {
		if f.lo > a {
			return 1
		}
		return -1
	})
	for j := i - 1; j >= 0 && j >= i-16; j-- {
		if addr < s.fns[j].hi {
			return s.fns[j], true
		}
	}
	for j := i - 1; j >= 0 && j >= i-16; j-- {
		if fn := s.fns[j]; addr < fn.reach && !fn.signal {
			// Only what control reaches from the function is code there.
			if _, ok := s.body(fn).holder(uint32(addr - fn.lo)); ok {
				return fn, true
			}
		}
	}
	return s.gap(addr)
}
