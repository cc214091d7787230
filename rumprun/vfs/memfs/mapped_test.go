package memfs_test

import (
	"bytes"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/nabla-build/nabla-build/archive"
	"github.com/nabla-build/nabla-build/rumprun/mm"
	"github.com/nabla-build/nabla-build/rumprun/vfs"
)

// patchedLayer has one object, /lib, whose stored bytes differ from the
// original at 0x1010.
func patchedLayer(t *testing.T) (*archive.Reader, []byte, []byte) {
	original := bytes.Repeat([]byte{0x90}, 3*4096)
	stored := bytes.Clone(original)
	copy(stored[0x1010:], []byte{0xe9, 1, 2, 3, 4})
	l := new(layer)
	l.add(archive.Header{Name: "lib", Mode: unix.S_IFREG | 0o755, Patch: &archive.Patch{
		Stubs: []byte{0xcc, 0xcc}, StubVaddr: 0x5000, Lo: 0, Hi: 0x4800,
		Segments: []archive.Segment{{Off: 0x1000, Vaddr: 0x1000, Filesz: 0x1000}},
		Undo:     []archive.Undo{{Off: 0x1010, Orig: original[0x1010:0x1015]}},
	}}, string(stored))
	return l.archive(t), original, stored
}

func TestReadsOriginalBytesOfRewrittenObject(t *testing.T) {
	r, original, stored := patchedLayer(t)
	u := newOurs(r)
	if got := u.content("/lib"); !bytes.Equal(got, original) {
		t.Fatal("read(2) shows rewritten bytes")
	}
	f, _, err := u.ns.Open(u.c, nil, "/lib", unix.O_RDWR, 0, 0)
	if err != nil {
		t.Fatal(err)
	}
	// In pieces too, across and inside the patch.
	for off := int64(0x1008); off < 0x1020; off++ {
		for n := 1; n < 16; n++ {
			b := make([]byte, n)
			f.Pread(b, off)
			if !bytes.Equal(b, original[off:off+int64(n)]) {
				t.Fatalf("pread of %d at %#x: % x", n, off, b)
			}
		}
	}
	w := f.(mm.Rewritten)
	got, ok := w.Rewriting()
	if !ok || got.StubVaddr != 0x5000 || got.Hi != 0x4800 || len(got.Segments) != 1 || got.Segments[0].Vaddr != 0x1000 || !bytes.Equal(got.Stubs, []byte{0xcc, 0xcc}) {
		t.Fatalf("Rewriting: %+v, %v", got, ok)
	}
	b := make([]byte, len(stored)+10)
	if n, err := w.PreadRewritten(b, 0); err != nil || !bytes.Equal(b[:n], stored) {
		t.Fatalf("PreadRewritten: %d bytes, %v", n, err)
	}
	// One byte written, far from the patch: the object is an ordinary file,
	// and the rest of it still reads as the original.
	if _, err := f.Pwrite([]byte{1}, 0x2000); err != nil {
		t.Fatal(err)
	}
	if _, ok := w.Rewriting(); ok {
		t.Error("Rewriting still holds after a write")
	}
	want := bytes.Clone(original)
	want[0x2000] = 1
	if got := u.content("/lib"); !bytes.Equal(got, want) {
		t.Error("content after copy-up differs")
	}
	// A page that is copied up takes the original bytes along.
	f.Pwrite([]byte{2}, 0x1000)
	want[0x1000] = 2
	if got := u.content("/lib"); !bytes.Equal(got, want) {
		t.Error("content after copy-up of the patched page differs")
	}
}

// TestCopyUpIsByPage makes sure that a byte written to a large layer file
// costs a page, not the file.
func TestCopyUpIsByPage(t *testing.T) {
	l := new(layer)
	l.add(archive.Header{Name: "big", Mode: unix.S_IFREG | 0o644}, string(bytes.Repeat([]byte("0123456789abcdef"), 1<<20)))
	u := newOurs(l.archive(t))
	before := used(u)
	f, _, err := u.ns.Open(u.c, nil, "/big", unix.O_RDWR, 0, 0)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := f.Pwrite([]byte("x"), 9<<20); err != nil {
		t.Fatal(err)
	}
	if got := used(u) - before; got != 1 {
		t.Errorf("a byte written took %d pages", got)
	}
	b := make([]byte, 3)
	if f.Pread(b, 9<<20-1); string(b) != "fx1" {
		t.Errorf("read back %q", b)
	}
}

func used(u *ours) uint64 {
	s := u.ns.Root().Inode().StatFS()
	return s.Blocks - s.BlocksFree
}

// TestMemoryComesBack makes sure that the budget counts what is in use: files
// removed give it back when nothing has them open.
func TestMemoryComesBack(t *testing.T) {
	u := newOurs()
	write := func(name string) vfs.File {
		f, _, err := u.ns.Open(u.c, nil, name, unix.O_RDWR|unix.O_CREAT, 0o644, 0)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := f.Write(make([]byte, 1<<20)); err != nil {
			t.Fatal(err)
		}
		return f
	}
	f := write("a")
	u.ns.Unlink(u.c, nil, "a")
	if used(u) != 256 {
		t.Errorf("open but unlinked: %d pages", used(u))
	}
	f.Release()
	if used(u) != 0 {
		t.Errorf("closed: %d pages", used(u))
	}
	f = write("b")
	g := write("c")
	if err := u.ns.Rename(u.c, nil, "b", nil, "c", 0); err != nil {
		t.Fatal(err)
	}
	g.Release()
	if used(u) != 256 {
		t.Errorf("after a rename over a file: %d pages", used(u))
	}
	f.(vfs.Sized).Truncate(5000)
	if used(u) != 2 {
		t.Errorf("after ftruncate: %d pages", used(u))
	}
	f.Release()
}

// TestLayersCountAsUsed: statfs(2) shows the image's layers as used space, and
// BlocksBelow says that they take no memory.
func TestLayersCountAsUsed(t *testing.T) {
	r, _, stored := patchedLayer(t)
	empty, u := newOurs().ns.Root().Inode().StatFS(), newOurs(r)
	s := u.ns.Root().Inode().StatFS()
	if s.BlocksBelow < uint64(len(stored))/4096 || s.Blocks-s.BlocksFree != s.BlocksBelow {
		t.Errorf("%d blocks used, %d of them below, of a layer of %d bytes", s.Blocks-s.BlocksFree, s.BlocksBelow, r.Size())
	}
	if s.BlocksFree != empty.BlocksFree {
		t.Errorf("%d blocks are free with a layer, %d without", s.BlocksFree, empty.BlocksFree)
	}
}
