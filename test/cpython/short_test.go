//go:build integration

package main

import (
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/nabla-build/nabla-build/test/nablatest"
)

// TestShort runs the quick modules: every failure that expected.txt does not
// name fails it, and so does a share below 97 %.
func TestShort(t *testing.T) {
	if os.Getuid() != 0 {
		t.Skip("needs root: runc with an overlay as the native container's file system")
	}
	root := nablatest.Root(t)
	o := options{
		native:   filepath.Join(root, "build/images/cpython"),
		nabla:    filepath.Join(root, "build/images/cpython-nabla"),
		work:     filepath.Join(root, "build/cpython"),
		expected: filepath.Join(root, "test/cpython/expected.txt"),
		jobs:     1,
		short:    true,
		min:      97,
		limits:   limits{idle: time.Minute, module: 5 * time.Minute},
	}
	for _, dir := range []string{o.native, o.nabla} {
		if _, err := os.Stat(dir); err != nil {
			t.Skipf("%s is not there: make build/images/cpython-nabla", dir)
		}
	}
	good, err := run(t.Context(), o)
	if err != nil {
		t.Fatal(err)
	}
	if !good {
		t.Error("not as expected; the lines above say what, the logs of the modules are in build/cpython")
	}
}
