//go:build integration

package buildkit

import (
	"archive/tar"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"maps"
	"path"
	"slices"
	"sort"
	"strings"
	"testing"

	v1 "github.com/google/go-containerregistry/pkg/v1"

	"github.com/nabla-build/nabla-build/archive"
	"github.com/nabla-build/nabla-build/manifest"
	"github.com/nabla-build/nabla-build/oci/image"
)

// inode is a file as a guest sees it.
type inode struct {
	mode         uint32 // type and permissions, as st_mode
	uid, gid     int
	mtime        int64
	link         string // of a symbolic link
	sum          string // of a regular file
	major, minor int64
	xattrs       string
	implied      bool // a directory that its layer does not describe
}

// tree is a root file system: names of one file share the node.
type tree map[string]*inode

// put makes name what an upper layer says it is.
func (t tree) put(name string, n *inode) {
	old := t[name]
	if n.mode&0o170000 == 0o040000 && old != nil && old.mode&0o170000 == 0o040000 {
		if !n.implied {
			t[name] = n
		}
		return
	}
	t.remove(name)
	t[name] = n
}

func (t tree) remove(name string) {
	delete(t, name)
	t.clear(name)
}

func (t tree) clear(dir string) {
	maps.DeleteFunc(t, func(p string, _ *inode) bool { return strings.HasPrefix(p, dir+"/") })
}

// lines describes the tree, one line a name.
func (t tree) lines() []string {
	peers := map[*inode][]string{}
	for _, name := range slices.Sorted(maps.Keys(t)) {
		peers[t[name]] = append(peers[t[name]], name)
	}
	var out []string
	for name, n := range t {
		// RUN leaves these behind; the guest mounts its own there.
		if name == "/proc" || name == "/sys" || name == "/dev" {
			empty := true
			for p := range t {
				empty = empty && !strings.HasPrefix(p, name+"/")
			}
			if empty {
				continue
			}
		}
		s := fmt.Sprintf("%s %o %d:%d %d", name, n.mode, n.uid, n.gid, n.mtime)
		if n.link != "" {
			s += " -> " + n.link
		}
		if n.sum != "" {
			s += " " + n.sum[:12]
		}
		if n.major != 0 || n.minor != 0 {
			s += fmt.Sprintf(" dev %d,%d", n.major, n.minor)
		}
		s += n.xattrs
		if len(peers[n]) > 1 {
			s += " = " + strings.Join(peers[n], " = ")
		}
		out = append(out, s)
	}
	sort.Strings(out)
	return out
}

var types = map[byte]uint32{tar.TypeReg: 0o100000, tar.TypeDir: 0o040000, tar.TypeSymlink: 0o120000, tar.TypeFifo: 0o010000, tar.TypeChar: 0o020000, tar.TypeBlock: 0o060000}

// ordinaryTree is what the layers of an ordinary image make (OCI image layer
// specification, Applying Changesets).
func ordinaryTree(t testing.TB, img v1.Image) tree {
	t.Helper()
	layers, err := img.Layers()
	if err != nil {
		t.Fatal(err)
	}
	out := tree{}
	for _, l := range layers {
		rc, err := l.Uncompressed()
		if err != nil {
			t.Fatal(err)
		}
		tr := tar.NewReader(rc)
		for {
			h, err := tr.Next()
			if errors.Is(err, io.EOF) {
				break
			}
			if err != nil {
				t.Fatal(err)
			}
			name := path.Clean("/" + h.Name)
			dir, base := path.Split(name)
			switch {
			case name == "/":
				continue
			case base == ".wh..wh..opq":
				out.clear(path.Clean(dir))
				continue
			case strings.HasPrefix(base, ".wh."):
				out.remove(dir + base[4:])
				continue
			case h.Typeflag == tar.TypeLink:
				n := out[path.Clean("/"+h.Linkname)]
				if n == nil {
					t.Fatalf("%s is a link to %s, which is not there", name, h.Linkname)
				}
				out.put(name, n)
				continue
			}
			n := &inode{mode: types[h.Typeflag] | uint32(h.Mode)&0o7777, uid: h.Uid, gid: h.Gid, mtime: h.ModTime.Unix(), major: h.Devmajor, minor: h.Devminor}
			if h.Typeflag == tar.TypeSymlink {
				n.link = h.Linkname
			}
			for _, k := range slices.Sorted(maps.Keys(h.PAXRecords)) {
				if x, ok := strings.CutPrefix(k, "SCHILY.xattr."); ok {
					n.xattrs += fmt.Sprintf(" %s=%q", x, h.PAXRecords[k])
				}
			}
			if h.Typeflag == tar.TypeReg {
				s := sha256.New()
				if _, err := io.Copy(s, tr); err != nil {
					t.Fatal(err)
				}
				n.sum = fmt.Sprintf("%x", s.Sum(nil))
			}
			out.put(name, n)
		}
		rc.Close()
	}
	return out
}

