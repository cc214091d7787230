package vfs

import (
	"golang.org/x/sys/unix"
)

// LargeFile is O_LARGEFILE as x86-64 has it: F_GETFL shows it.
const LargeFile = 0o100000

// creationFlags are the flags of open(2) that do not stay with the description.
const creationFlags = unix.O_CREAT | unix.O_EXCL | unix.O_NOCTTY | unix.O_TRUNC | unix.O_CLOEXEC

// Open is openat2(2): it opens path, from base, and returns the description
// and the name that it was found by.
//
// A FIFO is opened without waiting for its other end: the caller does that.
func (n *Namespace) Open(c *Context, base *Dentry, path string, flags uint32, mode uint32, res Resolve) (File, *Dentry, error) {
	if flags&unix.O_PATH != 0 {
		flags &= unix.O_PATH | unix.O_DIRECTORY | unix.O_NOFOLLOW | unix.O_CLOEXEC
	}
	tmpfile := flags&unix.O_TMPFILE == unix.O_TMPFILE
	switch {
	case tmpfile && (flags&unix.O_ACCMODE == unix.O_RDONLY || flags&unix.O_CREAT != 0):
		return nil, nil, unix.EINVAL
	case !tmpfile && flags&unix.O_CREAT != 0 && flags&unix.O_DIRECTORY != 0:
		return nil, nil, unix.EINVAL
	}
	wm := followLast
	switch {
	case flags&unix.O_CREAT != 0 && flags&(unix.O_EXCL|unix.O_NOFOLLOW) != 0:
		wm = parentOnly
	case flags&unix.O_CREAT != 0:
		wm = createLast
	case flags&unix.O_NOFOLLOW != 0:
		wm = noFollowLast
	}
	n.mu.Lock()
	p, err := n.walk(c, base, path, wm, res)
	if err == nil && wm == parentOnly {
		err = n.last(c, &p)
	}
	if err != nil {
		n.mu.Unlock()
		return nil, nil, err
	}
	created := false
	switch {
	case flags&unix.O_CREAT != 0 && p.kind == lastName && p.slash:
		err = unix.EISDIR
	case flags&unix.O_CREAT != 0 && flags&unix.O_EXCL != 0 && p.d != nil:
		err = unix.EEXIST
	case tmpfile:
		p.d, err = n.tmpfile(c, p.d, flags, mode)
		created = true
	case p.d == nil:
		if err = mayCreate(c, p.dir); err == nil {
			p.d, err = p.dir.inode.Create(c, p.dir, p.name, newAttr(c, p.dir, unix.S_IFREG|mode&0o7777))
		}
		if err == nil {
			n.made(p.dir, p.name, p.d.inode)
		}
		created = true
	}
	n.unlock()
	if err != nil {
		return nil, nil, err
	}
	f, err := n.openDentry(c, p.d, flags, created)
	return f, p.d, err
}

func (n *Namespace) tmpfile(c *Context, dir *Dentry, flags uint32, mode uint32) (*Dentry, error) {
	a := dir.inode.Attr()
	if !a.IsDir() {
		return nil, unix.ENOTDIR
	}
	if err := mayCreate(c, dir); err != nil {
		return nil, err
	}
	i, err := dir.inode.CreateUnnamed(c, dir, newAttr(c, dir, unix.S_IFREG|mode&0o7777))
	if err != nil {
		return nil, err
	}
	path, _ := dir.path(n.rootOf(c))
	if path != "/" {
		path += "/"
	}
	return NewDetached(path+"#tmpfile (deleted)", i), nil
}

// OpenDentry opens what d stands for again, as open(2) of /proc/self/fd/N does.
func (n *Namespace) OpenDentry(c *Context, d *Dentry, flags uint32) (File, error) {
	return n.openDentry(c, d, flags, false)
}

func (n *Namespace) openDentry(c *Context, d *Dentry, flags uint32, created bool) (File, error) {
	f, err := n.openInode(c, d, flags, created)
	if err != nil {
		return nil, err
	}
	if t, ok := f.(tracker); ok {
		t.track(n, d)
	}
	if flags&unix.O_PATH == 0 {
		n.Notify(d, unix.IN_OPEN)
		if flags&unix.O_TRUNC != 0 && !created {
			n.Notify(d, unix.IN_MODIFY)
		}
	}
	return f, nil
}

func (n *Namespace) openInode(c *Context, d *Dentry, flags uint32, created bool) (File, error) {
	a := d.inode.Attr()
	if flags&unix.O_DIRECTORY != 0 && !created && !a.IsDir() {
		return nil, unix.ENOTDIR
	}
	if flags&unix.O_PATH != 0 {
		f := &pathFile{inode: d.inode}
		f.SetStatusFlags(flags &^ creationFlags)
		return f, nil
	}
	if !created {
		if a.IsSymlink() {
			return nil, unix.ELOOP
		}
		want := [...]Access{MayRead, MayWrite, MayRead | MayWrite, MayRead | MayWrite}[flags&unix.O_ACCMODE]
		if flags&unix.O_TRUNC != 0 {
			want |= MayWrite
		}
		if a.IsDir() && (want&MayWrite != 0 || flags&unix.O_CREAT != 0) {
			return nil, unix.EISDIR
		}
		if err := c.Creds.Check(&a, want); err != nil {
			return nil, err
		}
		if flags&unix.O_NOATIME != 0 && !c.Creds.Owns(&a) {
			return nil, unix.EPERM
		}
		if flags&unix.O_TRUNC != 0 && a.IsRegular() {
			if err := truncate(c, d.inode, 0); err != nil {
				return nil, err
			}
		}
	}
	keep := flags&^creationFlags | LargeFile
	if a.IsDir() {
		f := &DirFile{ns: n, ctx: *c, d: d}
		f.SetStatusFlags(keep)
		return f, nil
	}
	if a.Type() == unix.S_IFSOCK {
		return nil, unix.ENXIO
	}
	f, err := d.inode.Open(c, d, keep|flags&unix.O_NOCTTY)
	if err != nil {
		return nil, err
	}
	f.SetStatusFlags(keep)
	return f, nil
}

// pathFile is a description opened with O_PATH: every operation on it that
// needs an open file is EBADF.
type pathFile struct {
	Base
	Tracked
	inode Inode
}

func (f *pathFile) Release() { f.Closed(unix.O_PATH) }

func (f *pathFile) Read([]byte) (int, error)          { return 0, unix.EBADF }
func (f *pathFile) Write([]byte) (int, error)         { return 0, unix.EBADF }
func (f *pathFile) Pread([]byte, int64) (int, error)  { return 0, unix.EBADF }
func (f *pathFile) Pwrite([]byte, int64) (int, error) { return 0, unix.EBADF }
func (f *pathFile) Seek(int64, int) (int64, error)    { return 0, unix.EBADF }
func (f *pathFile) Ioctl(UserMemory, uint32, uintptr) (uintptr, error) {
	return 0, unix.EBADF
}
func (f *pathFile) Stat() (unix.Stat_t, error) {
	a := f.inode.Attr()
	return a.Stat(), nil
}
