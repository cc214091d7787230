package rumprun

import (
	"bytes"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/nabla-build/nabla-build/rumprun/vfs"
)

// stream is a standard stream as the tender makes it.
type stream struct {
	vfs.Base
	written  bytes.Buffer
	released bool
}

func (s *stream) Write(p []byte) (int, error) { return s.written.Write(p) }
func (s *stream) Stat() (unix.Stat_t, error) {
	return unix.Stat_t{Mode: unix.S_IFIFO | 0o600, Uid: 4711, Ino: 99}, nil
}
func (s *stream) Release() { s.released = true }

// TestOpenStdoutAgain opens /dev/stdout, as web servers do for their logs: as
// an ordinary user, with the stream belonging to another, and with a
// descriptor that outlives the first.
func TestOpenStdoutAgain(t *testing.T) {
	task, mem := newTestTask(t, Config{Dir: "/"})
	task.p.fs.creds.Store(vfs.NewCreds(1000, 1000, nil))
	s := new(stream)
	s.SetStatusFlags(unix.O_WRONLY)
	if err := task.p.fds.Replace(1, NewDescription(s), false); err != nil {
		t.Fatal(err)
	}
	copy(task.mustBytes(t, mem, 100), "/dev/stdout\x00")
	fd, err := sysOpen(task, Args{mem, unix.O_WRONLY | unix.O_APPEND | unix.O_CREAT, 0o644})
	if err != nil {
		t.Fatal(err)
	}
	if err := task.closeFD(1); err != nil {
		t.Fatal(err)
	}
	copy(task.mustBytes(t, mem, 100), "log line\n")
	if n, err := sysWrite(task, Args{fd, mem, 9}); n != 9 || err != nil {
		t.Fatalf("write: %d, %v", n, err)
	}
	if s.written.String() != "log line\n" || s.released {
		t.Errorf("the stream holds %q, released %v", s.written.String(), s.released)
	}
	if _, err := sysOpen(task, Args{mem, unix.O_RDONLY}); err != unix.ENOENT {
		t.Errorf("open of what is not there: %v", err)
	}
	task.closeFD(int(fd))
	if !s.released {
		t.Error("the stream was not released with its last descriptor")
	}
}

func (t *Task) mustBytes(tb testing.TB, addr uintptr, n int) []byte {
	b, err := t.Bytes(addr, n, true)
	if err != nil {
		tb.Fatal(err)
	}
	return b
}

// TestProcOfKernel reads what the kernel itself tells /proc, through the
// mounted file system, from a task's view.
func TestProcOfKernel(t *testing.T) {
	task, _ := newTestTask(t, Config{Dir: "/tmp", Hostname: "box", Release: "6.1.0", Files: map[string][]byte{"/etc/hosts": []byte("127.0.0.1 localhost\n"), "/tmp/x": nil}})
	c := task.vfsContext()
	read := func(path string) string {
		t.Helper()
		f, _, err := task.p.fs.ns.Open(c, nil, path, unix.O_RDONLY, 0, 0)
		if err != nil {
			t.Errorf("open %s: %v", path, err)
			return ""
		}
		defer f.Release()
		b := make([]byte, 1<<16)
		n, err := f.Read(b)
		if err != nil {
			t.Errorf("read %s: %v", path, err)
		}
		return string(b[:n])
	}
	for path, want := range map[string]string{
		"/etc/hosts":                     "127.0.0.1 localhost\n",
		"/proc/sys/kernel/osrelease":     "6.1.0\n",
		"/proc/sys/kernel/hostname":      "box\n",
		"/proc/mounts":                   "overlay / overlay rw,relatime 0 0\nproc /proc proc rw,nosuid,nodev,noexec,relatime 0 0\nsysfs /sys sysfs ro,nosuid,nodev,noexec,relatime 0 0\ntmpfs /dev tmpfs rw,nosuid 0 0\ndevpts /dev/pts devpts rw,nosuid,noexec,relatime,gid=5,mode=620,ptmxmode=000 0 0\ntmpfs /dev/shm tmpfs rw,nosuid,nodev,noexec 0 0\n",
		"/sys/devices/system/cpu/online": "0\n",
	} {
		if got := read(path); got != want {
			t.Errorf("%s: %q, want %q", path, got, want)
		}
	}
	for path, want := range map[string]string{
		"/proc/self/status": "\nThreads:\t1\n", "/proc/self/maps": " rw-p 00000000 00:00 0", "/proc/meminfo": "MemTotal:        1048576 kB\n",
		"/proc/self/mountinfo": " /dev/shm rw,nosuid,nodev,noexec - tmpfs tmpfs rw\n", "/proc/self/limits": "Max open files",
	} {
		if got := read(path); !strings.Contains(got, want) {
			t.Errorf("%s: %q does not hold %q", path, got, want)
		}
	}
	a, b := read("/proc/sys/kernel/random/uuid"), read("/proc/sys/kernel/random/uuid")
	if len(a) != 37 || a == b || a[14] != '4' {
		t.Errorf("uuid: %q, then %q", a, b)
	}
	if boot := read("/proc/sys/kernel/random/boot_id"); boot != read("/proc/sys/kernel/random/boot_id") || len(boot) != 37 {
		t.Errorf("boot_id: %q", boot)
	}
	d, err := task.p.fs.ns.Lookup(c, nil, "/proc/self/cwd", false, 0)
	if err != nil {
		t.Fatal(err)
	}
	if got, err := d.Inode().Readlink(c); got != "/tmp" || err != nil {
		t.Errorf("cwd: %q, %v", got, err)
	}
	// Mount points cannot be removed.
	if err := task.p.fs.ns.Rmdir(c, nil, "/dev/shm"); err != unix.EBUSY {
		t.Errorf("rmdir /dev/shm: %v", err)
	}
	if err := task.p.fs.ns.Rename(c, nil, "/proc", nil, "/x", 0); err != unix.EBUSY {
		t.Errorf("rename /proc: %v", err)
	}
}
