// Nabla-go builds a Go program whose runtime lives behind the gate: `go build`
// with the generated overlay, then the gs rewrite.
//
//	nabla-go -o OUT [-environment] [-X importpath.name=value] PACKAGE
package main

import (
	"errors"
	"flag"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"

	"github.com/nabla-build/nabla-build/goruntime/gsbase"
	"github.com/nabla-build/nabla-build/goruntime/overlay"
)

// TextAddress is where the program's text is linked: clear of every address
// that a guest wants.
const TextAddress = "0x10000001000"

type list []string

func (l *list) String() string     { return strings.Join(*l, " ") }
func (l *list) Set(s string) error { *l = append(*l, s); return nil }

func main() {
	if err := run(); err != nil {
		fmt.Fprintln(os.Stderr, "nabla-go:", err)
		os.Exit(1)
	}
}

func goEnv(name string) (string, error) {
	out, err := exec.Command("go", "env", name).Output()
	if err != nil {
		return "", fmt.Errorf("go env %s: %w (is Go installed?)", name, err)
	}
	return strings.TrimSpace(string(out)), nil
}

func run() error {
	var out string
	var x list
	var environment bool
	flag.StringVar(&out, "o", "", "output file")
	flag.BoolVar(&environment, "environment", false, "let GODEBUG and friends reach the runtime (stress tests)")
	flag.Var(&x, "X", "importpath.name=value, as the linker's -X (repeatable)")
	flag.Parse()
	if out == "" || flag.NArg() != 1 {
		flag.Usage()
		os.Exit(2)
	}
	root, err := goEnv("GOROOT")
	if err != nil {
		return err
	}
	version, err := goEnv("GOVERSION")
	if err != nil {
		return err
	}
	tmp, err := os.MkdirTemp("", "nabla-go")
	if err != nil {
		return err
	}
	defer os.RemoveAll(tmp)
	// The overlay has a fixed place so that Go's build cache knows its files.
	cache, err := os.UserCacheDir()
	if err != nil {
		cache = tmp
	}
	json, err := overlay.Generate(filepath.Join(cache, "nabla-build", "overlay-"+version), overlay.Options{GoRoot: root, GoVersion: version, Environment: environment})
	if err != nil {
		return err
	}
	ld := []string{"-T=" + TextAddress, "-checklinkname=0", "-buildid="}
	for _, v := range x {
		ld = append(ld, "-X="+v)
	}
	raw := filepath.Join(tmp, "raw")
	cmd := exec.Command("go", "build", "-overlay", json, "-trimpath", "-buildvcs=false", "-tags", "nabla", "-ldflags", strings.Join(ld, " "), "-o", raw, flag.Arg(0))
	cmd.Env = append(os.Environ(), "GOEXPERIMENT=norandomizedheapbase64", "CGO_ENABLED=0", "GOOS=linux", "GOARCH=amd64", "GOAMD64=v1")
	cmd.Stdout, cmd.Stderr = os.Stderr, os.Stderr
	if err := cmd.Run(); err != nil {
		var ee *exec.ExitError
		if errors.As(err, &ee) {
			return fmt.Errorf("go build %s failed", flag.Arg(0))
		}
		return err
	}
	b, err := os.ReadFile(raw)
	if err != nil {
		return err
	}
	if _, err := gsbase.Rewrite(b, "runtime.nablaCloneFixup"); err != nil {
		return err
	}
	part := out + ".part"
	if err := os.MkdirAll(filepath.Dir(out), 0o755); err != nil {
		return err
	}
	if err := os.WriteFile(part, b, 0o755); err != nil {
		return err
	}
	return os.Rename(part, out)
}
