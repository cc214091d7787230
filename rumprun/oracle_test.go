package rumprun

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"os"
	"runtime"
	"slices"
	"strings"
	"testing"
	"unsafe"

	"golang.org/x/sys/unix"

	"github.com/nabla-build/nabla-build/rumprun/guest"
	"github.com/nabla-build/nabla-build/rumprun/mm"
	"github.com/nabla-build/nabla-build/rumprun/vfs"
)

// A both makes each system call twice: on the host's kernel, in a directory on
// a tmpfs, and through the library OS's handler. Result, errno and what was
// written to buffers must be the same.
type both struct {
	t    *testing.T
	task *Task
	mem  uintptr // guest memory for arguments
	used uintptr
	// fds are descriptors: host's and guest's.
	fds [][2]int
	// outs are the buffers of the last call: host's and guest's.
	outs [2][][]byte
}

const testMemory = 16 << 20

// newTestTask makes a task of a booted kernel with an empty root, and
// testMemory bytes of guest memory.
func newTestTask(t testing.TB, cfg Config) (*Task, uintptr) {
	t.Helper()
	b, err := unix.Mmap(-1, 0, 4*testMemory, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_PRIVATE|unix.MAP_ANONYMOUS|unix.MAP_NORESERVE)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { unix.Munmap(b) })
	start := uintptr(unsafe.Pointer(unsafe.SliceData(b)))
	cfg.Memory = []mm.Range{{Start: start, End: start + 4*testMemory}}
	cfg.MemoryLimit = 1 << 30
	cfg.Exit = func(int) {}
	k, err := Boot(cfg)
	if err != nil {
		t.Fatal(err)
	}
	p := k.newProcess(nil)
	p.setSpace(newSpace(k.arena.NewAddressSpace()))
	p.fds = NewFDTable(1024)
	p.fs = newFSContext(k.files.ns, cfg.Dir, vfs.NewCreds(0, 0, nil))
	task := p.newTask(guest.NewContext())
	mem, err := p.as.Map(mm.Mapping{Len: testMemory, Prot: unix.PROT_READ | unix.PROT_WRITE, Flags: unix.MAP_PRIVATE | unix.MAP_ANONYMOUS})
	if err != nil {
		t.Fatal(err)
	}
	return task, mem
}

func newBoth(t *testing.T) *both {
	t.Helper()
	dir, err := os.MkdirTemp("/dev/shm", "oracle")
	if err != nil {
		t.Skip("no tmpfs on /dev/shm:", err)
	}
	os.Chmod(dir, 0o755)
	unix.Umask(0o022)
	t.Cleanup(func() { os.RemoveAll(dir) })
	t.Chdir(dir)
	runtime.LockOSThread()
	t.Cleanup(runtime.UnlockOSThread)
	task, mem := newTestTask(t, Config{Dir: "/"})
	b := &both{t: t, task: task, mem: mem}
	// Relative paths are the same in both; the guest works in a directory of
	// a tmpfs too.
	c := task.vfsContext()
	if err := task.p.fs.ns.Mkdir(c, nil, "/dev/shm/oracle", 0o755); err != nil {
		t.Fatal(err)
	}
	d, err := task.p.fs.ns.Lookup(c, nil, "/dev/shm/oracle", true, 0)
	if err != nil {
		t.Fatal(err)
	}
	task.p.fs.cwd = d
	t.Cleanup(func() {
		for _, f := range b.fds {
			unix.Close(f[0])
		}
	})
	return b
}

// Arguments of both.call besides integers, strings (paths) and []byte (input).
type (
	fdArg  int // index of a descriptor that an earlier call made
	outBuf int // a buffer of that size, whose content is compared
	outRaw int // the same, not compared
)

// vec is an iovec array: inputs, or outputs of these sizes.
type vec []any

func (b *both) alloc(n int) []byte {
	a := (b.used + 15) &^ 15
	if a+uintptr(n) > testMemory {
		b.used, a = 0, 0
	}
	b.used = a + uintptr(n)
	s := unsafe.Slice((*byte)(unsafe.Pointer(b.mem+a)), n)
	clear(s)
	return s
}

func addr(s []byte) uintptr { return uintptr(unsafe.Pointer(unsafe.SliceData(s))) }

// last holds the guest's output buffers of the last call.
type outcome struct {
	n   uintptr
	err error
	out [][]byte
}

