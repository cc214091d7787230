package link

import (
	"archive/tar"
	"bytes"
	"context"
	"testing"

	"github.com/nabla-build/nabla-build/archive"
)

// FuzzLayer: any bytes give an error or an archive that stands its check.
func FuzzLayer(f *testing.F) {
	f.Add(tarOf(f, file("a/b", "x"), ent{tar.Header{Name: "h", Typeflag: tar.TypeLink, Linkname: "a/b"}, ""},
		ent{tar.Header{Name: "a/.wh.c"}, ""}, ent{tar.Header{Name: "a/.wh..wh..opq"}, ""}, ent{tar.Header{Name: "l", Typeflag: tar.TypeSymlink, Linkname: "a"}, ""}, file("l/x", "through")))
	f.Add(tarOf(f, ent{tar.Header{Name: "x", Typeflag: tar.TypeReg, PAXRecords: map[string]string{"SCHILY.xattr.user.k": "v"}}, ""}))
	f.Fuzz(func(t *testing.T, in []byte) {
		var out bytes.Buffer
		if _, err := Layer(context.Background(), bytes.NewReader(in), &out, Options{}); err != nil {
			return
		}
		r, err := archive.Open(out.Bytes())
		if err != nil {
			t.Fatal(err)
		}
		if err := r.Check(); err != nil {
			t.Fatal(err)
		}
	})
}
