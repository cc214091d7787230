package mm

import "golang.org/x/sys/unix"

// heapRoom is the address space that is kept free for the heap, as far as there
// is so much; a C library whose brk fails goes on with mmap.
const heapRoom = 1 << 30

// SetBrk says where the heap begins: at start (the end of the program), or at
// the first free page behind it, or, if less than 1 MiB is free there, anywhere.
func (as *AddressSpace) SetBrk(start uintptr) error {
	as.mu.Lock()
	defer as.mu.Unlock()
	as.dropHeap()
	start = pageUp(min(start, maxAddr))
	for v := as.find(start); v != nil; v = as.find(start) {
		start = v.End
	}
	const least = 1 << 20
	var room Range
	as.arena.free.each(Range{start, maxAddr}, func(f Range) {
		if f.Start == start { // no more than half of what is there
			room = Range{start, start + min(heapRoom, pageDown(f.Len()/2))}
		}
	})
	for n := uintptr(heapRoom); room.Len() < least; n /= 2 {
		if n < least {
			as.brkStart, as.brkEnd, as.brkRoom = start, start, Range{start, start}
			return nil
		}
		if at, ok := as.arena.choose(n, PageSize, 0, false, false); ok {
			room = Range{at, at + n}
		}
	}
	as.arena.free.remove(room)
	as.brkRoom, as.brkStart, as.brkEnd = room, room.Start, room.Start
	return nil
}

// dropHeap gives back the heap's room but for what is mapped in it.
func (as *AddressSpace) dropHeap() {
	room := as.brkRoom
	as.brkRoom, as.brkStart, as.brkEnd = Range{}, 0, 0
	if room.Len() == 0 {
		return
	}
	at := room.Start
	as.within(room, func(v *vma) {
		as.arena.free.add(Range{at, v.Start})
		at = v.End
	})
	as.arena.free.add(Range{at, room.End})
}

// Heap returns where the heap begins and ends (/proc/PID/stat, RLIMIT_DATA).
func (as *AddressSpace) Heap() Range {
	as.mu.Lock()
	defer as.mu.Unlock()
	return Range{as.brkStart, as.brkEnd}
}

// Brk is brk(2) as the kernel has it: it sets the end of the heap if it can,
// and returns what the end is now.
func (as *AddressSpace) Brk(end uintptr) uintptr {
	as.mu.Lock()
	defer as.mu.Unlock()
	if end < as.brkStart || end > as.brkRoom.End {
		return as.brkEnd
	}
	was, now := pageUp(as.brkEnd), pageUp(end)
	switch {
	case now < was:
		as.unmap(Range{now, was})
	case now > was:
		r := Range{was, now}
		if i := as.index(r.Start); i < len(as.vmas) && as.vmas[i].Start < r.End || len(as.vmas) >= MaxMaps {
			return as.brkEnd
		}
		v := &vma{Range: r, prot: unix.PROT_READ | unix.PROT_WRITE, name: "[heap]"}
		if as.place(v, nil, nil) != nil {
			return as.brkEnd
		}
	}
	as.brkEnd = end
	return end
}
