// Package hypercall is the library OS's way to the host kernel: the few calls
// that the filter permits, made through one gate, and the wait for descriptors
// that were registered before lockdown. It imports nothing of ours.
//
// In a program built by cmd/nabla-go (build tag nabla) it links to the runtime
// overlay; in any other program it makes ordinary system calls, so that the
// library OS's packages can be tested by plain `go test`.
package hypercall

import (
	"errors"
	"time"

	"golang.org/x/sys/unix"
)

// ErrTooMany says that no more descriptors can be registered.
var ErrTooMany = errors.New("too many device descriptors")

// FD is a host descriptor registered for waiting. At most one goroutine may
// wait to read and one to write at a time.
type FD struct {
	fd   int
	slot int32
}

// Register makes a descriptor known to the poller; before lockdown only.
func Register(fd int) (*FD, error) {
	slot := pollOpen(int32(fd))
	if slot < 0 {
		return nil, ErrTooMany
	}
	return &FD{fd: fd, slot: slot}, nil
}

// Sysfd is the descriptor's number.
func (f *FD) Sysfd() int { return f.fd }

// WaitReadable and WaitWritable park the calling goroutine until the
// descriptor is ready (or hung up, or in error).
func (f *FD) WaitReadable() { pollWait(f.slot, 0) }
func (f *FD) WaitWritable() { pollWait(f.slot, 1) }

// Writable reports whether the descriptor is ready to be written to now (or in
// error, or hung up).
func (f *FD) Writable() bool { return ready(f.fd, unix.POLLOUT) }

// Read is read(2); it blocks the whole process if the descriptor does.
func (f *FD) Read(p []byte) (int, error) { return Read(f.fd, p) }

// Write is write(2); it blocks the whole process if the descriptor does.
func (f *FD) Write(p []byte) (int, error) { return Write(f.fd, p) }

func result(r uintptr) (int, error) {
	if e := -int(r); e > 0 && e < 4096 {
		return 0, unix.Errno(e)
	}
	return int(r), nil
}

// Monotonic is CLOCK_MONOTONIC, which the guest reads from the same vDSO.
func Monotonic() time.Duration { return time.Duration(nanotime()) }

// IdleTime is how long the process has slept in ppoll so far.
func IdleTime() time.Duration { return time.Duration(idle()) }

// Poll looks at the registered descriptors without waiting and makes ready the
// goroutines that wait for them: the scheduler only does so when it is idle.
func Poll() { poll() }
