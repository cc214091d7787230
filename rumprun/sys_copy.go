package rumprun

import (
	"time"

	"golang.org/x/sys/unix"

	"gvisor.dev/gvisor/pkg/waiter"

	"github.com/nabla-build/nabla-build/rumprun/guest"
	"github.com/nabla-build/nabla-build/rumprun/vfs"
)

// copyCalls are the calls that move data from file to file.
var copyCalls = []Call{
	{unix.SYS_SENDFILE, "sendfile", sysSendfile, Full, ""},
	{unix.SYS_COPY_FILE_RANGE, "copy_file_range", sysCopyFileRange, Full, ""},
	{unix.SYS_SPLICE, "splice", sysSplice, Partial, "data is copied; output that is O_NONBLOCK may still wait for data that has left a pipe already"},
	{unix.SYS_TEE, "tee", sysTee, Partial, "data is copied"},
	{unix.SYS_VMSPLICE, "vmsplice", sysVmsplice, Partial, "data is copied; SPLICE_F_GIFT changes nothing"},
}

// copyBuf is how much these calls move at a time.
const copyBuf = 64 << 10

// offsetArg reads the off_t that addr points to; nil pointers are nil.
func (t *Task) offsetArg(addr uintptr) (*int64, error) {
	if addr == 0 {
		return nil, nil
	}
	off, err := copyIn[int64](t, addr)
	if err == nil && off < 0 {
		err = unix.EINVAL
	}
	return &off, err
}

// sysSendfile is sendfile(2).
func sysSendfile(t *Task, a Args) (uintptr, error) {
	in, err := t.fdFor(a.Int(1), false)
	if err != nil {
		return 0, err
	}
	defer in.DecRef()
	out, err := t.fdFor(a.Int(0), true)
	if err != nil {
		return 0, err
	}
	defer out.DecRef()
	off, err := t.offsetArg(a[2])
	if err != nil {
		return 0, err
	}
	if out.StatusFlags()&unix.O_APPEND != 0 {
		return 0, unix.EINVAL
	}
	if int64(a[3]) < 0 {
		return 0, unix.EINVAL
	}
	n, err := t.copyFile(in, out, off, nil, int(min(a[3], maxRW)))
	if off != nil && n > 0 {
		if e := copyOut(t, a[2], *off); e != nil {
			return 0, e
		}
	}
	return uintptr(n), err
}

// copyFile moves up to count bytes from in, which has positions, to out. The
// offsets are used and moved where they are not nil, the positions otherwise.
// Nothing that was not written counts as read.
func (t *Task) copyFile(in, out *Description, inOff, outOff *int64, count int) (int, error) {
	if i := in.inode(); i == nil {
		return 0, unix.EINVAL
	} else if at := i.Attr(); at.IsDir() {
		return 0, unix.EINVAL
	}
	pos := inOff
	if pos == nil {
		cur, err := in.Seek(0, unix.SEEK_CUR)
		if err != nil {
			return 0, unix.EINVAL
		}
		pos = &cur
	}
	buf := make([]byte, min(count, copyBuf))
	done := 0
	var err error
	for done < count {
		var n, w int
		if n, err = in.Pread(buf[:min(len(buf), count-done)], *pos); err != nil || n == 0 {
			break
		}
		if outOff != nil {
			if w, err = out.Pwrite(buf[:n], *outOff); w > 0 {
				*outOff += int64(w)
			}
		} else {
			w, err = t.write(out.File, buf[:n])
		}
		w = max(w, 0)
		done += w
		*pos += int64(w)
		if err != nil || w < n {
			break
		}
		if guest.PreemptPending() {
			yield() // others run, and may send a signal
		}
		if t.signalPending() {
			break
		}
	}
	if inOff == nil && done > 0 {
		in.Seek(*pos, unix.SEEK_SET)
	}
	if done > 0 {
		err = nil
	}
	return done, err
}

