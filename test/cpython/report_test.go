package main

import (
	"bytes"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

func cases(s string) map[string]Outcome {
	m := map[string]Outcome{}
	for _, w := range strings.Fields(s) {
		id, result, _ := strings.Cut(w, "=")
		m[id] = Outcome{Result: result}
	}
	return m
}

func TestReport(t *testing.T) {
	for _, tt := range []struct {
		name, native, inside, expected string
		good                           bool
		says                           string
	}{
		{"all pass", "a=pass b=pass c=skip d=fail", "a=pass b=pass c=skip d=pass", "", true, "2 of 2"},
		{"a failure", "a=pass b=pass", "a=pass b=fail", "", false, "not expected: m b: fail"},
		{"a failure that is known", "a=pass b=pass", "a=pass b=fail", "m b no such thing", true, "0 of them not expected"},
		{"known in another module", "a=pass b=pass", "a=pass b=fail", "n b no such thing", false, "not expected: m b"},
		{"skipped inside only", "a=pass b=pass", "a=pass b=skip", "", false, "not expected: m b: skip"},
		{"never came", "a=pass b=pass", "a=pass", "", false, "not expected: m b: not run"},
		{"a line that nothing needs", "a=pass b=pass", "a=pass b=pass", "m b no such thing", true, "expected, but passes: m b"},
		{"sometimes", "a=pass b=pass", "a=pass b=pass", "m b sometimes too late", true, "2 of 2"},
		{"below the share", "a=pass b=pass", "a=pass b=fail", "* * everything", false, "less than"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			dir := t.TempDir()
			file := filepath.Join(dir, "expected.txt")
			if err := os.WriteFile(file, []byte("# reasons\n\n"+tt.expected+"\n"), 0o644); err != nil {
				t.Fatal(err)
			}
			exp, err := readExpected(file)
			if err != nil {
				t.Fatal(err)
			}
			o := options{work: dir, min: 40}
			if strings.Contains(tt.says, "less than") {
				o.min = 97
			}
			p := pair{&Module{Name: "m", Cases: cases(tt.native)}, &Module{Name: "m", Cases: cases(tt.inside)}}
			var out bytes.Buffer
			good, err := report(&out, o, []pair{p}, exp, true)
			if err != nil {
				t.Fatal(err)
			}
			if good != tt.good || !strings.Contains(out.String(), tt.says) {
				t.Errorf("good %v, want %v, and %q in:\n%s", good, tt.good, tt.says, out.String())
			}
			if _, err := os.Stat(filepath.Join(dir, "summary.json")); err != nil {
				t.Error(err)
			}
		})
	}
}

func TestReportOfNothing(t *testing.T) {
	p := pair{&Module{Name: "m", Cases: cases("a=fail")}, &Module{Name: "m", Cases: cases("a=pass")}}
	if _, err := report(&bytes.Buffer{}, options{work: t.TempDir()}, []pair{p}, nil, true); err == nil {
		t.Error("nothing passes natively, and no error")
	}
}

func TestExpectedErrors(t *testing.T) {
	for _, text := range []string{"m", "m a", "m [ reason", "[ a reason"} {
		file := filepath.Join(t.TempDir(), "expected.txt")
		if err := os.WriteFile(file, []byte(text+"\n"), 0o644); err != nil {
			t.Fatal(err)
		}
		if _, err := readExpected(file); err == nil || !strings.Contains(err.Error(), "line 1") {
			t.Errorf("%q: %v", text, err)
		}
	}
}

func TestWorstOutcomeCounts(t *testing.T) {
	m := Module{Cases: map[string]Outcome{}}
	m.add("a", "fail", "a subtest")
	m.add("a", "pass", "")
	m.add("b", "pass", "")
	m.add("b", "crash", "status 139")
	if m.Cases["a"].Result != "fail" || m.Cases["b"].Result != "crash" {
		t.Errorf("%v", m.Cases)
	}
}
