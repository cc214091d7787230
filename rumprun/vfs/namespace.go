package vfs

import (
	"strings"
	"sync"
	"time"

	"golang.org/x/sys/unix"
)

// Namespace is the tree of names that a container's processes see: a root file
// system and what is mounted on it. One lock covers all look-ups and changes
// of names, so each operation is atomic.
type Namespace struct {
	mu    sync.Mutex
	root  *Dentry
	marks marks
}

// NewNamespace makes a namespace of the file system whose root directory is
// root.
func NewNamespace(root *Dentry) *Namespace { return &Namespace{root: root} }

// Root returns the root directory.
func (n *Namespace) Root() *Dentry { return n.root.top() }

func (n *Namespace) rootOf(c *Context) *Dentry {
	if c.Root != nil {
		return c.Root
	}
	return n.Root()
}

func (n *Namespace) cwdOf(c *Context) *Dentry {
	if c.Cwd != nil {
		return c.Cwd
	}
	return n.rootOf(c)
}

// Mount puts the file system with root directory root on the directory path.
func (n *Namespace) Mount(c *Context, path string, root *Dentry) error {
	n.mu.Lock()
	defer n.mu.Unlock()
	p, err := n.walk(c, nil, path, followLast, 0)
	if err != nil {
		return err
	}
	root.covers = p.d
	p.d.mounted = root
	return nil
}

// Path returns the path of d as seen from c's root; reachable is false if d
// lies outside it, and deleted is true if d has been removed.
func (n *Namespace) Path(c *Context, d *Dentry) (path string, reachable, deleted bool) {
	n.mu.Lock()
	defer n.mu.Unlock()
	if d.detached() {
		return d.name, true, false
	}
	path, reachable = d.path(n.rootOf(c))
	return path, reachable, d.dead
}

// Lookup returns what path, from base, names. A nil base is the working
// directory; follow says whether a symbolic link at the end is followed.
func (n *Namespace) Lookup(c *Context, base *Dentry, path string, follow bool, res Resolve) (*Dentry, error) {
	mode := noFollowLast
	if follow {
		mode = followLast
	}
	n.mu.Lock()
	defer n.mu.Unlock()
	p, err := n.walk(c, base, path, mode, res)
	if err != nil {
		return nil, err
	}
	return p.d, nil
}

// mayCreate checks that c may add an entry to directory d.
func mayCreate(c *Context, d *Dentry) error {
	if d.dead {
		return unix.ENOENT
	}
	a := d.inode.Attr()
	return c.Creds.Check(&a, MayWrite|MayExec)
}

// mayDelete checks that c may remove entry child of dir, which must be a
// directory or must not (may_delete of the kernel's fs/namei.c).
func mayDelete(c *Context, dir, child *Dentry, isDir bool) error {
	da, ca := dir.inode.Attr(), child.inode.Attr()
	if err := c.Creds.Check(&da, MayWrite|MayExec); err != nil {
		return err
	}
	if da.Mode&unix.S_ISVTX != 0 && !c.Creds.Owns(&ca) && c.Creds.FSUID != da.UID {
		return unix.EPERM
	}
	switch {
	case isDir && !ca.IsDir():
		return unix.ENOTDIR
	case isDir && child.covers != nil:
		return unix.EBUSY
	case !isDir && ca.IsDir():
		return unix.EISDIR
	case dir.dead:
		return unix.ENOENT
	}
	return nil
}

// newAttr returns the attributes of a new inode in dir (open(2), mkdir(2),
// inode(7) on the set-group-ID bit).
func newAttr(c *Context, dir *Dentry, mode uint32) Attr {
	now := time.Now()
	da := dir.inode.Attr()
	a := Attr{
		Mode: mode&unix.S_IFMT | mode&0o7777&^c.Umask, UID: c.Creds.FSUID, GID: c.Creds.FSGID,
		Atime: now, Mtime: now, Ctime: now, Btime: now,
	}
	if a.IsSymlink() {
		a.Mode = unix.S_IFLNK | 0o777
	}
	if da.Mode&unix.S_ISGID != 0 {
		a.GID = da.GID
		if a.IsDir() {
			a.Mode |= unix.S_ISGID
		} else if a.Mode&(unix.S_ISGID|unix.S_IXGRP) == unix.S_ISGID|unix.S_IXGRP && !c.Creds.InGroup(a.GID) && !c.Creds.Privileged() {
			a.Mode &^= unix.S_ISGID
		}
	}
	return a
}

// newEntry walks to the place where an entry is to be made (filename_create of
// the kernel's fs/namei.c).
func (n *Namespace) newEntry(c *Context, base *Dentry, path string, isDir bool) (place, error) {
	p, err := n.walk(c, base, path, parentOnly, 0)
	if err != nil {
		return p, err
	}
	if err := n.last(c, &p); err != nil {
		return p, err
	}
	switch {
	case p.kind != lastName || p.d != nil:
		return p, unix.EEXIST
	case p.slash && !isDir:
		return p, unix.ENOENT
	}
	return p, mayCreate(c, p.dir)
}

