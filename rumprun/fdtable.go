package rumprun

import (
	"sync"
	"sync/atomic"

	"golang.org/x/sys/unix"

	"github.com/nabla-build/nabla-build/rumprun/event"
	"github.com/nabla-build/nabla-build/rumprun/vfs"
	"github.com/nabla-build/nabla-build/rumprun/vfs/filelock"
)

// Description is an open file description with its reference count: one
// reference per descriptor, mapping, epoll interest in flight or message that
// carries it.
type Description struct {
	vfs.File
	refs atomic.Int64
	// entry is the name that the file was opened by; nil for what has none
	// (pipes, sockets, epoll).
	entry *vfs.Dentry
	// locks is the table in which this description holds locks; nil: none.
	locks atomic.Pointer[filelock.Table]
	// interests are the epoll interests in this description.
	interests event.Interests
}

// Interests and Unwrap implement event.Target.
func (d *Description) Interests() *event.Interests { return &d.interests }
func (d *Description) Unwrap() vfs.File            { return d.File }

// NewDescription wraps f with one reference, which the caller owns.
func NewDescription(f vfs.File) *Description {
	d := &Description{File: f}
	d.refs.Store(1)
	return d
}

// newDescriptionAt is NewDescription for a file that was opened by name entry.
func newDescriptionAt(f vfs.File, entry *vfs.Dentry) *Description {
	d := NewDescription(f)
	d.entry = entry
	return d
}

// inode returns the inode that the file was opened by; nil for what has none.
func (d *Description) inode() vfs.Inode {
	if d.entry == nil {
		return nil
	}
	return d.entry.Inode()
}

// IncRef takes a reference; the caller must hold one already.
func (d *Description) IncRef() { d.refs.Add(1) }

// DecRef drops a reference; the last one releases the file.
func (d *Description) DecRef() {
	if d.refs.Add(-1) == 0 {
		d.release()
	}
}

func (d *Description) release() {
	if l := d.locks.Load(); l != nil {
		l.Release(d)
	}
	d.interests.Drop()
	d.File.Release()
}

// dropLater is DecRef for a caller that holds locks: the file is released by
// another goroutine.
func (d *Description) dropLater() {
	if d.refs.Add(-1) == 0 {
		go d.release()
	}
}

type fdEntry struct {
	d       *Description
	cloexec bool
}

// FDTable maps descriptors to open file descriptions (CLONE_FILES shares it).
// All methods lock for themselves.
type FDTable struct {
	mu    sync.Mutex
	ents  []fdEntry
	free  int // no free descriptor below
	limit int // RLIMIT_NOFILE's soft limit
	users int // processes beside the first that share it (CLONE_FILES)
}

// NewFDTable makes an empty table that holds at most limit descriptors.
func NewFDTable(limit int) *FDTable { return &FDTable{limit: limit} }

// Get returns the description of fd with a reference for the caller, who must
// DecRef it; EBADF if there is none.
func (f *FDTable) Get(fd int) (*Description, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if fd < 0 || fd >= len(f.ents) || f.ents[fd].d == nil {
		return nil, unix.EBADF
	}
	d := f.ents[fd].d
	d.IncRef()
	return d, nil
}

// Install puts d, whose reference it takes over, at the lowest free descriptor
// at or above min; EMFILE beyond the limit (the reference stays the caller's).
func (f *FDTable) Install(d *Description, min int, cloexec bool) (int, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if min < 0 || min >= f.limit {
		return -1, unix.EINVAL
	}
	fd := max(min, f.free)
	for fd < len(f.ents) && f.ents[fd].d != nil {
		fd++
	}
	if fd >= f.limit {
		return -1, unix.EMFILE
	}
	for fd >= len(f.ents) {
		f.ents = append(f.ents, fdEntry{})
	}
	f.ents[fd] = fdEntry{d, cloexec}
	if min <= f.free {
		f.free = fd + 1
	}
	return fd, nil
}

