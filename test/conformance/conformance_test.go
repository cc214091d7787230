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

// compare runs the program natively and inside, in an empty directory each,
// with the libraries that ldd does not name. It returns how many lines were
// compared.
func compare(t *testing.T, program string, libraries ...string) int {
	t.Helper()
	want := nablatest.Run(t, t.TempDir(), program)
	root := nablatest.RootFS(t, program)
	for _, l := range libraries {
		nablatest.CopyFile(t, l, filepath.Join(root, l))
	}
	got := nablatest.Run(t, t.TempDir(), nablatest.Binary(t), "run", "--net", "none",
		"--entrypoint", `["/bin/`+filepath.Base(program)+`"]`, "--workdir", "/work", "rootfs:"+root)
	return judge(t, got, want)
}

// judge fails the test where the two runs differ. It returns how many lines were
// compared.
func judge(t *testing.T, got, want nablatest.Result) int {
	t.Helper()
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
	return strings.Count(want.Stdout, "\n")
}

// muslLoader is the interpreter of programs linked with musl, and its libc.
const muslLoader = "/lib/ld-musl-x86_64.so.1"

// leastAssertions is how many lines the C programs must compare together, each
// counted once.
const leastAssertions = 400

func TestC(t *testing.T) {
	sources, err := filepath.Glob("c/*.c")
	if err != nil || len(sources) == 0 {
		t.Fatalf("no programs: %v", err)
	}
	// The kernel's headers, for those that musl does not have.
	headers := []string{"-idirafter", "/usr/include", "-idirafter", "/usr/include/x86_64-linux-gnu"}
	lines, programs := 0, 0
	for _, src := range sources {
		name := strings.TrimSuffix(filepath.Base(src), ".c")
		for _, how := range []struct {
			name, compiler string
			flags          []string
			libraries      []string
		}{
			{"static", "gcc", []string{"-static"}, nil},
			{"dynamic", "gcc", []string{"-pie", "-fPIE"}, nil},
			{"fixed-address", "gcc", []string{"-no-pie"}, nil},
			{"musl-static", "musl-gcc", append(headers, "-static"), nil},
			{"musl-dynamic", "musl-gcc", append(headers, "-pie", "-fPIE"), []string{muslLoader}},
		} {
			t.Run(name+"/"+how.name, func(t *testing.T) {
				bin := filepath.Join(t.TempDir(), name)
				build(t, append([]string{how.compiler, "-O1", "-w", "-pthread", "-o", bin, src}, how.flags...)...)
				n := compare(t, bin, how.libraries...)
				if how.name == "static" {
					lines += n
					programs++
				}
			})
		}
	}
	if programs < len(sources) {
		return // only some were asked for
	}
	t.Logf("%d assertions in %d programs, each built in five ways", lines, programs)
	if lines < leastAssertions {
		t.Errorf("%d assertions, fewer than %d", lines, leastAssertions)
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
