package link

import (
	"bytes"
	"fmt"
	"hash/crc32"
	"io"
	"os"

	"golang.org/x/sys/unix"

	"github.com/nabla-build/nabla-build/archive"
	"github.com/nabla-build/nabla-build/link/rewrite"
	"github.com/nabla-build/nabla-build/link/scan"
)

const (
	// maxObject bounds the objects that are rewritten.
	maxObject = 512 << 20
	// maxHeap bounds the objects that are rewritten in ordinary memory; larger
	// ones are kept in a temporary file.
	maxHeap = 32 << 20
)

// spool is the memory in which an object is rewritten.
type spool struct {
	buf    []byte
	mapped []byte
}

// load reads size bytes. The result is valid until the next call.
func (s *spool) load(r io.Reader, size int64, dir string) ([]byte, error) {
	s.close()
	if size <= maxHeap {
		if int64(cap(s.buf)) < size {
			s.buf = make([]byte, size, min(maxHeap, size+size/2))
		}
		s.buf = s.buf[:size]
		if _, err := io.ReadFull(r, s.buf); err != nil {
			return nil, fmt.Errorf("read content: %w", err)
		}
		return s.buf, nil
	}
	s.buf = nil
	f, err := os.CreateTemp(dir, "nabla-build-")
	if err != nil {
		return nil, fmt.Errorf("keep a large object while it is rewritten: %w", err)
	}
	defer f.Close()
	if err := os.Remove(f.Name()); err != nil {
		return nil, fmt.Errorf("keep a large object while it is rewritten: %w", err)
	}
	n, err := io.Copy(f, io.LimitReader(r, size))
	if err == nil && n < size {
		err = io.ErrUnexpectedEOF
	}
	if err != nil {
		return nil, fmt.Errorf("keep a large object while it is rewritten: %w", err)
	}
	if s.mapped, err = unix.Mmap(int(f.Fd()), 0, int(size), unix.PROT_READ|unix.PROT_WRITE, unix.MAP_PRIVATE); err != nil {
		return nil, fmt.Errorf("map a large object: %w", err)
	}
	return s.mapped, nil
}

func (s *spool) close() {
	if s.mapped != nil {
		unix.Munmap(s.mapped)
		s.mapped = nil
	}
}

var castagnoli = crc32.MakeTable(crc32.Castagnoli)

// object adds an x86-64 object, rewritten where it has call sites.
func (l *layer) object(a archive.Header, content io.Reader) error {
	b, err := l.spool.load(content, a.Size, l.opts.TempDir)
	if err != nil {
		return err
	}
	defer l.spool.close()
	if scan.Candidates(b) {
		if err := l.rewrite(&a, b); err != nil {
			return err
		}
	} else {
		l.report.Plain++
	}
	return l.w.Add(a, bytes.NewReader(b))
}

// rewrite rewrites the object b in place and sets a.Patch. What comes out is
// verified by code that knows nothing of how the sites were found.
func (l *layer) rewrite(a *archive.Header, b []byte) error {
	sum := crc32.Checksum(b, castagnoli)
	res, err := rewrite.Object(b)
	if err != nil {
		l.left(*a, err)
		return nil
	}
	if res.Patch != nil {
		if err := rewrite.Verify(b, res.Patch); err != nil {
			return fmt.Errorf("the rewritten object does not stand verification (please report this, with the object): %w", err)
		}
		if restored(b, res.Patch) != sum {
			return fmt.Errorf("the rewritten object cannot be turned back into the original (please report this, with the object)")
		}
	}
	a.Patch = res.Patch
	l.sites(*a, res.Sites)
	return nil
}

// restored is the checksum of b with the undo list applied.
func restored(b []byte, p *archive.Patch) uint32 {
	sum, at := uint32(0), uint64(0)
	for _, u := range p.Undo {
		sum = crc32.Update(sum, castagnoli, b[at:u.Off])
		sum = crc32.Update(sum, castagnoli, u.Orig)
		at = u.Off + uint64(len(u.Orig))
	}
	return crc32.Update(sum, castagnoli, b[at:])
}
