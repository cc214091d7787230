package mm

import (
	"bytes"
	"fmt"
	"math/rand/v2"
	"os"
	"strings"
	"testing"
	"unsafe"

	"golang.org/x/sys/unix"
)

func ptr(a uintptr) unsafe.Pointer { return *(*unsafe.Pointer)(unsafe.Pointer(&a)) }

// TestAgainstKernel makes the same random calls of mmap, munmap, mprotect,
// mremap and madvise at fixed offsets of two windows: one served by the host's
// kernel, one by an AddressSpace. Results, /proc/self/maps and contents must be
// the same.
func TestAgainstKernel(t *testing.T) {
	const pagesN = 64
	const window = pagesN * PageSize
	a := testArena(t, 0, 4*window)
	host, err := unix.MmapPtr(-1, 0, nil, 3*window, unix.PROT_NONE, unix.MAP_PRIVATE|unix.MAP_ANONYMOUS)
	if err != nil {
		t.Fatal(err)
	}
	defer unix.MunmapPtr(host, 3*window)
	hostBase := uintptr(host) + window
	base := a.ranges[0].Start + window
	name := t.TempDir() + "/file"
	content := make([]byte, 10*PageSize+123)
	for i := range content {
		content[i] = byte(i*7 + i>>8)
	}
	if err := os.WriteFile(name, content, 0o600); err != nil {
		t.Fatal(err)
	}
	f, err := os.Open(name)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	file := NewFile(&File{Source: memSource(content), Name: func() string { return name }}, nil)

	for seed := range uint64(40) {
		r := rand.New(rand.NewPCG(seed, 1))
		as := a.NewAddressSpace()
		if err := munmap(hostBase, window); err != nil {
			t.Fatal(err)
		}
		var log []string
		for range 400 {
			off := uintptr(r.IntN(pagesN)) * PageSize
			n := uintptr(1+r.IntN(8)) * PageSize
			n = min(n, window-off)
			prot := []int{0, unix.PROT_READ, rw, rw, rw | unix.PROT_EXEC}[r.IntN(5)]
			var op string
			var want, got error
			switch r.IntN(9) {
			case 0, 1, 2:
				op = fmt.Sprintf("mmap(%#x, %#x, %d)", off, n, prot)
				flags := anon | unix.MAP_FIXED
				if r.IntN(4) == 0 {
					flags = anon | unix.MAP_FIXED_NOREPLACE
					op += " noreplace"
				}
				_, want = unix.MmapPtr(-1, 0, ptr(hostBase+off), n, prot, flags)
				_, got = as.Map(Mapping{Addr: base + off, Len: uint64(n), Prot: prot, Flags: flags})
			case 3:
				fo := int64(r.IntN(8)) * PageSize
				n = min(n, uintptr(11*PageSize-fo))
				op = fmt.Sprintf("mmap(%#x, %#x, %d, file, %#x)", off, n, prot, fo)
				flags := unix.MAP_PRIVATE | unix.MAP_FIXED
				_, want = unix.MmapPtr(int(f.Fd()), fo, ptr(hostBase+off), n, prot, flags)
				_, got = as.Map(Mapping{Addr: base + off, Len: uint64(n), Prot: prot, Flags: flags, File: file, Off: fo})
			case 4:
				op = fmt.Sprintf("munmap(%#x, %#x)", off, n)
				want, got = munmap(hostBase+off, n), as.Unmap(base+off, uint64(n))
			case 5:
				op = fmt.Sprintf("mprotect(%#x, %#x, %d)", off, n, prot)
				_, _, e := unix.Syscall(unix.SYS_MPROTECT, hostBase+off, n, uintptr(prot))
				want, got = errOf(e), as.Protect(base+off, uint64(n), prot)
			case 6:
				adv := []int{unix.MADV_DONTNEED, unix.MADV_WILLNEED, unix.MADV_REMOVE}[r.IntN(3)]
				op = fmt.Sprintf("madvise(%#x, %#x, %d)", off, n, adv)
				_, _, e := unix.Syscall(unix.SYS_MADVISE, hostBase+off, n, uintptr(adv))
				want, got = errOf(e), as.Advise(base+off, uint64(n), adv)
			case 7, 8:
				// The kernel leaves alike neighbours apart that were written to
				// separately, and mremap works on one mapping.
				v := as.find(base + off)
				ours := v != nil && v.End >= base+off+n
				if ours != hostSingle(t, hostBase+off, n) {
					continue
				}
				if r.IntN(2) == 0 {
					m := min(uintptr(1+r.IntN(8))*PageSize, window-off)
					op = fmt.Sprintf("mremap(%#x, %#x, %#x)", off, n, m)
					_, _, e := unix.Syscall6(unix.SYS_MREMAP, hostBase+off, n, m, 0, 0, 0)
					want = errOf(e)
					_, got = as.Remap(base+off, uint64(n), uint64(m), 0, 0)
					break
				}
				to := uintptr(r.IntN(pagesN)) * PageSize
				m := min(uintptr(1+r.IntN(8))*PageSize, window-to)
				if m == n {
					continue // Linux 6.17 and later move several mappings at once
				}
				op = fmt.Sprintf("mremap(%#x, %#x, %#x, fixed %#x)", off, n, m, to)
				const fl = unix.MREMAP_MAYMOVE | unix.MREMAP_FIXED
				_, _, e := unix.Syscall6(unix.SYS_MREMAP, hostBase+off, n, m, fl, hostBase+to, 0)
				want = errOf(e)
				_, got = as.Remap(base+off, uint64(n), uint64(m), fl, base+to)
			}
			log = append(log, op)
			if want != got {
				t.Fatalf("seed %d: %s: %v, the kernel says %v\n%s\nkernel:\n%s\nours:\n%s", seed, op, got, want, strings.Join(log, "\n"), hostMaps(t, hostBase, window, name), ourMaps(as, base))
			}
			if h, o := hostMaps(t, hostBase, window, name), ourMaps(as, base); h != o {
				t.Fatalf("seed %d: after %s\nkernel:\n%s\nours:\n%s", seed, op, h, o)
			}
			check(t, a, as)
			// Contents: compare what is readable, then write to what is writable.
			for _, v := range as.vmas {
				if v.prot&unix.PROT_READ == 0 {
					continue
				}
				// Beyond the file's last page the kernel sends SIGBUS.
				end := v.End
				if v.file != nil {
					end = min(end, v.Start+pageUp(uintptr(max(0, int64(len(content))-v.off))))
				}
				if end <= v.Start {
					continue
				}
				h := memory(Range{v.Start - base + hostBase, end - base + hostBase})
				if o := memory(Range{v.Start, end}); !bytes.Equal(h, o) {
					t.Fatalf("seed %d: after %s: contents of %#x-%#x differ\n%s", seed, op, v.Start-base, v.End-base, strings.Join(log, "\n"))
				}
				if v.writable() && r.IntN(2) == 0 {
					i := r.IntN(int(end - v.Start))
					x := byte(r.Uint32())
					h[i], memory(v.Range)[i] = x, x
				}
			}
		}
		as.Clear()
		check(t, a, as)
	}
	if n := file.refs.Load(); n != 1 {
		t.Errorf("the file has %d references at the end, want 1", n)
	}
}

