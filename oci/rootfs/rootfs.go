// Package rootfs writes a directory, or what changed from one directory to
// another, as the tar stream of an image layer (OCI image layer specification).
// It knows nothing of images; the function at its heart is Write.
package rootfs

import (
	"archive/tar"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// Options are for Write; the zero value writes all of a directory.
type Options struct {
	// Lower is the directory that lies below: only what differs from it is
	// written, with whiteouts for what it alone has, and the directories that
	// hold something of both kinds. "" is an empty one.
	Lower string
	// Clamp, if not nil, is the latest time of a file; later ones become it.
	Clamp *time.Time
	// Seconds cuts times to whole seconds, as BuildKit does in its layers.
	Seconds bool
	// NoStubs leaves out /proc, /sys and /dev where they are empty, as the
	// places are that BuildKit mounts on.
	NoStubs bool
}

// Write writes the directory dir to w, always the same for the same tree: names
// sorted, owners, modes, times, hard links, device nodes, named pipes and
// extended attributes kept; access times and the names of owners left out, and
// the root directory itself. Sockets are left out, as tar has none.
// Directories on which another file system is mounted are empty. The directory
// must not change meanwhile.
func Write(ctx context.Context, w io.Writer, dir string, o Options) error {
	root, err := os.Stat(dir)
	if err != nil {
		return err
	}
	d := &diff{ctx: ctx, o: o, upper: dir, dev: stat(root).Dev}
	if o.Lower != "" {
		lower, err := os.Stat(o.Lower)
		if err != nil {
			return err
		}
		d.lowerDev = stat(lower).Dev
		var fs unix.Statfs_t
		if err := unix.Statfs(dir, &fs); err != nil {
			return fmt.Errorf("statfs %s: %w", dir, err)
		}
		d.overlay = fs.Type == unix.OVERLAYFS_SUPER_MAGIC
	}
	if err := d.walk("", o.Lower != ""); err != nil {
		return err
	}
	if o.Lower != "" {
		d.hardLinks()
		d.parents()
	}
	t := &writer{ctx: ctx, tw: tar.NewWriter(w), o: o, dir: dir, links: map[inode]string{}, buf: make([]byte, 1<<18)}
	for i := range d.entries {
		if err := t.entry(&d.entries[i]); err != nil {
			return err
		}
	}
	return t.tw.Close()
}

type inode struct{ dev, ino uint64 }

// stat is what Lstat on Linux always gives.
func stat(fi fs.FileInfo) *syscall.Stat_t { return fi.Sys().(*syscall.Stat_t) }

func inodeOf(fi fs.FileInfo) inode { return inode{stat(fi).Dev, stat(fi).Ino} }

// linked says whether a file may have several names.
func linked(fi fs.FileInfo) bool { return fi != nil && !fi.IsDir() && stat(fi).Nlink > 1 }

// writer writes entries as a tar stream.
type writer struct {
	ctx   context.Context
	tw    *tar.Writer
	o     Options
	dir   string
	links map[inode]string // first names of files with several
	buf   []byte
}

func (t *writer) entry(e *entry) error {
	if err := t.ctx.Err(); err != nil {
		return err
	}
	if e.upper == nil {
		dir, base := filepath.Split(e.name)
		// The mode and time of a whiteout mean nothing.
		return t.tw.WriteHeader(&tar.Header{Typeflag: tar.TypeReg, Name: dir + whiteout + base, Mode: 0o600, ModTime: time.Unix(0, 0), Format: tar.FormatPAX})
	}
	if !e.changed || e.upper.Mode()&fs.ModeSocket != 0 {
		return nil
	}
	p, fi := filepath.Join(t.dir, e.name), e.upper
	link := ""
	if fi.Mode()&fs.ModeSymlink != 0 {
		var err error
		if link, err = os.Readlink(p); err != nil {
			return err
		}
	}
	h, err := tar.FileInfoHeader(fi, link)
	if err != nil {
		return fmt.Errorf("%s: %w", p, err)
	}
	h.Name = e.name
	if fi.IsDir() {
		h.Name += "/"
	}
	h.Uname, h.Gname = "", ""
	h.AccessTime, h.ChangeTime = time.Time{}, time.Time{}
	if c := t.o.Clamp; c != nil && h.ModTime.After(*c) {
		h.ModTime = *c
	}
	if t.o.Seconds {
		h.ModTime = h.ModTime.Truncate(time.Second)
	}
	h.Format = tar.FormatPAX
	if linked(fi) {
		if first, ok := t.links[inodeOf(fi)]; ok {
			h.Typeflag, h.Linkname, h.Size = tar.TypeLink, first, 0
		} else {
			t.links[inodeOf(fi)] = e.name
		}
	}
	if h.Typeflag == tar.TypeReg || h.Typeflag == tar.TypeDir {
		x, err := xattrs(p)
		if err != nil {
			return fmt.Errorf("%s: extended attributes: %w", p, err)
		}
		for name, value := range x {
			if h.PAXRecords == nil {
				h.PAXRecords = map[string]string{}
			}
			h.PAXRecords["SCHILY.xattr."+name] = value
		}
	}
	if err := t.tw.WriteHeader(h); err != nil {
		return fmt.Errorf("%s: %w", p, err)
	}
	if h.Typeflag != tar.TypeReg || h.Size == 0 {
		return nil
	}
	f, err := os.Open(p)
	if err != nil {
		return err
	}
	defer f.Close()
	n, err := io.CopyBuffer(struct{ io.Writer }{t.tw}, io.LimitReader(f, h.Size), t.buf)
	if err == nil && n < h.Size {
		err = io.ErrUnexpectedEOF
	}
	if err != nil {
		return fmt.Errorf("%s: %w", p, err)
	}
	return nil
}

// xattrs are the extended attributes of a file. Those of the host
// (security.selinux, system.*, trusted.*) are left out.
func xattrs(p string) (map[string]string, error) {
	n, err := unix.Llistxattr(p, nil)
	if n == 0 || errors.Is(err, unix.ENOTSUP) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	list := make([]byte, n)
	if n, err = unix.Llistxattr(p, list); err != nil {
		return nil, err
	}
	var out map[string]string
	for name := range strings.SplitSeq(strings.TrimSuffix(string(list[:n]), "\x00"), "\x00") {
		if name != "security.capability" && !strings.HasPrefix(name, "user.") || strings.HasPrefix(name, "user.overlay.") {
			continue
		}
		n, err := unix.Lgetxattr(p, name, nil)
		if err != nil {
			return nil, err
		}
		val := make([]byte, n)
		if n > 0 {
			if n, err = unix.Lgetxattr(p, name, val); err != nil {
				return nil, err
			}
		}
		if out == nil {
			out = map[string]string{}
		}
		out[name] = string(val[:n])
	}
	return out, nil
}
