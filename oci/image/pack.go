package image

import (
	"archive/tar"
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"hash"
	"io"
	"os"
	"time"

	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/types"
	"github.com/klauspost/compress/gzip"
)

// compression is a gzip level as fast as the fastest that finds repeated
// strings, and 2 % better: what node and registry save by more is less than
// what relinking loses. See docs/oci-image.md.
const compression = 2

// epoch is the time of every file that nabla-build itself puts into an image.
var epoch = time.Unix(0, 0).UTC()

// packed says what a compressed layer file holds.
type packed struct {
	DiffID v1.Hash `json:"diffId"`
	Digest v1.Hash `json:"digest"`
	Size   int64   `json:"size"`
	// Parts are the offsets of the parts of an archive in the file: each is a
	// gzip member of its own, which holds one entry of the tar stream.
	Parts []int64 `json:"parts,omitempty"`
}

// packLayer writes a compressed layer, a tar stream of what fill adds.
func packLayer(ctx context.Context, w io.Writer, fill func(*tar.Writer) error) (packed, error) {
	out := &hashed{w: w, h: sha256.New()}
	z, err := gzip.NewWriterLevel(out, compression)
	if err != nil {
		return packed{}, err
	}
	in := &hashed{w: z, h: sha256.New(), ctx: ctx}
	tw := tar.NewWriter(in)
	if err := fill(tw); err != nil {
		return packed{}, err
	}
	if err := tw.Close(); err != nil {
		return packed{}, err
	}
	if err := z.Close(); err != nil {
		return packed{}, err
	}
	return packed{DiffID: in.sum(), Digest: out.sum(), Size: out.n}, nil
}

// addFile adds a regular file of root's.
func addFile(tw *tar.Writer, name string, mode int64, size int64, content io.Reader) error {
	if err := tw.WriteHeader(fileHeader(name, mode, size)); err != nil {
		return fmt.Errorf("%s: %w", name, err)
	}
	n, err := io.CopyBuffer(struct{ io.Writer }{tw}, struct{ io.Reader }{content}, make([]byte, 1<<19))
	if err == nil && n != size {
		err = fmt.Errorf("%d bytes instead of %d", n, size)
	}
	if err != nil {
		return fmt.Errorf("%s: %w", name, err)
	}
	return nil
}

func fileHeader(name string, mode, size int64) *tar.Header {
	return &tar.Header{Typeflag: tar.TypeReg, Name: name, Mode: mode, Size: size, ModTime: epoch, Format: tar.FormatPAX}
}

func addDir(tw *tar.Writer, name string, mode int64) error {
	return tw.WriteHeader(&tar.Header{Typeflag: tar.TypeDir, Name: name + "/", Mode: mode, ModTime: epoch, Format: tar.FormatPAX})
}

// hashed counts and hashes what is written; with ctx it fails when that ends.
type hashed struct {
	w   io.Writer
	h   hash.Hash
	n   int64
	ctx context.Context
}

func (h *hashed) Write(p []byte) (int, error) {
	if h.ctx != nil {
		if err := h.ctx.Err(); err != nil {
			return 0, err
		}
	}
	n, err := h.w.Write(p)
	h.h.Write(p[:n])
	h.n += int64(n)
	return n, err
}

func (h *hashed) sum() v1.Hash {
	return v1.Hash{Algorithm: "sha256", Hex: fmt.Sprintf("%x", h.h.Sum(nil))}
}

// fileLayer is a layer whose compressed form is a file.
type fileLayer struct {
	packed
	path   string
	shared bool // of a cache
}

func (l fileLayer) Digest() (v1.Hash, error)             { return l.packed.Digest, nil }
func (l fileLayer) DiffID() (v1.Hash, error)             { return l.packed.DiffID, nil }
func (l fileLayer) Size() (int64, error)                 { return l.packed.Size, nil }
func (l fileLayer) MediaType() (types.MediaType, error)  { return types.OCILayer, nil }
func (l fileLayer) Compressed() (io.ReadCloser, error)   { return os.Open(l.path) }
func (l fileLayer) Uncompressed() (io.ReadCloser, error) { return gunzip(l.Compressed()) }

// File says where the compressed layer is, if nobody else needs the file; ""
// otherwise.
func (l fileLayer) File() string {
	if l.shared {
		return ""
	}
	return l.path
}

func gunzip(rc io.ReadCloser, err error) (io.ReadCloser, error) {
	if err != nil {
		return nil, err
	}
	z, err := gzip.NewReader(rc)
	if err != nil {
		return nil, errors.Join(err, rc.Close())
	}
	return struct {
		io.Reader
		io.Closer
	}{z, rc}, nil
}
