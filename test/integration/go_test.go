//go:build integration

package integration

import (
	"fmt"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"

	"github.com/nabla-build/nabla-build/test/nablatest"
)

// TestGoSample runs the Go sample (make build/images/go): net/http, SQLite in
// pure Go, goroutines and os/exec.
func TestGoSample(t *testing.T) {
	dir := filepath.Join(nablatest.Root(t), "build", "images", "go")
	if _, err := os.Stat(filepath.Join(dir, "index.json")); err != nil {
		t.Fatalf("%s is not there: run make test, which makes it", dir)
	}
	port := freePort(t)
	cmd := exec.Command(nablatest.Binary(t), "run", "-p", fmt.Sprintf("%d:8080", port), "oci:"+dir)
	s := start(t, fmt.Sprintf("http://127.0.0.1:%d", port), cmd)
	if got := s.get(t, "/healthz"); got != "ok\n" {
		t.Fatalf("healthz: %q", got)
	}
	var wg sync.WaitGroup
	for i := range 20 {
		wg.Go(func() {
			r, err := http.Post(s.base+"/notes", "application/json", strings.NewReader(fmt.Sprintf(`{"text": "note %d & more"}`, i)))
			if err != nil {
				t.Error(err)
				return
			}
			r.Body.Close()
			if r.StatusCode != 200 {
				t.Errorf("POST /notes: %s", r.Status)
			}
		})
	}
	wg.Wait()
	list, page := s.get(t, "/notes"), s.get(t, "/")
	for i := range 20 {
		if want := fmt.Sprintf(`"note %d \u0026 more"`, i); !strings.Contains(list, want) {
			t.Errorf("no %s in the list:\n%s", want, list)
		}
		if want := fmt.Sprintf("<li>note %d &amp; more</li>", i); !strings.Contains(page, want) {
			t.Errorf("no %s in the page:\n%s", want, page)
		}
	}
	if got := s.get(t, "/primes?below=100000"); !strings.Contains(got, `"primes":9592`) {
		t.Errorf("primes: %s", got)
	}
	if got := s.get(t, "/sum?text=nabla"); !strings.Contains(got, shaOf(t, "nabla")) {
		t.Errorf("sum: %s", got)
	}
	if t.Failed() {
		t.Logf("log:\n%s", s.log())
	}
}

// shaOf is what sha256sum says on this machine.
func shaOf(t *testing.T, text string) string {
	t.Helper()
	cmd := exec.Command("sha256sum")
	cmd.Stdin = strings.NewReader(text)
	out, err := cmd.Output()
	if err != nil {
		t.Fatal(err)
	}
	digest, _, _ := strings.Cut(string(out), " ")
	return digest
}
