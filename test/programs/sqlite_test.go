//go:build integration

package programs

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
)

func TestSQLite(t *testing.T) {
	old, err := filepath.Glob(filepath.Join(root(t), "tmp/work.db*")) // of a run before
	if err != nil {
		t.Fatal(err)
	}
	for _, f := range old {
		os.Remove(f)
	}
	want := compare(t, "", "sqlite3", "-bail", "/tmp/work.db", ".read /srv/work.sql")
	if want.Status != 0 || !strings.Contains(want.Stdout, "item 20000") {
		t.Errorf("natively: status %d\n%s%s", want.Status, want.Stdout, want.Stderr)
	}
	compare(t, "select 6 * 7;\n.quit\n", "sqlite3", "-batch")
	compare(t, "select * from missing;\n", "sqlite3", "-batch", "-bail")
}
