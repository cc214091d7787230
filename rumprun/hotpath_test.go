package rumprun

import (
	"os"
	"testing"

	"golang.org/x/sys/unix"
)

// fileTask makes a task with file /f of n bytes open, and a buffer.
func fileTask(t *testing.T, n int) (*Task, uintptr, uintptr) {
	task, mem := newTestTask(t, Config{Dir: "/"})
	f, d, err := task.p.fs.ns.Open(task.vfsContext(), nil, "/f", unix.O_RDWR|unix.O_CREAT, 0o644, 0)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := f.Write(make([]byte, n)); err != nil {
		t.Fatal(err)
	}
	fd, err := task.install(newDescriptionAt(f, d), false)
	if err != nil {
		t.Fatal(err)
	}
	return task, fd, mem
}

// TestHotPathAllocatesNothing: read, write, pread, pwrite, lseek and fstat of a
// regular file make no garbage.
func TestHotPathAllocatesNothing(t *testing.T) {
	task, fd, buf := fileTask(t, 1<<20)
	for name, call := range map[string]func() error{
		"read":  func() error { _, err := sysRead(task, Args{fd, buf, 4096}); return err },
		"pread": func() error { _, err := sysPread64(task, Args{fd, buf, 4096, 8192}); return err },
		"write": func() error {
			sysLseek(task, Args{fd, 0, 0})
			_, err := sysWrite(task, Args{fd, buf, 4096})
			return err
		},
		"pwrite": func() error { _, err := sysPwrite64(task, Args{fd, buf, 4096, 100}); return err },
		"lseek":  func() error { _, err := sysLseek(task, Args{fd, 0, unix.SEEK_END}); return err },
		"fstat":  func() error { _, err := sysFstat(task, Args{fd, buf}); return err },
	} {
		var err error
		if n := testing.AllocsPerRun(200, func() {
			if e := call(); e != nil {
				err = e
			}
		}); n != 0 || err != nil {
			t.Errorf("%s: %v allocations, %v", name, n, err)
		}
	}
}

// BenchmarkFiles makes calls here and on the host's kernel: the ratio of the
// two is what counts.
func BenchmarkFiles(b *testing.B) {
	task, mem := newTestTask(b, Config{Dir: "/"})
	dir := b.TempDir()
	b.Chdir(dir)
	ns := task.p.fs.ns
	c := task.vfsContext()
	for _, d := range []string{"/a", "/a/b", "/a/b/c"} {
		if err := ns.Mkdir(c, nil, d, 0o755); err != nil {
			b.Fatal(err)
		}
		os.Mkdir(dir+d, 0o755)
	}
	const name = "a/b/c/f"
	copy(task.mustBytes(b, mem, 100), name+"\x00")
	buf := mem + 4096
	fd, err := sysOpen(task, Args{mem, unix.O_RDWR | unix.O_CREAT, 0o644})
	if err != nil {
		b.Fatal(err)
	}
	h, err := unix.Open(name, unix.O_RDWR|unix.O_CREAT, 0o644)
	if err != nil {
		b.Fatal(err)
	}
	defer unix.Close(h)
	for _, x := range []struct {
		name string
		nr   uintptr
		args func(fd uintptr) Args
	}{
		{"write4k", unix.SYS_PWRITE64, func(fd uintptr) Args { return Args{fd, buf, 4096, 0} }},
		{"read4k", unix.SYS_PREAD64, func(fd uintptr) Args { return Args{fd, buf, 4096, 0} }},
		{"fstat", unix.SYS_FSTAT, func(fd uintptr) Args { return Args{fd, buf} }},
		{"stat", unix.SYS_STAT, func(uintptr) Args { return Args{mem, buf} }},
		{"access", unix.SYS_ACCESS, func(uintptr) Args { return Args{mem, 4} }},
	} {
		b.Run(x.name+"/here", func(b *testing.B) {
			call := task.k.table[x.nr].Handler
			for b.Loop() {
				if _, err := call(task, x.args(fd)); err != nil {
					b.Fatal(err)
				}
			}
		})
		b.Run(x.name+"/host", func(b *testing.B) {
			a := x.args(uintptr(h))
			for b.Loop() {
				if _, _, e := unix.RawSyscall6(x.nr, a[0], a[1], a[2], a[3], 0, 0); e != 0 {
					b.Fatal(e)
				}
			}
		})
	}
}
