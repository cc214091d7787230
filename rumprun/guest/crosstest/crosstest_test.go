package main

import (
	"errors"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
)

// program builds the harness through cmd/nabla-go, and its guest.
func program(t testing.TB) (harness, guest string) {
	t.Helper()
	dir := t.TempDir()
	harness, guest = filepath.Join(dir, "crosstest"), filepath.Join(dir, "guest")
	gcc, err := exec.LookPath("gcc")
	if err != nil {
		t.Skip("gcc is not installed: the guest of this test is assembly")
	}
	for _, c := range []*exec.Cmd{
		exec.Command(gcc, "-nostdlib", "-static", "-Wl,-Ttext-segment=0x400000", "-o", guest, "guest.S"),
		exec.Command("go", "run", "../../../cmd/nabla-go", "-o", harness, "."),
	} {
		if out, err := c.CombinedOutput(); err != nil {
			t.Fatalf("%v: %v\n%s", c.Args, err, out)
		}
	}
	return harness, guest
}

func TestCrossing(t *testing.T) {
	harness, guest := program(t)
	run := func(t *testing.T, args ...string) (string, int) {
		t.Helper()
		out, err := exec.Command(harness, append(args, guest)...).CombinedOutput()
		var ee *exec.ExitError
		if errors.As(err, &ee) {
			return string(out), ee.ExitCode()
		}
		if err != nil {
			t.Fatal(err)
		}
		return string(out), 0
	}
	ok := func(t *testing.T, args ...string) {
		t.Helper()
		out, code := run(t, args...)
		if code != 0 || !strings.Contains(out, "ok ") {
			t.Errorf("%v: exit status %d\n%s", args, code, out)
		}
	}
	// Every register over every event, by each variant that this processor has.
	for _, v := range []string{"auto", "xmm", "ymm", "zmm", "xsave"} {
		for _, fs := range []string{"-nofsgsbase=false", "-nofsgsbase"} {
			t.Run("registers/"+v+"/"+fs, func(t *testing.T) {
				out, code := run(t, "-variant", v, fs, "registers")
				if strings.Contains(out, "cannot keep registers by variant") && v != "auto" {
					t.Skip(out)
				}
				if code != 0 || !strings.Contains(out, "ok registers") {
					t.Fatalf("exit status %d\n%s", code, out)
				}
				ok(t, "-variant", v, fs, "odd")
			})
		}
	}
	t.Run("one thread", func(t *testing.T) { ok(t, "-threads", "1", "registers") })
	t.Run("many threads", func(t *testing.T) { ok(t, "-threads", "40", "-rounds", "4", "registers") })
	// The timer hits Go code.
	t.Run("storm", func(t *testing.T) { ok(t, "storm") })
	t.Run("panics", func(t *testing.T) { ok(t, "panics") })
	t.Run("hostcall", func(t *testing.T) {
		out, code := run(t, "hostcall")
		if code != 159 || !strings.Contains(out, "library OS bug: host system call 39 at pc 0x") || strings.Count(out, "\n") != 1 {
			t.Errorf("exit status %d, want 159 and one line\n%s", code, out)
		}
	})
	t.Run("unrecovered", func(t *testing.T) {
		out, code := run(t, "unmapped")
		if code != 2 || !strings.Contains(out, "nil pointer dereference") || !strings.Contains(out, "goroutine ") {
			t.Errorf("exit status %d, want 2 and a Go panic\n%s", code, out)
		}
	})
}

// TestNativeRefuses checks that the ordinary build says what it is.
func TestNativeRefuses(t *testing.T) {
	out, err := exec.Command("go", "run", ".").CombinedOutput()
	if err == nil || !strings.Contains(string(out), "cmd/nabla-go") {
		t.Errorf("%v\n%s", err, out)
	}
}

// BenchmarkCall prints what a call costs by each way against a native one.
func BenchmarkCall(b *testing.B) {
	harness, guest := program(b)
	for _, v := range []string{"xmm", "ymm", "zmm", "xsave"} {
		out, err := exec.Command(harness, "-variant", v, "bench", guest).CombinedOutput()
		if err != nil && !strings.Contains(string(out), "cannot keep registers by variant") {
			b.Fatalf("%v\n%s", err, out)
		}
		b.Logf("%s: %s", v, out)
	}
}
