package memfs_test

import (
	"bytes"
	"flag"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"path"
	"runtime"
	"slices"
	"strings"
	"testing"
	"unsafe"

	"golang.org/x/sys/unix"

	"github.com/nabla-build/nabla-build/archive"
	"github.com/nabla-build/nabla-build/rumprun/vfs"
	"github.com/nabla-build/nabla-build/rumprun/vfs/memfs"
)

// The Linux kernel is the oracle: every operation is made in a directory of a
// real tmpfs and in a file system of this package, and must have the same
// result there.

// op is one operation. fd counts open files, oldest first.
type op struct {
	call  string
	path  string
	path2 string
	fd    int
	flags int
	mode  uint32
	off   int64
	n     int64
	data  string
}

func (o op) String() string {
	return fmt.Sprintf("%s(%q, %q, fd %d, flags %#x, mode %#o, off %d, n %d, %d bytes)", o.call, o.path, o.path2, o.fd, o.flags, o.mode, o.off, o.n, len(o.data))
}

// result is what an operation answered, in one line.
func result(v any, err error) string {
	if err != nil {
		return unix.ErrnoName(err.(unix.Errno))
	}
	return fmt.Sprint(v)
}

type target interface {
	do(o op) string
	// dump lists the whole tree with attributes and content.
	dump() string
	close()
}

// attrs says what of a struct stat must be the same.
func attrs(st *unix.Stat_t, layers bool) string {
	s := fmt.Sprintf("mode %o uid %d gid %d", st.Mode, st.Uid, st.Gid)
	if st.Mode&unix.S_IFMT != unix.S_IFDIR {
		s += fmt.Sprintf(" size %d", st.Size)
		if !layers {
			// A layer's file counts the names that it has in its layer, even
			// where a higher layer hides one.
			s += fmt.Sprintf(" nlink %d", st.Nlink)
		}
		if !layers && st.Mode&unix.S_IFMT == unix.S_IFREG {
			s += fmt.Sprintf(" blocks %d", st.Blocks)
		}
	} else if !layers {
		s += fmt.Sprintf(" nlink %d", st.Nlink)
	}
	return s
}

// native makes the operations in a directory of the host.
type native struct {
	t      testing.TB
	dir    int
	root   string
	fds    []int
	layers bool
}

