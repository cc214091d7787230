//go:build nabla

package hypercall

import (
	"unsafe"

	"golang.org/x/sys/unix"
)

//go:linkname nabla_call runtime.nabla_call
//go:noescape
func nabla_call(nr, a0, a1, a2, a3, a4 uintptr) uintptr

//go:linkname nabla_gateAddr runtime.nabla_gateAddr
func nabla_gateAddr() uintptr

//go:linkname nabla_lockdown runtime.nabla_lockdown
func nabla_lockdown()

//go:linkname nabla_gsbase runtime.nabla_gsbase
func nabla_gsbase() *[5]uintptr

//go:linkname pollOpen runtime.nabla_pollOpen
func pollOpen(fd int32) int32

//go:linkname pollWait runtime.nabla_pollWait
func pollWait(slot, mode int32)

//go:linkname poll runtime.nabla_poll
func poll()

//go:linkname idle runtime.nabla_idle
func idle() int64

//go:linkname nanotime runtime.nabla_nanotime
func nanotime() int64

// Native reports whether the program runs on the overlay runtime.
const Native = true

// GateAddress is the instruction pointer that the kernel sees for a call
// through the gate.
func GateAddress() uintptr { return nabla_gateAddr() }

// Lockdown tells the runtime that no other host call is possible from now on.
func Lockdown() { nabla_lockdown() }

// SpareWords are the words at 0(%gs) and up, &m.tls[1]: the crossing's.
func SpareWords() *[5]uintptr { return nabla_gsbase() }

// Read is read(2) through the gate.
func Read(fd int, p []byte) (int, error) {
	return result(nabla_call(unix.SYS_READ, uintptr(fd), uintptr(unsafe.Pointer(unsafe.SliceData(p))), uintptr(len(p)), 0, 0))
}

// Write is write(2) through the gate.
func Write(fd int, p []byte) (int, error) {
	return result(nabla_call(unix.SYS_WRITE, uintptr(fd), uintptr(unsafe.Pointer(unsafe.SliceData(p))), uintptr(len(p)), 0, 0))
}

// ready is ppoll(2) of one descriptor, without waiting.
func ready(fd int, events int16) bool {
	p := unix.PollFd{Fd: int32(fd), Events: events}
	var now unix.Timespec
	n, err := result(nabla_call(unix.SYS_PPOLL, uintptr(unsafe.Pointer(&p)), 1, uintptr(unsafe.Pointer(&now)), 0, 0))
	return err == nil && n > 0
}

// ExitGroup ends the process.
func ExitGroup(status int) {
	for {
		nabla_call(unix.SYS_EXIT_GROUP, uintptr(status), 0, 0, 0, 0)
	}
}
