package procfs_test

import (
	"bytes"
	"fmt"
	"io"
	"os"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/nabla-build/nabla-build/rumprun/vfs"
	"github.com/nabla-build/nabla-build/rumprun/vfs/memfs"
	"github.com/nabla-build/nabla-build/rumprun/vfs/procfs"
)

// kernel is a Source with one process, 7, of two threads.
type kernel struct {
	ns       *vfs.Namespace
	comm     string
	maps     []procfs.Mapping
	open     map[int]procfs.FD
	adj      int
	hostname string
	gone     bool
}

func (k *kernel) Self(c *vfs.Context) (int32, int32) { return 7, 8 }
func (k *kernel) Processes() []int32                 { return []int32{7} }
func (k *kernel) PathOf(c *vfs.Context, d *vfs.Dentry) string {
	p, _, deleted := k.ns.Path(c, d)
	if deleted {
		p += " (deleted)"
	}
	return p
}

func (k *kernel) Process(pid int32) *procfs.Process {
	if pid != 7 || k.gone {
		return nil
	}
	text := func(s string) func() ([]byte, error) { return func() ([]byte, error) { return []byte(s), nil } }
	p := &procfs.Process{
		PID: 7, PPID: 1, PGID: 7, SID: 7, Comm: k.comm, State: 'S', Creds: vfs.NewCreds(5, 6, []uint32{9}), Umask: 0o22,
		Threads: []procfs.Thread{{TID: 7, Comm: k.comm}, {TID: 8, Comm: "worker", State: 'R', Blocked: 0x1f}},
		Start:   time.Unix(1000, 0), UserTime: time.Second, VirtualSize: 1 << 20, ResidentSize: 1 << 16,
		Root: k.ns.Root(), Cwd: k.ns.Root(), Cmdline: text("a\x00b\x00"), Environ: text("X=1\x00"), Auxv: text(""),
		Maps: func() ([]procfs.Mapping, error) { return k.maps, nil },
		FDs: func() []int {
			var l []int
			for n := range 10 {
				if _, ok := k.open[n]; ok {
					l = append(l, n)
				}
			}
			return l
		},
		FD:             func(n int) (procfs.FD, bool) { f, ok := k.open[n]; return f, ok },
		OOMScoreAdj:    func() int { return k.adj },
		SetOOMScoreAdj: func(n int) error { k.adj = n; return nil },
	}
	for i := range p.Limits {
		p.Limits[i] = unix.Rlimit{Cur: 1 << i, Max: ^uint64(0)}
	}
	return p
}

func (k *kernel) System() procfs.System {
	return procfs.System{
		Release: "6.1.0", Hostname: "box", CPUInfo: []byte("processor\t: 0\n\n"), Boot: time.Unix(900, 0),
		MemTotal: 1 << 30, MemUsed: 1 << 28, FileMemory: 1 << 20, NoFile: 1024, BootID: "id", UUID: func() string { return "uuid" },
		Mounts: []procfs.Mount{{ID: 21, Parent: 1, Path: "/", Root: k.ns.Root()}, {ID: 22, Parent: 21, Path: "/with space", Root: k.ns.Root()}},
	}
}

func newKernel(t testing.TB) *kernel {
	root := memfs.New(memfs.Options{Dev: 1, Limit: 1 << 20, Name: "overlay", Source: "overlay", MountOptions: "rw,relatime"})
	k := &kernel{ns: vfs.NewNamespace(root), comm: "prog", open: make(map[int]procfs.FD)}
	c := k.context()
	if err := k.ns.Mkdir(c, nil, "/proc", 0o755); err != nil {
		t.Fatal(err)
	}
	if err := k.ns.Mount(c, "/proc", procfs.New(2, k)); err != nil {
		t.Fatal(err)
	}
	return k
}

func (k *kernel) context() *vfs.Context { return &vfs.Context{Creds: vfs.NewCreds(0, 0, nil)} }

func (k *kernel) read(t testing.TB, path string) string {
	t.Helper()
	f, _, err := k.ns.Open(k.context(), nil, path, unix.O_RDONLY, 0, 0)
	if err != nil {
		t.Fatalf("open %s: %v", path, err)
	}
	defer f.Release()
	var b bytes.Buffer
	p := make([]byte, 100) // small: content must not change between reads
	for {
		n, err := f.Read(p)
		if err != nil {
			t.Fatalf("read %s: %v", path, err)
		}
		if n == 0 {
			return b.String()
		}
		b.Write(p[:n])
	}
}

