package mm

import (
	"io"

	"golang.org/x/sys/unix"
)

// object is a rewritten ELF object at a load bias, with room for its stubs
// beside it (a hidden mapping).
type object struct {
	ino, dev uint64
	bias     uintptr
	stubs    Range
	filled   bool // the stubs are in their place
	maps     int  // mappings that the object has
}

// plan is what a file mapping needs to know of its source's rewriting.
type plan struct {
	src Rewritten
	Rewriting
	lo, room uintptr // lowest page, size of object and stubs together
	stubsLen uintptr
}

// planOf returns the plan for mapping f, nil if f is an ordinary file or its
// record makes no sense.
func planOf(f *File) *plan {
	src, ok := f.Source.(Rewritten)
	if !ok {
		return nil
	}
	w, ok := src.Rewriting()
	if !ok || len(w.Stubs) == 0 || w.Lo > w.Hi || w.StubVaddr < w.Hi || w.StubVaddr&pageMask != 0 ||
		w.StubVaddr > maxAddr/2 || uint64(len(w.Stubs)) > 1<<30 {
		return nil
	}
	p := &plan{src: src, Rewriting: w, lo: pageDown(uintptr(w.Lo)), stubsLen: pageUp(uintptr(len(w.Stubs)))}
	p.room = uintptr(w.StubVaddr) + p.stubsLen - p.lo
	return p
}

// bias returns the load bias of a mapping of [off, off+n) at addr, if that lies
// in an executable segment.
func (p *plan) bias(addr uintptr, off int64, n uintptr) (uintptr, bool) {
	for _, s := range p.Segments {
		lo, hi := pageDown(uintptr(s.Off)), pageUp(uintptr(s.Off+s.Filesz))
		if uintptr(off) >= lo && uintptr(off) < hi {
			b := addr - uintptr(off) + uintptr(s.Off) - uintptr(s.Vaddr)
			return b, b&pageMask == 0
		}
	}
	return 0, false
}

// reserve makes the object of f at bias, its stubs hidden beside it. The room
// must be free.
func (as *AddressSpace) reserve(f *File, p *plan, bias uintptr) *object {
	at := bias + uintptr(p.StubVaddr)
	o := &object{ino: f.Ino, dev: f.Dev, bias: bias, stubs: Range{at, at + p.stubsLen}}
	as.objects = append(as.objects, o)
	as.arena.free.remove(o.stubs)
	as.replace(o.stubs, &vma{Range: o.stubs, object: o, hidden: true})
	return o
}

// objectAt returns the object of f at bias; nil if there is none and its room
// is taken.
func (as *AddressSpace) objectAt(f *File, p *plan, bias uintptr) *object {
	for _, o := range as.objects {
		if o.bias == bias && o.ino == f.Ino && o.dev == f.Dev {
			return o
		}
	}
	at := bias + uintptr(p.StubVaddr)
	if r := (Range{at, at + p.stubsLen}); r.Start < r.End && (as.arena.free.covers(r) || as.inWindow(r) == r && as.empty(r)) {
		return as.reserve(f, p, bias)
	}
	return nil
}

// empty reports whether as has nothing mapped in r.
func (as *AddressSpace) empty(r Range) bool {
	i := as.index(r.Start)
	return i == len(as.vmas) || as.vmas[i].Start >= r.End
}

// fill puts the stubs in their place.
func (as *AddressSpace) fill(o *object, p *plan) {
	if o.filled {
		return
	}
	as.arena.open(o.stubs)
	copy(memory(o.stubs), p.Stubs)
	o.filled = true
}

// vacate makes the stubs in r, which the guest is about to map something over,
// unnecessary: what was rewritten becomes the original again.
func (as *AddressSpace) vacate(r Range) {
	var gone []*object
	as.within(r, func(v *vma) {
		if v.hidden {
			gone = append(gone, v.object)
		}
	})
	for _, o := range gone {
		var undo []*vma
		for _, v := range as.vmas {
			if v.object == o && v.rewritten {
				undo = append(undo, v)
			}
		}
		for _, v := range undo {
			n := *v
			n.rewritten, n.object = false, nil
			v.file.Source.Pread(memory(v.Range), v.off)
			as.replace(v.Range, &n)
		}
		as.drop(o)
	}
}

// drop removes the room of o.
func (as *AddressSpace) drop(o *object) {
	for i := range as.objects {
		if as.objects[i] == o {
			as.objects = append(as.objects[:i], as.objects[i+1:]...)
			break
		}
	}
	var was []Range
	as.within(o.stubs, func(v *vma) {
		if v.hidden && v.object == o {
			was = append(was, v.Range)
		}
	})
	for _, r := range was {
		as.replace(r)
		as.release(r)
	}
}

// reap drops the objects of which nothing is mapped any more.
func (as *AddressSpace) reap() {
	for i := len(as.objects) - 1; i >= 0; i-- {
		if o := as.objects[i]; o.maps == 0 {
			as.drop(o)
		}
	}
}

// fileContent fills [r) from the file of a mapping at off, rewritten bytes
// where o is not nil, and makes the rest zero.
func (as *AddressSpace) fileContent(r Range, f *File, off int64, p *plan, o *object) error {
	b := memory(r)
	n := 0
	for n < len(b) {
		var k int
		var err error
		if o != nil {
			k, err = p.src.PreadRewritten(b[n:], off+int64(n))
		} else {
			k, err = f.Source.Pread(b[n:], off+int64(n))
		}
		if err != nil && k == 0 && err != io.EOF {
			as.arena.dirty.add(r)
			return errno(err)
		}
		if k == 0 {
			break
		}
		n += k
	}
	tail := Range{pageUp(r.Start + uintptr(n)), r.End}
	clear(b[n : tail.Start-r.Start])
	as.arena.scrub(tail)
	as.arena.dirty.add(r)
	return nil
}

func errno(err error) error {
	if e, ok := err.(unix.Errno); ok {
		return e
	}
	return unix.EIO
}
