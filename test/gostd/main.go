// Gostd runs the tests of Go's standard library natively and in a nabla image
// of the same root file system, both under runc, and compares them test
// function by test function. Linux is the oracle: a function counts where it
// passes natively.
//
//	make conformance-go                        everything
//	go run ./test/gostd -short                 the quick packages, as CI does it
//	go run ./test/gostd os net/...             these packages
//	go run ./test/gostd -test TestX -v net     one test, with its output
//
// Native results are kept; those inside are of this run. It fails where a test
// fails that expected.txt does not name, or where the share is too low.
package main

import (
	"context"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"os"
	"os/signal"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"syscall"
	"time"
)

type options struct {
	base, tool, work, expected string
	patterns                   []string
	short, again, verbose      bool
	report                     bool   // run nothing
	doc                        string // file that gets the results
	test                       string // -test.run
	min                        float64
	limit                      time.Duration
}

func main() {
	var o options
	flag.StringVar(&o.base, "base", "build/images/gostd-base.tar", "the root file system the tests run in, a tar file")
	flag.StringVar(&o.tool, "tool", "bin/nabla-build", "nabla-build")
	flag.StringVar(&o.work, "work", "build/gostd", "where programs, results and logs are kept")
	flag.StringVar(&o.expected, "expected", "test/gostd/expected.txt", "the failures that are known, with reasons")
	flag.BoolVar(&o.short, "short", false, "the quick packages")
	flag.BoolVar(&o.report, "report", false, "run nothing, report the results that are there")
	flag.StringVar(&o.doc, "doc", "", "write the results between the marks in this file (docs/conformance.md)")
	flag.BoolVar(&o.again, "native", false, "run natively again what has a result")
	flag.BoolVar(&o.verbose, "v", false, "show the output inside of what fails")
	flag.StringVar(&o.test, "test", "", "only the test functions that match, as go test -run; nothing is recorded")
	flag.Float64Var(&o.min, "min", 97, "the share, in percent, that must pass")
	flag.DurationVar(&o.limit, "limit", 10*time.Minute, "for one package; twice that inside")
	flag.Parse()
	o.patterns = flag.Args()
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	good, err := run(ctx, o)
	if err != nil {
		fmt.Fprintln(os.Stderr, "gostd:", err)
		os.Exit(2)
	}
	if !good {
		os.Exit(1)
	}
}

// run runs the packages on both sides and reports. It says whether the result
// is as it must be.
func run(ctx context.Context, o options) (bool, error) {
	work, err := filepath.Abs(o.work)
	if err != nil {
		return false, err
	}
	for _, d := range []string{"native", "inside"} {
		if err := os.MkdirAll(filepath.Join(work, d), 0o755); err != nil {
			return false, err
		}
	}
	// What is there, Go's sources with it, is no part of ./...
	if err := os.WriteFile(filepath.Join(work, "go.mod"), []byte("module results\n"), 0o644); err != nil {
		return false, err
	}
	goroot, err := output(ctx, "go", "env", "GOROOT")
	if err != nil {
		return false, err
	}
	m := &image{
		goroot: strings.TrimSpace(goroot), work: work,
		root: filepath.Join(work, "root"), nabla: filepath.Join(work, "nabla-root"), test2json: filepath.Join(work, "test2json"),
	}
	exp, err := readExpected(o.expected)
	if err != nil {
		return false, err
	}
	all, err := packages(ctx, nil)
	if err != nil {
		return false, err
	}
	pkgs := all
	switch {
	case len(o.patterns) > 0:
		if pkgs, err = packages(ctx, o.patterns); err != nil {
			return false, err
		}
	case o.short:
		pkgs = slices.DeleteFunc(slices.Clone(all), func(p string) bool { return !slices.Contains(quick, p) })
	}
	if !o.report {
		err = m.build(ctx, o.base, o.tool, pkgs)
	}
	if err != nil {
		return false, err
	}
	var pairs []pair
	for _, p := range pkgs {
		pr, err := both(ctx, o, m, p, exp)
		if err != nil {
			return false, fmt.Errorf("%s: %w", p, err)
		}
		if pr.native == nil || pr.inside == nil {
			continue // reported only, and not run yet
		}
		if !o.report {
			fmt.Println(pr.line())
		}
		if o.verbose {
			pr.show(os.Stdout)
		}
		pairs = append(pairs, pr)
	}
	return report(os.Stdout, o, pairs, exp, len(o.patterns) == 0 && o.test == "")
}

// both runs a package's tests natively, where there is no result yet, and
// inside.
func both(ctx context.Context, o options, m *image, pkg string, exp []expectation) (pair, error) {
	file := func(side string) string {
		return filepath.Join(m.work, side, strings.ReplaceAll(pkg, "/", "-"))
	}
	var p pair
	if o.report {
		for side, r := range map[string]**Result{"native": &p.native, "inside": &p.inside} {
			b, err := os.ReadFile(file(side) + ".json")
			if errors.Is(err, os.ErrNotExist) {
				continue
			}
			if err == nil {
				err = json.Unmarshal(b, r)
			}
			if err != nil {
				return pair{}, err
			}
		}
		return p, nil
	}
	b, err := os.ReadFile(file("native") + ".json")
	if err == nil && !o.again && o.test == "" {
		err = json.Unmarshal(b, &p.native)
	}
	if p.native == nil || err != nil || p.native.Go != runtime.Version() {
		if p.native, err = m.test(ctx, pkg, false, o.test, nil, o.limit, file("native")); err != nil {
			return pair{}, err
		}
	}
	var skip []string
	for n := range p.native.Functions {
		if i := find(exp, pkg, n); i >= 0 && o.test == "" && strings.HasPrefix(exp[i].reason, "not run") {
			skip = append(skip, n)
		}
	}
	if p.inside, err = m.test(ctx, pkg, true, o.test, skip, 2*o.limit, file("inside")); err != nil {
		return pair{}, err
	}
	return p, nil
}
