package rumprun

import (
	"time"

	"golang.org/x/sys/unix"

	"gvisor.dev/gvisor/pkg/waiter"

	"github.com/nabla-build/nabla-build/rumprun/socket"
	"github.com/nabla-build/nabla-build/rumprun/vfs"
)

// fileCalls are the calls that read and write through a descriptor.
var fileCalls = []Call{
	{unix.SYS_READ, "read", sysRead, Full, ""},
	{unix.SYS_WRITE, "write", sysWrite, Full, ""},
	{unix.SYS_PREAD64, "pread64", sysPread64, Full, ""},
	{unix.SYS_PWRITE64, "pwrite64", sysPwrite64, Full, ""},
	{unix.SYS_READV, "readv", sysReadv, Full, ""},
	{unix.SYS_WRITEV, "writev", sysWritev, Full, ""},
	{unix.SYS_PREADV, "preadv", sysPreadv, Full, ""},
	{unix.SYS_PWRITEV, "pwritev", sysPwritev, Full, ""},
	{unix.SYS_PREADV2, "preadv2", sysPreadv2, Partial, "RWF_HIPRI, RWF_DSYNC and RWF_SYNC change nothing; RWF_ATOMIC is EOPNOTSUPP"},
	{unix.SYS_PWRITEV2, "pwritev2", sysPwritev2, Partial, "RWF_HIPRI, RWF_DSYNC and RWF_SYNC change nothing; RWF_ATOMIC is EOPNOTSUPP"},
	{unix.SYS_LSEEK, "lseek", sysLseek, Full, ""},
	{unix.SYS_GETRANDOM, "getrandom", sysGetrandom, Full, ""},
	{unix.SYS_GETDENTS, "getdents", sysGetdents, Full, ""},
	{unix.SYS_GETDENTS64, "getdents64", sysGetdents64, Full, ""},
}

// maxRW is the most that one call transfers (MAX_RW_COUNT).
const maxRW = 0x7ffff000

// fdFor returns the description of fd with a reference, EBADF unless it is
// open for reading (writing, if write).
func (t *Task) fdFor(fd int, write bool) (*Description, error) {
	d, err := t.p.fds.Get(fd)
	if err != nil {
		return nil, err
	}
	fl := d.StatusFlags()
	not := uint32(unix.O_WRONLY)
	if write {
		not = unix.O_RDONLY
	}
	if fl&unix.O_ACCMODE == not || fl&unix.O_PATH != 0 {
		d.DecRef()
		return nil, unix.EBADF
	}
	return d, nil
}

// fdAt is fdFor for the calls that take an offset: a stream is ESPIPE before
// its access mode counts.
func (t *Task) fdAt(fd int, write bool) (*Description, error) {
	d, err := t.fdFor(fd, write)
	if err == nil {
		return d, nil
	}
	if s, e := t.p.fds.Get(fd); e == nil {
		if _, e := s.Seek(0, unix.SEEK_CUR); e == unix.ESPIPE {
			err = unix.ESPIPE
		}
		s.DecRef()
	}
	return nil, err
}

// userBuf returns the guest buffer [addr, addr+n), or the part of it before
// the first page that is not accessible: a transfer that begins well moves
// what it can.
func (t *Task) userBuf(addr uintptr, n uintptr, write bool) ([]byte, error) {
	if n > userEnd || addr > userEnd-n && n > 0 {
		return nil, unix.EFAULT
	}
	n = min(n, maxRW)
	b, err := t.p.as.Bytes(addr, int(n), write)
	if err == nil || n == 0 {
		return b, nil
	}
	lo, hi := 0, int(n) // [addr, addr+lo) is accessible, [addr, addr+hi) is not
	for {
		mid := int((addr+uintptr(lo+(hi-lo)/2))&^4095 - addr)
		if mid <= lo {
			mid = int((addr+uintptr(lo))&^4095 + 4096 - addr)
			if mid >= hi {
				break
			}
		}
		if _, e := t.p.as.Bytes(addr, mid, write); e == nil {
			lo = mid
		} else {
			hi = mid
		}
	}
	if lo == 0 {
		return nil, err
	}
	return t.p.as.Bytes(addr, lo, write)
}

