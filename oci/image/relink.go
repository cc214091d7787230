package image

import (
	"archive/tar"
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"path"
	"path/filepath"
	"slices"
	"strings"

	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/empty"
	"github.com/google/go-containerregistry/pkg/v1/mutate"
	"github.com/google/go-containerregistry/pkg/v1/static"
	"github.com/google/go-containerregistry/pkg/v1/types"

	"github.com/nabla-build/nabla-build/archive"
	"github.com/nabla-build/nabla-build/link"
	"github.com/nabla-build/nabla-build/manifest"
	"github.com/nabla-build/nabla-build/oci"
	"github.com/nabla-build/nabla-build/oci/rootview"
	"github.com/nabla-build/nabla-build/release"
)

// Options are for Relink. Store is needed, the rest may be zero.
type Options struct {
	// Store takes the layers; the result reads from it as long as it is used.
	Store *Store
	// BaseName and BaseDigest are the name and manifest digest of the source
	// image, for the annotations; empty ones are left out.
	BaseName, BaseDigest string
	// Configure, if not nil, changes a copy of the source's configuration.
	Configure func(*v1.Config)
	// Link is passed on; its Progress is not used.
	Link link.Options
	// Archives keeps the archives in the store as they are, for
	// WriteExecutable; otherwise they are packed at once, for Image. Both work
	// either way.
	Archives bool
	// Progress is told of the work on layers, from one goroutine.
	Progress func(Event)
}

// Event says how far the work on a layer is.
type Event struct {
	Layer, Layers int // 1 to Layers
	// Read is the number of bytes of the layer's tar stream that were read;
	// Total is its size, where it is known: when Done.
	Read, Total int64
	Cached      bool
	Done        bool
}

// Result is a relinked image.
type Result struct {
	Manifest *manifest.Manifest
	Report   link.Report
	// Cached says of each source layer whether it was in the store already.
	Cached []bool
	// Warnings are one sentence each.
	Warnings []string

	config  *v1.ConfigFile
	entries []*entry
	store   *Store
	base    map[string]string
}

// ErrNabla is returned for a source that is a nabla image already.
var ErrNabla = errors.New("it is a nabla image already")

// Annotations of the base image (OCI image specification, annotations).
const (
	AnnotationBaseName   = "org.opencontainers.image.base.name"
	AnnotationBaseDigest = "org.opencontainers.image.base.digest"
)

// Relink makes a nabla image of an ordinary one. It reads the layers that the
// store does not have, verifies their diff IDs, and checks that the program of
// the result can be started. The same source, options and release give the
// same result. On an error the store keeps whole layers only.
func Relink(ctx context.Context, src v1.Image, o Options) (*Result, error) {
	cf, err := src.ConfigFile()
	if err != nil {
		return nil, fmt.Errorf("image configuration: %w", err)
	}
	cf = cf.DeepCopy()
	if isNabla(cf.Config) {
		return nil, ErrNabla
	}
	if o.Configure != nil {
		o.Configure(&cf.Config)
	}
	layers, err := src.Layers()
	if err != nil {
		return nil, fmt.Errorf("layers: %w", err)
	}
	if len(layers) != len(cf.RootFS.DiffIDs) {
		return nil, fmt.Errorf("the image has %d layers, its configuration names %d", len(layers), len(cf.RootFS.DiffIDs))
	}
	r := &Result{config: cf, store: o.Store, base: map[string]string{}}
	for i, l := range layers {
		e, cached, err := relinkLayer(ctx, l, cf.RootFS.DiffIDs[i], i, len(layers), o)
		if err != nil {
			if ctx.Err() != nil {
				return nil, ctx.Err()
			}
			return nil, fmt.Errorf("layer %d: %w", i+1, err)
		}
		r.entries = append(r.entries, e)
		r.Cached = append(r.Cached, cached)
		r.Report.Layers = append(r.Report.Layers, e.Report)
		for _, w := range e.Report.Warnings {
			r.warn("layer %d: %s", i+1, w)
		}
	}
	if err := r.describe(o); err != nil {
		return nil, err
	}
	return r, nil
}

func (r *Result) warn(format string, a ...any) {
	r.Warnings = append(r.Warnings, fmt.Sprintf(format, a...))
}

func relinkLayer(ctx context.Context, l v1.Layer, diffID v1.Hash, i, n int, o Options) (*entry, bool, error) {
	tell := func(Event) {}
	if o.Progress != nil {
		tell = func(e Event) { e.Layer, e.Layers = i+1, n; o.Progress(e) }
	}
	if e, ok := o.Store.get(diffID); ok {
		tell(Event{Read: e.Report.BytesIn, Total: e.Report.BytesIn, Cached: true, Done: true})
		return e, true, nil
	}
	opts := o.Link
	opts.Progress = func(read int64) { tell(Event{Read: read}) }
	e, err := o.Store.create(ctx, diffID, func() (io.ReadCloser, error) {
		rc, err := oci.Content(l)
		if err != nil {
			return nil, err
		}
		return oci.Verify(rc, diffID), nil
	}, opts, o.Archives)
	if err != nil {
		return nil, false, err
	}
	tell(Event{Read: e.Report.BytesIn, Total: e.Report.BytesIn, Done: true})
	return e, false, nil
}

