package link

import (
	"bytes"
	"fmt"
	"hash/crc32"
	"io"
	"os"
	"unsafe"

	"golang.org/x/sys/unix"

	"github.com/nabla-build/nabla-build/archive"
	"github.com/nabla-build/nabla-build/link/rewrite"
	"github.com/nabla-build/nabla-build/link/scan"
)

const (
	// maxObject bounds the objects that are rewritten.
	maxObject = 512 << 20
	// maxMemory bounds the objects that are rewritten in memory; larger ones are
	// kept in a temporary file.
	maxMemory = 96 << 20
)

// spool is the memory in which an object is rewritten.
type spool struct {
	buf    []byte // of an object in memory: one mapping, so that no two are ever there
	mapped []byte // of an object in a temporary file
}

// load reads size bytes. The result is valid until the next call.
func (s *spool) load(r io.Reader, size int64, dir string) ([]byte, error) {
	s.drop()
	if size <= maxMemory {
		if s.buf == nil {
			b, err := unix.Mmap(-1, 0, maxMemory, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_PRIVATE|unix.MAP_ANONYMOUS|unix.MAP_NORESERVE)
			if err != nil {
				return nil, fmt.Errorf("memory for an object: %w", err)
			}
			s.buf = b
		}
		b := s.buf[:size]
		if _, err := io.ReadFull(r, b); err != nil {
			return nil, fmt.Errorf("read content: %w", err)
		}
		return b, nil
	}
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
	if s.mapped, err = unix.Mmap(int(f.Fd()), 0, int(size), unix.PROT_READ|unix.PROT_WRITE, unix.MAP_SHARED); err != nil {
		return nil, fmt.Errorf("map a large object: %w", err)
	}
	return s.mapped, nil
}

// release drops the memory of a part of a mapped object; what was changed stays
// in the temporary file.
func (s *spool) release(b []byte) {
	if s.mapped == nil || len(b) == 0 {
		return
	}
	const page = 4096
	lo := uintptr(unsafe.Pointer(&b[0])) - uintptr(unsafe.Pointer(&s.mapped[0]))
	hi := (lo + uintptr(len(b)) + page - 1) &^ (page - 1)
	lo &^= page - 1
	// Only advice: nothing is lost if it is not taken.
	_ = unix.Madvise(s.mapped[lo:min(hi, uintptr(len(s.mapped)))], unix.MADV_DONTNEED)
}

// reader reads b and releases what was read.
func (s *spool) reader(b []byte) io.Reader {
	if s.mapped == nil {
		return bytes.NewReader(b)
	}
	return &releasing{s: s, b: b}
}

type releasing struct {
	s    *spool
	b    []byte
	off  int
	kept int // bytes before off that are not released yet
}

func (r *releasing) Read(p []byte) (int, error) {
	if r.off == len(r.b) {
		return 0, io.EOF
	}
	n := copy(p, r.b[r.off:])
	r.off += n
	if r.kept += n; r.kept >= 8<<20 || r.off == len(r.b) {
		r.s.release(r.b[r.off-r.kept : r.off])
		r.kept = 0
	}
	return n, nil
}

// checksum is the CRC-32C of b, continued from sum.
func (s *spool) checksum(sum uint32, b []byte) uint32 {
	for len(b) > 0 {
		n := min(len(b), 8<<20)
		sum = crc32.Update(sum, castagnoli, b[:n])
		if n == 8<<20 {
			s.release(b[:n])
		}
		b = b[n:]
	}
	return sum
}

// drop lets go of the object in a temporary file.
func (s *spool) drop() {
	if s.mapped != nil {
		unix.Munmap(s.mapped)
		s.mapped = nil
	}
}

func (s *spool) close() {
	s.drop()
	if s.buf != nil {
		unix.Munmap(s.buf)
		s.buf = nil
	}
}

var castagnoli = crc32.MakeTable(crc32.Castagnoli)

// object adds an x86-64 object, rewritten where it has call sites.
func (l *layer) object(a archive.Header, content io.Reader) error {
	b, err := l.spool.load(content, a.Size, l.opts.TempDir)
	if err != nil {
		return err
	}
	defer l.spool.drop()
	if l.spool.mapped != nil || scan.Candidates(b) {
		if err := l.rewrite(&a, b); err != nil {
			return err
		}
	} else {
		l.report.Plain++
	}
	return l.w.Add(a, l.spool.reader(b))
}

// rewrite rewrites the object b in place and sets a.Patch. What comes out is
// verified by code that knows nothing of how the sites were found.
func (l *layer) rewrite(a *archive.Header, b []byte) error {
	sum := l.spool.checksum(0, b)
	res, err := rewrite.Object(b, l.spool.release)
	if err != nil {
		l.left(*a, err)
		return nil
	}
	if res.Patch != nil {
		if err := rewrite.Verify(b, res.Patch); err != nil {
			return fmt.Errorf("the rewritten object does not stand verification (please report this, with the object): %w", err)
		}
		if l.spool.restored(b, res.Patch) != sum {
			return fmt.Errorf("the rewritten object cannot be turned back into the original (please report this, with the object)")
		}
	}
	a.Patch = res.Patch
	l.sites(*a, res.Sites)
	return nil
}

// restored is the checksum of b with the undo list applied.
func (s *spool) restored(b []byte, p *archive.Patch) uint32 {
	sum, at := uint32(0), uint64(0)
	for _, u := range p.Undo {
		sum = s.checksum(sum, b[at:u.Off])
		sum = s.checksum(sum, u.Orig)
		at = u.Off + uint64(len(u.Orig))
	}
	return s.checksum(sum, b[at:])
}