// call makes system call nr in both and compares.
func (b *both) call(nr uintptr, args ...any) outcome {
	b.t.Helper()
	var a [2]Args
	var outs [2][][]byte
	var compared []bool
	for i, arg := range args {
		switch v := arg.(type) {
		case int:
			a[0][i], a[1][i] = uintptr(v), uintptr(v)
		case int64:
			a[0][i], a[1][i] = uintptr(v), uintptr(v)
		case uintptr:
			a[0][i], a[1][i] = v, v
		case fdArg:
			a[0][i], a[1][i] = uintptr(b.fds[v][0]), uintptr(b.fds[v][1])
		case string:
			s := b.alloc(len(v) + 1)
			copy(s, v)
			a[0][i], a[1][i] = addr(s), addr(s)
		case []byte:
			// Some calls write to their input: one copy each.
			for k := range a {
				s := b.alloc(len(v))
				copy(s, v)
				a[k][i] = addr(s)
				outs[k] = append(outs[k], s)
			}
			compared = append(compared, true)
		case [2][]byte: // each kernel's own
			for k := range a {
				s := b.alloc(len(v[k]))
				copy(s, v[k])
				a[k][i] = addr(s)
				outs[k] = append(outs[k], s)
			}
			compared = append(compared, false)
		case outBuf, outRaw:
			n, cmp := 0, false
			if o, ok := v.(outBuf); ok {
				n, cmp = int(o), true
			} else {
				n = int(v.(outRaw))
			}
			for k := range a {
				s := b.alloc(n)
				a[k][i] = addr(s)
				outs[k] = append(outs[k], s)
			}
			compared = append(compared, cmp)
		case vec:
			for k := range a {
				iov := b.alloc(16 * len(v))
				for j, e := range v {
					var s []byte
					switch e := e.(type) {
					case string:
						s = b.alloc(len(e))
						copy(s, e)
					case int:
						s = b.alloc(e)
					}
					binary.LittleEndian.PutUint64(iov[16*j:], uint64(addr(s)))
					binary.LittleEndian.PutUint64(iov[16*j+8:], uint64(len(s)))
					outs[k] = append(outs[k], s)
					if k == 0 {
						compared = append(compared, true)
					}
				}
				a[k][i] = addr(iov)
			}
		default:
			b.t.Fatalf("argument %d is a %T", i, arg)
		}
	}
	name := fmt.Sprintf("%s%v", b.task.k.table[nr].Name, args)
	if len(name) > 200 {
		name = name[:200]
	}
	hn, herr := hostCall(nr, a[0])
	gn, err := b.task.k.table[nr].Handler(b.task, a[1])
	var gerr unix.Errno
	if err != nil {
		gerr = err.(unix.Errno)
	}
	if herr != gerr {
		b.t.Errorf("%s: errno %v, want %v", name, gerr, herr)
	}
	switch nr {
	case unix.SYS_OPENAT, unix.SYS_OPENAT2, unix.SYS_OPEN, unix.SYS_CREAT, unix.SYS_DUP, unix.SYS_MEMFD_CREATE,
		unix.SYS_SOCKET, unix.SYS_ACCEPT4, unix.SYS_EPOLL_CREATE1, unix.SYS_EVENTFD2, unix.SYS_TIMERFD_CREATE, unix.SYS_SIGNALFD4:
		if gerr == 0 && herr == 0 {
			b.fds = append(b.fds, [2]int{int(hn), int(gn)})
		}
	case unix.SYS_GETDENTS64, unix.SYS_GETDENTS, unix.SYS_GETCWD:
	default:
		if herr == 0 && gerr == 0 && hn != gn {
			b.t.Errorf("%s: result %#x, want %#x", name, gn, hn)
		}
	}
	for i := range outs[0] {
		if h, g := outs[0][i], outs[1][i]; nr == unix.SYS_FCNTL && len(h) == 32 &&
			binary.LittleEndian.Uint32(h[24:]) == uint32(os.Getpid()) && binary.LittleEndian.Uint32(g[24:]) == uint32(b.task.p.pid) {
			clear(h[24:28]) // l_pid is each one's own
			clear(g[24:28])
		}
		if compared[i] && !bytes.Equal(outs[0][i], outs[1][i]) {
			b.t.Errorf("%s: buffer %d\n got  %x\n want %x", name, i, outs[1][i], outs[0][i])
		}
	}
	b.outs = outs
	return outcome{gn, err, outs[1]}
}

