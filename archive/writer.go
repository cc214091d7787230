package archive

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"strings"

	"github.com/u-root/u-root/pkg/cpio"
)

// Header describes one file to be added.
type Header struct {
	// Name is the path relative to the root, components separated by "/"; ""
	// or "." is the root itself.
	Name string
	// Mode is st_mode: type and permissions.
	Mode     uint32
	UID, GID uint32
	// MtimeSec and MtimeNsec are the time of last modification, seconds since
	// 1970 and 0 to 999999999 nanoseconds.
	MtimeSec  int64
	MtimeNsec uint32
	// Size is the number of bytes of a regular file; 0 otherwise.
	Size int64
	// Rdev is the device number of a device node, as makedev(3) makes it.
	Rdev uint64
	// Link is the target of a symbolic link.
	Link string
	// Xattrs need not be sorted; the Writer keeps the slice.
	Xattrs []Xattr
	// Patch says that the content is rewritten. The Writer keeps it.
	Patch *Patch
}

// Writer writes an archive, front to back, to an io.Writer. It keeps the index
// in memory (some 200 bytes a file) but no file content, other than the stubs
// of patches. The same calls give the same bytes. It is for one goroutine.
//
// Names follow the rules that unpacking a layer over a directory has:
//   - missing parent directories are made, root's, mode 0755, and marked Implied;
//   - a parent that is a symbolic link of this archive is followed;
//   - a name that is added again replaces the earlier one (a directory that is
//     added again keeps its children). The content of the earlier one stays in
//     the archive as dead bytes, it has left for the io.Writer already.
//
// After an error the archive is of no use, and all further calls return the
// same error.
type Writer struct {
	w    *bufio.Writer
	pos  uint64
	ino  uint64 // of the last cpio record
	root *dirent
	err  error
}

// dirent is one name; file is nil for a name that is whited out only.
type dirent struct {
	name     string
	parent   *dirent
	file     *file
	children map[string]*dirent // of a directory
	whiteout bool
}

// file is what hard links share.
type file struct {
	Header
	dataOff uint64
	cpioIno uint64
	lower   string // path of the file in a lower layer
	isLower bool
	opaque  bool
	implied bool
	// set by Close
	index  uint32
	placed bool
	nlink  uint32
}

// NewWriter returns a Writer to w. Nothing is written before the first Add or
// Close. The caller closes w, after Close of the Writer.
func NewWriter(w io.Writer) *Writer {
	return &Writer{w: bufio.NewWriterSize(w, 1<<20)}
}

func impliedDir() *file {
	return &file{Header: Header{Mode: typeDir | 0o755}, implied: true}
}

// start writes the record of the root.
func (w *Writer) start() error {
	if w.root != nil {
		return w.err
	}
	w.root = &dirent{children: map[string]*dirent{}, file: impliedDir()}
	w.root.parent = w.root
	return w.record(".", w.root.file, 0, nil)
}

func (w *Writer) fail(name, what string, err error) error {
	w.err = fmt.Errorf("archive: %s: %s: %w", name, what, err)
	return w.err
}

// Reasons for which a name or header is refused.
var (
	errName    = errors.New("not a name of a file below the root")
	errTooLong = errors.New("name too long")
	errLoop    = errors.New("too many levels of symbolic links")
	errNotDir  = errors.New("not a directory")
)

func split(name string) ([]string, error) {
	if len(name) > MaxPathLen {
		return nil, errTooLong
	}
	var parts []string
	for p := range strings.SplitSeq(name, "/") {
		switch {
		case p == "" || p == ".":
			continue
		case p == ".." || strings.IndexByte(p, 0) >= 0:
			return nil, errName
		case len(p) > MaxNameLen:
			return nil, errTooLong
		}
		parts = append(parts, p)
	}
	return parts, nil
}

