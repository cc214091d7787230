//go:build integration

package conformance

import (
	"path/filepath"
	"strings"
	"testing"

	"github.com/nabla-build/nabla-build/test/nablatest"
)

// TestChildren runs programs as parents and as their children. They are
// position-independent: two programs at the same fixed addresses are another
// matter.
func TestChildren(t *testing.T) {
	for _, how := range []struct {
		name string
		argv []string
	}{
		{"static", []string{"gcc", "-static-pie", "-fPIE"}},
		{"dynamic", []string{"gcc", "-pie", "-fPIE"}},
		{"musl", []string{"musl-gcc", "-static-pie", "-fPIE"}},
		{"musl-dynamic", []string{"musl-gcc", "-pie", "-fPIE"}},
	} {
		for _, program := range []string{"children", "jobs"} {
			t.Run(program+"/"+how.name, func(t *testing.T) {
				bin := filepath.Join(t.TempDir(), program)
				build(t, append(how.argv, "-pthread", "-O1", "-w", "-o", bin, "children/"+program+".c")...)
				compare(t, bin)
			})
		}
	}
}

// TestOSExec is the same for Go's os/exec.
func TestOSExec(t *testing.T) {
	bin := filepath.Join(t.TempDir(), "osexec")
	build(t, "go", "build", "-buildmode=pie", "-o", bin, "./go/osexec")
	compare(t, bin)
}

// TestSecondFixedProgram: a second program at the addresses of the first is
// refused, with a line that says why.
func TestSecondFixedProgram(t *testing.T) {
	bin := filepath.Join(t.TempDir(), "children")
	build(t, "gcc", "-static", "-no-pie", "-O1", "-w", "-o", bin, "children/children.c")
	root := nablatest.RootFS(t, bin)
	got := nablatest.Run(t, t.TempDir(), nablatest.Binary(t), "run", "--net", "none",
		"--entrypoint", `["/bin/children"]`, "--workdir", "/work", "rootfs:"+root)
	if want := "posix_spawn exit: Cannot allocate memory"; !strings.Contains(got.Stdout, want) {
		t.Errorf("the program does not say %q:\n%s", want, got.Stdout)
	}
	if want := "it is linked to the fixed addresses"; !strings.Contains(got.Stderr, want) {
		t.Errorf("the log does not say %q:\n%s", want, got.Stderr)
	}
}
