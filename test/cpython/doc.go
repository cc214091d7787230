package main

import (
	"fmt"
	"maps"
	"os"
	"slices"
	"strings"
	"time"
)

// The marks between which a run writes its results into docs/conformance.md.
const (
	docBegin = "<!-- results of make conformance-python: begin -->\n"
	docEnd   = "<!-- results of make conformance-python: end -->\n"
)

// writeDoc replaces the text between the marks in file.
func writeDoc(file string, s *Summary, at time.Time) error {
	b, err := os.ReadFile(file)
	if err != nil {
		return err
	}
	before, rest, ok := strings.Cut(string(b), docBegin)
	_, after, ok2 := strings.Cut(rest, docEnd)
	if !ok || !ok2 {
		return fmt.Errorf("write results into %s: the lines %q and %q are not there", file, strings.TrimSpace(docBegin), strings.TrimSpace(docEnd))
	}
	return os.WriteFile(file, []byte(before+docBegin+s.markdown(at)+docEnd+after), 0o644)
}

// markdown is the section of docs/conformance.md: totals, the named modules,
// the failures by reason.
func (s *Summary) markdown(at time.Time) string {
	var b strings.Builder
	fmt.Fprintf(&b, "\nRun of %s: of %d test cases in %d modules that pass natively %d pass inside: **%.2f %%**.\n\n",
		at.UTC().Format("2006-01-02"), s.Native, s.with(), s.Inside, s.Percent)
	share := func(name string, native, inside int) {
		percent := "-"
		if native > 0 {
			percent = fmt.Sprintf("%.1f %%", 100*float64(inside)/float64(native))
		}
		fmt.Fprintf(&b, "| %s | %d | %d | %s |\n", name, native, inside, percent)
	}
	b.WriteString("| module | pass natively | pass inside | share |\n|---|---|---|---|\n")
	for _, name := range named {
		if i := slices.IndexFunc(s.Modules, func(r Row) bool { return r.Module == name }); i >= 0 {
			share(name, s.Modules[i].Native, s.Modules[i].Inside)
		} else {
			share(name, 0, 0)
		}
	}
	b.WriteString("\nOther modules with failures:\n\n| module | pass natively | pass inside | share |\n|---|---|---|---|\n")
	for _, r := range s.Modules {
		if r.Inside < r.Native && !slices.Contains(named, r.Module) {
			share(r.Module, r.Native, r.Inside)
		}
	}
	reasons := map[string]map[string][]string{} // reason, module, cases
	for _, f := range s.Failures {
		why := f.Reason
		if why == "" {
			why = "not explained yet"
		}
		if reasons[why] == nil {
			reasons[why] = map[string][]string{}
		}
		reasons[why][f.Module] = append(reasons[why][f.Module], f.Case)
	}
	count := func(why string) (n int) {
		for _, l := range reasons[why] {
			n += len(l)
		}
		return n
	}
	order := slices.SortedFunc(maps.Keys(reasons), func(x, y string) int {
		if d := count(y) - count(x); d != 0 {
			return d
		}
		return strings.Compare(x, y)
	})
	b.WriteString("\nThe failures by reason:\n")
	for _, why := range order {
		fmt.Fprintf(&b, "\n- %s (%d):\n", why, count(why))
		for _, m := range slices.Sorted(maps.Keys(reasons[why])) {
			short := reasons[why][m]
			for i, id := range short {
				short[i] = shortCase(id)
			}
			fmt.Fprintf(&b, "  - %s: %s\n", m, strings.Join(classes(short), ", "))
		}
	}
	b.WriteString("\n")
	return b.String()
}

// with counts the modules in which a test case passes natively.
func (s *Summary) with() (n int) {
	for _, r := range s.Modules {
		if r.Native > 0 {
			n++
		}
	}
	return n
}

// shortCase is a test case's class and method.
func shortCase(id string) string {
	w := strings.Split(id, ".")
	return strings.Join(w[max(0, len(w)-2):], ".")
}

// classes puts the methods of one class together: Class.{a, b}.
func classes(cases []string) []string {
	var order []string
	methods := map[string][]string{}
	for _, c := range cases {
		class, method, _ := strings.Cut(c, ".")
		if methods[class] == nil {
			order = append(order, class)
		}
		methods[class] = append(methods[class], method)
	}
	var out []string
	for _, c := range order {
		switch m := methods[c]; {
		case len(m) == 1 && m[0] == "":
			out = append(out, c)
		case len(m) == 1:
			out = append(out, c+"."+m[0])
		case len(m) > 12:
			out = append(out, fmt.Sprintf("%s (%d)", c, len(m)))
		default:
			out = append(out, c+".{"+strings.Join(m, ", ")+"}")
		}
	}
	return out
}
