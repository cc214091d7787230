package rumprun

import (
	"encoding/binary"

	"golang.org/x/sys/unix"

	"github.com/nabla-build/nabla-build/rumprun/vfs"
)

// direntLayout is how getdents(2) or getdents64(2) writes an entry.
type direntLayout struct {
	name int // offset of d_name
	// size returns d_reclen for a name.
	size func(name string) int
	// kind stores d_type.
	kind func(rec []byte, typ uint8)
}

var (
	dirent64 = direntLayout{
		name: 19,
		size: func(name string) int { return (19 + len(name) + 1 + 7) &^ 7 },
		kind: func(rec []byte, typ uint8) { rec[18] = typ },
	}
	// struct linux_dirent has its type in the last byte of the record.
	dirent = direntLayout{
		name: 18,
		size: func(name string) int { return (18 + len(name) + 2 + 7) &^ 7 },
		kind: func(rec []byte, typ uint8) { rec[len(rec)-1] = typ },
	}
)

// sysGetdents is getdents(2).
func sysGetdents(t *Task, a Args) (uintptr, error) { return t.getdents(a, &dirent) }

// sysGetdents64 is getdents64(2).
func sysGetdents64(t *Task, a Args) (uintptr, error) { return t.getdents(a, &dirent64) }

func (t *Task) getdents(a Args, l *direntLayout) (uintptr, error) {
	d, err := t.fdFor(a.Int(0), false)
	if err != nil {
		return 0, err
	}
	defer d.DecRef()
	dir, ok := d.File.(*vfs.DirFile)
	if !ok {
		return 0, unix.ENOTDIR
	}
	buf, err := t.userBuf(a[1], min(uintptr(uint32(a[2])), maxRW), true)
	if err != nil {
		return 0, err
	}
	n := 0
	full := false
	err = dir.ReadDir(func(e vfs.DirEntry, next int64) bool {
		size := l.size(e.Name)
		if size > len(buf)-n {
			full = true
			return false
		}
		rec := buf[n : n+size]
		clear(rec)
		binary.LittleEndian.PutUint64(rec, e.Ino)
		binary.LittleEndian.PutUint64(rec[8:], uint64(next))
		binary.LittleEndian.PutUint16(rec[16:], uint16(size))
		l.kind(rec, e.Type)
		copy(rec[l.name:], e.Name)
		n += size
		return true
	})
	if err == nil && full && n == 0 {
		err = unix.EINVAL // not even one entry fits
	}
	return uintptr(n), err
}
