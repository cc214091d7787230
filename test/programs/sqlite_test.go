//go:build integration

package programs

import (
	"strings"
	"testing"
)

func TestSQLite(t *testing.T) {
	want := compare(t, "", "sqlite3", "-bail", "/tmp/work.db", ".read /srv/work.sql")
	if want.Status != 0 || !strings.Contains(want.Stdout, "item 20000") {
		t.Errorf("natively: status %d\n%s%s", want.Status, want.Stdout, want.Stderr)
	}
	compare(t, "select 6 * 7;\n.quit\n", "sqlite3", "-batch")
	compare(t, "select * from missing;\n", "sqlite3", "-batch", "-bail")
}
