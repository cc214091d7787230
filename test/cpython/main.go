// Cpython runs CPython's own tests (python3 -m test, Debian's
// libpython3.11-testsuite) natively and in a nabla image of the same root file
// system, both under runc, and compares them test case by test case. Linux is
// the oracle: a test case counts where it passes natively.
//
//	make conformance-python                    everything
//	go run ./test/cpython -short               the quick modules, as CI does it
//	go run ./test/cpython test_os test_io      these modules
//	go run ./test/cpython -report              what the last runs gave
//
// Results are kept for each module and image, so that a run that was
// interrupted goes on where it was. It fails where a test case fails that
// expected.txt does not name, or where the share is too low.
package main

import (
	"context"
	"flag"
	"fmt"
	"os"
	"os/signal"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"syscall"
	"time"
)

// resources are those of regrtest's -u. Left out: network and urlfetch are
// there but reach nothing in a container without a network; largefile, gui,
// audio and cpu need what a container lacks, or hours.
const resources = "all,-largefile,-gui,-audio,-cpu,-urlfetch,-decimal"

// limits bound the run of one module, natively; inside it may take twice that.
type limits struct{ idle, module time.Duration }

type options struct {
	root     string // of the repository
	native   string // the image, an OCI layout
	nabla    string // the nabla image, an OCI layout
	work     string
	expected string
	modules  []string
	jobs     int
	short    bool
	rerun    bool   // run inside again what has a result of this image
	anyBuild bool   // accept results of other builds of the nabla image
	report   bool   // run nothing
	doc      string // a file to write the results into
	min      float64
	limits   limits
}

func main() {
	o := options{limits: limits{idle: 2 * time.Minute, module: 20 * time.Minute}}
	flag.StringVar(&o.native, "image", "build/images/cpython", "the image, an OCI layout")
	flag.StringVar(&o.nabla, "nabla", "build/images/cpython-nabla", "the nabla image of it, an OCI layout")
	flag.StringVar(&o.work, "work", "build/cpython", "where results and unpacked images are kept")
	flag.StringVar(&o.expected, "expected", "test/cpython/expected.txt", "the failures that are known, with reasons")
	flag.IntVar(&o.jobs, "j", 1, "modules at once")
	flag.BoolVar(&o.short, "short", false, "the quick modules")
	flag.BoolVar(&o.rerun, "rerun", false, "run modules inside again that have a result of this image")
	flag.BoolVar(&o.anyBuild, "any-build", false, "accept results of other builds of the nabla image")
	flag.BoolVar(&o.report, "report", false, "run nothing, report the results that are there")
	flag.StringVar(&o.doc, "doc", "", "write the results between the marks in this file (docs/conformance.md)")
	flag.Float64Var(&o.min, "min", 97, "the share, in percent, that must pass")
	flag.DurationVar(&o.limits.idle, "idle", o.limits.idle, "a test case hangs after this")
	flag.Parse()
	o.modules = flag.Args()
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	good, err := run(ctx, o)
	if err != nil {
		fmt.Fprintln(os.Stderr, "cpython:", err)
		os.Exit(2)
	}
	if !good {
		os.Exit(1)
	}
}

// run runs the modules on both sides and reports. It says whether the result
// is as it must be.
func run(ctx context.Context, o options) (bool, error) {
	var err error
	if o.work, err = filepath.Abs(o.work); err != nil { // runc takes relative paths as the bundle's
		return false, err
	}
	if err := os.MkdirAll(o.work, 0o755); err != nil {
		return false, err
	}
	// A module of its own, so that ./... of the repository leaves these files out.
	if err := os.WriteFile(filepath.Join(o.work, "go.mod"), []byte("module cpython-results\n"), 0o644); err != nil {
		return false, err
	}
	native, err := openSide("native", o.native, o.work, false)
	if err != nil {
		return false, err
	}
	inside, err := openSide("inside", o.nabla, o.work, true)
	if err != nil {
		return false, err
	}
	exp, err := readExpected(o.expected)
	if err != nil {
		return false, err
	}
	whole := len(o.modules) == 0
	switch {
	case len(o.modules) > 0:
	case o.short:
		o.modules = quick
	default:
		if o.modules, err = allModules(ctx, native); err != nil {
			return false, err
		}
	}

	pairs := make([]pair, len(o.modules))
	errs := make([]error, o.jobs)
	next := make(chan int)
	var wg sync.WaitGroup
	for j := range o.jobs {
		wg.Go(func() {
			for i := range next {
				if errs[j] == nil {
					pairs[i], errs[j] = both(ctx, o, native, inside, o.modules[i])
				}
				if errs[j] == nil && !o.report {
					fmt.Println(pairs[i].line())
				}
			}
		})
	}
	for i := range o.modules {
		next <- i
	}
	close(next)
	wg.Wait()
	for _, err := range errs {
		if err != nil {
			return false, err
		}
	}
	pairs = slices.DeleteFunc(pairs, func(p pair) bool { return p.native == nil || p.inside == nil })
	return report(os.Stdout, o, pairs, exp, whole)
}

// both runs a module on both sides, where there is no result yet.
func both(ctx context.Context, o options, native, inside *side, name string) (pair, error) {
	var p pair
	for _, w := range []struct {
		s     *side
		m     **Module
		again bool
	}{{native, &p.native, false}, {inside, &p.inside, o.rerun}} {
		m, err := w.s.stored(name)
		if err != nil {
			return pair{}, err
		}
		if !o.report && (m == nil || w.again || m.Key != w.s.key && !(o.anyBuild && w.s.nabla)) {
			if m, err = w.s.module(ctx, name, o.limits); err != nil {
				return pair{}, fmt.Errorf("%s, %s: %w", name, w.s.name, err)
			}
			if err := w.s.store(m); err != nil {
				return pair{}, err
			}
		}
		*w.m = m
	}
	return p, nil
}

// allModules asks regrtest for its list. The parts of test_asyncio are modules
// of their own, so that a crash loses only one of them.
func allModules(ctx context.Context, native *side) ([]string, error) {
	var list []string
	e, err := native.run(ctx, []string{"--list-tests"}, time.Minute, time.Minute, func(l []byte) bool {
		if name := strings.TrimSpace(string(l)); strings.HasPrefix(name, "test_") {
			list = append(list, name)
		}
		return true
	})
	if err != nil {
		return nil, err
	}
	if e.status != 0 || len(list) < 100 {
		return nil, fmt.Errorf("python3 -m test --list-tests: status %d, %d modules", e.status, len(list))
	}
	parts, err := filepath.Glob(filepath.Join(native.root, "usr/lib/python3.11/test/test_asyncio/test_*.py"))
	if err != nil {
		return nil, err
	}
	var out []string
	for _, m := range list {
		if _, ok := excluded[m]; ok {
			continue
		}
		if m != "test_asyncio" {
			out = append(out, m)
			continue
		}
		for _, p := range parts {
			out = append(out, "test.test_asyncio."+strings.TrimSuffix(filepath.Base(p), ".py"))
		}
	}
	return out, nil
}
