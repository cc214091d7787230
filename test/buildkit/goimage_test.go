//go:build integration

package buildkit

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/nabla-build/nabla-build/test/nablatest"
)

// TestGoImage builds images/go. No image with Go can be had here, so a named
// context takes the place of the stage that compiles: what make build/images/go
// compiled.
func TestGoImage(t *testing.T) {
	dir := nablatest.Root(t)
	compiled := filepath.Join(dir, "build", "images", "go-bin")
	if _, err := os.Stat(filepath.Join(compiled, "notes")); err != nil {
		t.Fatalf("%s/notes is not there: run make test-buildkit, which makes it", compiled)
	}
	dest := theRegistry(t).Name("nabla/notes-go:latest")
	must(t, nablaBuild(t, "build", "--builder", "remote", "--frontend", nabla(t), "-t", dest, "--push",
		"--build-arg", "BASE="+base(t, "debian"), "--build-context", "build="+compiled, filepath.Join(dir, "images", "go")))
	relinked(t, dest)
	c := runImage(t, dest, "8080")
	if page := c.get(t, "/"); !strings.Contains(page, "<h1>Notes</h1>") {
		t.Errorf("page: %s", page)
	}
	// sha256sum, a child process
	if sum := c.get(t, "/sum?text="); !strings.Contains(sum, "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855") {
		t.Errorf("sum: %s", sum)
	}
}
