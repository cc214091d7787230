// Package vfs is the library OS's virtual file system: open file descriptions,
// inodes, mounts and path resolution. It may import the archive format and
// gVisor's waiter; it knows nothing of tasks, descriptors or guest memory.
// The type at its heart is File.
package vfs

import (
	"golang.org/x/sys/unix"

	"gvisor.dev/gvisor/pkg/waiter"
)

// File is an open file description (open(2)): what descriptors refer to.
//
// All errors are unix.Errno values. No method blocks: an operation that would
// block returns unix.EAGAIN, and the system call layer waits on the Waitable
// and tries again unless the description is O_NONBLOCK. Buffers may be guest
// memory: an implementation must not keep them after it returns. Methods are
// called by several goroutines at once; an implementation locks for itself and
// never holds a lock while it notifies its waiter.Queue's listeners of another
// object.
//
// Embed Base to inherit the answers of a file that supports nothing.
type File interface {
	waiter.Waitable

	// Read and Write transfer at the file position (or from the stream) and
	// move it. Read returns 0, nil at end of file. One call is atomic for
	// datagrams and for positions shared by descriptors.
	Read(p []byte) (int, error)
	Write(p []byte) (int, error)

	// Pread and Pwrite transfer at off without moving the position; ESPIPE if
	// the file has no positions.
	Pread(p []byte, off int64) (int, error)
	Pwrite(p []byte, off int64) (int, error)

	// Seek is lseek(2), SEEK_DATA and SEEK_HOLE included.
	Seek(off int64, whence int) (int64, error)

	// Stat is fstat(2). The result has the kernel's struct stat fields.
	Stat() (unix.Stat_t, error)

	// Ioctl handles request req. arg is the raw third argument; m gives
	// checked access to guest memory.
	Ioctl(m UserMemory, req uint32, arg uintptr) (uintptr, error)

	// StatusFlags and SetStatusFlags hold the open file status flags (access
	// mode, O_APPEND, O_NONBLOCK, ...: fcntl(2) F_GETFL and F_SETFL).
	StatusFlags() uint32
	SetStatusFlags(uint32)

	// Release is called once, when the last reference to the description has
	// gone (all descriptors and all mappings).
	Release()
}

// UserMemory is checked access to the memory of the guest process on whose
// behalf a call is made. A bad address is unix.EFAULT.
type UserMemory interface {
	// Bytes returns the guest memory [addr, addr+n) itself, not a copy. write
	// says that the caller will store to it.
	Bytes(addr uintptr, n int, write bool) ([]byte, error)
	CopyIn(addr uintptr, dst []byte) error
	CopyOut(addr uintptr, src []byte) error
	// CString reads a NUL-terminated string; ENAMETOOLONG beyond max bytes.
	CString(addr uintptr, max int) (string, error)
}

// Base is embedded by File implementations. It holds the status flags and
// answers every operation as a file that does not support it. It is always
// ready, as a regular file is; types that wait embed a waiter.Queue and
// override the Waitable methods.
type Base struct {
	flags uint32
}

func (b *Base) Readiness(mask waiter.EventMask) waiter.EventMask {
	return mask & (waiter.ReadableEvents | waiter.WritableEvents)
}
func (b *Base) EventRegister(*waiter.Entry) error                  { return nil }
func (b *Base) EventUnregister(*waiter.Entry)                      {}
func (b *Base) Read([]byte) (int, error)                           { return 0, unix.EINVAL }
func (b *Base) Write([]byte) (int, error)                          { return 0, unix.EINVAL }
func (b *Base) Pread([]byte, int64) (int, error)                   { return 0, unix.ESPIPE }
func (b *Base) Pwrite([]byte, int64) (int, error)                  { return 0, unix.ESPIPE }
func (b *Base) Seek(int64, int) (int64, error)                     { return 0, unix.ESPIPE }
func (b *Base) Ioctl(UserMemory, uint32, uintptr) (uintptr, error) { return 0, unix.ENOTTY }
func (b *Base) StatusFlags() uint32                                { return b.flags }
func (b *Base) SetStatusFlags(f uint32)                            { b.flags = f }
func (b *Base) Release()                                           {}
