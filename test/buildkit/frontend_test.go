//go:build integration

package buildkit

import (
	"path/filepath"
	"sync"
	"testing"

	"github.com/nabla-build/nabla-build/frontend/selfimage"
	"github.com/nabla-build/nabla-build/oci/image"
	"github.com/nabla-build/nabla-build/test/nablatest"
)

var ownFrontend struct {
	once sync.Once
	name string
	err  error
}

// nabla is our frontend as an image in the registry.
func nabla(t testing.TB) string {
	t.Helper()
	ownFrontend.once.Do(func() {
		img, err := selfimage.New(filepath.Join(nablatest.Root(t), "bin", "nabla-frontend"), "test")
		if err != nil {
			ownFrontend.err = err
			return
		}
		ownFrontend.name, ownFrontend.err = theRegistry(t).Push("nabla/frontend:latest", img)
	})
	if ownFrontend.err != nil {
		t.Fatalf("%v (make frontend-image makes it)", ownFrontend.err)
	}
	return ownFrontend.name
}

// relinked checks that an image in the registry is a nabla image as a whole and
// reads its manifest.
func relinked(t testing.TB, name string) *image.Nabla {
	t.Helper()
	img, err := theRegistry(t).Image(name)
	if err != nil {
		t.Fatal(err)
	}
	n, err := image.Open(img)
	if err != nil {
		t.Fatal(err)
	}
	return n
}