// TestFormatsAgainstHost compares the shape of the files with the host's: the
// names of the lines, in order, and the number of fields.
func TestFormatsAgainstHost(t *testing.T) {
	k := newKernel(t)
	host := func(path string) string {
		b, err := os.ReadFile(path)
		if err != nil {
			t.Skip(err)
		}
		return string(b)
	}
	keys := func(s string) []string {
		var out []string
		for l := range strings.Lines(s) {
			name, _, ok := strings.Cut(l, ":")
			if ok {
				out = append(out, name)
			}
		}
		return out
	}
	for _, path := range []string{"/proc/self/status", "/proc/meminfo", "/proc/self/io"} {
		have := keys(host(path))
		i := 0
		for _, name := range keys(k.read(t, path)) {
			at := i
			for at < len(have) && have[at] != name {
				at++
			}
			if at == len(have) {
				// Not every kernel has every line; but none stands before its
				// place.
				for _, h := range have[:i] {
					if h == name {
						t.Errorf("%s: line %s comes too late", path, name)
					}
				}
				continue
			}
			i = at + 1
		}
	}
	fields := func(s string) int { return len(strings.Fields(s[strings.LastIndexByte(s, ')')+1:])) }
	for _, path := range []string{"/proc/self/stat", "/proc/thread-self/stat"} {
		if got, want := fields(k.read(t, path)), fields(host(path)); got != want {
			t.Errorf("%s has %d fields behind the name, want %d", path, got, want)
		}
	}
	if got, want := len(strings.Fields(k.read(t, "/proc/self/statm"))), 7; got != want {
		t.Errorf("statm has %d fields", got)
	}
	// The heading and the first two columns of limits.
	cut := func(s string) (out []string) {
		for l := range strings.Lines(s) {
			out = append(out, l[:26])
		}
		return out
	}
	if got, want := cut(k.read(t, "/proc/self/limits")), cut(host("/proc/self/limits")); fmt.Sprint(got) != fmt.Sprint(want) {
		t.Errorf("limits:\n%q\nwant\n%q", got, want)
	}
	if got, want := strings.SplitN(k.read(t, "/proc/net/dev"), "\n", 3)[:2], strings.SplitN(host("/proc/net/dev"), "\n", 3)[:2]; fmt.Sprint(got) != fmt.Sprint(want) {
		t.Errorf("net/dev heading:\n%q\nwant\n%q", got, want)
	}
	for _, name := range []string{"tcp", "udp", "unix"} {
		got, _, _ := strings.Cut(k.read(t, "/proc/net/"+name), "\n")
		want, _, _ := strings.Cut(host("/proc/net/"+name), "\n")
		if strings.TrimRight(got, " ") != strings.TrimRight(want, " ") {
			t.Errorf("net/%s heading:\n%q\nwant\n%q", name, got, want)
		}
	}
}

// TestMapsAsHost formats the host's own mappings and expects the host's text.
func TestMapsAsHost(t *testing.T) {
	b, err := os.ReadFile("/proc/self/maps")
	if err != nil {
		t.Skip(err)
	}
	k := newKernel(t)
	for l := range strings.Lines(string(b)) {
		var m procfs.Mapping
		var perm string
		var major, minor uint32
		if _, err := fmt.Sscanf(l, "%x-%x %s %x %x:%x %d", &m.Start, &m.End, &perm, &m.Offset, &major, &minor, &m.Ino); err != nil {
			t.Fatalf("%q: %v", l, err)
		}
		if f := strings.SplitN(strings.TrimSuffix(l, "\n"), " ", 6); len(f) == 6 {
			m.Name = strings.TrimLeft(f[5], " ")
		}
		m.Dev = unix.Mkdev(major, minor)
		for i, p := range []int{unix.PROT_READ, unix.PROT_WRITE, unix.PROT_EXEC} {
			if perm[i] != '-' {
				m.Prot |= p
			}
		}
		m.Shared = perm[3] == 's'
		k.maps = append(k.maps, m)
	}
	if got := k.read(t, "/proc/7/maps"); got != string(b) {
		t.Errorf("got\n%s\nwant\n%s", got, b)
	}
}

