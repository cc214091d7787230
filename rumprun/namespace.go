package rumprun

import (
	"fmt"
	"maps"
	"slices"
	"time"

	"golang.org/x/sys/unix"

	"github.com/nabla-build/nabla-build/rumprun/entropy"
	"github.com/nabla-build/nabla-build/rumprun/event"
	"github.com/nabla-build/nabla-build/rumprun/vfs"
	"github.com/nabla-build/nabla-build/rumprun/vfs/devfs"
	"github.com/nabla-build/nabla-build/rumprun/vfs/memfs"
	"github.com/nabla-build/nabla-build/rumprun/vfs/procfs"
	"github.com/nabla-build/nabla-build/rumprun/vfs/sysfs"
)

// Device numbers of the file systems, as stat(2) shows them.
const (
	devRoot = iota + 0x20
	devProc
	devSys
	devDev
	devShm
	devMemfd
	devPts
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

// newFiles makes the namespace that the configuration describes: the layers
// with the container's files over them, and what is mounted below. It reads
// next to nothing of the layers.
func (k *Kernel) newFiles() error {
	cfg := &k.cfg
	f := &k.files
	f.boot = time.Now()
	f.entropy = entropy.New(cfg.Entropy)
	f.bootID = k.uuid()
	f.limit = limitSize(cfg.MemoryLimit)
	layers, err := memfs.OpenLayers(cfg.Archives)
	if err != nil {
		return fmt.Errorf("open the image's archives: %w", err)
	}
	devices := &devfs.Devices{Entropy: f.entropy, Terminal: k.openTerminal, Multiplexer: k.openMultiplexer}
	k.tty.Signal, k.tty.SignalLeader = k.signalGroup, k.signalLeader
	root := memfs.New(memfs.Options{
		Layers: layers, Dev: devRoot, Limit: f.limit, FIFO: newFIFO, Device: devices.Open,
		Type: unix.OVERLAYFS_SUPER_MAGIC, Name: "overlay", Source: "overlay", MountOptions: "rw,relatime",
	})
	f.ns = vfs.NewNamespace(root)
	f.mounts = []mount{{path: "/", root: root}}
	c := &vfs.Context{Creds: vfs.NewCreds(0, 0, nil)}
	for _, name := range slices.Sorted(maps.Keys(cfg.Files)) {
		if err := f.ns.WriteFile(c, name, cfg.Files[name], 0o644); err != nil {
			return fmt.Errorf("lay %s over the image: %w", name, err)
		}
	}
	tmpfs := func(dev uint64, mode uint32, options string) memfs.Options {
		return memfs.Options{
			Dev: dev, Limit: f.limit, Mode: mode, FIFO: newFIFO, Device: devices.Open,
			Type: unix.TMPFS_MAGIC, Name: "tmpfs", Source: "tmpfs", MountOptions: options,
		}
	}
	dev, err := devfs.New(devices, tmpfs(devDev, 0o755, "rw,nosuid"), "pts", "shm", "mqueue")
	if err != nil {
		return fmt.Errorf("make /dev: %w", err)
	}
	for _, m := range []mount{
		{"/proc", procfs.New(devProc, procSource{k}), 0},
		{"/sys", sysfs.New(devSys, f.boot), 0},
		{"/dev", dev, 0},
		{"/dev/pts", k.tty.FileSystem(devPts), 3},
		{"/dev/shm", memfs.New(tmpfs(devShm, 0o1777, "rw,nosuid,nodev,noexec")), 3},
	} {
		if err := f.ns.MkdirAll(c, m.path, 0o755); err != nil {
			return fmt.Errorf("make mount point %s: %w", m.path, err)
		}
		if err := f.ns.Mount(c, m.path, m.root); err != nil {
			return fmt.Errorf("mount on %s: %w", m.path, err)
		}
		f.mounts = append(f.mounts, m)
	}
	return nil
}

// usage is how much file content is in memory, in bytes.
func (f *fileState) usage() int64 {
	var n int64
	for _, m := range f.mounts {
		if s := m.root.Inode().StatFS(); s.Blocks > 0 {
			n += int64(s.Blocks-s.BlocksBelow-s.BlocksFree) * s.BlockSize
		}
	}
	return n
}

// newFIFO makes the pipe behind a FIFO.
func newFIFO() memfs.FIFO { return new(event.FIFO) }
