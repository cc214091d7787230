//go:build integration

package integration

import (
	"archive/tar"
	"encoding/json"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/layout"
	"github.com/google/go-containerregistry/pkg/v1/mutate"

	"github.com/nabla-build/nabla-build/test/daemons"
	"github.com/nabla-build/nabla-build/test/nablatest"
)

// load reads the image of an oci: reference.
func load(t testing.TB, ref string) v1.Image {
	t.Helper()
	idx, err := layout.ImageIndexFromPath(strings.TrimPrefix(ref, "oci:"))
	if err != nil {
		t.Fatal(err)
	}
	m, err := idx.IndexManifest()
	if err != nil || len(m.Manifests) == 0 {
		t.Fatalf("%s: %v", ref, err)
	}
	img, err := idx.Image(m.Manifests[0].Digest)
	if err != nil {
		t.Fatal(err)
	}
	return img
}

// unpack writes an image's root file system to dir.
func unpack(t testing.TB, img v1.Image, dir string) {
	t.Helper()
	r := mutate.Extract(img)
	defer r.Close()
	tr := tar.NewReader(r)
	for {
		h, err := tr.Next()
		if err == io.EOF {
			return
		}
		if err != nil {
			t.Fatal(err)
		}
		name := filepath.Join(dir, h.Name)
		switch h.Typeflag {
		case tar.TypeDir:
			err = os.MkdirAll(name, os.FileMode(h.Mode).Perm())
		case tar.TypeReg:
			os.MkdirAll(filepath.Dir(name), 0o755)
			var f *os.File
			if f, err = os.OpenFile(name, os.O_CREATE|os.O_WRONLY|os.O_TRUNC, os.FileMode(h.Mode).Perm()); err == nil {
				_, err = io.Copy(f, tr)
				f.Close()
			}
		default:
			t.Fatalf("%s: type %c in a nabla image", h.Name, h.Typeflag)
		}
		if err != nil {
			t.Fatal(err)
		}
	}
}

// bundle makes a runc bundle of the nabla image. edit changes its config.json.
func bundle(t testing.TB, edit func(spec map[string]any)) string {
	t.Helper()
	dir := t.TempDir()
	img := load(t, relinked(t))
	unpack(t, img, filepath.Join(dir, "rootfs"))
	cf, err := img.ConfigFile()
	if err != nil {
		t.Fatal(err)
	}
	if r := nablatest.Run(t, dir, "runc", "spec"); r.Status != 0 {
		t.Fatalf("runc spec: %s", r.Stderr)
	}
	b, err := os.ReadFile(filepath.Join(dir, "config.json"))
	if err != nil {
		t.Fatal(err)
	}
	var spec map[string]any
	if err := json.Unmarshal(b, &spec); err != nil {
		t.Fatal(err)
	}
	p := spec["process"].(map[string]any)
	p["terminal"] = false
	p["args"] = append(append([]string{}, cf.Config.Entrypoint...), cf.Config.Cmd...)
	p["env"] = cf.Config.Env
	if cf.Config.WorkingDir != "" {
		p["cwd"] = cf.Config.WorkingDir
	}
	edit(spec)
	if b, err = json.Marshal(spec); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(dir, "config.json"), b, 0o644); err != nil {
		t.Fatal(err)
	}
	return dir
}

// TestRunc runs the image under runc, in the host's network namespace, without
// capabilities and on a read-only root.
func TestRunc(t *testing.T) {
	port := freePort(t)
	dir := bundle(t, func(spec map[string]any) {
		p := spec["process"].(map[string]any)
		p["env"] = append(p["env"].([]string), fmt.Sprintf("NABLA_PUBLISH=%d:8080", port))
		l := spec["linux"].(map[string]any)
		var ns []any
		for _, n := range l["namespaces"].([]any) {
			if n.(map[string]any)["type"] != "network" {
				ns = append(ns, n)
			}
		}
		l["namespaces"] = ns
	})
	id := fmt.Sprintf("nabla-test-%d", os.Getpid())
	cmd := exec.Command("runc", "--root", filepath.Join(dir, "state"), "run", "--bundle", dir, id)
	s := start(t, fmt.Sprintf("http://127.0.0.1:%d", port), cmd)
	s.exercise(t)
}

