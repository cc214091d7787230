package memfs

import (
	"time"

	"golang.org/x/sys/unix"

	"github.com/nabla-build/nabla-build/rumprun/mm"
)

// An inode is what file mappings are made of; an open file passes on to it.
var (
	_ mm.Shareable = (*node)(nil)
	_ mm.Rewritten = (*node)(nil)
	_ mm.Shareable = (*file)(nil)
	_ mm.Rewritten = (*file)(nil)
)

func (f *file) Mappings() *mm.Mappings                          { return f.n.Mappings() }
func (f *file) Load(p []byte, off int64) (int, error)           { return f.n.Load(p, off) }
func (f *file) Store(p []byte, off int64) (int, error)          { return f.n.Store(p, off) }
func (f *file) Rewriting() (mm.Rewriting, bool)                 { return f.n.Rewriting() }
func (f *file) PreadRewritten(p []byte, off int64) (int, error) { return f.n.PreadRewritten(p, off) }

// Pread reads what the inode holds, stores of shared mappings included.
func (n *node) Pread(p []byte, off int64) (int, error) {
	if n.maps.Any() {
		n.maps.Flush(n, off, int64(len(p)))
	}
	return n.Load(p, off)
}

func (n *node) Mappings() *mm.Mappings { return &n.maps }

func (n *node) Load(p []byte, off int64) (int, error) {
	n.mu.Lock()
	defer n.mu.Unlock()
	return n.data.readAt(p, off), nil
}

func (n *node) Store(p []byte, off int64) (int, error) {
	n.mu.Lock()
	defer n.mu.Unlock()
	if off >= n.data.size {
		return 0, nil
	}
	p = p[:min(int64(len(p)), n.data.size-off)]
	k, err := n.data.writeAt(p, off)
	if k > 0 {
		n.mtime = time.Now()
		n.ctime = n.mtime
	}
	return k, err
}

// Rewriting describes an object of a layer whose call sites the relinker has
// rewritten; not ok for another file, and once the file has been changed.
func (n *node) Rewriting() (mm.Rewriting, bool) {
	n.mu.Lock()
	defer n.mu.Unlock()
	if !n.data.untouched() {
		return mm.Rewriting{}, false
	}
	p, ok := n.data.patched.Patch()
	if !ok {
		return mm.Rewriting{}, false
	}
	r := mm.Rewriting{Stubs: p.Stubs, StubVaddr: p.StubVaddr, Lo: p.Lo, Hi: p.Hi}
	for _, s := range p.Segments {
		r.Segments = append(r.Segments, mm.Segment{Off: s.Off, Vaddr: s.Vaddr, Filesz: s.Filesz})
	}
	return r, true
}

// PreadRewritten reads the rewritten bytes of an object.
func (n *node) PreadRewritten(p []byte, off int64) (int, error) {
	n.mu.Lock()
	defer n.mu.Unlock()
	if !n.data.untouched() {
		return 0, unix.EIO
	}
	if off < 0 || off >= int64(len(n.data.lower)) {
		return 0, nil
	}
	return copy(p, n.data.lower[off:]), nil
}

// untouched reports whether the content is still a rewritten layer file's.
func (d *data) untouched() bool {
	return d.patched.Valid() && len(d.chunks) == 0 && d.size == int64(len(d.lower)) && d.lowEnd == d.size
}

// refill brings the shared mappings of [off, off+k) up to date.
func (n *node) refill(off, k int64) {
	var page [pageSize]byte
	for k > 0 {
		c, _ := n.Load(page[:min(k, pageSize)], off)
		if c == 0 {
			return
		}
		n.maps.Changed(page[:c], off)
		off, k = off+int64(c), k-int64(c)
	}
}