// open opens path in both and returns its index.
func (b *both) open(path string, flags, mode int) fdArg {
	b.t.Helper()
	o := b.call(unix.SYS_OPENAT, atCWD, path, flags, mode)
	if o.err != nil {
		b.t.Fatalf("open %s: %v", path, o.err)
	}
	return fdArg(len(b.fds) - 1)
}

func TestFileCallsAgainstKernel(t *testing.T) {
	b := newBoth(t)
	f := b.open("f", unix.O_RDWR|unix.O_CREAT, 0o644)
	wo := b.open("f", unix.O_WRONLY, 0)
	ro := b.open("f", unix.O_RDONLY, 0)
	path := b.open("f", unix.O_PATH, 0)
	dir := b.open(".", unix.O_RDONLY|unix.O_DIRECTORY, 0)
	bad := uintptr(1 << 20)

	b.call(unix.SYS_WRITE, f, []byte("hello world"), 11)
	b.call(unix.SYS_WRITE, f, bad, 11)
	b.call(unix.SYS_WRITE, f, bad, 0)
	b.call(unix.SYS_WRITE, ro, []byte("x"), 1)
	b.call(unix.SYS_WRITE, path, []byte("x"), 1)
	b.call(unix.SYS_WRITE, dir, []byte("x"), 1)
	b.call(unix.SYS_WRITE, 999, []byte("x"), 1)
	b.call(unix.SYS_WRITE, f, []byte("x"), int64(-1))
	b.call(unix.SYS_READ, wo, outBuf(4), 4)
	b.call(unix.SYS_READ, dir, outBuf(4), 4)
	b.call(unix.SYS_READ, path, outBuf(4), 4)
	b.call(unix.SYS_READ, ro, outBuf(64), 64)
	b.call(unix.SYS_READ, ro, outBuf(64), 64)
	b.call(unix.SYS_PREAD64, ro, outBuf(16), 16, 6)
	b.call(unix.SYS_PREAD64, ro, outBuf(16), 16, -1)
	b.call(unix.SYS_PREAD64, ro, bad, 16, 0)
	b.call(unix.SYS_PREAD64, dir, outBuf(16), 16, 0)
	b.call(unix.SYS_PWRITE64, wo, []byte("XY"), 2, 100)
	b.call(unix.SYS_PWRITE64, wo, []byte("XY"), 2, int64(1<<63-1))
	b.call(unix.SYS_PWRITE64, wo, []byte("XY"), 2, int64(1<<63-2))
	b.call(unix.SYS_READV, ro, vec{3, 0, 5}, 3)
	b.call(unix.SYS_LSEEK, ro, 0, unix.SEEK_SET)
	b.call(unix.SYS_READV, ro, vec{3, 0, 5, 100}, 4)
	b.call(unix.SYS_READV, ro, vec{}, 0)
	b.call(unix.SYS_READV, ro, vec{}, -1)
	b.call(unix.SYS_READV, ro, vec{}, 1025)
	b.call(unix.SYS_WRITEV, f, vec{"ab", "", "cdefg"}, 3)
	b.call(unix.SYS_PREADV, ro, vec{4, 4}, 2, 2, 0)
	b.call(unix.SYS_PREADV, ro, vec{4, 4}, 2, -1, 0)
	b.call(unix.SYS_PWRITEV, f, vec{"12", "34"}, 2, 50, 0)
	b.call(unix.SYS_PREADV2, ro, vec{4, 4}, 2, -1, 0, 0)
	b.call(unix.SYS_PREADV2, ro, vec{4, 4}, 2, 5, 0, 0)
	b.call(unix.SYS_PREADV2, ro, vec{4, 4}, 2, 5, 0, 0x8000)
	b.call(unix.SYS_PWRITEV2, f, vec{"56", "78"}, 2, 0, 0, unix.RWF_APPEND)
	b.call(unix.SYS_LSEEK, f, 0, unix.SEEK_CUR)
	b.call(unix.SYS_PWRITEV2, f, vec{"9"}, 1, -1, 0, unix.RWF_APPEND)
	b.call(unix.SYS_LSEEK, f, 0, unix.SEEK_CUR)
	b.call(unix.SYS_PREAD64, ro, outBuf(200), 200, 0)
	for _, whence := range []int{0, 1, 2, 3, 4, 5, 99} {
		for _, off := range []int{0, -1, 5, 5000} {
			b.call(unix.SYS_LSEEK, f, off, whence)
		}
	}
	b.call(unix.SYS_LSEEK, path, 0, 0)
	b.call(unix.SYS_FTRUNCATE, f, 8192)
	b.call(unix.SYS_FTRUNCATE, ro, 10)
	b.call(unix.SYS_FTRUNCATE, dir, 10)
	b.call(unix.SYS_FTRUNCATE, path, 10)
	b.call(unix.SYS_FTRUNCATE, f, -1)
	b.call(unix.SYS_TRUNCATE, "f", 100)
	b.call(unix.SYS_TRUNCATE, ".", 100)
	b.call(unix.SYS_TRUNCATE, "nope", 100)
	b.call(unix.SYS_TRUNCATE, "f", -1)
	b.call(unix.SYS_TRUNCATE, bad, 1)
	for _, mode := range []int{0, 1, 2, 3, 8, 0x40} {
		b.call(unix.SYS_FALLOCATE, f, mode, 0, 4096)
		b.call(unix.SYS_FALLOCATE, f, mode, -1, 4096)
		b.call(unix.SYS_FALLOCATE, ro, mode, 0, 10)
	}
	b.call(unix.SYS_FALLOCATE, f, 0, 0, 0)
	for _, x := range []fdArg{f, ro, path, dir} {
		b.call(unix.SYS_FSYNC, x)
		b.call(unix.SYS_FDATASYNC, x)
		b.call(unix.SYS_SYNCFS, x)
		b.call(unix.SYS_FADVISE64, x, 0, 0, unix.FADV_DONTNEED)
		b.call(unix.SYS_FADVISE64, x, 0, 0, 99)
	}
	b.call(unix.SYS_READAHEAD, ro, 0, 100)
	b.call(unix.SYS_READAHEAD, wo, 0, 100)
	b.call(unix.SYS_SYNC_FILE_RANGE, f, 0, 0, 7)
	b.call(unix.SYS_SYNC_FILE_RANGE, f, 0, 0, 8)
	b.call(unix.SYS_SYNC_FILE_RANGE, f, -1, 0, 0)

	// A buffer that runs out of memory that is mapped.
	hostEnd, guestEnd := b.edge(4096)
	b.call(unix.SYS_PWRITE64, f, []byte(strings.Repeat("z", 100)), 100, 0)
	hn, _, _ := unix.RawSyscall6(unix.SYS_PREAD64, uintptr(b.fds[ro][0]), hostEnd-40, 100, 0, 0, 0)
	gn, err := sysPread64(b.task, Args{uintptr(b.fds[ro][1]), guestEnd - 40, 100})
	if hn != gn || err != nil {
		t.Errorf("pread into a buffer that ends early: %d, %v; want %d", gn, err, hn)
	}
}

