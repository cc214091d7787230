package rumprun

import (
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
