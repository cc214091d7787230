package image

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/json"
	"fmt"
	"io"
	"os"

	"github.com/nabla-build/nabla-build/archive"
	"github.com/nabla-build/nabla-build/manifest"
	"github.com/nabla-build/nabla-build/release"
	"github.com/nabla-build/nabla-build/selfexe"
)

// WriteExecutable writes the image as one self-contained executable.
func (r *Result) WriteExecutable(ctx context.Context, w io.Writer) error {
	rep, err := r.reportJSON()
	if err != nil {
		return err
	}
	return writeExecutable(ctx, w, r.Manifest, rep, func(i int, f func(io.Reader) error) error {
		if err := r.entries[i].unpack(ctx); err != nil {
			return err
		}
		in, err := os.Open(r.entries[i].archive())
		if err != nil {
			return err
		}
		defer in.Close()
		return f(in)
	})
}

// WriteExecutable writes an existing nabla image as one self-contained
// executable, with this release's tender.
func (n *Nabla) WriteExecutable(ctx context.Context, w io.Writer) error {
	var rep []byte
	if n.Report != nil {
		b, err := json.Marshal(n.Report)
		if err != nil {
			return err
		}
		rep = append(b, '\n')
	}
	return writeExecutable(ctx, w, n.Manifest, rep, n.archive)
}

func writeExecutable(ctx context.Context, w io.Writer, m *manifest.Manifest, rep []byte, archive func(int, func(io.Reader) error) error) error {
	tender, _, err := release.Open(release.Tender)
	if err != nil {
		return err
	}
	out := contextWriter{ctx, w}
	sw, err := selfexe.NewWriter(out, tender)
	if err != nil {
		return err
	}
	single := *m
	single.Archives = append([]manifest.Archive(nil), m.Archives...)
	for i := range single.Archives {
		a := &single.Archives[i]
		a.Offset, a.PartSize = sw.Next(), 0
		err := archive(i, func(content io.Reader) error {
			h, sum := digestOf(a.Digest)
			if err := sw.Add(selfexe.Archive, io.TeeReader(content, h)); err != nil {
				return err
			}
			if got := sum(); got != a.Digest {
				return fmt.Errorf("%s has the digest %s, the manifest says %s: the image is damaged", a.Path, got, a.Digest)
			}
			return nil
		})
		if err != nil {
			return fmt.Errorf("archive %d: %w", i+1, err)
		}
	}
	netd, _, err := release.Open(release.Netd)
	if err != nil {
		return err
	}
	if err := sw.Add(selfexe.Netd, netd); err != nil {
		return err
	}
	if rep != nil {
		if err := sw.Add(selfexe.Report, bytes.NewReader(rep)); err != nil {
			return err
		}
	}
	b, err := single.Encode()
	if err != nil {
		return err
	}
	if err := sw.Add(selfexe.Manifest, bytes.NewReader(b)); err != nil {
		return err
	}
	return sw.Close()
}

type contextWriter struct {
	ctx context.Context
	w   io.Writer
}

func (c contextWriter) Write(p []byte) (int, error) {
	if err := c.ctx.Err(); err != nil {
		return 0, err
	}
	return c.w.Write(p)
}

// WriteEmpty writes a self-contained executable with an empty root file system
// in which the program does not exist: it says what it permits, and ends.
func WriteEmpty(ctx context.Context, w io.Writer, m *manifest.Manifest) error {
	var b bytes.Buffer
	if err := archive.NewWriter(&b).Close(); err != nil {
		return err
	}
	sum := fmt.Sprintf("sha256:%x", sha256.Sum256(b.Bytes()))
	e := *m
	e.Guest = manifest.Guest{Entrypoint: []string{"/nothing"}, WorkingDir: "/"}
	e.Report = nil
	e.Layout = nil
	e.Archives = []manifest.Archive{{
		File:   manifest.File{Path: "/" + nablaDir + "/" + sum[7:] + ".cpio", Digest: sum, Size: int64(b.Len())},
		Source: sum,
	}}
	return writeExecutable(ctx, w, &e, nil, func(_ int, f func(io.Reader) error) error { return f(&b) })
}
