package loader

import (
	"bytes"
	"debug/elf"
	"encoding/binary"
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"unsafe"

	"golang.org/x/sys/unix"

	"github.com/nabla-build/nabla-build/rumprun/mm"
)

func arena(t testing.TB) *mm.Arena {
	t.Helper()
	const low, high = 256 << 20, 4 << 30
	var rs []mm.Range
	for _, c := range []struct{ at, n uintptr }{{0x60000000, low}, {0, high}} {
		fl := unix.MAP_PRIVATE | unix.MAP_ANONYMOUS | unix.MAP_NORESERVE
		if c.at != 0 {
			fl |= unix.MAP_FIXED_NOREPLACE
		}
		p, err := unix.MmapPtr(-1, 0, *(*unsafe.Pointer)(unsafe.Pointer(&c.at)), c.n, unix.PROT_READ|unix.PROT_WRITE|unix.PROT_EXEC, fl)
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { unix.MunmapPtr(p, c.n) })
		rs = append(rs, mm.Range{Start: uintptr(p), End: uintptr(p) + c.n})
	}
	a, err := mm.NewArena(rs, 1<<30)
	if err != nil {
		t.Fatal(err)
	}
	return a
}

type source []byte

func (m source) Pread(p []byte, off int64) (int, error) {
	if off < 0 || off >= int64(len(m)) {
		return 0, nil
	}
	return copy(p, m[off:]), nil
}

func open(t testing.TB, path string) *mm.File {
	t.Helper()
	b, err := os.ReadFile(path)
	if err != nil {
		t.Skipf("%v", err)
	}
	return mm.NewFile(&mm.File{Source: source(b), Name: func() string { return path }}, nil)
}

// auxv reads the vector that a loaded program would find.
func auxv(t *testing.T, as *mm.AddressSpace, st *Start) map[uint64]uint64 {
	b, err := as.Bytes(st.AuxvStart, int(st.AuxvEnd-st.AuxvStart), false)
	if err != nil {
		t.Fatal(err)
	}
	out := map[uint64]uint64{}
	for ; len(b) >= 16; b = b[16:] {
		out[binary.LittleEndian.Uint64(b)] = binary.LittleEndian.Uint64(b[8:])
	}
	return out
}

// TestRealPrograms loads the host's own programs, and compares what Linux shows
// of them when they run: the layout relative to the load bias, and the
// auxiliary vector (LD_SHOW_AUXV prints it).
func TestRealPrograms(t *testing.T) {
	for _, path := range []string{"/bin/true", "/bin/bash", "/usr/bin/python3"} {
		t.Run(path, func(t *testing.T) {
			path, err := filepath.EvalSymlinks(path)
			if err != nil {
				t.Skip(err)
			}
			p := &Program{File: open(t, path), ExecFn: path, Argv: []string{path, "a", ""}, Env: []string{"X=1"}, StackSize: 8 << 20,
				UID: 1, EUID: 2, GID: 3, EGID: 4, Random: [16]byte{9, 8, 7}, Host: HostAux{ClockTick: 100, HWCap: 5}}
			if p.Image, err = Parse(p.File.Source); err != nil {
				t.Fatal(err)
			}
			if p.Image.Interp == "" {
				t.Fatal("no PT_INTERP")
			}
			p.Interp = open(t, p.Image.Interp)
			if p.InterpImage, err = Parse(p.Interp.Source); err != nil {
				t.Fatal(err)
			}
			a := arena(t)
			if err := Fits(a, p.Image); err != nil {
				t.Skipf("linked to %#x: %v", p.Image.Lo(), err)
			}
			as := a.NewAddressSpace()
			st, err := Load(as, p)
			if err != nil {
				t.Fatal(err)
			}
			aux := auxv(t, as, st)
			f, err := elf.Open(path)
			if err != nil {
				t.Fatal(err)
			}
			bias := aux[atEntry] - f.Entry
			checkSegments(t, as, f, bias)
			in, err := elf.Open(p.Image.Interp)
			if err != nil {
				t.Fatal(err)
			}
			checkSegments(t, as, in, aux[atBase])
			if uint64(st.Entry) != aux[atBase]+in.Entry {
				t.Errorf("entry %#x, want the interpreter's", st.Entry)
			}
			// As Linux: values that do not depend on addresses.
			native := nativeAuxv(t, path)
			for k, name := range map[uint64]string{atPhent: "AT_PHENT", atPhnum: "AT_PHNUM"} {
				if want := native[name]; aux[k] != want {
					t.Errorf("%s = %d, Linux says %d", name, aux[k], want)
				}
			}
			if got, want := aux[atPhdr]-bias, native["AT_PHDR"]-(native["AT_ENTRY"]-f.Entry); got != want {
				t.Errorf("AT_PHDR is at %#x of the program, Linux has %#x", got, want)
			}
			for k, want := range map[uint64]uint64{atPagesz: 4096, atUID: 1, atEUID: 2, atGID: 3, atEGID: 4, atSecure: 0, atClkTck: 100, atHWCap: 5, atFlags: 0} {
				if got, ok := aux[k]; !ok || got != want {
					t.Errorf("auxiliary vector entry %d = %d, %v; want %d", k, got, ok, want)
				}
			}
			if s, _ := as.CString(uintptr(aux[atExecFn]), 4096); s != path {
				t.Errorf("AT_EXECFN %q", s)
			}
			if s, _ := as.CString(uintptr(aux[atPlatform]), 16); s != "x86_64" {
				t.Errorf("AT_PLATFORM %q", s)
			}
			if b, _ := as.Bytes(uintptr(aux[atRandom]), 16, false); !bytes.Equal(b, p.Random[:]) {
				t.Errorf("AT_RANDOM % x", b)
			}
			checkStack(t, as, st, p)
			if h := as.Heap(); h.Start < uintptr(bias+p.Image.Hi()) {
				t.Errorf("the heap begins at %#x, inside the program", h.Start)
			}
		})
	}
}

