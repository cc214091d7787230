package rootfs

import (
	"archive/tar"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"math/rand"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// change does random things to the tree in dir.
func change(t *testing.T, r *rand.Rand, dir string, n int) {
	t.Helper()
	pick := func(dirs bool) string {
		var all []string
		filepath.WalkDir(dir, func(p string, d fs.DirEntry, err error) error {
			if err == nil && d.IsDir() == dirs && (dirs || p != dir) {
				all = append(all, p)
			}
			return nil
		})
		if len(all) == 0 {
			return ""
		}
		return all[r.Intn(len(all))]
	}
	content := func() []byte { return bytes.Repeat([]byte{byte('a' + r.Intn(26))}, r.Intn(3)*1000) }
	for range n {
		in := pick(true)
		name := filepath.Join(in, fmt.Sprintf("n%d", r.Intn(12)))
		file := pick(false)
		var err error
		switch k := r.Intn(14); {
		case k < 4:
			if fi, e := os.Lstat(name); e == nil && !fi.Mode().IsRegular() {
				break
			}
			err = os.WriteFile(name, content(), 0o644)
		case k < 6:
			err = os.Mkdir(name, 0o755)
		case k == 6:
			err = os.Symlink("../n1", name)
		case k == 7 && in != dir:
			err = os.RemoveAll(in)
		case file == "":
		case k == 8 || k == 9:
			err = os.Remove(file)
		case k == 10:
			err = os.Link(file, name)
		case k == 11:
			err = os.Lchown(file, r.Intn(9), r.Intn(9))
		case k == 12:
			if fi, e := os.Lstat(file); e == nil && fi.Mode().IsRegular() {
				err = os.Chmod(file, fs.FileMode(r.Intn(0o1000)))
			}
		case k == 13:
			err = os.Chmod(in, fs.FileMode(r.Intn(0o100))|0o700)
		}
		if err != nil && !errors.Is(err, fs.ErrExist) {
			t.Fatal(err)
		}
	}
}

// apply unpacks a layer over a directory.
func apply(t *testing.T, layer io.Reader, dir string) {
	t.Helper()
	check := func(err error) {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
	}
	tr := tar.NewReader(layer)
	for {
		h, err := tr.Next()
		if err == io.EOF {
			return
		}
		check(err)
		p := filepath.Join(dir, h.Name)
		if base := filepath.Base(p); strings.HasPrefix(base, ".wh.") {
			check(os.RemoveAll(filepath.Join(filepath.Dir(p), base[4:])))
			continue
		}
		if fi, err := os.Lstat(p); err == nil && !(fi.IsDir() && h.Typeflag == tar.TypeDir) {
			check(os.RemoveAll(p))
		}
		switch h.Typeflag {
		case tar.TypeReg:
			b, err := io.ReadAll(tr)
			check(err)
			check(os.WriteFile(p, b, 0o600))
		case tar.TypeDir:
			if err := os.Mkdir(p, 0o700); !errors.Is(err, fs.ErrExist) {
				check(err)
			}
		case tar.TypeSymlink:
			check(os.Symlink(h.Linkname, p))
		case tar.TypeLink:
			check(os.Link(filepath.Join(dir, h.Linkname), p))
			continue
		}
		check(os.Lchown(p, h.Uid, h.Gid))
		if h.Typeflag != tar.TypeSymlink {
			check(unix.Chmod(p, uint32(h.Mode)))
		}
		ts := unix.NsecToTimespec(h.ModTime.UnixNano())
		check(unix.UtimesNanoAt(unix.AT_FDCWD, p, []unix.Timespec{ts, ts}, unix.AT_SYMLINK_NOFOLLOW))
	}
}

// describe is all of a tree but the times of directories: all that lies in one
// layer and names of one file, too.
func describe(t *testing.T, dir string) []string {
	t.Helper()
	var out []string
	peers := map[inode][]string{}
	err := filepath.WalkDir(dir, func(p string, d fs.DirEntry, err error) error {
		if err != nil || p == dir {
			return err
		}
		fi, err := os.Lstat(p)
		if err != nil {
			return err
		}
		name, st := p[len(dir):], stat(fi)
		s := fmt.Sprintf("%s %o %d:%d", name, st.Mode, st.Uid, st.Gid)
		if !fi.IsDir() {
			s += fmt.Sprintf(" %d", fi.ModTime().UnixNano())
		}
		if fi.Mode().IsRegular() {
			b, err := os.ReadFile(p)
			if err != nil {
				return err
			}
			s += fmt.Sprintf(" %d %.1s", len(b), b)
		}
		if fi.Mode()&fs.ModeSymlink != 0 {
			l, _ := os.Readlink(p)
			s += " -> " + l
		}
		if linked(fi) {
			peers[inodeOf(fi)] = append(peers[inodeOf(fi)], name)
		}
		out = append(out, s)
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	for _, p := range peers {
		if len(p) > 1 {
			out = append(out, "= "+strings.Join(p, " = "))
		}
	}
	slices.Sort(out)
	return out
}

func layer(t *testing.T, dir string, o Options) []byte {
	t.Helper()
	var b bytes.Buffer
	if err := Write(t.Context(), &b, dir, o); err != nil {
		t.Fatal(err)
	}
	return b.Bytes()
}

// TestDifference changes a tree at random, in an overlay where this machine
// permits it, and unpacks the difference over what was there before.
func TestDifference(t *testing.T) {
	if os.Getuid() != 0 {
		t.Skip("chown needs root")
	}
	overlays := 0
	for seed := range int64(45) {
		r := rand.New(rand.NewSource(seed))
		top := t.TempDir()
		lower, upper, work, merged, result := filepath.Join(top, "l"), filepath.Join(top, "u"), filepath.Join(top, "w"), filepath.Join(top, "m"), filepath.Join(top, "r")
		for _, d := range []string{lower, upper, work, merged, result} {
			if err := os.Mkdir(d, 0o755); err != nil {
				t.Fatal(err)
			}
		}
		change(t, r, lower, 60)
		time.Sleep(10 * time.Millisecond) // the resolution of the kernel's clock
		// First a copy, in which no inode is the same.
		apply(t, bytes.NewReader(layer(t, lower, Options{})), result)
		if a, b := describe(t, lower), describe(t, result); !slices.Equal(a, b) {
			t.Fatalf("seed %d: a copy differs:\n%q\n%q", seed, a, b)
		}
		final := result
		opts := fmt.Sprintf("lowerdir=%s,upperdir=%s,workdir=%s,index=off", lower, upper, work)
		if seed%3 > 0 && unix.Mount("overlay", merged, "overlay", 0, opts) == nil {
			overlays++
			change(t, r, merged, 25)
			if err := unix.Unmount(merged, 0); err != nil {
				t.Fatal(err)
			}
			// As BuildKit shows a finished layer.
			if err := unix.Mount("overlay", merged, "overlay", unix.MS_RDONLY, fmt.Sprintf("lowerdir=%s:%s,index=off", upper, lower)); err != nil {
				t.Fatal(err)
			}
			t.Cleanup(func() { unix.Unmount(merged, unix.MNT_DETACH) })
			final = merged
		} else {
			change(t, r, result, 25)
		}
		l := layer(t, final, Options{Lower: lower})
		if !bytes.Equal(l, layer(t, final, Options{Lower: lower})) {
			t.Fatalf("seed %d: two differences of the same trees", seed)
		}
		want := describe(t, final)
		over := filepath.Join(top, "over")
		if err := os.Mkdir(over, 0o755); err != nil {
			t.Fatal(err)
		}
		apply(t, bytes.NewReader(layer(t, lower, Options{})), over)
		apply(t, bytes.NewReader(l), over)
		got := describe(t, over)
		for _, s := range want {
			if !slices.Contains(got, s) {
				t.Errorf("seed %d: missing: %s", seed, s)
			}
		}
		for _, s := range got {
			if !slices.Contains(want, s) {
				t.Errorf("seed %d: too much: %s", seed, s)
			}
		}
		if t.Failed() {
			return
		}
	}
	t.Logf("%d of 45 in an overlay", overlays)
}

func TestEqualTreesDoNotDiffer(t *testing.T) {
	a, b := t.TempDir(), t.TempDir()
	for _, dir := range []string{a, b} {
		if err := os.WriteFile(filepath.Join(dir, "f"), []byte("x"), 0o644); err != nil {
			t.Fatal(err)
		}
		if err := os.Chtimes(filepath.Join(dir, "f"), time.Unix(1, 0), time.Unix(1, 0)); err != nil {
			t.Fatal(err)
		}
		for _, stub := range []string{"proc", "sys", "dev"} {
			if dir == b {
				if err := os.Mkdir(filepath.Join(dir, stub), 0o755); err != nil {
					t.Fatal(err)
				}
			}
		}
	}
	if _, err := tar.NewReader(bytes.NewReader(layer(t, b, Options{Lower: a, NoStubs: true}))).Next(); err != io.EOF {
		t.Errorf("an entry, or %v", err)
	}
	// Of the same size and time, but not the same.
	if err := os.WriteFile(filepath.Join(b, "f"), []byte("y"), 0o644); err != nil {
		t.Fatal(err)
	}
	if err := os.Chtimes(filepath.Join(b, "f"), time.Unix(1, 0), time.Unix(1, 0)); err != nil {
		t.Fatal(err)
	}
	h, err := tar.NewReader(bytes.NewReader(layer(t, b, Options{Lower: a, NoStubs: true}))).Next()
	if err != nil || h.Name != "f" {
		t.Errorf("%v, %v", h, err)
	}
}

func TestClampAndAttributes(t *testing.T) {
	dir := t.TempDir()
	f := filepath.Join(dir, "f")
	if err := os.WriteFile(f, []byte("x"), 0o644); err != nil {
		t.Fatal(err)
	}
	if err := unix.Setxattr(f, "user.colour", []byte("blue"), 0); err != nil {
		t.Skipf("extended attributes: %v", err)
	}
	limit := time.Unix(1000, 0)
	h, err := tar.NewReader(bytes.NewReader(layer(t, dir, Options{Clamp: &limit}))).Next()
	if err != nil || !h.ModTime.Equal(limit) || h.PAXRecords["SCHILY.xattr.user.colour"] != "blue" {
		t.Errorf("%+v, %v", h, err)
	}
}

func TestWhiteoutName(t *testing.T) {
	dir := t.TempDir()
	if err := os.WriteFile(filepath.Join(dir, ".wh.x"), nil, 0o644); err != nil {
		t.Fatal(err)
	}
	if err := Write(context.Background(), io.Discard, dir, Options{}); err == nil || !strings.Contains(err.Error(), "rename the file") {
		t.Errorf("%v", err)
	}
}
