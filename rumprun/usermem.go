package rumprun

import (
	"unsafe"

	"golang.org/x/sys/unix"
)

// userPtr returns a pointer to the T in guest memory at addr, checked for
// reading or writing. The guest may change the value at any time: read it once.
// T must be free of Go pointers.
func userPtr[T any](t *Task, addr uintptr, write bool) (*T, error) {
	var z T
	b, err := t.p.as.Bytes(addr, int(unsafe.Sizeof(z)), write)
	if err != nil {
		return nil, err
	}
	return (*T)(unsafe.Pointer(unsafe.SliceData(b))), nil
}

// copyIn reads a T from guest memory.
func copyIn[T any](t *Task, addr uintptr) (T, error) {
	p, err := userPtr[T](t, addr, false)
	if err != nil {
		var z T
		return z, err
	}
	return *p, nil
}

// copyOut writes v to guest memory.
func copyOut[T any](t *Task, addr uintptr, v T) error {
	p, err := userPtr[T](t, addr, true)
	if err != nil {
		return err
	}
	*p = v
	return nil
}

// iovecs checks the iovec array of readv(2) and friends and returns the guest
// buffers it names, none of them a copy. At most UIO_MAXIOV entries.
func (t *Task) iovecs(addr uintptr, n int, write bool) ([][]byte, error) {
	return t.vectorPart(addr, n, write, false)
}

// vector is iovecs for a transfer through d. A file or pipe transfers what
// comes before the first page that is not accessible.
func (t *Task) vector(d *Description, addr uintptr, n int, write bool) ([][]byte, error) {
	return t.vectorPart(addr, n, write, d.isRegular() || isPipe(d))
}

// userEnd is the end of the user's half of the address space (TASK_SIZE_MAX):
// an address beyond is refused before anything is transferred.
const userEnd = uintptr(1<<47 - 4096)

func (t *Task) vectorPart(addr uintptr, n int, write, part bool) ([][]byte, error) {
	const uioMaxIOV = 1024
	if n < 0 || n > uioMaxIOV {
		return nil, unix.EINVAL
	}
	if n == 0 {
		return nil, nil
	}
	raw, err := t.p.as.Bytes(addr, n*16, false)
	if err != nil {
		return nil, err
	}
	v := unsafe.Slice((*[2]uint64)(unsafe.Pointer(unsafe.SliceData(raw))), n)
	out := make([][]byte, 0, n)
	checked := make([][2]uint64, n) // the guest may change v meanwhile
	copy(checked, v)
	for _, e := range checked {
		if int64(e[1]) < 0 {
			return nil, unix.EINVAL
		}
		if uintptr(e[0]) > userEnd || uintptr(e[1]) > userEnd-uintptr(e[0]) {
			return nil, unix.EFAULT
		}
	}
	for _, e := range checked {
		base, l := e[0], e[1]
		if l == 0 {
			continue
		}
		if part {
			b, err := t.userBuf(uintptr(base), uintptr(l), write)
			if err != nil && len(out) == 0 {
				return nil, err
			}
			if len(b) > 0 {
				out = append(out, b)
			}
			if uint64(len(b)) < l {
				break
			}
			continue
		}
		b, err := t.p.as.Bytes(uintptr(base), int(l), write)
		if err != nil {
			return nil, err
		}
		out = append(out, b)
	}
	return out, nil
}
