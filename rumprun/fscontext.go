package rumprun

import (
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/sys/unix"

	"github.com/nabla-build/nabla-build/rumprun/entropy"
	"github.com/nabla-build/nabla-build/rumprun/vfs"
	"github.com/nabla-build/nabla-build/rumprun/vfs/filelock"
)

// fileState is what the kernel keeps for all processes' files.
type fileState struct {
	ns      *vfs.Namespace
	mounts  []mount
	locks   filelock.Table
	entropy *entropy.Source
	limit   int64 // of file data in memory, in bytes
	boot    time.Time
	bootID  string
}

// mount is a row of /proc/self/mountinfo.
type mount struct {
	path   string
	root   *vfs.Dentry
	parent int // index of the mount that it is on
}

// fsContext is what a process's paths are resolved with: its root and working
// directories, umask and credentials. Threads share it.
type fsContext struct {
	ns    *vfs.Namespace
	creds atomic.Pointer[vfs.Creds]
	umask atomic.Uint32
	// recordLocks says that the process has taken record locks.
	recordLocks atomic.Bool

	mu        sync.Mutex
	root, cwd *vfs.Dentry
}

// newFSContext makes the context of a first process, in directory cwd (the
// root if it does not exist).
func newFSContext(ns *vfs.Namespace, cwd string, creds *vfs.Creds) *fsContext {
	f := &fsContext{ns: ns, root: ns.Root()}
	f.creds.Store(creds)
	f.umask.Store(0o022)
	f.cwd = f.root
	if d, err := ns.Lookup(&vfs.Context{Creds: creds}, nil, cwd, true, 0); err == nil {
		if a := d.Inode().Attr(); a.IsDir() {
			f.cwd = d
		}
	}
	return f
}

// clone copies the context for a child process.
func (f *fsContext) clone() *fsContext {
	f.mu.Lock()
	defer f.mu.Unlock()
	n := &fsContext{ns: f.ns, root: f.root, cwd: f.cwd}
	n.creds.Store(f.creds.Load())
	n.umask.Store(f.umask.Load())
	return n
}

// vfsContext returns what t's paths are walked with.
func (t *Task) vfsContext() *vfs.Context {
	f := t.p.fs
	f.mu.Lock()
	defer f.mu.Unlock()
	return &vfs.Context{Creds: f.creds.Load(), Root: f.root, Cwd: f.cwd, Umask: f.umask.Load(), Caller: t}
}

// pathArg reads the path at addr; ENAMETOOLONG beyond PATH_MAX.
func (t *Task) pathArg(addr uintptr) (string, error) {
	return t.CString(addr, vfs.PathMax)
}

// baseDir returns the directory that path is relative to: nil for the working
// directory (AT_FDCWD) and for absolute paths, which ignore fd.
func (t *Task) baseDir(fd int, path string) (*vfs.Dentry, error) {
	if fd == unix.AT_FDCWD || path != "" && path[0] == '/' {
		return nil, nil
	}
	d, err := t.p.fds.Get(fd)
	if err != nil {
		return nil, err
	}
	defer d.DecRef()
	if d.entry == nil {
		return nil, unix.ENOTDIR
	}
	return d.entry, nil
}

// pathAt reads the path at addr and returns it with the directory that it is
// relative to.
func (t *Task) pathAt(fd int, addr uintptr) (*vfs.Dentry, string, error) {
	path, err := t.pathArg(addr)
	if err != nil {
		return nil, "", err
	}
	base, err := t.baseDir(fd, path)
	return base, path, err
}

// object is what a *at call works on: an inode that was looked up, or the
// description behind a descriptor that has none (a pipe or socket).
type object struct {
	entry *vfs.Dentry
	desc  *Description // has a reference, if not nil
}

func (o *object) release() {
	if o.desc != nil {
		o.desc.DecRef()
	}
}

// inode returns the inode, EBADF for an object without one.
func (o *object) inode() (vfs.Inode, error) {
	if o.entry == nil {
		return nil, unix.EBADF
	}
	return o.entry.Inode(), nil
}

// objectFD returns the object of descriptor fd. Descriptors opened with O_PATH
// are EBADF unless path is set.
func (t *Task) objectFD(fd int, path bool) (object, error) {
	d, err := t.p.fds.Get(fd)
	if err != nil {
		return object{}, err
	}
	if !path && d.StatusFlags()&unix.O_PATH != 0 {
		d.DecRef()
		return object{}, unix.EBADF
	}
	return object{d.entry, d}, nil
}

// objectAt looks up the path at addr, relative to fd. flags may hold
// AT_EMPTY_PATH, AT_SYMLINK_NOFOLLOW and AT_SYMLINK_FOLLOW; follow is the
// call's default.
func (t *Task) objectAt(fd int, addr uintptr, flags int, follow bool) (object, error) {
	return t.objectAtAs(t.vfsContext(), fd, addr, flags, follow)
}

// objectAtAs is objectAt with the credentials of c.
func (t *Task) objectAtAs(c *vfs.Context, fd int, addr uintptr, flags int, follow bool) (object, error) {
	var path string
	if addr != 0 || flags&unix.AT_EMPTY_PATH == 0 {
		var err error
		if path, err = t.pathArg(addr); err != nil {
			return object{}, err
		}
	}
	if path == "" && flags&unix.AT_EMPTY_PATH != 0 {
		if fd == unix.AT_FDCWD {
			return object{entry: c.Cwd}, nil
		}
		return t.objectFD(fd, true)
	}
	if flags&unix.AT_SYMLINK_NOFOLLOW != 0 {
		follow = false
	}
	if flags&unix.AT_SYMLINK_FOLLOW != 0 {
		follow = true
	}
	base, err := t.baseDir(fd, path)
	if err != nil {
		return object{}, err
	}
	d, err := t.p.fs.ns.Lookup(c, base, path, follow, 0)
	return object{entry: d}, err
}
