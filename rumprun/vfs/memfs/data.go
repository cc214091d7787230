package memfs

import (
	"math/bits"
	"sync/atomic"

	"golang.org/x/sys/unix"

	"github.com/nabla-build/nabla-build/archive"
)

const (
	pageSize  = 4096
	chunkSize = 16 * pageSize
)

// chunk holds up to 16 pages of a file. data is as long as the pages up to the
// last one stored; bit i of present says that page i is in it. A page that is
// not present is a hole, or comes from the lower file.
type chunk struct {
	data    []byte
	present uint16
}

// data is the content of a regular file: pages in memory over a lower file.
// The caller locks.
type data struct {
	size   int64
	lower  []byte // read-only; bytes at and beyond lowEnd are not seen any more
	lowEnd int64  // <= size and <= len(lower)
	// patched is the lower file if its call sites are rewritten: what is read
	// are its original bytes.
	patched archive.Node
	chunks  map[int64]*chunk
	pages   int64 // present
	// overLow counts the present pages that lie over lower data; -1: count again.
	overLow int64
	pool    *pool
}

// pool limits the pages of a file system.
type pool struct {
	used  atomic.Int64
	limit int64
}

func (p *pool) take() bool {
	if p.used.Add(1) > p.limit {
		p.used.Add(-1)
		return false
	}
	return true
}

func (p *pool) give(n int64) { p.used.Add(-n) }

// maxFileSize is the largest offset that a file may have (MAX_LFS_FILESIZE).
const maxFileSize = 1<<63 - 1

func (d *data) readAt(p []byte, off int64) int {
	if off >= d.size {
		return 0
	}
	if int64(len(p)) > d.size-off {
		p = p[:d.size-off]
	}
	n := len(p)
	if len(d.chunks) == 0 {
		d.readLower(p, off)
		return n
	}
	for len(p) > 0 {
		ci, co := off/chunkSize, int(off%chunkSize)
		span := min(len(p), chunkSize-co)
		c := d.chunks[ci]
		if c == nil || c.present == 0 {
			d.readLower(p[:span], off)
			p, off = p[span:], off+int64(span)
			continue
		}
		for span > 0 {
			// A run of pages that are alike.
			pg := co / pageSize
			have := c.present>>pg&1 != 0
			end := pg + 1
			for end*pageSize < co+span && (c.present>>end&1 != 0) == have {
				end++
			}
			run := min(span, end*pageSize-co)
			if have {
				copy(p[:run], c.data[co:])
			} else {
				d.readLower(p[:run], off)
			}
			p, off, co, span = p[run:], off+int64(run), co+run, span-run
		}
	}
	return n
}

// readLower fills p from the lower file, with zeroes behind its end.
func (d *data) readLower(p []byte, off int64) {
	n := 0
	if off < d.lowEnd {
		n = copy(p, d.lower[off:d.lowEnd])
		if d.patched.Valid() {
			d.patched.ReadAt(p[:n], off)
		}
	}
	clear(p[n:])
}

// page makes page pg of chunk ci present, its old content kept where keep is
// set, and returns the chunk.
func (d *data) page(ci int64, pg int, keep bool) *chunk {
	c := d.chunks[ci]
	if c == nil {
		if d.chunks == nil {
			d.chunks = make(map[int64]*chunk)
		}
		c = new(chunk)
		d.chunks[ci] = c
	}
	if need := (pg + 1) * pageSize; need > len(c.data) {
		// Doubling keeps a file that grows by small writes cheap.
		grown := make([]byte, min(chunkSize, max(need, 1<<bits.Len(uint(need-1)))))
		copy(grown, c.data)
		c.data = grown
	}
	if c.present>>pg&1 == 0 {
		b := c.data[pg*pageSize:][:pageSize]
		if keep {
			d.readLower(b, ci*chunkSize+int64(pg*pageSize))
		} else {
			clear(b)
		}
		c.present |= 1 << pg
		d.pages++
		if d.overLow >= 0 && ci*chunkSize+int64(pg*pageSize) < d.lowEnd {
			d.overLow++
		}
	}
	return c
}

// writeAt stores p at off, growing the file. If the pool has no more
// pages, what was written before counts.
func (d *data) writeAt(p []byte, off int64) (int, error) {
	if off < 0 || off > maxFileSize-int64(len(p)) {
		return 0, unix.EFBIG
	}
	n := 0
	for n < len(p) {
		ci, co := off/chunkSize, int(off%chunkSize)
		pg := co / pageSize
		run := min(len(p)-n, (pg+1)*pageSize-co)
		c := d.chunks[ci]
		if c == nil || c.present>>pg&1 == 0 {
			if !d.pool.take() {
				break
			}
			c = d.page(ci, pg, run < pageSize)
		}
		copy(c.data[co:], p[n:n+run])
		n += run
		off += int64(run)
		d.size = max(d.size, off)
	}
	if n < len(p) {
		if n == 0 {
			return 0, unix.ENOSPC
		}
	}
	return n, nil
}

