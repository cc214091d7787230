package rumprun

import (
	"bytes"
	"debug/elf"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"unsafe"

	"golang.org/x/sys/unix"

	"gvisor.dev/gvisor/pkg/abi/linux"
)

// argMemory builds C strings and arrays of them in guest memory.
type argMemory struct {
	t  *testing.T
	at uintptr
}

func (m *argMemory) bytes(b []byte) uintptr {
	at := m.at
	copy(unsafe.Slice((*byte)(*(*unsafe.Pointer)(unsafe.Pointer(&at))), len(b)), b)
	m.at = (at + uintptr(len(b)) + 15) &^ 15
	return at
}

func (m *argMemory) str(s string) uintptr { return m.bytes(append([]byte(s), 0)) }

func (m *argMemory) array(list ...string) uintptr {
	words := make([]uint64, len(list)+1)
	for i, s := range list {
		words[i] = uint64(m.str(s))
	}
	return m.bytes(unsafe.Slice((*byte)(unsafe.Pointer(unsafe.SliceData(words))), len(words)*8))
}

func writeGuest(t *testing.T, task *Task, path string, content []byte, perm uint32) {
	t.Helper()
	c := task.vfsContext()
	if err := task.p.fs.ns.MkdirAll(c, filepath.Dir(path), 0o755); err != nil {
		t.Fatalf("%s: %v", path, err)
	}
	if err := task.p.fs.ns.WriteFile(c, path, content, perm); err != nil {
		t.Fatalf("%s: %v", path, err)
	}
}

func TestExecveReplacesTheProgram(t *testing.T) {
	prog, err := os.ReadFile("/bin/true")
	if err != nil {
		t.Skip(err)
	}
	f, err := elf.NewFile(bytes.NewReader(prog))
	if err != nil {
		t.Fatal(err)
	}
	var interp string
	for _, p := range f.Progs {
		if p.Type == elf.PT_INTERP {
			b := make([]byte, p.Filesz)
			p.ReadAt(b, 0)
			interp = string(b[:len(b)-1])
		}
	}
	ld, err := os.ReadFile(interp)
	if err != nil {
		t.Skip(err)
	}
	task, mem := newTestTask(t, Config{Dir: "/"})
	writeGuest(t, task, "/bin/prog", prog, 0o755)
	writeGuest(t, task, interp, ld, 0o755)
	writeGuest(t, task, "/bin/script", []byte("#! /bin/prog  an argument \n"), 0o755)
	p := task.p
	for i, flags := range []uint32{unix.O_RDONLY, unix.O_RDONLY | unix.O_CLOEXEC} {
		m := argMemory{t, mem}
		if fd, err := task.openat(unix.AT_FDCWD, m.str("/bin/prog"), flags, 0, 0); err != nil || int(fd) != i {
			t.Fatalf("open: %d, %v", fd, err)
		}
	}
	p.sighand.actions[10] = linux.SigAction{Handler: 0x1234}
	p.sighand.actions[12] = linux.SigAction{Handler: linux.SIG_IGN}
	task.altstack = linux.SignalStack{Addr: 1, Size: 2}
	task.ctx.Rbx = 77

	m := argMemory{t, mem}
	if _, err := sysExecve(task, Args{m.str("/bin/script"), m.array("name", "one", ""), m.array("A=1", "B=2")}); err != nil {
		t.Fatal(err)
	}
	if size := p.as.Size(); size >= testMemory {
		t.Errorf("%d bytes are mapped: the old program's memory is still there", size)
	}
	if fds := p.fds.Open(); len(fds) != 1 || fds[0] != 0 {
		t.Errorf("descriptors %v are open, want 0", fds)
	}
	if p.sighand.get(10).Handler != linux.SIG_DFL || p.sighand.get(12).Handler != linux.SIG_IGN || task.altstack.Size != 0 {
		t.Error("signal handlers are not as execve leaves them")
	}
	if task.name() != "script" {
		t.Errorf("comm is %q", task.name())
	}
	ps := procSource{task.k}.Process(p.pid)
	cmdline, _ := ps.Cmdline()
	environ, _ := ps.Environ()
	if want := "/bin/prog\x00an argument\x00/bin/script\x00one\x00\x00"; string(cmdline) != want {
		t.Errorf("cmdline %q, want %q", cmdline, want)
	}
	if string(environ) != "A=1\x00B=2\x00" {
		t.Errorf("environ %q", environ)
	}
	if ps.Exe.Name() != "prog" {
		t.Errorf("exe is %q", ps.Exe.Name())
	}
	lf, _ := elf.NewFile(bytes.NewReader(ld))
	var base uint64
	maps, _ := ps.Maps()
	var names []string
	for _, v := range maps {
		if v.Name == interp || strings.HasSuffix(v.Name, filepath.Base(interp)) {
			if base == 0 {
				base = v.Start
			}
		}
		names = append(names, v.Name)
	}
	if task.ctx.Rip != base+lf.Entry || task.ctx.Rbx != 0 || task.ctx.Rsp%16 != 0 {
		t.Errorf("rip %#x, want %#x; rbx %#x, rsp %#x; mappings %q", task.ctx.Rip, base+lf.Entry, task.ctx.Rbx, task.ctx.Rsp, names)
	}
}

