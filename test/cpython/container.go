package main

import (
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

	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/layout"
	"github.com/google/go-containerregistry/pkg/v1/mutate"
)

// side is where the tests run: one image, unpacked, and how runc runs it.
type side struct {
	name   string // native or inside
	key    string // the image's digest: results are of this image
	root   string // the unpacked image
	dir    string // results and logs
	config v1.Config
	nabla  bool
	// slow multiplies time limits.
	slow time.Duration
}

// openSide unpacks the image in the OCI layout, unless that has been done.
func openSide(name, ociDir, work string, nabla bool) (*side, error) {
	s := &side{name: name, dir: filepath.Join(work, name), root: filepath.Join(work, name+"-root"), nabla: nabla, slow: 1}
	if nabla {
		s.slow = 2
	}
	index, err := layout.ImageIndexFromPath(ociDir)
	if err != nil {
		return nil, fmt.Errorf("open image %s: %w", ociDir, err)
	}
	im, err := index.IndexManifest()
	if err != nil || len(im.Manifests) != 1 {
		return nil, fmt.Errorf("open image %s: one image expected: %v", ociDir, err)
	}
	img, err := index.Image(im.Manifests[0].Digest)
	if err != nil {
		return nil, fmt.Errorf("open image %s: %w", ociDir, err)
	}
	cf, err := img.ConfigFile()
	if err != nil {
		return nil, fmt.Errorf("open image %s: %w", ociDir, err)
	}
	s.key, s.config = im.Manifests[0].Digest.String(), cf.Config
	if err := os.MkdirAll(s.dir, 0o755); err != nil {
		return nil, err
	}
	stamp := s.root + ".digest"
	if b, err := os.ReadFile(stamp); err == nil && string(b) == s.key {
		return s, nil
	}
	if err := errors.Join(os.RemoveAll(s.root), os.MkdirAll(s.root, 0o755)); err != nil {
		return nil, err
	}
	flat := mutate.Extract(img)
	defer flat.Close()
	cmd := exec.Command("tar", "-x", "--numeric-owner", "-C", s.root)
	cmd.Stdin, cmd.Stderr = flat, os.Stderr
	if err := cmd.Run(); err != nil {
		return nil, fmt.Errorf("unpack image %s: %w", ociDir, err)
	}
	return s, os.WriteFile(stamp, []byte(s.key), 0o644)
}

// dockerCapabilities are what a container of the Docker Engine has by default:
// the library OS's user 0 has these too.
var dockerCapabilities = strings.Fields("CAP_CHOWN CAP_DAC_OVERRIDE CAP_FSETID CAP_FOWNER CAP_MKNOD CAP_NET_RAW " +
	"CAP_SETGID CAP_SETUID CAP_SETFCAP CAP_SETPCAP CAP_NET_BIND_SERVICE CAP_SYS_CHROOT CAP_KILL CAP_AUDIT_WRITE")

// bundle writes runc's config.json for one run into dir.
func (s *side) bundle(dir, root string, args []string) error {
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
	p["terminal"] = false
	p["args"] = append(append([]string{}, s.config.Entrypoint...), args...)
	p["env"] = s.config.Env
	if s.nabla {
		p["env"] = append(append([]string{}, s.config.Env...), "NABLA_NET=none")
	}
	p["cwd"] = "/"
	caps := map[string]any{}
	for _, set := range []string{"bounding", "effective", "permitted"} {
		caps[set] = dockerCapabilities
	}
	p["capabilities"] = caps
	spec["root"] = map[string]any{"path": root, "readonly": s.nabla}
	spec["hostname"] = "cpython"
	if b, err = json.Marshal(spec); err != nil {
		return err
	}
	return os.WriteFile(file, b, 0o644)
}

// end says why a run ended.
type end struct {
	status int    // of the container; 128+N after signal N
	killed string // not empty: the runner ended it, and why
}

