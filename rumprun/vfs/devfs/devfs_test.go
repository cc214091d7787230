package devfs_test

import (
	"bytes"
	"os"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/nabla-build/nabla-build/rumprun/entropy"
	"github.com/nabla-build/nabla-build/rumprun/vfs"
	"github.com/nabla-build/nabla-build/rumprun/vfs/devfs"
	"github.com/nabla-build/nabla-build/rumprun/vfs/memfs"
)

// TestDevicesAgainstHost makes the same calls on the host's devices and ours.
func TestDevicesAgainstHost(t *testing.T) {
	root, err := devfs.New(&devfs.Devices{Entropy: entropy.New([64]byte{1})}, memfs.Options{Dev: 1, Limit: 1 << 20}, "pts", "shm")
	if err != nil {
		t.Fatal(err)
	}
	ns := vfs.NewNamespace(root)
	c := &vfs.Context{Creds: vfs.NewCreds(0, 0, nil)}
	for _, name := range []string{"null", "zero", "full", "random", "urandom"} {
		h, err := unix.Open("/dev/"+name, unix.O_RDWR, 0)
		if err != nil {
			t.Skip(err)
		}
		g, d, err := ns.Open(c, nil, "/"+name, unix.O_RDWR, 0, 0)
		if err != nil {
			t.Fatalf("open /dev/%s: %v", name, err)
		}
		var st unix.Stat_t
		unix.Fstat(h, &st)
		if a := d.Inode().Attr(); a.Mode != st.Mode || a.Rdev != st.Rdev {
			t.Errorf("%s: mode %o device %#x, want %o %#x", name, a.Mode, a.Rdev, st.Mode, st.Rdev)
		}
		got, want := bytes.Repeat([]byte{7}, 5000), bytes.Repeat([]byte{7}, 5000)
		n, err := g.Read(got)
		m, herr := unix.Read(h, want)
		if n != m || err != nil || herr != nil {
			t.Errorf("%s: read %d, %v; want %d, %v", name, n, err, m, herr)
		}
		if name != "random" && name != "urandom" && !bytes.Equal(got, want) {
			t.Errorf("%s: content differs", name)
		}
		n, err = g.Write(want[:100])
		m, herr = unix.Write(h, want[:100])
		if err != herr && !(err == nil && herr == nil) || herr == nil && n != m {
			t.Errorf("%s: write %d, %v; want %d, %v", name, n, err, m, herr)
		}
		for whence := range 3 {
			off, err := g.Seek(100, whence)
			hoff, herr := unix.Seek(h, 100, whence)
			if off != hoff && name != "random" && name != "urandom" || (err == nil) != (herr == nil) {
				t.Errorf("%s: lseek(100, %d) %d, %v; want %d, %v", name, whence, off, err, hoff, herr)
			}
		}
		unix.Close(h)
		g.Release()
	}
	if _, _, err := ns.Open(c, nil, "/tty", unix.O_RDWR, 0, 0); err != unix.ENXIO {
		t.Errorf("open /dev/tty without a terminal: %v", err)
	}
	for _, name := range []string{"fd", "stdin", "stdout", "stderr"} {
		d, err := ns.Lookup(c, nil, "/"+name, false, 0)
		if err != nil {
			t.Fatal(err)
		}
		got, _ := d.Inode().Readlink(c)
		if want, err := os.Readlink("/dev/" + name); err == nil && got != want {
			t.Errorf("/dev/%s leads to %s, want %s", name, got, want)
		}
	}
}
