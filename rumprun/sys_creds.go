package rumprun

import (
	"slices"
	"unsafe"

	"golang.org/x/sys/unix"

	"github.com/nabla-build/nabla-build/rumprun/vfs"
)

var credCalls = []Call{
	{unix.SYS_GETUID, "getuid", sysGetuid, Full, ""},
	{unix.SYS_GETEUID, "geteuid", sysGeteuid, Full, ""},
	{unix.SYS_GETGID, "getgid", sysGetgid, Full, ""},
	{unix.SYS_GETEGID, "getegid", sysGetegid, Full, ""},
	{unix.SYS_GETRESUID, "getresuid", sysGetresuid, Full, ""},
	{unix.SYS_GETRESGID, "getresgid", sysGetresgid, Full, ""},
	{unix.SYS_GETGROUPS, "getgroups", sysGetgroups, Full, ""},
	{unix.SYS_SETUID, "setuid", sysSetuid, Full, ""},
	{unix.SYS_SETGID, "setgid", sysSetgid, Full, ""},
	{unix.SYS_SETREUID, "setreuid", sysSetreuid, Full, ""},
	{unix.SYS_SETREGID, "setregid", sysSetregid, Full, ""},
	{unix.SYS_SETRESUID, "setresuid", sysSetresuid, Full, ""},
	{unix.SYS_SETRESGID, "setresgid", sysSetresgid, Full, ""},
	{unix.SYS_SETFSUID, "setfsuid", sysSetfsuid, Full, ""},
	{unix.SYS_SETFSGID, "setfsgid", sysSetfsgid, Full, ""},
	{unix.SYS_SETGROUPS, "setgroups", sysSetgroups, Full, ""},
	{unix.SYS_CAPGET, "capget", sysCapget, Partial, "user 0 has what a default container has, others nothing"},
	{unix.SYS_CAPSET, "capset", sysCapset, Partial, "dropping is accepted, without effect; raising is EPERM"},
}

// unchanged is the ID -1 of setresuid(2): leave as it is.
const unchanged = ^uint32(0)

func sysGetuid(t *Task, _ Args) (uintptr, error)  { return uintptr(t.creds().UID), nil }
func sysGeteuid(t *Task, _ Args) (uintptr, error) { return uintptr(t.creds().EUID), nil }
func sysGetgid(t *Task, _ Args) (uintptr, error)  { return uintptr(t.creds().GID), nil }
func sysGetegid(t *Task, _ Args) (uintptr, error) { return uintptr(t.creds().EGID), nil }

func (t *Task) creds() *vfs.Creds { return t.p.fs.creds.Load() }

func (t *Task) outIDs(a Args, ids ...uint32) (uintptr, error) {
	for i, id := range ids {
		if err := copyOut(t, a[i], id); err != nil {
			return 0, err
		}
	}
	return 0, nil
}

func sysGetresuid(t *Task, a Args) (uintptr, error) {
	c := t.creds()
	return t.outIDs(a, c.UID, c.EUID, c.SUID)
}

func sysGetresgid(t *Task, a Args) (uintptr, error) {
	c := t.creds()
	return t.outIDs(a, c.GID, c.EGID, c.SGID)
}

func sysGetgroups(t *Task, a Args) (uintptr, error) {
	g, n := t.creds().Groups, a.Int(0)
	if n < 0 || n > 0 && n < len(g) {
		return 0, unix.EINVAL
	}
	if n == 0 || len(g) == 0 {
		return uintptr(len(g)), nil
	}
	b, err := t.Bytes(a[1], 4*len(g), true)
	if err != nil {
		return 0, err
	}
	copy(unsafe.Slice((*uint32)(unsafe.Pointer(unsafe.SliceData(b))), len(g)), g)
	return uintptr(len(g)), nil
}