func TestLinks(t *testing.T) {
	k := newKernel(t)
	c := k.context()
	f, d, err := k.ns.Open(c, nil, "/file", unix.O_RDWR|unix.O_CREAT, 0o644, 0)
	if err != nil {
		t.Fatal(err)
	}
	f.Write([]byte("content"))
	stat := func(mode uint32) func() (unix.Stat_t, error) {
		return func() (unix.Stat_t, error) { return unix.Stat_t{Mode: mode, Ino: 12}, nil }
	}
	k.open[3] = procfs.FD{Entry: d, Flags: unix.O_RDWR, Stat: f.Stat}
	k.open[4] = procfs.FD{Label: "socket:[12]", Flags: unix.O_RDWR, Stat: stat(unix.S_IFSOCK)}
	readlink := func(path string) string {
		d, err := k.ns.Lookup(c, nil, path, false, 0)
		if err != nil {
			return err.Error()
		}
		s, err := d.Inode().Readlink(c)
		if err != nil {
			return err.Error()
		}
		return s
	}
	for path, want := range map[string]string{
		"/proc/self": "7", "/proc/thread-self": "7/task/8", "/proc/self/cwd": "/", "/proc/7/fd/3": "/file",
		"/proc/7/fd/4": "socket:[12]", "/proc/7/fd/5": unix.ENOENT.Error(), "/proc/7/fd/03": unix.ENOENT.Error(),
		"/proc/8": unix.ENOENT.Error(), "/proc/self/task/8/fd/3": "/file", "/proc/self/exe": unix.ENOENT.Error(),
		"/proc/mounts": "self/mounts",
	} {
		if got := readlink(path); got != want {
			t.Errorf("readlink %s: %q, want %q", path, got, want)
		}
	}
	if got := k.read(t, "/proc/self/fd/3"); got != "content" {
		t.Errorf("through fd/3: %q", got)
	}
	// A file that has been removed can still be opened through its descriptor.
	if err := k.ns.Unlink(c, nil, "/file"); err != nil {
		t.Fatal(err)
	}
	if got := k.read(t, "/proc/self/fd/3"); got != "content" {
		t.Errorf("removed, through fd/3: %q", got)
	}
	if got := readlink("/proc/self/fd/3"); got != "/file (deleted)" {
		t.Errorf("removed: %q", got)
	}
	if _, _, err := k.ns.Open(c, nil, "/proc/self/fd/4", unix.O_RDWR, 0, 0); err != unix.ENXIO {
		t.Errorf("open of a socket: %v", err)
	}
	if _, err := k.ns.Lookup(c, nil, "/proc/self/fd/3", true, vfs.NoMagicLinks); err != unix.ELOOP {
		t.Errorf("RESOLVE_NO_MAGICLINKS: %v", err)
	}
	if got := k.read(t, "/proc/self/fdinfo/3"); !strings.HasPrefix(got, "pos:\t0\nflags:\t02\n") {
		t.Errorf("fdinfo: %q", got)
	}
}

func TestWrites(t *testing.T) {
	k := newKernel(t)
	c := k.context()
	write := func(path, s string) error {
		f, _, err := k.ns.Open(c, nil, path, unix.O_WRONLY|unix.O_TRUNC, 0, 0)
		if err != nil {
			return err
		}
		defer f.Release()
		_, err = f.Write([]byte(s))
		return err
	}
	for _, x := range []struct {
		path, text string
		want       error
	}{
		{"/proc/self/oom_score_adj", "500\n", nil}, {"/proc/self/oom_score_adj", "1001", unix.EINVAL},
		{"/proc/self/oom_score_adj", "x", unix.EINVAL}, {"/proc/self/status", "x", unix.EACCES},
		{"/proc/sys/kernel/osrelease", "x", unix.EACCES}, {"/proc/sys/kernel/hostname", "x", unix.EPERM},
	} {
		if err := write(x.path, x.text); err != x.want && !(err == nil && x.want == nil) {
			t.Errorf("write %q to %s: %v, want %v", x.text, x.path, err, x.want)
		}
	}
	if k.read(t, "/proc/self/oom_score_adj") != "500\n" {
		t.Error("oom_score_adj does not show what was written")
	}
	if err := k.ns.Mkdir(c, nil, "/proc/x", 0o755); err == nil {
		t.Error("mkdir in /proc succeeds")
	}
	if err := k.ns.Unlink(c, nil, "/proc/uptime"); err != unix.EPERM {
		t.Errorf("unlink in /proc: %v", err)
	}
	// A process that ends while its files are open.
	f, _, err := k.ns.Open(c, nil, "/proc/7/status", unix.O_RDONLY, 0, 0)
	if err != nil {
		t.Fatal(err)
	}
	k.gone = true
	if _, err := f.Read(make([]byte, 10)); err != unix.ESRCH {
		t.Errorf("read of a process that has gone: %v", err)
	}
}

