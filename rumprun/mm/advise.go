package mm

import "golang.org/x/sys/unix"

// Advise is madvise(2). MADV_DONTNEED, MADV_FREE and MADV_REMOVE take effect at
// once: private memory reads as zero, or as the file again. No page goes back
// to the host: no call for that is left after lockdown. Other advice is
// accepted where Linux would take it and has no effect.
func (as *AddressSpace) Advise(addr uintptr, n uint64, advice int) error {
	if addr&pageMask != 0 {
		return unix.EINVAL
	}
	switch advice {
	case unix.MADV_NORMAL, unix.MADV_RANDOM, unix.MADV_SEQUENTIAL, unix.MADV_WILLNEED, unix.MADV_DONTNEED,
		unix.MADV_FREE, unix.MADV_REMOVE, unix.MADV_DONTFORK, unix.MADV_DOFORK, unix.MADV_MERGEABLE,
		unix.MADV_UNMERGEABLE, unix.MADV_HUGEPAGE, unix.MADV_NOHUGEPAGE, unix.MADV_DONTDUMP, unix.MADV_DODUMP,
		unix.MADV_WIPEONFORK, unix.MADV_KEEPONFORK, unix.MADV_COLD, unix.MADV_PAGEOUT, unix.MADV_POPULATE_READ,
		unix.MADV_POPULATE_WRITE, unix.MADV_DONTNEED_LOCKED, unix.MADV_COLLAPSE:
	default:
		// Memory poisoning and guard pages among them.
		return unix.EINVAL
	}
	r, err := pages(addr, n)
	if err != nil {
		return unix.EINVAL
	}
	if n == 0 {
		return nil
	}
	as.mu.Lock()
	defer as.mu.Unlock()
	var parts []*vma
	as.within(r, func(v *vma) {
		if !v.hidden {
			parts = append(parts, v)
		}
	})
	at := r.Start
	hole := false
	for _, v := range parts {
		hole = hole || v.Start != at
		at = v.End
		if err := as.advise(v, advice); err != nil {
			return err
		}
	}
	if hole || at != r.End {
		return unix.ENOMEM
	}
	return nil
}

func (as *AddressSpace) advise(v *vma, advice int) error {
	switch advice {
	case unix.MADV_DONTNEED, unix.MADV_DONTNEED_LOCKED:
		switch {
		case v.shared:
			// The pages are the object's, not the mapping's.
		case v.file == nil:
			as.drain(v)
		default:
			return as.reload(v)
		}
	case unix.MADV_FREE:
		if v.shared || v.file != nil {
			return unix.EINVAL
		}
		as.drain(v)
	case unix.MADV_REMOVE:
		switch {
		case !v.shared && v.file == nil:
			return unix.EINVAL
		case !v.shared || v.file != nil && !v.file.Writable:
			return unix.EACCES
		}
		clear(memory(v.Range))
		as.sync(v.Range)
	case unix.MADV_POPULATE_READ, unix.MADV_POPULATE_WRITE:
		if !v.readable() || advice == unix.MADV_POPULATE_WRITE && !v.writable() {
			return unix.EFAULT
		}
	}
	return nil
}

// drain makes the anonymous mapping v read as zero.
func (as *AddressSpace) drain(v *vma) {
	if !v.fresh {
		as.arena.scrub(v.Range)
	}
}

// reload fills the private file mapping v from its file again.
func (as *AddressSpace) reload(v *vma) error {
	var p *plan
	var o *object
	if v.rewritten {
		p, o = planOf(v.file), v.object
		if p == nil {
			return nil
		}
	}
	return as.fileContent(v.Range, v.file, v.off, p, o)
}

// Mapped reports whether the guest has every page of [addr, addr+n) mapped:
// ENOMEM if not, as mlock(2), msync(2) and mincore(2) answer.
func (as *AddressSpace) Mapped(addr uintptr, n uint64) error {
	r, err := pages(addr, n)
	if err != nil {
		return err
	}
	as.mu.Lock()
	defer as.mu.Unlock()
	if !as.covered(r) {
		return unix.ENOMEM
	}
	return nil
}

// Sync is msync(2) without the check of its flags: it writes the shared
// mappings in [addr, addr+n) back to their files.
func (as *AddressSpace) Sync(addr uintptr, n uint64) error {
	r, err := pages(addr, n)
	if err != nil {
		return err
	}
	as.mu.Lock()
	defer as.mu.Unlock()
	as.sync(r)
	if !as.covered(r) {
		return unix.ENOMEM
	}
	return nil
}
