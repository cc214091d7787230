package rewrite

import (
	"bytes"
	"debug/elf"
	"encoding/binary"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
)

// TestNative runs a rewritten program on this machine's kernel. A static
// program gets its stubs, a small start routine and a fast entry as one more
// segment; the entry makes the real system call and counts it, so that the
// stubs, the moved instructions and the way back are executed for good.
func TestNative(t *testing.T) {
	const program = "/bin/busybox"
	orig, err := os.ReadFile(program)
	if err != nil {
		t.Skipf("needs Debian's busybox-static: %v", err)
	}
	f, err := elf.NewFile(bytes.NewReader(orig))
	if err != nil || f.Type != elf.ET_EXEC {
		t.Skipf("%s is not a static program at fixed addresses: %v", program, err)
	}
	b := bytes.Clone(orig)
	res, err := Object(b)
	if err != nil || res.Patch == nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	busybox := filepath.Join(dir, "busybox")
	if err := os.WriteFile(busybox, withEntry(t, b, res, f.Entry), 0o755); err != nil {
		t.Fatal(err)
	}
	script := `set -e
		cd "$1"; mkdir d; echo hello > d/a; cat d/a; ln -s a d/b; ls -l d | wc -l; seq 1 2000 | sort -rn | md5sum
		find . | sort; (sleep 0.1; echo child) & wait; kill -0 $$; tar cf - d | tar tf -; date -u -d @0; dd if=/dev/zero bs=64k count=20 2>/dev/null | gzip | gunzip | wc -c
		trap 'echo signal' USR1; kill -USR1 $$; echo $((6*7)); exit 3`
	run := func(exe string) (string, int) {
		work := filepath.Join(t.TempDir(), "w")
		os.Mkdir(work, 0o755)
		cmd := exec.Command(exe, "sh", "-c", script, "sh", work)
		cmd.Env = []string{"PATH=" + dir}
		out, _ := cmd.CombinedOutput()
		return string(out), cmd.ProcessState.ExitCode()
	}
	// The applets are found in PATH: links to the program under test.
	link := func(to string) {
		for _, a := range strings.Fields("sh cat ls wc seq sort md5sum find sleep tar date dd gzip gunzip mkdir ln") {
			os.Remove(filepath.Join(dir, a))
			if err := os.Symlink(to, filepath.Join(dir, a)); err != nil {
				t.Fatal(err)
			}
		}
	}
	link(program)
	want, wantCode := run(program)
	link(busybox)
	got, gotCode := run(busybox)
	if got != want || gotCode != wantCode || wantCode != 3 || !strings.Contains(want, "hello") {
		t.Errorf("rewritten: exit %d\n%s\noriginal: exit %d\n%s", gotCode, got, wantCode, want)
	}

	// The same with an entry that faults must fail, or the stubs were not used.
	broken := withEntry(t, b, res, f.Entry)
	i := bytes.Index(broken, fastEntry[:9])
	copy(broken[i:], []byte{0x0f, 0x0b}) // ud2
	if err := os.WriteFile(busybox+"2", broken, 0o755); err != nil {
		t.Fatal(err)
	}
	if out, err := exec.Command(busybox+"2", "true").CombinedOutput(); err == nil {
		t.Errorf("with a fast entry that faults the program still works: the stubs are not used: %s", out)
	}
}

// fastEntry keeps the return address at gs:16 (one thread only), makes the call
// and returns.
var fastEntry = []byte{
	0x65, 0x48, 0x89, 0x0c, 0x25, 16, 0, 0, 0, // mov %rcx, %gs:16
	0x0f, 0x05, // syscall
	0x65, 0xff, 0x24, 0x25, 16, 0, 0, 0, // jmp *%gs:16
}

// withEntry appends a segment with the stubs, a start routine that sets the gs
// base (arch_prctl(2), ARCH_SET_GS) and goes to entry, and the fast entry.
func withEntry(t *testing.T, b []byte, res Result, entry uint64) []byte {
	t.Helper()
	le := binary.LittleEndian
	out := bytes.Clone(b)
	for len(out)%pageSize != 0 {
		out = append(out, 0)
	}
	off := uint64(len(out))
	seg := bytes.Clone(res.Patch.Stubs)
	for len(seg)%pageSize != 0 {
		seg = append(seg, 0xcc)
	}
	gs := res.Patch.StubVaddr + uint64(len(seg))
	seg = append(seg, make([]byte, 256)...)
	fast := res.Patch.StubVaddr + uint64(len(seg))
	le.PutUint64(seg[len(seg)-256+EntryOffset:], fast)
	seg = append(seg, fastEntry...)
	start := res.Patch.StubVaddr + uint64(len(seg))
	e := emitter{at: start}
	e.bytes(0x52)       // push %rdx: the kernel's value for atexit
	e.bytes(0x48, 0xbe) // movabs $gs, %rsi
	e.code = le.AppendUint64(e.code, gs)
	e.bytes(0xbf) // mov $ARCH_SET_GS, %edi
	e.word(0x1001)
	e.bytes(0xb8) // mov $arch_prctl, %eax
	e.word(158)
	e.bytes(0x0f, 0x05, 0x5a, 0xe9) // syscall; pop %rdx; jmp entry
	e.rel(entry, 0)
	seg = append(seg, e.code...)
	out = append(out, seg...)
	le.PutUint64(out[24:], start)
	phoff, n := le.Uint64(out[32:]), int(le.Uint16(out[56:]))
	for i := range n {
		p := out[phoff+56*uint64(i):]
		if elf.ProgType(le.Uint32(p)) != elf.PT_NOTE {
			continue
		}
		le.PutUint32(p, uint32(elf.PT_LOAD))
		le.PutUint32(p[4:], uint32(elf.PF_R|elf.PF_W|elf.PF_X))
		le.PutUint64(p[8:], off)
		le.PutUint64(p[16:], res.Patch.StubVaddr)
		le.PutUint64(p[24:], res.Patch.StubVaddr)
		le.PutUint64(p[32:], uint64(len(seg)))
		le.PutUint64(p[40:], uint64(len(seg)))
		le.PutUint64(p[48:], pageSize)
		return out
	}
	t.Skip("the program has no PT_NOTE that could be replaced")
	return nil
}
