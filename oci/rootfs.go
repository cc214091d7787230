package oci

import (
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"os"
	"strconv"
	"time"

	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/partial"
	"github.com/google/go-containerregistry/pkg/v1/types"

	"github.com/nabla-build/nabla-build/oci/rootfs"
)

// fromDirectory makes an image with one layer of a directory. The directory is
// read twice, once for the diff ID; if it changes in between, reading the
// layer fails.
func fromDirectory(ctx context.Context, dir string, config v1.Config) (v1.Image, error) {
	fi, err := os.Stat(dir)
	if err != nil {
		return nil, err
	}
	if !fi.IsDir() {
		return nil, errors.New("not a directory")
	}
	clamp, err := sourceDateEpoch()
	if err != nil {
		return nil, err
	}
	h := sha256.New()
	if err := rootfs.Write(ctx, h, dir, rootfs.Options{Clamp: clamp}); err != nil {
		return nil, err
	}
	diffID := v1.Hash{Algorithm: "sha256", Hex: fmt.Sprintf("%x", h.Sum(nil))}
	return partial.UncompressedToImage(&directory{ctx: ctx, dir: dir, clamp: clamp, diffID: diffID, config: config})
}

// sourceDateEpoch is the variable SOURCE_DATE_EPOCH of the Reproducible Builds
// specification: no time is later than it. nil if it is not set.
func sourceDateEpoch() (*time.Time, error) {
	s := os.Getenv("SOURCE_DATE_EPOCH")
	if s == "" {
		return nil, nil
	}
	n, err := strconv.ParseInt(s, 10, 64)
	if err != nil {
		return nil, fmt.Errorf("SOURCE_DATE_EPOCH is %q, not a number of seconds", s)
	}
	t := time.Unix(n, 0).UTC()
	return &t, nil
}

// directory is both the image and its only layer.
type directory struct {
	ctx    context.Context
	dir    string
	clamp  *time.Time
	diffID v1.Hash
	config v1.Config
}

func (d *directory) MediaType() (types.MediaType, error) { return types.OCIManifestSchema1, nil }

func (d *directory) RawConfigFile() ([]byte, error) {
	return partial.RawConfigFile(configured{&v1.ConfigFile{
		OS: "linux", Architecture: "amd64", Config: d.config,
		RootFS: v1.RootFS{Type: "layers", DiffIDs: []v1.Hash{d.diffID}},
	}})
}

type configured struct{ c *v1.ConfigFile }

func (c configured) ConfigFile() (*v1.ConfigFile, error) { return c.c, nil }

func (d *directory) LayerByDiffID(h v1.Hash) (partial.UncompressedLayer, error) {
	if h != d.diffID {
		return nil, fmt.Errorf("no layer %s", h)
	}
	return treeLayer{d}, nil
}

type treeLayer struct{ d *directory }

func (l treeLayer) DiffID() (v1.Hash, error)            { return l.d.diffID, nil }
func (l treeLayer) MediaType() (types.MediaType, error) { return types.OCILayer, nil }

func (l treeLayer) Uncompressed() (io.ReadCloser, error) {
	ctx, cancel := context.WithCancel(l.d.ctx)
	pr, pw := io.Pipe()
	go func() { pw.CloseWithError(rootfs.Write(ctx, pw, l.d.dir, rootfs.Options{Clamp: l.d.clamp})) }()
	return treeReader{pr, cancel}, nil
}

type treeReader struct {
	*io.PipeReader
	cancel context.CancelFunc
}

func (r treeReader) Close() error {
	r.cancel()
	return r.PipeReader.Close()
}
