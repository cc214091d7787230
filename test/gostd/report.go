package main

import (
	"bufio"
	"encoding/json"
	"fmt"
	"io"
	"os"
	"path"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"text/tabwriter"
	"time"
)

func goVersion() string { return runtime.Version() }

// pair is a package on both sides.
type pair struct{ native, inside *Result }

// failed are the functions that pass natively and not inside, sorted.
func (p pair) failed() (passed int, names []string) {
	for n, o := range p.native.Functions {
		if o.State != "pass" {
			continue
		}
		if p.inside.Functions[n].State == "pass" {
			passed++
		} else {
			names = append(names, n)
		}
	}
	slices.Sort(names)
	return passed, names
}

func (p pair) line() string {
	passed, failed := p.failed()
	s := fmt.Sprintf("%-32s native %4d pass %6.1fs   inside %4d pass %3d fail %6.1fs  %s", p.native.Package,
		passed+len(failed), p.native.Seconds, passed, len(failed), p.inside.Seconds, strings.Join(failed, " "))
	for _, e := range p.native.Ends {
		s += "\n    natively: " + e
	}
	for _, e := range p.inside.Ends {
		s += "\n    inside: " + e
	}
	return s
}

// show writes the output of what fails only inside.
func (p pair) show(w io.Writer) {
	_, failed := p.failed()
	for _, n := range failed {
		fmt.Fprintf(w, "---- %s (%s)\n%s\n", n, p.inside.Functions[n].State, p.inside.Functions[n].Output)
	}
}

// expectation is one line of expected.txt: functions that are known to fail,
// and why.
type expectation struct {
	pkg, function string // path.Match patterns
	reason        string
	flaky         bool // passes at times
}

// readExpected reads lines of: package, test function, reason. Both names are
// patterns of path.Match. A reason that begins with "sometimes" is of
// functions that fail at times, one that begins with "not run" of functions
// that are left out inside.
func readExpected(file string) ([]expectation, error) {
	f, err := os.Open(file)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	var list []expectation
	sc := bufio.NewScanner(f)
	for n := 1; sc.Scan(); n++ {
		l := strings.TrimSpace(sc.Text())
		if l == "" || l[0] == '#' {
			continue
		}
		w := strings.SplitN(l, " ", 3)
		if len(w) != 3 {
			return nil, fmt.Errorf("%s, line %d: package, test function and reason expected, separated by one space each", file, n)
		}
		for _, p := range w[:2] {
			if _, err := path.Match(p, ""); err != nil {
				return nil, fmt.Errorf("%s, line %d: pattern %q: %w", file, n, p, err)
			}
		}
		list = append(list, expectation{w[0], w[1], w[2], strings.HasPrefix(w[2], "sometimes")})
	}
	return list, sc.Err()
}

func find(list []expectation, pkg, function string) int {
	return slices.IndexFunc(list, func(e expectation) bool {
		a, _ := path.Match(e.pkg, pkg)
		b, _ := path.Match(e.function, function)
		return a && b
	})
}

// Failure is a function that passes natively and not inside.
type Failure struct {
	Package  string `json:"package"`
	Function string `json:"function"`
	State    string `json:"state"`
	Output   string `json:"output,omitempty"`
	Reason   string `json:"reason,omitempty"` // from expected.txt; empty: not expected
}

// Row is a package's share.
type Row struct {
	Package       string   `json:"package"`
	Native        int      `json:"native"` // pass natively
	Inside        int      `json:"inside"` // of those, pass inside
	NativeSeconds float64  `json:"nativeSeconds"`
	InsideSeconds float64  `json:"insideSeconds"`
	Ends          []string `json:"ends,omitempty"`
}

// Summary is the machine-readable report, summary.json.
type Summary struct {
	Go       string    `json:"go"`
	Native   int       `json:"native"`
	Inside   int       `json:"inside"`
	Percent  float64   `json:"percent"`
	Packages []Row     `json:"packages"`
	Failures []Failure `json:"failures"`
	Stale    []string  `json:"stale,omitempty"` // lines of expected.txt that no failure needs
}

// report writes the table and the failures to w and summary.json to the work
// directory, and says whether the result is as it must be.
func report(w io.Writer, o options, pairs []pair, exp []expectation, whole bool) (bool, error) {
	s := Summary{Go: goVersion()}
	used := make([]bool, len(exp))
	for _, p := range pairs {
		passed, failed := p.failed()
		s.Packages = append(s.Packages, Row{p.native.Package, passed + len(failed), passed, p.native.Seconds, p.inside.Seconds, p.inside.Ends})
		s.Native += passed + len(failed)
		s.Inside += passed
		for _, n := range failed {
			oc := p.inside.Functions[n]
			f := Failure{Package: p.native.Package, Function: n, State: oc.State, Output: oc.Output}
			if f.State == "" {
				f.State = "not run"
			}
			if i := find(exp, f.Package, n); i >= 0 {
				f.Reason, used[i] = exp[i].reason, true
			}
			s.Failures = append(s.Failures, f)
		}
	}
	if s.Native == 0 {
		return false, fmt.Errorf("no test function passed natively: see %s", filepath.Join(o.work, "native"))
	}
	s.Percent = 100 * float64(s.Inside) / float64(s.Native)
	if whole && !o.short {
		for i, e := range exp {
			if !used[i] && !e.flaky {
				s.Stale = append(s.Stale, e.pkg+" "+e.function)
			}
		}
	}
	tw := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
	fmt.Fprintf(tw, "package\tpass natively\tpass inside\tshare\tseconds natively\tinside\n")
	for _, r := range s.Packages {
		if r.Native > 0 {
			fmt.Fprintf(tw, "%s\t%d\t%d\t%.1f %%\t%.1f\t%.1f\n", r.Package, r.Native, r.Inside, 100*float64(r.Inside)/float64(r.Native), r.NativeSeconds, r.InsideSeconds)
		}
	}
	fmt.Fprintf(tw, "total\t%d\t%d\t%.2f %%\n", s.Native, s.Inside, s.Percent)
	if err := tw.Flush(); err != nil {
		return false, err
	}
	unexpected := 0
	for _, f := range s.Failures {
		if f.Reason == "" {
			unexpected++
			fmt.Fprintf(w, "not expected: %s %s: %s\n", f.Package, f.Function, f.State)
		}
	}
	for _, l := range s.Stale {
		fmt.Fprintf(w, "expected, but passes: %s\n", l)
	}
	fmt.Fprintf(w, "%d of %d test functions that pass natively pass inside: %.2f %%; %d failures, %d of them not expected\n", s.Inside, s.Native, s.Percent, len(s.Failures), unexpected)
	b, err := json.MarshalIndent(s, "", " ")
	if err != nil {
		return false, err
	}
	file := "summary.json"
	if !whole {
		file = "summary-some.json"
	} else if o.short {
		file = "summary-short.json"
	}
	if err := os.WriteFile(filepath.Join(o.work, file), b, 0o644); err != nil {
		return false, err
	}
	if o.doc != "" {
		if err := writeDoc(o.doc, &s, time.Now()); err != nil {
			return false, err
		}
	}
	return s.Percent >= o.min && unexpected == 0, nil
}
