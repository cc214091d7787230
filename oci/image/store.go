package image

import (
	"bufio"
	"cmp"
	"context"
	"crypto/sha256"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"time"

	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/zeebo/blake3"
	"golang.org/x/sys/unix"

	"github.com/nabla-build/nabla-build/archive"
	"github.com/nabla-build/nabla-build/link"
	"github.com/nabla-build/nabla-build/oci/rootview"
)

// Store keeps relinked layers as files: a cache, or a temporary directory that
// Close removes. Several processes may use one cache at the same time; entries
// come into being by renaming, and what is in them never changes.
//
//	DIR/KEY/sha256-DIFFID/layer.json      the archive's digest and report
//	DIR/KEY/sha256-DIFFID/archive.cpio    the archive, or
//	DIR/KEY/sha256-DIFFID/layer.tar.gz    the compressed layer that holds it,
//	DIR/KEY/sha256-DIFFID/packed.json     and its digests; or both
//
// KEY names the program that made the entries, so that another build of
// nabla-build never takes what an earlier one made.
type Store struct {
	dir       string
	temporary bool
}

// NewStore makes a temporary store below the directory for temporary files.
func NewStore() (*Store, error) {
	dir, err := os.MkdirTemp("", "nabla-build-")
	if err != nil {
		return nil, fmt.Errorf("temporary files: %w", err)
	}
	return &Store{dir: dir, temporary: true}, nil
}

// A cache keeps what was left of a killed program for keepFor, and what other
// builds of nabla-build made: the keepBuilds that were used last for keepFor,
// older ones while they may be in use.
const (
	keepFor    = 30 * 24 * time.Hour
	keepBuilds = 2
	inUse      = time.Hour
)

// OpenStore opens, or makes, a cache in a directory.
func OpenStore(dir string) (*Store, error) {
	key, err := self()
	if err != nil {
		return nil, fmt.Errorf("cache: %w", err)
	}
	s := &Store{dir: filepath.Join(dir, key)}
	if err := os.MkdirAll(s.dir, 0o755); err != nil {
		return nil, fmt.Errorf("cache: %w", err)
	}
	now := time.Now()
	os.Chtimes(s.dir, now, now)
	removeOld(filepath.Join(s.dir, "tmp-*"), now, 1<<30)
	removeOld(filepath.Join(dir, "????????????????"), now, 1+keepBuilds)
	return s, nil
}

// removeOld removes what matches pattern and is older than keepFor, or is not
// among the newest and not in use.
func removeOld(pattern string, now time.Time, newest int) {
	type entry struct {
		name string
		age  time.Duration
	}
	var all []entry
	found, _ := filepath.Glob(pattern)
	for _, f := range found {
		if fi, err := os.Stat(f); err == nil {
			all = append(all, entry{f, now.Sub(fi.ModTime())})
		}
	}
	slices.SortFunc(all, func(a, b entry) int { return cmp.Compare(a.age, b.age) })
	for i, e := range all {
		if e.age > keepFor || i >= newest && e.age > inUse {
			os.RemoveAll(e.name)
		}
	}
}

// self names the running program by its content.
func self() (string, error) {
	f, err := os.Open("/proc/self/exe")
	if err != nil {
		return "", err
	}
	defer f.Close()
	h := sha256.New()
	if _, err := io.Copy(h, f); err != nil {
		return "", err
	}
	return fmt.Sprintf("%x", h.Sum(nil))[:16], nil
}

// Close removes a temporary store.
func (s *Store) Close() error {
	if !s.temporary {
		return nil
	}
	return os.RemoveAll(s.dir)
}

// entry is a relinked layer in a store.
type entry struct {
	dir    string
	diffID v1.Hash
	shared bool // of a cache
	// Digest and Size are the archive's.
	Digest string           `json:"digest"`
	Size   int64            `json:"size"`
	Report link.LayerReport `json:"report"`
}

func (e *entry) archive() string { return filepath.Join(e.dir, "archive.cpio") }

// whole says whether the archive is there as it is.
func (e *entry) whole() bool {
	fi, err := os.Stat(e.archive())
	return err == nil && fi.Size() == e.Size
}

func readJSON(path string, v any) error {
	b, err := os.ReadFile(path)
	if err != nil {
		return err
	}
	return json.Unmarshal(b, v)
}

