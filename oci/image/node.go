package image

import (
	"bytes"
	"debug/elf"
	"io"
	"path"
	"slices"
	"strings"

	"github.com/nabla-build/nabla-build/manifest"
	"github.com/nabla-build/nabla-build/oci/rootview"
)

// V8 relies on guard pages: WebAssembly code has no bounds checks, an access
// beyond its memory is to fault. A guest has no pages of its own that could
// fault, so Node.js must make explicit checks. docs/node.md says more.
const (
	// nodeOption does that, and may stand in NODE_OPTIONS, which child
	// processes inherit: since Node.js 20.15 and 22.2.
	nodeOption = "--disable-wasm-trap-handler"
	// v8Option does that in older ones; it must be an argument.
	v8Option = "--wasm-enforce-bounds-checks"
)

// configureNode sees to it that Node.js, if the image has it, makes bounds
// checks of its own.
func configureNode(root rootview.View, g *manifest.Guest, warn func(string, ...any)) error {
	for _, e := range g.Env {
		if v, ok := strings.CutPrefix(e, "NODE_OPTIONS="); ok && strings.Contains(v, nodeOption) {
			return nil
		}
	}
	argv := slices.Concat(g.Entrypoint, g.Cmd)
	var places []string
	if len(argv) > 0 {
		places = append(places, argv...)
	}
	places = append(places, "node", "nodejs")
	for i, p := range places {
		if b := path.Base(p); b != "node" && b != "nodejs" {
			continue
		}
		f, ok := findNode(root, p, g)
		if !ok {
			continue
		}
		has, err := nodeHas(root, f, nodeOption, strings.ReplaceAll(v8Option[2:], "-", "_"))
		if err != nil {
			return err
		}
		switch {
		case has[0]:
			g.Env = addNodeOption(g.Env)
		case has[1] && i == 0 && len(g.Entrypoint) > 0 && !slices.Contains(argv, v8Option):
			g.Entrypoint = slices.Insert(slices.Clone(g.Entrypoint), 1, v8Option)
		case has[1] && i == 0 && !slices.Contains(argv, v8Option):
			g.Cmd = slices.Insert(slices.Clone(g.Cmd), 1, v8Option)
		case has[1] && slices.Contains(argv, v8Option):
		case has[1]:
			warn("%s is started by another program: give it the option %s if it runs WebAssembly, whose accesses beyond its memory are not noticed otherwise", f.Path, v8Option)
		default:
			warn("%s has no option for explicit bounds checks: accesses of WebAssembly code beyond its memory are not noticed", f.Path)
		}
		return nil
	}
	return nil
}

// findNode looks a program up as execvp(3) does.
func findNode(root rootview.View, name string, g *manifest.Guest) (rootview.File, bool) {
	dirs := []string{""}
	if !strings.Contains(name, "/") {
		search := defaultPath
		for _, e := range g.Env {
			if v, ok := strings.CutPrefix(e, "PATH="); ok {
				search = v
			}
		}
		dirs = strings.Split(search, ":")
	}
	for _, d := range dirs {
		p := path.Join(d, name)
		if !path.IsAbs(p) {
			p = path.Join(g.WorkingDir, p)
		}
		if f, err := root.Lookup(p); err == nil && f.IsRegular() && f.Mode()&0o111 != 0 {
			return f, true
		}
	}
	return rootview.File{}, false
}

// nodeHas says which words the program has in it, or the library that holds its
// code (Debian's libnode).
func nodeHas(root rootview.View, f rootview.File, words ...string) ([]bool, error) {
	has := make([]bool, len(words))
	e, err := elf.NewFile(io.NewSectionReader(f, 0, f.Size()))
	if err != nil {
		return has, nil // a script: the program that it starts is not known
	}
	libs, _ := e.ImportedLibraries()
	for _, l := range libs {
		if !strings.HasPrefix(l, "libnode.so") {
			continue
		}
		for _, d := range []string{"/usr/lib/x86_64-linux-gnu", "/usr/lib64", "/usr/lib", "/lib"} {
			if lib, err := root.Lookup(path.Join(d, l)); err == nil && lib.IsRegular() {
				f = lib
				break
			}
		}
	}
	const piece, longest = 1 << 20, 64
	buf := make([]byte, piece+longest)
	for at := int64(0); at < f.Size(); at += piece {
		n, err := f.ReadAt(buf, at)
		if err != nil && err != io.EOF {
			return nil, err
		}
		for i, w := range words {
			has[i] = has[i] || bytes.Contains(buf[:n], []byte(w))
		}
		if !slices.Contains(has, false) {
			break
		}
	}
	return has, nil
}

// addNodeOption adds nodeOption to NODE_OPTIONS.
func addNodeOption(env []string) []string {
	out := slices.Clone(env)
	for i, e := range out {
		if v, ok := strings.CutPrefix(e, "NODE_OPTIONS="); ok {
			out[i] = "NODE_OPTIONS=" + strings.TrimSpace(v+" "+nodeOption)
			return out
		}
	}
	return append(out, "NODE_OPTIONS="+nodeOption)
}
