package rootfs

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
)

// whiteout is the prefix of the name that says that another is deleted (OCI
// image layer specification, Whiteouts).
const whiteout = ".wh."

// entry is a name that one of the two directories has.
type entry struct {
	name         string
	upper, lower fs.FileInfo // nil where it is not
	changed      bool        // upper is to be written
}

// diff compares two directories.
type diff struct {
	ctx           context.Context
	o             Options
	upper         string
	dev, lowerDev uint64
	overlay       bool    // upper is an overlay: a directory's inode is that of the topmost layer that has it
	entries       []entry // parents before their children, names sorted
}

// list is what a directory holds, by name.
func list(dir string) (map[string]fs.FileInfo, error) {
	es, err := os.ReadDir(dir)
	if err != nil {
		return nil, err
	}
	out := make(map[string]fs.FileInfo, len(es))
	for _, e := range es {
		if out[e.Name()], err = e.Info(); err != nil {
			return nil, err
		}
	}
	return out, nil
}

// stub says whether a name of the root is one of the empty directories that
// BuildKit mounts on.
func (d *diff) stub(name string, upper, lower fs.FileInfo) (bool, error) {
	if !d.o.NoStubs || name != "proc" && name != "sys" && name != "dev" {
		return false, nil
	}
	for dir, fi := range map[string]fs.FileInfo{d.upper: upper, d.o.Lower: lower} {
		if fi == nil {
			continue
		}
		if !fi.IsDir() {
			return false, nil
		}
		es, err := os.ReadDir(filepath.Join(dir, name))
		if err != nil || len(es) > 0 {
			return false, err
		}
	}
	return true, nil
}

// walk compares the directory name of both; below says whether the lower one
// has it.
func (d *diff) walk(name string, below bool) error {
	if err := d.ctx.Err(); err != nil {
		return err
	}
	dir := filepath.Join(d.upper, name)
	// Both at once: most of the time goes into asking for attributes.
	var low map[string]fs.FileInfo
	var lowErr error
	done := make(chan struct{})
	if below {
		go func() {
			low, lowErr = list(filepath.Join(d.o.Lower, name))
			close(done)
		}()
	} else {
		close(done)
	}
	up, err := list(dir)
	<-done
	if err := errors.Join(err, lowErr); err != nil {
		return err
	}
	names := slices.Collect(maps.Keys(up))
	for n := range low {
		if up[n] == nil {
			names = append(names, n)
		}
	}
	slices.Sort(names)
	for _, n := range names {
		if strings.HasPrefix(n, whiteout) {
			return fmt.Errorf("%s: in an image layer the name means that %s is deleted: rename the file", filepath.Join(dir, n), n[len(whiteout):])
		}
		e := entry{name: filepath.Join(name, n), upper: up[n], lower: low[n]}
		if stub, err := d.stub(e.name, e.upper, e.lower); err != nil {
			return err
		} else if stub {
			continue
		}
		if e.upper != nil {
			same := false
			if e.lower != nil {
				if same, err = d.same(&e); err != nil {
					return err
				}
			}
			e.changed = !same
		}
		d.entries = append(d.entries, e)
		if e.upper == nil || !e.upper.IsDir() || stat(e.upper).Dev != d.dev {
			continue
		}
		both := e.lower != nil && e.lower.IsDir() && stat(e.lower).Dev == d.lowerDev
		if both && d.overlay && stat(e.upper).Ino == stat(e.lower).Ino && stat(e.upper).Ctim == stat(e.lower).Ctim {
			continue // no layer above has the directory, so none has anything in it
		}
		if err := d.walk(e.name, both); err != nil {
			return err
		}
	}
	return nil
}

