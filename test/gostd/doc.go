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
	docBegin = "<!-- results of make conformance-go: begin -->\n"
	docEnd   = "<!-- results of make conformance-go: end -->\n"
)

// named are the packages that docs/conformance.md shows one by one.
var named = strings.Fields("archive/tar archive/zip bufio bytes compress/gzip context crypto/tls crypto/x509 database/sql encoding/binary encoding/gob encoding/json " +
	"encoding/xml internal/poll io io/fs io/ioutil log math/rand net net/http net/netip net/url os os/exec os/signal os/user path/filepath runtime runtime/debug " +
	"runtime/pprof sort strings sync sync/atomic syscall testing text/template time")

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

// markdown is the section of docs/conformance.md: totals, the named packages
// and those with failures, the failures by reason.
func (s *Summary) markdown(at time.Time) string {
	var b strings.Builder
	fmt.Fprintf(&b, "\nRun of %s, %s: of %d test functions in %d packages that pass natively %d pass inside: **%.2f %%**.\n\n",
		at.UTC().Format("2006-01-02"), s.Go, s.Native, len(s.Packages), s.Inside, s.Percent)
	b.WriteString("| package | pass natively | pass inside | share |\n|---|---|---|---|\n")
	var others, all int
	for _, r := range s.Packages {
		if r.Native == 0 {
			continue
		}
		if r.Inside == r.Native && !slices.Contains(named, r.Package) {
			others++
			all += r.Native
			continue
		}
		fmt.Fprintf(&b, "| %s | %d | %d | %.1f %% |\n", r.Package, r.Native, r.Inside, 100*float64(r.Inside)/float64(r.Native))
	}
	fmt.Fprintf(&b, "| %d other packages | %d | %d | 100.0 %% |\n", others, all, all)
	reasons := map[string]map[string][]string{} // reason, package, functions
	for _, f := range s.Failures {
		why := f.Reason
		if why == "" {
			why = "not explained yet"
		}
		if reasons[why] == nil {
			reasons[why] = map[string][]string{}
		}
		reasons[why][f.Package] = append(reasons[why][f.Package], f.Function)
	}
	b.WriteString("\nThe failures by reason:\n\n")
	for _, why := range slices.Sorted(maps.Keys(reasons)) {
		var list []string
		for _, p := range slices.Sorted(maps.Keys(reasons[why])) {
			list = append(list, p+": "+strings.Join(reasons[why][p], ", "))
		}
		fmt.Fprintf(&b, "- %s: %s\n", why, strings.Join(list, "; "))
	}
	b.WriteString("\n")
	return b.String()
}
