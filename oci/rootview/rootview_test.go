package rootview

import (
	"bytes"
	"errors"
	"io/fs"
	"strings"
	"testing"

	"github.com/nabla-build/nabla-build/archive"
)

// layer makes an archive of lines: "d NAME", "f NAME CONTENT", "l NAME TARGET",
// "h NAME TARGET" (hard link), "w NAME" (whiteout), "o NAME" (opaque).
func layer(t *testing.T, lines ...string) *archive.Reader {
	t.Helper()
	var b bytes.Buffer
	w := archive.NewWriter(&b)
	for _, l := range lines {
		f := strings.Fields(l)
		var err error
		switch f[0] {
		case "d":
			err = w.Add(archive.Header{Name: f[1], Mode: 0o40750}, nil)
		case "f":
			err = w.Add(archive.Header{Name: f[1], Mode: 0o100644, Size: int64(len(f[2]))}, strings.NewReader(f[2]))
		case "l":
			err = w.Add(archive.Header{Name: f[1], Mode: 0o120777, Link: f[2]}, nil)
		case "h":
			err = w.HardLink(f[1], f[2])
		case "w":
			err = w.Whiteout(f[1])
		case "o":
			err = w.Opaque(f[1])
		}
		if err != nil {
			t.Fatal(err)
		}
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	r, err := archive.Open(b.Bytes())
	if err != nil {
		t.Fatal(err)
	}
	return r
}

func TestLookup(t *testing.T) {
	v := View{
		layer(t, "d bin", "f bin/sh lower", "f bin/gone x", "d opt", "f opt/old x", "d usr", "d usr/lib", "f usr/lib/so lib", "l lib usr/lib",
			"l abs /bin/sh", "l out ../../../bin/sh", "l loop1 loop2", "l loop2 loop1", "f kept kept", "d was", "f was/in x", "d back", "f back/old x"),
		layer(t, "w bin/gone", "o opt", "f opt/new new", "f bin/extra upper", "h hard kept", "w was", "w back", "f back/new new"),
		layer(t, "f bin/sh top", "f was now-a-file"),
	}
	for path, want := range map[string]string{
		"/bin/sh": "top", "bin/sh": "top", "/bin/extra": "upper", "/opt/new": "new", "/lib/so": "lib", "/abs": "top", "/out": "top",
		"/hard": "kept", "/was": "now-a-file", "/lib/../../bin/./sh": "top", "/back/new": "new", "/../kept": "kept",
	} {
		b, err := v.ReadFile(path, 100)
		if err != nil || string(b) != want {
			t.Errorf("%s: %q, %v; want %q", path, b, err, want)
		}
	}
	for path, want := range map[string]error{
		"/bin/gone": fs.ErrNotExist, "/opt/old": fs.ErrNotExist, "/nothing": fs.ErrNotExist, "/bin/sh/x": ErrNotDir,
		"/loop1": ErrLoop, "/back/old": fs.ErrNotExist, "/lib/none": fs.ErrNotExist,
	} {
		if _, err := v.Lookup(path); !errors.Is(err, want) {
			t.Errorf("%s: %v, want %v", path, err, want)
		}
	}
	for path, want := range map[string]string{"/": "/", "/lib": "/usr/lib", "/bin/": "/bin", "/lib/so": "/usr/lib/so"} {
		f, err := v.Lookup(path)
		if err != nil || f.Path != want {
			t.Errorf("%s: %s, %v; want %s", path, f.Path, err, want)
		}
	}
	if f, err := v.Lookup("/bin"); err != nil || f.Mode() != 0o40750 {
		t.Errorf("/bin: mode %o, %v: an implied directory hides the described one", f.Mode(), err)
	}
	if _, err := v.ReadFile("/bin", 100); err == nil {
		t.Error("a directory was read")
	}
	if _, err := v.ReadFile("/kept", 3); err == nil {
		t.Error("more than the limit was read")
	}
	if _, err := (View{}).Lookup("/"); !errors.Is(err, fs.ErrNotExist) {
		t.Error(err)
	}
}