// same says whether a name is the same file in both directories. The time of a
// directory alone is no difference, as in BuildKit's layers: mounting something
// in it changes that.
func (d *diff) same(e *entry) (bool, error) {
	a, b := stat(e.upper), stat(e.lower)
	if a.Mode != b.Mode || a.Uid != b.Uid || a.Gid != b.Gid || a.Rdev != b.Rdev || !e.upper.IsDir() && (a.Size != b.Size || a.Mtim != b.Mtim) {
		return false, nil
	}
	// Two overlays show a file of a layer that both have with one inode, and
	// nobody can set the time of its last change.
	if a.Ino == b.Ino && a.Ctim == b.Ctim && !e.upper.IsDir() {
		return true, nil
	}
	pa, pb := filepath.Join(d.upper, e.name), filepath.Join(d.o.Lower, e.name)
	switch {
	case e.upper.Mode()&fs.ModeSymlink != 0:
		la, err := os.Readlink(pa)
		if err != nil {
			return false, err
		}
		lb, err := os.Readlink(pb)
		return la == lb, err
	case e.upper.IsDir(), e.upper.Mode().IsRegular():
		xa, err := xattrs(pa)
		if err != nil {
			return false, fmt.Errorf("%s: extended attributes: %w", pa, err)
		}
		xb, err := xattrs(pb)
		if err != nil {
			return false, fmt.Errorf("%s: extended attributes: %w", pb, err)
		}
		if !maps.Equal(xa, xb) || e.upper.IsDir() {
			return maps.Equal(xa, xb), nil
		}
		return sameContent(pa, pb)
	}
	return true, nil
}

func sameContent(a, b string) (bool, error) {
	fa, err := os.Open(a)
	if err != nil {
		return false, err
	}
	defer fa.Close()
	fb, err := os.Open(b)
	if err != nil {
		return false, err
	}
	defer fb.Close()
	x, y := make([]byte, 1<<16), make([]byte, 1<<16)
	for {
		n, err := io.ReadFull(fa, x)
		if err != nil && err != io.EOF && err != io.ErrUnexpectedEOF {
			return false, err
		}
		m, e := io.ReadFull(fb, y)
		if e != nil && e != io.EOF && e != io.ErrUnexpectedEOF {
			return false, e
		}
		if !bytes.Equal(x[:n], y[:m]) {
			return false, nil
		}
		if errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) {
			return true, nil
		}
	}
}

// hardLinks has all names of a file written where one is, or where the lower
// directory links them otherwise: a link cannot lead to a lower layer's file
// that is another one there.
func (d *diff) hardLinks() {
	upper, lower := map[inode][]int{}, map[inode][]int{}
	for i := range d.entries {
		e := &d.entries[i]
		if e.upper == nil {
			continue
		}
		if linked(e.upper) {
			upper[inodeOf(e.upper)] = append(upper[inodeOf(e.upper)], i)
		}
		if linked(e.lower) {
			lower[inodeOf(e.lower)] = append(lower[inodeOf(e.lower)], i)
		}
	}
	mark := func(group []int) {
		for _, i := range group {
			d.entries[i].changed = true
		}
	}
	for _, group := range lower { // names that are no longer one file
		for _, i := range group {
			if inodeOf(d.entries[i].upper) != inodeOf(d.entries[group[0]].upper) {
				mark(group)
				break
			}
		}
	}
	for again := true; again; {
		again = false
		for id, group := range upper {
			for _, i := range group {
				e := &d.entries[i]
				if e.changed || inodeOf(e.lower) != inodeOf(d.entries[group[0]].lower) {
					mark(group)
					delete(upper, id)
					again = true
					break
				}
			}
		}
	}
}

// parents has the directories written that hold something to be written, as
// BuildKit's layers have them.
func (d *diff) parents() {
	at := map[string]int{}
	for i := range d.entries {
		at[d.entries[i].name] = i
	}
	for i := range d.entries {
		e := &d.entries[i]
		if !e.changed && e.upper != nil {
			continue
		}
		for dir := filepath.Dir(e.name); dir != "."; dir = filepath.Dir(dir) {
			p := &d.entries[at[dir]]
			if p.changed {
				break
			}
			p.changed = true
		}
	}
}
