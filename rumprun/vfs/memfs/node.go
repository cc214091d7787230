package memfs

import (
	"slices"
	"sync"
	"time"

	"golang.org/x/sys/unix"

	"github.com/nabla-build/nabla-build/rumprun/mm"
	"github.com/nabla-build/nabla-build/rumprun/vfs"
)

// node is an inode. The directory part is protected by the Namespace's lock,
// the rest by mu.
type node struct {
	vfs.NoInode
	fs   *FS
	ino  uint64
	kind uint32 // the type bits of mode, which never change
	bad  error  // why a layer's file cannot be opened

	// Directories: entries holds what is in memory, nil for a name that was
	// removed and must hide the layers' entry. lower are the directories that
	// shine through, highest first.
	entries map[string]*vfs.Dentry
	lowPath string // where the layers have it; kept if there are grafts
	lower   []lowerDir
	gen     uint64

	target string // of a symbolic link

	maps mm.Mappings // used without mu: its lock is taken before

	mu                         sync.Mutex
	mode, uid, gid             uint32
	rdev                       uint64
	nlink                      uint64
	opens                      int // open descriptions
	atime, mtime, ctime, btime time.Time
	xattrs                     map[string][]byte
	data                       data
	seals                      int
	sealable                   bool
	fifo                       FIFO
	object                     any
}

func (n *node) makeDir() { n.entries = make(map[string]*vfs.Dentry) }

func (n *node) isDir() bool { return n.kind == unix.S_IFDIR }

func (n *node) Attr() vfs.Attr {
	n.mu.Lock()
	defer n.mu.Unlock()
	a := vfs.Attr{
		Ino: n.ino, Dev: n.fs.opts.Dev, Rdev: n.rdev, Mode: n.mode, Nlink: n.nlink, UID: n.uid, GID: n.gid,
		Atime: n.atime, Mtime: n.mtime, Ctime: n.ctime, Btime: n.btime,
	}
	switch n.kind {
	case unix.S_IFREG:
		a.Size, a.Blocks = n.data.size, n.data.blocks()
	case unix.S_IFLNK:
		a.Size = int64(len(n.target))
	case unix.S_IFDIR:
		a.Size = pageSize
		if len(n.lower) > 0 {
			// The number of subdirectories is not known; 1 says so, as
			// overlayfs has it.
			a.Nlink = min(a.Nlink, 1)
		}
	}
	return a
}

func (n *node) SetAttr(s vfs.SetAttr) error {
	n.mu.Lock()
	defer n.mu.Unlock()
	if s.Mode != nil {
		n.mode = n.kind | *s.Mode&0o7777
	}
	if s.UID != nil {
		n.uid = *s.UID
	}
	if s.GID != nil {
		n.gid = *s.GID
	}
	if s.Atime != nil {
		n.atime = *s.Atime
	}
	if s.Mtime != nil {
		n.mtime = *s.Mtime
	}
	n.ctime = time.Now()
	return nil
}

func (n *node) StatFS() vfs.FSInfo { return n.fs.statfs() }

func (n *node) Readlink(*vfs.Context) (string, error) {
	if n.kind != unix.S_IFLNK {
		return "", unix.EINVAL
	}
	return n.target, nil
}

// Object and SetObject hold what a socket inode stands for: bind(2) attaches
// its endpoint, connect(2) finds it here. They implement vfs.Attachment.
func (n *node) Object() any {
	n.mu.Lock()
	defer n.mu.Unlock()
	return n.object
}

func (n *node) SetObject(o any) {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.object = o
}

