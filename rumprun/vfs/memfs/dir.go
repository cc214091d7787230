package memfs

import (
	"slices"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"github.com/nabla-build/nabla-build/rumprun/vfs"
)

func (n *node) Lookup(_ *vfs.Context, d *vfs.Dentry, name string) (*vfs.Dentry, error) {
	if !n.isDir() {
		return nil, unix.ENOTDIR
	}
	if e, ok := n.entries[name]; ok {
		if e == nil {
			return nil, unix.ENOENT
		}
		return e, nil
	}
	var at string
	var grafts []lowerDir
	if n.fs.grafts != nil && len(n.lower) > 0 {
		at = join(n.lowPath, name)
		grafts = n.fs.grafts[at]
	}
	low, ok := lookupLower(n.lower, name, grafts)
	if !ok {
		return nil, unix.ENOENT
	}
	c := n.fs.fromLower(low)
	if low.dirs != nil {
		c.lowPath = at
	}
	e := vfs.NewDentry(d, name, c)
	n.entries[name] = e
	return e, nil
}

func (n *node) Generation() uint64 { return n.gen }

func (n *node) ReadDir(*vfs.Context, *vfs.Dentry) ([]vfs.DirEntry, error) {
	if !n.isDir() {
		return nil, unix.ENOTDIR
	}
	n.mu.Lock()
	if !n.atime.After(n.mtime) || !n.atime.After(n.ctime) {
		n.atime = time.Now()
	}
	n.mu.Unlock()
	out := make([]vfs.DirEntry, 0, len(n.entries))
	for name, e := range n.entries {
		if e != nil {
			c := e.Inode().(*node)
			out = append(out, vfs.DirEntry{Name: name, Ino: c.ino, Type: uint8(c.kind >> 12)})
		}
	}
	if len(n.lower) > 0 {
		seen := make(map[string]bool)
		for _, l := range n.lower {
			for c := range l.r.ReadDir(l.node) {
				name := c.Name()
				if _, ok := n.entries[name]; ok || seen[name] {
					continue
				}
				seen[name] = true
				if e, ok := lookupLower(n.lower, name, nil); ok {
					out = append(out, vfs.DirEntry{Name: name, Ino: lowerIno(e.layer, e.node.Ino()), Type: uint8(e.node.Mode() >> 12)})
				}
			}
		}
	}
	slices.SortFunc(out, func(a, b vfs.DirEntry) int { return strings.Compare(a.Name, b.Name) })
	return out, nil
}

// empty reports whether the directory lists nothing.
func (n *node) empty() bool {
	for _, e := range n.entries {
		if e != nil {
			return false
		}
	}
	if len(n.lower) == 0 {
		return true
	}
	l, _ := n.ReadDir(nil, nil)
	return len(l) == 0
}

// changed notes that the directory's entries have changed, by links
// subdirectories more or less.
func (n *node) changed(links int) {
	n.gen++
	n.mu.Lock()
	n.nlink = uint64(int64(n.nlink) + int64(links))
	n.touch()
	n.mu.Unlock()
}

// insert makes entry name of directory d.
func (n *node) insert(d *vfs.Dentry, name string, c *node) *vfs.Dentry {
	e := vfs.NewDentry(d, name, c)
	n.entries[name] = e
	links := 0
	if c.isDir() {
		links = 1
	}
	n.changed(links)
	return e
}

// drop removes entry name, leaving a mark where a layer has one too.
func (n *node) drop(name string) {
	if _, ok := lookupLower(n.lower, name, nil); ok {
		n.entries[name] = nil
	} else {
		delete(n.entries, name)
	}
}

func (n *node) Create(_ *vfs.Context, d *vfs.Dentry, name string, a vfs.Attr) (*vfs.Dentry, error) {
	if n.fs.inodes.Load() >= 1<<20 {
		return nil, unix.ENOSPC
	}
	return n.insert(d, name, n.fs.newNode(a)), nil
}

func (n *node) CreateUnnamed(_ *vfs.Context, _ *vfs.Dentry, a vfs.Attr) (vfs.Inode, error) {
	c := n.fs.newNode(a)
	c.nlink = 0
	return c, nil
}

func (n *node) Symlink(_ *vfs.Context, d *vfs.Dentry, name, target string, a vfs.Attr) (*vfs.Dentry, error) {
	c := n.fs.newNode(a)
	c.target = target
	return n.insert(d, name, c), nil
}

func (n *node) Link(_ *vfs.Context, d *vfs.Dentry, name string, target vfs.Inode) (*vfs.Dentry, error) {
	c, ok := target.(*node)
	if !ok || c.fs != n.fs {
		return nil, unix.EXDEV
	}
	c.mu.Lock()
	c.nlink++
	c.ctime = time.Now()
	c.mu.Unlock()
	return n.insert(d, name, c), nil
}

func (n *node) Remove(_ *vfs.Context, d *vfs.Dentry, child *vfs.Dentry) error {
	c := child.Inode().(*node)
	name := child.Name()
	if c.isDir() {
		if !c.empty() {
			return unix.ENOTEMPTY
		}
		n.drop(name)
		n.changed(-1)
		c.unlinked(2)
	} else {
		n.drop(name)
		n.changed(0)
		c.unlinked(1)
	}
	child.Kill()
	return nil
}

func (n *node) Rename(_ *vfs.Context, d *vfs.Dentry, child *vfs.Dentry, newDir *vfs.Dentry, name string, target *vfs.Dentry, flags uint) error {
	to, ok := newDir.Inode().(*node)
	if !ok || to.fs != n.fs {
		return unix.EXDEV
	}
	c := child.Inode().(*node)
	oldName := child.Name()
	dirs := func(x *node) int {
		if x.isDir() {
			return 1
		}
		return 0
	}
	now := time.Now()
	if flags&unix.RENAME_EXCHANGE != 0 {
		t := target.Inode().(*node)
		n.entries[oldName], to.entries[name] = target, child
		child.Move(newDir, name)
		target.Move(d, oldName)
		n.changed(dirs(t) - dirs(c))
		to.changed(dirs(c) - dirs(t))
		t.changeTime(now)
		c.changeTime(now)
		return nil
	}
	if target != nil {
		t := target.Inode().(*node)
		if t.isDir() {
			if !t.empty() {
				return unix.ENOTEMPTY
			}
			t.unlinked(2)
			to.changed(-1)
		} else {
			t.unlinked(1)
		}
		target.Kill()
	}
	n.drop(oldName)
	to.entries[name] = child
	child.Move(newDir, name)
	if flags&unix.RENAME_WHITEOUT != 0 {
		w := n.fs.newNode(vfs.Attr{Mode: unix.S_IFCHR, Atime: now, Mtime: now, Ctime: now, Btime: now})
		n.entries[oldName] = vfs.NewDentry(d, oldName, w)
	}
	n.changed(-dirs(c))
	to.changed(dirs(c))
	c.changeTime(now)
	return nil
}

func (n *node) changeTime(t time.Time) {
	n.mu.Lock()
	n.ctime = t
	n.mu.Unlock()
}