// read reads into b once, waiting until there is something.
func (t *Task) read(f vfs.File, b []byte) (int, error) {
	n, err := f.Read(b)
	if err != unix.EAGAIN {
		return n, err
	}
	switch {
	case len(b) == 0:
		return 0, nil
	case f.StatusFlags()&unix.O_NONBLOCK != 0:
		return 0, err
	}
	return t.readWait(f, b)
}

// readWait is the part of read that waits; apart, so that a read that need not
// wait allocates nothing.
func (t *Task) readWait(f vfs.File, b []byte) (int, error) {
	n := 0
	err := t.Retry(f, waiter.ReadableEvents, time.Time{}, func() (err error) {
		n, err = f.Read(b)
		return err
	})
	return n, err
}

// write writes all of b, waiting for room. What was written before an error or
// a signal counts.
func (t *Task) write(f vfs.File, b []byte) (int, error) {
	n, err := f.Write(b)
	switch {
	case err == nil && n >= len(b):
		return n, nil
	case err != nil && err != unix.EAGAIN, f.StatusFlags()&unix.O_NONBLOCK != 0:
		return n, t.brokenPipe(f, err)
	case err == unix.EAGAIN:
		n = 0
	}
	return t.writeWait(f, b, n)
}

// writeWait is the part of write that waits: n bytes of b have been written.
func (t *Task) writeWait(f vfs.File, b []byte, n int) (int, error) {
	for {
		k := 0
		err := t.Retry(f, waiter.WritableEvents, time.Time{}, func() (err error) {
			k, err = f.Write(b[n:])
			return err
		})
		n += k
		switch {
		case err != nil && n > 0:
			return n, nil
		case err != nil:
			return 0, t.brokenPipe(f, err)
		case k == 0, n >= len(b):
			return n, nil
		}
	}
}

// sysRead is read(2).
func sysRead(t *Task, a Args) (uintptr, error) {
	d, err := t.fdFor(a.Int(0), false)
	if err != nil {
		return 0, err
	}
	defer d.DecRef()
	b, err := t.userBuf(a[1], a[2], true)
	if err != nil {
		return 0, err
	}
	n, err := t.read(d.File, b)
	return uintptr(n), err
}

// sysWrite is write(2).
func sysWrite(t *Task, a Args) (uintptr, error) {
	d, err := t.fdFor(a.Int(0), true)
	if err != nil {
		return 0, err
	}
	defer d.DecRef()
	b, err := t.userBuf(a[1], a[2], false)
	if err != nil {
		return 0, err
	}
	if uintptr(len(b)) < min(a[2], maxRW) && !d.isRegular() {
		// What goes in one piece is not sent in part: pages at most.
		if b = b[:len(b)&^4095]; len(b) == 0 || !isPipe(d) {
			return 0, unix.EFAULT
		}
	}
	n, err := t.write(d.File, b)
	return uintptr(n), err
}

// sysPread64 is pread(2).
func sysPread64(t *Task, a Args) (uintptr, error) {
	if int64(a[3]) < 0 {
		return 0, unix.EINVAL
	}
	d, err := t.fdAt(a.Int(0), false)
	if err != nil {
		return 0, err
	}
	defer d.DecRef()
	b, err := t.userBuf(a[1], a[2], true)
	if err != nil {
		return 0, err
	}
	n, err := d.Pread(b, int64(a[3]))
	return uintptr(n), err
}

// sysPwrite64 is pwrite(2).
func sysPwrite64(t *Task, a Args) (uintptr, error) {
	if int64(a[3]) < 0 {
		return 0, unix.EINVAL
	}
	d, err := t.fdAt(a.Int(0), true)
	if err != nil {
		return 0, err
	}
	defer d.DecRef()
	b, err := t.userBuf(a[1], a[2], false)
	if err != nil {
		return 0, err
	}
	n, err := d.Pwrite(b, int64(a[3]))
	return uintptr(n), err
}

// vectored transfers the buffers one after the other until one comes back
// short. An error counts only if nothing was moved before it.
func vectored(v [][]byte, op func(b []byte, done int) (int, error)) (uintptr, error) {
	done := 0
	for _, b := range v {
		b = b[:min(len(b), maxRW-done)]
		n, err := op(b, done)
		done += n
		if err != nil {
			if done > 0 {
				return uintptr(done), nil
			}
			return 0, err
		}
		if n < len(b) {
			break
		}
	}
	return uintptr(done), nil
}

