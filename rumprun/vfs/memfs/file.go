package memfs

import (
	"sync"
	"time"

	"golang.org/x/sys/unix"

	"github.com/nabla-build/nabla-build/rumprun/vfs"
)

// file is an open regular file.
type file struct {
	vfs.Base
	vfs.Tracked
	n     *node
	creds *vfs.Creds // of the opener: they count for writes too
	mu    sync.Mutex // protects pos; taken before n.mu
	pos   int64
}

func (f *file) Stat() (unix.Stat_t, error) {
	a := f.n.Attr()
	return a.Stat(), nil
}

func (f *file) Release() {
	n := f.n
	n.mu.Lock()
	n.opens--
	n.free()
	n.mu.Unlock()
	f.Closed(f.StatusFlags())
}

func (f *file) Read(p []byte) (int, error) {
	f.mu.Lock()
	n, err := f.pread(p, f.pos)
	f.pos += int64(n)
	f.mu.Unlock()
	if n > 0 {
		f.Accessed()
	}
	return n, err
}

func (f *file) Pread(p []byte, off int64) (int, error) {
	n, err := f.pread(p, off)
	if n > 0 {
		f.Accessed()
	}
	return n, err
}

func (f *file) pread(p []byte, off int64) (int, error) {
	if off < 0 || off > maxFileSize-int64(len(p)) {
		return 0, unix.EINVAL
	}
	return f.read(p, off), nil
}

func (f *file) read(p []byte, off int64) int {
	n := f.n
	if n.maps.Any() {
		n.maps.Flush(n, off, int64(len(p)))
	}
	n.mu.Lock()
	defer n.mu.Unlock()
	k := n.data.readAt(p, off)
	// As mount option relatime has it, but for its once-a-day rule.
	if k > 0 && f.StatusFlags()&unix.O_NOATIME == 0 && (!n.atime.After(n.mtime) || !n.atime.After(n.ctime)) {
		n.atime = time.Now()
	}
	return k
}

func (f *file) Write(p []byte) (int, error) {
	f.mu.Lock()
	k, end, err := f.write(p, f.pos)
	if k > 0 {
		f.pos = end
	}
	f.mu.Unlock()
	if k > 0 {
		f.Modified()
	}
	return k, err
}

// Pwrite writes at off; on a description with O_APPEND at the end, as Linux
// has it (pwrite(2), BUGS).
func (f *file) Pwrite(p []byte, off int64) (int, error) {
	if off < 0 {
		return 0, unix.EINVAL
	}
	k, _, err := f.write(p, off)
	if k > 0 {
		f.Modified()
	}
	return k, err
}

func (f *file) write(p []byte, off int64) (k int, end int64, err error) {
	n := f.n
	if n.maps.Any() {
		n.maps.Flush(n, 0, maxFileSize)
		defer func() { n.maps.Changed(p[:k], end-int64(k)) }()
	}
	n.mu.Lock()
	defer n.mu.Unlock()
	if f.StatusFlags()&unix.O_APPEND != 0 {
		off = n.data.size
	}
	if len(p) == 0 {
		return 0, off, nil
	}
	if n.seals&(unix.F_SEAL_WRITE|unix.F_SEAL_FUTURE_WRITE) != 0 {
		return 0, off, unix.EPERM
	}
	if n.seals&unix.F_SEAL_GROW != 0 {
		if end := n.data.size; off+int64(len(p)) > end {
			// As shmem has it: a page that would grow the file is refused.
			whole := end &^ (pageSize - 1)
			if whole <= off {
				return 0, off, unix.EPERM
			}
			p = p[:whole-off]
		}
	}
	if off > maxFileSize-int64(len(p)) {
		return 0, off, unix.EINVAL
	}
	k, err = n.data.writeAt(p, off)
	if k > 0 {
		n.written(f.creds)
	}
	return k, off + int64(k), err
}

