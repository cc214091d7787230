package memfs_test

import (
	"bytes"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"path"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/nabla-build/nabla-build/archive"
	"github.com/nabla-build/nabla-build/rumprun/vfs/memfs"
)

// layer is a source layer: what it adds, and what it hides of lower layers.
type layer struct {
	files     []archive.Header // parents before children
	content   map[string]string
	hardlinks [][2]string // name, target
	whiteouts []string
	opaque    []string
}

func (l *layer) add(h archive.Header, content string) {
	if l.content == nil {
		l.content = make(map[string]string)
	}
	h.Size = int64(len(content))
	l.files = append(l.files, h)
	l.content[h.Name] = content
}

// archive writes the layer as a nabla archive and opens it.
func (l *layer) archive(t testing.TB) *archive.Reader {
	t.Helper()
	var b bytes.Buffer
	w := archive.NewWriter(&b)
	check := func(err error) {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
	}
	for _, h := range l.files {
		check(w.Add(h, strings.NewReader(l.content[h.Name])))
	}
	for _, h := range l.hardlinks {
		check(w.HardLink(h[0], h[1]))
	}
	for _, name := range l.whiteouts {
		check(w.Whiteout(name))
	}
	for _, name := range l.opaque {
		check(w.Opaque(name))
	}
	check(w.Close())
	r, err := archive.Open(b.Bytes())
	check(err)
	return r
}

// apply unpacks the layer over dir, as the OCI image specification says.
func (l *layer) apply(t testing.TB, dir string) {
	t.Helper()
	check := func(err error) {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
	}
	for _, name := range l.whiteouts {
		// Below what is no directory yet there is nothing to hide.
		p := filepath.Join(dir, name)
		if real, err := filepath.EvalSymlinks(filepath.Dir(p)); err != nil || real != filepath.Dir(p) {
			continue
		}
		if err := os.RemoveAll(p); !errors.Is(err, unix.ENOTDIR) {
			check(err)
		}
	}
	for _, name := range l.opaque {
		p := filepath.Join(dir, name)
		if real, err := filepath.EvalSymlinks(p); err != nil || real != p {
			continue
		}
		ents, _ := os.ReadDir(p)
		for _, e := range ents {
			check(os.RemoveAll(filepath.Join(dir, name, e.Name())))
		}
	}
	for _, h := range l.files {
		p := filepath.Join(dir, h.Name)
		st, err := os.Lstat(p)
		isDir := h.Mode&unix.S_IFMT == unix.S_IFDIR
		if err == nil && !(isDir && st.IsDir()) {
			check(os.RemoveAll(p))
			err = os.ErrNotExist
		}
		switch h.Mode & unix.S_IFMT {
		case unix.S_IFDIR:
			if err != nil {
				check(os.Mkdir(p, 0o700))
			}
		case unix.S_IFREG:
			check(os.WriteFile(p, []byte(l.content[h.Name]), 0o600))
		case unix.S_IFLNK:
			check(os.Symlink(h.Link, p))
			continue
		}
		check(unix.Chown(p, int(h.UID), int(h.GID)))
		check(unix.Chmod(p, h.Mode&0o7777))
	}
	for _, h := range l.hardlinks {
		check(os.RemoveAll(filepath.Join(dir, h[0])))
		check(os.Link(filepath.Join(dir, h[1]), filepath.Join(dir, h[0])))
	}
}

// randomLayer makes a layer of the names that randomPath uses.
func randomLayer(r *rand.Rand) *layer {
	l := new(layer)
	for i := range strings.Count(deep, "/") {
		parts := strings.Split(deep[1:], "/")
		l.add(archive.Header{Name: path.Join(parts[:i+1]...), Mode: unix.S_IFDIR | 0o755}, "")
	}
	var fill func(dir string, depth int)
	fill = func(dir string, depth int) {
		for _, name := range []string{"a", "b", "c", "d", "e"} {
			p := dir + "/" + name
			switch k := r.IntN(12); {
			case k < 2 && depth < 3:
				l.add(archive.Header{Name: p, Mode: unix.S_IFDIR | pick[uint32](r, 0o755, 0o700, 0o1777), GID: pick[uint32](r, 0, 7)}, "")
				if r.IntN(5) == 0 {
					l.opaque = append(l.opaque, p)
				}
				fill(p, depth+1)
			case k < 5:
				l.add(archive.Header{Name: p, Mode: unix.S_IFREG | pick[uint32](r, 0o644, 0o755), UID: pick[uint32](r, 0, 5)}, randomData(r))
				if r.IntN(4) == 0 {
					l.hardlinks = append(l.hardlinks, [2]string{dir + "/f", p})
				}
			case k == 5:
				l.add(archive.Header{Name: p, Mode: unix.S_IFLNK | 0o777, Link: pick(r, "a", "b", "c/d", ".", "nowhere")}, "")
			case k < 8:
				l.whiteouts = append(l.whiteouts, p)
			}
		}
	}
	fill(deep[1:], 0)
	// One hard link of a name.
	slices.Reverse(l.hardlinks)
	seen := make(map[string]bool)
	l.hardlinks = slices.DeleteFunc(l.hardlinks, func(h [2]string) bool {
		dup := seen[h[0]]
		seen[h[0]] = true
		return dup
	})
	return l
}

