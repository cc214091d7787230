package oci

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/google/go-containerregistry/pkg/authn"
	"github.com/google/go-containerregistry/pkg/name"
	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/layout"
	"github.com/google/go-containerregistry/pkg/v1/remote"
	"github.com/google/go-containerregistry/pkg/v1/remote/transport"
	"github.com/google/go-containerregistry/pkg/v1/tarball"
)

// ErrPlatform is wrapped by the error about an image for other machines.
var ErrPlatform = errors.New("nabla images are linux/amd64 only")

// Source opens the image for linux/amd64 that r names; of an index, the one
// for that platform. Content is read when it is asked for, under ctx, and
// compared with its digest; a layer's Uncompressed is its verified tar stream.
// The image's Digest is that of its manifest; computing it costs a compression
// of all layers for a docker archive or a directory.
func (r Reference) Source(ctx context.Context, o Options) (v1.Image, error) {
	var img v1.Image
	var err error
	switch r.Kind {
	case Registry:
		img, err = r.fromRegistry(ctx, o)
	case Layout:
		img, err = r.fromLayout(ctx)
	case DockerArchive:
		img, err = r.fromArchive()
	case RootFS:
		img, err = fromDirectory(ctx, r.path, o.Config)
	default:
		err = ErrReference
	}
	if err != nil {
		return nil, fmt.Errorf("read %s: %w", r, err)
	}
	if err := checkImage(img); err != nil {
		return nil, fmt.Errorf("read %s: %w", r, err)
	}
	return img, nil
}

// checkImage reads the configuration.
func checkImage(img v1.Image) error {
	c, err := img.ConfigFile()
	if err != nil {
		return fmt.Errorf("image configuration: %w", err)
	}
	if c == nil {
		return errors.New("not an image: it has no configuration")
	}
	// Configurations of images from before 2014 may lack both.
	if c.OS != "" && c.OS != "linux" || c.Architecture != "" && c.Architecture != "amd64" {
		return fmt.Errorf("the image is for %s/%s: %w", c.OS, c.Architecture, ErrPlatform)
	}
	for _, d := range c.RootFS.DiffIDs {
		if d.Algorithm != "sha256" {
			return fmt.Errorf("a layer with the diff ID %s: only sha256 is supported", d)
		}
	}
	return nil
}

func (o Options) remote(ctx context.Context) []remote.Option {
	k := o.Keychain
	if k == nil {
		k = authn.DefaultKeychain
	}
	opts := []remote.Option{remote.WithContext(ctx), remote.WithAuthFromKeychain(k), remote.WithJobs(2)}
	if o.Transport != nil {
		opts = append(opts, remote.WithTransport(o.Transport))
	}
	if o.UserAgent != "" {
		opts = append(opts, remote.WithUserAgent(o.UserAgent))
	}
	return opts
}

// plain makes an error of a registry one line.
func plain(err error) error {
	var t *transport.Error
	if errors.As(err, &t) {
		switch {
		case t.StatusCode == 404:
			return fmt.Errorf("not found in the registry (%w)", t)
		case t.StatusCode == 401 || t.StatusCode == 403:
			return fmt.Errorf("the registry denies access; log in with docker login or crane auth login (%w)", t)
		}
	}
	return err
}

func (r Reference) fromRegistry(ctx context.Context, o Options) (v1.Image, error) {
	ref, err := r.registry(o)
	if err != nil {
		return nil, err
	}
	d, err := remote.Get(ref, o.remote(ctx)...)
	if err != nil {
		return nil, plain(err)
	}
	var img v1.Image
	switch {
	case d.MediaType.IsIndex():
		ii, err := d.ImageIndex()
		if err != nil {
			return nil, err
		}
		img, err = pick(ii)
		if err != nil {
			return nil, plain(err)
		}
	case d.MediaType.IsImage():
		if img, err = d.Image(); err != nil {
			return nil, err
		}
	default:
		return nil, fmt.Errorf("not an image: the registry says it is %q", d.MediaType)
	}
	return verified(img, false)
}

// maxNesting bounds indexes in indexes.
const maxNesting = 4

// pick finds the image for linux/amd64 in an index.
func pick(ii v1.ImageIndex) (v1.Image, error) {
	img, others, err := search(ii, 0)
	switch {
	case err != nil:
		return nil, err
	case img != nil:
		return img, nil
	case len(others) == 0:
		return nil, fmt.Errorf("the index has no image: %w", ErrPlatform)
	}
	slices.Sort(others)
	return nil, fmt.Errorf("the image is for %s: %w", strings.Join(slices.Compact(others), ", "), ErrPlatform)
}

