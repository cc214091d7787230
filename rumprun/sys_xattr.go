package rumprun

import (
	"golang.org/x/sys/unix"

	"github.com/nabla-build/nabla-build/rumprun/vfs"
)

// xattrCalls are the calls on extended attributes.
var xattrCalls = []Call{
	{unix.SYS_GETXATTR, "getxattr", sysGetxattr, Partial, xattrNote},
	{unix.SYS_LGETXATTR, "lgetxattr", sysLgetxattr, Partial, xattrNote},
	{unix.SYS_FGETXATTR, "fgetxattr", sysFgetxattr, Partial, xattrNote},
	{unix.SYS_SETXATTR, "setxattr", sysSetxattr, Partial, xattrNote},
	{unix.SYS_LSETXATTR, "lsetxattr", sysLsetxattr, Partial, xattrNote},
	{unix.SYS_FSETXATTR, "fsetxattr", sysFsetxattr, Partial, xattrNote},
	{unix.SYS_LISTXATTR, "listxattr", sysListxattr, Full, ""},
	{unix.SYS_LLISTXATTR, "llistxattr", sysLlistxattr, Full, ""},
	{unix.SYS_FLISTXATTR, "flistxattr", sysFlistxattr, Full, ""},
	{unix.SYS_REMOVEXATTR, "removexattr", sysRemovexattr, Partial, xattrNote},
	{unix.SYS_LREMOVEXATTR, "lremovexattr", sysLremovexattr, Partial, xattrNote},
	{unix.SYS_FREMOVEXATTR, "fremovexattr", sysFremovexattr, Partial, xattrNote},
}

const (
	xattrNote    = "access control lists (system.posix_acl_*) are EOPNOTSUPP; capabilities in security.capability are kept and have no effect"
	xattrSizeMax = 65536
)

// xattrOn returns the inode that an xattr call works on: path a[0] followed or
// not, or descriptor a[0].
func (t *Task) xattrOn(a0 uintptr, how xattrHow) (object, vfs.Inode, error) {
	var o object
	var err error
	if how == xattrFD {
		o, err = t.objectFD(int(int32(a0)), false)
	} else {
		o, err = t.objectAt(atCWD, a0, 0, how == xattrFollow)
	}
	if err != nil {
		return o, nil, err
	}
	if o.entry == nil {
		o.release()
		return o, nil, unix.EOPNOTSUPP
	}
	return o, o.entry.Inode(), nil
}

type xattrHow uint8

const (
	xattrFollow xattrHow = iota
	xattrNoFollow
	xattrFD
)

func (t *Task) xattrName(addr uintptr) (string, error) {
	name, err := t.CString(addr, vfs.NameMax+1)
	if err == unix.ENAMETOOLONG || err == nil && name == "" {
		return "", unix.ERANGE
	}
	return name, err
}

// xattrResult copies b to the guest's buffer; size 0 asks for the length only.
func (t *Task) xattrResult(b []byte, addr, size uintptr) (uintptr, error) {
	if size == 0 {
		return uintptr(len(b)), nil
	}
	if uintptr(len(b)) > size {
		return 0, unix.ERANGE
	}
	return uintptr(len(b)), t.CopyOut(addr, b)
}

func (t *Task) getxattr(a Args, how xattrHow) (uintptr, error) {
	o, i, err := t.xattrOn(a[0], how)
	if err != nil {
		return 0, err
	}
	defer o.release()
	name, err := t.xattrName(a[1])
	if err != nil {
		return 0, err
	}
	v, err := vfs.GetXattr(t.vfsContext(), i, name)
	if err != nil {
		return 0, err
	}
	return t.xattrResult(v, a[2], a[3])
}

func (t *Task) setxattr(a Args, how xattrHow) (uintptr, error) {
	fl := a.Int(4)
	if fl&^(unix.XATTR_CREATE|unix.XATTR_REPLACE) != 0 {
		return 0, unix.EINVAL
	}
	name, err := t.xattrName(a[1])
	if err != nil {
		return 0, err
	}
	if a[3] > xattrSizeMax {
		return 0, unix.E2BIG
	}
	v, err := t.Bytes(a[2], int(a[3]), false)
	if err != nil {
		return 0, err
	}
	o, i, err := t.xattrOn(a[0], how)
	if err != nil {
		return 0, err
	}
	defer o.release()
	if err := vfs.SetXattr(t.vfsContext(), i, name, v, fl); err != nil {
		return 0, err
	}
	t.p.fs.ns.Notify(o.entry, unix.IN_ATTRIB)
	return 0, nil
}

func (t *Task) listxattr(a Args, how xattrHow) (uintptr, error) {
	o, i, err := t.xattrOn(a[0], how)
	if err != nil {
		return 0, err
	}
	defer o.release()
	names, err := vfs.ListXattr(t.vfsContext(), i)
	if err != nil {
		return 0, err
	}
	var b []byte
	for _, n := range names {
		b = append(append(b, n...), 0)
	}
	return t.xattrResult(b, a[1], a[2])
}

func (t *Task) removexattr(a Args, how xattrHow) (uintptr, error) {
	name, err := t.xattrName(a[1])
	if err != nil {
		return 0, err
	}
	o, i, err := t.xattrOn(a[0], how)
	if err != nil {
		return 0, err
	}
	defer o.release()
	if err := vfs.RemoveXattr(t.vfsContext(), i, name); err != nil {
		return 0, err
	}
	t.p.fs.ns.Notify(o.entry, unix.IN_ATTRIB)
	return 0, nil
}

// sysGetxattr, sysLgetxattr and sysFgetxattr are getxattr(2).
func sysGetxattr(t *Task, a Args) (uintptr, error)  { return t.getxattr(a, xattrFollow) }
func sysLgetxattr(t *Task, a Args) (uintptr, error) { return t.getxattr(a, xattrNoFollow) }
func sysFgetxattr(t *Task, a Args) (uintptr, error) { return t.getxattr(a, xattrFD) }

// sysSetxattr, sysLsetxattr and sysFsetxattr are setxattr(2).
func sysSetxattr(t *Task, a Args) (uintptr, error)  { return t.setxattr(a, xattrFollow) }
func sysLsetxattr(t *Task, a Args) (uintptr, error) { return t.setxattr(a, xattrNoFollow) }
func sysFsetxattr(t *Task, a Args) (uintptr, error) { return t.setxattr(a, xattrFD) }

// sysListxattr, sysLlistxattr and sysFlistxattr are listxattr(2).
func sysListxattr(t *Task, a Args) (uintptr, error)  { return t.listxattr(a, xattrFollow) }
func sysLlistxattr(t *Task, a Args) (uintptr, error) { return t.listxattr(a, xattrNoFollow) }
func sysFlistxattr(t *Task, a Args) (uintptr, error) { return t.listxattr(a, xattrFD) }

// sysRemovexattr, sysLremovexattr and sysFremovexattr are removexattr(2).
func sysRemovexattr(t *Task, a Args) (uintptr, error)  { return t.removexattr(a, xattrFollow) }
func sysLremovexattr(t *Task, a Args) (uintptr, error) { return t.removexattr(a, xattrNoFollow) }
func sysFremovexattr(t *Task, a Args) (uintptr, error) { return t.removexattr(a, xattrFD) }
