package vfs

import (
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// Chmod is fchmodat2(2) on what was looked up: only the owner may.
func Chmod(c *Context, i Inode, mode uint32) error {
	a := i.Attr()
	if a.IsSymlink() {
		return unix.EOPNOTSUPP
	}
	if !c.Creds.Owns(&a) {
		return unix.EPERM
	}
	mode &= 0o7777
	if !c.Creds.InGroup(a.GID) && !c.Creds.Privileged() {
		mode &^= unix.S_ISGID
	}
	return i.SetAttr(SetAttr{Mode: &mode})
}

// Chown is fchownat(2) on what was looked up; an ID of ^uint32(0) stays. The
// set-user-ID and set-group-ID bits go, but for directories.
func Chown(c *Context, i Inode, uid, gid uint32) error {
	const keep = ^uint32(0)
	a := i.Attr()
	if !c.Creds.Privileged() {
		if uid != keep && (c.Creds.FSUID != a.UID || uid != a.UID) {
			return unix.EPERM
		}
		if gid != keep && (c.Creds.FSUID != a.UID || gid != a.GID && !c.Creds.InGroup(gid)) {
			return unix.EPERM
		}
	}
	var s SetAttr
	if uid != keep {
		s.UID = &uid
	}
	if gid != keep {
		s.GID = &gid
	}
	if mode := c.Creds.WithoutSetID(&a); mode != a.Mode {
		if !c.Creds.Owns(&a) {
			return unix.EPERM
		}
		s.Mode = &mode
	}
	return i.SetAttr(s)
}

// WithoutSetID returns a's mode without the set-user-ID and set-group-ID bits
// that a change of owner or content takes away (chown(2), write(2)).
func (c *Creds) WithoutSetID(a *Attr) uint32 {
	mode := a.Mode
	if a.IsDir() {
		return mode
	}
	mode &^= unix.S_ISUID
	if mode&unix.S_IXGRP != 0 || !c.InGroup(a.GID) && !c.Privileged() {
		mode &^= unix.S_ISGID
	}
	return mode
}

// truncate sets the size of i, and takes set-ID bits away unless c has
// CAP_FSETID.
func truncate(c *Context, i Inode, size int64) error {
	if err := i.Truncate(size); err != nil || c.Creds.Privileged() {
		return err
	}
	a := i.Attr()
	if mode := c.Creds.WithoutSetID(&a); mode != a.Mode {
		return i.SetAttr(SetAttr{Mode: &mode})
	}
	return nil
}

// SetTimes is utimensat(2) on what was looked up. A nil time stays; now says
// that both are the current time, which needs write permission only.
func SetTimes(c *Context, i Inode, atime, mtime *time.Time, now bool) error {
	if atime == nil && mtime == nil {
		return nil
	}
	a := i.Attr()
	if !c.Creds.Owns(&a) {
		if !now {
			return unix.EPERM
		}
		if err := c.Creds.Check(&a, MayWrite); err != nil {
			return err
		}
	}
	return i.SetAttr(SetAttr{Atime: atime, Mtime: mtime})
}

// Truncate is truncate(2) on what was looked up.
func Truncate(c *Context, i Inode, size int64) error {
	a := i.Attr()
	switch {
	case size < 0:
		return unix.EINVAL
	case a.IsDir():
		return unix.EISDIR
	case !a.IsRegular():
		return unix.EINVAL
	}
	if err := c.Creds.Check(&a, MayWrite); err != nil {
		return err
	}
	return truncate(c, i, size)
}

// Permission is faccessat2(2) on what was looked up.
func Permission(c *Context, i Inode, want Access) error {
	a := i.Attr()
	return c.Creds.Check(&a, want)
}

// xattrAllowed checks name and c's rights for the xattr(7) calls.
func xattrAllowed(c *Context, i Inode, name string, want Access) error {
	if name == "" || len(name) > NameMax {
		return unix.ERANGE
	}
	space, rest, _ := strings.Cut(name, ".")
	a := i.Attr()
	refused := unix.EPERM
	if want == MayRead {
		refused = unix.ENODATA
	}
	switch {
	case !strings.Contains(name, "."):
		space = ""
	case space == "user" && !a.IsRegular() && !a.IsDir():
		return refused
	case space == "user" && a.IsDir() && a.Mode&unix.S_ISVTX != 0 && want == MayWrite && !c.Creds.Owns(&a):
		return unix.EPERM
	case space == "trusted" && !c.Creds.Privileged():
		return refused
	case space == "security" && want == MayWrite && !c.Creds.Privileged():
		return unix.EPERM
	}
	if space != "trusted" && space != "security" {
		if err := c.Creds.Check(&a, want); err != nil {
			return err
		}
	}
	switch space {
	case "user", "trusted", "security":
		if rest == "" {
			return unix.EINVAL
		}
		return nil
	}
	return unix.EOPNOTSUPP
}

// GetXattr, SetXattr, ListXattr and RemoveXattr are xattr(7) on what was
// looked up. Namespaces user, trusted and security are kept; none of them has
// a meaning to this kernel.
func GetXattr(c *Context, i Inode, name string) ([]byte, error) {
	if err := xattrAllowed(c, i, name, MayRead); err != nil {
		return nil, err
	}
	return i.GetXattr(name)
}

func SetXattr(c *Context, i Inode, name string, value []byte, flags int) error {
	if err := xattrAllowed(c, i, name, MayWrite); err != nil {
		return err
	}
	return i.SetXattr(name, value, flags)
}

func ListXattr(c *Context, i Inode) ([]string, error) {
	l, err := i.ListXattr()
	if err != nil || c.Creds.Privileged() {
		return l, err
	}
	out := l[:0]
	for _, name := range l {
		if !strings.HasPrefix(name, "trusted.") {
			out = append(out, name)
		}
	}
	return out, nil
}

func RemoveXattr(c *Context, i Inode, name string) error {
	if err := xattrAllowed(c, i, name, MayWrite); err != nil {
		return err
	}
	return i.RemoveXattr(name)
}

// Attachment is an inode that other parts of the kernel attach an object to: a
// socket's endpoint.
type Attachment interface {
	Object() any
	SetObject(any)
}

// Sized is a File whose size can be changed: ftruncate(2), fallocate(2).
type Sized interface {
	File
	Truncate(size int64) error
	Allocate(mode uint32, off, n int64) error
}

// Sealed is a File of memfd_create(2).
type Sealed interface {
	File
	Seals() (int, error)
	AddSeals(int) error
}

// FIFOEnd is a File that is one end of a FIFO: open(2) waits for the other.
type FIFOEnd interface {
	File
	// PeerOpened returns a channel that is closed when the other end has been
	// opened, nil if that is so already or this end need not wait.
	PeerOpened() <-chan struct{}
}
