package gsbase

import (
	"bytes"
	"debug/elf"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
)

// build links a small Go program, with a stand-in for the fixup routine.
func build(t *testing.T, ldflags string) []byte {
	t.Helper()
	dir := t.TempDir()
	write := func(name, text string) {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	write("go.mod", "module x\n\ngo 1.26\n")
	write("main.go", "package main\n\nfunc fixup()\n\nvar never bool\n\nfunc main() {\n\tif never {\n\t\tfixup()\n\t}\n\tc := make(chan int)\n\tgo func() { c <- 1 }()\n\tprintln(<-c)\n}\n")
	write("fixup_amd64.s", "#include \"textflag.h\"\n\nTEXT ·fixup(SB),NOSPLIT|NOFRAME,$0\n\tRET\n")
	cmd := exec.Command("go", "build", "-ldflags="+ldflags, "-o", "out", ".")
	cmd.Dir = dir
	cmd.Env = append(os.Environ(), "CGO_ENABLED=0", "GOFLAGS=")
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	b, err := os.ReadFile(filepath.Join(dir, "out"))
	if err != nil {
		t.Fatal(err)
	}
	return b
}

const fixup = "main.fixup.abi0"

func TestRewrite(t *testing.T) {
	b := build(t, "")
	orig := bytes.Clone(b)
	r, err := Rewrite(b, fixup)
	if err != nil {
		t.Fatal(err)
	}
	if r.Accesses < 50 {
		t.Errorf("%d accesses to g: a Go program has more", r.Accesses)
	}
	// Only prefixes, settls and clone's child have changed.
	changed := 0
	for i := range b {
		if b[i] != orig[i] {
			if changed++; orig[i] == 0x64 && b[i] == 0x65 {
				continue
			}
		}
	}
	if extra := changed - r.Accesses; extra < 2 || extra > 8 {
		t.Errorf("%d bytes changed beside the %d prefixes: settls is 1, clone's child at most 7", extra, r.Accesses)
	}
	if _, err := Rewrite(b, fixup); err == nil {
		t.Error("a second rewrite found something to do")
	}
}

func TestRefuses(t *testing.T) {
	b := build(t, "")
	for name, tt := range map[string]struct {
		b     []byte
		fixup string
		want  string
	}{
		"no such fixup": {bytes.Clone(b), "main.other", "main.other"},
		"stripped":      {build(t, "-s"), fixup, "symbol table"},
		"not an object": {[]byte("hello"), fixup, "gs rewrite"},
		"cut short":     {b[:len(b)/4], fixup, "gs rewrite"},
	} {
		if _, err := Rewrite(tt.b, tt.fixup); err == nil || !strings.Contains(err.Error(), tt.want) {
			t.Errorf("%s: got %v, want something about %q", name, err, tt.want)
		}
	}
	// An access in bytes that belong to no function.
	c := bytes.Clone(b)
	i := bytes.Index(c, bytes.Repeat([]byte{0xcc}, 16))
	if i < 0 {
		t.Fatal("no padding between functions in the test program")
	}
	copy(c[i:], []byte{0x64, 0x4c, 0x8b, 0x34, 0x25, 0xf8, 0xff, 0xff, 0xff})
	if _, err := Rewrite(c, fixup); err == nil || !strings.Contains(err.Error(), "lies in no function") {
		t.Errorf("an access outside functions: got %v", err)
	}
}

// patchMain puts code at the start of main.main of a copy of the program.
func patchMain(t *testing.T, b, code []byte) []byte {
	t.Helper()
	c := bytes.Clone(b)
	f, err := elf.NewFile(bytes.NewReader(c))
	if err != nil {
		t.Fatal(err)
	}
	syms, err := f.Symbols()
	if err != nil {
		t.Fatal(err)
	}
	text := f.Section(".text")
	for _, s := range syms {
		if s.Name == "main.main" && s.Size >= uint64(len(code)) {
			copy(c[text.Offset+s.Value-text.Addr:], code)
			return c
		}
	}
	t.Fatal("no main.main in the test program")
	return nil
}

// TestRefusesUnknown: what is neither an access to g nor free of fs stops the
// rewrite.
func TestRefusesUnknown(t *testing.T) {
	b := build(t, "")
	for name, tt := range map[string]struct {
		code []byte
		want string
	}{
		"another word":     {[]byte{0x64, 0x48, 0x8b, 0x04, 0x25, 0, 0, 0, 0}, "uses fs"},             // mov %fs:0,%rax
		"half of g":        {[]byte{0x64, 0x8b, 0x04, 0x25, 0xf8, 0xff, 0xff, 0xff}, "uses fs"},       // mov %fs:-8,%eax
		"second prefix":    {[]byte{0x66, 0x64, 0x8b, 0x04, 0x25, 0xf8, 0xff, 0xff, 0xff}, "uses fs"}, // mov %fs:-8,%ax
		"through register": {[]byte{0x64, 0x48, 0x8b, 0x03}, "uses fs"},                               // mov %fs:(%rbx),%rax
		"no instruction":   {[]byte{0x06}, "not an instruction"},                                      // push %es, not in 64-bit mode
	} {
		if _, err := Rewrite(patchMain(t, b, tt.code), fixup); err == nil || !strings.Contains(err.Error(), tt.want) || !strings.Contains(err.Error(), "main.main") {
			t.Errorf("%s: got %v, want an error that names main.main and says %q", name, err, tt.want)
		}
	}
	// The bytes of an access to g within another instruction are left alone:
	// there they are no access, and what is left is refused.
	in := append([]byte{0x48, 0xb8}, 0x64, 0x48, 0x8b, 0x04, 0x25, 0xf8, 0xff, 0xff, 0xff) // movabs, then its last byte starts the next
	if _, err := Rewrite(patchMain(t, b, in), fixup); err == nil {
		t.Error("an access hidden in a constant: no error")
	}
}