// Mkdir is mkdirat(2).
func (n *Namespace) Mkdir(c *Context, base *Dentry, path string, mode uint32) error {
	n.mu.Lock()
	defer n.unlock()
	p, err := n.newEntry(c, base, path, true)
	if err != nil {
		return err
	}
	d, err := p.dir.inode.Create(c, p.dir, p.name, newAttr(c, p.dir, unix.S_IFDIR|mode&0o1777))
	if err != nil {
		return err
	}
	n.made(p.dir, p.name, d.inode)
	return nil
}

// Mknod is mknodat(2). It returns the new entry: bind(2) attaches a socket to
// it.
func (n *Namespace) Mknod(c *Context, base *Dentry, path string, mode uint32, dev uint64) (*Dentry, error) {
	switch mode & unix.S_IFMT {
	case 0:
		mode |= unix.S_IFREG
	case unix.S_IFREG, unix.S_IFIFO, unix.S_IFSOCK:
	case unix.S_IFCHR, unix.S_IFBLK:
	case unix.S_IFDIR:
		return nil, unix.EPERM
	default:
		return nil, unix.EINVAL
	}
	n.mu.Lock()
	defer n.unlock()
	p, err := n.newEntry(c, base, path, false)
	if err != nil {
		return nil, err
	}
	// A character device 0:0 is a whiteout, which needs no right.
	if t := mode & unix.S_IFMT; (t == unix.S_IFCHR && dev != 0) || t == unix.S_IFBLK {
		return nil, unix.EPERM
	}
	a := newAttr(c, p.dir, mode)
	a.Rdev = dev
	d, err := p.dir.inode.Create(c, p.dir, p.name, a)
	if err != nil {
		return nil, err
	}
	n.made(p.dir, p.name, d.inode)
	return d, nil
}

// Symlink is symlinkat(2).
func (n *Namespace) Symlink(c *Context, target string, base *Dentry, path string) error {
	switch {
	case target == "":
		return unix.ENOENT
	case len(target) >= PathMax:
		return unix.ENAMETOOLONG
	}
	n.mu.Lock()
	defer n.unlock()
	p, err := n.newEntry(c, base, path, false)
	if err != nil {
		return err
	}
	d, err := p.dir.inode.Symlink(c, p.dir, p.name, target, newAttr(c, p.dir, unix.S_IFLNK|0o777))
	if err != nil {
		return err
	}
	n.made(p.dir, p.name, d.inode)
	return nil
}

// Link is linkat(2): old is what the first path named.
func (n *Namespace) Link(c *Context, old *Dentry, base *Dentry, path string) error {
	n.mu.Lock()
	defer n.unlock()
	p, err := n.newEntry(c, base, path, false)
	if err != nil {
		return err
	}
	oa, da := old.inode.Attr(), p.dir.inode.Attr()
	switch {
	case oa.Dev != da.Dev:
		return unix.EXDEV
	case oa.IsDir():
		return unix.EPERM
	case oa.Nlink == 0 && !old.detached():
		return unix.ENOENT
	}
	if _, err = p.dir.inode.Link(c, p.dir, p.name, old.inode); err != nil {
		return err
	}
	if n.watched() {
		n.linkCount(old.inode)
		n.made(p.dir, p.name, old.inode)
	}
	return nil
}

// Unlink is unlinkat(2) without AT_REMOVEDIR.
func (n *Namespace) Unlink(c *Context, base *Dentry, path string) error {
	n.mu.Lock()
	defer n.unlock()
	p, err := n.walk(c, base, path, parentOnly, 0)
	if err != nil {
		return err
	}
	if p.kind != lastName {
		return unix.EISDIR
	}
	if err := n.last(c, &p); err != nil {
		return err
	}
	if p.d == nil {
		return unix.ENOENT
	}
	if p.slash {
		if a := p.d.inode.Attr(); a.IsDir() {
			return unix.EISDIR
		}
		return unix.ENOTDIR
	}
	if err := mayDelete(c, p.dir, p.d, false); err != nil {
		return err
	}
	if p.d.covers != nil {
		return unix.EBUSY
	}
	if err := p.dir.inode.Remove(c, p.dir, p.d); err != nil {
		return err
	}
	n.removed(p.dir, p.d)
	return nil
}

// Rmdir is rmdir(2).
func (n *Namespace) Rmdir(c *Context, base *Dentry, path string) error {
	n.mu.Lock()
	defer n.unlock()
	p, err := n.walk(c, base, path, parentOnly, 0)
	switch {
	case err != nil:
		return err
	case p.kind == lastDot:
		return unix.EINVAL
	case p.kind == lastDotDot:
		return unix.ENOTEMPTY
	case p.kind == lastRoot:
		return unix.EBUSY
	}
	if err := n.last(c, &p); err != nil {
		return err
	}
	if p.d == nil {
		return unix.ENOENT
	}
	if err := mayDelete(c, p.dir, p.d, true); err != nil {
		return err
	}
	if err := p.dir.inode.Remove(c, p.dir, p.d); err != nil {
		return err
	}
	n.removed(p.dir, p.d)
	return nil
}

