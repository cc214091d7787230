//go:build integration

package integration

import (
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/nabla-build/nabla-build/test/nablatest"
)

// TestNodeSample runs the Node.js sample of images/node and asks for everything
// that it has.
func TestNodeSample(t *testing.T) {
	src := filepath.Join(nablatest.Root(t), "build", "images", "node")
	if _, err := os.Stat(filepath.Join(src, "index.json")); err != nil {
		t.Fatalf("%s is not there: run make build/images/node", src)
	}
	port := freePort(t)
	base := fmt.Sprintf("http://127.0.0.1:%d", port)
	s := start(t, base, exec.Command(nablatest.Binary(t), "run", "-q", "-p", fmt.Sprintf("%d:3000", port), "oci:"+src))
	if page := s.get(t, "/"); !strings.Contains(page, "Notebook") {
		t.Errorf("/ is %q", page)
	}
	for i := range 3 {
		res, err := http.Post(base+"/notes", "application/json", strings.NewReader(fmt.Sprintf(`{"text": "note %d"}`, i)))
		if err != nil {
			t.Fatal(err)
		}
		body, _ := io.ReadAll(res.Body)
		res.Body.Close()
		if res.StatusCode != 201 {
			t.Errorf("POST /notes: %s: %s", res.Status, body)
		}
	}
	var notes []struct{ Text string }
	if err := json.Unmarshal([]byte(s.get(t, "/notes")), &notes); err != nil || len(notes) != 3 || notes[2].Text != "note 2" {
		t.Errorf("/notes: %v, %v", notes, err)
	}
	for path, want := range map[string]string{
		"/hash?text=a":        `{"sha256":"ca978112ca1bbdcafac231b39a23dc4da786eff8147c4e72b9807785afee48bb"`,
		"/primes?below=10000": `{"count":1229}`,
		"/uname":              `{"system":"Linux"}`,
		"/self":               `{"status":200,"sha256":"`,
	} {
		if got := s.get(t, path); !strings.HasPrefix(got, want) {
			t.Errorf("%s is %q, want %q", path, got, want)
		}
	}
}
