//go:build integration

package buildkit

import (
	"context"
	"fmt"
	"io"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/nabla-build/nabla-build/test/daemons"
	"github.com/nabla-build/nabla-build/test/nablatest"
)

// shared is a daemon that all tests of this package use, started by the first
// that asks for it and closed after the last.
type shared[T interface {
	comparable
	Close() error
}] struct {
	once sync.Once
	v    T
	err  error
}

func (s *shared[T]) get(t testing.TB, start func() (T, error)) T {
	t.Helper()
	s.once.Do(func() { s.v, s.err = start() })
	if s.err != nil {
		t.Fatal(s.err)
	}
	return s.v
}

func (s *shared[T]) close() error {
	var none T
	if s.v == none {
		return nil
	}
	return s.v.Close()
}

var machine struct {
	registry  shared[*daemons.Registry]
	engine    shared[*daemons.Engine]
	buildkitd shared[*daemons.Buildkitd]
	buildx    shared[*daemons.Buildx]

	remote     sync.Once // makes the builder "remote"
	remoteErr  error
	mu         sync.Mutex
	bases      map[string]string // repository in the registry: full name
	containers int
}

func TestMain(m *testing.M) {
	code := m.Run()
	for _, c := range []func() error{machine.buildx.close, machine.buildkitd.close, machine.engine.close, machine.registry.close} {
		if err := c(); err != nil {
			fmt.Fprintln(os.Stderr, err)
			code = 1
		}
	}
	os.Exit(code)
}

func theRegistry(t testing.TB) *daemons.Registry {
	t.Helper()
	return machine.registry.get(t, daemons.StartRegistry)
}

func theEngine(t testing.TB) *daemons.Engine {
	t.Helper()
	return machine.engine.get(t, func() (*daemons.Engine, error) { return daemons.StartEngine() })
}

func theBuildkitd(t testing.TB) *daemons.Buildkitd {
	t.Helper()
	return machine.buildkitd.get(t, func() (*daemons.Buildkitd, error) { return daemons.StartBuildkitd(nablatest.Root(t), nil) })
}

// theBuildx is docker with buildx: builder "default" is the Engine's BuildKit,
// "remote" is buildkitd.
func theBuildx(t testing.TB) *daemons.Buildx {
	t.Helper()
	engine, buildkitd := theEngine(t), theBuildkitd(t)
	x := machine.buildx.get(t, func() (*daemons.Buildx, error) { return daemons.NewBuildx(nablatest.Root(t), engine) })
	machine.remote.Do(func() { machine.remoteErr = x.Remote("remote", buildkitd) })
	if machine.remoteErr != nil {
		t.Fatal(machine.remoteErr)
	}
	return x
}

// limit is how long one build or pull may take on a busy machine.
const limit = 5 * time.Minute

// docker runs a docker command on the engine.
func docker(t testing.TB, args ...string) nablatest.Result {
	t.Helper()
	return nablatest.Within(t, limit, theBuildx(t).Docker(args...))
}

// buildctl runs a buildctl command for buildkitd.
func buildctl(t testing.TB, args ...string) nablatest.Result {
	t.Helper()
	cmd, err := theBuildkitd(t).Buildctl(args...)
	if err != nil {
		t.Fatal(err)
	}
	return nablatest.Within(t, limit, cmd)
}

// nablaBuild runs bin/nabla-build with the engine and the builders of
// theBuildx.
func nablaBuild(t testing.TB, args ...string) nablatest.Result {
	t.Helper()
	return nablatest.Within(t, limit, nablaBuildCommand(t, args...))
}

func nablaBuildCommand(t testing.TB, args ...string) *exec.Cmd {
	t.Helper()
	cmd := exec.Command(nablatest.Binary(t), args...)
	cmd.Env = append(os.Environ(), theBuildx(t).Env()...)
	return cmd
}

// must fails the test if a command failed.
func must(t testing.TB, r nablatest.Result) nablatest.Result {
	t.Helper()
	if r.Status != 0 {
		t.Fatalf("status %d\nstdout:\n%s\nstderr:\n%s", r.Status, r.Stdout, r.Stderr)
	}
	return r
}

// base pushes the base image of a sample, build/images/NAME-base.tar, to the
// registry once and gives its full name: what BASE is set to.
func base(t testing.TB, name string) string {
	t.Helper()
	machine.mu.Lock()
	defer machine.mu.Unlock()
	repository := name + "-base:latest"
	if full := machine.bases[repository]; full != "" {
		return full
	}
	tar := filepath.Join(nablatest.Root(t), "build", "images", name+"-base.tar")
	if _, err := os.Stat(tar); err != nil {
		t.Fatalf("%s is not there: run make test-buildkit, which makes it", tar)
	}
	full, err := theRegistry(t).PushRoot(repository, tar, nil)
	if err != nil {
		t.Fatal(err)
	}
	if machine.bases == nil {
		machine.bases = map[string]string{}
	}
	machine.bases[repository] = full
	return full
}

// container is a running container and where its published port answers.
type container struct{ name, url string }

// runImage runs an image on the engine with its port published until the test
// ends. It pulls it first if it is in the registry.
func runImage(t testing.TB, image, port string, flags ...string) *container {
	t.Helper()
	p, err := daemons.FreePort()
	if err != nil {
		t.Fatal(err)
	}
	if strings.HasPrefix(image, theRegistry(t).Host) {
		must(t, docker(t, "pull", image))
	}
	machine.mu.Lock()
	machine.containers++
	c := &container{name: fmt.Sprintf("c%d", machine.containers), url: fmt.Sprintf("http://127.0.0.1:%d", p)}
	machine.mu.Unlock()
	args := append([]string{"run", "-d", "--name", c.name, "-p", fmt.Sprintf("127.0.0.1:%d:%s", p, port)}, flags...)
	must(t, docker(t, append(args, image)...))
	t.Cleanup(func() { docker(t, "rm", "-f", c.name) })
	return c
}

// get fetches a page, waiting up to 20 s for the service to come up.
func (c *container) get(t testing.TB, path string) string {
	t.Helper()
	deadline := time.Now().Add(20 * time.Second)
	for {
		body, err := fetch(c.url + path)
		if err == nil {
			return body
		}
		if time.Now().After(deadline) {
			r := docker(t, "logs", c.name)
			t.Fatalf("%s: %v\nlog:\n%s%s", path, err, r.Stdout, r.Stderr)
		}
		time.Sleep(50 * time.Millisecond)
	}
}

func fetch(url string) (string, error) {
	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
	defer cancel()
	req, err := http.NewRequestWithContext(ctx, "GET", url, nil)
	if err != nil {
		return "", err
	}
	r, err := http.DefaultClient.Do(req)
	if err != nil {
		return "", err
	}
	defer r.Body.Close()
	b, err := io.ReadAll(r.Body)
	if err != nil {
		return "", err
	}
	if r.StatusCode != 200 {
		return "", fmt.Errorf("%s: %s", r.Status, b)
	}
	return string(b), nil
}

// buildContext makes a build context of files: name to content.
func buildContext(t testing.TB, files map[string]string) string {
	t.Helper()
	dir := t.TempDir()
	for name, content := range files {
		p := filepath.Join(dir, name)
		if err := os.MkdirAll(filepath.Dir(p), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(p, []byte(content), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	return dir
}
