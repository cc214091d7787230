package vfs

import (
	"slices"

	"golang.org/x/sys/unix"
)

// Creds are a task's credentials (credentials(7)). They are immutable: a task
// that changes them gets a new value. User 0 has every capability.
type Creds struct {
	UID, GID     uint32 // real
	EUID, EGID   uint32 // effective
	SUID, SGID   uint32 // saved
	FSUID, FSGID uint32 // what file access is checked against
	Groups       []uint32
}

// NewCreds returns credentials whose user and group IDs are all uid and gid.
func NewCreds(uid, gid uint32, groups []uint32) *Creds {
	return &Creds{UID: uid, GID: gid, EUID: uid, EGID: gid, SUID: uid, SGID: gid, FSUID: uid, FSGID: gid, Groups: groups}
}

// Real returns c with the real IDs as file system IDs: what access(2) checks.
func (c *Creds) Real() *Creds {
	r := *c
	r.FSUID, r.FSGID = c.UID, c.GID
	return &r
}

// InGroup reports whether gid is the file system group or a supplementary one.
func (c *Creds) InGroup(gid uint32) bool {
	return c.FSGID == gid || slices.Contains(c.Groups, gid)
}

// Privileged reports whether c overrides permission and ownership checks
// (CAP_DAC_OVERRIDE, CAP_FOWNER, CAP_FSETID, CAP_CHOWN of capabilities(7)).
func (c *Creds) Privileged() bool { return c.FSUID == 0 }

// Owns reports whether c may do what an inode's owner may.
func (c *Creds) Owns(a *Attr) bool { return c.FSUID == a.UID || c.Privileged() }

// Access is a set of the permissions of access(2).
type Access uint32

const (
	MayExec  Access = unix.X_OK
	MayWrite Access = unix.W_OK
	MayRead  Access = unix.R_OK
)

// Check answers EACCES unless c has every permission of want on an inode with
// attributes a (path_resolution(7), "Permissions").
func (c *Creds) Check(a *Attr, want Access) error {
	if want == 0 {
		return nil
	}
	perm := a.Mode
	switch {
	case c.FSUID == a.UID:
		perm >>= 6
	case c.InGroup(a.GID):
		perm >>= 3
	}
	if Access(perm)&want == want {
		return nil
	}
	if c.Privileged() {
		// Execution needs one x bit, but for directories.
		if want&MayExec == 0 || a.IsDir() || a.Mode&0o111 != 0 {
			return nil
		}
	}
	return unix.EACCES
}
