package memfs

import (
	"fmt"
	"slices"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"github.com/nabla-build/nabla-build/archive"
)

// lowerDir is a directory of a layer.
type lowerDir struct {
	r     *archive.Reader
	node  archive.Node
	layer int // its number, the lowest is 0
}

// OpenLayers opens archives, lowest first. It reads their trailers only.
func OpenLayers(archives [][]byte) ([]*archive.Reader, error) {
	var layers []*archive.Reader
	for i, b := range archives {
		r, err := archive.Open(b)
		if err != nil {
			return nil, fmt.Errorf("layer %d: %w", i+1, err)
		}
		layers = append(layers, r)
	}
	return layers, nil
}

// rootDirs merges the layers' roots.
func rootDirs(layers []*archive.Reader) []lowerDir {
	var dirs []lowerDir
	for i := len(layers) - 1; i >= 0; i-- {
		root := layers[i].Root()
		dirs = append(dirs, lowerDir{layers[i], root, i})
		if root.Opaque() {
			break
		}
	}
	return dirs
}

// lowerEntry is what a name is in merged directories: a file of one layer, or
// directories of several, highest first.
type lowerEntry struct {
	node  archive.Node // whose attributes count
	layer int
	dirs  []lowerDir // of a directory
}

// lookupLower finds name in the merge of dirs (OCI image specification, layer
// section "Applying Changesets"). grafts are directories that belong to the
// result too, highest first.
func lookupLower(dirs []lowerDir, name string, grafts []lowerDir) (lowerEntry, bool) {
	var e lowerEntry
	for _, d := range dirs {
		for len(grafts) > 0 && grafts[0].layer >= d.layer {
			e.add(grafts[0])
			grafts = grafts[1:]
		}
		c, ok := d.r.Lookup(d.node, name)
		if !ok {
			continue
		}
		if c.Whiteout() {
			break
		}
		if !c.IsDir() {
			// A directory that a layer only implies does not replace a link to
			// one: what it holds is grafted on where the link leads.
			if e.dirs == nil || e.implied() && c.IsSymlink() {
				return lowerEntry{node: c, layer: d.layer}, true
			}
			break
		}
		e.add(lowerDir{d.r, c, d.layer})
		if c.Opaque() {
			break
		}
	}
	return e, e.dirs != nil
}

// add merges a directory that lies below the ones that e has. A directory that
// a layer only implies has the attributes of one below it.
func (e *lowerEntry) add(d lowerDir) {
	if e.dirs == nil || e.node.Implied() {
		e.node, e.layer = d.node, d.layer
	}
	e.dirs = append(e.dirs, d)
}

// implied reports whether no layer describes the directory itself.
func (e *lowerEntry) implied() bool {
	for _, d := range e.dirs {
		if !d.node.Implied() {
			return false
		}
	}
	return true
}

// findGrafts looks for directories that a layer implies where the layers below
// have a symbolic link, and notes where the link leads. It looks only into
// implied directories that the layers below have too.
func (fs *FS) findGrafts() {
	for i := 1; i < len(fs.opts.Layers); i++ {
		r := fs.opts.Layers[i]
		fs.graftsIn(lowerDir{r, r.Root(), i}, "")
	}
	for _, g := range fs.grafts {
		slices.SortStableFunc(g, func(a, b lowerDir) int { return b.layer - a.layer })
	}
}

func (fs *FS) graftsIn(dir lowerDir, at string) {
	below := fs.opts.Layers[:dir.layer]
	for c := range dir.r.ReadDir(dir.node) {
		if !c.IsDir() || !c.Implied() {
			continue
		}
		name := join(at, c.Name())
		e, ok := walkLower(below, name)
		switch {
		case !ok:
		case e.dirs != nil:
			fs.graftsIn(lowerDir{dir.r, c, dir.layer}, name)
		case e.node.IsSymlink():
			target, ok := resolveLower(below, name)
			if !ok || target == "" {
				continue
			}
			if fs.grafts == nil {
				fs.grafts = make(map[string][]lowerDir)
			}
			fs.grafts[target] = append(fs.grafts[target], lowerDir{dir.r, c, dir.layer})
		}
	}
}

