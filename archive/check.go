package archive

import (
	"fmt"
	"hash/crc32"
)

// Check verifies the whole archive: the checksum of the index, and that every
// record of it can be used. It is for tools (nabla-build verify); a Reader is
// safe to use without. The error names the first file that is wrong.
func (r *Reader) Check() error {
	t := r.b[len(r.b)-trailerSize:]
	ix, ok := slice(r.b, r.index, u64(t, trIndexLen))
	if !ok || crc32.Checksum(ix, castagnoli) != u32(t, trIndexCRC) {
		return fmt.Errorf("check archive: the checksum of the index differs: %w", ErrCorrupt)
	}
	total := uint64(len(r.sec[secEntries]) / entrySize)
	seen := uint64(1)
	var walk func(d Node, path string, depth int) error
	walk = func(d Node, path string, depth int) error {
		if depth > MaxPathLen {
			return fmt.Errorf("check archive: directories nested more than %d deep: %w", MaxPathLen, ErrCorrupt)
		}
		if got, want := r.Len(d), int(d.field32(inChildCount)); got != want {
			return fmt.Errorf("check archive: %q: %d children at an impossible place: %w", path, want, ErrCorrupt)
		}
		prev, count := "", 0
		for n := range r.ReadDir(d) {
			name := n.Name()
			p := path + name
			if name == "" || count > 0 && name <= prev {
				return fmt.Errorf("check archive: %q: names are not in order: %w", p, ErrCorrupt)
			}
			prev = name
			count++
			if n.Whiteout() {
				continue
			}
			if err := n.check(); err != nil {
				return fmt.Errorf("check archive: %q: %w", p, err)
			}
			if n.IsDir() {
				if err := walk(n, p+"/", depth+1); err != nil {
					return err
				}
			}
		}
		if count != r.Len(d) {
			return fmt.Errorf("check archive: %q: %d of %d children are usable: %w", path, count, r.Len(d), ErrCorrupt)
		}
		seen += uint64(count)
		return nil
	}
	if err := walk(r.Root(), "", 0); err != nil {
		return err
	}
	if seen != total {
		return fmt.Errorf("check archive: %d of %d entries are reached from the root: %w", seen, total, ErrCorrupt)
	}
	return nil
}

func (n Node) check() error {
	if _, err := n.Data(); err != nil {
		return err
	}
	if n.Patched() {
		if _, ok := n.Patch(); !ok {
			return fmt.Errorf("the patch record contradicts the file: %w", ErrCorrupt)
		}
	}
	if n.IsSymlink() && n.Link() == "" {
		return fmt.Errorf("symbolic link without a target: %w", ErrCorrupt)
	}
	if _, ok := n.LowerLink(); !ok && n.field32(inFlags)&flagLowerLink != 0 {
		return fmt.Errorf("hard link without a target: %w", ErrCorrupt)
	}
	xs := uint32(0)
	for range n.Xattrs() {
		xs++
	}
	if xs != n.field32(inXattrCount) {
		return fmt.Errorf("extended attributes outside the index: %w", ErrCorrupt)
	}
	return nil
}