// sysCopyFileRange is copy_file_range(2).
func sysCopyFileRange(t *Task, a Args) (uintptr, error) {
	in, err := t.p.fds.Get(a.Int(0))
	if err != nil {
		return 0, err
	}
	defer in.DecRef()
	out, err := t.p.fds.Get(a.Int(2))
	if err != nil {
		return 0, err
	}
	defer out.DecRef()
	inOff, err := t.offsetArg(a[1])
	if err != nil {
		return 0, copyRangeErr(err, inOff, a[4])
	}
	outOff, err := t.offsetArg(a[3])
	if err != nil {
		return 0, copyRangeErr(err, outOff, a[4])
	}
	if a[5] != 0 || int64(a[4]) < 0 {
		return 0, unix.EINVAL
	}
	for _, d := range []*Description{in, out} {
		i := d.inode()
		if i == nil {
			return 0, unix.EINVAL
		}
		if at := i.Attr(); at.IsDir() {
			return 0, unix.EISDIR
		} else if !at.IsRegular() {
			return 0, unix.EINVAL
		}
	}
	fin, fout := in.StatusFlags(), out.StatusFlags()
	if fin&unix.O_ACCMODE == unix.O_WRONLY || fout&unix.O_ACCMODE == unix.O_RDONLY || (fin|fout)&unix.O_PATH != 0 {
		return 0, unix.EBADF
	}
	if out.StatusFlags()&unix.O_APPEND != 0 {
		return 0, unix.EBADF
	}
	count := int64(min(a[4], maxRW))
	if in.inode() == out.inode() {
		from, err := offsetOf(in, inOff)
		if err != nil {
			return 0, err
		}
		to, err := offsetOf(out, outOff)
		if err != nil {
			return 0, err
		}
		if from < to+count && to < from+count {
			return 0, unix.EINVAL
		}
	}
	n, err := t.copyFile(in, out, inOff, outOff, int(count))
	if n > 0 {
		if inOff != nil {
			err = copyOut(t, a[1], *inOff)
		}
		if outOff != nil && err == nil {
			err = copyOut(t, a[3], *outOff)
		}
	}
	return uintptr(n), err
}

// copyRangeErr is copy_file_range's error for a negative offset, which it takes
// for a large one.
func copyRangeErr(err error, off *int64, n uintptr) error {
	if err == unix.EINVAL && uint64(*off)+uint64(n) < uint64(*off) {
		return unix.EOVERFLOW
	}
	return err
}

func offsetOf(d *Description, off *int64) (int64, error) {
	if off != nil {
		return *off, nil
	}
	return d.Seek(0, unix.SEEK_CUR)
}

// isPipe reports whether d is an end of a pipe or FIFO.
func isPipe(d *Description) bool {
	_, ok := d.File.(PipeSizer)
	return ok
}

// samePipe reports whether a and b are ends of one pipe.
func samePipe(a, b *Description) bool {
	p, ok := a.File.(interface{ SamePipe(vfs.File) bool })
	return ok && p.SamePipe(b.File)
}

const spliceFlags = unix.SPLICE_F_MOVE | unix.SPLICE_F_NONBLOCK | unix.SPLICE_F_MORE | unix.SPLICE_F_GIFT

// sysSplice is splice(2). Data is copied.
func sysSplice(t *Task, a Args) (uintptr, error) {
	fl := a.Int(5)
	if a[4] == 0 {
		return 0, nil
	}
	if fl&^spliceFlags != 0 {
		return 0, unix.EINVAL
	}
	in, err := t.fdFor(a.Int(0), false)
	if err != nil {
		return 0, err
	}
	defer in.DecRef()
	out, err := t.fdFor(a.Int(2), true)
	if err != nil {
		return 0, err
	}
	defer out.DecRef()
	pin, pout := isPipe(in), isPipe(out)
	switch {
	case !pin && !pout, samePipe(in, out):
		return 0, unix.EINVAL
	case pin && a[1] != 0, pout && a[3] != 0:
		return 0, unix.ESPIPE
	case out.StatusFlags()&unix.O_APPEND != 0:
		return 0, unix.EINVAL
	}
	inOff, err := t.offsetArg(a[1])
	if err != nil {
		return 0, err
	}
	outOff, err := t.offsetArg(a[3])
	if err != nil {
		return 0, err
	}
	count := int(min(a[4], copyBuf))
	nonblock := fl&unix.SPLICE_F_NONBLOCK != 0
	if nonblock || out.StatusFlags()&unix.O_NONBLOCK != 0 {
		if out.Readiness(waiter.WritableEvents) == 0 {
			return 0, unix.EAGAIN
		}
	}
	buf := make([]byte, count)
	if i := in.inode(); i != nil && !pin {
		// From a file into a pipe: what does not fit stays unread.
		if nonblock {
			pos, err := offsetOf(in, inOff)
			if err != nil {
				return 0, err
			}
			n, err := in.Pread(buf, pos)
			if err != nil || n == 0 {
				return 0, err
			}
			if n, err = out.Write(buf[:n]); err != nil {
				return 0, t.brokenPipe(out.File, err)
			}
			if inOff == nil {
				_, err = in.Seek(pos+int64(n), unix.SEEK_SET)
			} else {
				err = copyOut(t, a[1], pos+int64(n))
			}
			return uintptr(n), err
		}
		n, err := t.copyFile(in, out, inOff, nil, count)
		if n > 0 && inOff != nil {
			err = copyOut(t, a[1], *inOff)
		}
		return uintptr(n), err
	}
	var n int
	if nonblock {
		n, err = in.File.Read(buf)
	} else {
		n, err = t.read(in.File, buf)
	}
	if err != nil || n == 0 {
		return 0, err
	}
	if outOff != nil {
		w, err := out.Pwrite(buf[:n], *outOff)
		if err == nil {
			err = copyOut(t, a[3], *outOff+int64(w))
		}
		return uintptr(max(w, 0)), err
	}
	return t.writeOut(out, buf[:n])
}