func writeJSON(path string, v any) error {
	b, err := json.Marshal(v)
	if err != nil {
		return err
	}
	return os.WriteFile(path, b, 0o644)
}

func entryName(diffID v1.Hash) string { return diffID.Algorithm + "-" + diffID.Hex }

// get finds the relinked form of a layer.
func (s *Store) get(diffID v1.Hash) (*entry, bool) {
	e := &entry{dir: filepath.Join(s.dir, entryName(diffID)), diffID: diffID, shared: !s.temporary}
	if err := readJSON(filepath.Join(e.dir, "layer.json"), e); err != nil {
		return nil, false
	}
	if !e.whole() {
		if _, err := packedIn(e.dir); err != nil {
			return nil, false
		}
	}
	return e, true
}

// scratch makes a directory for f to fill, and gives it its name if f succeeds.
func (s *Store) scratch(name string, f func(dir string) error) error {
	tmp, err := os.MkdirTemp(s.dir, "tmp-")
	if err != nil {
		return err
	}
	defer os.RemoveAll(tmp)
	if err := f(tmp); err != nil {
		return err
	}
	if err := os.Chmod(tmp, 0o755); err != nil {
		return err
	}
	to := filepath.Join(s.dir, name)
	err = os.Rename(tmp, to)
	if isNotEmpty(err) {
		// Another process was faster, or an entry was damaged: ours is whole.
		if err := os.RemoveAll(to); err != nil {
			return err
		}
		err = os.Rename(tmp, to)
	}
	return err
}

// create relinks a layer, read from open, into the store: as an archive, or
// packed.
func (s *Store) create(ctx context.Context, diffID v1.Hash, open func() (io.ReadCloser, error), opts link.Options, whole bool) (*entry, error) {
	err := s.scratch(entryName(diffID), func(dir string) error {
		e := &entry{dir: dir, diffID: diffID}
		rc, err := open()
		if err != nil {
			return err
		}
		defer rc.Close()
		opts.TempDir = dir
		if whole {
			err = e.writeWhole(ctx, rc, opts)
		} else {
			_, err = e.writePacked(ctx, func(w io.Writer) error {
				e.Report, err = link.Layer(ctx, rc, w, opts)
				return err
			})
		}
		if err != nil {
			return err
		}
		return writeJSON(filepath.Join(dir, "layer.json"), e)
	})
	if err != nil {
		return nil, err
	}
	e, ok := s.get(diffID)
	if !ok {
		return nil, fmt.Errorf("%s: the entry that was just made cannot be read", s.dir)
	}
	return e, nil
}

// writeWhole relinks a layer into the entry's archive.
func (e *entry) writeWhole(ctx context.Context, layer io.Reader, opts link.Options) error {
	f, err := os.OpenFile(e.archive(), os.O_CREATE|os.O_WRONLY|os.O_EXCL, 0o644)
	if err != nil {
		return err
	}
	defer f.Close()
	h := blake3.New()
	if e.Report, err = link.Layer(ctx, layer, io.MultiWriter(f, h), opts); err != nil {
		return err
	}
	if e.Size, err = f.Seek(0, io.SeekCurrent); err != nil {
		return err
	}
	e.Digest = archiveDigest(h)
	return f.Close()
}

// writePacked makes the entry's compressed layer of the archive that fill
// writes, and notes the archive's digest and size.
func (e *entry) writePacked(ctx context.Context, fill func(io.Writer) error) (fileLayer, error) {
	return writePackedIn(e.dir, func(w io.Writer) (packed, error) {
		p, err := newPacker(ctx, w, archivePath(e.diffID)[1:])
		if err != nil {
			return packed{}, err
		}
		if err := fill(p); err != nil {
			return packed{}, err
		}
		var l packed
		e.Digest, e.Size, l, err = p.close()
		return l, err
	})
}

// pack makes the OCI layer of an entry, or finds it made.
func (e *entry) pack(ctx context.Context) (fileLayer, error) {
	l, err := packedIn(e.dir)
	if err != nil {
		l, err = e.writePacked(ctx, func(w io.Writer) error {
			f, err := os.Open(e.archive())
			if err != nil {
				return err
			}
			defer f.Close()
			_, err = io.CopyBuffer(struct{ io.Writer }{w}, struct{ io.Reader }{f}, make([]byte, 1<<20))
			return err
		})
	}
	l.shared = e.shared
	return l, err
}