// Rename is renameat2(2).
func (n *Namespace) Rename(c *Context, oldBase *Dentry, oldPath string, newBase *Dentry, newPath string, flags uint) error {
	const known = unix.RENAME_NOREPLACE | unix.RENAME_EXCHANGE | unix.RENAME_WHITEOUT
	if flags&^known != 0 || flags&unix.RENAME_EXCHANGE != 0 && flags&^unix.RENAME_EXCHANGE != 0 {
		return unix.EINVAL
	}
	n.mu.Lock()
	defer n.unlock()
	from, err := n.walk(c, oldBase, oldPath, parentOnly, 0)
	if err != nil {
		return err
	}
	to, err := n.walk(c, newBase, newPath, parentOnly, 0)
	if err != nil {
		return err
	}
	fa, ta := from.dir.inode.Attr(), to.dir.inode.Attr()
	exchange := flags&unix.RENAME_EXCHANGE != 0
	switch {
	case fa.Dev != ta.Dev:
		return unix.EXDEV
	case from.kind != lastName:
		return unix.EBUSY
	case to.kind != lastName && flags&unix.RENAME_NOREPLACE != 0:
		return unix.EEXIST
	case to.kind != lastName:
		return unix.EBUSY
	}
	if err := n.last(c, &from); err != nil {
		return err
	}
	if err := n.last(c, &to); err != nil {
		return err
	}
	switch {
	case from.d == nil:
		return unix.ENOENT
	case flags&unix.RENAME_NOREPLACE != 0 && to.d != nil:
		return unix.EEXIST
	case exchange && to.d == nil:
		return unix.ENOENT
	}
	sa := from.d.inode.Attr()
	var va Attr
	if to.d != nil {
		va = to.d.inode.Attr()
	}
	if exchange && to.slash && !va.IsDir() {
		return unix.ENOTDIR
	}
	if !sa.IsDir() && (from.slash || !exchange && to.slash) {
		return unix.ENOTDIR
	}
	if to.dir.below(from.d) {
		return unix.EINVAL
	}
	if to.d != nil && from.dir.below(to.d) {
		if exchange {
			return unix.EINVAL
		}
		return unix.ENOTEMPTY
	}
	if to.d != nil && sa.Dev == va.Dev && sa.Ino == va.Ino {
		return nil
	}
	if err := mayDelete(c, from.dir, from.d, sa.IsDir()); err != nil {
		return err
	}
	if to.d == nil {
		err = mayCreate(c, to.dir)
	} else if exchange {
		err = mayDelete(c, to.dir, to.d, va.IsDir())
	} else {
		err = mayDelete(c, to.dir, to.d, sa.IsDir())
	}
	if err != nil {
		return err
	}
	if from.dir != to.dir {
		// The entry ".." of a moved directory changes.
		if sa.IsDir() {
			if err := c.Creds.Check(&sa, MayWrite); err != nil {
				return err
			}
		}
		if exchange && va.IsDir() {
			if err := c.Creds.Check(&va, MayWrite); err != nil {
				return err
			}
		}
	}
	if from.d.covers != nil || to.d != nil && to.d.covers != nil {
		return unix.EBUSY
	}
	if err := from.dir.inode.Rename(c, from.dir, from.d, to.dir, to.name, to.d, flags); err != nil {
		return err
	}
	switch {
	case !n.watched():
	case exchange:
		n.moved(from.dir, from.name, from.d, nil)
		n.moved(to.dir, to.name, to.d, nil)
	default:
		n.moved(from.dir, from.name, from.d, to.d)
	}
	return nil
}

// WriteFile makes path a regular file with content and permissions perm,
// replacing what was there and making the directories that are missing.
func (n *Namespace) WriteFile(c *Context, path string, content []byte, perm uint32) error {
	if i := strings.LastIndexByte(path, '/'); i > 0 {
		if err := n.MkdirAll(c, path[:i], 0o755); err != nil {
			return err
		}
	}
	if err := n.Unlink(c, nil, path); err != nil && err != unix.ENOENT {
		return err
	}
	f, _, err := n.Open(c, nil, path, unix.O_WRONLY|unix.O_CREAT|unix.O_EXCL, perm, 0)
	if err != nil {
		return err
	}
	defer f.Release()
	for len(content) > 0 {
		k, err := f.Write(content)
		if err != nil {
			return err
		}
		content = content[k:]
	}
	return nil
}

// MkdirAll makes directory path and those above it that are missing.
func (n *Namespace) MkdirAll(c *Context, path string, perm uint32) error {
	for i := 1; i <= len(path); i++ {
		if i < len(path) && path[i] != '/' {
			continue
		}
		if err := n.Mkdir(c, nil, path[:i], perm); err != nil && err != unix.EEXIST {
			return err
		}
	}
	d, err := n.Lookup(c, nil, path, true, 0)
	if err != nil {
		return err
	}
	if a := d.inode.Attr(); !a.IsDir() {
		return unix.ENOTDIR
	}
	return nil
}
