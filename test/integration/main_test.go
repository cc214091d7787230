//go:build integration

package integration

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/nabla-build/nabla-build/test/nablatest"
)

// source is the Python sample as an ordinary OCI image (make build/images/python).
func source(t testing.TB) string {
	t.Helper()
	dir := filepath.Join(nablatest.Root(t), "build", "images", "python")
	if _, err := os.Stat(filepath.Join(dir, "index.json")); err != nil {
		t.Fatalf("%s is not there: run make test, which makes it", dir)
	}
	return "oci:" + dir
}

var relink struct {
	once sync.Once
	dir  string
	err  error
}

// relinked is the nabla image of the sample, as an OCI layout made once.
func relinked(t testing.TB) string {
	t.Helper()
	relink.once.Do(func() {
		dir, err := os.MkdirTemp("", "nabla-integration")
		if err != nil {
			relink.err = err
			return
		}
		relink.dir = filepath.Join(dir, "python")
		out, err := exec.Command(nablatest.Binary(t), "relink", source(t), "oci:"+relink.dir).CombinedOutput()
		if err != nil {
			relink.err = fmt.Errorf("relink: %v\n%s", err, out)
		}
	})
	if relink.err != nil {
		t.Fatal(relink.err)
	}
	return "oci:" + relink.dir
}

func TestMain(m *testing.M) {
	code := m.Run()
	if relink.dir != "" {
		os.RemoveAll(filepath.Dir(relink.dir))
	}
	os.Exit(code)
}

// freePort is a TCP port that nothing listens on now.
func freePort(t testing.TB) int {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	return l.Addr().(*net.TCPAddr).Port
}

// service is a running container or process and where it answers.
type service struct {
	base string
	log  func() string
}

// start runs a command in the background until the test ends.
func start(t testing.TB, base string, cmd *exec.Cmd) *service {
	t.Helper()
	var mu sync.Mutex
	var buf bytes.Buffer
	w := writerFunc(func(p []byte) (int, error) {
		mu.Lock()
		defer mu.Unlock()
		return buf.Write(p)
	})
	cmd.Stdout, cmd.Stderr = w, w
	cmd.WaitDelay = 2 * time.Second
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	done := make(chan struct{})
	go func() { cmd.Wait(); close(done) }()
	t.Cleanup(func() {
		cmd.Process.Signal(syscall.SIGTERM)
		select {
		case <-done:
		case <-time.After(5 * time.Second):
			t.Errorf("%s: did not end within 5 s of SIGTERM", cmd)
			cmd.Process.Kill()
			<-done
		}
	})
	return &service{base: base, log: func() string { mu.Lock(); defer mu.Unlock(); return buf.String() }}
}

type writerFunc func([]byte) (int, error)

func (f writerFunc) Write(p []byte) (int, error) { return f(p) }

// get fetches a path, waiting up to 20 s for the service to come up.
func (s *service) get(t testing.TB, path string) string {
	t.Helper()
	deadline := time.Now().Add(20 * time.Second)
	for {
		ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
		req, _ := http.NewRequestWithContext(ctx, "GET", s.base+path, nil)
		r, err := http.DefaultClient.Do(req)
		if err == nil {
			b, err := io.ReadAll(r.Body)
			r.Body.Close()
			cancel()
			if err != nil {
				t.Fatalf("%s: %v\nlog:\n%s", path, err, s.log())
			}
			if r.StatusCode != 200 {
				t.Fatalf("%s: %s %s\nlog:\n%s", path, r.Status, b, s.log())
			}
			return string(b)
		}
		cancel()
		if time.Now().After(deadline) {
			t.Fatalf("%s: %v\nlog:\n%s", path, err, s.log())
		}
		time.Sleep(50 * time.Millisecond)
	}
}

// exercise uses every part of the sample.
func (s *service) exercise(t testing.TB) {
	t.Helper()
	if page := s.get(t, "/"); !strings.Contains(page, "<h1>Notes</h1>") || !strings.Contains(page, "Linux x86_64") {
		t.Errorf("page: %s", page)
	}
	if h := s.get(t, "/hash?text=abc"); !strings.Contains(h, "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad") {
		t.Errorf("hash: %s", h)
	}
	for i := range 3 {
		r, err := http.Post(s.base+"/notes", "application/json", strings.NewReader(fmt.Sprintf(`{"text":"note %d"}`, i)))
		if err != nil {
			t.Fatalf("post: %v\nlog:\n%s", err, s.log())
		}
		r.Body.Close()
		if r.StatusCode != 201 {
			t.Fatalf("post: %s\nlog:\n%s", r.Status, s.log())
		}
	}
	var notes []struct{ Text string }
	if err := json.Unmarshal([]byte(s.get(t, "/notes")), &notes); err != nil || len(notes) != 3 || notes[2].Text != "note 2" {
		t.Errorf("notes: %v %v", notes, err)
	}
	var wg sync.WaitGroup
	for range 20 {
		wg.Go(func() {
			for range 20 {
				r, err := http.Get(s.base + "/healthz")
				if err != nil {
					t.Errorf("at once: %v", err)
					return
				}
				io.Copy(io.Discard, r.Body)
				r.Body.Close()
			}
		})
	}
	wg.Wait()
}
