package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
)

// excluded are packages whose tests are left out, with the reason. Everything
// else in std that has tests is in.
var excluded = map[string]string{
	"cmd":                         "the go command's own",
	"vendor":                      "copies of other modules",
	"runtime/race":                "needs the race detector, which needs cgo",
	"internal/trace":              "minutes of parsing, no system calls",
	"crypto/internal/fips140test": "minutes of arithmetic, no system calls",
}

// pie are packages whose tests start themselves again. They are built
// position-independent, as a second program in the one address space must be;
// all others are static.
var pie = strings.Fields("crypto/cipher crypto/fips140 crypto/internal/fips140only crypto/rand crypto/tls flag internal/cpu internal/godebug internal/poll internal/synctest net/http/cgi internal/testenv log/slog log/syslog net net/http os os/exec os/signal " +
	"runtime runtime/debug runtime/pprof sync syscall testing testing/synctest")

// quick are the packages of the short form, which make test runs.
var quick = strings.Fields("archive/tar bufio context database/sql encoding/json io io/fs log net net/http net/netip os os/exec os/signal path/filepath runtime/debug sync sync/atomic syscall time")

// image is where the tests are: one root file system for both sides.
type image struct {
	goroot    string // the same path on the host and inside
	work      string // absolute
	root      string // the root file system
	nabla     string // the nabla image of it, unpacked
	test2json string
}

// packages lists the packages that have tests, without the excluded ones.
func packages(ctx context.Context, patterns []string) ([]string, error) {
	if len(patterns) == 0 {
		patterns = []string{"std"}
	}
	out, err := output(ctx, "go", append([]string{"list", "-f", "{{if or .TestGoFiles .XTestGoFiles}}{{.ImportPath}}{{end}}"}, patterns...)...)
	if err != nil {
		return nil, err
	}
	list := strings.Fields(out)
	return slices.DeleteFunc(list, func(p string) bool {
		for q := p; q != "."; q = filepath.Dir(q) {
			if _, ok := excluded[q]; ok {
				return true
			}
		}
		return false
	}), nil
}

func program(pkg string) string { return "/gostd/" + strings.ReplaceAll(pkg, "/", "-") + ".test" }

// build makes the root file system with the packages' tests, and the nabla
// image of it. What is there already is built again only where it changed.
func (m *image) build(ctx context.Context, base, tool string, pkgs []string) error {
	stamp := m.root + ".base"
	if _, err := os.Stat(stamp); errors.Is(err, os.ErrNotExist) {
		if err := errors.Join(os.RemoveAll(m.root), os.MkdirAll(m.root, 0o755)); err != nil {
			return err
		}
		if _, err := output(ctx, "tar", "-x", "--numeric-owner", "-C", m.root, "-f", base); err != nil {
			return err
		}
		src := filepath.Join(m.root, m.goroot)
		if err := os.MkdirAll(src, 0o755); err != nil {
			return err
		}
		// The sources, which tests read, and no go command: tests that need it skip.
		tar := fmt.Sprintf("tar -c -C %s --owner=0 --group=0 --exclude=src/cmd src lib VERSION go.env | tar -x -C %s", m.goroot, src)
		if _, err := output(ctx, "sh", "-c", tar); err != nil {
			return err
		}
		if err := os.MkdirAll(filepath.Join(m.root, "gostd"), 0o755); err != nil {
			return err
		}
		if err := os.WriteFile(stamp, nil, 0o644); err != nil {
			return err
		}
	}
	if _, err := output(ctx, "go", "build", "-trimpath", "-o", filepath.Join(m.root, "gostd/driver"), "./test/gostd/driver"); err != nil {
		return err
	}
	if _, err := output(ctx, "go", "build", "-trimpath", "-o", m.test2json, "cmd/test2json"); err != nil {
		return err
	}
	for i, p := range pkgs {
		file := filepath.Join(m.root, program(p))
		mode := "exe"
		if slices.Contains(pie, p) {
			mode = "pie"
		}
		want := runtime.Version() + " " + mode
		v, err := os.ReadFile(file + ".version")
		if err == nil && string(v) == want {
			continue
		}
		fmt.Fprintf(os.Stderr, "\r%d of %d: go test -c %-40s", i+1, len(pkgs), p)
		if _, err := output(ctx, "go", "test", "-c", "-vet=off", "-ldflags=-w", "-buildmode="+mode, "-o", file, p); err != nil {
			return err
		}
		if err := os.WriteFile(file+".version", []byte(want), 0o644); err != nil {
			return err
		}
	}
	return m.relink(ctx, tool)
}

// relink makes the nabla image, or only takes the new tender where the root
// file system has not changed.
func (m *image) relink(ctx context.Context, tool string) error {
	list, err := output(ctx, "sh", "-c", "cd "+m.root+"/gostd && ls -l --time-style=full-iso")
	if err != nil {
		return err
	}
	stamp := m.nabla + ".content"
	layout := filepath.Join(m.work, "nabla-image")
	old, _ := os.ReadFile(stamp)
	if string(old) == list && !newer(tool, stamp) {
		return nil
	}
	cache := filepath.Join(m.work, "cache")
	if string(old) != list {
		os.RemoveAll(cache)
	}
	fmt.Fprintf(os.Stderr, "\rrelink %s\n", m.root)
	if err := os.RemoveAll(layout); err != nil {
		return err
	}
	if _, err := output(ctx, tool, "relink", "--quiet", "--cache", cache, "--entrypoint", `["/gostd/driver"]`, "rootfs:"+m.root, "oci:"+layout); err != nil {
		return err
	}
	if err := unpack(layout, m.nabla); err != nil {
		return err
	}
	return os.WriteFile(stamp, []byte(list), 0o644)
}

func newer(a, b string) bool {
	x, err := os.Stat(a)
	y, err2 := os.Stat(b)
	return err != nil || err2 != nil || x.ModTime().After(y.ModTime())
}

// output runs a command and returns what it wrote.
func output(ctx context.Context, argv0 string, args ...string) (string, error) {
	cmd := exec.CommandContext(ctx, argv0, args...)
	cmd.Env = append(os.Environ(), "CGO_ENABLED=0")
	out, err := cmd.Output()
	if err != nil {
		var ee *exec.ExitError
		if errors.As(err, &ee) {
			err = fmt.Errorf("%w: %s", err, ee.Stderr)
		}
		return "", fmt.Errorf("%s %s: %w", argv0, strings.Join(args, " "), err)
	}
	return string(out), nil
}