func checkSegments(t *testing.T, as *mm.AddressSpace, f *elf.File, bias uint64) {
	t.Helper()
	for _, ph := range f.Progs {
		if ph.Type != elf.PT_LOAD {
			continue
		}
		want := make([]byte, ph.Memsz)
		ph.ReadAt(want[:ph.Filesz], 0)
		got, err := as.Bytes(uintptr(bias+ph.Vaddr), int(ph.Memsz), ph.Flags&elf.PF_W != 0)
		if err != nil || !bytes.Equal(got, want) {
			t.Errorf("segment at %#x: %v, content equal: %v", ph.Vaddr, err, bytes.Equal(got, want))
		}
		if ph.Flags&elf.PF_W == 0 {
			if _, err := as.Bytes(uintptr(bias+ph.Vaddr), 1, true); err != unix.EFAULT {
				t.Errorf("read-only segment at %#x can be written to", ph.Vaddr)
			}
		}
		// The rest of the last page of bss.
		end := ph.Vaddr + ph.Memsz
		if n := -end & pageMask; ph.Memsz > ph.Filesz && n > 0 {
			b, err := as.Bytes(uintptr(bias+end), int(n), false)
			if err != nil || len(bytes.Trim(b, "\x00")) != 0 {
				t.Errorf("page tail behind %#x is not zero (%v)", end, err)
			}
		}
	}
}

func checkStack(t *testing.T, as *mm.AddressSpace, st *Start, p *Program) {
	t.Helper()
	if st.SP%16 != 0 {
		t.Errorf("stack pointer %#x is not aligned to 16", st.SP)
	}
	word := func(i int) uint64 {
		b, err := as.Bytes(st.SP+uintptr(i)*8, 8, false)
		if err != nil {
			t.Fatal(err)
		}
		return binary.LittleEndian.Uint64(b)
	}
	if int(word(0)) != len(p.Argv) {
		t.Fatalf("argc %d", word(0))
	}
	i := 1
	for _, list := range [][]string{p.Argv, p.Env} {
		for _, want := range list {
			if s, err := as.CString(uintptr(word(i)), 4096); s != want || err != nil {
				t.Errorf("string %d: %q, want %q", i, s, want)
			}
			i++
		}
		if word(i) != 0 {
			t.Errorf("word %d is not NULL", i)
		}
		i++
	}
	if st.AuxvStart != st.SP+uintptr(i)*8 {
		t.Errorf("the vector is not behind the environment")
	}
	b, _ := as.Bytes(st.ArgStart, int(st.ArgEnd-st.ArgStart), false)
	if want := strings.Join(p.Argv, "\x00") + "\x00"; string(b) != want {
		t.Errorf("/proc/self/cmdline would be %q, want %q", b, want)
	}
	b, _ = as.Bytes(st.EnvStart, int(st.EnvEnd-st.EnvStart), false)
	if want := strings.Join(p.Env, "\x00") + "\x00"; string(b) != want {
		t.Errorf("/proc/self/environ would be %q, want %q", b, want)
	}
}

// nativeAuxv is what ld.so prints of the vector that Linux gives to path.
func nativeAuxv(t *testing.T, path string) map[string]uint64 {
	c := exec.Command(path, "--version")
	c.Env = []string{"LD_SHOW_AUXV=1"}
	b, err := c.Output()
	if err != nil {
		t.Fatal(err)
	}
	out := map[string]uint64{}
	for line := range strings.Lines(string(b)) {
		k, v, ok := strings.Cut(line, ":")
		if !ok || !strings.HasPrefix(k, "AT_") {
			continue
		}
		v = strings.TrimSpace(v)
		var n uint64
		if h, ok := strings.CutPrefix(v, "0x"); ok {
			for _, c := range h {
				n = n<<4 | uint64(strings.IndexRune("0123456789abcdef", c))
			}
		} else {
			for _, c := range v {
				if c < '0' || c > '9' {
					n = 0
					break
				}
				n = n*10 + uint64(c-'0')
			}
		}
		out[k] = n
	}
	return out
}