func TestRandomOperationsOverLayers(t *testing.T) {
	runs := 150
	if testing.Short() {
		runs = 20
	}
	for seed := range uint64(runs) {
		t.Run(fmt.Sprint(seed), func(t *testing.T) {
			r := rand.New(rand.NewPCG(seed, 2))
			a := newNative(t, true)
			defer a.close()
			var readers []*archive.Reader
			for range 1 + r.IntN(4) {
				l := randomLayer(r)
				l.apply(t, a.root)
				readers = append(readers, l.archive(t))
			}
			b := newOurs(readers...)
			defer b.close()
			if r.IntN(2) == 0 {
				// Half of the runs begin with nothing looked up.
				if want, got := a.dump(), b.dump(); got != want {
					t.Fatalf("the merged layers differ\n got\n%s\n want\n%s", got, want)
				}
			}
			ops := make([]op, 200)
			for i := range ops {
				o := randomOp(r)
				// Layers' data has no holes here.
				if o.call == "lseek" && o.flags > unix.SEEK_END {
					o.flags = unix.SEEK_SET
				}
				ops[i] = o
			}
			compare(t, a, b, ops)
		})
	}
}

// TestStartReadsLittle makes sure that making a root file system over a large
// layer looks at next to nothing of it.
func TestStartReadsLittle(t *testing.T) {
	l := new(layer)
	for d := range 100 {
		dir := fmt.Sprintf("d%d", d)
		l.add(archive.Header{Name: dir, Mode: unix.S_IFDIR | 0o755}, "")
		for f := range 100 {
			l.add(archive.Header{Name: fmt.Sprintf("%s/f%d", dir, f), Mode: unix.S_IFREG | 0o644}, "x")
		}
	}
	r := l.archive(t)
	if n := testing.AllocsPerRun(10, func() { memfs.New(memfs.Options{Layers: []*archive.Reader{r}}) }); n > 30 {
		t.Errorf("New made %v allocations for 10,000 files", n)
	}
}

// TestImpliedDirectoryOverLink: a layer that holds bin/tool and does not
// describe bin adds to where the link bin of a lower layer leads, as unpacking
// one over the other does.
func TestImpliedDirectoryOverLink(t *testing.T) {
	base := new(layer)
	for _, d := range []string{"usr", "usr/bin", "opt"} {
		base.add(archive.Header{Name: d, Mode: unix.S_IFDIR | 0o755}, "")
	}
	base.add(archive.Header{Name: "usr/bin/sh", Mode: unix.S_IFREG | 0o755}, "sh")
	base.add(archive.Header{Name: "bin", Mode: unix.S_IFLNK | 0o777, Link: "usr/bin"}, "")
	base.add(archive.Header{Name: "opt/b", Mode: unix.S_IFLNK | 0o777, Link: "../bin"}, "")
	add := new(layer)
	add.add(archive.Header{Name: "bin/tool", Mode: unix.S_IFREG | 0o755}, "tool")
	add.add(archive.Header{Name: "bin/sub/deep", Mode: unix.S_IFREG | 0o755}, "deep")
	add.add(archive.Header{Name: "opt/b/other", Mode: unix.S_IFREG | 0o755}, "other")
	hide := new(layer)
	hide.add(archive.Header{Name: "usr", Mode: unix.S_IFDIR | 0o755}, "")
	hide.add(archive.Header{Name: "usr/bin", Mode: unix.S_IFDIR | 0o755}, "")
	hide.whiteouts = []string{"usr/bin/tool"}
	b, a, h := base.archive(t), add.archive(t), hide.archive(t)

	// The target is looked at before the link, and after it.
	for _, first := range []string{"/usr/bin/tool", "/bin/tool"} {
		u := newOurs(b, a)
		for _, p := range []string{first, "/usr/bin/tool", "/bin/tool", "/opt/b/tool"} {
			if got := string(u.content(p)); got != "tool" {
				t.Errorf("%s holds %q", p, got)
			}
		}
		for p, want := range map[string]string{"/bin/sh": "sh", "/usr/bin/sub/deep": "deep", "/usr/bin/other": "other"} {
			if got := string(u.content(p)); got != want {
				t.Errorf("%s holds %q", p, got)
			}
		}
		i, err := u.inode("/bin", false)
		if err != nil {
			t.Fatal(err)
		}
		if at := i.Attr(); !at.IsSymlink() {
			t.Errorf("/bin is no link any more: mode %o", at.Mode)
		}
		f, _, err := u.ns.Open(u.c, nil, "/usr/bin", unix.O_RDONLY|unix.O_DIRECTORY, 0, 0)
		if err != nil {
			t.Fatal(err)
		}
		if got := fmt.Sprint(names(f)); got != "[other sh sub tool]" {
			t.Errorf("/usr/bin lists %s", got)
		}
	}
	u := newOurs(b, a, h)
	if _, err := u.inode("/bin/tool", true); err != unix.ENOENT {
		t.Errorf("a whiteout above the graft: %v", err)
	}
	if got := string(u.content("/bin/sub/deep")); got != "deep" {
		t.Errorf("beside the whiteout: %q", got)
	}
}
