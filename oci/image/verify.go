package image

import (
	"archive/tar"
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"

	"github.com/nabla-build/nabla-build/archive"
	"github.com/nabla-build/nabla-build/link/rewrite"
	"github.com/nabla-build/nabla-build/release"
	"github.com/nabla-build/nabla-build/selfexe"
)

// Proof is what Verify found to be right.
type Proof struct {
	Archives int   `json:"archives"`
	Bytes    int64 `json:"bytes"`
	// Objects and Sites count what the independent verifier of package link
	// proved: rewritten objects and their call sites.
	Objects int `json:"objects"`
	Sites   int `json:"sites"`
	// Tender says whether the tender is this release's.
	Tender bool `json:"tenderOfThisRelease"`
}

// Verify proves a nabla image again: every archive has the digest and size of
// the manifest and a consistent index, every rewritten object does what the
// original does, and the program can be started. One archive at a time is
// copied to a temporary file.
func (n *Nabla) Verify(ctx context.Context) (p Proof, err error) {
	if n.file != nil {
		for i, s := range n.sections {
			if err := s.Verify(n.file); err != nil {
				return p, fmt.Errorf("section %d: %w", i, err)
			}
		}
	}
	dir, err := os.MkdirTemp("", "nabla-build-")
	if err != nil {
		return p, err
	}
	defer os.RemoveAll(dir)
	var files []string
	for i, a := range n.Manifest.Archives {
		file := filepath.Join(dir, fmt.Sprint(i))
		err := n.archive(i, func(content io.Reader) error {
			f, err := os.Create(file)
			if err != nil {
				return err
			}
			defer f.Close()
			h, sum := digestOf(a.Digest)
			n, err := io.Copy(contextWriter{ctx, io.MultiWriter(f, h)}, content)
			if err != nil {
				return err
			}
			if n != a.Size || sum() != a.Digest {
				return fmt.Errorf("%s: %d bytes with digest %s, the manifest says %d with %s", a.Path, n, sum(), a.Size, a.Digest)
			}
			p.Bytes += n
			return f.Close()
		})
		if err != nil {
			return p, fmt.Errorf("archive %d: %w", i+1, err)
		}
		files = append(files, file)
	}
	root, unmap, err := views(len(files), func(i int) (*archive.Reader, func(), error) { return openArchive(files[i]) })
	if err != nil {
		return p, err
	}
	defer unmap()
	for i, r := range root {
		if err := r.Check(); err != nil {
			return p, fmt.Errorf("archive %d: %w", i+1, err)
		}
		if err := p.objects(ctx, r, r.Root(), map[uint64]bool{}); err != nil {
			return p, fmt.Errorf("archive %d: %w", i+1, err)
		}
		p.Archives++
	}
	g := n.Manifest.Guest
	if err := checkProgram(root, append(append([]string{}, g.Entrypoint...), g.Cmd...), g.Env, g.WorkingDir); err != nil {
		return p, err
	}
	p.Tender, err = n.tenderIsOurs()
	return p, err
}

// objects proves the rewritten objects below a directory; seen are the inodes
// of those that were proved.
func (p *Proof) objects(ctx context.Context, r *archive.Reader, dir archive.Node, seen map[uint64]bool) error {
	for n := range r.ReadDir(dir) {
		if err := ctx.Err(); err != nil {
			return err
		}
		if n.IsDir() {
			if err := p.objects(ctx, r, n, seen); err != nil {
				return fmt.Errorf("%s/%w", n.Name(), err)
			}
			continue
		}
		if !n.Patched() || seen[n.Ino()] {
			continue
		}
		seen[n.Ino()] = true
		patch, ok := n.Patch()
		if !ok {
			return fmt.Errorf("%s: the patch record contradicts itself", n.Name())
		}
		b, err := n.Data()
		if err != nil {
			return err
		}
		if err := rewrite.Verify(b, &patch); err != nil {
			return fmt.Errorf("%s: %w", n.Name(), err)
		}
		p.Objects++
		p.Sites += len(patch.Undo)
	}
	return nil
}

// tenderIsOurs compares the image's tender with the embedded one.
func (n *Nabla) tenderIsOurs() (bool, error) {
	ours, size, err := release.Open(release.Tender)
	if errors.Is(err, release.ErrNotBuilt) {
		return false, nil
	}
	if err != nil {
		return false, err
	}
	if n.file != nil {
		end := int64(0)
		if len(n.sections) > 0 {
			end = n.sections[0].Offset
		}
		if end < size || end-size >= selfexe.Align {
			return false, nil
		}
		return same(ours, io.NewSectionReader(n.file, 0, size))
	}
	equal := false
	err = walkLayer(n.Layers[0], func(h *tar.Header, content io.Reader) error {
		if filepath.Clean("/"+h.Name) != "/"+string(release.Tender) || h.Size != size {
			return nil
		}
		equal, err = same(ours, content)
		return err
	})
	return equal, err
}

func same(a, b io.Reader) (bool, error) {
	x, y := sha256.New(), sha256.New()
	if _, err := io.Copy(x, a); err != nil {
		return false, err
	}
	if _, err := io.Copy(y, b); err != nil {
		return false, err
	}
	return string(x.Sum(nil)) == string(y.Sum(nil)), nil
}