// changeCreds installs a changed copy of the credentials. Threads share them: the
// C library sets them for every thread in turn, with the same result.
func (t *Task) changeCreds(edit func(c *vfs.Creds) error) (uintptr, error) {
	c := *t.creds()
	if err := edit(&c); err != nil {
		return 0, err
	}
	t.p.fs.creds.Store(&c)
	return 0, nil
}

// sysSetuid is setuid(2).
func sysSetuid(t *Task, a Args) (uintptr, error) {
	id := uint32(a[0])
	return t.changeCreds(func(c *vfs.Creds) error {
		switch {
		case id == unchanged:
			return unix.EINVAL
		case c.EUID == 0:
			c.UID, c.SUID = id, id
		case id != c.UID && id != c.SUID:
			return unix.EPERM
		}
		c.EUID, c.FSUID = id, id
		return nil
	})
}

// sysSetgid is setgid(2).
func sysSetgid(t *Task, a Args) (uintptr, error) {
	id := uint32(a[0])
	return t.changeCreds(func(c *vfs.Creds) error {
		switch {
		case id == unchanged:
			return unix.EINVAL
		case c.EUID == 0:
			c.GID, c.SGID = id, id
		case id != c.GID && id != c.SGID:
			return unix.EPERM
		}
		c.EGID, c.FSGID = id, id
		return nil
	})
}

// setIDs applies new real, effective and saved IDs; each must be one of the old
// ones unless the caller is privileged.
func setIDs(privileged bool, real, effective, saved *uint32, to [3]uint32) error {
	old := []uint32{*real, *effective, *saved}
	for _, id := range to {
		if id != unchanged && !privileged && !slices.Contains(old, id) {
			return unix.EPERM
		}
	}
	for i, p := range []*uint32{real, effective, saved} {
		if to[i] != unchanged {
			*p = to[i]
		}
	}
	return nil
}

func sysSetresuid(t *Task, a Args) (uintptr, error) {
	return t.changeCreds(func(c *vfs.Creds) error {
		err := setIDs(c.EUID == 0, &c.UID, &c.EUID, &c.SUID, [3]uint32{uint32(a[0]), uint32(a[1]), uint32(a[2])})
		c.FSUID = c.EUID
		return err
	})
}

func sysSetresgid(t *Task, a Args) (uintptr, error) {
	return t.changeCreds(func(c *vfs.Creds) error {
		err := setIDs(c.EUID == 0, &c.GID, &c.EGID, &c.SGID, [3]uint32{uint32(a[0]), uint32(a[1]), uint32(a[2])})
		c.FSGID = c.EGID
		return err
	})
}

// savedAfter is the saved ID that setreuid(2) leaves: the new effective one if
// the real one is set, or the effective one to something else than the real.
func savedAfter(oldReal, real, effective, saved, newEffective uint32) uint32 {
	if real != unchanged || effective != unchanged && effective != oldReal {
		return newEffective
	}
	return saved
}

func sysSetreuid(t *Task, a Args) (uintptr, error) {
	return t.changeCreds(func(c *vfs.Creds) error {
		r, e, old := uint32(a[0]), uint32(a[1]), c.UID
		if err := setIDs(c.EUID == 0, &c.UID, &c.EUID, &c.SUID, [3]uint32{r, e, unchanged}); err != nil {
			return err
		}
		c.SUID, c.FSUID = savedAfter(old, r, e, c.SUID, c.EUID), c.EUID
		return nil
	})
}

func sysSetregid(t *Task, a Args) (uintptr, error) {
	return t.changeCreds(func(c *vfs.Creds) error {
		r, e, old := uint32(a[0]), uint32(a[1]), c.GID
		if err := setIDs(c.EUID == 0, &c.GID, &c.EGID, &c.SGID, [3]uint32{r, e, unchanged}); err != nil {
			return err
		}
		c.SGID, c.FSGID = savedAfter(old, r, e, c.SGID, c.EGID), c.EGID
		return nil
	})
}