// TestExecveErrors starts the same broken files natively and here.
func TestExecveErrors(t *testing.T) {
	prog, err := os.ReadFile("/bin/true")
	if err != nil {
		t.Skip(err)
	}
	const interp = "/lib64/ld-linux-x86-64.so.2"
	at := bytes.Index(prog, []byte(interp+"\x00"))
	if at < 0 {
		t.Skip("/bin/true is not dynamic")
	}
	dir := t.TempDir()
	edit := func(f func(b []byte)) []byte { b := bytes.Clone(prog); f(b); return b }
	files := map[string][]byte{
		"empty": nil, "text": []byte("hello\n"), "magic": []byte("\x7fELF"), "header": prog[:64],
		"phdrs":      prog[:200],
		"machine":    edit(func(b []byte) { b[18] = 183 }),
		"type":       edit(func(b []byte) { b[16] = 1 }),
		"phentsize":  edit(func(b []byte) { b[54] = 32 }),
		"phnum0":     edit(func(b []byte) { b[56] = 0 }),
		"phoff":      edit(func(b []byte) { b[38] = 1 }),
		"nointerp":   edit(func(b []byte) { copy(b[at:], "/no/such/file\x00") }),
		"dirinterp":  edit(func(b []byte) { copy(b[at:], "/\x00") }),
		"unended":    edit(func(b []byte) { b[at+len(interp)] = 'x' }),
		"badinterp":  edit(func(b []byte) { copy(b[at:], dir+"/t\x00") }),
		"t":          []byte("this is no ELF file, but longer than the header of one: so it is ELIBBAD.............."),
		"loop":       []byte("#!" + dir + "/loop\n"),
		"noscript":   []byte("#!/no/such/interpreter\n"),
		"dirscript":  []byte("#!/\n"),
		"emptyline":  []byte("#!\n"),
		"textscript": []byte("#!" + dir + "/text\n"),
		"noexec":     prog, "directory": nil,
	}
	if len(dir)+3 > len(interp) {
		delete(files, "badinterp") // no room for the path
	}
	for i := 0; i <= maxInterpreters; i++ {
		files[fmt.Sprintf("chain%d", i)] = []byte(fmt.Sprintf("#!%s/chain%d\n", dir, i+1))
	}
	files[fmt.Sprintf("chain%d", maxInterpreters+1)] = []byte("#!/no/such/interpreter\n")
	task, mem := newTestTask(t, Config{Dir: "/"})
	for name, content := range files {
		path := filepath.Join(dir, name)
		perm := uint32(0o755)
		if name == "noexec" {
			perm = 0o644
		}
		if name == "directory" {
			os.Mkdir(path, 0o755)
			if err := task.p.fs.ns.MkdirAll(task.vfsContext(), path, 0o755); err != nil {
				t.Fatal(err)
			}
			continue
		}
		if err := os.WriteFile(path, content, os.FileMode(perm)); err != nil {
			t.Fatal(err)
		}
		writeGuest(t, task, path, content, perm)
	}
	for name := range files {
		path := filepath.Join(dir, name)
		nerr := (&exec.Cmd{Path: path, Args: []string{path}}).Run()
		var want unix.Errno
		var pe *os.PathError
		if nerr != nil && errors.As(nerr, &pe) {
			errors.As(pe.Err, &want)
		}
		m := argMemory{t, mem}
		_, err := sysExecve(task, Args{m.str(path), m.array(path), 0})
		var got unix.Errno
		if err != nil {
			got = asErrno(err)
		}
		if want == 0 {
			t.Fatalf("%s: Linux ran it: %v", name, nerr)
		}
		if got != want {
			t.Errorf("%s: %v (%v), Linux says %v", name, got, err, want)
		}
	}
	m := argMemory{t, mem}
	for name, a := range map[string]struct {
		a    Args
		want error
	}{
		"bad path":  {Args{8, 0, 0}, unix.EFAULT},
		"bad array": {Args{m.str(dir + "/noexec"), 8, 0}, unix.EFAULT},
		"no file":   {Args{m.str(dir + "/nothing"), 0, 0}, unix.ENOENT},
		"no name":   {Args{m.str(""), 0, 0}, unix.ENOENT},
	} {
		if _, err := sysExecve(task, a.a); err != a.want {
			t.Errorf("%s: %v, want %v", name, err, a.want)
		}
	}
}

// TestFirstProgram looks programs up as a container engine does.
func TestFirstProgram(t *testing.T) {
	task, _ := newTestTask(t, Config{Dir: "/"})
	writeGuest(t, task, "/a/plain", []byte("text"), 0o644)
	writeGuest(t, task, "/b/plain", []byte("text"), 0o755)
	writeGuest(t, task, "/a/only", []byte("text"), 0o644)
	env := []string{"PATH=/a:/b"}
	for name, want := range map[string]unix.Errno{"plain": unix.ENOEXEC, "only": unix.EACCES, "none": unix.ENOENT, "/a/plain": unix.EACCES, "": unix.ENOENT} {
		err := task.loadFirst([]string{name}, env)
		if err == nil || asErrno(err) != want {
			t.Errorf("%q: %v, want %v", name, err, want)
		}
	}
	if err := task.loadFirst(nil, env); err == nil || !strings.Contains(err.Error(), "Entrypoint") {
		t.Errorf("no arguments: %v", err)
	}
}
