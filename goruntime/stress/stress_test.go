package main

import (
	"os/exec"
	"path/filepath"
	"strings"
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

// TestEnvironmentIgnored: the variables of the container are the guest's.
// gctrace would print, GOMAXPROCS is checked by the program itself.
func TestEnvironmentIgnored(t *testing.T) {
	bin := filepath.Join(t.TempDir(), "stress")
	if out, err := exec.Command("go", "run", "../../cmd/nabla-go", "-o", bin, ".").CombinedOutput(); err != nil {
		t.Fatalf("build: %v\n%s", err, out)
	}
	cmd := exec.Command(bin, "0.3")
	cmd.Env = []string{"GODEBUG=gctrace=1,inittrace=1", "GOMAXPROCS=4", "GOGC=off", "GOMEMLIMIT=1KiB", "GOTRACEBACK=crash"}
	out, err := cmd.CombinedOutput()
	if err != nil || !strings.HasPrefix(string(out), "ok: ") || strings.Count(string(out), "\n") != 1 {
		t.Errorf("%v, want only the line of the result:\n%s", err, out)
	}
}
