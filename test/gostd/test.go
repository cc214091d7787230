package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"os"
	"os/exec"
	"regexp"
	"slices"
	"strings"
	"time"

	"github.com/google/go-containerregistry/pkg/v1/layout"
	"github.com/google/go-containerregistry/pkg/v1/mutate"
	"github.com/nabla-build/nabla-build/test/runc"
)

// Result is what a package's tests did on one side.
type Result struct {
	Package   string
	Go        string             // version
	Functions map[string]Outcome // top-level test functions and examples
	Ends      []string           `json:",omitempty"` // crashes and hangs
	Seconds   float64
}

// Outcome is of one test function. State: pass, fail, skip; crash if the
// program ended in it, hang if it was ended from outside.
type Outcome struct {
	State   string
	Output  string `json:",omitempty"` // of what did not pass, cut
	Seconds float64
}

// event is a line of test2json; see go doc test2json.
type event struct {
	Action, Test, Output string
	Elapsed              float64
}

const idle = 90 * time.Second

// restarts is how often a package's tests are begun again without the function
// in which they crashed.
const restarts = 12

// test runs a package's tests but those in skip. The raw output goes to FILE.log, the result to
// FILE.json unless only some functions are run.
func (m *image) test(ctx context.Context, pkg string, inside bool, only string, skip []string, limit time.Duration, file string) (*Result, error) {
	r := &Result{Package: pkg, Go: goVersion(), Functions: map[string]Outcome{}}
	log, err := os.Create(file + ".log")
	if err != nil {
		return nil, err
	}
	defer log.Close()
	start := time.Now()
	for n := 0; ; n++ {
		again, err := m.once(ctx, r, pkg, inside, only, skip, limit-time.Since(start), log)
		if err != nil {
			return nil, err
		}
		if !again || n == restarts || time.Since(start) >= limit {
			break
		}
	}
	r.Seconds = time.Since(start).Seconds()
	if only != "" {
		return r, log.Close()
	}
	b, err := json.MarshalIndent(r, "", " ")
	if err != nil {
		return nil, err
	}
	return r, errors.Join(log.Close(), os.WriteFile(file+".json", b, 0o644))
}

// once runs the functions that have no outcome yet. It says whether it is worth
// another run: the program did not reach its end, but something was learnt.
func (m *image) once(ctx context.Context, r *Result, pkg string, inside bool, only string, skip []string, limit time.Duration, log io.Writer) (again bool, err error) {
	args := []string{"/gostd/driver", m.goroot + "/src/" + pkg, program(pkg), "-test.v=test2json", "-test.short", "-test.timeout=0"}
	if only != "" {
		args = append(args, "-test.run="+only)
	}
	if names := slices.AppendSeq(slices.Clone(skip), maps.Keys(r.Functions)); len(names) > 0 {
		slices.Sort(names)
		for i, n := range names {
			names[i] = regexp.QuoteMeta(n)
		}
		args = append(args, "-test.skip=^("+strings.Join(names, "|")+")$")
	}
	c := runc.Container{
		Root: m.root, Writable: !inside, Work: m.work, Hostname: "gostd", Idle: idle, Limit: limit,
		Args: args,
		Env:  []string{"PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin", "HOME=/root", "GOROOT=" + m.goroot, "GOTRACEBACK=all"},
	}
	if inside {
		c.Root, c.Idle = m.nabla, 2*idle
		c.Args = append([]string{"/nabla"}, args[1:]...)
		c.Env = append(c.Env, "NABLA_NET=none")
	}
	fmt.Fprintf(log, "# %s\n", strings.Join(c.Args, " "))
	conv := exec.Command(m.test2json)
	in, err := conv.StdinPipe()
	if err != nil {
		return false, err
	}
	var events bytes.Buffer
	conv.Stdout, conv.Stderr = &events, os.Stderr
	if err := conv.Start(); err != nil {
		return false, err
	}
	end, err := c.Run(ctx, func(l []byte) {
		fmt.Fprintf(log, "%s\n", l)
		fmt.Fprintf(in, "%s\n", l)
	})
	if err := errors.Join(in.Close(), conv.Wait()); err != nil {
		return false, fmt.Errorf("test2json: %w", err)
	}
	if err != nil {
		return false, err
	}
	running, finished, tail, err := r.read(&events)
	if err != nil {
		return false, err
	}
	if finished && end.Killed == "" && (end.Status == 0 || end.Status == 1) {
		return false, nil
	}
	state, why := "crash", fmt.Sprintf("exit status %d", end.Status)
	if end.Killed != "" {
		state, why = "hang", end.Killed
	}
	for name, out := range running {
		r.Functions[name] = Outcome{State: state, Output: cut(out + tail)}
	}
	names := slices.Sorted(maps.Keys(running))
	r.Ends = append(r.Ends, fmt.Sprintf("%s in %s: %s", why, strings.Join(names, ", "), firstFatal(tail+strings.Join(slices.Collect(maps.Values(running)), ""))))
	return len(running) > 0 && only == "", nil
}

