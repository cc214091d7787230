// Package memfs is a file system in memory, optionally over a stack of
// read-only layers (image archives) that it merges as the OCI image
// specification's section "Layer Filesystem Changeset" says. With layers it is
// the root file system, without it is a tmpfs. Directories are merged at the
// first look-up, and file data is copied up page by page at the first write,
// so that making a file system reads nothing.
//
// The type at its heart is node. It may import vfs and the archive format.
package memfs

import (
	"sync/atomic"
	"time"

	"golang.org/x/sys/unix"

	"github.com/nabla-build/nabla-build/archive"
	"github.com/nabla-build/nabla-build/rumprun/vfs"
)

// Options say what a file system is.
type Options struct {
	// Layers are the read-only layers, lowest first.
	Layers []*archive.Reader
	// Dev is the device number that stat(2) shows.
	Dev uint64
	// Limit is the most file data that may be in memory, in bytes.
	Limit int64
	// Mode is the root directory's permissions where no layer has one; 0: 0755.
	Mode uint32
	// Type, Name, Source and MountOptions are what statfs(2) and
	// /proc/self/mountinfo show.
	Type                       int64
	Name, Source, MountOptions string
	// Device opens a character device node; nil: ENXIO.
	Device func(c *vfs.Context, d *vfs.Dentry, rdev uint64, flags uint32) (vfs.File, error)
	// FIFO makes the pipe behind a FIFO: what a node's Object returns at
	// first. Its result opens the FIFO.
	FIFO func() FIFO
}

// FIFO opens descriptions on one pipe.
type FIFO interface {
	// OpenFIFO opens an end as flags say; it does not wait for the other end.
	OpenFIFO(flags uint32) (vfs.File, error)
}

// FS is a file system.
type FS struct {
	opts    Options
	pool    pool
	nextIno atomic.Uint64
	inodes  atomic.Int64
	// linked holds the nodes of layer objects that have several names.
	linked map[lowerID]*node // protected by the Namespace's lock
	// grafts are directories of layers that belong to the merged directory of
	// another path: see findGrafts. It does not change.
	grafts map[string][]lowerDir
}

type lowerID struct {
	layer int
	id    uint64
}

// New makes a file system and returns its root directory.
func New(o Options) *vfs.Dentry {
	fs := &FS{opts: o, linked: make(map[lowerID]*node)}
	fs.pool.limit = o.Limit / pageSize
	fs.nextIno.Store(1)
	if o.Mode == 0 {
		fs.opts.Mode = 0o755
	}
	fs.findGrafts()
	var root *node
	if dirs := rootDirs(o.Layers); len(dirs) > 0 {
		e := lowerEntry{dirs[0].node, dirs[0].layer, dirs}
		for _, d := range dirs {
			if !d.node.Implied() {
				e.node, e.layer = d.node, d.layer
				break
			}
		}
		root = fs.fromLower(e)
	} else {
		now := time.Now()
		root = fs.newNode(vfs.Attr{Mode: unix.S_IFDIR | fs.opts.Mode, Atime: now, Mtime: now, Ctime: now, Btime: now})
	}
	root.nlink = 2
	return vfs.NewDentry(nil, "", root)
}

// NewMemfd makes the file of memfd_create(2), of at most limit bytes; sealing
// says that seals may be put on it.
func NewMemfd(dev uint64, limit int64, sealing bool, a vfs.Attr) vfs.Inode {
	fs := &FS{opts: Options{Dev: dev, Limit: limit, Type: unix.TMPFS_MAGIC, Name: "tmpfs"}}
	fs.pool.limit = limit / pageSize
	fs.nextIno.Store(1)
	n := fs.newNode(a)
	n.nlink = 0
	if sealing {
		n.seals = 0
	}
	return n
}

func (fs *FS) newNode(a vfs.Attr) *node {
	n := &node{
		fs: fs, ino: fs.nextIno.Add(1), kind: a.Mode & unix.S_IFMT, mode: a.Mode, uid: a.UID, gid: a.GID, rdev: a.Rdev, nlink: 1,
		atime: a.Atime, mtime: a.Mtime, ctime: a.Ctime, btime: a.Btime,
	}
	n.data.pool = &fs.pool
	// A tmpfs has files that can be sealed, once memfd_create(2) allows it.
	if n.sealable = len(fs.opts.Layers) == 0; n.sealable {
		n.seals = unix.F_SEAL_SEAL
	}
	if a.IsDir() {
		n.makeDir()
		n.nlink = 2
	}
	fs.inodes.Add(1)
	return n
}

func (fs *FS) statfs() vfs.FSInfo {
	used := fs.pool.used.Load()
	var below uint64
	for _, r := range fs.opts.Layers {
		below += (r.Size() + pageSize - 1) / pageSize
	}
	return vfs.FSInfo{
		Type: fs.opts.Type, Name: fs.opts.Name, BlockSize: pageSize,
		Blocks: uint64(fs.pool.limit) + below, BlocksFree: uint64(max(0, fs.pool.limit-used)), BlocksBelow: below,
		Files: 1 << 20, FilesFree: uint64(max(0, 1<<20-fs.inodes.Load())),
		Source: fs.opts.Source, Options: fs.opts.MountOptions,
	}
}
