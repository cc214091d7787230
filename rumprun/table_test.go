package rumprun

import (
	"bytes"
	"flag"
	"fmt"
	"os"
	"sort"
	"strings"
	"testing"
)

var update = flag.Bool("update", false, "write docs/syscalls.md")

const syscallsPage = "../docs/syscalls.md"

// TestTable checks the system call table and that docs/syscalls.md says what
// it says.
func TestTable(t *testing.T) {
	table, err := buildTable()
	if err != nil {
		t.Fatal(err)
	}
	names := map[string]uintptr{}
	for nr, c := range table {
		if c == nil {
			continue
		}
		if old, ok := names[c.Name]; ok {
			t.Errorf("%s stands at %d and %d", c.Name, old, nr)
		}
		names[c.Name] = uintptr(nr)
		switch {
		case c.Support == Full && (c.Note != "" || c.Handler == nil):
			t.Errorf("%s is full: it needs a handler and no note", c.Name)
		case c.Support == Partial && (c.Note == "" || c.Handler == nil):
			t.Errorf("%s is partial: it needs a handler and a note on what is missing", c.Name)
		case c.Support == Unsupported && c.Note == "":
			t.Errorf("%s is unsupported: it needs a note that says why", c.Name)
		}
	}
	page := syscallPage(table[:])
	if *update {
		if err := os.WriteFile(syscallsPage, page, 0o644); err != nil {
			t.Fatal(err)
		}
	}
	got, err := os.ReadFile(syscallsPage)
	if err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(got, page) {
		t.Errorf("%s differs from the table: run go test ./rumprun -run TestTable -update", syscallsPage)
	}
}

// syscallPage is the documentation page of the table.
func syscallPage(table []*Call) []byte {
	var b bytes.Buffer
	b.WriteString("# System calls\n\nGenerated from the library OS's table by `go test ./rumprun -run TestTable -update`. A call that is not\nlisted answers ENOSYS; with `NABLA_LOG=debug` each such call is named once.\n")
	for _, s := range []Support{Full, Partial, Unsupported} {
		var rows []*Call
		for _, c := range table {
			if c != nil && c.Support == s {
				rows = append(rows, c)
			}
		}
		sort.Slice(rows, func(i, j int) bool { return rows[i].Name < rows[j].Name })
		switch s {
		case Full:
			fmt.Fprintf(&b, "\n## Full (%d)\n\n", len(rows))
			var names []string
			for _, c := range rows {
				names = append(names, c.Name)
			}
			b.WriteString(strings.Join(names, ", ") + "\n")
		case Partial:
			fmt.Fprintf(&b, "\n## Partial (%d)\n\n| call | what is missing |\n|---|---|\n", len(rows))
			for _, c := range rows {
				fmt.Fprintf(&b, "| %s | %s |\n", c.Name, c.Note)
			}
		case Unsupported:
			fmt.Fprintf(&b, "\n## Unsupported (%d)\n\n| call | why |\n|---|---|\n", len(rows))
			for _, c := range rows {
				fmt.Fprintf(&b, "| %s | %s |\n", c.Name, c.Note)
			}
		}
	}
	return b.Bytes()
}