// TestEveryFileReads opens and reads the whole tree: nothing may fail or
// panic, and what is listed must be found with the type that was listed.
func TestEveryFileReads(t *testing.T) {
	k := newKernel(t)
	k.open[0] = procfs.FD{Label: "pipe:[3]", Stat: func() (unix.Stat_t, error) { return unix.Stat_t{Mode: unix.S_IFIFO}, nil }}
	c := k.context()
	files := 0
	inos := make(map[uint64]string)
	var walk func(dir string)
	walk = func(dir string) {
		f, _, err := k.ns.Open(c, nil, dir, unix.O_RDONLY|unix.O_DIRECTORY, 0, 0)
		if err != nil {
			t.Fatalf("%s: %v", dir, err)
		}
		err = f.(*vfs.DirFile).ReadDir(func(e vfs.DirEntry, _ int64) bool {
			if e.Name == "." || e.Name == ".." {
				return true
			}
			path := dir + "/" + e.Name
			if old, dup := inos[e.Ino]; dup {
				t.Errorf("%s and %s have one inode number", old, path)
			}
			inos[e.Ino] = path
			return true
		})
		if err != nil {
			t.Fatalf("%s: %v", dir, err)
		}
		f.Seek(0, io.SeekStart)
		var ents []vfs.DirEntry
		f.(*vfs.DirFile).ReadDir(func(e vfs.DirEntry, _ int64) bool { ents = append(ents, e); return true })
		for _, e := range ents[2:] {
			path := dir + "/" + e.Name
			d, err := k.ns.Lookup(c, nil, path, false, 0)
			if err != nil {
				t.Errorf("%s is listed: %v", path, err)
				continue
			}
			a := d.Inode().Attr()
			if uint8(a.Mode>>12) != e.Type || a.Ino != e.Ino {
				t.Errorf("%s is listed as type %d, inode %d; is %d, %d", path, e.Type, e.Ino, a.Mode>>12, a.Ino)
			}
			switch {
			case a.IsDir():
				walk(path)
			case a.IsSymlink():
				if _, err := d.Inode().Readlink(c); err != nil && !strings.HasSuffix(path, "/exe") {
					t.Errorf("readlink %s: %v", path, err)
				}
			default:
				k.read(t, path)
				files++
			}
		}
	}
	walk("/proc")
	if files < 100 {
		t.Errorf("only %d files", files)
	}
}

// FuzzFormats gives names of all kinds to the formats that hold names: each
// stays on its line, and can be read back.
func FuzzFormats(f *testing.F) {
	for _, s := range []string{"a", "a b", "x) R 1 (y", "line\nbreak", "back\\slash", "\xff\x00", ""} {
		f.Add(s)
	}
	k := newKernel(f)
	f.Fuzz(func(t *testing.T, name string) {
		k.comm = name
		k.maps = []procfs.Mapping{{Start: 0x1000, End: 0x2000, Name: name}, {Start: 0x3000, End: 0x4000}}
		if got := strings.Count(k.read(t, "/proc/7/maps"), "\n"); got != 2 {
			t.Errorf("maps with name %q has %d lines", name, got)
		}
		status := k.read(t, "/proc/7/status")
		if !strings.Contains(status, "\nUmask:\t0022\nState:\tS (sleeping)\nTgid:\t7\n") {
			t.Errorf("status with name %q: %q", name, status[:min(200, len(status))])
		}
		stat := k.read(t, "/proc/7/stat")
		if got := len(strings.Fields(stat[strings.LastIndexByte(stat, ')')+1:])); got != 50 {
			t.Errorf("stat with name %q has %d fields behind it", name, got)
		}
	})
}
