//go:build !nabla

package hypercall

import (
	"sync"
	"time"

	"golang.org/x/sys/unix"
)

// Native reports whether the program runs on the overlay runtime.
const Native = false

var (
	mu    sync.Mutex
	slots []int32
	start = time.Now()
)

// GateAddress is 0: there is no gate.
func GateAddress() uintptr { return 0 }

// Lockdown does nothing here.
func Lockdown() {}

func pollOpen(fd int32) int32 {
	mu.Lock()
	defer mu.Unlock()
	if len(slots) == 16 {
		return -1
	}
	slots = append(slots, fd)
	return int32(len(slots) - 1)
}

func pollWait(slot, mode int32) {
	mu.Lock()
	fd := slots[slot]
	mu.Unlock()
	ev := int16(unix.POLLIN)
	if mode == 1 {
		ev = unix.POLLOUT
	}
	for {
		if n, err := unix.Poll([]unix.PollFd{{Fd: fd, Events: ev}}, -1); n > 0 || err != nil && err != unix.EINTR {
			return
		}
	}
}

func poll()       {}
func idle() int64 { return 0 }

func nanotime() int64 {
	var ts unix.Timespec
	if err := unix.ClockGettime(unix.CLOCK_MONOTONIC, &ts); err != nil {
		return int64(time.Since(start))
	}
	return ts.Nano()
}

// Read is read(2).
func Read(fd int, p []byte) (int, error) { return unix.Read(fd, p) }

// Write is write(2).
func Write(fd int, p []byte) (int, error) { return unix.Write(fd, p) }

// ready is poll(2) of one descriptor, without waiting.
func ready(fd int, events int16) bool {
	n, err := unix.Poll([]unix.PollFd{{Fd: int32(fd), Events: events}}, 0)
	return err == nil && n > 0
}

// ExitGroup ends the process.
func ExitGroup(status int) { unix.Exit(status) }
