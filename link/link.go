// Package link is the relinker: it turns a layer of an image, a tar stream,
// into a nabla archive, in which the system call sites of x86-64 objects are
// jumps to stubs, and says what it did. It knows archives and ELF objects but
// nothing of registries or image configurations. It may import archive and its
// own sub-packages; the function at its heart is Layer.
package link

import (
	"archive/tar"
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"path"
	"strings"

	"github.com/nabla-build/nabla-build/archive"
	"github.com/nabla-build/nabla-build/link/object"
)

// Options are for Layer; the zero value is good.
type Options struct {
	// Progress, if not nil, is called now and then with the number of bytes of
	// the layer read so far.
	Progress func(read int64)
	// TempDir is where large objects are kept while they are rewritten; ""
	// means os.TempDir. Nothing is left there.
	TempDir string
	// NoRewrite leaves all objects as they are: every system call takes the
	// slow path.
	NoRewrite bool
}

// Layer reads a layer, an uncompressed tar stream (OCI image layer
// specification), to its end, and writes the archive of it to out. Memory does
// not grow with the size of files. The same layer gives the same archive. An
// error names the entry of the layer; what was written to out is of no use then.
//
// Names with ".." are refused, absolute names are relative to the root, the
// targets of symbolic links are kept as they are. A hard link to a file that
// only a lower layer has is recorded by path (archive.Node.LowerLink).
func Layer(ctx context.Context, in io.Reader, out io.Writer, opts Options) (LayerReport, error) {
	src := &source{ctx: ctx, r: in, progress: opts.Progress}
	dst := &counter{w: out}
	l := &layer{opts: opts, w: archive.NewWriter(dst)}
	defer l.spool.close()
	err := l.run(tar.NewReader(bufio.NewReaderSize(src, 1<<18)))
	if err == nil {
		// What follows the end of a tar archive belongs to the layer's digest.
		_, err = io.Copy(io.Discard, src)
	}
	if err == nil && !src.ended() {
		l.warn("the layer has no end-of-archive mark: it may have been cut short between two entries")
	}
	if err == nil {
		err = l.w.Close()
	}
	if err != nil {
		if src.err != nil && !errors.Is(err, src.err) {
			err = fmt.Errorf("%w (%w)", err, src.err)
		}
		return LayerReport{}, err
	}
	l.report.BytesIn, l.report.BytesOut = src.n, dst.n
	l.finish()
	return l.report, nil
}

// layer is the state of one Layer call.
type layer struct {
	opts    Options
	w       *archive.Writer
	report  LayerReport
	spool   spool
	dropped int // warnings that were not kept
}

func (l *layer) run(tr *tar.Reader) error {
	for {
		h, err := tr.Next()
		if err == io.EOF {
			return nil
		}
		if err != nil {
			if errors.Is(err, io.ErrUnexpectedEOF) {
				return fmt.Errorf("read layer: cut short after entry %d (%q): %w", l.report.Entries, l.report.last, err)
			}
			if l.report.Entries == 0 && errors.Is(err, tar.ErrHeader) {
				return fmt.Errorf("read layer: it is not a tar archive: %w", err)
			}
			return fmt.Errorf("read layer: after entry %d (%q): %w", l.report.Entries, l.report.last, err)
		}
		if h.Typeflag == tar.TypeXGlobalHeader {
			continue
		}
		l.report.Entries++
		l.report.last = h.Name
		if err := l.entry(h, tr); err != nil {
			if errors.Is(err, io.ErrUnexpectedEOF) {
				return fmt.Errorf("layer entry %q: the layer is cut short here: %w", h.Name, err)
			}
			return fmt.Errorf("layer entry %q: %w", h.Name, err)
		}
	}
}

// Names that the OCI image layer specification (Whiteouts) sets apart.
const (
	whiteoutPrefix = ".wh."
	opaqueName     = ".wh..wh..opq"
	aufsPrefix     = ".wh..wh."
)

// cleanName makes a name relative to the root.
func cleanName(name string) (string, error) {
	for c := range strings.SplitSeq(name, "/") {
		if c == ".." {
			return "", errors.New(`a name with ".." is refused`)
		}
	}
	if strings.IndexByte(name, 0) >= 0 {
		return "", errors.New("a name with a NUL byte is refused")
	}
	return strings.TrimPrefix(path.Clean("/"+name), "/"), nil
}

func (l *layer) entry(h *tar.Header, content io.Reader) error {
	name, err := cleanName(h.Name)
	if err != nil {
		return err
	}
	for c := range strings.SplitSeq(name, "/") {
		if strings.HasPrefix(c, aufsPrefix) && c != opaqueName {
			return nil // bookkeeping of aufs
		}
	}
	if dir, base := path.Split(name); strings.HasPrefix(base, whiteoutPrefix) {
		l.report.Whiteouts++
		gone := base[len(whiteoutPrefix):]
		switch {
		case base == opaqueName:
			return l.w.Opaque(dir)
		case gone == "" || gone == "." || gone == "..":
			return errors.New("a whiteout of no name is refused")
		}
		return l.w.Whiteout(dir + gone)
	}
	if h.Typeflag == tar.TypeLink {
		target, err := cleanName(h.Linkname)
		if err != nil {
			return fmt.Errorf("hard link to %q: %w", h.Linkname, err)
		}
		if target == "" {
			return fmt.Errorf("hard link to %q: it is the root", h.Linkname)
		}
		return l.w.HardLink(name, target)
	}
	a, err := header(h, name)
	if err != nil {
		return err
	}
	switch h.Typeflag {
	case tar.TypeReg, tar.TypeCont, tar.TypeGNUSparse:
		l.report.Files++
		return l.file(a, content)
	case tar.TypeChar, tar.TypeBlock:
		l.warn(fmt.Sprintf("%s: a device node: its name and numbers are kept, it gives access to no device of the host", name))
	}
	return l.w.Add(a, nil)
}