func (f *file) Seek(off int64, whence int) (int64, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.n.mu.Lock()
	defer f.n.mu.Unlock()
	switch whence {
	case unix.SEEK_SET:
	case unix.SEEK_CUR:
		off += f.pos
	case unix.SEEK_END:
		off += f.n.data.size
	case unix.SEEK_DATA, unix.SEEK_HOLE:
		var err error
		if off, err = f.n.data.seek(off, whence == unix.SEEK_DATA); err != nil {
			return 0, err
		}
	default:
		return 0, unix.EINVAL
	}
	if off < 0 {
		return 0, unix.EINVAL
	}
	f.pos = off
	return off, nil
}

// Truncate is ftruncate(2); the caller has checked that f is open for writing.
func (f *file) Truncate(size int64) error {
	if err := f.n.Truncate(size); err != nil {
		return err
	}
	f.n.mu.Lock()
	f.n.written(f.creds)
	f.n.mu.Unlock()
	f.Modified()
	return nil
}

// Allocate is fallocate(2) with the modes FALLOC_FL_KEEP_SIZE,
// FALLOC_FL_PUNCH_HOLE and FALLOC_FL_ZERO_RANGE; others are EOPNOTSUPP.
func (f *file) Allocate(mode uint32, off, n int64) error {
	shared := f.n.maps.Any()
	if shared {
		f.n.maps.Flush(f.n, 0, maxFileSize)
	}
	err := f.allocate(mode, off, n)
	if shared {
		f.n.refill(off, n)
	}
	if err == nil {
		f.Modified()
	}
	return err
}

func (f *file) allocate(mode uint32, off, n int64) error {
	d := &f.n.data
	f.n.mu.Lock()
	defer f.n.mu.Unlock()
	if off > maxFileSize-chunkSize-n {
		return unix.EFBIG
	}
	seals := f.n.seals
	switch mode {
	case 0, unix.FALLOC_FL_KEEP_SIZE:
		if off+n > d.size && mode == 0 && seals&unix.F_SEAL_GROW != 0 {
			return unix.EPERM
		}
		if n/pageSize > d.pool.limit {
			return unix.ENOSPC
		}
		if err := d.allocate(off, n); err != nil {
			return err
		}
	case unix.FALLOC_FL_PUNCH_HOLE | unix.FALLOC_FL_KEEP_SIZE, unix.FALLOC_FL_ZERO_RANGE, unix.FALLOC_FL_ZERO_RANGE | unix.FALLOC_FL_KEEP_SIZE:
		if seals&(unix.F_SEAL_WRITE|unix.F_SEAL_FUTURE_WRITE) != 0 {
			return unix.EPERM
		}
		if off < d.size {
			if err := d.punch(off, n); err != nil {
				return err
			}
		}
		if mode&unix.FALLOC_FL_ZERO_RANGE != 0 {
			if n/pageSize > d.pool.limit {
				return unix.ENOSPC
			}
			if err := d.allocate(off, n); err != nil {
				return err
			}
		}
	default:
		return unix.EOPNOTSUPP
	}
	if mode&unix.FALLOC_FL_KEEP_SIZE == 0 {
		d.size = max(d.size, off+n)
	}
	f.n.written(f.creds)
	return nil
}

// Seals and AddSeals are fcntl(2)'s F_GET_SEALS and F_ADD_SEALS; EINVAL unless
// the file came from memfd_create(2).
func (f *file) Seals() (int, error) {
	f.n.mu.Lock()
	defer f.n.mu.Unlock()
	if !f.n.sealable {
		return 0, unix.EINVAL
	}
	return f.n.seals, nil
}

func (f *file) AddSeals(s int) error {
	mapped := f.n.maps.Writable()
	f.n.mu.Lock()
	defer f.n.mu.Unlock()
	const known = unix.F_SEAL_SEAL | unix.F_SEAL_SHRINK | unix.F_SEAL_GROW | unix.F_SEAL_WRITE | unix.F_SEAL_FUTURE_WRITE | unix.F_SEAL_EXEC
	switch {
	case !f.n.sealable || s&^known != 0:
		return unix.EINVAL
	case f.n.seals&unix.F_SEAL_SEAL != 0:
		return unix.EPERM
	case s&unix.F_SEAL_WRITE != 0 && f.n.seals&unix.F_SEAL_WRITE == 0 && mapped:
		return unix.EBUSY
	}
	f.n.seals |= s
	return nil
}