func (n *node) Open(c *vfs.Context, d *vfs.Dentry, flags uint32) (vfs.File, error) {
	switch n.kind {
	case unix.S_IFREG:
		if n.bad != nil {
			return nil, n.bad
		}
		n.mu.Lock()
		n.opens++
		n.mu.Unlock()
		f := &file{n: n, creds: c.Creds}
		f.SetStatusFlags(flags)
		return f, nil
	case unix.S_IFIFO:
		n.mu.Lock()
		if n.fifo == nil && n.fs.opts.FIFO != nil {
			n.fifo = n.fs.opts.FIFO()
		}
		p := n.fifo
		n.mu.Unlock()
		if p == nil {
			return nil, unix.ENXIO
		}
		return p.OpenFIFO(flags)
	case unix.S_IFCHR:
		if n.fs.opts.Device != nil {
			return n.fs.opts.Device(c, d, n.rdev, flags)
		}
	}
	return nil, unix.ENXIO
}

func (n *node) Truncate(size int64) error {
	if n.kind != unix.S_IFREG {
		return unix.EINVAL
	}
	if size < 0 {
		return unix.EINVAL
	}
	shared := n.maps.Any()
	if shared {
		n.maps.Flush(n, 0, maxFileSize)
	}
	err := n.resize(size)
	if shared && err == nil {
		n.maps.Truncated(size)
	}
	return err
}

func (n *node) resize(size int64) error {
	n.mu.Lock()
	defer n.mu.Unlock()
	switch {
	case size < n.data.size && n.seals&unix.F_SEAL_SHRINK != 0, size > n.data.size && n.seals&unix.F_SEAL_GROW != 0:
		return unix.EPERM
	}
	if size != n.data.size {
		n.data.truncate(size)
	}
	n.touch()
	return nil
}

// touch sets the modification and change times, mu held.
func (n *node) touch() {
	n.mtime = time.Now()
	n.ctime = n.mtime
}

// written notes that c has changed the content, mu held: the times are now, and
// set-ID bits go unless c has CAP_FSETID.
func (n *node) written(c *vfs.Creds) {
	n.touch()
	if n.mode&(unix.S_ISUID|unix.S_ISGID) != 0 && !c.Privileged() {
		n.mode = c.WithoutSetID(&vfs.Attr{Mode: n.mode, GID: n.gid})
	}
}

// unlinked drops a link; the last one, with no description open, frees the
// data.
func (n *node) unlinked(links uint64) {
	n.mu.Lock()
	n.nlink -= min(n.nlink, links)
	n.ctime = time.Now()
	n.free()
	n.mu.Unlock()
}

func (n *node) free() {
	if n.nlink == 0 && n.opens == 0 {
		n.data.truncate(0)
		n.fs.inodes.Add(-1)
		n.object = nil
	}
}

func (n *node) GetXattr(name string) ([]byte, error) {
	n.mu.Lock()
	defer n.mu.Unlock()
	v, ok := n.xattrs[name]
	if !ok {
		return nil, unix.ENODATA
	}
	return slices.Clone(v), nil
}

func (n *node) SetXattr(name string, value []byte, flags int) error {
	n.mu.Lock()
	defer n.mu.Unlock()
	_, ok := n.xattrs[name]
	switch {
	case ok && flags&unix.XATTR_CREATE != 0:
		return unix.EEXIST
	case !ok && flags&unix.XATTR_REPLACE != 0:
		return unix.ENODATA
	}
	total := len(name) + len(value)
	for k, v := range n.xattrs {
		total += len(k) + len(v)
	}
	if total > 16*pageSize {
		return unix.ENOSPC
	}
	if n.xattrs == nil {
		n.xattrs = make(map[string][]byte)
	}
	n.xattrs[name] = slices.Clone(value)
	n.ctime = time.Now()
	return nil
}

func (n *node) ListXattr() ([]string, error) {
	n.mu.Lock()
	defer n.mu.Unlock()
	out := make([]string, 0, len(n.xattrs))
	for k := range n.xattrs {
		out = append(out, k)
	}
	slices.Sort(out)
	return out, nil
}

func (n *node) RemoveXattr(name string) error {
	n.mu.Lock()
	defer n.mu.Unlock()
	if _, ok := n.xattrs[name]; !ok {
		return unix.ENODATA
	}
	delete(n.xattrs, name)
	n.ctime = time.Now()
	return nil
}