// writeOut writes all of b, which has left its source already, waiting even if
// out is O_NONBLOCK.
func (t *Task) writeOut(out *Description, b []byte) (uintptr, error) {
	done := 0
	for done < len(b) {
		n, err := out.File.Write(b[done:])
		if err == nil {
			done += n
			continue
		}
		if err != unix.EAGAIN {
			if done > 0 {
				return uintptr(done), nil
			}
			return 0, t.brokenPipe(out.File, err)
		}
		e, ch := waiter.NewChannelEntry(waiter.WritableEvents | waiter.EventErr | waiter.EventHUp)
		if err := out.EventRegister(&e); err != nil {
			return 0, err
		}
		if out.Readiness(waiter.WritableEvents|waiter.EventErr|waiter.EventHUp) == 0 {
			if err := t.Wait(ch, time.Time{}); err != nil {
				out.EventUnregister(&e)
				if done > 0 {
					return uintptr(done), nil
				}
				return 0, err
			}
		}
		out.EventUnregister(&e)
	}
	return uintptr(done), nil
}

// Peeker is a pipe whose content can be read without taking it: tee(2).
type Peeker interface {
	Peek(p []byte) (int, error)
}

// sysTee is tee(2). Data is copied.
func sysTee(t *Task, a Args) (uintptr, error) {
	fl := a.Int(3)
	if fl&^spliceFlags != 0 {
		return 0, unix.EINVAL
	}
	if a[2] == 0 {
		return 0, nil
	}
	in, err := t.fdFor(a.Int(0), false)
	if err != nil {
		return 0, err
	}
	defer in.DecRef()
	out, err := t.fdFor(a.Int(1), true)
	if err != nil {
		return 0, err
	}
	defer out.DecRef()
	p, ok := in.File.(Peeker)
	if !ok || !isPipe(out) || samePipe(in, out) {
		return 0, unix.EINVAL
	}
	buf := make([]byte, min(a[2], copyBuf))
	var n int
	peek := func() (err error) {
		n, err = p.Peek(buf)
		return err
	}
	if fl&unix.SPLICE_F_NONBLOCK != 0 {
		err = peek()
	} else {
		err = t.Retry(in.File, waiter.ReadableEvents, time.Time{}, peek)
	}
	if err != nil || n == 0 {
		return 0, err
	}
	if fl&unix.SPLICE_F_NONBLOCK != 0 {
		n, err = out.File.Write(buf[:n])
		return uintptr(max(n, 0)), t.brokenPipe(out.File, err)
	}
	n, err = t.write(out.File, buf[:n])
	return uintptr(n), err
}

// sysVmsplice is vmsplice(2): writing memory to a pipe, or reading a pipe into
// memory. Data is copied.
func sysVmsplice(t *Task, a Args) (uintptr, error) {
	if a.Int(3)&^spliceFlags != 0 {
		return 0, unix.EINVAL
	}
	d, err := t.p.fds.Get(a.Int(0))
	if err != nil {
		return 0, err
	}
	defer d.DecRef()
	if !isPipe(d) {
		return 0, unix.EBADF
	}
	reading := d.StatusFlags()&unix.O_ACCMODE == unix.O_RDONLY
	v, err := t.iovecs(a[1], a.Int(2), reading)
	if err != nil {
		return 0, err
	}
	op := func(b []byte, _ int) (int, error) {
		n, err := d.File.Write(b)
		return n, t.brokenPipe(d.File, err)
	}
	switch nonblock := a.Int(3)&unix.SPLICE_F_NONBLOCK != 0; {
	case reading && nonblock:
		op = func(b []byte, _ int) (int, error) { return d.File.Read(b) }
	case reading:
		return t.readv(d, v)
	case !nonblock:
		op = func(b []byte, _ int) (int, error) { return t.write(d.File, b) }
	}
	return vectored(v, op)
}
