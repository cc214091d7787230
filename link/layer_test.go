package link

import (
	"archive/tar"
	"bytes"
	"context"
	"fmt"
	"io"
	"os"
	"strings"
	"testing"

	"github.com/nabla-build/nabla-build/archive"
)

func must(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// ent is a tar entry of a test.
type ent struct {
	tar.Header
	body string
}

func file(name, body string) ent {
	return ent{tar.Header{Name: name, Mode: 0o644, Typeflag: tar.TypeReg}, body}
}

func tarOf(t testing.TB, entries ...ent) []byte {
	t.Helper()
	var b bytes.Buffer
	w := tar.NewWriter(&b)
	for _, e := range entries {
		e.Size = int64(len(e.body))
		must(t, w.WriteHeader(&e.Header))
		_, err := io.WriteString(w, e.body)
		must(t, err)
	}
	must(t, w.Close())
	return b.Bytes()
}

func layerOf(t testing.TB, in []byte) (*archive.Reader, LayerReport, []byte) {
	t.Helper()
	var out bytes.Buffer
	rep, err := Layer(context.Background(), bytes.NewReader(in), &out, Options{})
	must(t, err)
	r, err := archive.Open(out.Bytes())
	must(t, err)
	return r, rep, out.Bytes()
}

func find(t testing.TB, r *archive.Reader, path string) archive.Node {
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

func TestLayerFiles(t *testing.T) {
	r, rep, _ := layerOf(t, tarOf(t,
		ent{tar.Header{Name: "./", Typeflag: tar.TypeDir, Mode: 0o755}, ""},
		file("/abs", "one"),
		file("./d/e", strings.Repeat("x", 100)),
		ent{tar.Header{Name: "l", Typeflag: tar.TypeSymlink, Linkname: "/etc/../x"}, ""},
		ent{tar.Header{Name: "h", Typeflag: tar.TypeLink, Linkname: "/abs"}, ""},
		ent{tar.Header{Name: "low", Typeflag: tar.TypeLink, Linkname: "usr/bin/x"}, ""},
		ent{tar.Header{Name: "dev", Typeflag: tar.TypeChar, Devmajor: 1, Devminor: 300}, ""},
		ent{tar.Header{Name: "p", Typeflag: tar.TypeFifo}, ""},
		ent{tar.Header{Name: "d/.wh.gone"}, ""},
		ent{tar.Header{Name: "o/.wh..wh..opq"}, ""},
		ent{tar.Header{Name: ".wh..wh.plnk/x.y", Typeflag: tar.TypeReg}, ""},
		ent{tar.Header{Name: "x", Typeflag: tar.TypeReg, PAXRecords: map[string]string{"SCHILY.xattr.user.k": "v\x01"}, Mode: 0o4755, Uid: 7}, ""},
		file(strings.Repeat("long/", 60)+"name", "deep"),
		file("abs", "again"),
	))
	read := func(p string) string {
		n := find(t, r, p)
		b := make([]byte, n.Size())
		n.ReadAt(b, 0)
		return string(b)
	}
	if read("abs") != "again" || read("h") != "one" || read(strings.Repeat("long/", 60)+"name") != "deep" || len(read("d/e")) != 100 {
		t.Error("contents")
	}
	if n := find(t, r, "l"); n.Link() != "/etc/../x" {
		t.Errorf("symlink %q", n.Link())
	}
	if p, ok := find(t, r, "low").LowerLink(); !ok || p != "usr/bin/x" {
		t.Errorf("link to a lower layer %q %v", p, ok)
	}
	if n := find(t, r, "dev"); n.Rdev() != 1<<8|300&0xff|300&^0xff<<12 || n.Mode()>>12 != 2 {
		t.Errorf("device %#x mode %o", n.Rdev(), n.Mode())
	}
	if !find(t, r, "d/gone").Whiteout() || !find(t, r, "o").Opaque() {
		t.Error("whiteouts")
	}
	if _, ok := r.Lookup(r.Root(), ".wh..wh.plnk"); ok {
		t.Error("bookkeeping of aufs is in the archive")
	}
	x := find(t, r, "x")
	for k, v := range x.Xattrs() {
		if k != "user.k" || string(v) != "v\x01" {
			t.Errorf("xattr %q %q", k, v)
		}
	}
	if x.Mode() != 0o104755 || x.UID() != 7 {
		t.Errorf("mode %o uid %d", x.Mode(), x.UID())
	}
	if len(rep.Warnings) != 1 || !strings.Contains(rep.Warnings[0], "dev") || rep.Files != 5 || rep.Whiteouts != 2 {
		t.Errorf("report %+v", rep)
	}
}

func TestLayerRefuses(t *testing.T) {
	good := tarOf(t, file("a", strings.Repeat("x", 3000)))
	head := func(h tar.Header) []byte {
		var b bytes.Buffer
		must(t, tar.NewWriter(&b).WriteHeader(&h))
		return b.Bytes()
	}
	for _, c := range []struct {
		name string
		in   []byte
		want string
	}{
		{"dotdot", tarOf(t, file("a/../../b", "")), `"a/../../b"`},
		{"hard link outside", tarOf(t, ent{tar.Header{Name: "x", Typeflag: tar.TypeLink, Linkname: "../y"}, ""}), `"x": hard link to "../y"`},
		{"cut in content", good[:1000], `"a": the layer is cut short here`},
		{"cut in header", good[:300], "unexpected EOF"},
		{"not a tar", []byte(strings.Repeat("hello world ", 100)), "not a tar archive"},
		{"5 GiB", head(tar.Header{Name: "big", Size: 5 << 30, Typeflag: tar.TypeReg}), "below 4 GiB"},
		{"below a file", tarOf(t, file("a", "x"), file("a/b", "x")), `"a/b"`},
		{"empty whiteout", tarOf(t, file("d/.wh.", "")), `"d/.wh."`},
		{"type", tarOf(t, ent{tar.Header{Name: "weird", Typeflag: 'Z'}, ""}), `"weird"`},
	} {
		t.Run(c.name, func(t *testing.T) {
			_, err := Layer(context.Background(), bytes.NewReader(c.in), io.Discard, Options{})
			if err == nil || !strings.Contains(err.Error(), c.want) || strings.Contains(err.Error(), "\n") {
				t.Errorf("error %v, want one line with %s", err, c.want)
			}
		})
	}
}

func TestLayerStops(t *testing.T) {
	ctx, cancel := context.WithCancel(context.Background())
	cancel()
	if _, err := Layer(ctx, bytes.NewReader(tarOf(t, file("a", "b"))), io.Discard, Options{}); err == nil || !strings.Contains(err.Error(), context.Canceled.Error()) {
		t.Errorf("cancelled: %v", err)
	}
	if _, err := Layer(context.Background(), bytes.NewReader(tarOf(t, file("a", "b"))), fullDisk{}, Options{}); err == nil || !strings.Contains(err.Error(), "disk full") {
		t.Errorf("full disk: %v", err)
	}
	whole := tarOf(t, file("a", "b"))
	rep, err := Layer(context.Background(), bytes.NewReader(whole[:1024]), io.Discard, Options{})
	if err != nil || len(rep.Warnings) != 1 || !strings.Contains(rep.Warnings[0], "cut short") {
		t.Errorf("no end mark: %v %v", rep.Warnings, err)
	}
}

type fullDisk struct{}

func (fullDisk) Write([]byte) (int, error) { return 0, fmt.Errorf("disk full") }

// An object of this machine: rewritten, verified, and readable as it was.
func TestLayerObject(t *testing.T) {
	const libc = "/lib/x86_64-linux-gnu/libc.so.6"
	b, err := os.ReadFile(libc)
	if err != nil {
		t.Skipf("needs Debian's libc: %v", err)
	}
	arm := bytes.Clone(b[:4096])
	arm[18] = 183
	in := tarOf(t, file("lib/libc.so.6", string(b)), file("arm", string(arm)), file("cut", string(b[:len(b)/2])))
	r, rep, out := layerOf(t, in)
	n := find(t, r, "lib/libc.so.6")
	got := make([]byte, len(b))
	if _, err := n.ReadAt(got, 0); err != nil || !bytes.Equal(got, b) {
		t.Fatalf("ReadAt does not give the original: %v", err)
	}
	data, _ := n.Data()
	if bytes.Equal(data, b) {
		t.Error("stored bytes are the original ones")
	}
	if p, ok := n.Patch(); !ok || len(p.Undo) != rep.Objects[0].Rewritten {
		t.Errorf("patch record: %v, %d undo records, %d rewritten", ok, len(p.Undo), rep.Objects[0].Rewritten)
	}
	if o := rep.Objects; len(o) != 3 || o[1].Unsupported == "" || !strings.Contains(o[1].Unsupported, "EM_AARCH64") || !strings.Contains(o[2].Unsupported, "cut short") {
		t.Errorf("report %+v", rep.Objects)
	}
	v, err := Verify(r)
	if err != nil || v.Objects != 1 || v.Sites != rep.Sites.Rewritten || v.Files != 3 {
		t.Errorf("verify: %+v %v", v, err)
	}
	p, _ := n.Patch()
	broken := bytes.Clone(out)
	broken[bytes.Index(broken, data)+int(p.Undo[7].Off)+1]++
	if r, err := archive.Open(broken); err != nil {
		t.Error(err)
	} else if _, err := Verify(r); err == nil || !strings.Contains(err.Error(), "lib/libc.so.6") {
		t.Errorf("a changed jump: %v", err)
	}
	if _, _, again := layerOf(t, in); !bytes.Equal(out, again) {
		t.Error("the same layer gave another archive")
	}
}

// A large object is kept in a temporary file; what comes out is the same as
// for a small one, and nothing is left behind.
func TestLayerLargeObject(t *testing.T) {
	b, err := os.ReadFile("/lib/x86_64-linux-gnu/libc.so.6")
	if err != nil {
		t.Skipf("needs Debian's libc: %v", err)
	}
	large := append(bytes.Clone(b), make([]byte, maxMemory)...)
	dir := t.TempDir()
	var out bytes.Buffer
	rep, err := Layer(context.Background(), bytes.NewReader(tarOf(t, file("small", string(b)), file("large", string(large)))), &out, Options{TempDir: dir})
	must(t, err)
	r, err := archive.Open(out.Bytes())
	must(t, err)
	must(t, r.Check())
	small, err := find(t, r, "small").Data()
	must(t, err)
	stored, err := find(t, r, "large").Data()
	must(t, err)
	if !bytes.Equal(stored[:len(b)], small) || len(stored) != len(large) {
		t.Error("the large object is rewritten in another way")
	}
	if o := rep.Objects; len(o) != 2 || o[0].Sites != o[1].Sites || o[0].Rewritten == 0 {
		t.Errorf("report %+v", o)
	}
	if left, _ := os.ReadDir(dir); len(left) != 0 {
		t.Errorf("%v is left", left)
	}
	if _, err := Layer(context.Background(), bytes.NewReader(tarOf(t, file("large", string(large)))), io.Discard, Options{TempDir: dir + "/none"}); err == nil {
		t.Error("no error without a directory for temporary files")
	}
}
