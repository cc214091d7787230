package vfs

import (
	"strings"
	"sync/atomic"
)

// Dentry is a name in the tree: an entry of a directory, or the root of a
// mounted file system. Its fields are protected by the Namespace's lock, but
// for inode, which never changes.
type Dentry struct {
	inode  Inode
	parent *Dentry // nil at the root of a file system
	name   string

	mounted *Dentry // root of what is mounted here
	covers  *Dentry // for such a root: the mount point
	dead    bool    // removed: has no path any more

	opens atomic.Int32 // open descriptions found by this name (Tracked)
}

// NewDentry makes the entry name of directory parent; parent nil makes the
// root of a file system.
func NewDentry(parent *Dentry, name string, i Inode) *Dentry {
	return &Dentry{inode: i, parent: parent, name: name}
}

// NewDetached makes a Dentry for an object that is in no directory: a memfd,
// an O_TMPFILE file, a pipe seen through /proc/self/fd. label is what readlink
// shows.
func NewDetached(label string, i Inode) *Dentry {
	return &Dentry{inode: i, name: label, dead: true}
}

// Inode returns the object that the name stands for.
func (d *Dentry) Inode() Inode { return d.inode }

// Name returns the last component. The Namespace's lock must be held.
func (d *Dentry) Name() string { return d.name }

// Move renames d to name in directory parent, for Inode.Rename.
func (d *Dentry) Move(parent *Dentry, name string) { d.parent, d.name = parent, name }

// Kill marks d as removed, for Inode.Remove and Rename.
func (d *Dentry) Kill() { d.dead = true }

// detached reports whether d never was in a directory.
func (d *Dentry) detached() bool { return d.dead && d.parent == nil && d.covers == nil }

// up returns the parent directory of d, across mount points; d itself at root
// or at the top of the tree.
func (d *Dentry) up(root *Dentry) *Dentry {
	if d == root {
		return d
	}
	for d.parent == nil {
		if d.covers == nil {
			return d
		}
		d = d.covers
		if d == root {
			return d
		}
	}
	return d.parent.top()
}

// top returns what is mounted on d, or d.
func (d *Dentry) top() *Dentry {
	for d.mounted != nil {
		d = d.mounted
	}
	return d
}

// path returns d's path as seen from root, and whether it is reachable.
func (d *Dentry) path(root *Dentry) (string, bool) {
	var parts []string
	reached := true
	for d != root {
		if d.parent == nil {
			if d.covers == nil {
				reached = false
				break
			}
			d = d.covers
			continue
		}
		parts = append(parts, d.name)
		d = d.parent
	}
	var b strings.Builder
	for i := len(parts) - 1; i >= 0; i-- {
		b.WriteByte('/')
		b.WriteString(parts[i])
	}
	if b.Len() == 0 {
		return "/", reached
	}
	return b.String(), reached
}

// below reports whether d is dir or inside it.
func (d *Dentry) below(dir *Dentry) bool {
	for {
		if d == dir {
			return true
		}
		switch {
		case d.parent != nil:
			d = d.parent
		case d.covers != nil:
			d = d.covers
		default:
			return false
		}
	}
}
