package rumprun

import (
	"encoding/binary"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// flockArg is a struct flock.
func flockArg(typ, whence int, start, length int64) []byte {
	var x []byte
	x = binary.LittleEndian.AppendUint16(x, uint16(typ))
	x = binary.LittleEndian.AppendUint16(x, uint16(whence))
	x = binary.LittleEndian.AppendUint32(x, 0)
	x = binary.LittleEndian.AppendUint64(x, uint64(start))
	x = binary.LittleEndian.AppendUint64(x, uint64(length))
	return append(x, make([]byte, 8)...)
}

func TestFcntlAgainstKernel(t *testing.T) {
	b := newBoth(t)
	f := b.open("f", unix.O_RDWR|unix.O_CREAT, 0o644)
	ro := b.open("f", unix.O_RDONLY, 0)
	path := b.open("f", unix.O_PATH, 0)
	dir := b.open(".", unix.O_RDONLY, 0)
	b.call(unix.SYS_WRITE, f, []byte("0123456789"), 10)
	for _, fd := range []fdArg{f, ro, path, dir} {
		for _, cmd := range []int{unix.F_GETFD, unix.F_GETFL, unix.F_GETOWN, unix.F_GETSIG, unix.F_GETPIPE_SZ, unix.F_GET_SEALS, 9999} {
			b.call(unix.SYS_FCNTL, fd, cmd, 0)
		}
		b.call(unix.SYS_FCNTL, fd, unix.F_SETFL, unix.O_NONBLOCK|unix.O_APPEND|unix.O_CREAT)
		b.call(unix.SYS_FCNTL, fd, unix.F_GETFL)
		b.call(unix.SYS_FCNTL, fd, unix.F_SETFL, 0)
		b.call(unix.SYS_FCNTL, fd, unix.F_SETFD, 1)
		b.call(unix.SYS_FCNTL, fd, unix.F_GETFD)
		b.call(unix.SYS_FCNTL, fd, unix.F_SETFD, 2)
		b.call(unix.SYS_FCNTL, fd, unix.F_GETFD)
		b.call(unix.SYS_DUP, fd)
		b.call(unix.SYS_FCNTL, fd, unix.F_DUPFD, -1)
		b.call(unix.SYS_FCNTL, fd, unix.F_DUPFD, 1<<30)
	}
	b.call(unix.SYS_FCNTL, 999, unix.F_GETFD)
	b.call(unix.SYS_DUP, 999)
	b.call(unix.SYS_DUP2, 999, 999)
	b.call(unix.SYS_DUP2, f, -1)
	b.call(unix.SYS_DUP3, f, f, 0)
	b.call(unix.SYS_DUP3, f, 700, 1)
	b.call(unix.SYS_DUP3, f, 700, unix.O_CLOEXEC)
	b.call(unix.SYS_FCNTL, 700, unix.F_GETFD)
	b.call(unix.SYS_FCNTL, 700, unix.F_DUPFD, 701)
	b.call(unix.SYS_FCNTL, 700, unix.F_DUPFD_CLOEXEC, 701)
	b.call(unix.SYS_FCNTL, 702, unix.F_GETFD)
	b.call(unix.SYS_CLOSE_RANGE, 701, 700, 0)
	b.call(unix.SYS_CLOSE_RANGE, 700, 701, 8)
	b.call(unix.SYS_CLOSE_RANGE, 700, 701, unix.CLOSE_RANGE_CLOEXEC)
	b.call(unix.SYS_FCNTL, 701, unix.F_GETFD)
	b.call(unix.SYS_CLOSE_RANGE, 700, 750, 0)
	b.call(unix.SYS_FCNTL, 701, unix.F_GETFD)
	b.call(unix.SYS_CLOSE, 701)
	b.call(unix.SYS_CLOSE, -1)

	// Locks of one process never stand in its own way; those of descriptions
	// do.
	g := b.open("f", unix.O_RDWR, 0)
	for _, typ := range []int{unix.F_RDLCK, unix.F_WRLCK, unix.F_UNLCK, 7} {
		for _, whence := range []int{0, 1, 2, 3} {
			for _, r := range [][2]int64{{0, 0}, {5, 10}, {-3, 2}, {8, -4}, {2, -4}, {1 << 62, 1 << 62}} {
				for _, cmd := range []int{unix.F_SETLK, unix.F_OFD_SETLK, unix.F_GETLK, unix.F_OFD_GETLK} {
					b.call(unix.SYS_FCNTL, f, cmd, flockArg(typ, whence, r[0], r[1]))
					b.call(unix.SYS_FCNTL, ro, cmd, flockArg(typ, whence, r[0], r[1]))
					b.call(unix.SYS_FCNTL, path, cmd, flockArg(typ, whence, r[0], r[1]))
					if cmd == unix.F_OFD_SETLK || cmd == unix.F_OFD_GETLK {
						b.call(unix.SYS_FCNTL, g, cmd, flockArg(typ, whence, r[0], r[1]))
					}
				}
			}
		}
	}
	for _, fd := range []fdArg{f, g, ro, path, dir} {
		for _, op := range []int{unix.LOCK_SH | unix.LOCK_NB, unix.LOCK_EX | unix.LOCK_NB, unix.LOCK_UN, unix.LOCK_SH | unix.LOCK_NB, 0, 16, unix.LOCK_SH | unix.LOCK_EX} {
			b.call(unix.SYS_FLOCK, fd, op)
		}
	}
	b.call(unix.SYS_CLOSE, ro)
	b.call(unix.SYS_FLOCK, f, unix.LOCK_EX|unix.LOCK_NB)
	b.call(unix.SYS_FLOCK, g, unix.LOCK_UN)
	b.call(unix.SYS_FLOCK, f, unix.LOCK_EX|unix.LOCK_NB)

	b.call(unix.SYS_LSEEK, f, 3, unix.SEEK_SET)
	b.call(unix.SYS_IOCTL, f, fionread, outBuf(4))
	b.call(unix.SYS_IOCTL, f, fioclex, 0)
	b.call(unix.SYS_FCNTL, f, unix.F_GETFD)
	b.call(unix.SYS_IOCTL, f, fionclex, 0)
	b.call(unix.SYS_FCNTL, f, unix.F_GETFD)
	b.call(unix.SYS_IOCTL, f, fionbio, []byte{1, 0, 0, 0})
	b.call(unix.SYS_FCNTL, f, unix.F_GETFL)
	b.call(unix.SYS_IOCTL, f, unix.TCGETS, outRaw(64))
	b.call(unix.SYS_IOCTL, path, fionread, outBuf(4))
}

func TestMemfdAgainstKernel(t *testing.T) {
	b := newBoth(t)
	b.call(unix.SYS_MEMFD_CREATE, "name", unix.MFD_ALLOW_SEALING|unix.MFD_EXEC)
	b.call(unix.SYS_MEMFD_CREATE, "", unix.MFD_EXEC)
	b.call(unix.SYS_MEMFD_CREATE, "x", unix.MFD_NOEXEC_SEAL)
	b.call(unix.SYS_MEMFD_CREATE, "x", 0x1000)
	b.call(unix.SYS_MEMFD_CREATE, "x", unix.MFD_NOEXEC_SEAL|unix.MFD_EXEC)
	long := make([]byte, 250)
	for i := range long {
		long[i] = 'n'
	}
	b.call(unix.SYS_MEMFD_CREATE, string(long[:249]), unix.MFD_EXEC)
	b.call(unix.SYS_MEMFD_CREATE, string(long), unix.MFD_EXEC)
	for i := range b.fds {
		f := fdArg(i)
		b.call(unix.SYS_WRITE, f, []byte("0123456789"), 10)
		b.call(unix.SYS_FCNTL, f, unix.F_GET_SEALS)
		for _, seal := range []int{unix.F_SEAL_SHRINK, unix.F_SEAL_GROW, unix.F_SEAL_WRITE, 0x1000, unix.F_SEAL_SEAL, unix.F_SEAL_GROW} {
			b.call(unix.SYS_FCNTL, f, unix.F_ADD_SEALS, seal)
			b.call(unix.SYS_FCNTL, f, unix.F_GET_SEALS)
			b.call(unix.SYS_FTRUNCATE, f, 9)
			b.call(unix.SYS_FTRUNCATE, f, 11)
			b.call(unix.SYS_PWRITE64, f, []byte("xyz"), 3, 8)
			b.call(unix.SYS_PWRITE64, f, []byte("xyz"), 3, 2)
			b.call(unix.SYS_FALLOCATE, f, 0, 0, 100)
			b.call(unix.SYS_FALLOCATE, f, unix.FALLOC_FL_PUNCH_HOLE|unix.FALLOC_FL_KEEP_SIZE, 0, 2)
			b.call(unix.SYS_PREAD64, f, outBuf(128), 128, 0)
		}
	}
}

func TestCopyCallsAgainstKernel(t *testing.T) {
	b := newBoth(t)
	in := b.open("in", unix.O_RDWR|unix.O_CREAT, 0o644)
	out := b.open("out", unix.O_RDWR|unix.O_CREAT, 0o644)
	ro := b.open("in", unix.O_RDONLY, 0)
	app := b.open("out", unix.O_WRONLY|unix.O_APPEND, 0)
	dir := b.open(".", unix.O_RDONLY, 0)
	data := make([]byte, 300000)
	for i := range data {
		data[i] = byte(i * i >> 3)
	}
	b.call(unix.SYS_WRITE, in, data, len(data))
	off := func(n int64) []byte { return binary.LittleEndian.AppendUint64(nil, uint64(n)) }
	b.call(unix.SYS_SENDFILE, out, in, 0, 1000)
	b.call(unix.SYS_LSEEK, in, 10, unix.SEEK_SET)
	b.call(unix.SYS_SENDFILE, out, in, 0, 200000)
	b.call(unix.SYS_LSEEK, in, 0, unix.SEEK_CUR)
	b.call(unix.SYS_SENDFILE, out, in, off(100), 50)
	b.call(unix.SYS_SENDFILE, out, in, off(-1), 50)
	b.call(unix.SYS_SENDFILE, out, in, off(299990), 50)
	b.call(unix.SYS_SENDFILE, out, in, off(400000), 50)
	b.call(unix.SYS_SENDFILE, out, in, uintptr(8), 50)
	b.call(unix.SYS_SENDFILE, app, in, off(0), 50)
	b.call(unix.SYS_SENDFILE, ro, in, off(0), 50)
	b.call(unix.SYS_SENDFILE, out, app, off(0), 50)
	b.call(unix.SYS_SENDFILE, out, dir, 0, 50)
	b.call(unix.SYS_SENDFILE, out, in, 0, -1)
	b.call(unix.SYS_LSEEK, in, 0, unix.SEEK_CUR)
	b.call(unix.SYS_LSEEK, out, 0, unix.SEEK_CUR)
	b.call(unix.SYS_PREAD64, out, outBuf(250000), 250000, 0)

	b.call(unix.SYS_COPY_FILE_RANGE, in, off(5), out, off(70000), 1000, 0)
	b.call(unix.SYS_COPY_FILE_RANGE, in, 0, out, 0, 100, 0)
	b.call(unix.SYS_COPY_FILE_RANGE, in, off(0), out, 0, 100, 1)
	b.call(unix.SYS_COPY_FILE_RANGE, in, off(0), app, 0, 100, 0)
	b.call(unix.SYS_COPY_FILE_RANGE, in, off(0), ro, off(0), 100, 0)
	b.call(unix.SYS_COPY_FILE_RANGE, dir, off(0), out, off(0), 100, 0)
	b.call(unix.SYS_COPY_FILE_RANGE, in, off(0), in, off(50), 100, 0)
	b.call(unix.SYS_COPY_FILE_RANGE, in, off(0), in, off(400000), 100, 0)
	b.call(unix.SYS_COPY_FILE_RANGE, in, off(500000), out, off(0), 100, 0)
	b.call(unix.SYS_COPY_FILE_RANGE, in, off(-5), out, off(0), 100, 0)
	b.call(unix.SYS_PREAD64, out, outBuf(250000), 250000, 0)
	b.call(unix.SYS_LSEEK, in, 0, unix.SEEK_END)
	b.call(unix.SYS_LSEEK, out, 0, unix.SEEK_CUR)
	b.call(unix.SYS_SPLICE, in, 0, out, 0, 100, 0)
	b.call(unix.SYS_TEE, in, out, 100, 0)
}

// TestLockWaits makes sure that a lock that is waited for comes when the other
// owner gives it up, and not before.
func TestLockWaits(t *testing.T) {
	task, mem := newTestTask(t, Config{Dir: "/"})
	c := task.vfsContext()
	open := func() uintptr {
		f, d, err := task.p.fs.ns.Open(c, nil, "/f", unix.O_RDWR|unix.O_CREAT, 0o644, 0)
		if err != nil {
			t.Fatal(err)
		}
		fd, err := task.install(newDescriptionAt(f, d), false)
		if err != nil {
			t.Fatal(err)
		}
		return fd
	}
	a, b := open(), open()
	_ = mem
	if _, err := sysFlock(task, Args{a, unix.LOCK_EX}); err != nil {
		t.Fatal(err)
	}
	got := make(chan error)
	go func() {
		_, err := sysFlock(task, Args{b, unix.LOCK_EX})
		got <- err
	}()
	select {
	case err := <-got:
		t.Fatalf("the second lock did not wait: %v", err)
	case <-time.After(50 * time.Millisecond):
	}
	if err := task.closeFD(int(a)); err != nil {
		t.Fatal(err)
	}
	select {
	case err := <-got:
		if err != nil {
			t.Fatal(err)
		}
	case <-time.After(10 * time.Second):
		t.Fatal("the second lock was not woken by the close of the first")
	}
}

// TestTableSize has the sizes of alloc_fdtable (fs/file.c): select(2) ignores
// the descriptors beyond, even closed ones.
func TestTableSize(t *testing.T) {
	task, mem := newTestTask(t, Config{Dir: "/"})
	selectOne := func(fd int) error {
		var set [128]byte
		set[fd/8] = 1 << (fd % 8)
		if err := copyOut(task, mem, set); err != nil {
			t.Fatal(err)
		}
		if err := copyOut(task, mem+256, [16]byte{}); err != nil {
			t.Fatal(err)
		}
		_, err := sysSelect(task, Args{uintptr(fd + 1), mem, 0, 0, mem + 256})
		return err
	}
	if err := selectOne(200); err != nil {
		t.Errorf("select of 200 with a new table: %v, want no error", err)
	}
	fd, err := task.eventfd(0, 0)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := sysDup2(task, Args{fd, 128}); err != nil {
		t.Fatal(err)
	}
	if err := selectOne(200); err != unix.EBADF {
		t.Errorf("select of 200 after 128 was in use: %v, want EBADF", err)
	}
	if n := task.p.fds.Size(); n != 256 {
		t.Errorf("size %d after 128 was in use, want 256", n)
	}
}
