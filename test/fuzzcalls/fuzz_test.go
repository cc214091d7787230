//go:build integration

package fuzzcalls

import (
	"bytes"
	"context"
	"fmt"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/nabla-build/nabla-build/test/nablatest"
)

// seeds found something once. What they found is fixed; they stay.
var seeds = []uint64{
	4,  // getdents64 and a walk through /proc/self/fd of a directory: a deadlock
	15, // the same, by utime
	// 200: clone without CLONE_VM onto a bad stack: a SIGSEGV whose handler
	// has no stack was sent again and again. signals.c has it too.
}

// oneRun is how long the guest runs with one seed, in seconds.
const oneRun = 10

// bad is what the library OS or the Go runtime below it says when it fails.
var bad = regexp.MustCompile(`nabla: library OS|panic: |fatal error: |goroutine \d+ \[|SIGSEGV: |unexpected signal|HANG`)

// TestFuzz runs the fuzzer for NABLA_FUZZ (a duration; 30s without it), with
// the seeds above and then with new ones, which it prints. NABLA_FUZZ_SEED
// chooses the first of the new ones.
func TestFuzz(t *testing.T) {
	length := 30 * time.Second
	if v := os.Getenv("NABLA_FUZZ"); v != "" {
		var err error
		if length, err = time.ParseDuration(v); err != nil {
			t.Fatal(err)
		}
	}
	seed := rand.Uint64() >> 1
	if v := os.Getenv("NABLA_FUZZ_SEED"); v != "" {
		var err error
		if seed, err = strconv.ParseUint(v, 0, 64); err != nil {
			t.Fatal(err)
		}
	}
	program := filepath.Join(t.TempDir(), "fuzzcalls")
	if out, err := exec.Command("gcc", "-O1", "-w", "-static", "-pthread", "-o", program, "c/fuzzcalls.c").CombinedOutput(); err != nil {
		t.Fatalf("compile c/fuzzcalls.c: %v\n%s", err, out)
	}
	root := nablatest.RootFS(t, program)
	if err := os.WriteFile(filepath.Join(root, "fuzz-inside"), nil, 0o644); err != nil {
		t.Fatal(err)
	}
	end := time.Now().Add(length)
	var calls, runs, finished int
	for n := 0; n == 0 || time.Now().Before(end); n++ {
		s := seed + uint64(n)
		if n < len(seeds) && time.Now().Add(3*oneRun*time.Second).Before(end) {
			s = seeds[n]
		}
		c, done := run(t, root, s)
		runs++
		calls += c
		if done {
			finished++
		}
	}
	t.Logf("%d runs, %d to their end, %d calls; the first new seed was %d", runs, finished, calls, seed)
	// The guest may shoot itself in the foot, but not as a rule.
	if 2*finished < runs {
		t.Errorf("only %d of %d runs came to their end", finished, runs)
	}
}

// run runs the guest with one seed, and fails the test if the library OS did
// not stand it.
func run(t *testing.T, root string, seed uint64) (calls int, finished bool) {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), (oneRun+60)*time.Second)
	defer cancel()
	cmd := exec.CommandContext(ctx, nablatest.Binary(t), "run", "-q", "--net", "none", "-m", "512m",
		"--entrypoint", fmt.Sprintf(`["/bin/fuzzcalls","%d","%d"]`, seed, oneRun), "rootfs:"+root)
	var out bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &out
	err := cmd.Run()
	status := 0
	if ee, ok := err.(*exec.ExitError); ok {
		status = ee.ExitCode()
		if ws, ok := ee.Sys().(syscall.WaitStatus); ok && ws.Signaled() {
			status = 128 + int(ws.Signal())
		}
	} else if err != nil {
		t.Fatalf("seed %d: %v", seed, err)
	}
	text := strings.ToValidUTF8(strings.ReplaceAll(out.String(), "\x00", ""), "?")
	if m := regexp.MustCompile(`fuzzcalls: (\d+) calls`).FindStringSubmatch(text); m != nil {
		calls, _ = strconv.Atoi(m[1])
	}
	why := ""
	switch {
	case ctx.Err() != nil:
		why = "no end"
	case status == 128+int(syscall.SIGSYS):
		why = "ended by the filter"
	case status == 2:
		why = "the Go runtime ended it"
	case status == 3:
		why = "a call hangs"
	case bad.MatchString(text):
		why = "the library OS failed"
	}
	if why != "" {
		if len(text) > 8000 {
			text = text[len(text)-8000:]
		}
		t.Errorf("seed %d: %s (status %d); NABLA_FUZZ_SEED=%d runs it again\n%s", seed, why, status, seed, text)
	}
	return calls, status == 0
}
