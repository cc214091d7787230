// Package selfimage makes the image that the frontend is distributed as, of its
// program alone. The Dockerfile in the root makes the same with Docker. It
// imports frontend for the labels; the function at its heart is New.
package selfimage

import (
	"archive/tar"
	"bytes"
	"fmt"
	"io"
	"maps"
	"os"
	"time"

	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/empty"
	"github.com/google/go-containerregistry/pkg/v1/mutate"
	"github.com/google/go-containerregistry/pkg/v1/tarball"
	"github.com/google/go-containerregistry/pkg/v1/types"

	"github.com/nabla-build/nabla-build/frontend"
	"github.com/nabla-build/nabla-build/frontend/step"
)

// User is who the frontend runs as; its steps are run as root by the build.
const User = "65532:65532"

// New makes the image of a program in a file. The same program gives the same
// image.
func New(program, version string) (v1.Image, error) {
	b, err := os.ReadFile(program)
	if err != nil {
		return nil, err
	}
	var layer bytes.Buffer
	w := tar.NewWriter(&layer)
	if err := w.WriteHeader(&tar.Header{Typeflag: tar.TypeReg, Name: step.Program[1:], Mode: 0o755, Size: int64(len(b)), ModTime: time.Unix(0, 0)}); err != nil {
		return nil, err
	}
	if _, err := w.Write(b); err != nil {
		return nil, err
	}
	if err := w.Close(); err != nil {
		return nil, err
	}
	l, err := tarball.LayerFromOpener(func() (io.ReadCloser, error) { return io.NopCloser(bytes.NewReader(layer.Bytes())), nil },
		tarball.WithMediaType(types.OCILayer), tarball.WithCompressionLevel(9))
	if err != nil {
		return nil, fmt.Errorf("layer: %w", err)
	}
	labels := frontend.Labels()
	maps.Copy(labels, map[string]string{
		"org.opencontainers.image.title": "nabla-build frontend", "org.opencontainers.image.version": version, "org.opencontainers.image.licenses": "Apache-2.0",
	})
	img := mutate.ConfigMediaType(mutate.MediaType(empty.Image, types.OCIManifestSchema1), types.OCIConfigJSON)
	img, err = mutate.ConfigFile(img, &v1.ConfigFile{
		OS: "linux", Architecture: "amd64", RootFS: v1.RootFS{Type: "layers"},
		Config: v1.Config{Entrypoint: []string{step.Program}, WorkingDir: "/", User: User, Labels: labels},
	})
	if err != nil {
		return nil, err
	}
	return mutate.Append(img, mutate.Addendum{Layer: l, MediaType: types.OCILayer, History: v1.History{CreatedBy: "nabla-build frontend " + version}})
}