// Replace puts d, whose reference it takes over, at fd, closing what was there
// (dup2(2)).
func (f *FDTable) Replace(fd int, d *Description, cloexec bool) error {
	f.mu.Lock()
	if fd < 0 || fd >= f.limit {
		f.mu.Unlock()
		return unix.EBADF
	}
	for fd >= len(f.ents) {
		f.ents = append(f.ents, fdEntry{})
	}
	old := f.ents[fd].d
	f.ents[fd] = fdEntry{d, cloexec}
	f.mu.Unlock()
	if old != nil {
		old.DecRef()
	}
	return nil
}

// Close removes fd.
func (f *FDTable) Close(fd int) error {
	f.mu.Lock()
	if fd < 0 || fd >= len(f.ents) || f.ents[fd].d == nil {
		f.mu.Unlock()
		return unix.EBADF
	}
	d := f.ents[fd].d
	f.ents[fd] = fdEntry{}
	f.free = min(f.free, fd)
	f.mu.Unlock()
	d.DecRef()
	return nil
}

// CloExec returns and SetCloExec sets the close-on-exec flag of fd.
func (f *FDTable) CloExec(fd int) (bool, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if fd < 0 || fd >= len(f.ents) || f.ents[fd].d == nil {
		return false, unix.EBADF
	}
	return f.ents[fd].cloexec, nil
}

func (f *FDTable) SetCloExec(fd int, on bool) error {
	f.mu.Lock()
	defer f.mu.Unlock()
	if fd < 0 || fd >= len(f.ents) || f.ents[fd].d == nil {
		return unix.EBADF
	}
	f.ents[fd].cloexec = on
	return nil
}

// SetLimit changes the limit (RLIMIT_NOFILE); descriptors above it stay open.
func (f *FDTable) SetLimit(n int) {
	f.mu.Lock()
	f.limit = n
	f.mu.Unlock()
}

// Size is the number of slots, used or not, as Linux counts them: at least 64,
// then the power of two that holds the highest descriptor ever in use
// (alloc_fdtable in fs/file.c). select(2) does not look beyond it.
func (f *FDTable) Size() int {
	f.mu.Lock()
	defer f.mu.Unlock()
	size := 64
	for size < len(f.ents) {
		size *= 2
	}
	return size
}

// Open lists the descriptors in use, ascending (/proc/self/fd).
func (f *FDTable) Open() []int {
	f.mu.Lock()
	defer f.mu.Unlock()
	var out []int
	for fd, e := range f.ents {
		if e.d != nil {
			out = append(out, fd)
		}
	}
	return out
}

// Clone copies the table, every description gaining a reference.
func (f *FDTable) Clone() *FDTable {
	f.mu.Lock()
	defer f.mu.Unlock()
	n := &FDTable{ents: append([]fdEntry(nil), f.ents...), free: f.free, limit: f.limit}
	for _, e := range n.ents {
		if e.d != nil {
			e.d.IncRef()
		}
	}
	return n
}

// Share returns the table for one more process, which ends its use by Release.
func (f *FDTable) Share() *FDTable {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.users++
	return f
}

// Own returns a table that no other process uses: f, or a copy instead of which
// the caller's use of f ends (execve(2)).
func (f *FDTable) Own() *FDTable {
	f.mu.Lock()
	shared := f.users > 0
	f.mu.Unlock()
	if !shared {
		return f
	}
	n := f.Clone()
	f.Release()
	return n
}

// Release ends a process's use. The last one's closes all descriptors.
func (f *FDTable) Release() {
	f.mu.Lock()
	f.users--
	last := f.users < 0
	f.mu.Unlock()
	if last {
		f.CloseIf(func(int, bool) bool { return true })
	}
}

// CloseIf closes every descriptor for which match answers true (exec: those
// with close-on-exec; exit: all).
func (f *FDTable) CloseIf(match func(fd int, cloexec bool) bool) {
	for _, fd := range f.Open() {
		ce, err := f.CloExec(fd)
		if err == nil && match(fd, ce) {
			f.Close(fd)
		}
	}
}