// walk returns the directory at a path. Symbolic links are followed, missing
// directories made, or, without create, answered by nil.
func (w *Writer) walk(parts []string, create bool) (*dirent, error) {
	d, links := w.root, 0
	for len(parts) > 0 {
		p := parts[0]
		parts = parts[1:]
		if p == ".." { // from the target of a symbolic link
			d = d.parent
			continue
		}
		c := d.children[p]
		switch {
		case c == nil || c.file == nil:
			if !create {
				return nil, nil
			}
			n := &dirent{name: p, parent: d, children: map[string]*dirent{}, file: impliedDir()}
			n.whiteout = c != nil
			d.children[p] = n
			if err := w.record(n.path(), n.file, 0, nil); err != nil {
				return nil, err
			}
			d = n
		case c.file.Mode&typeMask == typeLink:
			if links++; links > 40 {
				return nil, errLoop
			}
			if strings.HasPrefix(c.file.Link, "/") {
				d = w.root
			}
			var target []string
			for q := range strings.SplitSeq(c.file.Link, "/") {
				if q != "" && q != "." {
					target = append(target, q)
				}
			}
			parts = append(target, parts...)
		case c.file.Mode&typeMask == typeDir:
			d = c
		default:
			return nil, fmt.Errorf("%s: %w", c.path(), errNotDir)
		}
	}
	return d, nil
}

func (d *dirent) path() string {
	if d.parent == d {
		return "."
	}
	p := d.name
	for d = d.parent; d.parent != d; d = d.parent {
		p = d.name + "/" + p
	}
	return p
}

// Add writes one file. A regular file's content is read from content, exactly
// Size bytes; for others content is nil. Errors name the file; an error of
// content is wrapped.
func (w *Writer) Add(h Header, content io.Reader) error {
	if err := w.start(); err != nil {
		return err
	}
	parts, err := split(h.Name)
	if err != nil {
		return w.fail(h.Name, "add", err)
	}
	if err := check(&h); err != nil {
		return w.fail(h.Name, "add", err)
	}
	if len(parts) == 0 {
		if h.Mode&typeMask != typeDir {
			return w.fail(h.Name, "add", fmt.Errorf("the root: %w", errNotDir))
		}
		w.root.file.Header, w.root.file.implied = h, false
		return w.record(".", w.root.file, 0, nil)
	}
	name := parts[len(parts)-1]
	dir, err := w.walk(parts[:len(parts)-1], true)
	if err != nil {
		return w.fail(h.Name, "add", err)
	}
	f := &file{Header: h}
	d := dir.children[name]
	if d != nil && d.isDir() && h.Mode&typeMask == typeDir {
		d.file.Header, d.file.implied = h, false
		f = d.file
	} else {
		n := &dirent{name: name, parent: dir, file: f, whiteout: d != nil && d.whiteout}
		if h.Mode&typeMask == typeDir {
			n.children = map[string]*dirent{}
		}
		d = n
		dir.children[name] = d
	}
	return w.record(d.path(), f, h.Size, content)
}

func (d *dirent) isDir() bool { return d.file != nil && d.file.Mode&typeMask == typeDir }

// check refuses headers that the format cannot hold.
func check(h *Header) error {
	switch t := h.Mode & typeMask; t {
	case typeReg:
		if h.Size < 0 || h.Size > MaxFileSize {
			return fmt.Errorf("a file of %d bytes: the archive format holds files below 4 GiB", h.Size)
		}
	case typeLink:
		if h.Link == "" || len(h.Link) > MaxPathLen || strings.IndexByte(h.Link, 0) >= 0 {
			return fmt.Errorf("symbolic link with a target of %d bytes (1 to %d, without NUL, are possible)", len(h.Link), MaxPathLen)
		}
		h.Size = 0
	case typeDir, typeBlock, typeChar, typeFIFO, typeSock:
		h.Size = 0
	default:
		return fmt.Errorf("unknown file type %#o", t)
	}
	if h.Patch != nil && h.Mode&typeMask != typeReg {
		return errors.New("a patch for something that is no regular file")
	}
	if h.MtimeNsec >= 1e9 {
		return fmt.Errorf("%d nanoseconds", h.MtimeNsec)
	}
	return nil
}

