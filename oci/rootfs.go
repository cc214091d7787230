package oci

import (
	"archive/tar"
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"sort"
	"strconv"
	"strings"
	"syscall"
	"time"

	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/partial"
	"github.com/google/go-containerregistry/pkg/v1/types"
	"golang.org/x/sys/unix"
)

// fromDirectory makes an image with one layer of a directory. The directory is
// read twice, once for the diff ID; if it changes in between, reading the
// layer fails.
func fromDirectory(ctx context.Context, dir string, config v1.Config) (v1.Image, error) {
	fi, err := os.Stat(dir)
	if err != nil {
		return nil, err
	}
	if !fi.IsDir() {
		return nil, errors.New("not a directory")
	}
	clamp, err := sourceDateEpoch()
	if err != nil {
		return nil, err
	}
	h := sha256.New()
	if err := writeTree(ctx, h, dir, clamp); err != nil {
		return nil, err
	}
	diffID := v1.Hash{Algorithm: "sha256", Hex: fmt.Sprintf("%x", h.Sum(nil))}
	return partial.UncompressedToImage(&directory{ctx: ctx, dir: dir, clamp: clamp, diffID: diffID, config: config})
}

// sourceDateEpoch is the variable SOURCE_DATE_EPOCH of the Reproducible Builds
// specification: no time is later than it. nil if it is not set.
func sourceDateEpoch() (*time.Time, error) {
	s := os.Getenv("SOURCE_DATE_EPOCH")
	if s == "" {
		return nil, nil
	}
	n, err := strconv.ParseInt(s, 10, 64)
	if err != nil {
		return nil, fmt.Errorf("SOURCE_DATE_EPOCH is %q, not a number of seconds", s)
	}
	t := time.Unix(n, 0).UTC()
	return &t, nil
}

// directory is both the image and its only layer.
type directory struct {
	ctx    context.Context
	dir    string
	clamp  *time.Time
	diffID v1.Hash
	config v1.Config
}

func (d *directory) MediaType() (types.MediaType, error) { return types.OCIManifestSchema1, nil }

func (d *directory) RawConfigFile() ([]byte, error) {
	return partial.RawConfigFile(configured{&v1.ConfigFile{
		OS: "linux", Architecture: "amd64", Config: d.config,
		RootFS: v1.RootFS{Type: "layers", DiffIDs: []v1.Hash{d.diffID}},
	}})
}

type configured struct{ c *v1.ConfigFile }

func (c configured) ConfigFile() (*v1.ConfigFile, error) { return c.c, nil }

func (d *directory) LayerByDiffID(h v1.Hash) (partial.UncompressedLayer, error) {
	if h != d.diffID {
		return nil, fmt.Errorf("no layer %s", h)
	}
	return treeLayer{d}, nil
}

type treeLayer struct{ d *directory }

func (l treeLayer) DiffID() (v1.Hash, error)            { return l.d.diffID, nil }
func (l treeLayer) MediaType() (types.MediaType, error) { return types.OCILayer, nil }

func (l treeLayer) Uncompressed() (io.ReadCloser, error) {
	ctx, cancel := context.WithCancel(l.d.ctx)
	pr, pw := io.Pipe()
	go func() { pw.CloseWithError(writeTree(ctx, pw, l.d.dir, l.d.clamp)) }()
	return treeReader{pr, cancel}, nil
}

type treeReader struct {
	*io.PipeReader
	cancel context.CancelFunc
}

func (r treeReader) Close() error {
	r.cancel()
	return r.PipeReader.Close()
}

// writeTree writes a directory as a tar stream, always the same for the same
// tree: names sorted, owners, modes, times (at most clamp), hard links, device
// nodes, named pipes and extended attributes kept; access times and the names
// of owners left out. Sockets are left out, as tar has none. Directories on
// which another file system is mounted are empty.
func writeTree(ctx context.Context, w io.Writer, dir string, clamp *time.Time) error {
	root, err := os.Stat(dir)
	if err != nil {
		return err
	}
	t := &tree{ctx: ctx, tw: tar.NewWriter(w), clamp: clamp, dev: stat(root).Dev, links: map[inode]string{}, buf: make([]byte, 1<<18)}
	if err := t.walk(dir, ""); err != nil {
		return err
	}
	return t.tw.Close()
}

type inode struct{ dev, ino uint64 }

type tree struct {
	ctx   context.Context
	tw    *tar.Writer
	clamp *time.Time
	dev   uint64
	links map[inode]string // first names of files with several
	buf   []byte
}

// stat is what Lstat on Linux always gives.
func stat(fi fs.FileInfo) *syscall.Stat_t { return fi.Sys().(*syscall.Stat_t) }

func (t *tree) walk(path, name string) error {
	es, err := os.ReadDir(path)
	if err != nil {
		return err
	}
	sort.Slice(es, func(i, j int) bool { return es[i].Name() < es[j].Name() })
	for _, e := range es {
		if err := t.ctx.Err(); err != nil {
			return err
		}
		if strings.HasPrefix(e.Name(), ".wh.") {
			return fmt.Errorf("%s: in an image layer the name means that %s is deleted: rename the file", filepath.Join(path, e.Name()), e.Name()[4:])
		}
		p, n := filepath.Join(path, e.Name()), name+e.Name()
		fi, err := os.Lstat(p)
		if err != nil {
			return err
		}
		if err := t.entry(p, n, fi); err != nil {
			return err
		}
		if fi.IsDir() && stat(fi).Dev == t.dev {
			if err := t.walk(p, n+"/"); err != nil {
				return err
			}
		}
	}
	return nil
}

func (t *tree) entry(p, name string, fi fs.FileInfo) error {
	if fi.Mode()&fs.ModeSocket != 0 {
		return nil
	}
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
	h.Name = name
	if fi.IsDir() {
		h.Name += "/"
	}
	h.Uname, h.Gname = "", ""
	h.AccessTime, h.ChangeTime = time.Time{}, time.Time{}
	if t.clamp != nil && h.ModTime.After(*t.clamp) {
		h.ModTime = *t.clamp
	}
	h.Format = tar.FormatPAX
	if st := stat(fi); st.Nlink > 1 && !fi.IsDir() {
		id := inode{st.Dev, st.Ino}
		if first, ok := t.links[id]; ok {
			h.Typeflag, h.Linkname, h.Size = tar.TypeLink, first, 0
		} else {
			t.links[id] = name
		}
	}
	if h.Typeflag == tar.TypeReg || h.Typeflag == tar.TypeDir {
		if h.PAXRecords, err = xattrs(p); err != nil {
			return fmt.Errorf("%s: extended attributes: %w", p, err)
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

// xattrs are the extended attributes of a file as tar's pax records. Those of
// the host (security.selinux, system.*, trusted.*) are left out.
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
		if name != "security.capability" && !strings.HasPrefix(name, "user.") {
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
		out["SCHILY.xattr."+name] = string(val[:n])
	}
	return out, nil
}
