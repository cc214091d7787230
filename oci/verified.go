package oci

import (
	"bufio"
	"bytes"
	"crypto/sha256"
	"encoding/json"
	"errors"
	"fmt"
	"hash"
	"io"
	"io/fs"

	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/layout"
	"github.com/google/go-containerregistry/pkg/v1/partial"
	"github.com/google/go-containerregistry/pkg/v1/types"
	"github.com/klauspost/compress/gzip"
	"github.com/klauspost/compress/zstd"
)

// ErrDigest is wrapped by errors about content that is not what its digest
// says.
var ErrDigest = errors.New("content does not have its digest")

// checked is an image whose layers are decompressed by a fast decoder and,
// with blobs, compared with their digests.
type checked struct {
	v1.Image
	blobs bool
}

// verified wraps an image. With blobs its layers' compressed bytes are compared
// with their digests; otherwise img does that itself.
func verified(img v1.Image, blobs bool) (v1.Image, error) {
	c, err := img.ConfigFile()
	if err != nil {
		return nil, fmt.Errorf("image configuration: %w", err)
	}
	m, err := img.Manifest()
	if err != nil {
		return nil, fmt.Errorf("image manifest: %w", err)
	}
	if len(c.RootFS.DiffIDs) != len(m.Layers) {
		return nil, fmt.Errorf("the manifest has %d layers, the configuration %d", len(m.Layers), len(c.RootFS.DiffIDs))
	}
	return checked{img, blobs}, nil
}

func (c checked) Layers() ([]v1.Layer, error) {
	ls, err := c.Image.Layers()
	if err != nil {
		return nil, err
	}
	out := make([]v1.Layer, len(ls))
	for i, l := range ls {
		out[i] = checkedLayer{l, c.blobs}
	}
	return out, nil
}

type checkedLayer struct {
	v1.Layer
	blobs bool
}

// Descriptor keeps what the manifest says of the layer.
func (l checkedLayer) Descriptor() (*v1.Descriptor, error) { return partial.Descriptor(l.Layer) }

func (l checkedLayer) Compressed() (io.ReadCloser, error) {
	rc, err := l.Layer.Compressed()
	if err != nil || !l.blobs {
		return rc, err
	}
	d, err := l.Digest()
	if err != nil {
		rc.Close()
		return nil, err
	}
	return Verify(rc, d), nil
}

func (l checkedLayer) Uncompressed() (io.ReadCloser, error) {
	rc, err := l.Compressed()
	if err != nil {
		return nil, err
	}
	out, err := decompress(rc)
	if err != nil {
		rc.Close()
		return nil, err
	}
	return out, nil
}

// Content is Uncompressed for a caller who compares the content with the diff ID
// (Verify), which makes comparing the compressed bytes as well needless work.
// That is done where reading fails, to say why.
func Content(l v1.Layer) (io.ReadCloser, error) {
	c, ok := l.(checkedLayer)
	if !ok || !c.blobs {
		return l.Uncompressed()
	}
	rc, err := checkedLayer{c.Layer, false}.Uncompressed()
	if err != nil {
		return nil, errors.Join(c.check(), err)
	}
	return &suspect{ReadCloser: rc, check: c.check}, nil
}

// check compares the compressed bytes with their digest.
func (l checkedLayer) check() error {
	rc, err := l.Compressed()
	if err != nil {
		return err
	}
	defer rc.Close()
	_, err = io.Copy(io.Discard, rc)
	return err
}

// suspect adds to an error of reading what check says.
type suspect struct {
	io.ReadCloser
	check func() error
}

func (s *suspect) Read(p []byte) (int, error) {
	n, err := s.ReadCloser.Read(p)
	if err != nil && err != io.EOF && s.check != nil {
		err = errors.Join(s.check(), err)
		s.check = nil
	}
	return n, err
}

// Verify returns a reader of rc that fails, at its end, where the content does
// not have the SHA-256 digest d. Closing it closes rc.
func Verify(rc io.ReadCloser, d v1.Hash) io.ReadCloser {
	return &verifier{ReadCloser: rc, h: sha256.New(), want: d}
}

type verifier struct {
	io.ReadCloser
	h    hash.Hash
	want v1.Hash
}

func (v *verifier) Read(p []byte) (int, error) {
	n, err := v.ReadCloser.Read(p)
	v.h.Write(p[:n])
	if err == io.EOF {
		if got := fmt.Sprintf("%x", v.h.Sum(nil)); v.want.Algorithm != "sha256" || got != v.want.Hex {
			return n, fmt.Errorf("%w: wanted %s, got sha256:%s", ErrDigest, v.want, got)
		}
	}
	return n, err
}

// decompress undoes gzip or zstd, whichever the content is; an OCI layer may
// also be a plain tar stream. The result reads rc to its end.
func decompress(rc io.ReadCloser) (io.ReadCloser, error) {
	br := bufio.NewReaderSize(rc, 1<<18)
	head, err := br.Peek(4)
	if err != nil && err != io.EOF {
		return nil, err
	}
	switch {
	case bytes.HasPrefix(head, []byte{0x1f, 0x8b}): // RFC 1952
		z, err := gzip.NewReader(br)
		if err != nil {
			return nil, fmt.Errorf("decompress: %w", err)
		}
		return &stream{Reader: z, under: br, rc: rc}, nil
	case bytes.Equal(head, []byte{0x28, 0xb5, 0x2f, 0xfd}): // RFC 8878
		z, err := zstd.NewReader(br, zstd.WithDecoderConcurrency(1), zstd.WithDecoderMaxMemory(64<<20))
		if err != nil {
			return nil, fmt.Errorf("decompress: %w", err)
		}
		return &stream{Reader: z, under: br, rc: rc, done: z.Close}, nil
	}
	return &stream{Reader: br, under: br, rc: rc}, nil
}

