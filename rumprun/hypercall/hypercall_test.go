//go:build !nabla

package hypercall

import (
	"bytes"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// TestFD: a pipe's two ends. The poller has 16 places for the whole process.
func TestFD(t *testing.T) {
	t.Cleanup(func() {
		mu.Lock()
		slots = nil
		mu.Unlock()
	})
	var p [2]int
	if err := unix.Pipe2(p[:], unix.O_NONBLOCK|unix.O_CLOEXEC); err != nil {
		t.Fatal(err)
	}
	defer unix.Close(p[0])
	in, err := Register(p[0])
	if err != nil {
		t.Fatal(err)
	}
	out, err := Register(p[1])
	if err != nil {
		t.Fatal(err)
	}
	if in.Sysfd() != p[0] {
		t.Errorf("Sysfd is %d, want %d", in.Sysfd(), p[0])
	}
	buf := make([]byte, 1<<16)
	if n, err := in.Read(buf); err != unix.EAGAIN {
		t.Errorf("an empty pipe: %d, %v; want EAGAIN", n, err)
	}
	ready := func(what string, wait func()) <-chan bool {
		c := make(chan bool, 1)
		go func() { wait(); c <- true }()
		select {
		case <-c:
			t.Fatalf("%s: ready at once", what)
		case <-time.After(20 * time.Millisecond):
		}
		return c
	}
	come := func(what string, c <-chan bool) {
		t.Helper()
		select {
		case <-c:
		case <-time.After(5 * time.Second):
			t.Fatalf("%s: not ready after 5 s", what)
		}
	}
	c := ready("to read an empty pipe", in.WaitReadable)
	want := bytes.Repeat([]byte("nabla"), 10)
	if n, err := out.Write(want); n != len(want) || err != nil {
		t.Fatalf("write: %d, %v", n, err)
	}
	come("to read", c)
	if n, err := in.Read(buf); err != nil || !bytes.Equal(buf[:n], want) {
		t.Fatalf("read %q, %v", buf[:max(n, 0)], err)
	}
	for err = nil; err == nil; {
		_, err = out.Write(buf)
	}
	if err != unix.EAGAIN {
		t.Fatalf("a full pipe: %v", err)
	}
	c = ready("to write to a full pipe", out.WaitWritable)
	for err = nil; err == nil; {
		_, err = in.Read(buf)
	}
	come("to write", c)
	c = ready("to read before the end", in.WaitReadable)
	unix.Close(p[1])
	come("the end", c) // a hang-up makes it ready
	if n, err := in.Read(buf); n != 0 || err != nil {
		t.Errorf("at the end: %d, %v", n, err)
	}
	for range 14 {
		if _, err := Register(p[0]); err != nil {
			t.Fatal(err)
		}
	}
	if _, err := Register(p[0]); err != ErrTooMany {
		t.Errorf("a seventeenth descriptor: %v, want ErrTooMany", err)
	}
}

func TestErrno(t *testing.T) {
	if n, err := Read(-1, make([]byte, 1)); err != unix.EBADF {
		t.Errorf("Read(-1): %d, %v", n, err)
	}
	for r, want := range map[uintptr]error{0: nil, 5: nil, ^uintptr(0): unix.EPERM, ^uintptr(4094): unix.Errno(4095)} {
		if _, err := result(r); err != want {
			t.Errorf("result(%#x): %v, want %v", r, err, want)
		}
	}
}

func TestMonotonic(t *testing.T) {
	var before, after unix.Timespec
	unix.ClockGettime(unix.CLOCK_MONOTONIC, &before)
	m := int64(Monotonic())
	unix.ClockGettime(unix.CLOCK_MONOTONIC, &after)
	if m < before.Nano() || m > after.Nano() {
		t.Errorf("Monotonic is %d, not from %d to %d", m, before.Nano(), after.Nano())
	}
}