// truncate sets the size; pages beyond it go.
func (d *data) truncate(size int64) {
	if size < d.size {
		d.lowEnd = min(d.lowEnd, size)
		d.overLow = -1
		last, co := size/chunkSize, int(size%chunkSize)
		for ci, c := range d.chunks {
			if ci > last || ci == last && co == 0 {
				d.drop(c, 0)
				delete(d.chunks, ci)
			}
		}
		if c := d.chunks[last]; c != nil {
			first := (co + pageSize - 1) / pageSize // first page to go
			d.drop(c, first)
			if co < len(c.data) {
				clear(c.data[co:])
			}
			if keep := first * pageSize; keep < len(c.data) {
				c.data = append([]byte(nil), c.data[:keep]...)
			}
		}
	}
	d.size = size
}

// drop forgets the pages of c from page first on.
func (d *data) drop(c *chunk, first int) {
	gone := c.present >> first << first
	n := int64(bits.OnesCount16(gone))
	c.present &^= gone
	d.pages -= n
	d.pool.give(n)
}

// punch makes [off, off+n) read as zeroes without changing the size.
func (d *data) punch(off, n int64) error {
	end := off + n
	zero := func(from, to int64) error {
		var z [pageSize]byte
		for to = min(to, d.size); from < to; {
			k := min(to-from, pageSize-from%pageSize)
			if d.present(from) || from < d.lowEnd {
				if _, err := d.writeAt(z[:k], from); err != nil {
					return err
				}
			}
			from += k
		}
		return nil
	}
	first := (off + pageSize - 1) / pageSize * pageSize
	last := end / pageSize * pageSize
	if first >= last {
		return zero(off, end)
	}
	if err := zero(off, first); err != nil {
		return err
	}
	if err := zero(last, end); err != nil {
		return err
	}
	// Whole pages. Those over lower data must become zero pages, the rest
	// become holes.
	for ci, c := range d.chunks {
		for pg := range 16 {
			at := ci*chunkSize + int64(pg)*pageSize
			if c.present>>pg&1 != 0 && at >= first && at < last && at >= d.lowEnd {
				c.present &^= 1 << pg
				d.pages--
				d.pool.give(1)
			}
		}
		if c.present == 0 {
			delete(d.chunks, ci)
		}
	}
	if last >= d.lowEnd && first < d.lowEnd {
		// The hole reaches the end of the lower data: forget that part.
		d.lowEnd = first
		d.overLow = -1
		return d.punch(first, last-first)
	}
	for at := first; at < min(last, d.lowEnd); at += pageSize {
		if !d.present(at) && !d.pool.take() {
			return unix.ENOSPC
		}
		ci, pg := at/chunkSize, int(at%chunkSize/pageSize)
		c := d.page(ci, pg, false)
		clear(c.data[pg*pageSize:][:pageSize])
	}
	return nil
}

func (d *data) present(off int64) bool {
	c := d.chunks[off/chunkSize]
	return c != nil && c.present>>(off%chunkSize/pageSize)&1 != 0
}

// allocate makes every page of [off, off+n) present (fallocate(2), mode 0).
func (d *data) allocate(off, n int64) error {
	for at := off / pageSize * pageSize; at < off+n; at += pageSize {
		if at < d.lowEnd || d.present(at) {
			continue
		}
		if !d.pool.take() {
			return unix.ENOSPC
		}
		d.page(at/chunkSize, int(at%chunkSize/pageSize), false)
	}
	return nil
}

// seek finds the next data or hole at or after off (lseek(2)), ENXIO at and
// beyond the end. Holes are whole pages that hold nothing.
func (d *data) seek(off int64, wantData bool) (int64, error) {
	if off < 0 || off >= d.size {
		return 0, unix.ENXIO
	}
	for at := off; at >= 0 && at < d.size; { // at overflows behind the largest size
		has := at < d.lowEnd || d.present(at)
		switch {
		case has == wantData:
			return at, nil
		case !has && d.chunks[at/chunkSize] == nil:
			at = d.nextChunk(at/chunkSize) * chunkSize
		case at < d.lowEnd:
			at = (d.lowEnd + pageSize - 1) / pageSize * pageSize
		default:
			at = (at/pageSize + 1) * pageSize
		}
	}
	if wantData {
		return 0, unix.ENXIO
	}
	return d.size, nil
}

// nextChunk returns the index of the first chunk behind ci, or one behind the
// end of the file.
func (d *data) nextChunk(ci int64) int64 {
	next := d.size/chunkSize + 1
	for i := range d.chunks {
		if i > ci && i < next {
			next = i
		}
	}
	return next
}

// blocks is st_blocks: what the file occupies, in 512 bytes.
func (d *data) blocks() int64 {
	if d.overLow < 0 {
		d.overLow = 0
		for ci, c := range d.chunks {
			for pg := range 16 {
				if c.present>>pg&1 != 0 && ci*chunkSize+int64(pg)*pageSize < d.lowEnd {
					d.overLow++
				}
			}
		}
	}
	low := (d.lowEnd + pageSize - 1) / pageSize
	return (low + d.pages - d.overLow) * (pageSize / 512)
}