// unpack makes the archive of an entry that is packed only.
func (e *entry) unpack(ctx context.Context) error {
	if e.whole() {
		return nil
	}
	l, err := packedIn(e.dir)
	if err != nil {
		return err
	}
	f, err := os.CreateTemp(e.dir, "tmp-")
	if err != nil {
		return err
	}
	defer os.Remove(f.Name())
	defer f.Close()
	for i := range l.Parts {
		if err := l.unpackPart(i, contextWriter{ctx, f}); err != nil {
			return err
		}
	}
	if err := f.Chmod(0o644); err != nil {
		return err
	}
	if err := f.Close(); err != nil {
		return err
	}
	return os.Rename(f.Name(), e.archive())
}

// packedIn is the compressed layer in dir; an error if it is not there.
func packedIn(dir string) (fileLayer, error) {
	l := fileLayer{path: filepath.Join(dir, "layer.tar.gz")}
	if err := readJSON(filepath.Join(dir, "packed.json"), &l.packed); err != nil {
		return l, err
	}
	fi, err := os.Stat(l.path)
	if err == nil && fi.Size() != l.packed.Size {
		err = fmt.Errorf("%s: %d bytes, not %d", l.path, fi.Size(), l.packed.Size)
	}
	return l, err
}

// writePackedIn makes the compressed layer in dir.
func writePackedIn(dir string, write func(io.Writer) (packed, error)) (fileLayer, error) {
	l := fileLayer{path: filepath.Join(dir, "layer.tar.gz")}
	f, err := os.CreateTemp(dir, "tmp-")
	if err != nil {
		return l, err
	}
	defer os.Remove(f.Name())
	defer f.Close()
	bw := bufio.NewWriterSize(f, 1<<18)
	if l.packed, err = write(bw); err != nil {
		return l, err
	}
	if err := bw.Flush(); err != nil {
		return l, err
	}
	if err := f.Chmod(0o644); err != nil {
		return l, err
	}
	if err := f.Close(); err != nil {
		return l, err
	}
	if err := os.Rename(f.Name(), l.path); err != nil {
		return l, err
	}
	return l, writeJSON(filepath.Join(dir, "packed.json"), l.packed)
}

// isNotEmpty is rename(2)'s answer where a directory is in the way.
func isNotEmpty(err error) bool {
	return errors.Is(err, unix.ENOTEMPTY) || errors.Is(err, unix.EEXIST)
}

// views opens n archives one above the other, each by open.
func views(n int, open func(int) (*archive.Reader, func(), error)) (rootview.View, func(), error) {
	var v rootview.View
	var undo []func()
	done := func() {
		for _, f := range undo {
			f()
		}
	}
	for i := range n {
		r, f, err := open(i)
		if err != nil {
			done()
			return nil, nil, fmt.Errorf("archive %d: %w", i+1, err)
		}
		v, undo = append(v, r), append(undo, f)
	}
	return v, done, nil
}

// open opens the entry's archive for looking things up.
func (e *entry) open() (*archive.Reader, func(), error) {
	if !e.whole() {
		l, err := packedIn(e.dir)
		if err != nil {
			return nil, nil, err
		}
		return l.partial(e.dir, e.Size)
	}
	return openArchive(e.archive())
}

// openArchive maps the archive in a file; the function undoes that.
func openArchive(name string) (*archive.Reader, func(), error) {
	f, err := os.Open(name)
	if err != nil {
		return nil, nil, err
	}
	defer f.Close()
	m, err := mapWhole(f)
	if err != nil {
		return nil, nil, fmt.Errorf("%s: map: %w", name, err)
	}
	r, err := archive.Open(m)
	if err != nil {
		unmap(m)
		return nil, nil, fmt.Errorf("%s: %w", name, err)
	}
	return r, func() { unmap(m) }, nil
}

// mapWhole maps a file.
func mapWhole(f *os.File) ([]byte, error) {
	fi, err := f.Stat()
	if err != nil {
		return nil, err
	}
	return unix.Mmap(int(f.Fd()), 0, int(fi.Size()), unix.PROT_READ, unix.MAP_SHARED)
}

func unmap(m []byte) { _ = unix.Munmap(m) } // of what was mapped: cannot fail

// Dir is the directory in which this program's entries are; others may keep
// files there under names of their own.
func (s *Store) Dir() string { return s.dir }
