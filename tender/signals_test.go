package tender

import (
	"os"
	"runtime"
	"testing"
	"unsafe"

	"golang.org/x/sys/unix"
)

// TestOwnPipe asks the kernel what a SIGPIPE looks like: one of our own write is
// not the guest's, one that another process sends is.
func TestOwnPipe(t *testing.T) {
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	var set, old unix.Sigset_t
	set.Val[0] = 1 << (unix.SIGPIPE - 1)
	if err := unix.PthreadSigmask(unix.SIG_BLOCK, &set, &old); err != nil {
		t.Fatal(err)
	}
	defer unix.PthreadSigmask(unix.SIG_SETMASK, &old, nil)
	fd, err := unix.Signalfd(-1, &set, unix.SFD_NONBLOCK|unix.SFD_CLOEXEC)
	if err != nil {
		t.Fatal(err)
	}
	defer unix.Close(fd)
	var p [2]int
	if err := unix.Pipe2(p[:], unix.O_CLOEXEC); err != nil {
		t.Fatal(err)
	}
	unix.Close(p[0])
	defer unix.Close(p[1])
	if _, err := unix.Write(p[1], []byte("x")); err != unix.EPIPE {
		t.Fatalf("write: %v", err)
	}
	s := &signalSource{pid: uint32(os.Getpid())}
	var info unix.SignalfdSiginfo
	buf := unsafe.Slice((*byte)(unsafe.Pointer(&info)), unsafe.Sizeof(info))
	if n, err := unix.Read(fd, buf); n != len(buf) {
		t.Fatalf("read the signal: %d, %v", n, err)
	}
	if !s.ownPipe(&info) {
		t.Errorf("the signal of our own write is taken for the guest's: %+v", info)
	}
	info.Pid = uint32(os.Getppid())
	if s.ownPipe(&info) {
		t.Error("another process's signal is taken for our own")
	}
	info.Pid, info.Signo = s.pid, uint32(unix.SIGTERM)
	if s.ownPipe(&info) {
		t.Error("SIGTERM is taken for SIGPIPE")
	}
}