func newNative(t testing.TB, layers bool) *native {
	root, err := os.MkdirTemp("/dev/shm", "oracle")
	if err != nil {
		t.Skip("no tmpfs on /dev/shm:", err)
	}
	unix.Umask(0o022)
	os.Chmod(root, 0o755)
	if err := os.MkdirAll(root+deep, 0o755); err != nil {
		t.Fatal(err)
	}
	dir, err := unix.Open(root+deep, unix.O_PATH|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	// Some calls have no form that takes a directory.
	if err := unix.Fchdir(dir); err != nil {
		t.Fatal(err)
	}
	return &native{t: t, dir: dir, root: root, layers: layers}
}

func (n *native) close() {
	for _, fd := range n.fds {
		unix.Close(fd)
	}
	unix.Close(n.dir)
	os.RemoveAll(n.root)
}

func (n *native) fd(o op) int {
	if len(n.fds) == 0 {
		return -1
	}
	return n.fds[o.fd%len(n.fds)]
}

func (n *native) do(o op) string {
	fd := n.fd(o)
	switch o.call {
	case "close", "read", "pread", "write", "pwrite", "lseek", "ftruncate", "fallocate", "fstat", "list":
		var st unix.Stat_t
		if fd < 0 {
			return "none"
		} else if unix.Fstat(fd, &st); st.Mode&unix.S_IFMT == unix.S_IFIFO && o.call != "close" && o.call != "fstat" {
			return "fifo"
		}
	}
	switch o.call {
	case "open":
		fd, err := unix.Openat(n.dir, o.path, o.flags|unix.O_CLOEXEC|unix.O_NONBLOCK, o.mode)
		if err == nil {
			n.fds = append(n.fds, fd)
		}
		return result("", err)
	case "close":
		i := slices.Index(n.fds, fd)
		n.fds = slices.Delete(n.fds, i, i+1)
		return result("", unix.Close(fd))
	case "read":
		b := make([]byte, o.n)
		k, err := unix.Read(fd, b)
		return result(compress(b[:max(k, 0)]), err)
	case "pread":
		b := make([]byte, o.n)
		k, err := unix.Pread(fd, b, o.off)
		return result(compress(b[:max(k, 0)]), err)
	case "write":
		k, err := unix.Write(fd, []byte(o.data))
		return result(k, err)
	case "pwrite":
		k, err := unix.Pwrite(fd, []byte(o.data), o.off)
		return result(k, err)
	case "lseek":
		k, err := unix.Seek(fd, o.off, o.flags)
		if err == nil && n.isDir(fd) {
			return "dir"
		}
		return result(k, err)
	case "ftruncate":
		return result("", unix.Ftruncate(fd, o.n))
	case "fallocate":
		return result("", unix.Fallocate(fd, uint32(o.flags), o.off, o.n))
	case "fstat":
		var st unix.Stat_t
		err := unix.Fstat(fd, &st)
		return result(attrs(&st, n.layers), err)
	case "list":
		f, err := unix.Openat(fd, ".", unix.O_RDONLY|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
		if err != nil {
			return result("", err)
		}
		d := os.NewFile(uintptr(f), "")
		names, _ := d.Readdirnames(-1)
		d.Close()
		slices.Sort(names)
		return strings.Join(names, " ")
	case "mkdir":
		return result("", unix.Mkdirat(n.dir, o.path, o.mode))
	case "rmdir":
		return result("", unix.Unlinkat(n.dir, o.path, unix.AT_REMOVEDIR))
	case "unlink":
		return result("", unix.Unlinkat(n.dir, o.path, 0))
	case "rename":
		return result("", unix.Renameat2(n.dir, o.path, n.dir, o.path2, uint(o.flags)))
	case "link":
		return result("", unix.Linkat(n.dir, o.path, n.dir, o.path2, o.flags))
	case "symlink":
		return result("", unix.Symlinkat(o.path2, n.dir, o.path))
	case "mknod":
		return result("", unix.Mknodat(n.dir, o.path, o.mode, 0))
	case "chmod":
		return result("", unix.Fchmodat(n.dir, o.path, o.mode, 0))
	case "chown":
		return result("", unix.Fchownat(n.dir, o.path, int(o.off), int(o.n), o.flags))
	case "truncate":
		return result("", unix.Truncate(o.path, o.n))
	case "stat":
		var st unix.Stat_t
		err := unix.Fstatat(n.dir, o.path, &st, o.flags)
		return result(attrs(&st, n.layers), err)
	case "readlink":
		b := make([]byte, 5000)
		k, err := unix.Readlinkat(n.dir, o.path, b)
		return result(string(b[:max(k, 0)]), err)
	case "access":
		return result("", unix.Faccessat2(n.dir, o.path, o.mode, 0))
	case "setxattr":
		return result("", unix.Lsetxattr(o.path, o.path2, []byte(o.data), o.flags))
	case "getxattr":
		b := make([]byte, 100)
		k, err := unix.Lgetxattr(o.path, o.path2, b)
		return result(string(b[:max(k, 0)]), err)
	case "removexattr":
		return result("", unix.Lremovexattr(o.path, o.path2))
	case "listxattr":
		b := make([]byte, 1000)
		k, err := unix.Llistxattr(o.path, b)
		l := strings.Split(string(b[:max(k, 0)]), "\x00")
		slices.Sort(l)
		return result(l, err)
	}
	panic(o.call)
}

func (n *native) isDir(fd int) bool {
	var st unix.Stat_t
	return unix.Fstat(fd, &st) == nil && st.Mode&unix.S_IFMT == unix.S_IFDIR
}

func (n *native) dump() string {
	var b strings.Builder
	var walk func(dir string)
	walk = func(dir string) {
		ents, err := os.ReadDir(n.root + "/" + dir)
		if err != nil {
			fmt.Fprintf(&b, "%s: %v\n", dir, err.(*os.PathError).Err)
			return
		}
		for _, e := range ents {
			p := path.Join(dir, e.Name())
			var st unix.Stat_t
			unix.Lstat(n.root+"/"+p, &st)
			fmt.Fprintf(&b, "%s: %s", p, attrs(&st, n.layers))
			switch st.Mode & unix.S_IFMT {
			case unix.S_IFDIR:
				b.WriteByte('\n')
				walk(p)
				continue
			case unix.S_IFREG:
				c, _ := os.ReadFile(n.root + "/" + p)
				fmt.Fprintf(&b, " %q", compress(c))
			case unix.S_IFLNK:
				l, _ := os.Readlink(n.root + "/" + p)
				fmt.Fprintf(&b, " -> %s", l)
			}
			b.WriteByte('\n')
		}
	}
	walk(".")
	return b.String()
}

// compress shortens runs of one byte.
func compress(b []byte) string {
	var out strings.Builder
	for len(b) > 0 {
		n := 1
		for n < len(b) && b[n] == b[0] {
			n++
		}
		if n > 8 {
			fmt.Fprintf(&out, "<%d*%d>", n, b[0])
		} else {
			out.Write(b[:n])
		}
		b = b[n:]
	}
	return out.String()
}

// ours makes them in a file system of this package.
type ours struct {
	ns     *vfs.Namespace
	c      *vfs.Context
	fds    []openFile
	layers bool
}

type openFile struct {
	vfs.File
	d    *vfs.Dentry
	user bool // opened by the user
}

// fifo stands for a pipe: the tests never move data through it.
type fifo struct{ readers int }

type fifoEnd struct {
	vfs.Base
	p      *fifo
	reader bool
}

func (*fifoEnd) Stat() (unix.Stat_t, error) { return unix.Stat_t{}, nil }

func (e *fifoEnd) Release() {
	if e.reader {
		e.p.readers--
	}
}

func (p *fifo) OpenFIFO(flags uint32) (vfs.File, error) {
	e := &fifoEnd{p: p, reader: flags&unix.O_ACCMODE != unix.O_WRONLY}
	if e.reader {
		p.readers++
	} else if p.readers == 0 {
		return nil, unix.ENXIO
	}
	return e, nil
}

func newOurs(layers ...*archive.Reader) *ours {
	root := memfs.New(memfs.Options{Layers: layers, Dev: 1, Limit: 1 << 30, FIFO: func() memfs.FIFO { return new(fifo) }})
	u := &ours{
		ns: vfs.NewNamespace(root), c: &vfs.Context{Creds: vfs.NewCreds(0, 0, nil), Umask: 0o022}, layers: len(layers) > 0,
	}
	if err := u.ns.MkdirAll(u.c, deep, 0o755); err != nil {
		panic(err)
	}
	cwd, err := u.ns.Lookup(u.c, nil, deep, true, 0)
	if err != nil {
		panic(err)
	}
	u.c.Cwd = cwd
	return u
}

// deep is the working directory: ".." does not lead out of the test.
const deep = "/1/2/3/4/5/6/7/8"

func (u *ours) close() {
	for _, f := range u.fds {
		f.Release()
	}
}

func (u *ours) inode(p string, follow bool) (vfs.Inode, error) {
	d, err := u.ns.Lookup(u.c, nil, p, follow, 0)
	if err != nil {
		return nil, err
	}
	return d.Inode(), nil
}

func (u *ours) do(o op) string {
	var f openFile
	switch o.call {
	case "close", "read", "pread", "write", "pwrite", "lseek", "ftruncate", "fallocate", "fstat", "list":
		if len(u.fds) == 0 {
			return "none"
		}
		f = u.fds[o.fd%len(u.fds)]
		if a := f.d.Inode().Attr(); a.Type() == unix.S_IFIFO && o.call != "close" && o.call != "fstat" {
			return "fifo"
		}
	}
	mayRead := f.File != nil && f.StatusFlags()&unix.O_ACCMODE != unix.O_WRONLY
	mayWrite := f.File != nil && f.StatusFlags()&unix.O_ACCMODE != unix.O_RDONLY
	switch o.call {
	case "open":
		file, d, err := u.ns.Open(u.c, nil, o.path, uint32(o.flags|unix.O_NONBLOCK), o.mode, 0)
		if err == nil {
			u.fds = append(u.fds, openFile{file, d, !u.c.Creds.Privileged()})
		}
		return result("", err)
	case "close":
		i := o.fd % len(u.fds)
		u.fds = slices.Delete(u.fds, i, i+1)
		f.Release()
		return result("", nil)
	case "read", "pread":
		if !mayRead {
			return "EBADF"
		}
		b := make([]byte, o.n)
		var k int
		var err error
		if o.call == "read" {
			k, err = f.Read(b)
		} else if o.off < 0 {
			err = unix.EINVAL
		} else {
			k, err = f.Pread(b, o.off)
		}
		return result(compress(b[:k]), err)
	case "write", "pwrite":
		if !mayWrite {
			return "EBADF"
		}
		var k int
		var err error
		if o.call == "write" {
			k, err = f.Write([]byte(o.data))
		} else {
			k, err = f.Pwrite([]byte(o.data), o.off)
		}
		return result(k, err)
	case "lseek":
		k, err := f.Seek(o.off, o.flags)
		if a := f.d.Inode().Attr(); err == nil && a.IsDir() {
			return "dir"
		}
		return result(k, err)
	case "ftruncate":
		s, ok := f.File.(vfs.Sized)
		if !ok || !mayWrite || o.n < 0 {
			return "EINVAL"
		}
		return result("", s.Truncate(o.n))
	case "fallocate":
		s, ok := f.File.(vfs.Sized)
		if o.off < 0 || o.n <= 0 {
			return "EINVAL"
		}
		if !mayWrite || !ok {
			return "EBADF"
		}
		return result("", s.Allocate(uint32(o.flags), o.off, o.n))
	case "fstat":
		a := f.d.Inode().Attr()
		st := a.Stat()
		return result(attrs(&st, u.layers), nil)
	case "list":
		dir, d, err := u.ns.Open(u.c, f.d, ".", unix.O_RDONLY|unix.O_DIRECTORY, 0, 0)
		_ = d
		if err != nil {
			return result("", err)
		}
		return strings.Join(names(dir), " ")
	case "mkdir":
		return result("", u.ns.Mkdir(u.c, nil, o.path, o.mode))
	case "rmdir":
		return result("", u.ns.Rmdir(u.c, nil, o.path))
	case "unlink":
		return result("", u.ns.Unlink(u.c, nil, o.path))
	case "rename":
		return result("", u.ns.Rename(u.c, nil, o.path, nil, o.path2, uint(o.flags)))
	case "link":
		d, err := u.ns.Lookup(u.c, nil, o.path, o.flags&unix.AT_SYMLINK_FOLLOW != 0, 0)
		if err != nil {
			return result("", err)
		}
		return result("", u.ns.Link(u.c, d, nil, o.path2))
	case "symlink":
		return result("", u.ns.Symlink(u.c, o.path2, nil, o.path))
	case "mknod":
		_, err := u.ns.Mknod(u.c, nil, o.path, o.mode, 0)
		return result("", err)
	case "chmod", "chown", "truncate", "stat", "readlink", "access", "setxattr", "getxattr", "removexattr", "listxattr":
		return u.onInode(o)
	}
	panic(o.call)
}

func (u *ours) onInode(o op) string {
	follow := true
	switch o.call {
	case "readlink", "setxattr", "getxattr", "removexattr", "listxattr":
		follow = false
	case "stat", "chown":
		follow = o.flags&unix.AT_SYMLINK_NOFOLLOW == 0
	case "truncate":
		if o.n < 0 {
			return "EINVAL"
		}
	}
	i, err := u.inode(o.path, follow)
	if err != nil {
		return result("", err)
	}
	switch o.call {
	case "chmod":
		return result("", vfs.Chmod(u.c, i, o.mode))
	case "chown":
		return result("", vfs.Chown(u.c, i, uint32(o.off), uint32(o.n)))
	case "truncate":
		return result("", vfs.Truncate(u.c, i, o.n))
	case "stat":
		a := i.Attr()
		st := a.Stat()
		return attrs(&st, u.layers)
	case "readlink":
		l, err := i.Readlink(u.c)
		return result(l, err)
	case "access":
		return result("", vfs.Permission(u.c, i, vfs.Access(o.mode)))
	case "setxattr":
		return result("", vfs.SetXattr(u.c, i, o.path2, []byte(o.data), o.flags))
	case "getxattr":
		v, err := vfs.GetXattr(u.c, i, o.path2)
		return result(string(v), err)
	case "removexattr":
		return result("", vfs.RemoveXattr(u.c, i, o.path2))
	case "listxattr":
		l, err := vfs.ListXattr(u.c, i)
		l = append(l, "")
		slices.Sort(l)
		return result(l, err)
	}
	panic(o.call)
}

// names lists an open directory, sorted, without "." and "..".
func names(f vfs.File) []string {
	var out []string
	f.(*vfs.DirFile).ReadDir(func(e vfs.DirEntry, _ int64) bool {
		if e.Name != "." && e.Name != ".." {
			out = append(out, e.Name)
		}
		return true
	})
	slices.Sort(out)
	return out
}

func (u *ours) dump() string {
	var b strings.Builder
	var walk func(dir string)
	walk = func(dir string) {
		f, _, err := u.ns.Open(u.c, nil, "/"+dir, unix.O_RDONLY|unix.O_DIRECTORY, 0, 0)
		if err != nil {
			fmt.Fprintf(&b, "%s: %v\n", dir, err)
			return
		}
		for _, name := range names(f) {
			p := path.Join(dir, name)
			i, err := u.inode("/"+p, false)
			if err != nil {
				fmt.Fprintf(&b, "%s is listed but %v\n", p, err)
				continue
			}
			a := i.Attr()
			st := a.Stat()
			fmt.Fprintf(&b, "%s: %s", p, attrs(&st, u.layers))
			switch st.Mode & unix.S_IFMT {
			case unix.S_IFDIR:
				b.WriteByte('\n')
				walk(p)
				continue
			case unix.S_IFREG:
				fmt.Fprintf(&b, " %q", compress(u.content("/"+p)))
			case unix.S_IFLNK:
				l, _ := i.Readlink(u.c)
				fmt.Fprintf(&b, " -> %s", l)
			}
			b.WriteByte('\n')
		}
	}
	walk(".")
	return b.String()
}

func (u *ours) content(p string) []byte {
	f, _, err := u.ns.Open(u.c, nil, p, unix.O_RDONLY, 0, 0)
	if err != nil {
		return []byte(err.Error())
	}
	defer f.Release()
	var b bytes.Buffer
	io.Copy(&b, reader{f})
	return b.Bytes()
}

// reader makes an io.Reader of a File.
type reader struct{ vfs.File }

func (r reader) Read(p []byte) (int, error) {
	n, err := r.File.Read(p)
	if n == 0 && err == nil {
		err = io.EOF
	}
	return n, err
}

// eachStep compares the trees after each operation: slow, but it finds the
// operation that went wrong rather than the first that shows it.
var eachStep = flag.Bool("eachstep", false, "compare the trees after each operation")

// compare makes ops in both and stops at the first difference.
func compare(t *testing.T, a, b target, ops []op) {
	t.Helper()
	for i, o := range ops {
		want, got := a.do(o), b.do(o)
		if *eachStep && got == want {
			want, got = a.dump(), b.dump()
		}
		if got != want {
			var trail strings.Builder
			for _, p := range ops[max(0, i-12):i] {
				fmt.Fprintln(&trail, " ", p)
			}
			t.Fatalf("operation %d %v\n got  %s\n want %s\nafter\n%s\ntree here:\n%s\ntree natively:\n%s", i, o, short(got), short(want), trail.String(), b.dump(), a.dump())
		}
	}
	if want, got := a.dump(), b.dump(); got != want {
		t.Fatalf("trees differ\n got\n%s\n want\n%s", got, want)
	}
}

func short(s string) string {
	if len(s) > 400 {
		return s[:400] + "..."
	}
	return s
}

func pick[T any](r *rand.Rand, from ...T) T { return from[r.IntN(len(from))] }

// randomPath makes a path of a small universe, so that operations meet.
func randomPath(r *rand.Rand) string {
	parts := []string{"a", "b", "c", "d", "e"}
	p := pick(r, parts...)
	for r.IntN(3) == 0 {
		p += pick(r, "/", "/", "/", "//", "/./", "/../") + pick(r, parts...)
	}
	if r.IntN(12) == 0 {
		p += pick(r, "/", "/.", "/..", "//")
	}
	if r.IntN(200) == 0 {
		p = pick(r, "", ".", "..", "/", strings.Repeat("x", 256), strings.Repeat("x", 255), strings.Repeat("a/", 2048))
	}
	if strings.Count(p, "..") > 4 {
		return "a"
	}
	if strings.HasPrefix(p, "/") {
		return "."
	}
	return p
}

func randomData(r *rand.Rand) string {
	n := pick(r, 1, 10, 100, 4095, 4096, 4097, 20000, 65536, 70000)
	return strings.Repeat(string(rune('a'+r.IntN(26))), r.IntN(n)+1)
}

func randomOffset(r *rand.Rand) int64 {
	base := pick[int64](r, 0, 0, 4096, 8192, 65536, 131072, 1<<20)
	return max(0, base+pick[int64](r, 0, 0, 1, -1, 100, int64(r.IntN(5000))))
}

func TestRandomOperationsAsUser(t *testing.T) {
	if os.Getuid() != 0 {
		t.Skip("changing the user needs root")
	}
	runs := 150
	if testing.Short() {
		runs = 20
	}
	// The credentials of one thread change; it ends with the test.
	runtime.LockOSThread()
	for seed := range uint64(runs) {
		r := rand.New(rand.NewPCG(seed, 3))
		a, b := newNative(t, false), newOurs()
		// Half of the operations are user 5's (group 7, and group 9), the rest
		// root's.
		user := vfs.NewCreds(5, 7, []uint32{9})
		root := b.c.Creds
		groups := []uint32{9}
		step := func(o op) bool {
			isUser := r.IntN(2) == 0
			if n := len(b.fds); n > 0 {
				switch o.call {
				case "write", "pwrite", "ftruncate", "fallocate":
					// A write takes set-ID bits away: here by the rights of
					// the opener, on Linux by the writer's.
					isUser = b.fds[o.fd%n].user
				}
			}
			b.c.Creds = root
			if isUser {
				b.c.Creds = user
				unix.RawSyscall(unix.SYS_SETGROUPS, 1, uintptr(unsafe.Pointer(&groups[0])), 0)
				unix.RawSyscall(unix.SYS_SETFSGID, 7, 0, 0)
				unix.RawSyscall(unix.SYS_SETFSUID, 5, 0, 0)
			}
			want := a.do(o)
			if isUser {
				unix.RawSyscall(unix.SYS_SETFSUID, 0, 0, 0)
				unix.RawSyscall(unix.SYS_SETFSGID, 0, 0, 0)
			}
			got := b.do(o)
			b.c.Creds = root
			if got != want {
				t.Errorf("seed %d, user %v: %v\n got  %s\n want %s\ntree:\n%s", seed, isUser, o, short(got), short(want), a.dump())
			}
			return got == want
		}
		for range 300 {
			o := randomOp(r)
			switch o.call {
			case "access": // checks the real user
				continue
			case "chown":
				o.off, o.n = pick[int64](r, 0, 5, -1), pick[int64](r, 7, 8, 9, -1)
			case "lseek":
				o.flags = unix.SEEK_SET
			}
			// What capabilities other than those for files allow, and what
			// /proc/sys/fs/protected_* forbid, is not compared.
			o.path2 = strings.Replace(o.path2, "trusted.", "user.", 1)
			if o.mode == 0o1777 && protected() {
				o.mode = 0o1755
			}
			if o.call == "link" && protected() {
				continue
			}
			if !step(o) {
				break
			}
		}
		a.close()
		b.close()
		if t.Failed() {
			return
		}
	}
}

// protected reports whether the host restricts links and files in sticky
// directories (proc_sys_fs(5)); this package does not.
func protected() bool {
	for _, name := range []string{"hardlinks", "symlinks", "regular", "fifos"} {
		b, err := os.ReadFile("/proc/sys/fs/protected_" + name)
		if err != nil || strings.TrimSpace(string(b)) != "0" {
			return true
		}
	}
	return false
}

// randomOp makes an operation. Symbolic links never lead up, as natively they
// would leave the test's directory.
func randomOp(r *rand.Rand) op {
	o := op{path: randomPath(r), path2: randomPath(r), fd: r.IntN(8), mode: pick[uint32](r, 0o644, 0o755, 0o700, 0o4711, 0o2755, 0o1777)}
	o.call = pick(r, "open", "open", "open", "open", "close", "close", "read", "pread", "pread", "write", "write", "pwrite", "pwrite", "lseek",
		"ftruncate", "fallocate", "fstat", "list", "mkdir", "mkdir", "mkdir", "rmdir", "unlink", "rename", "rename", "rename", "link", "symlink",
		"mknod", "chmod", "chown", "truncate", "stat", "stat", "readlink", "access", "setxattr", "getxattr", "removexattr", "listxattr")
	switch o.call {
	case "open":
		o.flags = pick(r, unix.O_RDONLY, unix.O_WRONLY, unix.O_RDWR, unix.O_RDWR)
		for _, f := range []int{unix.O_CREAT, unix.O_CREAT, unix.O_EXCL, unix.O_TRUNC, unix.O_APPEND, unix.O_DIRECTORY, unix.O_NOFOLLOW} {
			if r.IntN(4) == 0 {
				o.flags |= f
			}
		}
		if r.IntN(30) == 0 {
			o.flags |= unix.O_TMPFILE
		}
		if o.flags&unix.O_CREAT == 0 {
			// O_EXCL without O_CREAT is undefined.
			o.flags &^= unix.O_EXCL
		}
	case "read", "pread":
		o.n, o.off = randomOffset(r)/4, randomOffset(r)
	case "write":
		o.data = randomData(r)
	case "pwrite":
		o.data, o.off = randomData(r), randomOffset(r)
	case "lseek":
		o.off = pick(r, randomOffset(r), -randomOffset(r))
		o.flags = pick(r, unix.SEEK_SET, unix.SEEK_CUR, unix.SEEK_END, unix.SEEK_DATA, unix.SEEK_HOLE)
	case "ftruncate", "truncate":
		o.n = pick(r, randomOffset(r), randomOffset(r), randomOffset(r), -1)
	case "fallocate":
		o.off, o.n = randomOffset(r), randomOffset(r)
		o.flags = pick(r, 0, unix.FALLOC_FL_KEEP_SIZE, unix.FALLOC_FL_PUNCH_HOLE|unix.FALLOC_FL_KEEP_SIZE, unix.FALLOC_FL_PUNCH_HOLE|unix.FALLOC_FL_KEEP_SIZE)
	case "rename":
		o.flags = pick(r, 0, 0, 0, unix.RENAME_NOREPLACE, unix.RENAME_EXCHANGE, unix.RENAME_EXCHANGE|unix.RENAME_NOREPLACE, 64)
	case "link":
		o.flags = pick(r, 0, unix.AT_SYMLINK_FOLLOW)
	case "symlink":
		o.path2 = pick(r, "a", "b", "c", "d", "e", "a/b", "b/c/", "nowhere", ".")
	case "mknod":
		o.mode = pick[uint32](r, unix.S_IFIFO|0o644, unix.S_IFREG|0o600, unix.S_IFSOCK|0o600, 0o644, unix.S_IFDIR|0o755)
	case "chown":
		o.off, o.n = pick[int64](r, 0, 5, -1), pick[int64](r, 0, 7, -1)
		o.flags = pick(r, 0, unix.AT_SYMLINK_NOFOLLOW)
	case "stat":
		o.flags = pick(r, 0, unix.AT_SYMLINK_NOFOLLOW)
	case "access":
		o.mode = uint32(r.IntN(8))
	case "setxattr", "getxattr", "removexattr":
		o.path2 = pick(r, "user.a", "user.b", "user.c", "trusted.t", "nope", "user.")
		o.data = pick(r, "", "1", "two")
		if o.call == "setxattr" {
			o.flags = pick(r, 0, 0, unix.XATTR_CREATE, unix.XATTR_REPLACE)
		}
	}
	return o
}

func TestRandomOperationsAgainstTmpfs(t *testing.T) {
	runs, length := 150, 400
	if testing.Short() {
		runs = 20
	}
	for seed := range uint64(runs) {
		r := rand.New(rand.NewPCG(seed, 1))
		ops := make([]op, length)
		for i := range ops {
			ops[i] = randomOp(r)
			// What lseek(2) takes for data in pages that were allocated and
			// not written is not specified, and tmpfs is not consistent: a run
			// has the one or the other.
			switch o := &ops[i]; {
			case seed%2 == 0 && o.call == "fallocate":
				o.flags |= unix.FALLOC_FL_PUNCH_HOLE | unix.FALLOC_FL_KEEP_SIZE
			case seed%2 == 1 && o.call == "lseek" && o.flags > unix.SEEK_END:
				o.flags = unix.SEEK_SET
			}
		}
		a, b := newNative(t, false), newOurs()
		t.Run(fmt.Sprint(seed), func(t *testing.T) { compare(t, a, b, ops) })
		a.close()
		b.close()
	}
}
