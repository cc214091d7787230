// Package pseudo makes file systems whose content is computed when it is read:
// what /proc and /sys are made of. A tree is built of Dir, File and Link
// values, which are vfs.Inodes. It may import vfs only.
package pseudo

import (
	"bytes"
	"hash/fnv"
	"slices"
	"sync"
	"time"

	"golang.org/x/sys/unix"

	"github.com/nabla-build/nabla-build/rumprun/vfs"
)

// FS is what the inodes of one file system have in common.
type FS struct {
	Dev  uint64
	Info vfs.FSInfo
	Boot time.Time // the time that every inode shows
}

// ino is the inode number of path: stable, and below 2^53, so that it fits a
// double.
func ino(path string) uint64 {
	h := fnv.New64a()
	h.Write([]byte(path))
	return h.Sum64()>>11 | 1
}

// Node is what Dir, File and Link have in common.
type Node struct {
	vfs.NoInode
	FS   *FS
	Path string // unique in the file system: the inode number comes from it
	Perm uint32 // permission bits
	// Owner gives the user and group; nil: root.
	Owner func() (uid, gid uint32)
}

func (n *Node) attr(kind uint32, nlink uint64) vfs.Attr {
	a := vfs.Attr{
		Ino: ino(n.Path), Dev: n.FS.Dev, Mode: kind | n.Perm, Nlink: nlink, BlockSize: 1024,
		Atime: n.FS.Boot, Mtime: n.FS.Boot, Ctime: n.FS.Boot,
	}
	if n.Owner != nil {
		a.UID, a.GID = n.Owner()
	}
	return a
}

func (n *Node) StatFS() vfs.FSInfo { return n.FS.Info }

// Dir is a directory.
type Dir struct {
	Node
	// Find returns the entry name; nil if there is none.
	Find func(c *vfs.Context, name string) vfs.Inode
	// List returns the names; their types are found out by Find.
	List func(c *vfs.Context) ([]string, error)
}

func (d *Dir) Attr() vfs.Attr { return d.attr(unix.S_IFDIR, 2) }

func (d *Dir) Lookup(c *vfs.Context, at *vfs.Dentry, name string) (*vfs.Dentry, error) {
	i := d.Find(c, name)
	if i == nil {
		return nil, unix.ENOENT
	}
	return vfs.NewDentry(at, name, i), nil
}

func (d *Dir) ReadDir(c *vfs.Context, _ *vfs.Dentry) ([]vfs.DirEntry, error) {
	names, err := d.List(c)
	if err != nil {
		return nil, err
	}
	out := make([]vfs.DirEntry, 0, len(names))
	for _, name := range names {
		if i := d.Find(c, name); i != nil {
			a := i.Attr()
			out = append(out, vfs.DirEntry{Name: name, Ino: a.Ino, Type: uint8(a.Mode >> 12)})
		}
	}
	return out, nil
}

// Static makes the Find and List of a directory with fixed entries.
func Static(entries map[string]vfs.Inode) (func(*vfs.Context, string) vfs.Inode, func(*vfs.Context) ([]string, error)) {
	names := make([]string, 0, len(entries))
	for n := range entries {
		names = append(names, n)
	}
	slices.Sort(names)
	return func(_ *vfs.Context, name string) vfs.Inode { return entries[name] },
		func(*vfs.Context) ([]string, error) { return names, nil }
}

// Link is a symbolic link.
type Link struct {
	Node
	// Text is what readlink(2) answers.
	Text func(c *vfs.Context) (string, error)
	// To is where a magic link leads; nil: Text is walked.
	To func(c *vfs.Context) (*vfs.Dentry, error)
}

func (l *Link) Attr() vfs.Attr {
	a := l.attr(unix.S_IFLNK, 1)
	if l.Perm == 0 {
		a.Mode |= 0o777
	}
	return a
}

func (l *Link) Readlink(c *vfs.Context) (string, error) { return l.Text(c) }

func (l *Link) Jump(c *vfs.Context) (*vfs.Dentry, error) {
	if l.To == nil {
		return nil, nil
	}
	return l.To(c)
}

// File is a regular file.
type File struct {
	Node
	// Get returns the content. It is called when a description is read at
	// offset 0.
	Get func() ([]byte, error)
	// Set takes what one write(2) writes; nil: EACCES at open(2).
	Set func(p []byte) error
}

func (f *File) Attr() vfs.Attr { return f.attr(unix.S_IFREG, 1) }

func (f *File) Truncate(int64) error { return nil }

func (f *File) Open(_ *vfs.Context, _ *vfs.Dentry, flags uint32) (vfs.File, error) {
	if flags&unix.O_ACCMODE != unix.O_RDONLY && f.Set == nil {
		return nil, unix.EACCES
	}
	return &open{f: f}, nil
}

// open is an open description of a File.
type open struct {
	vfs.Base
	f *File

	mu      sync.Mutex
	pos     int64
	content []byte
	filled  bool
}

func (o *open) Stat() (unix.Stat_t, error) {
	a := o.f.Attr()
	return a.Stat(), nil
}

// at returns the content from off on, o.mu held.
func (o *open) at(off int64) ([]byte, error) {
	if off < 0 {
		return nil, unix.EINVAL
	}
	if off == 0 || !o.filled {
		if o.f.Get == nil {
			return nil, unix.EINVAL
		}
		b, err := o.f.Get()
		if err != nil {
			return nil, err
		}
		o.content, o.filled = b, true
	}
	if off >= int64(len(o.content)) {
		return nil, nil
	}
	return o.content[off:], nil
}

func (o *open) Read(p []byte) (int, error) {
	o.mu.Lock()
	defer o.mu.Unlock()
	b, err := o.at(o.pos)
	n := copy(p, b)
	o.pos += int64(n)
	return n, err
}

func (o *open) Pread(p []byte, off int64) (int, error) {
	o.mu.Lock()
	defer o.mu.Unlock()
	b, err := o.at(off)
	return copy(p, b), err
}

func (o *open) Write(p []byte) (int, error) {
	if err := o.f.Set(bytes.Clone(p)); err != nil {
		return 0, err
	}
	return len(p), nil
}

func (o *open) Pwrite(p []byte, _ int64) (int, error) { return o.Write(p) }

func (o *open) Seek(off int64, whence int) (int64, error) {
	o.mu.Lock()
	defer o.mu.Unlock()
	switch whence {
	case unix.SEEK_SET:
	case unix.SEEK_CUR:
		off += o.pos
	default:
		return 0, unix.EINVAL
	}
	if off < 0 {
		return 0, unix.EINVAL
	}
	o.pos = off
	return off, nil
}