// guestTree is what the archives of a nabla image make.
func guestTree(t testing.TB, n *image.Nabla) tree {
	t.Helper()
	out := tree{}
	for i, a := range n.Manifest.Archives {
		r, err := archive.Open(layerFile(t, n.Layers[i+1], a))
		if err != nil {
			t.Fatal(err)
		}
		if err := r.Check(); err != nil {
			t.Fatal(err)
		}
		// A whiteout is about lower layers, so all of them come first.
		here := map[uint64]*inode{}
		for _, pass := range []bool{true, false} {
			var walk func(dir archive.Node, name string)
			walk = func(dir archive.Node, name string) {
				if pass && dir.Opaque() {
					out.clear(name)
				}
				for c := range r.ReadDir(dir) {
					p := name + "/" + c.Name()
					switch {
					case c.Whiteout():
						if pass {
							out.remove(p)
						}
						continue
					case !pass:
						if here[c.Ino()] == nil {
							here[c.Ino()] = archived(t, c, out)
						}
						out.put(p, here[c.Ino()])
					}
					if c.IsDir() {
						walk(c, p)
					}
				}
			}
			walk(r.Root(), "")
		}
	}
	return out
}

func archived(t testing.TB, c archive.Node, below tree) *inode {
	t.Helper()
	if lower, ok := c.LowerLink(); ok {
		n := below[path.Clean("/"+lower)]
		if n == nil {
			t.Fatalf("a link to %s, which is not there", lower)
		}
		return n
	}
	sec, _ := c.Mtime()
	n := &inode{mode: c.Mode(), uid: int(c.UID()), gid: int(c.GID()), mtime: sec, link: c.Link(), implied: c.Implied()}
	if c.Rdev() != 0 {
		n.major, n.minor = int64(c.Rdev()>>8&0xfff), int64(c.Rdev()&0xff)
	}
	for k, v := range c.Xattrs() {
		n.xattrs += fmt.Sprintf(" %s=%q", k, v)
	}
	if c.IsRegular() {
		s := sha256.New()
		if _, err := io.Copy(s, io.NewSectionReader(c, 0, c.Size())); err != nil {
			t.Fatal(err)
		}
		n.sum = fmt.Sprintf("%x", s.Sum(nil))
	}
	return n
}

// layerFile reads an archive out of its layer.
func layerFile(t testing.TB, l v1.Layer, a manifest.Archive) []byte {
	t.Helper()
	rc, err := l.Uncompressed()
	if err != nil {
		t.Fatal(err)
	}
	defer rc.Close()
	tr := tar.NewReader(rc)
	var names []string
	for {
		h, err := tr.Next()
		if err != nil {
			t.Fatalf("%s is not in its layer, which has %v: %v", a.Path, names, err)
		}
		names = append(names, h.Name)
		if path.Clean("/"+h.Name) != a.Path {
			continue
		}
		b, err := io.ReadAll(tr)
		if err != nil {
			t.Fatal(err)
		}
		return b
	}
}
