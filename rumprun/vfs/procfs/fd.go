package procfs

import (
	"fmt"
	"strconv"

	"golang.org/x/sys/unix"

	"github.com/nabla-build/nabla-build/rumprun/vfs"
	"github.com/nabla-build/nabla-build/rumprun/vfs/pseudo"
)

// fdDir makes /proc/PID/fd: a magic link for each descriptor.
func (f *fs) fdDir(path string, pid int32) vfs.Inode {
	return f.descriptors(path, pid, 0o500, func(fd int, open FD) vfs.Inode {
		perm := uint32(0)
		if open.Flags&unix.O_ACCMODE != unix.O_WRONLY {
			perm |= 0o500
		}
		if open.Flags&unix.O_ACCMODE != unix.O_RDONLY {
			perm |= 0o300
		}
		now := func() (FD, error) {
			if p := f.src.Process(pid); p != nil {
				if o, ok := p.FD(fd); ok {
					return o, nil
				}
			}
			return FD{}, unix.ENOENT
		}
		return &pseudo.Link{
			Node: f.owned(path+"/"+strconv.Itoa(fd), perm, pid),
			To: func(c *vfs.Context) (*vfs.Dentry, error) {
				o, err := now()
				if err != nil {
					return nil, err
				}
				if o.Entry != nil {
					return o.Entry, nil
				}
				return vfs.NewDetached(o.Label, &anonymous{open: o}), nil
			},
			Text: func(c *vfs.Context) (string, error) {
				o, err := now()
				if err != nil {
					return "", err
				}
				if o.Entry != nil {
					return f.src.PathOf(c, o.Entry), nil
				}
				return o.Label, nil
			},
		}
	})
}

// fdInfoDir makes /proc/PID/fdinfo.
func (f *fs) fdInfoDir(path string, pid int32) vfs.Inode {
	return f.descriptors(path, pid, 0o555, func(fd int, _ FD) vfs.Inode {
		return &pseudo.File{
			Node: f.owned(path+"/"+strconv.Itoa(fd), 0o444, pid),
			Get: func() ([]byte, error) {
				p := f.src.Process(pid)
				if p == nil {
					return nil, unix.ESRCH
				}
				o, ok := p.FD(fd)
				if !ok {
					return nil, unix.ENOENT
				}
				st, err := o.Stat()
				if err != nil {
					return nil, err
				}
				pos := int64(0)
				if o.Position != nil {
					pos = o.Position()
				}
				return fmt.Appendf(nil, "pos:\t%d\nflags:\t0%o\nmnt_id:\t0\nino:\t%d\n%s", pos, o.Flags, st.Ino, o.Extra), nil
			},
		}
	})
}

// descriptors makes a directory with an entry for each descriptor of pid.
func (f *fs) descriptors(path string, pid int32, perm uint32, entry func(fd int, o FD) vfs.Inode) vfs.Inode {
	d := &pseudo.Dir{Node: f.owned(path, perm, pid)}
	d.Find = func(_ *vfs.Context, name string) vfs.Inode {
		fd, ok := number(name)
		p := f.src.Process(pid)
		if !ok || p == nil {
			return nil
		}
		o, ok := p.FD(int(fd))
		if !ok {
			return nil
		}
		return entry(int(fd), o)
	}
	d.List = func(*vfs.Context) ([]string, error) {
		p := f.src.Process(pid)
		if p == nil {
			return nil, unix.ENOENT
		}
		var names []string
		for _, fd := range p.FDs() {
			names = append(names, strconv.Itoa(fd))
		}
		return names, nil
	}
	return d
}

// anonymous is the inode of a pipe, socket or the like as /proc/PID/fd shows
// it.
type anonymous struct {
	vfs.NoInode
	open FD
}

func (a *anonymous) Attr() vfs.Attr {
	st, err := a.open.Stat()
	if err != nil {
		return vfs.Attr{Mode: unix.S_IFREG | 0o600}
	}
	mode := st.Mode
	if a.open.Reopen != nil {
		// Whoever holds the descriptor may open it again: the container's
		// streams belong to whoever started it.
		mode |= 0o666
	}
	return vfs.Attr{
		Ino: st.Ino, Dev: st.Dev, Rdev: st.Rdev, Mode: mode, Nlink: st.Nlink, UID: st.Uid, GID: st.Gid,
		Size: st.Size, BlockSize: st.Blksize,
	}
}

func (a *anonymous) Open(_ *vfs.Context, _ *vfs.Dentry, flags uint32) (vfs.File, error) {
	if a.open.Reopen == nil {
		return nil, unix.ENXIO
	}
	return a.open.Reopen(flags)
}