// run runs the image with the arguments and hands its output, line by line, to
// each. It ends the container where no line that counts (each answers true)
// came for idle, or after limit.
func (s *side) run(ctx context.Context, args []string, idle, limit time.Duration, each func(line []byte) bool) (end, error) {
	dir, err := os.MkdirTemp(filepath.Dir(s.dir), "run-")
	if err != nil {
		return end{}, err
	}
	defer os.RemoveAll(dir)
	root := s.root
	if !s.nabla { // a fresh writable layer, as a container engine makes it
		root = filepath.Join(dir, "merged")
		for _, d := range []string{"upper", "work", "merged"} {
			if err := os.Mkdir(filepath.Join(dir, d), 0o755); err != nil {
				return end{}, err
			}
		}
		opts := fmt.Sprintf("lowerdir=%s,upperdir=%s/upper,workdir=%s/work", s.root, dir, dir)
		if err := syscall.Mount("overlay", root, "overlay", 0, opts); err != nil {
			return end{}, fmt.Errorf("mount an overlay on %s (needs root): %w", s.root, err)
		}
		defer syscall.Unmount(root, syscall.MNT_DETACH)
	}
	if err := s.bundle(dir, root, args); err != nil {
		return end{}, err
	}
	id := "cpython-" + filepath.Base(dir)
	state := filepath.Join(dir, "state")
	cmd := exec.Command("runc", "--root", state, "run", "--bundle", dir, id)
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true} // a ^C is for the runner
	r, w, err := os.Pipe()
	if err != nil {
		return end{}, err
	}
	cmd.Stdout, cmd.Stderr = w, w
	if err := cmd.Start(); err != nil {
		return end{}, fmt.Errorf("runc run: %w", err)
	}
	w.Close()

	lines := make(chan []byte, 64)
	go func() { readLines(r, lines); r.Close() }()
	over := time.After(limit)
	quiet := time.NewTimer(idle)
	defer quiet.Stop()
	var e end
	kill := func(why string) {
		if e.killed == "" {
			e.killed = why
			if out, err := exec.Command("runc", "--root", state, "kill", "--all", id, "KILL").CombinedOutput(); err != nil {
				fmt.Fprintf(os.Stderr, "cpython: runc kill: %v: %s\n", err, bytes.TrimSpace(out))
				syscall.Kill(-cmd.Process.Pid, syscall.SIGKILL)
			}
		}
	}
	done := ctx.Done()
	for lines != nil {
		select {
		case l, ok := <-lines:
			if !ok {
				lines = nil
			} else if each(l) && quiet.Stop() {
				quiet.Reset(idle)
			}
		case <-quiet.C:
			kill(fmt.Sprintf("nothing for %v", idle))
		case <-over:
			kill(fmt.Sprintf("no end after %v", limit))
		case <-done:
			kill("interrupted")
			done = nil
		}
	}
	err = cmd.Wait()
	var ee *exec.ExitError
	if errors.As(err, &ee) {
		e.status = ee.ExitCode()
	} else if err != nil {
		return e, fmt.Errorf("runc run: %w", err)
	}
	exec.Command("runc", "--root", state, "delete", "--force", id).Run() // there only after a kill
	return e, ctx.Err()
}

// readLines sends the lines of r, cut at 1 MiB, and closes the channel at its end.
func readLines(r io.Reader, lines chan<- []byte) {
	defer close(lines)
	var line []byte
	buf := make([]byte, 64<<10)
	for {
		n, err := r.Read(buf)
		for b := buf[:n]; len(b) > 0; {
			i := bytes.IndexByte(b, '\n')
			if i < 0 {
				if len(line) < 1<<20 {
					line = append(line, b...)
				}
				break
			}
			lines <- append(line, b[:i]...)
			line, b = nil, b[i+1:]
		}
		if err != nil {
			if len(line) > 0 {
				lines <- line
			}
			return
		}
	}
}
