// Package rootview looks names up in the root file system that a stack of
// nabla archives makes together: whiteouts, symbolic links and hard links to
// lower layers are followed as in a container, and no link leads out of the
// root. It imports archive only; the type at its heart is View.
package rootview

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"strings"

	"github.com/nabla-build/nabla-build/archive"
)

// View is a stack of archives, lowest first. It must not be changed while it
// is in use.
type View []*archive.Reader

// File is what a name resolves to.
type File struct {
	// Path is absolute, without symbolic links.
	Path string
	archive.Node
}

// maxLinks is the kernel's limit of symbolic links in one path
// (path_resolution(7)).
const maxLinks = 40

// Errors of Lookup, as the kernel has them; wrapped with the path.
var (
	ErrNotDir = errors.New("not a directory")
	ErrLoop   = errors.New("too many levels of symbolic links")
)

// place is a directory: what the layers have of it, topmost first.
type place struct {
	name string
	dirs []at
}

type at struct {
	layer int
	node  archive.Node
}

// Lookup resolves an absolute path, symbolic links included. The error wraps
// fs.ErrNotExist, ErrNotDir or ErrLoop.
func (v View) Lookup(path string) (File, error) {
	f, err := v.lookup(path)
	if err != nil {
		return File{}, fmt.Errorf("%s: %w", path, err)
	}
	return f, nil
}

func (v View) lookup(path string) (File, error) {
	if len(v) == 0 {
		return File{}, fs.ErrNotExist
	}
	root := place{}
	for i := len(v) - 1; i >= 0; i-- {
		root.dirs = append(root.dirs, at{i, v[i].Root()})
		if v[i].Root().Opaque() {
			break
		}
	}
	stack := []place{root}
	parts := strings.Split(path, "/")
	links := 0
	for len(parts) > 0 {
		name := parts[0]
		parts = parts[1:]
		switch name {
		case "", ".":
			continue
		case "..":
			if len(stack) > 1 {
				stack = stack[:len(stack)-1]
			}
			continue
		}
		node, layer, dirs := v.step(stack[len(stack)-1], name)
		switch {
		case len(dirs) > 0:
			stack = append(stack, place{name, dirs})
		case !node.Valid():
			return File{}, fs.ErrNotExist
		case node.IsSymlink():
			if links++; links > maxLinks {
				return File{}, ErrLoop
			}
			to := node.Link()
			if strings.HasPrefix(to, "/") {
				stack = stack[:1]
			}
			parts = append(strings.Split(to, "/"), parts...)
		default:
			for _, p := range parts {
				if p != "" {
					return File{}, ErrNotDir
				}
			}
			if lower, ok := node.LowerLink(); ok {
				return v[:layer].lookup(lower)
			}
			return File{Path: join(stack, name), Node: node}, nil
		}
	}
	last := stack[len(stack)-1]
	return File{Path: join(stack, ""), Node: last.attributes()}, nil
}

func join(stack []place, name string) string {
	var b strings.Builder
	for _, p := range stack[1:] {
		b.WriteString("/" + p.name)
	}
	if name != "" || len(stack) == 1 {
		b.WriteString("/" + name)
	}
	return b.String()
}

// attributes is the node whose mode and owner count.
func (p place) attributes() archive.Node {
	for _, d := range p.dirs {
		if !d.node.Implied() {
			return d.node
		}
	}
	return p.dirs[0].node
}

// step finds name in a directory: either what the layers have of a directory,
// or one other node and its layer.
func (v View) step(dir place, name string) (archive.Node, int, []at) {
	var dirs []at
	for _, d := range dir.dirs {
		n, ok := v[d.layer].Lookup(d.node, name)
		if !ok {
			continue
		}
		if n.Whiteout() {
			return archive.Node{}, 0, dirs
		}
		if !n.IsDir() {
			if len(dirs) == 0 {
				return n, d.layer, nil
			}
			return archive.Node{}, 0, dirs
		}
		dirs = append(dirs, at{d.layer, n})
		if n.Opaque() {
			return archive.Node{}, 0, dirs
		}
	}
	return archive.Node{}, 0, dirs
}

// ReadFile is the content of a regular file of at most max bytes.
func (v View) ReadFile(path string, max int64) ([]byte, error) {
	f, err := v.Lookup(path)
	if err != nil {
		return nil, err
	}
	if !f.IsRegular() {
		return nil, fmt.Errorf("%s: not a regular file", path)
	}
	if f.Size() > max {
		return nil, fmt.Errorf("%s: %d bytes, at most %d are read", path, f.Size(), max)
	}
	b := make([]byte, f.Size())
	if _, err := f.ReadAt(b, 0); err != nil && err != io.EOF {
		return nil, fmt.Errorf("%s: %w", path, err)
	}
	return b, nil
}