// describe makes the manifest.
func (r *Result) describe(o Options) error {
	root, unmap, err := r.view()
	if err != nil {
		return err
	}
	defer unmap()
	var archives []manifest.Archive
	for i, e := range r.entries {
		archives = append(archives, manifest.Archive{
			File:     manifest.File{Path: archivePath(e.diffID), Digest: e.Digest, Size: e.Size},
			PartSize: partSize,
			Source:   r.config.RootFS.DiffIDs[i].String(),
		})
	}
	if o.BaseName != "" {
		r.base[AnnotationBaseName] = o.BaseName
	}
	if o.BaseDigest != "" {
		r.base[AnnotationBaseDigest] = o.BaseDigest
	}
	rep, err := r.reportJSON()
	if err != nil {
		return err
	}
	r.Manifest, err = describe(root, r.config.Config, archives, rep, r.warn)
	if err != nil {
		return err
	}
	return r.Manifest.Validate()
}

// describe makes the manifest of an image with the configuration c, whose root
// file system is in archives. It checks that the program can be started. rep is
// the encoded report.
func describe(root rootview.View, c v1.Config, archives []manifest.Archive, rep []byte, warn func(string, ...any)) (*manifest.Manifest, error) {
	g, ports, err := guest(root, c, warn)
	if err != nil {
		return nil, err
	}
	if c.Healthcheck != nil && len(c.Healthcheck.Test) > 0 && c.Healthcheck.Test[0] != "NONE" {
		warn("HEALTHCHECK is dropped: nothing can be executed beside the one process; probe a port instead")
	}
	if len(c.OnBuild) > 0 {
		warn("ONBUILD instructions are dropped: a nabla image is no base for builds")
	}
	return &manifest.Manifest{
		SchemaVersion: manifest.SchemaVersion, OS: "linux", Architecture: "amd64", Release: release.Version,
		Guest: g, Ports: ports, StopSignal: stopSignal(c.StopSignal), Archives: archives,
		Report: &manifest.File{Path: reportPath, Digest: fmt.Sprintf("sha256:%x", sha256.Sum256(rep)), Size: int64(len(rep))},
	}, nil
}

func (r *Result) reportJSON() ([]byte, error) { return encodeReport(r.Report) }

func encodeReport(r link.Report) ([]byte, error) {
	b, err := json.Marshal(r)
	if err != nil {
		return nil, fmt.Errorf("link report: %w", err)
	}
	return append(b, '\n'), nil
}

// view opens the archives.
func (r *Result) view() (rootview.View, func(), error) {
	return views(len(r.entries), func(i int) (*archive.Reader, func(), error) { return r.entries[i].open() })
}

const (
	nablaDir   = "nabla.d"
	reportPath = "/nabla.d/report.json"
)

// archivePath is where the archive of the source layer with the diff ID d stands
// in an image.
func archivePath(d v1.Hash) string { return "/" + nablaDir + "/" + d.Hex + ".cpio" }

// isNabla says whether a configuration is that of a nabla image.
func isNabla(c v1.Config) bool { return slices.Equal(c.Entrypoint, entrypoint()) }

// IsConfig says whether an entrypoint is that of nabla images.
func IsConfig(entry []string) bool { return slices.Equal(entry, entrypoint()) }

func entrypoint() []string { return []string{"/nabla"} }

// Image makes the OCI image: compresses what is not compressed yet. The image
// reads from the store.
func (r *Result) Image(ctx context.Context) (v1.Image, error) {
	tender, err := r.store.tender(ctx)
	if err != nil {
		return nil, err
	}
	adds := []mutate.Addendum{{Layer: tender}}
	for i, e := range r.entries {
		l, err := e.pack(ctx)
		if err != nil {
			return nil, fmt.Errorf("layer %d: %w", i+1, err)
		}
		adds = append(adds, mutate.Addendum{Layer: l})
	}
	last, err := r.lastLayer(ctx)
	if err != nil {
		return nil, err
	}
	adds = append(adds, mutate.Addendum{Layer: last})
	img := mutate.ConfigMediaType(mutate.MediaType(empty.Image, types.OCIManifestSchema1), types.OCIConfigJSON)
	if img, err = mutate.ConfigFile(img, r.imageConfig()); err != nil {
		return nil, err
	}
	history := r.history()
	for i := range adds {
		adds[i].History = history[i]
		adds[i].MediaType = types.OCILayer
	}
	if img, err = mutate.Append(img, adds...); err != nil {
		return nil, err
	}
	if len(r.base) > 0 {
		img = mutate.Annotations(img, r.base).(v1.Image)
	}
	// Computed once, here, rather than at a moment when nobody expects it.
	if _, err := img.Digest(); err != nil {
		return nil, err
	}
	return img, nil
}

