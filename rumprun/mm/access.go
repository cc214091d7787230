package mm

import (
	"bytes"
	"fmt"
	"iter"
	"slices"
	"unsafe"

	"golang.org/x/sys/unix"
)

const hotEntries = 4

// Bytes returns the guest memory [addr, addr+n) itself. EFAULT unless every
// page of it is mapped and readable (writable, if write). The memory stays
// valid as Go memory; what it means ends with the guest's mapping.
func (as *AddressSpace) Bytes(addr uintptr, n int, write bool) ([]byte, error) {
	if n == 0 {
		return nil, nil
	}
	end := addr + uintptr(n)
	if n < 0 || end < addr {
		return nil, unix.EFAULT
	}
	for i := range as.hot {
		if v := as.hot[i].Load(); v != nil && v.Start <= addr && end <= v.End && (!write || v.prot&unix.PROT_WRITE != 0) {
			return unsafe.Slice((*byte)(unsafe.Pointer(addr)), n), nil
		}
	}
	if !as.accessible(Range{addr, end}, write) {
		return nil, unix.EFAULT
	}
	return unsafe.Slice((*byte)(unsafe.Pointer(addr)), n), nil
}

// accessible looks r up in the list, and remembers a mapping that holds it all.
func (as *AddressSpace) accessible(r Range, write bool) bool {
	as.mu.Lock()
	defer as.mu.Unlock()
	at := r.Start
	for i := as.index(at); at < r.End; i++ {
		if i >= len(as.vmas) || as.vmas[i].Start > at {
			return false
		}
		v := as.vmas[i]
		if !v.readable() || write && !v.writable() {
			return false
		}
		if at == r.Start && v.End >= r.End {
			as.hot[as.hotNext.Add(1)%hotEntries].Store(v)
		}
		at = v.End
	}
	return true
}

// CString returns the NUL-terminated string at addr, ENAMETOOLONG if none ends
// within max bytes.
func (as *AddressSpace) CString(addr uintptr, max int) (string, error) {
	var out []byte
	for len(out) < max {
		n := min(PageSize-int(addr&pageMask), max-len(out))
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

// VMA is a mapping as /proc/PID/maps shows it.
type VMA struct {
	Start, End uintptr
	Prot       int // PROT_*
	Shared     bool
	Offset     int64
	Dev, Ino   uint64
	Name       string
}

// VMAs lists the mappings that the guest knows of, by address. No lock is held
// while the caller looks at one.
func (as *AddressSpace) VMAs() iter.Seq[VMA] { return slices.Values(as.list()) }

func (as *AddressSpace) list() []VMA {
	type named struct {
		at   int
		file *File
	}
	var names []named
	as.mu.Lock()
	out := make([]VMA, 0, len(as.vmas))
	for _, v := range as.vmas {
		if v.hidden {
			continue
		}
		m := VMA{Start: v.Start, End: v.End, Prot: v.prot, Shared: v.shared, Name: v.name}
		switch {
		case v.file != nil:
			m.Offset, m.Dev, m.Ino = v.off, v.file.Dev, v.file.Ino
			v.file.IncRef()
			names = append(names, named{len(out), v.file})
		case v.shared && v.name == "":
			m.Name = "/dev/zero (deleted)"
		}
		out = append(out, m)
	}
	as.mu.Unlock()
	// Names are looked up in the file system: not under the lock.
	for _, n := range names {
		if n.file.Name != nil {
			out[n.at].Name = n.file.Name()
		}
		n.file.DecRef()
	}
	return out
}

// Size is the number of bytes mapped.
func (as *AddressSpace) Size() uint64 {
	as.mu.Lock()
	defer as.mu.Unlock()
	return as.mapped
}

// Resident is the most that can be resident: the bytes of accessible mappings.
// Which of their pages the guest has touched is not known.
func (as *AddressSpace) Resident() uint64 {
	as.mu.Lock()
	defer as.mu.Unlock()
	var n uint64
	for _, v := range as.vmas {
		if v.readable() && !v.noReserve {
			n += uint64(v.Len())
		}
	}
	return n
}

// Describe says in words what addr is, for reports of crashes.
func (as *AddressSpace) Describe(addr uintptr) string {
	as.mu.Lock()
	v := as.find(addr)
	if v == nil {
		as.mu.Unlock()
		return "no mapping"
	}
	c := *v
	if c.file != nil {
		c.file.IncRef()
	}
	as.mu.Unlock()
	name := c.name
	switch {
	case c.hidden:
		name = "call-site stubs"
	case c.file != nil:
		if c.file.Name != nil {
			name = c.file.Name()
		}
		name += fmt.Sprintf(" at offset %#x", c.off+int64(addr-c.Start))
		c.file.DecRef()
	case name == "":
		name = "anonymous memory"
	}
	return fmt.Sprintf("%s (mapping %#x-%#x %s)", name, c.Start, c.End, protString(c.prot))
}

func protString(prot int) string {
	b := []byte("---")
	for i, p := range [...]int{unix.PROT_READ, unix.PROT_WRITE, unix.PROT_EXEC} {
		if prot&p != 0 {
			b[i] = "rwx"[i]
		}
	}
	return string(b)
}
