package memfs

import (
	"fmt"
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
// section "Applying Changesets").
func lookupLower(dirs []lowerDir, name string) (lowerEntry, bool) {
	var e lowerEntry
	for _, d := range dirs {
		c, ok := d.r.Lookup(d.node, name)
		if !ok {
			continue
		}
		if c.Whiteout() {
			break
		}
		if !c.IsDir() {
			if e.dirs == nil {
				return lowerEntry{node: c, layer: d.layer}, true
			}
			break
		}
		// A directory that a layer only implies has the attributes of one
		// below it.
		if e.dirs == nil || e.node.Implied() {
			e.node, e.layer = c, d.layer
		}
		e.dirs = append(e.dirs, lowerDir{d.r, c, d.layer})
		if c.Opaque() {
			break
		}
	}
	return e, e.dirs != nil
}

// lowerLink resolves a hard link to a file of the layers below: it has that
// file's content and attributes.
func (fs *FS) lowerLink(n archive.Node, layer int) (archive.Node, error) {
	for range maxLowerLinks {
		path, ok := n.LowerLink()
		if !ok {
			return n, nil
		}
		e := lowerEntry{dirs: rootDirs(fs.opts.Layers[:layer])}
		for name := range strings.SplitSeq(path, "/") {
			if name == "" {
				continue
			}
			if e, ok = lookupLower(e.dirs, name); !ok {
				return n, unix.EIO
			}
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
