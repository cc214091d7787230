//go:build integration

package conformance

import (
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/nabla-build/nabla-build/test/nablatest"
)

// build compiles a program, or fails the test with the compiler's words.
func build(t *testing.T, argv ...string) {
	t.Helper()
	cmd := exec.Command(argv[0], argv[1:]...)
	cmd.Env = append(os.Environ(), "CGO_ENABLED=0")
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("%s: %v\n%s", strings.Join(argv, " "), err, out)
	}
}

// compare runs the program natively and inside, in an empty directory each.
func compare(t *testing.T, program string) {
	t.Helper()
	want := nablatest.Run(t, t.TempDir(), program)
	root := nablatest.RootFS(t, program)
	got := nablatest.Run(t, t.TempDir(), nablatest.Binary(t), "run", "--net", "none",
		"--entrypoint", `["/bin/`+filepath.Base(program)+`"]`, "--workdir", "/work", "rootfs:"+root)
	if got.Status != want.Status {
		t.Errorf("exit status %d, natively %d", got.Status, want.Status)
	}
	g, w := strings.Split(got.Stdout, "\n"), strings.Split(want.Stdout, "\n")
	for i := range max(len(g), len(w)) {
		var a, b string
		if i < len(g) {
			a = g[i]
		}
		if i < len(w) {
			b = w[i]
		}
		if a != b {
			t.Errorf("line %d:\n    inside:   %s\n    natively: %s", i+1, a, b)
		}
	}
	if len(w) < 5 {
		t.Errorf("the program printed only %d lines natively: it asserts nothing", len(w))
	}
	if t.Failed() {
		t.Logf("stderr inside:\n%s", got.Stderr)
	}
}

func TestC(t *testing.T) {
	sources, err := filepath.Glob("c/*.c")
	if err != nil || len(sources) == 0 {
		t.Fatalf("no programs: %v", err)
	}
	for _, src := range sources {
		name := strings.TrimSuffix(filepath.Base(src), ".c")
		for _, how := range []struct {
			name  string
			flags []string
		}{
			{"static", []string{"-static"}},
			{"dynamic", []string{"-pie", "-fPIE"}},
			{"fixed-address", []string{"-no-pie"}},
		} {
			t.Run(name+"/"+how.name, func(t *testing.T) {
				bin := filepath.Join(t.TempDir(), name)
				build(t, append([]string{"gcc", "-O1", "-w", "-pthread", "-o", bin, src}, how.flags...)...)
				compare(t, bin)
			})
		}
	}
}

func TestGo(t *testing.T) {
	for _, dir := range []string{"./go/stdlib"} {
		t.Run(filepath.Base(dir), func(t *testing.T) {
			bin := filepath.Join(t.TempDir(), filepath.Base(dir))
			build(t, "go", "build", "-o", bin, dir)
			compare(t, bin)
		})
	}
}
