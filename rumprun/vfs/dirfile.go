package vfs

import (
	"sync"

	"golang.org/x/sys/unix"
)

// DirFile is an open directory. It lists a snapshot of the directory that is
// made at the first read and brought up to date when entries come and go:
// entries that stay are listed exactly once, at unchanged offsets.
type DirFile struct {
	Base
	Tracked
	ns  *Namespace
	ctx Context // of the opener
	d   *Dentry

	mu    sync.Mutex
	pos   int64
	ents  []DirEntry // entry i is at offset i; Ino 0: gone
	gen   uint64
	gone  int  // entries of ents that are gone
	read  bool // ents is filled
	stale bool // rewound: what comes and goes without a trace is looked for
}

// Read is EISDIR, as is Pread; a directory cannot be open for writing.
func (f *DirFile) Read([]byte) (int, error)         { return 0, unix.EISDIR }
func (f *DirFile) Pread([]byte, int64) (int, error) { return 0, unix.EISDIR }
func (f *DirFile) Write([]byte) (int, error)        { return 0, unix.EBADF }
func (f *DirFile) Pwrite([]byte, int64) (int, error) {
	return 0, unix.EBADF
}

func (f *DirFile) Release() { f.Closed(unix.O_RDONLY) }

func (f *DirFile) Stat() (unix.Stat_t, error) {
	a := f.d.inode.Attr()
	return a.Stat(), nil
}

// Seek moves to an offset that ReadDir told (seekdir(3), rewinddir(3)).
func (f *DirFile) Seek(off int64, whence int) (int64, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	switch whence {
	case unix.SEEK_SET:
	case unix.SEEK_CUR:
		off += f.pos
	default:
		return 0, unix.EINVAL
	}
	if off < 0 {
		return 0, unix.EINVAL
	}
	if off == 0 {
		f.stale = true
		if 2*f.gone > len(f.ents) {
			f.read = false
		}
	}
	f.pos = off
	return off, nil
}

// ReadDir is getdents64(2): it calls emit for the entries from the position
// on, until emit answers false; that entry is not consumed. next is the offset
// behind the entry. A directory that has been removed is ENOENT.
func (f *DirFile) ReadDir(emit func(e DirEntry, next int64) bool) error {
	err := f.readDir(emit)
	if err == nil {
		f.Accessed()
	}
	return err
}

func (f *DirFile) readDir(emit func(e DirEntry, next int64) bool) error {
	f.mu.Lock()
	defer f.mu.Unlock()
	if err := f.refresh(); err != nil {
		return err
	}
	for f.pos < int64(len(f.ents)) {
		e := f.ents[f.pos]
		if e.Ino != 0 && !emit(e, f.pos+1) {
			return nil
		}
		f.pos++
	}
	return nil
}

func (f *DirFile) refresh() error {
	f.ns.mu.Lock()
	defer f.ns.mu.Unlock()
	if f.d.dead {
		return unix.ENOENT
	}
	gen := f.d.inode.Generation()
	if f.read && gen == f.gen && !f.stale {
		return nil
	}
	f.stale = false
	list, err := f.d.inode.ReadDir(&f.ctx, f.d)
	if err != nil {
		return err
	}
	if !f.read {
		self, up := f.d.inode.Attr(), f.d.up(f.ns.Root()).inode.Attr()
		f.ents = append(make([]DirEntry, 0, len(list)+2),
			DirEntry{".", self.Ino, unix.DT_DIR}, DirEntry{"..", up.Ino, unix.DT_DIR})
		f.ents = append(f.ents, list...)
		f.gone = 0
	} else {
		now := make(map[string]DirEntry, len(list))
		for _, e := range list {
			now[e.Name] = e
		}
		for i := range f.ents[2:] {
			e := &f.ents[2+i]
			if cur, ok := now[e.Name]; ok && e.Ino != 0 {
				*e = cur
				delete(now, e.Name)
			} else if e.Ino != 0 {
				e.Ino = 0
				f.gone++
			}
		}
		for _, e := range list {
			if _, ok := now[e.Name]; ok {
				f.ents = append(f.ents, e)
			}
		}
	}
	f.gen, f.read = gen, true
	return nil
}
