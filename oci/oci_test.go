package oci

import (
	"archive/tar"
	"bytes"
	"context"
	"errors"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/go-containerregistry/pkg/name"
	v1 "github.com/google/go-containerregistry/pkg/v1"
	"golang.org/x/sys/unix"
)

func TestParse(t *testing.T) {
	dir := t.TempDir()
	colon := filepath.Join(dir, "a:b")
	if err := os.Mkdir(colon, 0o755); err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct {
		in        string
		kind      Kind
		path, tag string
		name      string
	}{
		{"python", Registry, "", "", name.DefaultRegistry + "/library/python:latest"},
		{"localhost:5000/a/b:c", Registry, "", "", "localhost:5000/a/b:c"},
		{"docker://localhost:5000/a", Registry, "", "", "localhost:5000/a:latest"},
		{"oci:dir", Layout, "dir", "", ""},
		{"oci:dir:tag", Layout, "dir", "tag", ""},
		{"oci:/a/b/", Layout, "/a/b", "", ""},
		{"oci:../x:1.0", Layout, "../x", "1.0", ""},
		{"oci:" + colon, Layout, colon, "", ""},
		{"docker-archive:f.tar", DockerArchive, "f.tar", "", ""},
		{"docker-archive:f.tar:a/b:c", DockerArchive, "f.tar", "", ""},
		{"rootfs:dir", RootFS, "dir", "", ""},
	} {
		r, err := Parse(c.in)
		if err != nil || r.Kind != c.kind || r.path != c.path || r.tag != c.tag || r.Name() != c.name || r.String() != c.in {
			t.Errorf("%s: %+v (name %q), %v", c.in, r, r.Name(), err)
		}
	}
	for _, in := range []string{"", "oci:", "oci:dir:a b", "docker-archive:", "rootfs:", "dir:x", "https://x/y", "UPPER", "a@sha256:12", "docker-archive:f:UPPER CASE"} {
		if r, err := Parse(in); !errors.Is(err, ErrReference) {
			t.Errorf("%q: %+v, %v", in, r, err)
		}
	}
}

// TestTree makes an image layer of a directory with every kind of file.
func TestTree(t *testing.T) {
	dir := t.TempDir()
	must := func(err error) {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
	}
	must(os.Mkdir(filepath.Join(dir, "b"), 0o750))
	must(os.WriteFile(filepath.Join(dir, "b", "file"), []byte("content"), 0o640))
	must(os.Link(filepath.Join(dir, "b", "file"), filepath.Join(dir, "c")))
	must(os.Symlink("/nowhere", filepath.Join(dir, "a")))
	must(unix.Mkfifo(filepath.Join(dir, "pipe"), 0o600))
	must(unix.Chmod(filepath.Join(dir, "b", "file"), 0o4755))
	if os.Geteuid() == 0 {
		must(unix.Mknod(filepath.Join(dir, "null"), unix.S_IFCHR|0o666, int(unix.Mkdev(1, 3))))
		must(os.Chown(filepath.Join(dir, "c"), 12, 34))
		must(unix.Chmod(filepath.Join(dir, "c"), 0o4755))
	}
	when := time.Unix(1600000000, 123456789)
	must(os.Chtimes(filepath.Join(dir, "b", "file"), when, when))
	xattr := unix.Setxattr(filepath.Join(dir, "b", "file"), "user.k", []byte("v\x00w"), 0) == nil
	r, err := Parse("rootfs:" + dir)
	must(err)
	img, err := r.Source(context.Background(), Options{Config: v1.Config{Entrypoint: []string{"/c"}}})
	must(err)
	layers, err := img.Layers()
	must(err)
	read := func() []byte {
		rc, err := layers[0].Uncompressed()
		must(err)
		defer rc.Close()
		b, err := io.ReadAll(rc)
		must(err)
		return b
	}
	b := read()
	if !bytes.Equal(b, read()) {
		t.Error("read twice, two results")
	}
	var names []string
	tr := tar.NewReader(bytes.NewReader(b))
	for {
		h, err := tr.Next()
		if err == io.EOF {
			break
		}
		must(err)
		names = append(names, h.Name)
		switch h.Name {
		case "a":
			if h.Typeflag != tar.TypeSymlink || h.Linkname != "/nowhere" {
				t.Errorf("a: %+v", h)
			}
		case "b/":
			if h.Mode != 0o750 {
				t.Errorf("b: mode %o", h.Mode)
			}
		case "b/file":
			if h.Mode != 0o4755 || !h.ModTime.Equal(when) || h.Size != 7 {
				t.Errorf("b/file: %+v", h)
			}
			if os.Geteuid() == 0 && (h.Uid != 12 || h.Gid != 34) {
				t.Errorf("b/file: owner %d:%d", h.Uid, h.Gid)
			}
			if xattr && h.PAXRecords["SCHILY.xattr.user.k"] != "v\x00w" {
				t.Errorf("b/file: %v", h.PAXRecords)
			}
		case "c":
			if h.Typeflag != tar.TypeLink || h.Linkname != "b/file" {
				t.Errorf("c: %+v", h)
			}
		case "null":
			if h.Typeflag != tar.TypeChar || h.Devmajor != 1 || h.Devminor != 3 {
				t.Errorf("null: %+v", h)
			}
		case "pipe":
			if h.Typeflag != tar.TypeFifo {
				t.Errorf("pipe: %+v", h)
			}
		}
	}
	want := "a b/ b/file c pipe"
	if os.Geteuid() == 0 {
		want = "a b/ b/file c null pipe"
	}
	if got := strings.Join(names, " "); got != want {
		t.Errorf("names %s, want %s", got, want)
	}
	t.Setenv("SOURCE_DATE_EPOCH", "1500000000")
	if img, err = r.Source(context.Background(), Options{}); err != nil {
		t.Fatal(err)
	}
	if layers, err = img.Layers(); err != nil {
		t.Fatal(err)
	}
	tr = tar.NewReader(bytes.NewReader(read()))
	for {
		h, err := tr.Next()
		if err == io.EOF {
			break
		}
		must(err)
		if h.ModTime.After(time.Unix(1500000000, 0)) {
			t.Errorf("%s: %v is after SOURCE_DATE_EPOCH", h.Name, h.ModTime)
		}
	}
	must(os.WriteFile(filepath.Join(dir, ".wh.x"), nil, 0o644))
	if _, err := r.Source(context.Background(), Options{}); err == nil || !strings.Contains(err.Error(), "rename") {
		t.Errorf("a name that means a deletion: %v", err)
	}
}

func TestWriteFileKeepsOld(t *testing.T) {
	dir := t.TempDir()
	p := filepath.Join(dir, "f")
	if err := os.WriteFile(p, []byte("old"), 0o644); err != nil {
		t.Fatal(err)
	}
	boom := errors.New("boom")
	if err := WriteFile(p, 0o644, func(f *os.File) error { f.WriteString("half"); return boom }); !errors.Is(err, boom) {
		t.Errorf("%v", err)
	}
	if b, _ := os.ReadFile(p); string(b) != "old" {
		t.Errorf("%q", b)
	}
	if es, _ := os.ReadDir(dir); len(es) != 1 {
		t.Errorf("left behind: %v", es)
	}
}