// join is the path of name in directory dir; the root is "".
func join(dir, name string) string {
	if dir == "" {
		return name
	}
	return dir + "/" + name
}

// walkLower finds path, relative to the root, in the merge of layers; it
// follows no links.
func walkLower(layers []*archive.Reader, path string) (lowerEntry, bool) {
	e := lowerEntry{dirs: rootDirs(layers)}
	for name := range strings.SplitSeq(path, "/") {
		var ok bool
		if name == "" {
			continue
		}
		if e, ok = lookupLower(e.dirs, name, nil); !ok {
			return e, false
		}
	}
	return e, true
}

// resolveLower follows the links of path in the merge of layers and returns
// the path, without links, of the directory that it leads to.
func resolveLower(layers []*archive.Reader, path string) (string, bool) {
	at, rest := "", path
	for links := 0; rest != ""; {
		var name string
		name, rest, _ = strings.Cut(rest, "/")
		switch name {
		case "", ".":
			continue
		case "..":
			at = at[:max(0, strings.LastIndexByte(at, '/'))]
			continue
		}
		e, ok := walkLower(layers, join(at, name))
		switch {
		case !ok:
			return "", false
		case e.dirs != nil:
			at = join(at, name)
		case e.node.IsSymlink():
			if links++; links > 40 {
				return "", false
			}
			to := e.node.Link()
			if strings.HasPrefix(to, "/") {
				at = ""
			}
			rest = to + "/" + rest
		default:
			return "", false
		}
	}
	return at, true
}

// lowerLink resolves a hard link to a file of the layers below: it has that
// file's content and attributes.
func (fs *FS) lowerLink(n archive.Node, layer int) (archive.Node, error) {
	for range maxLowerLinks {
		path, ok := n.LowerLink()
		if !ok {
			return n, nil
		}
		e, ok := walkLower(fs.opts.Layers[:layer], path)
		if !ok {
			return n, unix.EIO
		}
		if e.dirs != nil {
			return n, unix.EIO
		}
		n, layer = e.node, e.layer
	}
	return n, unix.EIO
}

// maxLowerLinks is more than any image has layers.
const maxLowerLinks = 1 << 10

// fromLower makes the node of a layer's object. An object whose data cannot be
// read becomes one that answers EIO when it is opened.
func (fs *FS) fromLower(e lowerEntry) *node {
	l := e.node
	key := lowerID{e.layer, l.Ino()}
	ino := lowerIno(e.layer, l.Ino())
	shared := e.dirs == nil && l.Nlink() > 1
	if shared {
		if n := fs.linked[key]; n != nil {
			return n
		}
	}
	nlink := uint64(max(1, l.Nlink()))
	var bad error
	if e.dirs == nil {
		l, bad = fs.lowerLink(l, e.layer)
	}
	t := time.Unix(0, 0)
	if sec, nsec := l.Mtime(); sec != 0 || nsec != 0 {
		t = time.Unix(sec, int64(nsec))
	}
	n := &node{
		fs: fs, ino: ino, kind: l.Mode() & unix.S_IFMT, mode: l.Mode(), uid: l.UID(), gid: l.GID(), rdev: l.Rdev(),
		nlink: nlink, atime: t, mtime: t, ctime: t, btime: t, lower: e.dirs,
	}
	n.data.pool = &fs.pool
	switch n.kind {
	case unix.S_IFREG:
		b, err := l.Data()
		if bad == nil && err != nil {
			bad = unix.EIO
		}
		if bad == nil {
			n.data.lower, n.data.size, n.data.lowEnd = b, int64(len(b)), int64(len(b))
			if l.Patched() {
				n.data.patched = l
			}
		}
		n.bad = bad
	case unix.S_IFLNK:
		n.target = l.Link()
	case unix.S_IFDIR:
		n.makeDir()
	}
	for name, v := range l.Xattrs() {
		if n.xattrs == nil {
			n.xattrs = make(map[string][]byte)
		}
		n.xattrs[name] = v
	}
	if shared {
		fs.linked[key] = n
	}
	return n
}

// lowerIno is the inode number of a layer's object: the same before and after
// its node is made, and below 2^53, so that it fits a double.
func lowerIno(layer int, id uint64) uint64 { return uint64(layer+1)<<32 | id }