func munmap(a, n uintptr) error {
	_, _, e := unix.Syscall(unix.SYS_MUNMAP, a, n, 0)
	return errOf(e)
}

func errOf(e unix.Errno) error {
	if e == 0 {
		return nil
	}
	return e
}

type memSource []byte

func (m memSource) Pread(p []byte, off int64) (int, error) {
	if off >= int64(len(m)) {
		return 0, nil
	}
	return copy(p, m[off:]), nil
}

// hostMaps lists the host's mappings in the window, adjoining ones that are
// alike as one: the kernel does not join mappings that were moved or written to
// as ours do.
func hostMaps(t *testing.T, base, n uintptr, file string) string {
	raw, err := os.ReadFile("/proc/self/maps")
	if err != nil {
		t.Fatal(err)
	}
	var out []VMA
	for line := range strings.Lines(string(raw)) {
		var v VMA
		var perm, dev string
		var ino uint64
		fmt.Sscanf(line, "%x-%x %s %x %s %d", &v.Start, &v.End, &perm, &v.Offset, &dev, &ino)
		if v.End <= base || v.Start >= base+n {
			continue
		}
		c := Range{v.Start, v.End}.clip(Range{base, base + n})
		for i, p := range []int{unix.PROT_READ, unix.PROT_WRITE, unix.PROT_EXEC} {
			if perm[i] != '-' {
				v.Prot |= p
			}
		}
		if strings.Contains(line, file) {
			v.Name = "file"
		} else {
			v.Offset = 0
		}
		v.Start, v.End = c.Start-base, c.End-base
		out = append(out, v)
	}
	return joinMaps(out)
}

