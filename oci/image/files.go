package image

import (
	"context"
	"crypto/sha256"
	"fmt"
	"io"
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

// The functions here make the parts of a nabla image as directories, each the
// content of one layer, for who packs layers himself: BuildKit does.

// Relinked is an archive that RelinkFile wrote.
type Relinked struct {
	Archive manifest.Archive `json:"archive"`
	Report  link.LayerReport `json:"report"`
}

// RelinkFile relinks a layer, a tar stream, into a file below dir, at the path
// of the result's Archive, in one piece. The layer's diff ID is found while it
// is read.
func RelinkFile(ctx context.Context, layer io.Reader, dir string, opts link.Options) (*Relinked, error) {
	at := filepath.Join(dir, nablaDir)
	if err := os.MkdirAll(at, 0o755); err != nil {
		return nil, err
	}
	f, err := os.CreateTemp(at, "tmp-")
	if err != nil {
		return nil, err
	}
	defer os.Remove(f.Name()) // unless it was renamed
	defer f.Close()
	in, out := sha256.New(), blake3.New()
	r := &Relinked{}
	if r.Report, err = link.Layer(ctx, io.TeeReader(layer, in), io.MultiWriter(f, out), opts); err != nil {
		return nil, err
	}
	id := v1.Hash{Algorithm: "sha256", Hex: fmt.Sprintf("%x", in.Sum(nil))}
	size, err := f.Seek(0, io.SeekCurrent)
	if err != nil {
		return nil, err
	}
	r.Archive = manifest.Archive{
		File:   manifest.File{Path: archivePath(id), Digest: archiveDigest(out), Size: size},
		Source: id.String(),
	}
	if err := f.Chmod(0o444); err != nil {
		return nil, err
	}
	if err := f.Close(); err != nil {
		return nil, err
	}
	if err := os.Rename(f.Name(), filepath.Join(dir, r.Archive.Path)); err != nil {
		return nil, err
	}
	return r, settle(dir)
}

// TenderFiles writes the executables of the release into dir.
func TenderFiles(dir string) error {
	for _, a := range []release.Asset{release.Tender, release.Netd} {
		c, _, err := release.Open(a)
		if err != nil {
			return err
		}
		defer c.Close()
		f, err := os.OpenFile(filepath.Join(dir, string(a)), os.O_CREATE|os.O_WRONLY|os.O_TRUNC, 0o755)
		if err != nil {
			return err
		}
		if _, err := io.Copy(f, c); err != nil {
			f.Close()
			return err
		}
		if err := f.Chmod(0o755); err != nil {
			f.Close()
			return err
		}
		if err := f.Close(); err != nil {
			return err
		}
	}
	return settle(dir)
}

// Assembled is the top of a nabla image whose archives are made.
type Assembled struct {
	Manifest *manifest.Manifest
	Report   link.Report
	Config   v1.Config // of the nabla image
	Warnings []string

	report []byte
}

// Assemble describes an image with the configuration c, whose layers have been
// relinked: layers[i] is below dirs[i]. It checks that the program can be
// started.
func Assemble(layers []Relinked, dirs []string, c v1.Config) (*Assembled, error) {
	a := &Assembled{}
	warn := func(format string, v ...any) { a.Warnings = append(a.Warnings, fmt.Sprintf(format, v...)) }
	var archives []manifest.Archive
	for i, l := range layers {
		a.Report.Layers = append(a.Report.Layers, l.Report)
		archives = append(archives, l.Archive)
		for _, w := range l.Report.Warnings {
			warn("layer %d: %s", i+1, w)
		}
	}
	root, unmap, err := views(len(layers), func(i int) (*archive.Reader, func(), error) {
		return openArchive(filepath.Join(dirs[i], layers[i].Archive.Path))
	})
	if err != nil {
		return nil, err
	}
	defer unmap()
	if a.report, err = encodeReport(a.Report); err != nil {
		return nil, err
	}
	if a.Manifest, err = describe(root, c, archives, a.report, warn); err != nil {
		return nil, err
	}
	a.Config = configure(c, a.Manifest.Guest)
	return a, nil
}

// WriteFiles writes the manifest, the report and the mount points into dir.
func (a *Assembled) WriteFiles(dir string) error {
	m, err := a.Manifest.Encode()
	if err != nil {
		return err
	}
	dirs := mountPoints(a.Manifest.Guest.WorkingDir)
	for _, d := range slices.Sorted(maps.Keys(dirs)) {
		p := filepath.Join(dir, d)
		if err := os.MkdirAll(p, 0o755); err != nil {
			return err
		}
		if err := unix.Chmod(p, uint32(dirs[d])); err != nil {
			return &os.PathError{Op: "chmod", Path: p, Err: err}
		}
	}
	for name, content := range map[string][]byte{manifest.Path: m, reportPath: a.report} {
		p := filepath.Join(dir, name)
		if err := os.WriteFile(p, content, 0o444); err != nil {
			return err
		}
		if err := os.Chmod(p, 0o444); err != nil {
			return err
		}
	}
	return settle(dir)
}

// WriteExecutable writes the image as one self-contained executable.
func (a *Assembled) WriteExecutable(ctx context.Context, w io.Writer, dirs []string) error {
	return writeExecutable(ctx, w, a.Manifest, a.report, func(i int, f func(io.Reader) error) error {
		in, err := os.Open(filepath.Join(dirs[i], a.Manifest.Archives[i].Path))
		if err != nil {
			return err
		}
		defer in.Close()
		return f(in)
	})
}

// settle gives everything below dir, and dir, the time of nabla images.
func settle(dir string) error {
	var all []string
	err := filepath.WalkDir(dir, func(p string, _ os.DirEntry, err error) error {
		all = append(all, p)
		return err
	})
	if err != nil {
		return err
	}
	for _, p := range all {
		if err := os.Chtimes(p, epoch, epoch); err != nil {
			return err
		}
	}
	return nil
}
