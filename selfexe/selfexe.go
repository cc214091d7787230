// Package selfexe is the format of a self-contained executable: the tender's
// ELF file with the manifest, the archives and the helper of the user network
// behind it. The kernel ignores what follows the segments; the tender finds it
// by the trailer at the end of /proc/self/exe. It reads and writes the format
// and knows nothing else. The type at its heart is Section.
//
//	tender ELF
//	sections, each starting at a multiple of 4096, zeros between
//	table: 56 bytes a section
//	trailer: 64 bytes
//
// All integers are little-endian. A table entry is kind u32, zero u32,
// offset u64, length u64, SHA-256 of the section (32 bytes). The trailer is
// "NABLAEXE", version u32, number of sections u32, offset of the table u64,
// length of the table u64, CRC-32C of the table u32, zeros, and in its last 4
// bytes the CRC-32C of what is before them.
package selfexe

import (
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"io"
)

// Align is what the offset of a section is a multiple of, so that it can be
// mapped.
const Align = 4096

const (
	magic       = "NABLAEXE"
	version     = 1
	entrySize   = 56
	trailerSize = 64
	maxSections = 1 << 12
)

var castagnoli = crc32.MakeTable(crc32.Castagnoli)

// ErrNone says that a file has no trailer: it is an ordinary executable.
var ErrNone = errors.New("not a self-contained nabla executable")

// ErrCorrupt is wrapped by errors about a file that has the trailer and
// contradicts itself.
var ErrCorrupt = errors.New("corrupt self-contained executable")

// Kind says what a section holds.
type Kind uint32

// Kinds of sections. Readers pass over kinds they do not know.
const (
	Manifest Kind = 1 // manifest.json
	Netd     Kind = 2 // executable of the helper of the user network
	Archive  Kind = 3 // nabla archives, in the order of the manifest
	Report   Kind = 4 // the link report, JSON
)

// Section is one part of the file.
type Section struct {
	Kind   Kind
	Offset int64 // from the start of the file, a multiple of Align
	Size   int64
	Digest [sha256.Size]byte
}

// Writer writes a self-contained executable front to back. It is for one
// goroutine; after an error the file is of no use.
type Writer struct {
	w     io.Writer
	pos   int64
	table []byte
	n     uint32
}

// NewWriter copies the tender to w and returns a Writer for what follows.
func NewWriter(w io.Writer, tender io.Reader) (*Writer, error) {
	n, err := io.Copy(w, tender)
	if err != nil {
		return nil, fmt.Errorf("write the tender: %w", err)
	}
	return &Writer{w: w, pos: n}, nil
}

// Next is the offset that the next section will have.
func (w *Writer) Next() int64 { return w.pos + -w.pos&(Align-1) }

// Add writes a section from content, to its end.
func (w *Writer) Add(k Kind, content io.Reader) error {
	if w.n == maxSections {
		return fmt.Errorf("write a section: more than %d", maxSections)
	}
	pad := -w.pos & (Align - 1)
	if _, err := w.w.Write(make([]byte, pad)); err != nil {
		return fmt.Errorf("write a section: %w", err)
	}
	w.pos += pad
	h := sha256.New()
	n, err := io.Copy(io.MultiWriter(w.w, h), content)
	if err != nil {
		return fmt.Errorf("write a section: %w", err)
	}
	e := make([]byte, 24, entrySize)
	binary.LittleEndian.PutUint32(e, uint32(k))
	binary.LittleEndian.PutUint64(e[8:], uint64(w.pos))
	binary.LittleEndian.PutUint64(e[16:], uint64(n))
	w.table = append(w.table, h.Sum(e)...)
	w.pos += n
	w.n++
	return nil
}

// Close writes the table and the trailer. It does not close the underlying
// writer.
func (w *Writer) Close() error {
	t := make([]byte, trailerSize)
	copy(t, magic)
	le := binary.LittleEndian
	le.PutUint32(t[8:], version)
	le.PutUint32(t[12:], w.n)
	le.PutUint64(t[16:], uint64(w.pos))
	le.PutUint64(t[24:], uint64(len(w.table)))
	le.PutUint32(t[32:], crc32.Checksum(w.table, castagnoli))
	le.PutUint32(t[trailerSize-4:], crc32.Checksum(t[:trailerSize-4], castagnoli))
	if _, err := w.w.Write(append(w.table, t...)); err != nil {
		return fmt.Errorf("write the section table: %w", err)
	}
	return nil
}

// Read reads the table of a file of the given size. ErrNone if it has no
// trailer. Sections lie inside the file, aligned, without overlap, in the
// order of the file; their digests are not computed: see Section.Verify.
func Read(r io.ReaderAt, size int64) ([]Section, error) {
	if size < trailerSize {
		return nil, ErrNone
	}
	t := make([]byte, trailerSize)
	if _, err := r.ReadAt(t, size-trailerSize); err != nil {
		return nil, fmt.Errorf("read the trailer: %w", err)
	}
	if string(t[:8]) != magic {
		return nil, ErrNone
	}
	le := binary.LittleEndian
	if crc32.Checksum(t[:trailerSize-4], castagnoli) != le.Uint32(t[trailerSize-4:]) {
		return nil, fmt.Errorf("trailer checksum differs: %w", ErrCorrupt)
	}
	if v := le.Uint32(t[8:]); v != version {
		return nil, fmt.Errorf("version %d, this program reads version %d: link again with the matching release", v, version)
	}
	n, off, length := le.Uint32(t[12:]), le.Uint64(t[16:]), le.Uint64(t[24:])
	end := uint64(size - trailerSize)
	if n > maxSections || length != uint64(n)*entrySize || off > end || length != end-off {
		return nil, fmt.Errorf("table of %d sections at %d, +%d: %w", n, off, length, ErrCorrupt)
	}
	table := make([]byte, length)
	if _, err := r.ReadAt(table, int64(off)); err != nil {
		return nil, fmt.Errorf("read the section table: %w", err)
	}
	if crc32.Checksum(table, castagnoli) != le.Uint32(t[32:]) {
		return nil, fmt.Errorf("table checksum differs: %w", ErrCorrupt)
	}
	var out []Section
	last := uint64(0)
	for ; len(table) > 0; table = table[entrySize:] {
		o, l := le.Uint64(table[8:]), le.Uint64(table[16:])
		if o%Align != 0 || o < last || o > off || l > off-o {
			return nil, fmt.Errorf("section %d lies at %d, +%d: %w", len(out), o, l, ErrCorrupt)
		}
		last = o + l
		s := Section{Kind: Kind(le.Uint32(table)), Offset: int64(o), Size: int64(l)}
		copy(s.Digest[:], table[24:])
		out = append(out, s)
	}
	return out, nil
}

// Reader reads the section from the file that Read was given.
func (s Section) Reader(r io.ReaderAt) *io.SectionReader {
	return io.NewSectionReader(r, s.Offset, s.Size)
}

// Verify reads the section and compares its digest.
func (s Section) Verify(r io.ReaderAt) error {
	h := sha256.New()
	if _, err := io.Copy(h, s.Reader(r)); err != nil {
		return fmt.Errorf("read the section at %d: %w", s.Offset, err)
	}
	if got := [sha256.Size]byte(h.Sum(nil)); got != s.Digest {
		return fmt.Errorf("section at %d has digest sha256:%x instead of sha256:%x: %w", s.Offset, got, s.Digest, ErrCorrupt)
	}
	return nil
}
