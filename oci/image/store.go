package image

import (
	"archive/tar"
	"context"
	"crypto/sha256"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"time"

	v1 "github.com/google/go-containerregistry/pkg/v1"
	"golang.org/x/sys/unix"

	"github.com/nabla-build/nabla-build/archive"
	"github.com/nabla-build/nabla-build/link"
	"github.com/nabla-build/nabla-build/oci/rootview"
)

// Store keeps relinked layers as files: a cache, or a temporary directory that
// Close removes. Several processes may use one cache at the same time; entries
// come into being by renaming and never change.
//
//	DIR/KEY/sha256-DIFFID/archive.cpio    the archive
//	DIR/KEY/sha256-DIFFID/layer.json      its digest and report
//	DIR/KEY/sha256-DIFFID/layer.tar.gz    the compressed layer, once needed,
//	DIR/KEY/sha256-DIFFID/packed.json     and its digests
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

// keepFor is how long a cache keeps what another build of nabla-build made,
// and what was left of one that was killed.
const keepFor = 30 * 24 * time.Hour

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
	for _, pattern := range []string{filepath.Join(dir, "????????????????"), filepath.Join(s.dir, "tmp-*")} {
		found, _ := filepath.Glob(pattern)
		for _, f := range found {
			if fi, err := os.Stat(f); err == nil && now.Sub(fi.ModTime()) > keepFor {
				os.RemoveAll(f)
			}
		}
	}
	return s, nil
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
	shared bool // of a cache
	// Digest and Size are the archive's.
	Digest v1.Hash          `json:"digest"`
	Size   int64            `json:"size"`
	Report link.LayerReport `json:"report"`
}

func (e *entry) archive() string { return filepath.Join(e.dir, "archive.cpio") }

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
	e := &entry{dir: filepath.Join(s.dir, entryName(diffID)), shared: !s.temporary}
	if err := readJSON(filepath.Join(e.dir, "layer.json"), e); err != nil {
		return nil, false
	}
	if fi, err := os.Stat(e.archive()); err != nil || fi.Size() != e.Size {
		return nil, false
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

// create relinks a layer, read from open, into the store.
func (s *Store) create(ctx context.Context, diffID v1.Hash, open func() (io.ReadCloser, error), opts link.Options) (*entry, error) {
	err := s.scratch(entryName(diffID), func(dir string) error {
		e := &entry{dir: dir}
		f, err := os.OpenFile(e.archive(), os.O_CREATE|os.O_WRONLY|os.O_EXCL, 0o644)
		if err != nil {
			return err
		}
		defer f.Close()
		rc, err := open()
		if err != nil {
			return err
		}
		defer rc.Close()
		out := &hashed{w: f, h: sha256.New()}
		opts.TempDir = dir
		if e.Report, err = link.Layer(ctx, rc, out, opts); err != nil {
			return err
		}
		if err := f.Close(); err != nil {
			return err
		}
		e.Digest, e.Size = out.sum(), out.n
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

// pack makes the OCI layer of an entry, or finds it made.
func (e *entry) pack(ctx context.Context) (fileLayer, error) {
	l, err := packedIn(ctx, e.dir, func(tw *tar.Writer) error {
		f, err := os.Open(e.archive())
		if err != nil {
			return err
		}
		defer f.Close()
		return addFile(tw, archivePath(e.Digest)[1:], 0o444, e.Size, f)
	})
	l.shared = e.shared
	return l, err
}

// packedIn is the compressed layer in dir, made by fill if it is not there;
// os.ErrNotExist if fill is nil.
func packedIn(ctx context.Context, dir string, fill func(*tar.Writer) error) (fileLayer, error) {
	l := fileLayer{path: filepath.Join(dir, "layer.tar.gz")}
	meta := filepath.Join(dir, "packed.json")
	if err := readJSON(meta, &l.packed); err == nil {
		if fi, err := os.Stat(l.path); err == nil && fi.Size() == l.packed.Size {
			return l, nil
		}
	}
	if fill == nil {
		return l, os.ErrNotExist
	}
	f, err := os.CreateTemp(dir, "tmp-")
	if err != nil {
		return l, err
	}
	defer os.Remove(f.Name())
	defer f.Close()
	if l.packed, err = packLayer(ctx, f, fill); err != nil {
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
	return l, writeJSON(meta, l.packed)
}

// isNotEmpty is rename(2)'s answer where a directory is in the way.
func isNotEmpty(err error) bool {
	return errors.Is(err, unix.ENOTEMPTY) || errors.Is(err, unix.EEXIST)
}

// mapArchives opens archives in files for looking things up.
func mapArchives(files []string) (rootview.View, func(), error) {
	var v rootview.View
	var maps [][]byte
	unmap := func() {
		for _, m := range maps {
			unix.Munmap(m)
		}
	}
	for _, name := range files {
		m, err := mapFile(name)
		if err != nil {
			unmap()
			return nil, nil, fmt.Errorf("map the archive: %w", err)
		}
		maps = append(maps, m)
		r, err := archive.Open(m)
		if err != nil {
			unmap()
			return nil, nil, fmt.Errorf("%s: %w", name, err)
		}
		v = append(v, r)
	}
	return v, unmap, nil
}

func mapFile(name string) ([]byte, error) {
	f, err := os.Open(name)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	fi, err := f.Stat()
	if err != nil {
		return nil, err
	}
	return unix.Mmap(int(f.Fd()), 0, int(fi.Size()), unix.PROT_READ, unix.MAP_PRIVATE)
}

// Dir is the directory in which this program's entries are; others may keep
// files there under names of their own.
func (s *Store) Dir() string { return s.dir }