// header translates a tar header (pax, POSIX.1-2008).
func header(h *tar.Header, name string) (archive.Header, error) {
	a := archive.Header{
		Name: name, Mode: uint32(h.Mode & 0o7777), UID: uint32(h.Uid), GID: uint32(h.Gid),
		MtimeSec: h.ModTime.Unix(), MtimeNsec: uint32(h.ModTime.Nanosecond()),
	}
	if h.Uid < 0 || h.Gid < 0 || uint64(h.Uid) > 1<<32-1 || uint64(h.Gid) > 1<<32-1 {
		return a, fmt.Errorf("owner %d:%d is not possible", h.Uid, h.Gid)
	}
	switch h.Typeflag {
	case tar.TypeReg, tar.TypeCont, tar.TypeGNUSparse:
		a.Mode |= typeReg
		a.Size = h.Size
		if h.Size > archive.MaxFileSize {
			return a, fmt.Errorf("a file of %d bytes: nabla images hold files below 4 GiB; keep it on a volume", h.Size)
		}
	case tar.TypeDir:
		a.Mode |= typeDir
	case tar.TypeSymlink:
		a.Mode |= typeLink
		a.Link = h.Linkname
	case tar.TypeChar, tar.TypeBlock:
		a.Mode |= typeChar
		if h.Typeflag == tar.TypeBlock {
			a.Mode ^= typeChar ^ typeBlock
		}
		if h.Devmajor < 0 || h.Devminor < 0 || h.Devmajor > 1<<32-1 || h.Devminor > 1<<32-1 {
			return a, fmt.Errorf("device number %d:%d is not possible", h.Devmajor, h.Devminor)
		}
		a.Rdev = makedev(uint64(h.Devmajor), uint64(h.Devminor))
	case tar.TypeFifo:
		a.Mode |= typeFIFO
	default:
		return a, fmt.Errorf("an entry of the unknown type %q", h.Typeflag)
	}
	for k, v := range h.PAXRecords {
		if x, ok := strings.CutPrefix(k, "SCHILY.xattr."); ok {
			a.Xattrs = append(a.Xattrs, archive.Xattr{Name: x, Value: []byte(v)})
		}
	}
	return a, nil
}

// File types of st_mode (inode(7)).
const (
	typeLink  = 0o120000
	typeReg   = 0o100000
	typeBlock = 0o060000
	typeDir   = 0o040000
	typeChar  = 0o020000
	typeFIFO  = 0o010000
)

// makedev is makedev(3).
func makedev(major, minor uint64) uint64 {
	return minor&0xff | major&0xfff<<8 | minor&^0xff<<12 | major&^0xfff<<32
}

// file adds a regular file: an object that can be rewritten, or plain data.
func (l *layer) file(a archive.Header, content io.Reader) error {
	if a.Size < 64 || l.opts.NoRewrite {
		return l.w.Add(a, content)
	}
	var head [64]byte
	if _, err := io.ReadFull(content, head[:]); err != nil {
		return fmt.Errorf("read content: %w", err)
	}
	whole := io.MultiReader(strings.NewReader(string(head[:])), content)
	if !object.Magic(head[:]) {
		return l.w.Add(a, whole)
	}
	if err := object.Head(head[:]); err != nil {
		if !object.Relocatable(head[:]) {
			l.left(a, err)
		}
		return l.w.Add(a, whole)
	}
	if a.Size > maxObject {
		l.left(a, fmt.Errorf("larger than %d MiB", maxObject>>20))
		return l.w.Add(a, whole)
	}
	return l.object(a, whole)
}

// source counts what is read, keeps the error and the last bytes, and ends
// when the context does.
type source struct {
	ctx      context.Context
	r        io.Reader
	n        int64
	told     int64
	err      error
	zeros    int64 // zero bytes at the end
	progress func(int64)
}

func (s *source) Read(p []byte) (int, error) {
	if err := s.ctx.Err(); err != nil {
		s.err = err
		return 0, err
	}
	n, err := s.r.Read(p)
	s.n += int64(n)
	z := n
	for z > 0 && n-z < 1024 && p[z-1] == 0 {
		z--
	}
	if z > 0 {
		s.zeros = 0
	}
	s.zeros += int64(n - z)
	if s.progress != nil && (s.n-s.told >= 1<<20 || err == io.EOF) {
		s.told = s.n
		s.progress(s.n)
	}
	if err != nil && err != io.EOF {
		s.err = err
	}
	return n, err
}

// ended says whether the stream had the two zero blocks at its end.
func (s *source) ended() bool { return s.zeros >= 1024 || s.n == 0 }

// counter counts what is written.
type counter struct {
	w io.Writer
	n int64
}

func (c *counter) Write(p []byte) (int, error) {
	n, err := c.w.Write(p)
	c.n += int64(n)
	return n, err
}