// hostSingle reports whether one mapping of the host holds all of the range.
func hostSingle(t *testing.T, addr, n uintptr) bool {
	raw, err := os.ReadFile("/proc/self/maps")
	if err != nil {
		t.Fatal(err)
	}
	for line := range strings.Lines(string(raw)) {
		var r Range
		fmt.Sscanf(line, "%x-%x", &r.Start, &r.End)
		if r.Start <= addr && addr+n <= r.End {
			return true
		}
	}
	return false
}

func ourMaps(as *AddressSpace, base uintptr) string {
	var out []VMA
	for v := range as.VMAs() {
		if v.Name != "" {
			v.Name = "file"
		}
		v.Start, v.End = v.Start-base, v.End-base
		out = append(out, v)
	}
	return joinMaps(out)
}

func joinMaps(in []VMA) string {
	var w strings.Builder
	for i := 0; i < len(in); {
		v := in[i]
		for i++; i < len(in) && in[i].Start == v.End && in[i].Prot == v.Prot && in[i].Name == v.Name &&
			(v.Name == "" || v.Offset+int64(v.End-v.Start) == in[i].Offset); i++ {
			v.End = in[i].End
		}
		fmt.Fprintf(&w, "%x-%x %s %x %s\n", v.Start, v.End, protString(v.Prot), v.Offset, v.Name)
	}
	return w.String()
}

func FuzzRangeSet(f *testing.F) {
	f.Add([]byte{1, 2, 3, 4, 5, 6})
	f.Fuzz(func(t *testing.T, ops []byte) {
		var s rangeSet
		var model [256]bool
		for len(ops) >= 3 {
			lo, n := uintptr(ops[1]), uintptr(ops[2])
			r := Range{lo, min(lo+n, 256)}
			if ops[0]&1 == 0 {
				s.add(r)
			} else {
				s.remove(r)
			}
			for i := r.Start; i < r.End; i++ {
				model[i] = ops[0]&1 == 0
			}
			ops = ops[3:]
		}
		var have [256]bool
		last := uintptr(0)
		for i, r := range s {
			if r.Start >= r.End || i > 0 && r.Start <= last {
				t.Fatalf("%v is not normal", s)
			}
			last = r.End
			for k := r.Start; k < r.End; k++ {
				have[k] = true
			}
		}
		if have != model {
			t.Fatalf("%v is not what was added", s)
		}
		for n := uintptr(1); n < 256; n += 13 {
			want, ok := uintptr(0), false
			for at := uintptr(0); at+n <= 256 && !ok; at += 4 {
				ok = true
				for k := at; k < at+n; k++ {
					ok = ok && model[k]
				}
				want = at
			}
			if got, found := s.lowest(Range{0, 256}, n, 4, 0); found != ok || ok && got != want {
				t.Fatalf("lowest place of %d in %v: %d %v, want %d %v", n, s, got, found, want, ok)
			}
		}
	})
}