// sysSetfsuid is setfsuid(2): it answers the old ID and never fails.
func sysSetfsuid(t *Task, a Args) (uintptr, error) {
	id, old := uint32(a[0]), t.creds().FSUID
	t.changeCreds(func(c *vfs.Creds) error {
		if c.EUID == 0 || id == c.UID || id == c.EUID || id == c.SUID {
			c.FSUID = id
		}
		return nil
	})
	return uintptr(old), nil
}

// sysSetfsgid is setfsgid(2).
func sysSetfsgid(t *Task, a Args) (uintptr, error) {
	id, old := uint32(a[0]), t.creds().FSGID
	t.changeCreds(func(c *vfs.Creds) error {
		if c.EUID == 0 || id == c.GID || id == c.EGID || id == c.SGID {
			c.FSGID = id
		}
		return nil
	})
	return uintptr(old), nil
}

func sysSetgroups(t *Task, a Args) (uintptr, error) {
	const most = 65536 // NGROUPS_MAX
	n := a.Int(0)
	if t.creds().EUID != 0 {
		return 0, unix.EPERM
	}
	if n < 0 || n > most {
		return 0, unix.EINVAL
	}
	var g []uint32
	if n > 0 {
		b, err := t.Bytes(a[1], 4*n, false)
		if err != nil {
			return 0, err
		}
		g = slices.Clone(unsafe.Slice((*uint32)(unsafe.Pointer(unsafe.SliceData(b))), n))
	}
	return t.changeCreds(func(c *vfs.Creds) error {
		c.Groups = g
		return nil
	})
}

// rootCaps are the capabilities that a default container's user 0 has
// (CHOWN, DAC_OVERRIDE, FOWNER, FSETID, KILL, SETGID, SETUID, SETPCAP,
// NET_BIND_SERVICE, NET_RAW, SYS_CHROOT, MKNOD, AUDIT_WRITE, SETFCAP).
const rootCaps = 0xa80425fb

type capHeader struct {
	Version uint32
	PID     int32
}

// capVersion checks the header of capget(2); a version that is not known is
// answered with the one that is.
func (t *Task) capVersion(addr uintptr) (sets int, err error) {
	h, err := userPtr[capHeader](t, addr, true)
	if err != nil {
		return 0, err
	}
	switch h.Version {
	case unix.LINUX_CAPABILITY_VERSION_1:
		return 1, nil
	case unix.LINUX_CAPABILITY_VERSION_2, unix.LINUX_CAPABILITY_VERSION_3:
		return 2, nil
	}
	h.Version = unix.LINUX_CAPABILITY_VERSION_3
	return 0, unix.EINVAL
}

func sysCapget(t *Task, a Args) (uintptr, error) {
	n, err := t.capVersion(a[0])
	if err != nil {
		if err == unix.EINVAL && a[1] == 0 {
			return 0, nil
		}
		return 0, err
	}
	if a[1] == 0 {
		return 0, nil
	}
	var d [2][3]uint32 // effective, permitted, inheritable
	if t.creds().EUID == 0 {
		d[0] = [3]uint32{rootCaps, rootCaps, 0}
	}
	b := make([]byte, 0, 24)
	for _, set := range d[:n] {
		for _, w := range set {
			b = append(b, byte(w), byte(w>>8), byte(w>>16), byte(w>>24))
		}
	}
	return 0, t.CopyOut(a[1], b)
}

func sysCapset(t *Task, a Args) (uintptr, error) {
	n, err := t.capVersion(a[0])
	if err != nil {
		return 0, err
	}
	var have uint64
	if t.creds().EUID == 0 {
		have = rootCaps
	}
	for i := range n {
		d, err := copyIn[[3]uint32](t, a[1]+uintptr(12*i))
		if err != nil {
			return 0, err
		}
		if h := uint32(have >> (32 * i)); (d[0]|d[1])&^h != 0 {
			return 0, unix.EPERM
		}
	}
	return 0, nil
}