// imageConfig is the configuration without layers.
func (r *Result) imageConfig() *v1.ConfigFile {
	src := r.config
	return &v1.ConfigFile{
		OS: "linux", Architecture: "amd64", Author: src.Author, Created: src.Created,
		Config: Config(src.Config, r.Manifest.Guest, r.base), RootFS: v1.RootFS{Type: "layers"},
	}
}

// Config is the configuration of the nabla image that runs the guest of an image
// with the configuration c. labels are added.
func Config(c v1.Config, g manifest.Guest, labels map[string]string) v1.Config {
	c.Entrypoint, c.Cmd, c.Env = entrypoint(), g.Cmd, g.Env
	c.WorkingDir = g.WorkingDir
	if c.User != "" {
		c.User = fmt.Sprintf("%d:%d", g.UID, g.GID)
	}
	c.Healthcheck, c.OnBuild, c.Shell = nil, nil, nil
	c.Image, c.Hostname, c.Domainname, c.ArgsEscaped = "", "", "", false
	c.Labels = maps.Clone(c.Labels)
	if c.Labels == nil && len(labels) > 0 {
		c.Labels = map[string]string{}
	}
	maps.Copy(c.Labels, labels)
	return c
}

// history describes the layers: those of the source as the source has them.
func (r *Result) history() []v1.History {
	by := func(what string) v1.History {
		return v1.History{Created: r.config.Created, CreatedBy: what, Comment: "nabla-build " + release.Version}
	}
	var old []v1.History
	for _, h := range r.config.History {
		if !h.EmptyLayer {
			old = append(old, h)
		}
	}
	out := []v1.History{by("tender")}
	for i := range r.entries {
		h := by("relinked layer")
		if len(old) == len(r.entries) {
			h = old[i]
			h.Comment = strings.TrimSpace(h.Comment + " relinked by nabla-build " + release.Version)
		}
		out = append(out, h)
	}
	return append(out, by("manifest"))
}

// tender is the layer with the executables of the release.
func (s *Store) tender(ctx context.Context) (fileLayer, error) {
	name := "tender"
	dir := filepath.Join(s.dir, name)
	l, err := packedIn(dir)
	if err != nil {
		err = s.scratch(name, func(dir string) error {
			_, err := writePackedIn(dir, func(w io.Writer) (packed, error) { return packLayer(ctx, w, tenderFiles) })
			return err
		})
		if err == nil {
			l, err = packedIn(dir)
		}
	}
	l.shared = !s.temporary
	return l, err
}

func tenderFiles(tw *tar.Writer) error {
	for _, a := range []release.Asset{release.Tender, release.Netd} {
		c, size, err := release.Open(a)
		if err != nil {
			return err
		}
		if err := addFile(tw, string(a), 0o755, size, c); err != nil {
			return err
		}
	}
	return nil
}

// lastLayer holds the manifest, the report and mount points.
func (r *Result) lastLayer(ctx context.Context) (v1.Layer, error) {
	m, err := r.Manifest.Encode()
	if err != nil {
		return nil, err
	}
	rep, err := r.reportJSON()
	if err != nil {
		return nil, err
	}
	var b bytes.Buffer
	p, err := packLayer(ctx, &b, func(tw *tar.Writer) error {
		dirs := mountPoints(r.Manifest.Guest.WorkingDir)
		for _, d := range slices.Sorted(maps.Keys(dirs)) {
			if err := addDir(tw, d, dirs[d]); err != nil {
				return err
			}
		}
		if err := addFile(tw, manifest.Path[1:], 0o444, int64(len(m)), bytes.NewReader(m)); err != nil {
			return err
		}
		return addFile(tw, reportPath[1:], 0o444, int64(len(rep)), bytes.NewReader(rep))
	})
	if err != nil {
		return nil, err
	}
	return smallLayer{static.NewLayer(b.Bytes(), types.OCILayer), p}, nil
}

// mountPoints are the directories of the last layer with their modes.
func mountPoints(workingDir string) map[string]int64 {
	dirs := map[string]int64{"dev": 0o755, "etc": 0o755, nablaDir: 0o755, "proc": 0o555, "sys": 0o555, "tmp": 0o1777}
	for d := workingDir; d != "/"; d = path.Dir(d) {
		if _, ok := dirs[d[1:]]; !ok {
			dirs[d[1:]] = 0o755
		}
	}
	return dirs
}

// smallLayer is a compressed layer in memory.
type smallLayer struct {
	v1.Layer
	packed packed
}

func (l smallLayer) DiffID() (v1.Hash, error)             { return l.packed.DiffID, nil }
func (l smallLayer) Uncompressed() (io.ReadCloser, error) { return gunzip(l.Compressed()) }
