package image

import (
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"slices"

	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/zeebo/blake3"
	"golang.org/x/sys/unix"

	"github.com/nabla-build/nabla-build/archive"
	"github.com/nabla-build/nabla-build/link"
	"github.com/nabla-build/nabla-build/manifest"
	"github.com/nabla-build/nabla-build/release"
)

// Root is the root directory of a nabla image in the making, where somebody
// else makes layers of directories, as BuildKit does: first the tender, then
// archives, lowest first, then the manifest. Files have the modes, owners and
// times that they have in layers of Relink.
type Root struct{ Dir string }

// Piece is an archive in a Root: what the manifest and the report say of it.
type Piece struct {
	Archive manifest.Archive `json:"archive"`
	Report  link.LayerReport `json:"report"`
}

// file makes a file of root's.
func (r Root) file(name string, mode fs.FileMode, write func(io.Writer) error) error {
	p := filepath.Join(r.Dir, name)
	f, err := os.OpenFile(p, os.O_CREATE|os.O_EXCL|os.O_WRONLY, 0o600)
	if err != nil {
		return err
	}
	defer f.Close()
	if err := write(f); err != nil {
		return fmt.Errorf("%s: %w", p, err)
	}
	if err := errors.Join(f.Chmod(mode), f.Close()); err != nil {
		return err
	}
	return os.Chtimes(p, epoch, epoch)
}

// dir makes a directory of root's, or sets the mode and time of one that is
// there.
func (r Root) dir(name string, mode int64) error {
	p := filepath.Join(r.Dir, name)
	if err := os.MkdirAll(p, 0o755); err != nil {
		return err
	}
	// os.Chmod has its own sticky bit.
	if err := unix.Chmod(p, uint32(mode)); err != nil {
		return fmt.Errorf("chmod %s: %w", p, err)
	}
	return os.Chtimes(p, epoch, epoch)
}

// AddTender writes the executables of the release.
func (r Root) AddTender() error {
	for _, a := range []release.Asset{release.Tender, release.Netd} {
		c, _, err := release.Open(a)
		if err != nil {
			return err
		}
		err = r.file(string(a), 0o755, func(w io.Writer) error {
			_, err := io.Copy(w, c)
			return err
		})
		c.Close()
		if err != nil {
			return err
		}
	}
	return nil
}

// AddArchive relinks a layer, a tar stream that write writes, into an archive in
// one piece.
func (r Root) AddArchive(ctx context.Context, write func(io.Writer) error, o link.Options) (Piece, error) {
	if err := os.MkdirAll(filepath.Join(r.Dir, nablaDir), 0o755); err != nil {
		return Piece{}, err
	}
	// The name, of the layer's diff ID, is known at the end only.
	f, err := os.CreateTemp(filepath.Join(r.Dir, nablaDir), "tmp-")
	if err != nil {
		return Piece{}, err
	}
	defer os.Remove(f.Name()) // unless it was renamed
	defer f.Close()
	pr, pw := io.Pipe()
	defer pr.Close()
	source, sum := sha256.New(), blake3.New()
	go func() { pw.CloseWithError(write(io.MultiWriter(pw, source))) }()
	p := Piece{}
	if p.Report, err = link.Layer(ctx, pr, io.MultiWriter(f, sum), o); err != nil {
		return Piece{}, err
	}
	size, err := f.Seek(0, io.SeekCurrent)
	if err != nil {
		return Piece{}, err
	}
	if err := errors.Join(f.Chmod(0o444), f.Close()); err != nil {
		return Piece{}, err
	}
	diffID := v1.Hash{Algorithm: "sha256", Hex: fmt.Sprintf("%x", source.Sum(nil))}
	p.Archive = manifest.Archive{
		File:   manifest.File{Path: archivePath(diffID), Digest: archiveDigest(sum), Size: size},
		Source: diffID.String(),
	}
	// Two equal layers, as of instructions that change nothing, must not share a
	// file: BuildKit leaves a file out of a layer that is the same below.
	for n := 1; ; n++ {
		if _, err := os.Lstat(filepath.Join(r.Dir, p.Archive.Path)); errors.Is(err, fs.ErrNotExist) {
			break
		} else if err != nil {
			return Piece{}, err
		}
		p.Archive.Path = fmt.Sprintf("/%s/%s.%d.cpio", nablaDir, diffID.Hex, n)
	}
	name := filepath.Join(r.Dir, p.Archive.Path)
	if err := errors.Join(os.Chtimes(f.Name(), epoch, epoch), os.Rename(f.Name(), name)); err != nil {
		return Piece{}, err
	}
	return p, r.dir(nablaDir, 0o755)
}

