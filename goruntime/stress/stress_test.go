package main

import (
	"os/exec"
	"path/filepath"
	"testing"
)

// TestStress is the short form of `make stress`: a few runs, some with the
// collector's own checks on.
func TestStress(t *testing.T) {
	bin := filepath.Join(t.TempDir(), "stress")
	if out, err := exec.Command("go", "run", "../../cmd/nabla-go", "-environment", "-o", bin, ".").CombinedOutput(); err != nil {
		t.Fatalf("build: %v\n%s", err, out)
	}
	for _, godebug := range []string{"", "", "gccheckmark=1", "clobberfree=1", "gcstoptheworld=1"} {
		cmd := exec.Command(bin, "0.5")
		cmd.Env = []string{"GODEBUG=" + godebug}
		if out, err := cmd.CombinedOutput(); err != nil {
			t.Errorf("GODEBUG=%s: %v\n%s", godebug, err, out)
		}
	}
}