// read takes in what test2json wrote. It returns the functions that were
// running at the end with their output, whether the program came to its end,
// and the last output that belongs to no function.
func (r *Result) read(events io.Reader) (running map[string]string, finished bool, tail string, err error) {
	running = map[string]string{}
	paused := map[string]bool{}
	dec := json.NewDecoder(events)
	for {
		var e event
		if err := dec.Decode(&e); err == io.EOF {
			break
		} else if err != nil {
			return nil, false, "", fmt.Errorf("output of test2json: %w", err)
		}
		name, _, sub := strings.Cut(e.Test, "/")
		switch {
		case name == "":
			if e.Action == "output" {
				tail = last(tail + e.Output)
				if e.Output == "PASS\n" || e.Output == "FAIL\n" {
					finished = true
				}
			}
		case e.Action == "output":
			running[name] = last(running[name] + e.Output)
		case sub:
		case e.Action == "run":
			running[name] = ""
		case e.Action == "pause":
			paused[name] = true
		case e.Action == "cont":
			delete(paused, name)
		case e.Action == "pass" || e.Action == "fail" || e.Action == "skip":
			o := Outcome{State: e.Action, Seconds: e.Elapsed}
			if e.Action != "pass" {
				o.Output = cut(running[name])
			}
			r.Functions[name] = o
			delete(running, name)
		}
	}
	for n := range running {
		_, done := r.Functions[n]
		if paused[n] || done { // output after the end
			delete(running, n)
		}
	}
	return running, finished, tail, nil
}

// last keeps the end of what may be very long.
func last(s string) string {
	if len(s) > 64<<10 {
		s = s[len(s)-32<<10:]
	}
	return s
}

func cut(s string) string {
	if len(s) > 6000 {
		s = s[:3000] + "\n...\n" + s[len(s)-3000:]
	}
	return s
}

var fatal = regexp.MustCompile(`(?m)^(panic|fatal error|SIG[A-Z]+|nabla|runtime): ?.*$`)

func firstFatal(s string) string { return fatal.FindString(s) }

// unpack writes the one image of an OCI layout into a directory.
func unpack(ociDir, root string) error {
	index, err := layout.ImageIndexFromPath(ociDir)
	if err != nil {
		return fmt.Errorf("open image %s: %w", ociDir, err)
	}
	im, err := index.IndexManifest()
	if err != nil || len(im.Manifests) != 1 {
		return fmt.Errorf("open image %s: one image expected: %v", ociDir, err)
	}
	img, err := index.Image(im.Manifests[0].Digest)
	if err != nil {
		return fmt.Errorf("open image %s: %w", ociDir, err)
	}
	if err := errors.Join(os.RemoveAll(root), os.MkdirAll(root, 0o755)); err != nil {
		return err
	}
	flat := mutate.Extract(img)
	defer flat.Close()
	cmd := exec.Command("tar", "-x", "--numeric-owner", "-C", root)
	cmd.Stdin, cmd.Stderr = flat, os.Stderr
	if err := cmd.Run(); err != nil {
		return fmt.Errorf("unpack image %s: %w", ociDir, err)
	}
	return nil
}
