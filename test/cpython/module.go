package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"time"
)

// Outcome is what became of one test case.
type Outcome struct {
	Result string `json:"result"` // pass, fail, error, skip, xfail, upass, hang, crash
	Detail string `json:"detail,omitempty"`
}

// worse orders the results of a test case that reported more than once (its
// subtests do, and cases that share an ID).
var worse = map[string]int{"": 0, "pass": 1, "xfail": 2, "skip": 3, "upass": 4, "fail": 5, "error": 6, "hang": 7, "crash": 8}

// Module is what became of one module on one side.
type Module struct {
	Name    string             `json:"name"`
	Key     string             `json:"image"` // the image's digest
	Seconds float64            `json:"seconds"`
	Cases   map[string]Outcome `json:"cases"`
	// Ends has a line for each run of the module that was not the usual: hangs, crashes, a
	// status other than regrtest's.
	Ends []string `json:"ends,omitempty"`
}

func (m *Module) add(id, result, detail string) {
	if old := m.Cases[id]; worse[result] >= worse[old.Result] {
		m.Cases[id] = Outcome{Result: result, Detail: detail}
	}
}

// attempts is how often a module is run again without the test cases that hung
// or crashed.
const attempts = 8

// module runs one module. A test case that hangs or ends the process is
// recorded as such, and the module is run again without it, so that the others
// count.
func (s *side) module(ctx context.Context, name string, t limits) (*Module, error) {
	m := &Module{Name: name, Key: s.key, Cases: map[string]Outcome{}}
	begin := time.Now()
	log, err := os.Create(filepath.Join(s.dir, name+".log"))
	if err != nil {
		return nil, err
	}
	defer log.Close()
	ignored := []string{}
	for range attempts {
		args := []string{"-u", resources}
		for _, id := range ignored {
			args = append(args, "--ignore", id)
		}
		running, done := "", false
		e, err := s.run(ctx, append(args, name), t.idle*s.slow, t.module*s.slow, func(line []byte) bool {
			if len(line) == 0 || line[0] != 0x1e {
				if len(line) > 0 {
					fmt.Fprintf(log, "%s\n", line)
				}
				return false
			}
			var rec []any
			if err := json.Unmarshal(line[1:], &rec); err != nil || len(rec) < 2 {
				fmt.Fprintf(log, "bad record: %s\n", line[1:])
				return false
			}
			str := func(i int) string {
				if i < len(rec) {
					v, _ := rec[i].(string)
					return v
				}
				return ""
			}
			switch rec[0] {
			case "start":
				running = str(1)
				fmt.Fprintf(log, "=== %s\n", running)
			case "end":
				m.add(str(1), str(2), str(3))
				if str(2) != "pass" {
					fmt.Fprintf(log, "--- %s: %s\n%s\n", str(1), str(2), str(3))
				}
				if str(1) == running && str(2) != "fail" { // a failed subtest is not its end
					running = ""
				}
			case "done":
				done = true
			}
			return true
		})
		if err != nil {
			return nil, err
		}
		fmt.Fprintf(log, "=== end: status %d %s\n", e.status, e.killed)
		if done {
			if e.killed != "" {
				m.Ends = append(m.Ends, "no exit after the last test case: "+e.killed)
			}
			break
		}
		how, what := "crash", fmt.Sprintf("status %d", e.status)
		if e.killed != "" {
			how, what = "hang", e.killed
		}
		m.Ends = append(m.Ends, fmt.Sprintf("%s in %q: %s", how, running, what))
		if running == "" { // between test cases: nothing to leave out
			break
		}
		m.add(running, how, what)
		if strings.HasPrefix(e.killed, "no end") {
			break
		}
		ignored = append(ignored, running)
	}
	m.Seconds = time.Since(begin).Seconds()
	return m, nil
}

func (s *side) file(name string) string { return filepath.Join(s.dir, name+".json") }

// stored is the module's last result, or nil if there is none.
func (s *side) stored(name string) (*Module, error) {
	b, err := os.ReadFile(s.file(name))
	if errors.Is(err, os.ErrNotExist) {
		return nil, nil
	} else if err != nil {
		return nil, err
	}
	m := new(Module)
	if err := json.Unmarshal(b, m); err != nil {
		return nil, fmt.Errorf("read %s: %w; remove it", s.file(name), err)
	}
	return m, nil
}

func (s *side) store(m *Module) error {
	b, err := json.MarshalIndent(m, "", " ")
	if err != nil {
		return err
	}
	tmp := s.file(m.Name) + ".tmp"
	if err := os.WriteFile(tmp, b, 0o644); err != nil {
		return err
	}
	return os.Rename(tmp, s.file(m.Name))
}
