package vfs_test

import (
	"os"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/nabla-build/nabla-build/rumprun/vfs"
	"github.com/nabla-build/nabla-build/rumprun/vfs/memfs"
)

// entries are made natively and here: directories, files and links, good and
// bad ones.
var entries = []struct{ path, link string }{
	{"a/", ""}, {"a/b/", ""}, {"a/b/f", ""}, {"a/up", ".."}, {"a/b/root", "/"}, {"a/self", "."}, {"a/b/rel", "../../c/g"},
	{"c/", ""}, {"c/g", ""}, {"loop1", "loop2"}, {"loop2", "loop1"}, {"gone", "nowhere"}, {"slash", "a/b/"}, {"fslash", "c/g/"},
	{"deep", "a/self/self/b/rel"}, {"dots", "a/../a/./b"},
}

// FuzzWalk resolves paths with openat2(2) on the host, RESOLVE_IN_ROOT keeping
// it inside the test's directory, and here: the answers must agree.
func FuzzWalk(f *testing.F) {
	for _, s := range []string{
		"a", "a/", "a/b/f", "a/b/f/", "a/b/f/.", "a//b/./f", "..", "../..", "/", "//a", "a/up/c/g", "a/b/root/a", "loop1", "loop1/x", "gone", "gone/",
		"slash", "slash/f", "fslash", "deep", "dots/f", "a/self/self/self", "", ".", "a/b/../..//c", "a/b/rel", strings.Repeat("a/self/", 50), strings.Repeat("x", 256),
	} {
		for flags := range uint8(8) {
			f.Add(s, flags)
		}
	}
	dir, err := os.MkdirTemp("/dev/shm", "walk")
	if err != nil {
		f.Skip(err)
	}
	f.Cleanup(func() { os.RemoveAll(dir) })
	ns := vfs.NewNamespace(memfs.New(memfs.Options{Dev: 1, Limit: 1 << 20}))
	c := &vfs.Context{Creds: vfs.NewCreds(0, 0, nil)}
	inodes := make(map[uint64]string) // host's inode number to ours by name
	for _, e := range entries {
		p := dir + "/" + e.path
		var herr, err error
		switch {
		case e.link != "":
			herr, err = os.Symlink(e.link, p), ns.Symlink(c, e.link, nil, "/"+e.path)
		case strings.HasSuffix(e.path, "/"):
			herr, err = os.Mkdir(p, 0o755), ns.Mkdir(c, nil, "/"+e.path, 0o755)
		default:
			herr, err = os.WriteFile(p, nil, 0o644), ns.WriteFile(c, "/"+e.path, nil, 0o644)
		}
		if herr != nil || err != nil {
			f.Fatal(e.path, herr, err)
		}
	}
	names := func(st *unix.Stat_t, ours uint64) bool {
		// The same host inode must always be the same inode here.
		key := string(rune(ours))
		if have, ok := inodes[st.Ino]; ok {
			return have == key
		}
		inodes[st.Ino] = key
		return true
	}
	fd, err := unix.Open(dir, unix.O_PATH|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	if err != nil {
		f.Fatal(err)
	}
	base, err := ns.Lookup(c, nil, "/", true, 0)
	if err != nil {
		f.Fatal(err)
	}
	f.Fuzz(func(t *testing.T, path string, flags uint8) {
		if strings.IndexByte(path, 0) >= 0 {
			return
		}
		open := uint64(unix.O_PATH | unix.O_CLOEXEC)
		if flags&1 != 0 {
			open |= unix.O_NOFOLLOW
		}
		if flags&2 != 0 {
			open |= unix.O_DIRECTORY
		}
		res := uint64(unix.RESOLVE_IN_ROOT)
		if flags&4 != 0 {
			res |= unix.RESOLVE_NO_SYMLINKS
		}
		h, want := unix.Openat2(fd, path, &unix.OpenHow{Flags: open, Resolve: res})
		_, d, got := ns.Open(c, base, path, uint32(open), 0, vfs.Resolve(res))
		if want == nil {
			defer unix.Close(h)
		}
		if got != want && !(got == nil && want == nil) {
			t.Fatalf("%q flags %#x resolve %#x: %v, natively %v", path, open, res, got, want)
		}
		if want != nil {
			return
		}
		var st unix.Stat_t
		if err := unix.Fstat(h, &st); err != nil {
			t.Fatal(err)
		}
		if a := d.Inode().Attr(); a.Mode&unix.S_IFMT != st.Mode&unix.S_IFMT || !names(&st, a.Ino) {
			t.Fatalf("%q leads to another file than natively", path)
		}
	})
}
