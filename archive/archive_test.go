package archive

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"
	"testing"

	"github.com/u-root/u-root/pkg/cpio"
)

func reg(name, content string) (Header, io.Reader) {
	return Header{Name: name, Mode: typeReg | 0o644, Size: int64(len(content)), MtimeSec: 1, MtimeNsec: 5}, strings.NewReader(content)
}

func dir(name string, mode uint32) Header { return Header{Name: name, Mode: typeDir | mode} }

// build runs f on a Writer and opens the result.
func build(t testing.TB, f func(w *Writer)) (*Reader, []byte) {
	t.Helper()
	var b bytes.Buffer
	w := NewWriter(&b)
	f(w)
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	r, err := Open(b.Bytes())
	if err != nil {
		t.Fatal(err)
	}
	return r, b.Bytes()
}

func must(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

func at(t testing.TB, r *Reader, path string) Node {
	t.Helper()
	n := r.Root()
	for p := range strings.SplitSeq(path, "/") {
		c, ok := r.Lookup(n, p)
		if !ok {
			t.Fatalf("%s: %q not found", path, p)
		}
		n = c
	}
	return n
}

// dump renders a tree, one line a name.
func dump(r *Reader) string {
	var b strings.Builder
	var walk func(d Node, path string)
	walk = func(d Node, path string) {
		for n := range r.ReadDir(d) {
			p := path + n.Name()
			switch {
			case n.Whiteout():
				fmt.Fprintf(&b, "%s whiteout\n", p)
				continue
			case n.IsDir():
				fmt.Fprintf(&b, "%s/ %o", p, n.Mode()&0o7777)
				if n.Opaque() {
					b.WriteString(" opaque")
				}
				if n.Implied() {
					b.WriteString(" implied")
				}
			case n.IsSymlink():
				fmt.Fprintf(&b, "%s -> %s", p, n.Link())
			default:
				if l, ok := n.LowerLink(); ok {
					fmt.Fprintf(&b, "%s => lower %s", p, l)
					break
				}
				c := make([]byte, n.Size())
				n.ReadAt(c, 0)
				fmt.Fprintf(&b, "%s %q nlink %d", p, c, n.Nlink())
			}
			b.WriteByte('\n')
			if n.IsDir() {
				walk(n, p+"/")
			}
		}
	}
	walk(r.Root(), "")
	return b.String()
}

func TestTree(t *testing.T) {
	for _, c := range []struct {
		name string
		f    func(t *testing.T, w *Writer)
		want string
	}{
		{"empty", func(*testing.T, *Writer) {}, ""},
		{"implied parents, then described", func(t *testing.T, w *Writer) {
			must(t, w.Add(reg("a/b/c", "x")))
			must(t, w.Add(dir("a", 0o700), nil))
		}, "a/ 700\na/b/ 755 implied\na/b/c \"x\" nlink 1\n"},
		{"last wins", func(t *testing.T, w *Writer) {
			must(t, w.Add(reg("f", "one")))
			must(t, w.HardLink("g", "f"))
			must(t, w.Add(reg("./f", "second")))
		}, "f \"second\" nlink 1\ng \"one\" nlink 1\n"},
		{"hard links share", func(t *testing.T, w *Writer) {
			must(t, w.Add(reg("f", "one")))
			must(t, w.HardLink("d/g", "/f"))
		}, "d/ 755 implied\nd/g \"one\" nlink 2\nf \"one\" nlink 2\n"},
		{"hard link to a lower layer", func(t *testing.T, w *Writer) {
			must(t, w.HardLink("d/g", "./usr/f"))
			must(t, w.Add(reg("usr/f", "later")))
		}, "d/ 755 implied\nd/g => lower usr/f\nusr/ 755 implied\nusr/f \"later\" nlink 1\n"},
		{"file replaces directory", func(t *testing.T, w *Writer) {
			must(t, w.Add(reg("d/x", "x")))
			must(t, w.Add(reg("d", "file")))
		}, "d \"file\" nlink 1\n"},
		{"directory replaces file", func(t *testing.T, w *Writer) {
			must(t, w.Add(reg("d", "file")))
			must(t, w.Add(dir("d", 0o711), nil))
			must(t, w.Add(reg("d/x", "x")))
		}, "d/ 711\nd/x \"x\" nlink 1\n"},
		{"whiteouts", func(t *testing.T, w *Writer) {
			must(t, w.Whiteout("gone"))
			must(t, w.Whiteout("d/gone"))
			must(t, w.Whiteout("again"))
			must(t, w.Add(reg("again", "x")))
			must(t, w.Whiteout("newdir"))
			must(t, w.Add(reg("newdir/x", "x")))
			must(t, w.Opaque("o"))
			must(t, w.Add(reg("o/x", "x")))
		}, `again "x" nlink 1
d/ 755 implied
d/gone whiteout
gone whiteout
newdir/ 755 opaque implied
newdir/x "x" nlink 1
o/ 755 opaque implied
o/x "x" nlink 1
`},
		{"through a symbolic link", func(t *testing.T, w *Writer) {
			must(t, w.Add(Header{Name: "lib", Mode: typeLink | 0o777, Link: "/usr/../usr/lib"}, nil))
			must(t, w.Add(reg("lib/x", "x")))
			must(t, w.HardLink("y", "lib/x"))
		}, "lib -> /usr/../usr/lib\nusr/ 755 implied\nusr/lib/ 755 implied\nusr/lib/x \"x\" nlink 2\ny \"x\" nlink 2\n"},
	} {
		t.Run(c.name, func(t *testing.T) {
			r, _ := build(t, func(w *Writer) { c.f(t, w) })
			if got := dump(r); got != c.want {
				t.Errorf("got:\n%swant:\n%s", got, c.want)
			}
		})
	}
}

func TestRefused(t *testing.T) {
	file := strings.NewReader("abc")
	for _, c := range []struct {
		name string
		f    func(w *Writer) error
		want string
	}{
		{"dotdot", func(w *Writer) error { return w.Add(Header{Name: "a/../b", Mode: typeReg}, nil) }, "a/../b"},
		{"long name", func(w *Writer) error {
			return w.Add(Header{Name: strings.Repeat("x", 256), Mode: typeReg}, nil)
		}, "name too long"},
		{"4 GiB", func(w *Writer) error { return w.Add(Header{Name: "f", Mode: typeReg, Size: 1 << 32}, file) }, "below 4 GiB"},
		{"short", func(w *Writer) error { return w.Add(Header{Name: "f", Mode: typeReg, Size: 10}, file) }, "3 bytes instead of 10"},
		{"long", func(w *Writer) error {
			return w.Add(Header{Name: "f", Mode: typeReg, Size: 2}, strings.NewReader("abc"))
		}, "longer than 2"},
		{"loop", func(w *Writer) error {
			w.Add(Header{Name: "l", Mode: typeLink, Link: "l"}, nil)
			return w.Add(Header{Name: "l/x", Mode: typeReg}, nil)
		}, "symbolic links"},
		{"below a file", func(w *Writer) error {
			w.Add(Header{Name: "l", Mode: typeReg}, nil)
			return w.Add(Header{Name: "l/x", Mode: typeReg}, nil)
		}, "not a directory"},
		{"link to directory", func(w *Writer) error {
			w.Add(dir("d", 0o755), nil)
			return w.HardLink("x", "d")
		}, "directory"},
		{"type", func(w *Writer) error { return w.Add(Header{Name: "f", Mode: 0o644}, nil) }, "file type"},
	} {
		t.Run(c.name, func(t *testing.T) {
			w := NewWriter(io.Discard)
			err := c.f(w)
			if err == nil || !strings.Contains(err.Error(), c.want) {
				t.Fatalf("error %v, want one with %q", err, c.want)
			}
			if w.Close() == nil {
				t.Error("Close after an error succeeded")
			}
		})
	}
}

func TestAttributes(t *testing.T) {
	r, _ := build(t, func(w *Writer) {
		must(t, w.Add(Header{Name: ".", Mode: typeDir | 0o1777, UID: 3}, nil))
		must(t, w.Add(Header{Name: "null", Mode: typeChar | 0o666, Rdev: 1<<8 | 3, UID: 1, GID: 1 << 31, MtimeSec: -5, MtimeNsec: 7,
			Xattrs: []Xattr{{"user.b", []byte("2")}, {"user.a", []byte("1\x00")}}}, nil))
		must(t, w.Add(Header{Name: "p", Mode: typeFIFO | 0o600}, nil))
	})
	if root := r.Root(); root.Mode() != typeDir|0o1777 || root.UID() != 3 || root.Implied() || root.Parent() != root {
		t.Errorf("root: mode %o uid %d implied %v", root.Mode(), root.UID(), root.Implied())
	}
	n := at(t, r, "null")
	sec, nsec := n.Mtime()
	if n.Mode() != typeChar|0o666 || n.Rdev() != 0x103 || n.UID() != 1 || n.GID() != 1<<31 || sec != -5 || nsec != 7 {
		t.Errorf("mode %o rdev %#x uid %d gid %d mtime %d %d", n.Mode(), n.Rdev(), n.UID(), n.GID(), sec, nsec)
	}
	var xs []string
	for k, v := range n.Xattrs() {
		xs = append(xs, k+"="+string(v))
	}
	if !slices.Equal(xs, []string{"user.a=1\x00", "user.b=2"}) {
		t.Errorf("xattrs %q", xs)
	}
	if n.Ino() == at(t, r, "p").Ino() || n.Ino() > r.Inodes() {
		t.Error("inode numbers")
	}
}

// Undo must give the original for every window of offsets.
func TestPatchAndReadAt(t *testing.T) {
	orig := []byte("0123456789abcdefghij")
	stored := slices.Clone(orig)
	copy(stored[2:], "XXX")
	copy(stored[5:], "Y")
	copy(stored[18:], "ZZ")
	p := &Patch{
		Stubs: []byte("stub"), StubVaddr: 0x2000, Lo: 0, Hi: 0x1234,
		Segments: []Segment{{0, 0, 20}},
		Undo:     []Undo{{2, []byte("234")}, {5, []byte("5")}, {18, []byte("ij")}},
	}
	r, _ := build(t, func(w *Writer) {
		must(t, w.Add(Header{Name: "lib.so", Mode: typeReg | 0o755, Size: 20, Patch: p}, bytes.NewReader(stored)))
		must(t, w.Add(Header{Name: "lib2.so", Mode: typeReg | 0o755, Size: 20, Patch: p}, bytes.NewReader(stored)))
	})
	n := at(t, r, "lib2.so")
	if d, err := n.Data(); err != nil || !bytes.Equal(d, stored) {
		t.Fatalf("stored bytes %q, %v", d, err)
	}
	for off := range 22 {
		for l := range 22 {
			got := make([]byte, l)
			c, err := n.ReadAt(got, int64(off))
			want := orig[min(off, 20):min(off+l, 20)]
			if !bytes.Equal(got[:c], want) || (err == io.EOF) != (off+l > 20 || off >= 20) {
				t.Fatalf("ReadAt %d bytes at %d: %q, %v; want %q", l, off, got[:c], err, want)
			}
		}
	}
	q, ok := n.Patch()
	if !ok || string(q.Stubs) != "stub" || q.StubVaddr != 0x2000 || q.Hi != 0x1234 || len(q.Segments) != 1 || len(q.Undo) != 3 || string(q.Undo[2].Orig) != "ij" {
		t.Errorf("patch %+v, %v", q, ok)
	}
}

func TestLookupDoesNotAllocate(t *testing.T) {
	r, _ := build(t, func(w *Writer) {
		for i := range 1000 {
			must(t, w.Add(reg(fmt.Sprintf("d/%03d", i), "x")))
		}
	})
	d := at(t, r, "d")
	for i := range 1000 {
		if _, ok := r.Lookup(d, fmt.Sprintf("%03d", i)); !ok {
			t.Fatal(i)
		}
	}
	for _, name := range []string{"", "0", "0000", "9999", "500x"} {
		if _, ok := r.Lookup(d, name); ok {
			t.Errorf("found %q", name)
		}
	}
	if a := testing.AllocsPerRun(100, func() { r.Lookup(d, "567") }); a != 0 {
		t.Errorf("%v allocations a look-up", a)
	}
	if c, ok := r.Child(d, 999); !ok || c.Name() != "999" || r.Len(d) != 1000 {
		t.Error("Child")
	}
}

// The records must be what any newc reader understands, content at pages.
func TestCpioRecords(t *testing.T) {
	r, b := build(t, func(w *Writer) {
		for i := range 200 {
			name := strings.Repeat("n", i+1)
			must(t, w.Add(reg(name, strings.Repeat("c", i*37))))
		}
		must(t, w.Add(reg(strings.Repeat(strings.Repeat("p", 250)+"/", 16)+"x", "deep")))
		must(t, w.HardLink("link", "n"))
		must(t, w.Add(Header{Name: "sym", Mode: typeLink | 0o777, Link: "n"}, nil))
		must(t, w.Whiteout("gone"))
	})
	seen := map[string]cpio.Record{}
	must(t, cpio.ForEachRecord(cpio.Newc.Reader(bytes.NewReader(b)), func(rec cpio.Record) error {
		name, _, _ := strings.Cut(rec.Name, "\x00")
		if rec.FileSize > 0 && rec.Mode&typeMask == typeReg && rec.FilePos%pageSize != 0 {
			t.Errorf("%s: content at %#x", name, rec.FilePos)
		}
		if len(rec.Name) >= 4096 && len(name) < 3900 {
			t.Errorf("%s: name field of %d bytes: the kernel skips it", name, len(rec.Name)+1)
		}
		seen[name] = rec
		return nil
	}))
	for i := range 200 {
		name := strings.Repeat("n", i+1)
		rec, ok := seen[name]
		if !ok {
			t.Fatalf("no record of %s", name)
		}
		c, _ := io.ReadAll(io.NewSectionReader(rec.ReaderAt, 0, int64(rec.FileSize)))
		d, err := at(t, r, name).Data()
		if err != nil || !bytes.Equal(c, d) || len(d) != i*37 {
			t.Errorf("%d: %d and %d bytes, %v", i, len(c), len(d), err)
		}
	}
	if seen["link"].Ino != seen["n"].Ino || seen["link"].NLink < 2 {
		t.Error("hard link record")
	}
	if _, ok := seen[".wh.gone"]; !ok {
		t.Error("no whiteout record")
	}
}

func TestOpenRefuses(t *testing.T) {
	_, b := build(t, func(w *Writer) { must(t, w.Add(reg("f", "x"))) })
	for _, c := range []struct {
		name string
		b    []byte
	}{
		{"empty", nil}, {"short", b[:100]}, {"cut", b[:len(b)-1]}, {"zeros", make([]byte, 8192)},
		{"front lost", b[pageSize:]},
	} {
		if _, err := Open(c.b); !errors.Is(err, ErrCorrupt) {
			t.Errorf("%s: %v", c.name, err)
		}
	}
}
