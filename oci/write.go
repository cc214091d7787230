package oci

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"

	"github.com/google/go-containerregistry/pkg/name"
	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/partial"
	"github.com/google/go-containerregistry/pkg/v1/remote"
	"github.com/google/go-containerregistry/pkg/v1/tarball"
	"github.com/google/go-containerregistry/pkg/v1/types"
)

// Progress is told how many bytes of a total are done; total may grow. It is
// called from one goroutine at a time.
type Progress func(done, total int64)

// Write puts an image where r says. A registry gets layers first and the
// manifest last, so that an interrupted push changes no tag and can be
// repeated; layers that are there already are not sent. A layout or an archive
// is complete or not there: on an error or when ctx ends, what was written is
// removed. Other images of an existing layout stay; one of the same tag is
// replaced. progress may be nil.
func (r Reference) Write(ctx context.Context, img v1.Image, o Options, progress Progress) error {
	if progress == nil {
		progress = func(int64, int64) {}
	}
	var err error
	switch r.Kind {
	case Registry:
		err = r.toRegistry(ctx, img, o, progress)
	case Layout:
		err = r.toLayout(ctx, img, progress)
	case DockerArchive:
		err = r.toArchive(ctx, img, progress)
	default:
		err = fmt.Errorf("%w of a destination: a %s: reference is a source only", ErrReference, r.Kind)
	}
	if err != nil {
		return fmt.Errorf("write %s: %w", r, err)
	}
	return nil
}

// updates runs f with a channel of updates that are passed on to progress. f
// may close the channel.
func updates(progress Progress, f func(chan<- v1.Update) error) error {
	ch := make(chan v1.Update, 16)
	quit, done := make(chan struct{}), make(chan struct{})
	go func() {
		defer close(done)
		for {
			select {
			case u, ok := <-ch:
				if !ok {
					return
				}
				if u.Error == nil {
					progress(u.Complete, u.Total)
				}
			case <-quit:
				return
			}
		}
	}()
	err := f(ch)
	close(quit)
	<-done
	return err
}

func (r Reference) toRegistry(ctx context.Context, img v1.Image, o Options, progress Progress) error {
	ref, err := r.registry(o)
	if err != nil {
		return err
	}
	err = updates(progress, func(ch chan<- v1.Update) error {
		return remote.Write(ref, img, append(o.remote(ctx), remote.WithProgress(ch))...)
	})
	if err != nil {
		if ctx.Err() != nil {
			return ctx.Err()
		}
		return fmt.Errorf("%w; repeating the command sends only what is missing", plain(err))
	}
	return nil
}

func (r Reference) toArchive(ctx context.Context, img v1.Image, progress Progress) error {
	// An archive without a name holds no tag; the writer wants a reference all
	// the same, and leaves out one by digest.
	var ref name.Reference = r.name
	if r.name == nil {
		d, err := img.Digest()
		if err != nil {
			return err
		}
		if ref, err = name.NewDigest("image@" + d.String()); err != nil {
			return err
		}
	}
	return WriteFile(r.path, 0o644, func(f *os.File) error {
		return updates(progress, func(ch chan<- v1.Update) error {
			return tarball.Write(ref, img, withContext{ctx, f}, tarball.WithProgress(ch))
		})
	})
}

// WriteFile makes a file of what write writes. The name is given to the whole
// file only: on an error nothing changes. perm is subject to the umask.
func WriteFile(path string, perm fs.FileMode, write func(*os.File) error) (err error) {
	f, err := os.CreateTemp(filepath.Dir(path), "."+filepath.Base(path)+".*")
	if err != nil {
		return err
	}
	defer func() {
		if err != nil {
			f.Close()
			os.Remove(f.Name())
		}
	}()
	if err = write(f); err != nil {
		return err
	}
	if err = f.Chmod(perm &^ umask()); err != nil {
		return err
	}
	if err = f.Close(); err != nil {
		return err
	}
	return os.Rename(f.Name(), path)
}

// withContext fails when the context has ended.
type withContext struct {
	ctx context.Context
	io.Writer
}

func (w withContext) Write(p []byte) (int, error) {
	if err := w.ctx.Err(); err != nil {
		return 0, err
	}
	return w.Writer.Write(p)
}

func (r Reference) toLayout(ctx context.Context, img v1.Image, progress Progress) (err error) {
	dir := r.path
	var index *v1.IndexManifest
	es, err := os.ReadDir(dir)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		// A new layout is made beside its place.
		tmp, err := os.MkdirTemp(filepath.Dir(dir), "."+filepath.Base(dir)+".*")
		if err != nil {
			return err
		}
		if err = os.Chmod(tmp, 0o777&^umask()); err == nil {
			if err = r.fillLayout(ctx, tmp, nil, img, progress); err == nil {
				err = os.Rename(tmp, dir)
			}
		}
		if err != nil {
			os.RemoveAll(tmp)
		}
		return err
	case err != nil:
		return err
	case len(es) > 0:
		if index, err = readLayout(dir); err != nil {
			return fmt.Errorf("the directory is not empty and %w", err)
		}
	}
	return r.fillLayout(ctx, dir, index, img, progress)
}

const layoutVersion = `{"imageLayoutVersion":"1.0.0"}`