// edge returns addresses behind which nothing is mapped, on the host and for
// the guest.
func (b *both) edge(n int) (host, guest uintptr) {
	b.t.Helper()
	m, err := unix.Mmap(-1, 0, 2*n, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_PRIVATE|unix.MAP_ANONYMOUS)
	if err != nil {
		b.t.Fatal(err)
	}
	if err := unix.Mprotect(m[n:], unix.PROT_NONE); err != nil {
		b.t.Fatal(err)
	}
	as := b.task.p.as
	g, err := as.Map(mm.Mapping{Len: uint64(2 * n), Prot: unix.PROT_READ | unix.PROT_WRITE, Flags: unix.MAP_PRIVATE | unix.MAP_ANONYMOUS})
	if err == nil {
		err = as.Unmap(g+uintptr(n), uint64(n))
	}
	if err != nil {
		b.t.Fatal(err)
	}
	return addr(m) + uintptr(n), g + uintptr(n)
}

// statBuf reads a file's struct stat in both; what must differ is left out.
func (b *both) stat(nr uintptr, args ...any) {
	b.t.Helper()
	for i, a := range args {
		if a == "stat" {
			args[i] = outRaw(144)
		}
	}
	b.call(nr, args...)
}

func TestOpenFlagsAgainstKernel(t *testing.T) {
	b := newBoth(t)
	b.call(unix.SYS_MKDIR, "d", 0o755)
	b.call(unix.SYS_CLOSE, b.open("d/f", unix.O_CREAT|unix.O_WRONLY, 0o600))
	b.call(unix.SYS_SYMLINK, "f", "d/l")
	b.call(unix.SYS_SYMLINK, "../d", "d/up")
	b.call(unix.SYS_SYMLINK, "/", "d/abs")
	b.call(unix.SYS_SYMLINK, "loop", "loop")
	b.call(unix.SYS_SYMLINK, "gone", "dangling")
	d := b.open("d", unix.O_PATH|unix.O_DIRECTORY, 0)
	f := b.open("d/f", unix.O_RDONLY, 0)
	b.fds = b.fds[:len(b.fds):len(b.fds)]
	paths := []string{"d", "d/", "d/f", "d/f/", "d/l", "d/l/", "loop", "dangling", "nope", "nope/", "nope/x", "d/f/x", ".", "..", "", "d/up/f", "d/abs", "d//./f"}
	flags := []int{
		0, unix.O_WRONLY, unix.O_RDWR, unix.O_WRONLY | unix.O_RDWR, unix.O_CREAT | unix.O_EXCL, unix.O_DIRECTORY, unix.O_NOFOLLOW,
		unix.O_NOFOLLOW | unix.O_DIRECTORY, unix.O_PATH, unix.O_PATH | unix.O_NOFOLLOW, unix.O_PATH | unix.O_DIRECTORY,
		unix.O_CREAT | unix.O_DIRECTORY, unix.O_TMPFILE, unix.O_TMPFILE | unix.O_RDWR, unix.O_TMPFILE | unix.O_WRONLY | unix.O_EXCL, unix.O_TRUNC,
	}
	for _, p := range paths {
		for _, fl := range flags {
			b.call(unix.SYS_OPENAT, atCWD, p, fl, 0o600)
			b.call(unix.SYS_OPENAT, d, p, fl&^unix.O_CREAT, 0o600)
			b.call(unix.SYS_UNLINK, "nope")
			b.call(unix.SYS_UNLINK, "gone")
		}
	}
	b.call(unix.SYS_OPENAT, f, "x", 0, 0)
	b.call(unix.SYS_OPENAT, 999, "x", 0, 0)
	b.call(unix.SYS_OPENAT, 999, "/", 0, 0)
	b.call(unix.SYS_OPENAT, atCWD, 0, 0, 0)
	b.call(unix.SYS_OPENAT, atCWD, strings.Repeat("x/", 2100), 0, 0)
	how := func(flags, mode, resolve uint64) []byte {
		h := make([]byte, 24)
		binary.LittleEndian.PutUint64(h, flags)
		binary.LittleEndian.PutUint64(h[8:], mode)
		binary.LittleEndian.PutUint64(h[16:], resolve)
		return h
	}
	for _, p := range []string{"f", "l", "up/f", "abs", "../d/f", "..", ".", "/", "up/../f", "up", "abs/dev"} {
		for _, res := range []uint64{0, unix.RESOLVE_BENEATH, unix.RESOLVE_IN_ROOT, unix.RESOLVE_NO_SYMLINKS, unix.RESOLVE_NO_MAGICLINKS, unix.RESOLVE_BENEATH | unix.RESOLVE_IN_ROOT, 0x1000} {
			b.call(unix.SYS_OPENAT2, d, p, how(unix.O_PATH, 0, res), 24)
		}
	}
	b.call(unix.SYS_OPENAT2, atCWD, "d", how(0, 0, 0), 23)
	b.call(unix.SYS_OPENAT2, atCWD, "d", append(how(0, 0, 0), make([]byte, 8)...), 32)
	b.call(unix.SYS_OPENAT2, atCWD, "d", append(how(0, 0, 0), 1, 0, 0, 0, 0, 0, 0, 0), 32)
	b.call(unix.SYS_OPENAT2, atCWD, "d", how(1<<40, 0, 0), 24)
	b.call(unix.SYS_OPENAT2, atCWD, "d", how(0, 0o600, 0), 24)
	b.call(unix.SYS_OPENAT2, atCWD, "d/g", how(unix.O_CREAT, 0o10000, 0), 24)
	b.call(unix.SYS_OPENAT2, atCWD, "d", how(unix.O_PATH|unix.O_RDWR, 0, 0), 24)

	for i := range b.fds {
		b.call(unix.SYS_FCNTL, fdArg(i), unix.F_GETFL)
		b.call(unix.SYS_FCNTL, fdArg(i), unix.F_GETFD)
	}
}

