package image

import (
	"archive/tar"
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"path"

	v1 "github.com/google/go-containerregistry/pkg/v1"

	"github.com/nabla-build/nabla-build/link"
	"github.com/nabla-build/nabla-build/manifest"
	"github.com/nabla-build/nabla-build/selfexe"
)

// Nabla is an existing nabla image: from a v1.Image or from a self-contained
// executable.
type Nabla struct {
	Manifest *manifest.Manifest
	Report   *link.Report
	// Digest is that of the OCI manifest; empty for an executable.
	Digest string
	// Layers are the OCI layers; none for an executable.
	Layers []v1.Layer
	// Config is the OCI configuration; nil for an executable.
	Config *v1.ConfigFile

	file     *os.File // of an executable
	sections []selfexe.Section
}

// ErrNotNabla says that an image is not one that nabla-build wrote.
var ErrNotNabla = errors.New("not a nabla image")

// Is says whether an image is a nabla image, by its configuration.
func Is(img v1.Image) (bool, error) {
	c, err := img.ConfigFile()
	if err != nil {
		return false, fmt.Errorf("image configuration: %w", err)
	}
	return isNabla(c.Config), nil
}

// Open reads the manifest and the report of a nabla image. ErrNotNabla if it
// is another one.
func Open(img v1.Image) (*Nabla, error) {
	if ok, err := Is(img); err != nil {
		return nil, err
	} else if !ok {
		return nil, ErrNotNabla
	}
	n := new(Nabla)
	var err error
	if n.Config, err = img.ConfigFile(); err != nil {
		return nil, err
	}
	if n.Layers, err = img.Layers(); err != nil {
		return nil, err
	}
	d, err := img.Digest()
	if err != nil {
		return nil, err
	}
	n.Digest = d.String()
	if len(n.Layers) < 2 {
		return nil, fmt.Errorf("%w: it has %d layers", ErrNotNabla, len(n.Layers))
	}
	var m, rep []byte
	err = walkLayer(n.Layers[len(n.Layers)-1], func(h *tar.Header, content io.Reader) error {
		var to *[]byte
		switch path.Clean("/" + h.Name) {
		case manifest.Path:
			to = &m
		case reportPath:
			to = &rep
		default:
			return nil
		}
		if h.Size > maxReport {
			return fmt.Errorf("%s: %d bytes", h.Name, h.Size)
		}
		var err error
		*to, err = io.ReadAll(content)
		return err
	})
	if err != nil {
		return nil, fmt.Errorf("last layer: %w", err)
	}
	if m == nil {
		return nil, fmt.Errorf("%w: its last layer has no %s", ErrNotNabla, manifest.Path)
	}
	return n, n.parse(m, rep)
}

// maxReport bounds what is read of a report, in bytes.
const maxReport = 256 << 20

func (n *Nabla) parse(m, rep []byte) (err error) {
	if n.Manifest, err = manifest.Decode(bytes.NewReader(m)); err != nil {
		return err
	}
	if n.Config != nil && len(n.Manifest.Archives)+2 != len(n.Layers) {
		return fmt.Errorf("%w: %d archives in %d layers", ErrNotNabla, len(n.Manifest.Archives), len(n.Layers))
	}
	if rep == nil {
		return nil
	}
	n.Report = new(link.Report)
	if err := json.Unmarshal(rep, n.Report); err != nil {
		return fmt.Errorf("link report: %w", err)
	}
	return nil
}

// walkLayer calls f for every entry of a layer, which is read to its end.
func walkLayer(l v1.Layer, f func(*tar.Header, io.Reader) error) error {
	rc, err := l.Uncompressed()
	if err != nil {
		return err
	}
	defer rc.Close()
	tr := tar.NewReader(rc)
	for {
		h, err := tr.Next()
		if err == io.EOF {
			_, err = io.Copy(io.Discard, rc)
			return err
		}
		if err != nil {
			return err
		}
		if err := f(h, tr); err != nil {
			return err
		}
	}
}

// OpenExecutable reads a self-contained executable. selfexe.ErrNone if the
// file is none. Close it after use.
func OpenExecutable(name string) (*Nabla, error) {
	f, err := os.Open(name)
	if err != nil {
		return nil, err
	}
	n := &Nabla{file: f}
	if err := n.readSections(); err != nil {
		f.Close()
		return nil, err
	}
	return n, nil
}

func (n *Nabla) readSections() error {
	fi, err := n.file.Stat()
	if err != nil {
		return err
	}
	if !fi.Mode().IsRegular() {
		return selfexe.ErrNone
	}
	if n.sections, err = selfexe.Read(n.file, fi.Size()); err != nil {
		return err
	}
	var m, rep []byte
	for _, s := range n.sections {
		var to *[]byte
		switch s.Kind {
		case selfexe.Manifest:
			to = &m
		case selfexe.Report:
			to = &rep
		default:
			continue
		}
		if s.Size > maxReport {
			return fmt.Errorf("a section of %d bytes: %w", s.Size, selfexe.ErrCorrupt)
		}
		if *to, err = io.ReadAll(s.Reader(n.file)); err != nil {
			return err
		}
	}
	return n.parse(m, rep)
}

// Close releases an executable's file.
func (n *Nabla) Close() error {
	if n.file == nil {
		return nil
	}
	return n.file.Close()
}

// archive calls f with the content of archive number i.
func (n *Nabla) archive(i int, f func(io.Reader) error) error {
	want := n.Manifest.Archives[i]
	if n.file != nil {
		k := 0
		for _, s := range n.sections {
			if s.Kind != selfexe.Archive {
				continue
			}
			if k == i {
				return f(s.Reader(n.file))
			}
			k++
		}
		return fmt.Errorf("%s is missing", want.Path)
	}
	// The parts are one behind the other in the layer.
	pr, pw := io.Pipe()
	next := 0
	go func() {
		err := walkLayer(n.Layers[i+1], func(h *tar.Header, content io.Reader) error {
			name := want.Path
			if want.PartSize != 0 {
				name = manifest.Part(want.Path, next)
			}
			if path.Clean("/"+h.Name) != name || h.Typeflag != tar.TypeReg || next == want.Parts() {
				return nil
			}
			next++
			_, err := io.Copy(pw, content)
			return err
		})
		if err == nil && next < want.Parts() {
			err = fmt.Errorf("%s is missing in its layer: %d of %d files are there", want.Path, next, want.Parts())
		}
		pw.CloseWithError(err)
	}()
	err := f(pr)
	// The layer is read to its end, where its digest is compared.
	if _, e := io.Copy(io.Discard, pr); err == nil {
		err = e
	}
	pr.Close()
	return err
}
