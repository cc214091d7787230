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
	i := bytes.LastIndex(broken, fastEntry)
	copy(broken[i:], []byte{0x0f, 0x0b}) // ud2
	if err := os.WriteFile(busybox+"2", broken, 0o755); err != nil {
		t.Fatal(err)
	}
	if out, err := exec.Command(busybox+"2", "true").CombinedOutput(); err == nil {
		t.Errorf("with a fast entry that faults the program still works: the stubs are not used: %s", out)
	}
}

// fastEntry makes the call and returns. The return address is kept in xmm15,
// which no system call changes, is each thread's own, and is not live at the
// call sites of libc.
var fastEntry = []byte{
	0x66, 0x4c, 0x0f, 0x6e, 0xf9, // movq %rcx, %xmm15
	0x0f, 0x05, // syscall
	0x66, 0x4c, 0x0f, 0x7e, 0xf9, // movq %xmm15, %rcx
	0xff, 0xe1, // jmp *%rcx
}

// withEntry appends a segment with the stubs, and, if entry is not 0, a start
// routine that sets the gs base (arch_prctl(2), ARCH_SET_GS) and goes to entry,
// and the fast entry.
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
	if entry != 0 {
		gs := res.Patch.StubVaddr + uint64(len(seg))
		fast := gs + 256
		seg = append(seg, make([]byte, 256)...)
		seg = append(seg, fastEntry...)
		start := res.Patch.StubVaddr + uint64(len(seg))
		e := emitter{at: start}
		e.bytes(0x52)             // push %rdx: the kernel's value for atexit
		e.bytes(0x48, 0x8d, 0x35) // lea gs(%rip), %rsi
		e.rel(gs, 0)
		e.bytes(0x48, 0x8d, 0x05) // lea fast(%rip), %rax
		e.rel(fast, 0)
		e.bytes(0x48, 0x89, 0x46, EntryOffset) // mov %rax, 8(%rsi)
		e.bytes(0xbf)                          // mov $ARCH_SET_GS, %edi
		e.word(0x1001)
		e.bytes(0xb8) // mov $arch_prctl, %eax
		e.word(158)
		e.bytes(0x0f, 0x05, 0x5a, 0xe9) // syscall; pop %rdx; jmp entry
		e.rel(entry, 0)
		seg = append(seg, e.code...)
		le.PutUint64(out[24:], start)
	}
	out = append(out, seg...)
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

// TestNativePython runs Python on a rewritten C library and dynamic linker:
// threads, locks, processes, signals, files, sockets.
func TestNativePython(t *testing.T) {
	const python = "/usr/bin/python3.11"
	if _, err := os.Stat(python); err != nil {
		t.Skipf("needs Debian's python3.11: %v", err)
	}
	const interp = "/lib64/ld-linux-x86-64.so.2"
	program, err := os.ReadFile(python)
	if err != nil {
		t.Fatal(err)
	}
	// The path of the linker is written over the one in the program: a short one.
	dir, err := os.MkdirTemp("/tmp", "n")
	if err != nil {
		t.Fatal(err)
	}
	defer os.RemoveAll(dir)
	ld := filepath.Join(dir, "l")
	if len(ld) > len(interp) || os.Symlink("ld-linux-x86-64.so.2", ld) != nil {
		t.Skipf("%s is too long", ld)
	}
	program = bytes.Replace(program, []byte(interp+"\x00"), append([]byte(ld), make([]byte, len(interp)+1-len(ld))...), 1)
	exe := filepath.Join(dir, "python")
	if err := os.WriteFile(exe, program, 0o755); err != nil {
		t.Fatal(err)
	}
	for _, path := range []string{"/lib64/ld-linux-x86-64.so.2", "/lib/x86_64-linux-gnu/libc.so.6"} {
		b, err := os.ReadFile(path)
		if err != nil {
			t.Skip(err)
		}
		res, err := Object(b)
		if err != nil || res.Patch == nil {
			t.Fatal(path, err)
		}
		entry := uint64(0)
		if strings.Contains(path, "ld-linux") {
			entry = binary.LittleEndian.Uint64(b[24:])
		}
		if err := os.WriteFile(filepath.Join(dir, filepath.Base(path)), withEntry(t, b, res, entry), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	script := `
import threading, queue, subprocess, os, signal, socket, tempfile, time, select, hashlib
q = queue.Queue(); n = [0]; lock = threading.Lock()
def work():
    while (i := q.get()) is not None:
        with lock: n[0] += i
ts = [threading.Thread(target=work) for _ in range(8)]
[t.start() for t in ts]; [q.put(i) for i in range(20000)]; [q.put(None) for _ in ts]; [t.join() for t in ts]
print(n[0])
a, b = socket.socketpair(); a.sendall(b"x" * 1000); print(len(b.recv(2000)))
s = socket.socket(); s.bind(("127.0.0.1", 0)); s.listen(); c = socket.create_connection(s.getsockname()); d, _ = s.accept(); c.sendall(b"net"); print(d.recv(9))
r, w = os.pipe(); print(select.select([r], [], [], 0.05)[0])
pid = os.fork()
if pid == 0: os.write(w, b"child"); os._exit(7)
print(os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]), os.read(r, 10))
signal.signal(signal.SIGALRM, lambda *a: print("alarm")); signal.setitimer(signal.ITIMER_REAL, 0.02); time.sleep(0.1)
print(subprocess.run(["/bin/echo", "spawned"], capture_output=True, env={}).stdout)
with tempfile.NamedTemporaryFile() as f: f.write(b"y" * 100000); f.flush(); print(hashlib.sha256(open(f.name, "rb").read()).hexdigest())
print(len(os.listdir("/etc")), os.stat("/etc").st_mode, len(os.urandom(16)))
if d := os.environ.get("REWRITTEN"): # these files are the ones in use
    maps = open("/proc/self/maps").read(); assert d + "/libc.so.6" in maps and d + "/ld-linux" in maps, maps
try: os.open("/none/none", 0)
except OSError as e: print(e)
`
	want, err := exec.Command(python, "-c", script).CombinedOutput()
	if err != nil {
		t.Fatalf("original: %v\n%s", err, want)
	}
	cmd := exec.Command(exe, "-c", script)
	cmd.Env = append(os.Environ(), "LD_LIBRARY_PATH="+dir, "PYTHONHOME=/usr", "REWRITTEN="+dir)
	got, err := cmd.CombinedOutput()
	if err != nil || !bytes.Equal(got, want) {
		t.Errorf("rewritten: %v\n%s\noriginal:\n%s", err, got, want)
	}
}