func TestPathCallsAgainstKernel(t *testing.T) {
	b := newBoth(t)
	b.call(unix.SYS_MKDIR, "d", 0o755)
	f := b.open("f", unix.O_CREAT|unix.O_RDWR, 0o644)
	d := b.open("d", unix.O_RDONLY, 0)
	b.call(unix.SYS_LINKAT, atCWD, "f", atCWD, "g", 0)
	b.call(unix.SYS_LINKAT, f, "", atCWD, "h", unix.AT_EMPTY_PATH)
	b.call(unix.SYS_LINKAT, f, "", atCWD, "i", 0)
	b.call(unix.SYS_LINKAT, atCWD, "f", atCWD, "j", 1)
	b.call(unix.SYS_LINKAT, atCWD, "d", atCWD, "k", 0)
	b.call(unix.SYS_SYMLINKAT, "target", d, "s")
	b.call(unix.SYS_SYMLINKAT, "", d, "s2")
	for _, n := range []int{0, -1, 1, 6, 7, 100} {
		b.call(unix.SYS_READLINKAT, d, "s", outBuf(128), n)
	}
	b.call(unix.SYS_READLINKAT, d, "", outBuf(128), 100)
	b.call(unix.SYS_READLINKAT, atCWD, "f", outBuf(128), 100)
	s := b.open("d/s", unix.O_PATH|unix.O_NOFOLLOW, 0)
	b.call(unix.SYS_READLINKAT, s, "", outBuf(128), 100)
	b.call(unix.SYS_UNLINKAT, atCWD, "d", 0)
	b.call(unix.SYS_UNLINKAT, atCWD, "d", unix.AT_REMOVEDIR)
	b.call(unix.SYS_UNLINKAT, atCWD, "f", unix.AT_REMOVEDIR)
	b.call(unix.SYS_UNLINKAT, atCWD, "f", 1)
	b.call(unix.SYS_RENAMEAT2, atCWD, "f", d, "f2", 0)
	b.call(unix.SYS_RENAMEAT2, d, "f2", atCWD, "g", unix.RENAME_NOREPLACE)
	b.call(unix.SYS_RENAMEAT2, d, "f2", atCWD, "d", 0)
	b.call(unix.SYS_RENAMEAT2, d, "f2", atCWD, "d", unix.RENAME_EXCHANGE)
	b.call(unix.SYS_RENAMEAT2, d, "f2", atCWD, "f3", unix.RENAME_WHITEOUT)
	b.call(unix.SYS_RENAMEAT2, d, "f2", atCWD, "f3", 99)
	b.call(unix.SYS_MKNODAT, atCWD, "fifo", unix.S_IFIFO|0o600, 0)
	b.call(unix.SYS_MKNODAT, atCWD, "sock", unix.S_IFSOCK|0o600, 0)
	b.call(unix.SYS_MKNODAT, atCWD, "dir", unix.S_IFDIR|0o600, 0)
	b.call(unix.SYS_MKNODAT, atCWD, "odd", 0o170000, 0)
	for _, p := range []string{"f", "g", "d", "d/s", "nope", "", "fifo"} {
		for mode := range 9 {
			b.call(unix.SYS_FACCESSAT2, atCWD, p, mode, 0)
			b.call(unix.SYS_FACCESSAT2, atCWD, p, mode, unix.AT_EACCESS|unix.AT_SYMLINK_NOFOLLOW)
		}
	}
	b.call(unix.SYS_FACCESSAT2, f, "", 0, unix.AT_EMPTY_PATH)
	b.call(unix.SYS_FACCESSAT2, f, "", 0, 1)
	b.call(unix.SYS_CHDIR, "g")
	b.call(unix.SYS_CHDIR, "nope")
	b.call(unix.SYS_FCHDIR, f)
	b.call(unix.SYS_FCHMODAT, atCWD, "g", 0o7777)
	b.call(unix.SYS_FCHMODAT2, atCWD, "d/s", 0o700, unix.AT_SYMLINK_NOFOLLOW)
	b.call(unix.SYS_FCHMOD, s, 0o700)
	b.call(unix.SYS_FCHMODAT2, f, "", 0o640, unix.AT_EMPTY_PATH)
	b.call(unix.SYS_FCHOWNAT, f, "", 3, 4, unix.AT_EMPTY_PATH)
	b.call(unix.SYS_LCHOWN, "d/s", 3, 4)
	b.call(unix.SYS_UMASK, 0o27)
	b.call(unix.SYS_UMASK, 0o22)

	ts := func(a, an, m, mn int64) []byte {
		var x []byte
		for _, v := range []int64{a, an, m, mn} {
			x = binary.LittleEndian.AppendUint64(x, uint64(v))
		}
		return x
	}
	b.call(unix.SYS_UTIMENSAT, atCWD, "g", ts(1, 2, 3, 4), 0)
	b.call(unix.SYS_UTIMENSAT, atCWD, "g", ts(1, 1e9, 3, 4), 0)
	b.call(unix.SYS_UTIMENSAT, atCWD, "g", ts(1, unix.UTIME_OMIT, 3, unix.UTIME_OMIT), 0)
	b.call(unix.SYS_UTIMENSAT, atCWD, "nope", ts(1, unix.UTIME_OMIT, 3, unix.UTIME_OMIT), 0)
	b.call(unix.SYS_UTIMENSAT, f, 0, ts(5, 6, 7, unix.UTIME_OMIT), 0)
	b.call(unix.SYS_UTIMENSAT, f, 0, ts(5, 6, 7, 8), unix.AT_SYMLINK_NOFOLLOW)
	b.call(unix.SYS_UTIMENSAT, atCWD, 0, 0, 0)
	b.call(unix.SYS_UTIMENSAT, s, 0, ts(5, 6, 7, 8), 0)
	b.call(unix.SYS_UTIMES, "g", ts(10, 20, 30, 40))
	b.call(unix.SYS_UTIMES, "g", ts(10, 1000000, 30, 40))
	b.call(unix.SYS_UTIME, "g", ts(50, 60, 0, 0))
	b.call(unix.SYS_FUTIMESAT, atCWD, "g", ts(10, 20, 30, 40))

	// struct stat: mode, nlink, owner, size, times as they were set.
	for _, p := range []string{"g", "d", "d/s", "fifo", "sock"} {
		var st [2]unix.Stat_t
		unix.Lstat(p, &st[0])
		o := b.call(unix.SYS_LSTAT, p, outRaw(144))
		st[1] = *(*unix.Stat_t)(unsafe.Pointer(&o.out[0][0]))
		if p == "g" && (st[0].Atim != st[1].Atim || st[0].Mtim != st[1].Mtim) {
			t.Errorf("%s: times %v %v, want %v %v", p, st[1].Atim, st[1].Mtim, st[0].Atim, st[0].Mtim)
		}
		want, got := st[0], st[1]
		for _, x := range []*unix.Stat_t{&want, &got} {
			x.Dev, x.Ino, x.Atim, x.Mtim, x.Ctim = 0, 0, unix.Timespec{}, unix.Timespec{}, unix.Timespec{}
			if x.Mode&unix.S_IFMT == unix.S_IFDIR {
				x.Size = 0
			}
		}
		if got != want {
			t.Errorf("lstat %s:\n got  %+v\n want %+v", p, got, want)
		}
	}
	for _, fl := range []int{0, unix.AT_SYMLINK_NOFOLLOW, unix.AT_EMPTY_PATH, 1, unix.AT_STATX_FORCE_SYNC, unix.AT_STATX_FORCE_SYNC | unix.AT_STATX_DONT_SYNC} {
		b.call(unix.SYS_STATX, atCWD, "g", fl, unix.STATX_ALL, outRaw(256))
		b.call(unix.SYS_STATX, f, "", fl, unix.STATX_ALL, outRaw(256))
		b.call(unix.SYS_NEWFSTATAT, f, "", outRaw(144), fl)
	}
	b.call(unix.SYS_STATX, atCWD, "g", 0, 0x80000000, outRaw(256))

	attr := func(nr uintptr, more ...any) { b.t.Helper(); b.call(nr, more...) }
	attr(unix.SYS_SETXATTR, "g", "user.one", []byte("value"), 5, 0)
	attr(unix.SYS_SETXATTR, "g", "user.one", []byte("value"), 5, unix.XATTR_CREATE)
	attr(unix.SYS_SETXATTR, "g", "user.two", []byte("value"), 5, unix.XATTR_REPLACE)
	attr(unix.SYS_SETXATTR, "g", "user.two", []byte("value"), 5, 9)
	attr(unix.SYS_SETXATTR, "g", strings.Repeat("x", 300), []byte("value"), 5, 0)
	attr(unix.SYS_SETXATTR, "g", "", []byte("value"), 5, 0)
	attr(unix.SYS_SETXATTR, "g", "user.big", []byte("value"), 70000, 0)
	for _, n := range []int{0, 1, 4, 5, 6, 100} {
		attr(unix.SYS_GETXATTR, "g", "user.one", outBuf(128), n)
		attr(unix.SYS_LISTXATTR, "g", outBuf(128), n)
	}
	attr(unix.SYS_FGETXATTR, f, "user.one", outBuf(16), 16)
	attr(unix.SYS_FGETXATTR, s, "user.one", outBuf(16), 16)
	attr(unix.SYS_LGETXATTR, "d/s", "user.one", outBuf(16), 16)
	attr(unix.SYS_LSETXATTR, "d/s", "user.one", []byte("x"), 1, 0)
	attr(unix.SYS_REMOVEXATTR, "g", "user.one")
	attr(unix.SYS_REMOVEXATTR, "g", "user.one")
}

