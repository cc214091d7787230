// Package mm is the guest's memory: the arena that is reserved before lockdown
// and the VMA tree over it. mmap, munmap, mprotect, mremap, brk and madvise are
// bookkeeping here; no host call is made. The type at its heart is
// AddressSpace. It imports neither vfs nor tasks: file contents come through
// the Source interface.
package mm

import (
	"bytes"
	"unsafe"

	"golang.org/x/sys/unix"
)

// Range is a page-aligned range of host memory, readable, writable and
// executable, that the tender reserved for the guest. Pages not yet touched
// are zero. Addresses are the guest's own (one address space).
type Range struct {
	Start, End uintptr
}

// Source is what a file mapping is filled from.
type Source interface {
	// Pread reads file content at off; short at end of file.
	Pread(p []byte, off int64) (int, error)
}

// AddressSpace is the memory of one guest process.
type AddressSpace struct{}

// Bytes returns the guest memory [addr, addr+n) itself. EFAULT unless every
// page of it is mapped and readable (writable, if write).
func (as *AddressSpace) Bytes(addr uintptr, n int, write bool) ([]byte, error) {
	if n == 0 {
		return nil, nil
	}
	if !as.accessible(addr, n, write) {
		return nil, unix.EFAULT
	}
	return unsafe.Slice((*byte)(unsafe.Pointer(addr)), n), nil
}

// CString returns the NUL-terminated string at addr, ENAMETOOLONG if none ends
// within max bytes.
func (as *AddressSpace) CString(addr uintptr, max int) (string, error) {
	var out []byte
	for len(out) < max {
		n := min(4096-int(addr&4095), max-len(out))
		b, err := as.Bytes(addr, n, false)
		if err != nil {
			return "", err
		}
		if i := bytes.IndexByte(b, 0); i >= 0 {
			return string(append(out, b[:i]...)), nil
		}
		out = append(out, b...)
		addr += uintptr(n)
	}
	return "", unix.ENAMETOOLONG
}

func (as *AddressSpace) accessible(addr uintptr, n int, write bool) bool { return false }
