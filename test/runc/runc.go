// Package runc runs a program in a container of a root file system, as a
// container engine does: the conformance runners use it for both sides. It
// needs root and runc.
package runc

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"time"
)

// Container says what to run and where.
type Container struct {
	Root     string // the root file system, an absolute path; never changed
	Args     []string
	Env      []string
	Hostname string
	// Writable gives the container a fresh writable layer over Root; otherwise
	// Root is read-only.
	Writable bool
	// Work is where bundles are made; an absolute path.
	Work string
	// Idle ends the container when it has written nothing for that long, Limit
	// after that long in any case.
	Idle, Limit time.Duration
}

// End says how a run ended.
type End struct {
	Status int    // exit status; 128+N after signal N
	Killed string // not empty: the run was ended from outside, and why
}

// capabilities are what a container of the Docker Engine has by default: the
// library OS's user 0 has these too.
var capabilities = strings.Fields("CAP_CHOWN CAP_DAC_OVERRIDE CAP_FSETID CAP_FOWNER CAP_MKNOD CAP_NET_RAW " +
	"CAP_SETGID CAP_SETUID CAP_SETFCAP CAP_SETPCAP CAP_NET_BIND_SERVICE CAP_SYS_CHROOT CAP_KILL CAP_AUDIT_WRITE")

// Run runs the container and hands its output, standard output and errors
// together, to each, line by line.
func (c Container) Run(ctx context.Context, each func(line []byte)) (End, error) {
	dir, err := os.MkdirTemp(c.Work, "run-")
	if err != nil {
		return End{}, err
	}
	defer os.RemoveAll(dir)
	root := c.Root
	if c.Writable {
		root = filepath.Join(dir, "merged")
		for _, d := range []string{"upper", "work", "merged"} {
			if err := os.Mkdir(filepath.Join(dir, d), 0o755); err != nil {
				return End{}, err
			}
		}
		opts := fmt.Sprintf("lowerdir=%s,upperdir=%s/upper,workdir=%s/work", c.Root, dir, dir)
		if err := syscall.Mount("overlay", root, "overlay", 0, opts); err != nil {
			return End{}, fmt.Errorf("mount an overlay on %s (needs root): %w", c.Root, err)
		}
		defer syscall.Unmount(root, syscall.MNT_DETACH)
	}
	if err := c.bundle(dir, root); err != nil {
		return End{}, err
	}
	id := c.Hostname + "-" + filepath.Base(dir)
	state := filepath.Join(dir, "state")
	cmd := exec.Command("runc", "--root", state, "run", "--bundle", dir, id)
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true} // a ^C is for the runner
	r, w, err := os.Pipe()
	if err != nil {
		return End{}, err
	}
	cmd.Stdout, cmd.Stderr = w, w
	if err := cmd.Start(); err != nil {
		return End{}, fmt.Errorf("runc run: %w", err)
	}
	w.Close()

	lines := make(chan []byte, 64)
	go func() { readLines(r, lines); r.Close() }()
	over := time.After(c.Limit)
	quiet := time.NewTimer(c.Idle)
	defer quiet.Stop()
	var e End
	kill := func(why string) {
		if e.Killed != "" {
			return
		}
		e.Killed = why
		if out, err := exec.Command("runc", "--root", state, "kill", "--all", id, "KILL").CombinedOutput(); err != nil {
			fmt.Fprintf(os.Stderr, "runc kill: %v: %s\n", err, bytes.TrimSpace(out))
			syscall.Kill(-cmd.Process.Pid, syscall.SIGKILL)
		}
	}
	done := ctx.Done()
	for lines != nil {
		select {
		case l, ok := <-lines:
			if !ok {
				lines = nil
				break
			}
			each(l)
			quiet.Reset(c.Idle)
		case <-quiet.C:
			kill(fmt.Sprintf("nothing for %v", c.Idle))
		case <-over:
			kill(fmt.Sprintf("no end after %v", c.Limit))
		case <-done:
			kill("interrupted")
			done = nil
		}
	}
	err = cmd.Wait()
	var ee *exec.ExitError
	if errors.As(err, &ee) {
		e.Status = ee.ExitCode()
	} else if err != nil {
		return e, fmt.Errorf("runc run: %w", err)
	}
	exec.Command("runc", "--root", state, "delete", "--force", id).Run() // there only after a kill
	return e, ctx.Err()
}

// bundle writes runc's config.json into dir.
func (c Container) bundle(dir, root string) error {
	gen := exec.Command("runc", "spec")
	gen.Dir = dir
	if out, err := gen.CombinedOutput(); err != nil {
		return fmt.Errorf("runc spec: %w: %s", err, out)
	}
	file := filepath.Join(dir, "config.json")
	b, err := os.ReadFile(file)
	if err != nil {
		return err
	}
	var spec map[string]any
	if err := json.Unmarshal(b, &spec); err != nil {
		return err
	}
	p := spec["process"].(map[string]any)
	p["terminal"], p["args"], p["env"], p["cwd"] = false, c.Args, c.Env, "/"
	caps := map[string]any{}
	for _, set := range []string{"bounding", "effective", "permitted"} {
		caps[set] = capabilities
	}
	p["capabilities"] = caps
	spec["root"] = map[string]any{"path": root, "readonly": !c.Writable}
	spec["hostname"] = c.Hostname
	if b, err = json.Marshal(spec); err != nil {
		return err
	}
	return os.WriteFile(file, b, 0o644)
}

// readLines sends the lines of r, cut at 1 MiB, and closes the channel at the
// end. A line is sent when it is complete.
func readLines(r io.Reader, lines chan<- []byte) {
	defer close(lines)
	b := bufio.NewReader(r)
	var line []byte
	for {
		part, err := b.ReadSlice('\n')
		if len(line) < 1<<20 {
			line = append(line, part...)
		}
		if errors.Is(err, bufio.ErrBufferFull) {
			continue
		}
		if len(line) > 0 {
			lines <- bytes.TrimSuffix(line, []byte("\n"))
			line = nil
		}
		if err != nil {
			return
		}
	}
}
