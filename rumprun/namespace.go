package rumprun

import (
	"fmt"
	"path"
	"slices"
	"time"

	"golang.org/x/sys/unix"

	"github.com/nabla-build/nabla-build/rumprun/entropy"
	"github.com/nabla-build/nabla-build/rumprun/vfs"
	"github.com/nabla-build/nabla-build/rumprun/vfs/memfs"
)

// Device numbers of the file systems, as stat(2) shows them.
const (
	devRoot = iota + 0x20
	devProc
	devSys
	devDev
	devShm
	devMemfd
)

// mountID is the mount ID of the file system that d is on, as in
// /proc/self/mountinfo; 0 if it is not mounted.
func (k *Kernel) mountID(d *vfs.Dentry) uint64 {
	dev := d.Inode().Attr().Dev
	for i, m := range k.files.mounts {
		if m.root.Inode().Attr().Dev == dev {
			return uint64(firstMountID + i)
		}
	}
	return 0
}

// firstMountID is the root's mount ID; the others follow.
const firstMountID = 21

func (k *Kernel) isMountRoot(d *vfs.Dentry) bool {
	return slices.ContainsFunc(k.files.mounts, func(m mount) bool { return m.root == d })
}

// newMemfd makes the description of memfd_create(2).
func (k *Kernel) newMemfd(t *Task, name string, flags int) (*Description, error) {
	now := time.Now()
	c := t.vfsContext()
	mode := uint32(unix.S_IFREG | 0o777)
	sealing := flags&unix.MFD_ALLOW_SEALING != 0
	if flags&unix.MFD_NOEXEC_SEAL != 0 {
		mode = unix.S_IFREG | 0o666
		sealing = true
	}
	i := memfs.NewMemfd(devMemfd, k.files.limit, sealing, vfs.Attr{
		Mode: mode, UID: c.Creds.FSUID, GID: c.Creds.FSGID, Atime: now, Mtime: now, Ctime: now, Btime: now,
	})
	d := vfs.NewDetached("/memfd:"+name+" (deleted)", i)
	f, err := k.files.ns.OpenDentry(c, d, unix.O_RDWR)
	if err != nil {
		return nil, err
	}
	if s, ok := f.(vfs.Sealed); ok && flags&unix.MFD_NOEXEC_SEAL != 0 {
		if err := s.AddSeals(unix.F_SEAL_EXEC); err != nil {
			f.Release()
			return nil, err
		}
	}
	return newDescriptionAt(f, d), nil
}

// newFiles makes the namespace that cfg describes: the layers with the
// container's files over them, and the mounts below /dev, /proc and /sys. It
// reads next to nothing of the layers.
func (k *Kernel) newFiles() error {
	cfg := &k.cfg
	f := &k.files
	f.entropy = entropy.New(cfg.Entropy)
	f.limit = limitSize(cfg.MemoryLimit)
	layers, err := memfs.OpenLayers(cfg.Archives)
	if err != nil {
		return fmt.Errorf("open the image's archives: %w", err)
	}
	root := memfs.New(memfs.Options{
		Layers: layers, Dev: devRoot, Limit: f.limit,
		Type: unix.OVERLAYFS_SUPER_MAGIC, Name: "overlay", Source: "overlay", MountOptions: "rw,relatime",
		FIFO: k.newFIFO, Device: k.openDevice,
	})
	f.ns = vfs.NewNamespace(root)
	f.mounts = []mount{{"/", root}}
	c := &vfs.Context{Creds: vfs.NewCreds(0, 0, nil)}
	for _, name := range slices.Sorted(mapKeys(cfg.Files)) {
		if err := f.ns.WriteFile(c, name, cfg.Files[name], 0o644); err != nil {
			return fmt.Errorf("lay %s over the image: %w", name, err)
		}
	}
	return k.mountAll(c)
}

// mountOn mounts root on dir, which is made if the image does not have it.
func (k *Kernel) mountOn(c *vfs.Context, dir string, root *vfs.Dentry) error {
	if err := k.files.ns.MkdirAll(c, dir, 0o755); err != nil {
		return fmt.Errorf("make mount point %s: %w", dir, err)
	}
	if err := k.files.ns.Mount(c, path.Clean(dir), root); err != nil {
		return fmt.Errorf("mount on %s: %w", dir, err)
	}
	k.files.mounts = append(k.files.mounts, mount{dir, root})
	return nil
}
