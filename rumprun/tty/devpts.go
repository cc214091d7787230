package tty

import (
	"strconv"
	"sync"
	"time"

	"golang.org/x/sys/unix"

	"github.com/nabla-build/nabla-build/rumprun/vfs"
)

// slaveMajor is the major device number of slaves (devices.txt of the kernel).
const slaveMajor = 136

// directory is the root of devpts: an entry for each terminal whose master is
// open.
type directory struct {
	vfs.NoInode
	space *Space
	dev   uint64
	boot  time.Time
}

// FileSystem makes the root of /dev/pts, device number dev.
func (s *Space) FileSystem(dev uint64) *vfs.Dentry {
	s.dir = &directory{space: s, dev: dev, boot: time.Now()}
	s.root = vfs.NewDentry(nil, "", s.dir)
	return s.root
}

func (d *directory) Attr() vfs.Attr {
	return vfs.Attr{Ino: 1, Dev: d.dev, Mode: unix.S_IFDIR | 0o755, Nlink: 2, BlockSize: 1024, Atime: d.boot, Mtime: d.boot, Ctime: d.boot}
}

func (d *directory) StatFS() vfs.FSInfo {
	return vfs.FSInfo{
		Type: unix.DEVPTS_SUPER_MAGIC, Name: "devpts", BlockSize: 4096, Source: "devpts",
		Options: "rw,nosuid,noexec,relatime,gid=5,mode=620,ptmxmode=000",
	}
}

func (d *directory) Generation() uint64 {
	d.space.mu.Lock()
	defer d.space.mu.Unlock()
	return d.space.gen
}

func (d *directory) Lookup(_ *vfs.Context, at *vfs.Dentry, name string) (*vfs.Dentry, error) {
	n, err := strconv.Atoi(name)
	if err != nil || strconv.Itoa(n) != name {
		return nil, unix.ENOENT
	}
	s := d.space
	s.mu.Lock()
	defer s.mu.Unlock()
	if n < 0 || n >= len(s.terms) || s.terms[n] == nil {
		return nil, unix.ENOENT
	}
	return vfs.NewDentry(at, name, s.terms[n].node), nil
}

func (d *directory) ReadDir(*vfs.Context, *vfs.Dentry) ([]vfs.DirEntry, error) {
	s := d.space
	s.mu.Lock()
	defer s.mu.Unlock()
	var out []vfs.DirEntry
	for n, t := range s.terms {
		if t != nil {
			out = append(out, vfs.DirEntry{Name: strconv.Itoa(n), Ino: uint64(n) + 3, Type: unix.DT_CHR})
		}
	}
	return out, nil
}

// node is the inode of a slave.
type node struct {
	vfs.NoInode
	t *Terminal

	mu sync.Mutex
	a  vfs.Attr
}

func newNode(t *Terminal, c *vfs.Context) *node {
	now := time.Now()
	a := vfs.Attr{
		Ino: uint64(t.n) + 3, Rdev: unix.Mkdev(slaveMajor, uint32(t.n)), Mode: unix.S_IFCHR | 0o620, Nlink: 1, GID: 5,
		BlockSize: 1024, Atime: now, Mtime: now, Ctime: now,
	}
	if t.space.dir != nil {
		a.Dev = t.space.dir.dev
	}
	if c != nil && c.Creds != nil {
		a.UID = c.Creds.FSUID
	}
	return &node{t: t, a: a}
}

func (n *node) Attr() vfs.Attr {
	n.mu.Lock()
	defer n.mu.Unlock()
	return n.a
}

func (n *node) SetAttr(s vfs.SetAttr) error {
	n.mu.Lock()
	defer n.mu.Unlock()
	if s.Mode != nil {
		n.a.Mode = unix.S_IFCHR | *s.Mode&0o7777
	}
	if s.UID != nil {
		n.a.UID = *s.UID
	}
	if s.GID != nil {
		n.a.GID = *s.GID
	}
	if s.Atime != nil {
		n.a.Atime = *s.Atime
	}
	if s.Mtime != nil {
		n.a.Mtime = *s.Mtime
	}
	n.a.Ctime = time.Now()
	return nil
}

func (n *node) StatFS() vfs.FSInfo { return n.t.space.dir.StatFS() }

// Open opens the slave. Without O_NOCTTY it becomes the controlling terminal
// of a session leader that has none.
func (n *node) Open(c *vfs.Context, _ *vfs.Dentry, flags uint32) (vfs.File, error) {
	f, err := n.t.OpenSlave(flags)
	if err != nil {
		return nil, err
	}
	if p, ok := c.Caller.(Caller); ok && flags&unix.O_NOCTTY == 0 {
		n.t.acquire(p)
	}
	return f, nil
}