// fillLayout adds the image to the layout in dir; index is what it has so far.
// Files that were added are removed on an error.
func (r Reference) fillLayout(ctx context.Context, dir string, index *v1.IndexManifest, img v1.Image, progress Progress) (err error) {
	w := &layoutWriter{ctx: ctx, dir: filepath.Join(dir, "blobs", "sha256"), progress: progress}
	defer func() {
		if err != nil {
			w.undo()
		}
	}()
	if err = w.mkdir(filepath.Join(dir, "blobs"), w.dir); err != nil {
		return err
	}
	layers, err := img.Layers()
	if err != nil {
		return err
	}
	for _, l := range layers {
		n, err := l.Size()
		if err != nil {
			return err
		}
		w.total += n
	}
	for i, l := range layers {
		if err = w.layer(l); err != nil {
			return fmt.Errorf("layer %d: %w", i+1, err)
		}
	}
	if err = w.config(img); err != nil {
		return err
	}
	d, err := partial.Descriptor(img)
	if err != nil {
		return err
	}
	d.Platform = &v1.Platform{OS: "linux", Architecture: "amd64"}
	if r.tag != "" {
		d.Annotations = map[string]string{refName: r.tag}
	} else {
		d.Annotations = nil
	}
	next := &v1.IndexManifest{SchemaVersion: 2, MediaType: types.OCIImageIndex}
	if index != nil {
		for _, old := range index.Manifests {
			if old.Annotations[refName] != r.tag {
				next.Manifests = append(next.Manifests, old)
			}
		}
		next.Annotations = index.Annotations
	}
	next.Manifests = append(next.Manifests, *d)
	b, err := json.MarshalIndent(next, "", "  ")
	if err != nil {
		return err
	}
	if err = w.file(filepath.Join(dir, "oci-layout"), []byte(layoutVersion)); err != nil {
		return err
	}
	// From here on the image is there.
	return WriteFile(filepath.Join(dir, "index.json"), 0o666, func(f *os.File) error {
		_, err := f.Write(b)
		return err
	})
}

// layoutWriter adds blobs and remembers what it made.
type layoutWriter struct {
	ctx         context.Context
	dir         string
	made        []string
	done, total int64
	progress    Progress
}

func (w *layoutWriter) mkdir(dirs ...string) error {
	for _, d := range dirs {
		err := os.Mkdir(d, 0o777)
		if err == nil {
			w.made = append(w.made, d)
		} else if !errors.Is(err, fs.ErrExist) {
			return err
		}
	}
	return nil
}

// undo removes what was made, the latest first.
func (w *layoutWriter) undo() {
	for i := len(w.made) - 1; i >= 0; i-- {
		os.Remove(w.made[i])
	}
}

func (w *layoutWriter) add(path string, write func(*os.File) error) error {
	if err := WriteFile(path, 0o666, write); err != nil {
		return err
	}
	w.made = append(w.made, path)
	return nil
}

func (w *layoutWriter) file(path string, b []byte) error {
	if exists(path) {
		return nil
	}
	return w.add(path, func(f *os.File) error { _, err := f.Write(b); return err })
}

func (w *layoutWriter) layer(l v1.Layer) error {
	d, err := l.Digest()
	if err != nil {
		return err
	}
	size, err := l.Size()
	if err != nil {
		return err
	}
	path := filepath.Join(w.dir, d.Hex)
	if fi, err := os.Stat(path); err == nil && fi.Mode().IsRegular() && fi.Size() == size {
		w.done += size
		w.progress(w.done, w.total)
		return nil
	}
	if from, ok := l.(fileLayer); ok && w.link(from.File(), path, size) {
		return nil
	}
	return w.add(path, func(f *os.File) error {
		rc, err := l.Compressed()
		if err != nil {
			return err
		}
		defer rc.Close()
		if _, err := io.CopyBuffer(counting{w, f}, struct{ io.Reader }{Verify(rc, d)}, make([]byte, 1<<18)); err != nil {
			return err
		}
		return nil
	})
}

// fileLayer is a layer whose compressed form is a file that can be had; "" if
// it is not to be taken.
type fileLayer interface{ File() string }

// link gives a layer's file a second name in the layout. That is not possible
// between file systems, nor with a file that others could change later.
func (w *layoutWriter) link(from, to string, size int64) bool {
	if fi, err := os.Lstat(from); err != nil || !fi.Mode().IsRegular() || fi.Size() != size {
		return false
	}
	if err := os.Link(from, to); err != nil {
		return false
	}
	w.made = append(w.made, to)
	w.done += size
	w.progress(w.done, w.total)
	return true
}

// counting passes on and reports what is written.
type counting struct {
	w *layoutWriter
	f *os.File
}

func (c counting) Write(p []byte) (int, error) {
	if err := c.w.ctx.Err(); err != nil {
		return 0, err
	}
	n, err := c.f.Write(p)
	c.w.done += int64(n)
	c.w.progress(c.w.done, c.w.total)
	return n, err
}

func (w *layoutWriter) config(img v1.Image) error {
	c, err := img.RawConfigFile()
	if err != nil {
		return err
	}
	name, err := img.ConfigName()
	if err != nil {
		return err
	}
	if err := w.file(filepath.Join(w.dir, name.Hex), c); err != nil {
		return err
	}
	m, err := img.RawManifest()
	if err != nil {
		return err
	}
	d, err := img.Digest()
	if err != nil {
		return err
	}
	return w.file(filepath.Join(w.dir, d.Hex), m)
}