func TestGetdentsAgainstKernel(t *testing.T) {
	b := newBoth(t)
	var want []string
	for i := range 300 {
		name := fmt.Sprintf("file-%d%s", i, strings.Repeat("x", i%40))
		want = append(want, name)
		b.call(unix.SYS_CLOSE, b.open(name, unix.O_CREAT|unix.O_WRONLY, 0o600))
	}
	want = append(want, ".", "..")
	slices.Sort(want)
	d := b.open(".", unix.O_RDONLY|unix.O_DIRECTORY, 0)
	f := b.open("file-0", unix.O_RDONLY, 0)
	b.call(unix.SYS_GETDENTS64, f, outRaw(1000), 1000)
	b.call(unix.SYS_GETDENTS64, d, outRaw(8), 8)
	for _, nr := range []uintptr{unix.SYS_GETDENTS64, unix.SYS_GETDENTS} {
		b.call(unix.SYS_LSEEK, d, 0, unix.SEEK_SET)
		var got []string
		buf := b.alloc(1024)
		at := make(map[string]int64)
		var prev int64
		for {
			n, err := b.task.k.table[nr].Handler(b.task, Args{uintptr(b.fds[d][1]), addr(buf), uintptr(len(buf))})
			if err != nil {
				t.Fatal(err)
			}
			if n == 0 {
				break
			}
			for r := buf[:n]; len(r) > 0; {
				size := binary.LittleEndian.Uint16(r[16:])
				name, typ := r[19:size], r[18]
				if nr == unix.SYS_GETDENTS {
					name, typ = r[18:size], r[size-1]
				}
				name = name[:bytes.IndexByte(name, 0)]
				if wantType := map[bool]byte{true: unix.DT_DIR, false: unix.DT_REG}[name[0] == '.']; typ != wantType {
					t.Errorf("%s has type %d", name, typ)
				}
				at[string(name)] = prev
				prev = int64(binary.LittleEndian.Uint64(r[8:]))
				got = append(got, string(name))
				if len(got) == 100 {
					// What goes and comes meanwhile must not disturb the rest.
					b.call(unix.SYS_UNLINK, "file-299"+strings.Repeat("x", 299%40))
					b.call(unix.SYS_CLOSE, b.open("new", unix.O_CREAT|unix.O_WRONLY, 0o600))
				}
				r = r[size:]
			}
		}
		slices.Sort(got)
		got = slices.DeleteFunc(got, func(s string) bool { return s == "new" || strings.HasPrefix(s, "file-299") })
		expect := slices.DeleteFunc(slices.Clone(want), func(s string) bool { return strings.HasPrefix(s, "file-299") })
		if !slices.Equal(got, expect) {
			t.Errorf("call %d lists %d names, want %d", nr, len(got), len(expect))
		}
		// seekdir(3) to each entry.
		for name, off := range at {
			if name == "new" {
				continue
			}
			if _, err := sysLseek(b.task, Args{uintptr(b.fds[d][1]), uintptr(off), unix.SEEK_SET}); err != nil {
				t.Fatal(err)
			}
			n, err := b.task.k.table[unix.SYS_GETDENTS64].Handler(b.task, Args{uintptr(b.fds[d][1]), addr(buf), 1024})
			if err != nil || !bytes.HasPrefix(buf[19:max(n, 19)], []byte(name)) {
				t.Fatalf("seek to %s: %d bytes, %v", name, n, err)
			}
		}
	}
}

// hostCall makes a call on the host with every signal blocked: the Go runtime's
// own (SIGURG, to preempt) cut long transfers short.
func hostCall(nr uintptr, a Args) (uintptr, unix.Errno) {
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	var old unix.Sigset_t
	all := unix.Sigset_t{Val: [16]uint64{^uint64(0)}}
	if err := unix.PthreadSigmask(unix.SIG_SETMASK, &all, &old); err != nil {
		panic(err)
	}
	defer unix.PthreadSigmask(unix.SIG_SETMASK, &old, nil)
	n, _, e := unix.RawSyscall6(nr, a[0], a[1], a[2], a[3], a[4], a[5])
	return n, e
}