// stream reads what is below to its end when the content has ended, so that
// digests are compared.
type stream struct {
	io.Reader
	under io.Reader
	rc    io.ReadCloser
	done  func()
}

func (s *stream) Read(p []byte) (int, error) {
	n, err := s.Reader.Read(p)
	if err == io.EOF {
		if _, e := io.Copy(io.Discard, s.under); e != nil {
			return n, e
		}
	}
	return n, err
}

func (s *stream) Close() error {
	if s.done != nil {
		s.done()
	}
	return s.rc.Close()
}

// layoutIndex is an index of an OCI layout whose manifests and configurations
// are compared with their digests.
type layoutIndex struct {
	path  layout.Path
	index *v1.IndexManifest
}

func (l layoutIndex) MediaType() (types.MediaType, error)       { return types.OCIImageIndex, nil }
func (l layoutIndex) IndexManifest() (*v1.IndexManifest, error) { return l.index, nil }
func (l layoutIndex) Digest() (v1.Hash, error)                  { return partial.Digest(l) }
func (l layoutIndex) Size() (int64, error)                      { return partial.Size(l) }
func (l layoutIndex) RawManifest() ([]byte, error)              { return json.Marshal(l.index) }
func (l layoutIndex) descriptor(h v1.Hash) (v1.Descriptor, error) {
	for _, d := range l.index.Manifests {
		if d.Digest == h {
			return d, nil
		}
	}
	return v1.Descriptor{}, fmt.Errorf("%s is not in the index", h)
}

func (l layoutIndex) ImageIndex(h v1.Hash) (v1.ImageIndex, error) {
	b, err := blob(l.path, h)
	if err != nil {
		return nil, err
	}
	im := new(v1.IndexManifest)
	if err := json.Unmarshal(b, im); err != nil {
		return nil, fmt.Errorf("not an image: index %s: %w", h, err)
	}
	return layoutIndex{path: l.path, index: im}, nil
}

func (l layoutIndex) Image(h v1.Hash) (v1.Image, error) {
	d, err := l.descriptor(h)
	if err != nil {
		return nil, err
	}
	b, err := blob(l.path, h)
	if err != nil {
		return nil, err
	}
	m := new(v1.Manifest)
	if err := json.Unmarshal(b, m); err != nil {
		return nil, fmt.Errorf("not an image: manifest %s: %w", h, err)
	}
	if m.Config.Digest.Hex == "" {
		return nil, fmt.Errorf("not an image: manifest %s names no configuration", h)
	}
	return partial.CompressedToImage(&layoutImage{path: l.path, media: d.MediaType, raw: b, m: m})
}

type layoutImage struct {
	path  layout.Path
	media types.MediaType
	raw   []byte
	m     *v1.Manifest
}

func (i *layoutImage) MediaType() (types.MediaType, error) { return i.media, nil }
func (i *layoutImage) RawManifest() ([]byte, error)        { return i.raw, nil }
func (i *layoutImage) RawConfigFile() ([]byte, error)      { return blob(i.path, i.m.Config.Digest) }

func (i *layoutImage) LayerByDigest(h v1.Hash) (partial.CompressedLayer, error) {
	for _, d := range append([]v1.Descriptor{i.m.Config}, i.m.Layers...) {
		if d.Digest == h {
			return layoutBlob{i.path, d}, nil
		}
	}
	return nil, fmt.Errorf("layer %s is not in the image", h)
}

type layoutBlob struct {
	path layout.Path
	d    v1.Descriptor
}

func (b layoutBlob) Digest() (v1.Hash, error)            { return b.d.Digest, nil }
func (b layoutBlob) Size() (int64, error)                { return b.d.Size, nil }
func (b layoutBlob) MediaType() (types.MediaType, error) { return b.d.MediaType, nil }
func (b layoutBlob) Descriptor() (*v1.Descriptor, error) { return &b.d, nil }
func (b layoutBlob) Compressed() (io.ReadCloser, error) {
	rc, err := b.path.Blob(b.d.Digest)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, fmt.Errorf("layer %s is missing in the layout: %w", b.d.Digest, err)
	}
	return rc, err
}

// maxSmall bounds manifests and configurations.
const maxSmall = 16 << 20

// blob reads a manifest or a configuration.
func blob(p layout.Path, h v1.Hash) ([]byte, error) {
	rc, err := p.Blob(h)
	if err != nil {
		return nil, err
	}
	defer rc.Close()
	b, err := io.ReadAll(io.LimitReader(Verify(rc, h), maxSmall+1))
	if err != nil {
		return nil, fmt.Errorf("blob %s: %w", h, err)
	}
	if len(b) > maxSmall {
		return nil, fmt.Errorf("blob %s is larger than %d bytes", h, maxSmall)
	}
	return b, nil
}
