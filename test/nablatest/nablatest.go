// Package nablatest is what the integration tests share: where the built
// binary is, how root file systems for small programs are made, how a command
// is run and judged.
package nablatest

import (
	"bytes"
	"context"
	"debug/elf"
	"errors"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"
)

// Root is the repository's root.
func Root(t testing.TB) string {
	t.Helper()
	dir, err := os.Getwd()
	if err != nil {
		t.Fatal(err)
	}
	for {
		if _, err := os.Stat(filepath.Join(dir, "go.mod")); err == nil {
			return dir
		}
		up := filepath.Dir(dir)
		if up == dir {
			t.Fatal("no go.mod above the working directory")
		}
		dir = up
	}
}

// Binary is bin/nabla-build, which make builds.
func Binary(t testing.TB) string {
	t.Helper()
	bin := filepath.Join(Root(t), "bin", "nabla-build")
	if _, err := os.Stat(bin); err != nil {
		t.Fatalf("%s is not there: run make first (make test does)", bin)
	}
	return bin
}

// Result is what a command did.
type Result struct {
	Stdout, Stderr string
	Status         int // exit status; 128+signal if a signal ended it
}

// Run runs a command to its end. It fails the test if the command cannot be
// started or takes longer than a minute.
func Run(t testing.TB, dir string, argv ...string) Result {
	t.Helper()
	return RunEnv(t, dir, nil, argv...)
}

// RunEnv is Run with variables added to the environment.
func RunEnv(t testing.TB, dir string, env []string, argv ...string) Result {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	cmd := exec.CommandContext(ctx, argv[0], argv[1:]...)
	var out, errs bytes.Buffer
	cmd.Dir, cmd.Stdout, cmd.Stderr = dir, &out, &errs
	cmd.Env = append(os.Environ(), env...)
	err := cmd.Run()
	r := Result{Stdout: out.String(), Stderr: errs.String()}
	var ee *exec.ExitError
	switch {
	case ctx.Err() != nil:
		t.Fatalf("%s: no end after a minute\nstdout:\n%s\nstderr:\n%s", strings.Join(argv, " "), out.String(), errs.String())
	case errors.As(err, &ee):
		r.Status = ee.ExitCode()
		if ws, ok := ee.Sys().(syscall.WaitStatus); ok && ws.Signaled() {
			r.Status = 128 + int(ws.Signal())
		}
	case err != nil:
		t.Fatalf("%s: %v", strings.Join(argv, " "), err)
	}
	return r
}

// CopyFile copies a file with its mode.
func CopyFile(t testing.TB, from, to string) {
	t.Helper()
	in, err := os.Open(from)
	if err != nil {
		t.Fatal(err)
	}
	defer in.Close()
	fi, err := in.Stat()
	if err != nil {
		t.Fatal(err)
	}
	if err := os.MkdirAll(filepath.Dir(to), 0o755); err != nil {
		t.Fatal(err)
	}
	out, err := os.OpenFile(to, os.O_CREATE|os.O_WRONLY|os.O_TRUNC, fi.Mode().Perm())
	if err != nil {
		t.Fatal(err)
	}
	if _, err := io.Copy(out, in); err != nil {
		t.Fatal(err)
	}
	if err := out.Close(); err != nil {
		t.Fatal(err)
	}
}

// interpreter is the ELF interpreter that a program names, also one that needs
// no libraries; "" if there is none.
func interpreter(t testing.TB, program string) string {
	t.Helper()
	f, err := elf.Open(program)
	if err != nil {
		return "" // a script
	}
	defer f.Close()
	for _, p := range f.Progs {
		if p.Type == elf.PT_INTERP {
			b, err := io.ReadAll(p.Open())
			if err != nil {
				t.Fatalf("%s: its interpreter's name: %v", program, err)
			}
			return strings.TrimRight(string(b), "\x00")
		}
	}
	return ""
}

// RootFS makes a root file system that holds the program as /bin/NAME, with
// the interpreter and libraries that ldd names for it, /etc/passwd, and an
// empty working directory /work.
func RootFS(t testing.TB, programs ...string) string {
	t.Helper()
	root := t.TempDir()
	for _, d := range []string{"bin", "etc", "tmp", "work", "proc", "sys", "dev"} {
		if err := os.MkdirAll(filepath.Join(root, d), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.WriteFile(filepath.Join(root, "etc/passwd"), []byte("root:x:0:0:root:/root:/bin/sh\n"), 0o644); err != nil {
		t.Fatal(err)
	}
	for _, p := range programs {
		CopyFile(t, p, filepath.Join(root, "bin", filepath.Base(p)))
		out, err := exec.Command("ldd", p).Output()
		if err != nil {
			out = nil // a static program
		}
		out = append(out, "\n"+interpreter(t, p)...)
		for _, f := range strings.Fields(string(out)) {
			if strings.HasPrefix(f, "/") {
				CopyFile(t, f, filepath.Join(root, f))
			}
		}
	}
	return root
}
