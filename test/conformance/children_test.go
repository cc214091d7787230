//go:build integration

package conformance

import (
	"path/filepath"
	"testing"
)

// TestChildren runs programs as parents and as their children. Linked to fixed
// addresses, they take turns there.
func TestChildren(t *testing.T) {
	for _, how := range []struct {
		name string
		argv []string
	}{
		{"static", []string{"gcc", "-static-pie", "-fPIE"}},
		{"dynamic", []string{"gcc", "-pie", "-fPIE"}},
		{"musl", []string{"musl-gcc", "-static-pie", "-fPIE"}},
		{"musl-dynamic", []string{"musl-gcc", "-pie", "-fPIE"}},
		{"static, fixed addresses", []string{"gcc", "-static", "-no-pie"}},
		{"dynamic, fixed addresses", []string{"gcc", "-no-pie"}},
		{"musl, fixed addresses", []string{"musl-gcc", "-static", "-no-pie"}},
	} {
		for _, program := range []string{"children", "jobs", "locks", "session"} {
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
	for _, mode := range []string{"pie", "exe"} {
		t.Run(mode, func(t *testing.T) {
			bin := filepath.Join(t.TempDir(), "osexec")
			build(t, "go", "build", "-buildmode="+mode, "-o", bin, "./go/osexec")
			compare(t, bin)
		})
	}
}
