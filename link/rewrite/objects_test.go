package rewrite

import (
	"bytes"
	"encoding/binary"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"

	"github.com/nabla-build/nabla-build/link/scan"
)

// Objects of Debian 12, as `apt-get install libc6 musl busybox-static python3.11-minimal`
// brings them. Where the version is another one only what must always hold is
// checked.
func TestRealObjects(t *testing.T) {
	seen := 0
	for _, c := range []struct {
		path           string
		size           int64 // of the version that the counts are for
		found, left    int
		leastRewritten int // of 100, for any version
	}{
		{"/lib/x86_64-linux-gnu/libc.so.6", 1926232, 526, 1, 99},
		{"/lib64/ld-linux-x86-64.so.2", 215000, 46, 1, 95},
		{"/usr/bin/python3.11", 6831736, 0, 0, 0},
		{"/bin/busybox", 1982256, 284, 1, 98},
		{"/lib/ld-musl-x86_64.so.1", 702960, 499, 13, 95},
	} {
		orig, err := os.ReadFile(c.path)
		if err != nil {
			continue
		}
		seen++
		b := bytes.Clone(orig)
		res, err := Object(b)
		if err != nil {
			t.Fatalf("%s: %v", c.path, err)
		}
		checkResult(t, orig, b, res)
		found, left := count(res)
		if int64(len(b)) == c.size && (found != c.found || left != c.left) {
			t.Errorf("%s: %d sites, %d left; want %d, %d", c.path, found, left, c.found, c.left)
		}
		if 100*(found-left) < c.leastRewritten*found {
			t.Errorf("%s: %d of %d sites left", c.path, left, found)
		}
		if found > 0 {
			t.Logf("%s: %d sites, %d left", c.path, found, left)
			againstObjdump(t, c.path, res)
		}
	}
	if seen == 0 {
		t.Skip("none of the objects is on this machine")
	}
}

func count(res Result) (found, left int) {
	for _, s := range res.Sites {
		if s.Class != scan.Bogus {
			found++
		}
		if s.Class == scan.Slow {
			left++
		}
	}
	return
}

// Go programs: functions from .gopclntab, also of a stripped one.
func TestGoProgram(t *testing.T) {
	dir := t.TempDir()
	src := filepath.Join(dir, "main.go")
	if err := os.WriteFile(src, []byte("package main\nfunc main() { println(1) }\n"), 0o644); err != nil {
		t.Fatal(err)
	}
	for _, args := range [][]string{{"-ldflags="}, {"-ldflags=-s -w"}, {"-buildmode=pie", "-ldflags=-s -w"}} {
		exe := filepath.Join(dir, "exe")
		cmd := exec.Command("go", append(append([]string{"build", "-o", exe}, args...), src)...)
		cmd.Env = append(os.Environ(), "CGO_ENABLED=0", "GOFLAGS=-mod=mod")
		if out, err := cmd.CombinedOutput(); err != nil {
			t.Skipf("go build: %v: %s", err, out)
		}
		orig, err := os.ReadFile(exe)
		if err != nil {
			t.Fatal(err)
		}
		b := bytes.Clone(orig)
		res, err := Object(b)
		if err != nil {
			t.Fatal(err)
		}
		checkResult(t, orig, b, res)
		found, left := count(res)
		t.Logf("%v: %d sites, %d left", args, found, left)
		if found < 30 || left != 1 { // rt_sigreturn
			t.Errorf("%v: %d sites, %d left", args, found, left)
			for _, s := range res.Sites {
				if s.Class == scan.Slow {
					t.Logf("%#x: %s", s.Addr, s.Why)
				}
			}
		}
	}
}

// againstObjdump compares the addresses of syscall instructions.
func againstObjdump(t *testing.T, path string, res Result) {
	if _, err := exec.LookPath("objdump"); err != nil {
		t.Log("objdump is missing: not compared")
		return
	}
	out, err := exec.Command("objdump", "-d", "-j", ".text", "--no-show-raw-insn", path).Output()
	if err != nil {
		t.Logf("objdump: %v", err)
		return
	}
	want := map[uint64]bool{}
	for line := range strings.Lines(string(out)) {
		addr, rest, ok := strings.Cut(line, ":")
		if a, err := strconv.ParseUint(strings.TrimSpace(addr), 16, 64); ok && err == nil && strings.TrimSpace(rest) == "syscall" {
			want[a] = true
		}
	}
	have := map[uint64]bool{}
	for _, s := range res.Sites {
		if s.Rewritable() && !want[s.Addr] {
			t.Errorf("%s: %#x is rewritten, objdump has no syscall there", path, s.Addr)
		}
		if s.Class != scan.Bogus {
			have[s.Addr] = true
		}
	}
	for a := range want {
		if !have[a] {
			t.Errorf("%s: objdump has a syscall at %#x that was not found", path, a)
		}
	}
}

// The stubs of a mov7 site, byte by byte: what the crossing and mm rely on.
func TestStubBytes(t *testing.T) {
	im := image{text: asm(t, "b827000000 0f05 c3")}
	im.symbols = whole(im.text)
	b := im.build()
	res, err := Object(b)
	if err != nil {
		t.Fatal(err)
	}
	const stub = 0x4000 // the object ends at 0x3123
	if res.Patch.StubVaddr != stub {
		t.Fatalf("stubs at %#x", res.Patch.StubVaddr)
	}
	ret := binary.LittleEndian.AppendUint32(nil, (0x1007-(stub+12))&0xffffffff)
	want := slices.Concat(asm(t, "b827000000 488d0d"), ret, asm(t, "65ff2425 08000000"))
	if !bytes.HasPrefix(res.Patch.Stubs, want) {
		t.Errorf("stub % x, want % x", res.Patch.Stubs, want)
	}
	jump := binary.LittleEndian.AppendUint32([]byte{0xe9}, stub-0x1005)
	if !bytes.Equal(b[textAddr:textAddr+8], append(jump, 0x0f, 0x05, 0xc3)) {
		t.Errorf("site % x", b[textAddr:textAddr+8])
	}
}
