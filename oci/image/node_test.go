package image

import (
	"bytes"
	"fmt"
	"slices"
	"strings"
	"testing"

	"github.com/nabla-build/nabla-build/archive"
	"github.com/nabla-build/nabla-build/manifest"
	"github.com/nabla-build/nabla-build/oci/rootview"
)

// elfWith is a small ELF file with words behind its header.
func elfWith(words string) string {
	h := make([]byte, 64)
	copy(h, "\x7fELF\x02\x01\x01")
	h[16], h[18], h[20], h[52] = 2, 62, 1, 64
	return string(h) + strings.Repeat("\x00", 3<<20-20) + words
}

func rootWith(t *testing.T, files map[string]string) rootview.View {
	t.Helper()
	var b bytes.Buffer
	w := archive.NewWriter(&b)
	for name, content := range files {
		if err := w.Add(archive.Header{Name: name, Mode: 0o100755, Size: int64(len(content))}, strings.NewReader(content)); err != nil {
			t.Fatal(err)
		}
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	r, err := archive.Open(b.Bytes())
	if err != nil {
		t.Fatal(err)
	}
	return rootview.View{r}
}

// TestConfigureNode: Node.js makes explicit bounds checks by the option that it
// has, wherever it stands, and other programs are left alone.
func TestConfigureNode(t *testing.T) {
	current, old, none := elfWith("--disable-wasm-trap-handler wasm_enforce_bounds_checks"), elfWith("wasm_enforce_bounds_checks"), elfWith("")
	for _, c := range []struct {
		what            string
		files           map[string]string
		entry, cmd, env []string
		wantEntry       []string
		wantCmd         []string
		wantOption      string
		warn            string
	}{
		{what: "current", files: map[string]string{"usr/local/bin/node": current}, entry: []string{"node", "x.js"}, wantOption: nodeOption},
		{what: "current, with options", files: map[string]string{"usr/bin/node": current}, cmd: []string{"node", "x.js"}, env: []string{"NODE_OPTIONS=--max-old-space-size=100"},
			wantOption: "--max-old-space-size=100 " + nodeOption},
		{what: "set already", files: map[string]string{"usr/bin/node": current}, cmd: []string{"node"}, env: []string{"NODE_OPTIONS=" + nodeOption}, wantOption: nodeOption},
		{what: "behind a script", files: map[string]string{"usr/local/bin/node": current, "e.sh": "#!/bin/sh\n"}, entry: []string{"/e.sh"}, cmd: []string{"node", "x.js"}, wantOption: nodeOption},
		{what: "old", files: map[string]string{"usr/bin/node": old}, entry: []string{"node", "x.js"}, wantEntry: []string{"node", v8Option, "x.js"}},
		{what: "old, as command", files: map[string]string{"usr/bin/node": old}, cmd: []string{"/usr/bin/node", "x.js"}, wantCmd: []string{"/usr/bin/node", v8Option, "x.js"}},
		{what: "old, behind a script", files: map[string]string{"usr/bin/node": old, "e.sh": "#!/bin/sh\n"}, entry: []string{"/e.sh"}, cmd: []string{"node"}, warn: "is started by another program"},
		{what: "none", files: map[string]string{"usr/bin/node": none}, cmd: []string{"node"}, warn: "has no option"},
		{what: "a script called node", files: map[string]string{"usr/bin/node": "#!/bin/sh\n"}, cmd: []string{"node"}, warn: "has no option"},
		{what: "no Node.js", files: map[string]string{"usr/bin/python3": current}, cmd: []string{"python3"}},
	} {
		g := manifest.Guest{Entrypoint: c.entry, Cmd: c.cmd, Env: c.env, WorkingDir: "/"}
		var warned string
		if err := configureNode(rootWith(t, c.files), &g, func(f string, a ...any) { warned += fmt.Sprintf(f, a...) }); err != nil {
			t.Fatalf("%s: %v", c.what, err)
		}
		if c.wantEntry == nil {
			c.wantEntry = c.entry
		}
		if c.wantCmd == nil {
			c.wantCmd = c.cmd
		}
		if !slices.Equal(g.Entrypoint, c.wantEntry) || !slices.Equal(g.Cmd, c.wantCmd) {
			t.Errorf("%s: runs %q %q, want %q %q", c.what, g.Entrypoint, g.Cmd, c.wantEntry, c.wantCmd)
		}
		option := ""
		for _, e := range g.Env {
			option += strings.TrimPrefix(e, "NODE_OPTIONS=")
		}
		if option != c.wantOption {
			t.Errorf("%s: NODE_OPTIONS is %q, want %q", c.what, option, c.wantOption)
		}
		if !strings.Contains(warned, c.warn) || c.warn == "" && warned != "" {
			t.Errorf("%s: the warning is %q, want %q", c.what, warned, c.warn)
		}
	}
}