// VectorReader and VectorWriter are files for which a gather or scatter
// transfer is one unit (datagrams, pipes): readv and writev hand over all
// buffers in one call.
type (
	VectorReader interface {
		Readv(v [][]byte) (int, error)
	}
	VectorWriter interface {
		Writev(v [][]byte) (int, error)
	}
)

// isRegular reports whether d is a regular file, whose transfers never wait.
func (d *Description) isRegular() bool {
	i := d.inode()
	if i == nil {
		return false
	}
	a := i.Attr()
	return a.IsRegular()
}

func (t *Task) readv(d *Description, v [][]byte) (uintptr, error) {
	if len(v) == 1 {
		n, err := t.read(d.File, v[0])
		return uintptr(n), err
	}
	if vr, ok := d.File.(VectorReader); ok && len(v) > 0 {
		var n int
		err := t.Retry(d.File, waiter.ReadableEvents, time.Time{}, func() (err error) {
			n, err = vr.Readv(v)
			return err
		})
		return uintptr(n), err
	}
	if !d.isRegular() && len(v) > 0 {
		// A stream: only the first byte is worth waiting for.
		first := true
		return vectored(v, func(b []byte, _ int) (int, error) {
			if first {
				first = false
				return t.read(d.File, b)
			}
			return d.File.Read(b)
		})
	}
	return vectored(v, func(b []byte, _ int) (int, error) { return t.read(d.File, b) })
}

func (t *Task) writev(d *Description, v [][]byte) (uintptr, error) {
	if len(v) == 1 {
		n, err := t.write(d.File, v[0])
		return uintptr(n), err
	}
	if d.isRegular() {
		return vectored(v, func(b []byte, _ int) (int, error) { return t.write(d.File, b) })
	}
	if vw, ok := d.File.(VectorWriter); ok && len(v) > 0 {
		var n int
		err := t.Retry(d.File, waiter.WritableEvents, time.Time{}, func() (err error) {
			n, err = vw.Writev(v)
			return err
		})
		return uintptr(n), t.brokenPipe(d.File, err)
	}
	// One write, so that a datagram stays one and other writers to a pipe do
	// not come between.
	var all []byte
	for _, b := range v {
		all = append(all, b...)
	}
	n, err := t.write(d.File, all)
	return uintptr(n), err
}

// sysReadv is readv(2).
func sysReadv(t *Task, a Args) (uintptr, error) {
	d, err := t.fdFor(a.Int(0), false)
	if err != nil {
		return 0, err
	}
	defer d.DecRef()
	v, err := t.vector(d, a[1], a.Int(2), true)
	if err != nil {
		return 0, err
	}
	return t.readv(d, v)
}

// sysWritev is writev(2).
func sysWritev(t *Task, a Args) (uintptr, error) {
	d, err := t.fdFor(a.Int(0), true)
	if err != nil {
		return 0, err
	}
	defer d.DecRef()
	v, err := t.vector(d, a[1], a.Int(2), false)
	if err != nil {
		return 0, err
	}
	return t.writev(d, v)
}

// sysPreadv is preadv(2). The offset is in one argument, the second half of it
// is not used on x86-64.
func sysPreadv(t *Task, a Args) (uintptr, error) {
	off := int64(a[3])
	if off < 0 {
		return 0, unix.EINVAL
	}
	d, err := t.fdAt(a.Int(0), false)
	if err != nil {
		return 0, err
	}
	defer d.DecRef()
	v, err := t.vector(d, a[1], a.Int(2), true)
	if err != nil {
		return 0, err
	}
	return vectored(v, func(b []byte, done int) (int, error) { return d.Pread(b, off+int64(done)) })
}

// sysPwritev is pwritev(2).
func sysPwritev(t *Task, a Args) (uintptr, error) {
	off := int64(a[3])
	if off < 0 {
		return 0, unix.EINVAL
	}
	d, err := t.fdAt(a.Int(0), true)
	if err != nil {
		return 0, err
	}
	defer d.DecRef()
	v, err := t.vector(d, a[1], a.Int(2), false)
	if err != nil {
		return 0, err
	}
	return vectored(v, func(b []byte, done int) (int, error) { return d.Pwrite(b, off+int64(done)) })
}

