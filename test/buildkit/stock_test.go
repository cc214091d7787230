//go:build integration

package buildkit

import (
	"path/filepath"
	"strings"
	"testing"

	"github.com/nabla-build/nabla-build/test/nablatest"
)

// TestStock builds the Python sample with the stock Dockerfile frontend: what
// the other tests compare with, and a check of the daemons themselves.
func TestStock(t *testing.T) {
	sample := filepath.Join(nablatest.Root(t), "images", "python")
	for name, build := range map[string]func(t *testing.T, dest string) nablatest.Result{
		"engine": func(t *testing.T, dest string) nablatest.Result {
			r := docker(t, "buildx", "build", "--builder", "default", "--build-arg", "BASE="+base(t, "python"), "-t", dest, "--load", sample)
			if r.Status != 0 {
				return r
			}
			return docker(t, "push", dest)
		},
		"remote": func(t *testing.T, dest string) nablatest.Result {
			return docker(t, "buildx", "build", "--builder", "remote", "--build-arg", "BASE="+base(t, "python"), "-t", dest, "--push", sample)
		},
		"buildctl": func(t *testing.T, dest string) nablatest.Result {
			return buildctl(t, "build", "--frontend", "dockerfile.v0", "--local", "context="+sample, "--local", "dockerfile="+sample,
				"--opt", "build-arg:BASE="+base(t, "python"), "--output", "type=image,push=true,name="+dest)
		},
	} {
		t.Run(name, func(t *testing.T) {
			dest := theRegistry(t).Name("stock/python:" + name)
			must(t, build(t, dest))
			if page := runImage(t, dest, "8080").get(t, "/"); !strings.Contains(page, "<h1>Notes</h1>") {
				t.Errorf("page: %s", page)
			}
		})
	}
}
