package overlay

import (
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"testing"
)

func goroot(t *testing.T) string {
	t.Helper()
	out, err := exec.Command("go", "env", "GOROOT").Output()
	if err != nil {
		t.Fatal(err)
	}
	return strings.TrimSpace(string(out))
}

func TestGenerate(t *testing.T) {
	dir := t.TempDir()
	for _, environment := range []bool{false, true} {
		j, err := Generate(dir, Options{GoRoot: goroot(t), GoVersion: runtime.Version(), Environment: environment})
		if err != nil {
			t.Fatal(err)
		}
		b, err := os.ReadFile(j)
		if err != nil {
			t.Fatal(err)
		}
		for _, f := range []string{"proc.go", "netpoll_epoll.go", "nabla_amd64.s"} {
			if !strings.Contains(string(b), filepath.Join("src/runtime", f)) {
				t.Errorf("overlay.json does not name %s", f)
			}
		}
	}
}

// TestMissingAnchor takes away each anchor in turn from a copy of the
// runtime's sources.
func TestMissingAnchor(t *testing.T) {
	root := goroot(t)
	sets := []map[string][]edit{edits, environmentEdits}
	for _, set := range sets {
		for file, es := range set {
			for _, e := range es {
				tree := t.TempDir()
				src := filepath.Join(tree, "src", "runtime")
				if err := os.MkdirAll(src, 0o755); err != nil {
					t.Fatal(err)
				}
				for _, s := range sets {
					for f := range s {
						b, err := os.ReadFile(filepath.Join(root, "src", "runtime", f))
						if err != nil {
							t.Fatal(err)
						}
						if f == file {
							b = []byte(strings.ReplaceAll(string(b), e.old, ""))
						}
						if err := os.WriteFile(filepath.Join(src, f), b, 0o644); err != nil {
							t.Fatal(err)
						}
					}
				}
				_, err := Generate(t.TempDir(), Options{GoRoot: tree, GoVersion: "go9.99"})
				var ae *AnchorError
				if !errors.As(err, &ae) || ae.File != file || ae.GoVersion != "go9.99" {
					t.Errorf("%s without %q: got %v, want an AnchorError that names both", file, e.old, err)
				}
			}
		}
	}
}

// TestAmbiguousAnchor has each anchor twice.
func TestAmbiguousAnchor(t *testing.T) {
	for file, es := range edits {
		for _, e := range es {
			if e.all {
				continue
			}
			src := filepath.Join(t.TempDir(), "src", "runtime")
			if err := os.MkdirAll(src, 0o755); err != nil {
				t.Fatal(err)
			}
			for f := range edits {
				b, err := os.ReadFile(filepath.Join(goroot(t), "src", "runtime", f))
				if err != nil {
					t.Fatal(err)
				}
				if f == file {
					b = append(b, e.old...)
				}
				if err := os.WriteFile(filepath.Join(src, f), b, 0o644); err != nil {
					t.Fatal(err)
				}
			}
			_, err := Generate(t.TempDir(), Options{GoRoot: filepath.Dir(filepath.Dir(src)), GoVersion: "go9.99", Environment: true})
			var ae *AnchorError
			if !errors.As(err, &ae) || ae.File != file || ae.Found != 2 {
				t.Errorf("%s with %q twice: got %v, want an AnchorError that says so", file, e.old, err)
			}
		}
	}
}

// TestPlace: one place for the same content, another for other content, and
// nothing written where an anchor is missing.
func TestPlace(t *testing.T) {
	dir := t.TempDir()
	o := Options{GoRoot: goroot(t), GoVersion: runtime.Version()}
	gen := func(o Options) string {
		t.Helper()
		p, err := Generate(dir, o)
		if err != nil {
			t.Fatal(err)
		}
		return p
	}
	first := gen(o)
	if second := gen(o); second != first {
		t.Errorf("the same overlay at %s and at %s", first, second)
	}
	o.Environment = true
	if other := gen(o); other == first {
		t.Errorf("two overlays at %s", first)
	}
	empty := filepath.Join(t.TempDir(), "out")
	if _, err := Generate(empty, Options{GoRoot: t.TempDir()}); err == nil {
		t.Error("no sources: no error")
	}
	if _, err := os.Stat(empty); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("a failed Generate has written to %s (%v)", empty, err)
	}
}