// Settings are what a manifest has beside the image's configuration.
type Settings struct {
	Network string
	Memory  uint64 // bytes; 0: the container's limit
}

// A ConfigError says that the image's configuration cannot be run with its
// files.
type ConfigError struct{ error }

func (e ConfigError) Unwrap() error { return e.error }

// AddManifest writes the manifest and the report for the pieces, which are
// all there, and the directories to mount on. The program of the result can be
// started; a ConfigError if not. Warnings are one sentence each.
func (r Root) AddManifest(pieces []Piece, c v1.Config, set Settings) (m *manifest.Manifest, rep link.Report, warnings []string, err error) {
	root, unmap, err := views(len(pieces), func(i int) (*archive.Reader, func(), error) {
		return openArchive(filepath.Join(r.Dir, pieces[i].Archive.Path))
	})
	if err != nil {
		return nil, rep, nil, err
	}
	defer unmap()
	warn := func(format string, a ...any) { warnings = append(warnings, fmt.Sprintf(format, a...)) }
	var archives []manifest.Archive
	for _, p := range pieces {
		archives = append(archives, p.Archive)
		rep.Layers = append(rep.Layers, p.Report)
	}
	b, err := encodeReport(rep)
	if err != nil {
		return nil, rep, nil, err
	}
	if m, err = describe(root, c, archives, b, warn); err != nil {
		return nil, rep, nil, ConfigError{err}
	}
	m.Network, m.Memory = set.Network, set.Memory
	enc, err := m.Encode()
	if err != nil {
		return nil, rep, nil, ConfigError{err}
	}
	if err := os.MkdirAll(filepath.Join(r.Dir, nablaDir), 0o755); err != nil {
		return nil, rep, nil, err
	}
	for name, content := range map[string][]byte{manifest.Path: enc, reportPath: b} {
		if err := r.file(name, 0o444, func(w io.Writer) error { _, err := w.Write(content); return err }); err != nil {
			return nil, rep, nil, err
		}
	}
	dirs := mountPoints(m.Guest.WorkingDir)
	names := slices.Sorted(maps.Keys(dirs))
	slices.Reverse(names) // children before their parents, whose time they change
	for _, d := range names {
		if err := r.dir(d, dirs[d]); err != nil {
			return nil, rep, nil, err
		}
	}
	return m, rep, warnings, nil
}

// AddNote writes a file beside the manifest.
func (r Root) AddNote(name string, content []byte) error {
	if err := os.MkdirAll(filepath.Join(r.Dir, nablaDir), 0o755); err != nil {
		return err
	}
	if err := r.file(nablaDir+"/"+name, 0o444, func(w io.Writer) error { _, err := w.Write(content); return err }); err != nil {
		return err
	}
	return r.dir(nablaDir, 0o755)
}

// WriteExecutable writes the self-contained form of the image whose manifest
// has been added.
func (r Root) WriteExecutable(ctx context.Context, w io.Writer) error {
	f, err := os.Open(filepath.Join(r.Dir, manifest.Path))
	if err != nil {
		return err
	}
	defer f.Close()
	m, err := manifest.Decode(f)
	if err != nil {
		return err
	}
	rep, err := os.ReadFile(filepath.Join(r.Dir, reportPath))
	if err != nil {
		return err
	}
	return writeExecutable(ctx, w, m, rep, func(i int, f func(io.Reader) error) error {
		in, err := os.Open(filepath.Join(r.Dir, m.Archives[i].Path))
		if err != nil {
			return err
		}
		defer in.Close()
		return f(in)
	})
}
