package vfs

import (
	"strings"

	"golang.org/x/sys/unix"
)

const (
	// PathMax is the size of the longest path, its NUL included.
	PathMax = 4096
	// NameMax is the length of the longest name.
	NameMax = 255

	maxSymlinks = 40
)

// Resolve are the RESOLVE_* flags of openat2(2).
type Resolve uint64

const (
	NoXDev       Resolve = unix.RESOLVE_NO_XDEV
	NoMagicLinks Resolve = unix.RESOLVE_NO_MAGICLINKS
	NoSymlinks   Resolve = unix.RESOLVE_NO_SYMLINKS
	Beneath      Resolve = unix.RESOLVE_BENEATH
	InRoot       Resolve = unix.RESOLVE_IN_ROOT
)

// Context is on whose behalf a path is walked.
type Context struct {
	Creds *Creds
	Root  *Dentry // of the process (chroot(2)); nil: the namespace's
	Cwd   *Dentry // nil: Root
	Umask uint32
	// Caller is the kernel's task, for file systems whose content depends on
	// it (/proc/self). This package never looks at it.
	Caller any
}

// lastKind says what the last component of a path is.
type lastKind uint8

const (
	lastName lastKind = iota
	lastDot
	lastDotDot
	lastRoot // the path has no component: "/"
)

// place is where a walk ended: entry name of directory dir, which is d, or nil
// if there is no such entry, or it was not looked up. For the other kinds d is the directory itself.
type place struct {
	dir   *Dentry
	name  string
	kind  lastKind
	slash bool // slashes followed the name: only a directory will do
	d     *Dentry
}

type walkMode uint8

const (
	followLast   walkMode = iota // as stat(2)
	noFollowLast                 // as lstat(2): but a trailing slash follows
	parentOnly                   // as unlink(2): the last component is not looked at
	createLast                   // as open(2) with O_CREAT: followed, may be missing
)

// walk resolves path from base, n.mu held (path_resolution(7)). A last
// component that does not exist is no error in mode createLast.
func (n *Namespace) walk(c *Context, base *Dentry, path string, mode walkMode, res Resolve) (place, error) {
	if path == "" {
		return place{}, unix.ENOENT
	}
	if len(path) >= PathMax {
		return place{}, unix.ENAMETOOLONG
	}
	root := n.rootOf(c)
	if base == nil {
		base = n.cwdOf(c)
	}
	if res&(InRoot|Beneath) != 0 {
		root = base
	}
	cur := base
	if path[0] == '/' {
		if res&Beneath != 0 {
			return place{}, unix.EXDEV
		}
		cur = root
	}
	start := cur
	rest := path
	links := 0
	at := place{dir: cur, kind: lastRoot, d: cur}
	var ca Attr // of known, which is cur most of the time
	var known *Dentry
	for {
		rest = strings.TrimLeft(rest, "/")
		if rest == "" {
			break
		}
		// One component; cur is the directory that it is looked up in.
		var name string
		slashes := false
		if i := strings.IndexByte(rest, '/'); i >= 0 {
			name, rest = rest[:i], strings.TrimLeft(rest[i:], "/")
			slashes = true
		} else {
			name, rest = rest, ""
		}
		last := rest == ""
		if known != cur {
			ca, known = cur.inode.Attr(), cur
		}
		if !ca.IsDir() {
			return place{}, unix.ENOTDIR
		}
		if err := c.Creds.Check(&ca, MayExec); err != nil {
			return place{}, err
		}
		switch name {
		case ".":
			at = place{dir: cur, kind: lastDot, d: cur, slash: slashes}
			continue
		case "..":
			if cur == root && res&Beneath != 0 {
				return place{}, unix.EXDEV
			}
			up := cur.up(root)
			if res&NoXDev != 0 && up.inode.Attr().Dev != ca.Dev {
				return place{}, unix.EXDEV
			}
			cur = up
			at = place{dir: cur, kind: lastDotDot, d: cur, slash: slashes}
			continue
		}
		at = place{dir: cur, name: name, slash: slashes}
		if last && mode == parentOnly {
			return at, nil
		}
		if len(name) > NameMax {
			return place{}, unix.ENAMETOOLONG
		}
		d, err := n.child(c, cur, name)
		if err == unix.ENOENT && last && mode == createLast {
			return at, nil
		}
		if err != nil {
			return place{}, err
		}
		da := d.inode.Attr()
		follow := !last || mode == followLast || mode == createLast || (mode == noFollowLast && slashes)
		if da.IsSymlink() && follow {
			if res&NoSymlinks != 0 {
				return place{}, unix.ELOOP
			}
			if links++; links > maxSymlinks {
				return place{}, unix.ELOOP
			}
			jump, err := d.inode.Jump(c)
			if err != nil {
				return place{}, err
			}
			if jump != nil {
				if res&NoMagicLinks != 0 {
					return place{}, unix.ELOOP
				}
				if res&(InRoot|Beneath) != 0 {
					return place{}, unix.EXDEV
				}
				if res&NoXDev != 0 && jump.inode.Attr().Dev != start.inode.Attr().Dev {
					return place{}, unix.EXDEV
				}
				cur = jump
				// As Linux has it, a magic link's target has no name that
				// could be created or removed.
				at = place{dir: jump, kind: lastRoot, d: jump, slash: slashes}
				continue
			}
			text, err := d.inode.Readlink(c)
			if err != nil {
				return place{}, err
			}
			if text == "" {
				return place{}, unix.ENOENT
			}
			if text[0] == '/' {
				if res&Beneath != 0 {
					return place{}, unix.EXDEV
				}
				if res&NoXDev != 0 && root.inode.Attr().Dev != ca.Dev {
					return place{}, unix.EXDEV
				}
				cur = root
				at = place{dir: cur, kind: lastRoot, d: cur}
			}
			if slashes {
				rest = text + "/" + rest
			} else {
				rest = text
			}
			if len(rest) >= 2*PathMax {
				return place{}, unix.ENAMETOOLONG
			}
			continue
		}
		if res&NoXDev != 0 && da.Dev != ca.Dev {
			return place{}, unix.EXDEV
		}
		at.d = d
		cur = d
		ca, known = da, d
	}
	if at.slash && mode != parentOnly && mode != createLast && at.d != nil {
		if a := at.d.inode.Attr(); !a.IsDir() {
			return place{}, unix.ENOTDIR
		}
	}
	return at, nil
}

// last looks up the last component of a walk in mode parentOnly: p.d stays nil
// if it does not exist.
func (n *Namespace) last(c *Context, p *place) error {
	if p.kind != lastName {
		return nil
	}
	if len(p.name) > NameMax {
		return unix.ENAMETOOLONG
	}
	d, err := n.child(c, p.dir, p.name)
	if err != nil && err != unix.ENOENT {
		return err
	}
	p.d = d
	return nil
}

// child looks name up in dir and crosses a mount point.
func (n *Namespace) child(c *Context, dir *Dentry, name string) (*Dentry, error) {
	if dir.dead {
		return nil, unix.ENOENT
	}
	d, err := dir.inode.Lookup(c, dir, name)
	if err != nil {
		return nil, err
	}
	return d.top(), nil
}