// TestScriptAsLinux writes scripts and runs them natively: the interpreter, a
// copy of echo or cat, shows what the kernel made of the first line.
func TestScriptAsLinux(t *testing.T) {
	dir := t.TempDir()
	show := filepath.Join(dir, "show")
	src := "package main\nimport (\"os\";\"strings\")\nfunc main(){os.Stdout.WriteString(strings.Join(os.Args[1:len(os.Args)], \"|\"))}\n"
	os.WriteFile(filepath.Join(dir, "m.go"), []byte(src), 0o600)
	if out, err := exec.Command("go", "build", "-o", show, filepath.Join(dir, "m.go")).CombinedOutput(); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	script := filepath.Join(dir, "s")
	long := strings.Repeat("x", 300)
	for _, line := range []string{
		"#!" + show + "\n", "#! \t" + show + " \n", "#!" + show + " a b  c \t\n", "#!" + show, "#!" + show + " arg",
		"#!" + show + " " + long + "\n", "#!\n", "#!  \n", "#!" + long + "\n", "#!" + show + "\x00junk\n", "#!" + show + " a\x00b\n",
		"#! " + strings.Repeat(" ", 300) + show + "\n", "#!", "#", "", "#!" + show + "\r\n", "#!" + show + "\ta\tb\n",
	} {
		os.Remove(script)
		if err := os.WriteFile(script, []byte(line+"\nrest"), 0o700); err != nil {
			t.Fatal(err)
		}
		content, _ := os.ReadFile(script)
		out, nerr := exec.Command(script, "one").CombinedOutput()
		interp, arg, ok := Script(content[:min(len(content), HeadSize)])
		var perr *os.PathError
		switch {
		case nerr == nil:
			want := script + "|one"
			if arg != "" {
				want = arg + "|" + want
			}
			if !ok || interp != show || string(out) != want {
				t.Errorf("%.40q: ours %q %q %v; Linux ran the interpreter with %q", line, interp, arg, ok, out)
			}
		case errors.As(nerr, &perr) && perr.Err == unix.ENOEXEC:
			if ok {
				t.Errorf("%.40q: ours %q %q; Linux says ENOEXEC", line, interp, arg)
			}
		default:
			// The interpreter could not be opened.
			if !ok || interp == show {
				t.Errorf("%.40q: ours %q %q %v; Linux says %v", line, interp, arg, ok, nerr)
			}
		}
	}
}

func TestArgsTooLong(t *testing.T) {
	if err := CheckArgs([]string{strings.Repeat("x", 128<<10-1)}, nil, 8<<20); err != nil {
		t.Errorf("the longest string: %v", err)
	}
	if err := CheckArgs([]string{strings.Repeat("x", 128<<10)}, nil, 8<<20); err != unix.E2BIG {
		t.Errorf("a string that is too long: %v", err)
	}
	many := make([]string, 30)
	for i := range many {
		many[i] = strings.Repeat("x", 100<<10)
	}
	if err := CheckArgs(nil, many, 8<<20); err != unix.E2BIG {
		t.Errorf("3 MB against a quarter of 8 MiB: %v", err)
	}
	if err := CheckArgs(nil, many, 64<<20); err != nil {
		t.Errorf("3 MB against a quarter of 64 MiB: %v", err)
	}
}

func FuzzParse(f *testing.F) {
	for _, p := range []string{"/bin/true", "/bin/dash"} {
		if b, err := os.ReadFile(p); err == nil {
			f.Add(b[:min(len(b), 4096)])
		}
	}
	a := arena(f)
	f.Fuzz(func(t *testing.T, b []byte) {
		im, err := Parse(source(b))
		if err != nil {
			if err != unix.ENOEXEC {
				t.Fatalf("%v", err)
			}
			return
		}
		if Fits(a, im) != nil || im.Hi()-im.Lo() > 64<<20 {
			return
		}
		as := a.NewAddressSpace()
		defer as.Clear()
		file := mm.NewFile(&mm.File{Source: source(b)}, nil)
		Load(as, &Program{File: file, Image: im, Argv: []string{"x"}, StackSize: 8 << 20})
	})
}

func FuzzScript(f *testing.F) {
	f.Add([]byte("#!/bin/sh -e\n"))
	f.Fuzz(func(t *testing.T, b []byte) {
		interp, arg, ok := Script(b)
		if ok && (interp == "" || strings.ContainsAny(interp, " \t\n\x00") || strings.ContainsAny(arg, "\n\x00")) {
			t.Fatalf("%q: %q %q", b, interp, arg)
		}
	})
}