// HardLink adds a further name for the file that target, a path relative to
// the root, names at this moment. If this archive has no such name the link is
// recorded by path, and refers to the file of that name in the layers below
// (Node.LowerLink): the layer must not be used without them.
func (w *Writer) HardLink(name, target string) error {
	if err := w.start(); err != nil {
		return err
	}
	parts, err := split(name)
	if err == nil && len(parts) == 0 {
		err = errName
	}
	if err != nil {
		return w.fail(name, "add hard link", err)
	}
	tparts, err := split(target)
	if err == nil && len(tparts) == 0 {
		err = errName
	}
	if err != nil {
		return w.fail(name, "add hard link to "+target, err)
	}
	var f *file
	// A whiteout hides what lies below, so it does not count as a name here.
	tdir, err := w.walk(tparts[:len(tparts)-1], false)
	if err != nil {
		return w.fail(name, "add hard link to "+target, err)
	}
	if tdir != nil {
		if t := tdir.children[tparts[len(tparts)-1]]; t != nil && t.file != nil {
			if t.isDir() {
				return w.fail(name, "add hard link to "+target, errors.New("it is a directory"))
			}
			f = t.file
		}
	}
	dir, err := w.walk(parts[:len(parts)-1], true)
	if err != nil {
		return w.fail(name, "add hard link", err)
	}
	last := parts[len(parts)-1]
	if f == nil {
		f = &file{Header: Header{Mode: typeReg}, isLower: true, lower: strings.Join(tparts, "/")}
	}
	old := dir.children[last]
	d := &dirent{name: last, parent: dir, file: f, whiteout: old != nil && old.whiteout}
	dir.children[last] = d
	return w.record(d.path(), f, 0, nil)
}

// Whiteout records that name does not exist in the layers below. What this
// archive itself has under the name stays (OCI image layer specification).
func (w *Writer) Whiteout(name string) error {
	if err := w.start(); err != nil {
		return err
	}
	parts, err := split(name)
	if err == nil && len(parts) == 0 {
		err = errName
	}
	if err != nil {
		return w.fail(name, "add whiteout", err)
	}
	dir, err := w.walk(parts[:len(parts)-1], true)
	if err != nil {
		return w.fail(name, "add whiteout", err)
	}
	last := parts[len(parts)-1]
	d := dir.children[last]
	if d == nil {
		d = &dirent{name: last, parent: dir}
		dir.children[last] = d
	}
	d.whiteout = true
	return w.marker(dir, ".wh."+last)
}

// Opaque records that what the layers below have in directory name is hidden.
func (w *Writer) Opaque(name string) error {
	if err := w.start(); err != nil {
		return err
	}
	parts, err := split(name)
	if err != nil {
		return w.fail(name, "add opaque whiteout", err)
	}
	dir, err := w.walk(parts, true)
	if err != nil {
		return w.fail(name, "add opaque whiteout", err)
	}
	dir.file.opaque = true
	return w.marker(dir, ".wh..wh..opq")
}

// marker writes the record of a whiteout, the way a layer tar has it.
func (w *Writer) marker(dir *dirent, name string) error {
	if dir != w.root {
		name = dir.path() + "/" + name
	}
	return w.record(name, &file{Header: Header{Mode: typeReg}}, 0, nil)
}

// record writes one cpio record. The content of a regular file starts at a
// page: the name is padded with NULs, which readers of newc take as its end.
func (w *Writer) record(name string, f *file, size int64, content io.Reader) error {
	if w.err != nil {
		return w.err
	}
	if f.cpioIno == 0 {
		w.ino++
		f.cpioIno = w.ino
	}
	info := cpio.Info{
		Ino: f.cpioIno, Mode: uint64(f.Mode), UID: uint64(f.UID), GID: uint64(f.GID),
		NLink: 1, MTime: uint64(min(max(f.MtimeSec, 0), 1<<32-1)), FileSize: uint64(size),
		Rmajor: major(f.Rdev), Rminor: minor(f.Rdev), Name: name,
	}
	if t := f.Mode & typeMask; t == typeReg {
		// A later record may be a hard link; unpackers note an inode only if
		// it says that there is more than one name.
		info.NLink = 2
	} else if t == typeDir {
		info.NLink = 2
	}
	rec := cpio.Record{Info: info}
	switch {
	case size > 0:
		if err := w.align(&rec); err != nil {
			return err
		}
		f.dataOff = w.pos + newcHeader + uint64(len(rec.Name)) + 1
		if content == nil {
			content = strings.NewReader("")
		}
		rec.ReaderAt = &sequential{r: io.LimitReader(content, size), rest: content}
	case f.Mode&typeMask == typeLink:
		rec.FileSize = uint64(len(f.Link))
		rec.ReaderAt = &sequential{r: strings.NewReader(f.Link)}
	}
	return w.write(rec)
}