const (
	rwfKnown  = unix.RWF_HIPRI | unix.RWF_DSYNC | unix.RWF_SYNC | unix.RWF_NOWAIT | unix.RWF_APPEND
	offsetCur = ^uintptr(0) // the file position, moving it
)

// sysPreadv2 is preadv2(2). Every file here answers at once, so that
// RWF_HIPRI changes nothing; RWF_NOWAIT makes a stream not wait.
func sysPreadv2(t *Task, a Args) (uintptr, error) {
	if a.Int(5)&^rwfKnown != 0 {
		return 0, unix.EOPNOTSUPP
	}
	if a[3] != offsetCur {
		return sysPreadv(t, a)
	}
	if a.Int(5)&unix.RWF_NOWAIT == 0 {
		return sysReadv(t, a)
	}
	d, err := t.fdFor(a.Int(0), false)
	if err != nil {
		return 0, err
	}
	defer d.DecRef()
	v, err := t.vector(d, a[1], a.Int(2), true)
	if err != nil {
		return 0, err
	}
	return vectored(v, func(b []byte, _ int) (int, error) { return d.File.Read(b) })
}

// sysPwritev2 is pwritev2(2). Content has no storage below it, so that
// RWF_DSYNC and RWF_SYNC hold always.
func sysPwritev2(t *Task, a Args) (uintptr, error) {
	fl := a.Int(5)
	if fl&^rwfKnown != 0 {
		return 0, unix.EOPNOTSUPP
	}
	if fl&unix.RWF_APPEND != 0 {
		return t.appendv(a)
	}
	if a[3] != offsetCur {
		return sysPwritev(t, a)
	}
	if fl&unix.RWF_NOWAIT == 0 {
		return sysWritev(t, a)
	}
	d, err := t.fdFor(a.Int(0), true)
	if err != nil {
		return 0, err
	}
	defer d.DecRef()
	v, err := t.vector(d, a[1], a.Int(2), false)
	if err != nil {
		return 0, err
	}
	return vectored(v, func(b []byte, _ int) (int, error) { return d.File.Write(b) })
}

// appendv writes at the end of the file whatever the offset is; it moves the
// position only if the offset is -1.
func (t *Task) appendv(a Args) (uintptr, error) {
	d, err := t.fdFor(a.Int(0), true)
	if err != nil {
		return 0, err
	}
	defer d.DecRef()
	v, err := t.vector(d, a[1], a.Int(2), false)
	if err != nil {
		return 0, err
	}
	return vectored(v, func(b []byte, _ int) (int, error) {
		st, err := d.Stat()
		if err != nil {
			return 0, err
		}
		n, err := d.Pwrite(b, st.Size)
		if a[3] == offsetCur && n > 0 {
			d.Seek(st.Size+int64(n), unix.SEEK_SET)
		}
		return n, err
	})
}

// sysLseek is lseek(2).
func sysLseek(t *Task, a Args) (uintptr, error) {
	d, err := t.p.fds.Get(a.Int(0))
	if err != nil {
		return 0, err
	}
	defer d.DecRef()
	off, err := d.Seek(int64(a[1]), a.Int(2))
	return uintptr(off), err
}

// sysGetrandom is getrandom(2). The source is seeded before the guest starts:
// GRND_RANDOM, GRND_NONBLOCK and GRND_INSECURE make no difference.
func sysGetrandom(t *Task, a Args) (uintptr, error) {
	fl := a.Int(2)
	if fl&^(unix.GRND_RANDOM|unix.GRND_NONBLOCK|unix.GRND_INSECURE) != 0 ||
		fl&(unix.GRND_RANDOM|unix.GRND_INSECURE) == unix.GRND_RANDOM|unix.GRND_INSECURE {
		return 0, unix.EINVAL
	}
	b, err := t.userBuf(a[0], min(a[1], maxRW), true)
	if err != nil {
		return 0, err
	}
	n, err := t.k.files.entropy.Read(b)
	return uintptr(n), err
}

// brokenPipe makes SIGPIPE pending for t if err, of a write to f, is EPIPE, and
// returns err. A socket of packets is no pipe.
func (t *Task) brokenPipe(f vfs.File, err error) error {
	if err != unix.EPIPE {
		return err
	}
	if s, ok := f.(socket.Socket); ok && s.Kind().Type != unix.SOCK_STREAM {
		return err
	}
	t.raise(unix.SIGPIPE)
	return err
}
