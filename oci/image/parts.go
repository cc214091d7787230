package image

import (
	"archive/tar"
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"os"

	"github.com/klauspost/compress/gzip"
	"github.com/zeebo/blake3"

	"github.com/nabla-build/nabla-build/archive"
	"github.com/nabla-build/nabla-build/manifest"
)

// partSize is the size in bytes of the files that hold an archive in an image.
// A tar header says the size of what follows it, and the size of an archive is
// known at its end only: in parts, an archive goes into its layer as it is
// made, and is never written down uncompressed.
const partSize = 8 << 20

// packer is an io.Writer that takes an archive and writes the compressed layer
// that holds it in parts.
type packer struct {
	name string // of the archive in the layer's tar stream
	out  *hashed
	z    *gzip.Writer
	in   *hashed
	tw   *tar.Writer
	buf  []byte // of the part
	sum  *blake3.Hasher
	n    int64 // bytes of the archive
	made packed
}

func newPacker(ctx context.Context, w io.Writer, name string) (*packer, error) {
	p := &packer{name: name, out: &hashed{w: w, h: sha256.New()}, sum: blake3.New(), buf: make([]byte, 0, partSize)}
	var err error
	if p.z, err = gzip.NewWriterLevel(p.out, compression); err != nil {
		return nil, err
	}
	p.in = &hashed{w: p.z, h: sha256.New(), ctx: ctx}
	p.tw = tar.NewWriter(p.in)
	return p, nil
}

// Write takes what comes next of the archive.
func (p *packer) Write(b []byte) (int, error) {
	p.sum.Write(b)
	done := 0
	for done < len(b) {
		if len(p.buf) == partSize {
			if err := p.part(); err != nil {
				return done, err
			}
		}
		n := copy(p.buf[len(p.buf):partSize], b[done:])
		p.buf = p.buf[:len(p.buf)+n]
		done += n
		p.n += int64(n)
	}
	return done, nil
}

// part writes what is in the buffer as one part.
func (p *packer) part() error {
	if len(p.made.Parts) > 0 {
		if err := p.z.Close(); err != nil {
			return err
		}
		p.z.Reset(p.out)
	}
	name := manifest.Part(p.name, len(p.made.Parts))
	p.made.Parts = append(p.made.Parts, p.out.n)
	if err := p.tw.WriteHeader(fileHeader(name, 0o444, int64(len(p.buf)))); err != nil {
		return fmt.Errorf("%s: %w", name, err)
	}
	// In pieces that stay in the processor's cache between compressing and hashing.
	for b := p.buf; len(b) > 0; {
		n := min(len(b), 1<<17)
		if _, err := p.tw.Write(b[:n]); err != nil {
			return fmt.Errorf("%s: %w", name, err)
		}
		b = b[n:]
	}
	p.buf = p.buf[:0]
	return nil
}

// close ends the layer; the digests are those of the archive and the layer.
func (p *packer) close() (digest string, size int64, l packed, err error) {
	if len(p.buf) > 0 {
		err = p.part()
	}
	if err = errors.Join(err, p.tw.Close()); err != nil {
		return "", 0, packed{}, err
	}
	if err := p.z.Close(); err != nil {
		return "", 0, packed{}, err
	}
	p.made.DiffID, p.made.Digest, p.made.Size = p.in.sum(), p.out.sum(), p.out.n
	return archiveDigest(p.sum), p.n, p.made, nil
}

// archiveDigest is how a manifest names an archive.
func archiveDigest(h *blake3.Hasher) string { return fmt.Sprintf("blake3:%x", h.Sum(nil)) }

// digestOf is the hash that a digest of a manifest was made with, and how the
// result is written.
func digestOf(digest string) (w io.Writer, sum func() string) {
	if len(digest) > 7 && digest[:7] == "blake3:" {
		h := blake3.New()
		return h, func() string { return archiveDigest(h) }
	}
	h := sha256.New()
	return h, func() string { return fmt.Sprintf("sha256:%x", h.Sum(nil)) }
}

// unpackPart writes part number i of an archive to w.
func (l fileLayer) unpackPart(i int, w io.Writer) error {
	f, err := os.Open(l.path)
	if err != nil {
		return err
	}
	defer f.Close()
	if i < 0 || i >= len(l.Parts) {
		return fmt.Errorf("%s: part %d of %d", l.path, i, len(l.Parts))
	}
	z, err := gzip.NewReader(io.NewSectionReader(f, l.Parts[i], l.packed.Size-l.Parts[i]))
	if err != nil {
		return fmt.Errorf("%s: %w", l.path, err)
	}
	z.Multistream(false)
	tr := tar.NewReader(z)
	if _, err := tr.Next(); err != nil {
		return fmt.Errorf("%s: %w", l.path, err)
	}
	if _, err := io.Copy(w, tr); err != nil {
		return fmt.Errorf("%s: %w", l.path, err)
	}
	return nil
}

// partial opens the archive of a packed layer. Parts are unpacked into a
// temporary file in dir when they are needed.
func (l fileLayer) partial(dir string, size int64) (*archive.Reader, func(), error) {
	f, err := os.CreateTemp(dir, "tmp-")
	if err != nil {
		return nil, nil, err
	}
	defer f.Close()
	if err := errors.Join(os.Remove(f.Name()), f.Truncate(size)); err != nil {
		return nil, nil, err
	}
	m, err := mapWhole(f)
	if err != nil {
		return nil, nil, err
	}
	there := make([]bool, len(l.Parts))
	to, err := os.OpenFile(fmt.Sprintf("/proc/self/fd/%d", f.Fd()), os.O_WRONLY, 0)
	if err != nil {
		unmap(m)
		return nil, nil, err
	}
	done := func() { unmap(m); to.Close() }
	fetch := func(off, n uint64) error {
		for i := off / partSize; n > 0 && i <= (off+n-1)/partSize; i++ {
			if i >= uint64(len(there)) {
				return io.ErrUnexpectedEOF
			}
			if !there[i] {
				if err := l.unpackPart(int(i), io.NewOffsetWriter(to, int64(i)*partSize)); err != nil {
					return err
				}
				there[i] = true
			}
		}
		return nil
	}
	r, err := func() (*archive.Reader, error) {
		if size < archive.TrailerSize {
			return nil, archive.ErrCorrupt
		}
		tail := uint64(size) - archive.TrailerSize
		if err := fetch(tail, archive.TrailerSize); err != nil {
			return nil, err
		}
		off, n, err := archive.IndexRange(m[tail:], uint64(size))
		if err != nil {
			return nil, err
		}
		if err := fetch(off, n); err != nil {
			return nil, err
		}
		return archive.OpenPartial(m, fetch)
	}()
	if err != nil {
		done()
		return nil, nil, fmt.Errorf("%s: %w", l.path, err)
	}
	return r, done, nil
}