const newcHeader = 110

// align pads the name of rec so that the content starts at a page. Unpackers
// take names of up to PATH_MAX bytes; where more were needed an extra record
// of the root is put before it.
func (w *Writer) align(rec *cpio.Record) error {
	for filled := false; ; filled = true {
		start := w.pos + newcHeader
		end := (start + uint64(len(rec.Name)) + 1 + pageSize - 1) &^ (pageSize - 1)
		if end-start <= pageSize || filled {
			rec.Name += strings.Repeat("\x00", int(end-start)-len(rec.Name)-1)
			return nil
		}
		filler := cpio.Record{Info: cpio.Info{
			Ino: w.root.file.cpioIno, Mode: uint64(w.root.file.Mode), UID: uint64(w.root.file.UID),
			GID: uint64(w.root.file.GID), NLink: 2, MTime: uint64(min(max(w.root.file.MtimeSec, 0), 1<<32-1)),
		}}
		// Up to the page: at least 2 bytes, as start is 2 more than a multiple of 4.
		n := pageSize - int(start%pageSize)
		filler.Name = "." + strings.Repeat("\x00", n-2)
		if err := w.write(filler); err != nil {
			return err
		}
	}
}

// write writes a record at w.pos, which is a multiple of 4.
func (w *Writer) write(rec cpio.Record) error {
	// One cpio writer a record: a longer-lived one would drop names that come again.
	cw := &counter{w: w.w}
	err := cpio.Newc.Writer(cw).WriteRecord(rec)
	w.pos += cw.n
	if s, ok := rec.ReaderAt.(*sequential); ok && err == nil && s.more() {
		err = fmt.Errorf("content is longer than %d bytes", rec.FileSize)
	}
	if err != nil {
		name, _, _ := strings.Cut(rec.Name, "\x00")
		if s, ok := rec.ReaderAt.(*sequential); ok && s.err != nil {
			return w.fail(name, "read content", s.err)
		} else if ok && s.off < int64(rec.FileSize) && cw.err == nil {
			return w.fail(name, "read content", fmt.Errorf("%d bytes instead of %d: %w", s.off, rec.FileSize, io.ErrUnexpectedEOF))
		}
		return w.fail(name, "write", err)
	}
	return nil
}

// counter counts what was written and keeps the error.
type counter struct {
	w   io.Writer
	n   uint64
	err error
}

func (c *counter) Write(p []byte) (int, error) {
	n, err := c.w.Write(p)
	c.n += uint64(n)
	if err != nil {
		c.err = err
	}
	return n, err
}

// sequential is an io.ReaderAt for a reader that reads front to back only.
type sequential struct {
	r    io.Reader
	rest io.Reader // what r is a part of, if there may be more
	off  int64
	err  error
}

func (s *sequential) ReadAt(p []byte, off int64) (int, error) {
	if off != s.off {
		return 0, fmt.Errorf("read at %d, position is %d", off, s.off)
	}
	n, err := s.r.Read(p)
	s.off += int64(n)
	if err != nil && err != io.EOF {
		s.err = err
	}
	return n, err
}

// more says whether the reader has anything left.
func (s *sequential) more() bool {
	if s.rest == nil {
		return false
	}
	var b [1]byte
	n, _ := io.ReadFull(s.rest, b[:])
	return n > 0
}

// major and minor take the kernel's 64-bit device number apart (makedev(3)).
func major(dev uint64) uint64 { return dev>>8&0xfff | dev>>32&^0xfff }
func minor(dev uint64) uint64 { return dev&0xff | dev>>12&^0xff }
