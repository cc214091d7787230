package link

import (
	"fmt"

	"github.com/nabla-build/nabla-build/archive"
	"github.com/nabla-build/nabla-build/link/rewrite"
)

// Verified counts what Verify looked at.
type Verified struct {
	Files   int `json:"files"`
	Objects int `json:"objects"` // of those, rewritten ones
	Sites   int `json:"sites"`   // rewritten call sites, each of them proved
}

// Verify checks an archive from front to back: the index and its checksum, and
// that every rewritten call site does what the original did (rewrite.Verify).
// The error names the first file that is wrong.
func Verify(r *archive.Reader) (Verified, error) {
	var v Verified
	if err := r.Check(); err != nil {
		return v, err
	}
	seen := make([]bool, r.Inodes()+1)
	var walk func(d archive.Node, path string) error
	walk = func(d archive.Node, path string) error {
		for n := range r.ReadDir(d) {
			p := path + n.Name()
			switch {
			case n.IsDir():
				if err := walk(n, p+"/"); err != nil {
					return err
				}
			case n.IsRegular() && !seen[n.Ino()]:
				seen[n.Ino()] = true
				v.Files++
				patch, ok := n.Patch()
				if !ok {
					continue // Check has seen that there is none
				}
				data, err := n.Data()
				if err == nil {
					err = rewrite.Verify(data, &patch)
				}
				if err != nil {
					return fmt.Errorf("%s: %w", p, err)
				}
				v.Objects++
				v.Sites += len(patch.Undo)
			}
		}
		return nil
	}
	return v, walk(r.Root(), "")
}
