package image

import (
	"fmt"
	"os"
	"path/filepath"
	"testing"
	"time"
)

// TestRemoveOld: of what other builds left, the newest stay, what may be in use
// stays, and what is very old goes.
func TestRemoveOld(t *testing.T) {
	dir := t.TempDir()
	now := time.Now()
	for i, age := range []time.Duration{0, time.Minute, 2 * time.Minute, 3 * time.Minute, 2 * time.Hour, 3 * time.Hour, 40 * 24 * time.Hour} {
		d := filepath.Join(dir, fmt.Sprintf("key%d", i))
		if err := os.Mkdir(d, 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.Chtimes(d, now.Add(-age), now.Add(-age)); err != nil {
			t.Fatal(err)
		}
	}
	left := func() (s string) {
		found, _ := filepath.Glob(filepath.Join(dir, "key*"))
		for _, f := range found {
			s += filepath.Base(f)[3:]
		}
		return s
	}
	removeOld(filepath.Join(dir, "key*"), now, 5)
	if got := left(); got != "01234" {
		t.Errorf("of seven, %q are left with five to keep", got)
	}
	removeOld(filepath.Join(dir, "key*"), now, 1)
	if got := left(); got != "0123" {
		t.Errorf("%q are left: those used in the last hour stay", got)
	}
}
