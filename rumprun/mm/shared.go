package mm

import (
	"bytes"
	"slices"
	"sync"
)

// Mappings are the MAP_SHARED mappings of an inode. Mapping and inode each have
// a copy of the content; this keeps them alike: a write(2) is passed on to the
// mappings at once, and a store of the guest reaches the inode when it is next
// read, and at msync, munmap and exit. The inode is its own record of what the
// guest has not changed, so bytes that differ are the guest's stores.
//
// The zero value is ready. It is used under no lock of the inode; its own is
// taken after the arena's.
type Mappings struct {
	mu   sync.Mutex
	list []*vma
}

func (m *Mappings) add(v *vma) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if !slices.Contains(m.list, v) {
		m.list = append(m.list, v)
	}
}

// populate fills v, not yet mapped, from src and adds it. Its lock keeps others
// from writing to the inode's mappings meanwhile.
func (m *Mappings) populate(src Shareable, v *vma) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	for _, w := range m.list {
		if w.file.Writable {
			m.flush(src, w, v.off, int64(v.Len()))
		}
	}
	b := memory(v.Range)
	n := 0
	for n < len(b) {
		k, err := src.Load(b[n:], v.off+int64(n))
		if err != nil {
			return errno(err)
		}
		if k == 0 {
			break
		}
		n += k
	}
	clear(b[n:])
	m.list = append(m.list, v)
	return nil
}

func (m *Mappings) remove(v *vma) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if i := slices.Index(m.list, v); i >= 0 {
		m.list = slices.Delete(m.list, i, i+1)
	}
}

// Flush stores what the guest has changed in [off, off+n) to src, the inode.
// An inode calls it before it is read.
func (m *Mappings) Flush(src Shareable, off, n int64) {
	m.mu.Lock()
	defer m.mu.Unlock()
	for _, v := range m.list {
		if v.file.Writable {
			m.flush(src, v, off, n)
		}
	}
}

// at returns the memory of v that holds content [off, off+n), and the offset
// where it begins.
func (v *vma) at(off, n int64) ([]byte, int64) {
	lo := max(off, v.off)
	hi := v.off + int64(v.Len())
	if n < hi-off {
		hi = off + n
	}
	if lo >= hi {
		return nil, 0
	}
	start := v.Start + uintptr(lo-v.off)
	return memory(Range{start, start + uintptr(hi-lo)}), lo
}

func (m *Mappings) flush(src Shareable, v *vma, off, n int64) {
	var page [PageSize]byte
	for b, at := v.at(off, n); len(b) > 0; {
		k := min(len(b), PageSize-int(at&pageMask))
		have, err := src.Load(page[:k], at)
		if err != nil || have == 0 {
			return // the end of the file
		}
		if now := b[:have]; !bytes.Equal(now, page[:have]) {
			m.store(src, v, now, page[:have], at)
		}
		b, at = b[k:], at+int64(k)
	}
}

// store writes the runs of now that differ from was, and nothing else: another
// mapping may have changed what lies between.
func (m *Mappings) store(src Shareable, v *vma, now, was []byte, at int64) {
	for i := 0; i < len(now); {
		if now[i] == was[i] {
			i++
			continue
		}
		j := i + 1
		for j < len(now) && now[j] != was[j] {
			j++
		}
		if n, err := src.Store(now[i:j], at+int64(i)); err == nil && n == j-i {
			m.changed(now[i:j], at+int64(i), v)
		}
		i = j
	}
}

// Changed tells the mappings that the inode's content at off is now p. An inode
// calls it after it was written to; Flush of the range must have come before.
func (m *Mappings) Changed(p []byte, off int64) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.changed(p, off, nil)
}

func (m *Mappings) changed(p []byte, off int64, but *vma) {
	for _, v := range m.list {
		if v == but {
			continue
		}
		if b, at := v.at(off, int64(len(p))); len(b) > 0 {
			copy(b, p[at-off:])
		}
	}
}

// Truncated tells the mappings that the inode now ends at size: what lies
// beyond is zero. (Linux sends SIGBUS for pages wholly beyond.)
func (m *Mappings) Truncated(size int64) {
	m.mu.Lock()
	defer m.mu.Unlock()
	for _, v := range m.list {
		if b, _ := v.at(size, v.off+int64(v.Len())-size); len(b) > 0 {
			clear(b)
		}
	}
}

// Writable reports whether one of the mappings is, or may be made, writable.
func (m *Mappings) Writable() bool {
	m.mu.Lock()
	defer m.mu.Unlock()
	return slices.ContainsFunc(m.list, func(v *vma) bool { return v.file.Writable })
}

// Any reports whether there are any: without, an inode need not Flush.
func (m *Mappings) Any() bool {
	m.mu.Lock()
	defer m.mu.Unlock()
	return len(m.list) > 0
}

// sync writes back the shared mappings in r.
func (as *AddressSpace) sync(r Range) {
	as.within(r, func(v *vma) {
		if !v.shared || v.file == nil || !v.file.Writable {
			return
		}
		if s, ok := v.file.Source.(Shareable); ok {
			s.Mappings().Flush(s, v.off, int64(v.Len()))
		}
	})
}