// search is pick at a depth of nesting; others are the platforms of images
// that were passed over.
func search(ii v1.ImageIndex, depth int) (img v1.Image, others []string, err error) {
	im, err := ii.IndexManifest()
	if err != nil {
		return nil, nil, fmt.Errorf("image index: %w", err)
	}
	var best *v1.Descriptor
	for i := range im.Manifests {
		d := &im.Manifests[i]
		switch {
		case d.Platform == nil && d.MediaType.IsImage():
			img, err := ii.Image(d.Digest)
			if err != nil {
				return nil, nil, err
			}
			c, err := img.ConfigFile()
			if err != nil {
				return nil, nil, fmt.Errorf("image configuration: %w", err)
			}
			if c.OS == "linux" && c.Architecture == "amd64" {
				return img, nil, nil
			}
			others = append(others, c.OS+"/"+c.Architecture)
		case d.MediaType.IsIndex() && depth < maxNesting && (d.Platform == nil || amd64(d.Platform)):
			sub, err := ii.ImageIndex(d.Digest)
			if err != nil {
				return nil, nil, err
			}
			img, more, err := search(sub, depth+1)
			if err != nil || img != nil {
				return img, nil, err
			}
			others = append(others, more...)
		case d.Platform == nil || !d.MediaType.IsImage() || d.Platform.OS == "unknown":
			// Attestations and other things that are no images.
		case amd64(d.Platform):
			if best == nil || d.Platform.Variant < best.Platform.Variant {
				best = d
			}
		default:
			others = append(others, d.Platform.String())
		}
	}
	if best != nil {
		img, err = ii.Image(best.Digest)
	}
	return img, others, err
}

func amd64(p *v1.Platform) bool { return p.OS == "linux" && p.Architecture == "amd64" }

// refName is the annotation that names an image in a layout (OCI image layout
// specification, index.json).
const refName = "org.opencontainers.image.ref.name"

func (r Reference) fromLayout(ctx context.Context) (v1.Image, error) {
	index, err := readLayout(r.path)
	if err != nil {
		return nil, err
	}
	var found []v1.Descriptor
	var names []string
	for _, d := range index.Manifests {
		n := d.Annotations[refName]
		if n != "" {
			names = append(names, n)
		}
		if r.tag == "" || n == r.tag {
			found = append(found, d)
		}
	}
	switch {
	case len(found) == 0 && r.tag == "":
		return nil, errors.New("the OCI layout has no image")
	case len(found) == 0:
		return nil, fmt.Errorf("the OCI layout has no image %q; it has: %s", r.tag, strings.Join(names, ", "))
	case r.tag == "" && len(names) > 1:
		return nil, fmt.Errorf("the OCI layout has several images, name one as oci:%s:TAG; it has: %s", r.path, strings.Join(names, ", "))
	}
	index.Manifests = found
	img, err := pick(layoutIndex{path: layout.Path(r.path), index: index})
	if err != nil {
		return nil, err
	}
	return verified(img, true)
}

// readLayout reads and checks index.json.
func readLayout(dir string) (*v1.IndexManifest, error) {
	if fi, err := os.Stat(dir); err != nil {
		return nil, err
	} else if !fi.IsDir() {
		return nil, errors.New("not a directory; a docker archive is named docker-archive:FILE")
	}
	if _, err := os.Stat(filepath.Join(dir, "oci-layout")); err != nil {
		return nil, fmt.Errorf("not an OCI layout: %w", err)
	}
	b, err := os.ReadFile(filepath.Join(dir, "index.json"))
	if err != nil {
		return nil, fmt.Errorf("not an OCI layout: %w", err)
	}
	index := new(v1.IndexManifest)
	if err := json.Unmarshal(b, index); err != nil {
		return nil, fmt.Errorf("not an OCI layout: index.json: %w", err)
	}
	return index, nil
}

func (r Reference) fromArchive() (v1.Image, error) {
	if fi, err := os.Stat(r.path); err != nil {
		return nil, err
	} else if fi.IsDir() {
		return nil, errors.New("a directory; an OCI layout is named oci:DIR, a root file system rootfs:DIR")
	}
	var tag *name.Tag
	if t, ok := r.name.(name.Tag); ok {
		tag = &t
	}
	img, err := tarball.ImageFromPath(r.path, tag)
	if err != nil {
		why := err.Error()
		if strings.Contains(why, "only a single image") {
			return nil, fmt.Errorf("the archive has several images: name one as docker-archive:%s:REF", r.path)
		}
		return nil, fmt.Errorf("not a docker archive, as docker save makes it: %w", err)
	}
	return img, nil
}
