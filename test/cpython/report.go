package main

import (
	"bufio"
	"encoding/json"
	"fmt"
	"io"
	"maps"
	"os"
	"path"
	"path/filepath"
	"slices"
	"strings"
	"text/tabwriter"
	"time"
)

// pair is one module on both sides.
type pair struct{ native, inside *Module }

// failed are the test cases that pass natively and not inside, sorted.
func (p pair) failed() (passed int, ids []string) {
	for id, o := range p.native.Cases {
		if o.Result != "pass" {
			continue
		}
		if p.inside.Cases[id].Result == "pass" {
			passed++
		} else {
			ids = append(ids, id)
		}
	}
	slices.Sort(ids)
	return passed, ids
}

func (p pair) line() string {
	passed, failed := p.failed()
	s := fmt.Sprintf("%-40s native %4d pass %6.1fs   inside %4d pass %4d fail %6.1fs", p.native.Name, passed+len(failed), p.native.Seconds, passed, len(failed), p.inside.Seconds)
	for _, e := range p.inside.Ends {
		s += "\n    " + e
	}
	return s
}

// expectation is one line of expected.txt: test cases that are known to fail,
// and why.
type expectation struct {
	module  string // path.Match pattern
	pattern string // of the test case, path.Match
	reason  string
	flaky   bool // passes at times
}

// readExpected reads lines of: module pattern, test case pattern, reason. A
// reason that begins with "sometimes" is of test cases that fail at times.
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
			return nil, fmt.Errorf("%s, line %d: module, test case and reason expected, separated by one space each", file, n)
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

func find(list []expectation, module, id string) int {
	for i, e := range list {
		if ok, _ := path.Match(e.module, module); !ok {
			continue
		}
		if ok, _ := path.Match(e.pattern, id); ok {
			return i
		}
	}
	return -1
}

// Failure is a test case that passes natively and not inside.
type Failure struct {
	Module string `json:"module"`
	Case   string `json:"case"`
	Outcome
	Reason string `json:"reason,omitempty"` // from expected.txt; empty: not expected
}

// Row is a module's share.
type Row struct {
	Module        string   `json:"module"`
	Native        int      `json:"native"` // pass natively
	Inside        int      `json:"inside"` // of those, pass inside
	NativeSeconds float64  `json:"nativeSeconds"`
	InsideSeconds float64  `json:"insideSeconds"`
	Ends          []string `json:"ends,omitempty"`
}

// Summary is the machine-readable report, summary.json.
type Summary struct {
	NativeImage string    `json:"nativeImage"`
	Builds      []string  `json:"nablaImages"`
	Native      int       `json:"native"`
	Inside      int       `json:"inside"`
	Percent     float64   `json:"percent"`
	Modules     []Row     `json:"modules"`
	Failures    []Failure `json:"failures"`
	Stale       []string  `json:"stale,omitempty"` // lines of expected.txt that no failure needs
}

// group names a module as a person does: the parts of test_asyncio are one.
func group(module string) string {
	if strings.HasPrefix(module, "test.test_asyncio.") {
		return "test_asyncio"
	}
	return module
}

// report writes the table and the failures to w and summary.json to the work
// directory, and says whether the result is as it must be.
func report(w io.Writer, o options, pairs []pair, exp []expectation, whole bool) (bool, error) {
	s := Summary{}
	rows := map[string]*Row{}
	used := make([]bool, len(exp))
	builds := map[string]bool{}
	for _, p := range pairs {
		passed, failed := p.failed()
		name := group(p.native.Name)
		r := rows[name]
		if r == nil {
			r = &Row{Module: name}
			rows[name] = r
		}
		r.Native += passed + len(failed)
		r.Inside += passed
		r.NativeSeconds += p.native.Seconds
		r.InsideSeconds += p.inside.Seconds
		r.Ends = append(r.Ends, p.inside.Ends...)
		s.NativeImage = p.native.Key
		builds[p.inside.Key] = true
		for _, id := range failed {
			f := Failure{Module: name, Case: id, Outcome: p.inside.Cases[id]}
			if f.Result == "" {
				f.Result = "not run"
			}
			if i := find(exp, p.native.Name, id); i >= 0 {
				f.Reason, used[i] = exp[i].reason, true
			}
			s.Failures = append(s.Failures, f)
		}
	}
	for _, name := range slices.Sorted(maps.Keys(rows)) {
		s.Modules = append(s.Modules, *rows[name])
		s.Native += rows[name].Native
		s.Inside += rows[name].Inside
	}
	if s.Native == 0 {
		return false, fmt.Errorf("no test case passed natively: see %s", filepath.Join(o.work, "native"))
	}
	s.Percent = 100 * float64(s.Inside) / float64(s.Native)
	s.Builds = slices.Sorted(maps.Keys(builds))
	if whole && !o.short {
		for i, e := range exp {
			if !used[i] && !e.flaky {
				s.Stale = append(s.Stale, e.module+" "+e.pattern)
			}
		}
	}

	tw := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
	fmt.Fprintf(tw, "module\tpass natively\tpass inside\tshare\tseconds natively\tinside\n")
	for _, r := range s.Modules {
		if r.Native > 0 {
			fmt.Fprintf(tw, "%s\t%d\t%d\t%.1f %%\t%.1f\t%.1f\n", r.Module, r.Native, r.Inside, 100*float64(r.Inside)/float64(r.Native), r.NativeSeconds, r.InsideSeconds)
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
			lines := strings.Split(strings.TrimSpace(f.Detail), "\n")
			fmt.Fprintf(w, "not expected: %s %s: %s: %.200s\n", f.Module, f.Case, f.Result, lines[len(lines)-1])
		}
	}
	for _, l := range s.Stale {
		fmt.Fprintf(w, "expected, but passes: %s\n", l)
	}
	fmt.Fprintf(w, "%d of %d test cases that pass natively pass inside: %.2f %%; %d failures, %d of them not expected\n", s.Inside, s.Native, s.Percent, len(s.Failures), unexpected)
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
	if s.Percent < o.min {
		fmt.Fprintf(w, "less than %.1f %%\n", o.min)
	}
	return s.Percent >= o.min && unexpected == 0, nil
}
