// Package devfs makes the guest's /dev: a tmpfs with the character devices
// that the library OS has (null(4), full(4), random(4), tty(4)) and the usual
// links. It may import vfs, memfs and entropy.
package devfs

import (
	"time"

	"golang.org/x/sys/unix"

	"github.com/nabla-build/nabla-build/rumprun/entropy"
	"github.com/nabla-build/nabla-build/rumprun/vfs"
	"github.com/nabla-build/nabla-build/rumprun/vfs/memfs"
)

// Devices opens character devices.
type Devices struct {
	Entropy *entropy.Source
	// Terminal opens the caller's controlling terminal; nil: there is none.
	Terminal func(c *vfs.Context, flags uint32) (vfs.File, error)
	// Multiplexer opens the master of a new pseudo terminal; nil: there are
	// none.
	Multiplexer func(c *vfs.Context, d *vfs.Dentry, flags uint32) (vfs.File, error)
}

// Open opens the device with number rdev; ENXIO if there is no such device.
func (v *Devices) Open(c *vfs.Context, d *vfs.Dentry, rdev uint64, flags uint32) (vfs.File, error) {
	base := device{entry: d}
	switch rdev {
	case unix.Mkdev(1, 3):
		return &null{base}, nil
	case unix.Mkdev(1, 5):
		return &zero{base, false}, nil
	case unix.Mkdev(1, 7):
		return &zero{base, true}, nil
	case unix.Mkdev(1, 8), unix.Mkdev(1, 9):
		return &random{base, v.Entropy}, nil
	case unix.Mkdev(5, 0):
		if v.Terminal != nil {
			return v.Terminal(c, flags)
		}
	case unix.Mkdev(5, 2):
		if v.Multiplexer != nil {
			return v.Multiplexer(c, d, flags)
		}
	}
	return nil, unix.ENXIO
}

var nodes = []struct {
	name         string
	major, minor uint32
}{
	{"null", 1, 3}, {"zero", 1, 5}, {"full", 1, 7}, {"random", 1, 8}, {"urandom", 1, 9}, {"tty", 5, 0}, {"ptmx", 5, 2},
}

var links = [][2]string{
	{"fd", "/proc/self/fd"}, {"stdin", "/proc/self/fd/0"}, {"stdout", "/proc/self/fd/1"}, {"stderr", "/proc/self/fd/2"},
}

// New makes the file system, with the empty directories dirs (mount points)
// too. o says what the tmpfs is; Device is set here.
func New(v *Devices, o memfs.Options, dirs ...string) (*vfs.Dentry, error) {
	o.Device = v.Open
	root := memfs.New(o)
	i := root.Inode()
	now := time.Now()
	attr := func(mode uint32) vfs.Attr {
		return vfs.Attr{Mode: mode, Atime: now, Mtime: now, Ctime: now, Btime: now}
	}
	for _, n := range nodes {
		a := attr(unix.S_IFCHR | 0o666)
		a.Rdev = unix.Mkdev(n.major, n.minor)
		if _, err := i.Create(nil, root, n.name, a); err != nil {
			return nil, err
		}
	}
	for _, l := range links {
		if _, err := i.Symlink(nil, root, l[0], l[1], attr(unix.S_IFLNK|0o777)); err != nil {
			return nil, err
		}
	}
	for _, d := range dirs {
		if _, err := i.Create(nil, root, d, attr(unix.S_IFDIR|0o755)); err != nil {
			return nil, err
		}
	}
	return root, nil
}

// device is what the devices have in common.
type device struct {
	vfs.Base
	entry *vfs.Dentry
}

func (f *device) Stat() (unix.Stat_t, error) {
	a := f.entry.Inode().Attr()
	return a.Stat(), nil
}

func (f *device) Seek(int64, int) (int64, error) { return 0, nil }

// null is /dev/null.
type null struct{ device }

func (*null) Read([]byte) (int, error)              { return 0, nil }
func (*null) Pread([]byte, int64) (int, error)      { return 0, nil }
func (*null) Write(p []byte) (int, error)           { return len(p), nil }
func (*null) Pwrite(p []byte, _ int64) (int, error) { return len(p), nil }

// zero is /dev/zero, and /dev/full, to which nothing can be written.
type zero struct {
	device
	full bool
}

func (*zero) Read(p []byte) (int, error) {
	clear(p)
	return len(p), nil
}

func (f *zero) Pread(p []byte, _ int64) (int, error) { return f.Read(p) }

func (f *zero) Write(p []byte) (int, error) {
	if f.full && len(p) > 0 {
		return 0, unix.ENOSPC
	}
	return len(p), nil
}

func (f *zero) Pwrite(p []byte, _ int64) (int, error) { return f.Write(p) }

// random is /dev/random and /dev/urandom, which are the same once the source
// is seeded: before the guest starts.
type random struct {
	device
	source *entropy.Source
}

func (f *random) Read(p []byte) (int, error)           { return f.source.Read(p) }
func (f *random) Pread(p []byte, _ int64) (int, error) { return f.source.Read(p) }

func (f *random) Write(p []byte) (int, error) {
	f.source.Mix(p)
	return len(p), nil
}

func (f *random) Pwrite(p []byte, _ int64) (int, error) { return f.Write(p) }

// Ioctl answers RNDGETENTCNT and RNDADDTOENTCNT of random(4).
func (f *random) Ioctl(m vfs.UserMemory, req uint32, arg uintptr) (uintptr, error) {
	switch req {
	case unix.RNDGETENTCNT:
		return 0, m.CopyOut(arg, []byte{0, 1, 0, 0}) // 256 bits
	case unix.RNDADDTOENTCNT, unix.RNDADDENTROPY, unix.RNDZAPENTCNT, unix.RNDCLEARPOOL, unix.RNDRESEEDCRNG:
		return 0, unix.EPERM
	}
	return 0, unix.ENOTTY
}