// engine is a Docker daemon of our own.
type engine struct{ socket string }

func startEngine(t *testing.T) *engine {
	t.Helper()
	e, err := daemons.StartEngine()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if t.Failed() {
			t.Logf("dockerd:\n%s", e.Log())
		}
		if err := e.Close(); err != nil {
			t.Error(err)
		}
	})
	return &engine{socket: e.Socket}
}

func (e *engine) docker(t testing.TB, args ...string) nablatest.Result {
	t.Helper()
	return nablatest.Run(t, t.TempDir(), append([]string{"docker", "-H", e.socket}, args...)...)
}

func TestDocker(t *testing.T) {
	e := startEngine(t)
	tarball := filepath.Join(t.TempDir(), "image.tar")
	if r := nablatest.Run(t, t.TempDir(), nablatest.Binary(t), "relink", source(t), "docker-archive:"+tarball+":nabla/python:test"); r.Status != 0 {
		t.Fatalf("relink: %s", r.Stderr)
	}
	if r := e.docker(t, "load", "-i", tarball); r.Status != 0 {
		t.Fatalf("docker load: %s%s", r.Stdout, r.Stderr)
	}
	for _, tt := range []struct {
		name  string
		flags []string
		port  string // of the guest
	}{
		{name: "default", port: "8080"},
		{name: "no-rights", flags: []string{"--cap-drop", "ALL", "--user", "1000", "--read-only"}, port: "8080"},
		{name: "environment", flags: []string{"-e", "PORT=9090", "-e", "NABLA_PUBLISH=9090:9090"}, port: "9090"},
		{name: "net-admin", flags: []string{"--cap-add", "NET_ADMIN"}, port: "8080"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			port := freePort(t)
			name := fmt.Sprintf("nabla-%s-%d", tt.name, os.Getpid())
			args := []string{"run", "-d", "--name", name, "-p", fmt.Sprintf("127.0.0.1:%d:%s", port, tt.port)}
			args = append(append(args, tt.flags...), "nabla/python:test")
			if r := e.docker(t, args...); r.Status != 0 {
				t.Fatalf("docker run: %s", r.Stderr)
			}
			t.Cleanup(func() { e.docker(t, "rm", "-f", name) })
			s := &service{base: fmt.Sprintf("http://127.0.0.1:%d", port), log: func() string {
				r := e.docker(t, "logs", name)
				return r.Stdout + r.Stderr
			}}
			s.exercise(t)
			begin := time.Now()
			if r := e.docker(t, "stop", name); r.Status != 0 {
				t.Errorf("docker stop: %s", r.Stderr)
			}
			if d := time.Since(begin); d > 5*time.Second {
				t.Errorf("docker stop took %v: SIGTERM did not reach the guest", d)
			}
			if r := e.docker(t, "inspect", "-f", "{{.State.ExitCode}}", name); strings.TrimSpace(r.Stdout) != "0" {
				t.Errorf("exit code %s, want 0, log:\n%s", r.Stdout, s.log())
			}
		})
	}
	t.Run("arguments", func(t *testing.T) {
		// The sample takes its port as an argument.
		port := freePort(t)
		name := fmt.Sprintf("nabla-arguments-%d", os.Getpid())
		if r := e.docker(t, "run", "-d", "--name", name, "-p", fmt.Sprintf("127.0.0.1:%d:8081", port),
			"-e", "NABLA_PUBLISH=8081:8081", "nabla/python:test", "8081"); r.Status != 0 {
			t.Fatalf("docker run: %s", r.Stderr)
		}
		t.Cleanup(func() { e.docker(t, "rm", "-f", name) })
		s := &service{base: fmt.Sprintf("http://127.0.0.1:%d", port), log: func() string { return e.docker(t, "logs", name).Stderr }}
		s.get(t, "/healthz")
	})
}
