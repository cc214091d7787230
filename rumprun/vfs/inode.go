package vfs

import (
	"time"

	"golang.org/x/sys/unix"
)

// Attr are an inode's attributes (inode(7)).
type Attr struct {
	Ino       uint64
	Dev       uint64 // of the file system that the inode is on
	Rdev      uint64 // of a device node
	Mode      uint32 // type and permissions
	Nlink     uint64
	UID, GID  uint32
	Size      int64
	Blocks    int64 // of 512 bytes
	BlockSize int64 // 0: 4096
	Atime     time.Time
	Mtime     time.Time
	Ctime     time.Time
	Btime     time.Time // zero: not known
}

func (a *Attr) Type() uint32    { return a.Mode & unix.S_IFMT }
func (a *Attr) IsDir() bool     { return a.Type() == unix.S_IFDIR }
func (a *Attr) IsSymlink() bool { return a.Type() == unix.S_IFLNK }
func (a *Attr) IsRegular() bool { return a.Type() == unix.S_IFREG }

// Stat returns a as the kernel's struct stat.
func (a *Attr) Stat() unix.Stat_t {
	bs := a.BlockSize
	if bs == 0 {
		bs = 4096
	}
	return unix.Stat_t{
		Dev: a.Dev, Ino: a.Ino, Nlink: a.Nlink, Mode: a.Mode, Uid: a.UID, Gid: a.GID, Rdev: a.Rdev,
		Size: a.Size, Blksize: bs, Blocks: a.Blocks,
		Atim: timespec(a.Atime), Mtim: timespec(a.Mtime), Ctim: timespec(a.Ctime),
	}
}

func timespec(t time.Time) unix.Timespec {
	if t.IsZero() {
		return unix.Timespec{}
	}
	return unix.Timespec{Sec: t.Unix(), Nsec: int64(t.Nanosecond())}
}

// SetAttr names the attributes to change: those that are not nil. The caller
// has checked that the change is allowed.
type SetAttr struct {
	Mode         *uint32 // permission bits
	UID, GID     *uint32
	Atime, Mtime *time.Time
}

// FSInfo is what statfs(2) says of a file system.
type FSInfo struct {
	Type               int64 // *_MAGIC of statfs(2)
	Name               string
	BlockSize          int64
	Blocks, BlocksFree uint64
	BlocksBelow        uint64 // of those used: the image's layers, which take no memory
	Files, FilesFree   uint64
	Source, Options    string // for /proc/self/mountinfo
}

// DirEntry is an entry of a directory listing; Type is a DT_* value.
type DirEntry struct {
	Name string
	Ino  uint64
	Type uint8
}

// Inode is an object of a file system. Implementations embed NoInode and
// override what they support.
//
// Methods from Lookup to Rename are called with the Namespace's lock held:
// they must not call it back, nor wait. The others lock for themselves. The
// caller has checked permissions, names (1 to 255 bytes, no slash, neither "."
// nor "..") and, where it says so, that an entry exists or not. All errors are
// unix.Errno values.
type Inode interface {
	// Attr returns the attributes now.
	Attr() Attr
	// SetAttr changes attributes; it updates the change time.
	SetAttr(SetAttr) error
	// Open makes an open file description. d is where the inode was found.
	// flags are open(2)'s, checked against the permissions; O_CREAT, O_EXCL,
	// O_TRUNC and O_NOFOLLOW have been dealt with. Directories are not opened
	// by this method.
	Open(c *Context, d *Dentry, flags uint32) (File, error)
	// Truncate sets the size of a regular file.
	Truncate(size int64) error
	// GetXattr, SetXattr, ListXattr and RemoveXattr are xattr(7); flags are
	// XATTR_CREATE and XATTR_REPLACE.
	GetXattr(name string) ([]byte, error)
	SetXattr(name string, value []byte, flags int) error
	ListXattr() ([]string, error)
	RemoveXattr(name string) error
	// StatFS describes the file system.
	StatFS() FSInfo

	// Readlink returns the text of a symbolic link.
	Readlink(c *Context) (string, error)
	// Jump returns where a magic link (symlink(7)) leads; nil if the inode is
	// not one, and Readlink's text is to be walked.
	Jump(c *Context) (*Dentry, error)

	// Lookup finds name in this directory, which is d; ENOENT if it is not
	// there. A file system that keeps its entries in memory returns the same
	// Dentry each time.
	Lookup(c *Context, d *Dentry, name string) (*Dentry, error)
	// ReadDir lists the directory without "." and "..".
	ReadDir(c *Context, d *Dentry) ([]DirEntry, error)
	// Generation changes when an entry goes or comes.
	Generation() uint64
	// Create makes an entry name, which does not exist, of mode's type: a
	// regular file, directory, FIFO, socket or device node.
	Create(c *Context, d *Dentry, name string, a Attr) (*Dentry, error)
	// CreateUnnamed makes a regular file without a name (O_TMPFILE).
	CreateUnnamed(c *Context, d *Dentry, a Attr) (Inode, error)
	// Symlink makes a symbolic link with text target.
	Symlink(c *Context, d *Dentry, name, target string, a Attr) (*Dentry, error)
	// Link makes name another name of target, an inode of the same file
	// system that is no directory.
	Link(c *Context, d *Dentry, name string, target Inode) (*Dentry, error)
	// Remove removes entry child; ENOTEMPTY if it is a directory with entries.
	Remove(c *Context, d *Dentry, child *Dentry) error
	// Rename moves child of d to name in newDir, replacing target if that is
	// not nil; with RENAME_EXCHANGE the two change places, with
	// RENAME_WHITEOUT a whiteout is left. It updates the Dentries.
	Rename(c *Context, d *Dentry, child *Dentry, newDir *Dentry, name string, target *Dentry, flags uint) error
}

// NoInode answers every operation as an inode does that supports none of them:
// a directory's operations are ENOTDIR, changes EPERM.
type NoInode struct{}

func (NoInode) SetAttr(SetAttr) error                         { return unix.EPERM }
func (NoInode) Open(*Context, *Dentry, uint32) (File, error)  { return nil, unix.ENXIO }
func (NoInode) Truncate(int64) error                          { return unix.EINVAL }
func (NoInode) GetXattr(string) ([]byte, error)               { return nil, unix.EOPNOTSUPP }
func (NoInode) SetXattr(string, []byte, int) error            { return unix.EOPNOTSUPP }
func (NoInode) ListXattr() ([]string, error)                  { return nil, nil }
func (NoInode) RemoveXattr(string) error                      { return unix.EOPNOTSUPP }
func (NoInode) StatFS() FSInfo                                { return FSInfo{BlockSize: 4096} }
func (NoInode) Readlink(*Context) (string, error)             { return "", unix.EINVAL }
func (NoInode) Jump(*Context) (*Dentry, error)                { return nil, nil }
func (NoInode) Generation() uint64                            { return 0 }
func (NoInode) ReadDir(*Context, *Dentry) ([]DirEntry, error) { return nil, unix.ENOTDIR }
func (NoInode) Remove(*Context, *Dentry, *Dentry) error       { return unix.EPERM }
func (NoInode) Lookup(*Context, *Dentry, string) (*Dentry, error) {
	return nil, unix.ENOTDIR
}
func (NoInode) Create(*Context, *Dentry, string, Attr) (*Dentry, error) {
	return nil, unix.EPERM
}
func (NoInode) CreateUnnamed(*Context, *Dentry, Attr) (Inode, error) {
	return nil, unix.EOPNOTSUPP
}
func (NoInode) Symlink(*Context, *Dentry, string, string, Attr) (*Dentry, error) {
	return nil, unix.EPERM
}
func (NoInode) Link(*Context, *Dentry, string, Inode) (*Dentry, error) {
	return nil, unix.EPERM
}
func (NoInode) Rename(*Context, *Dentry, *Dentry, *Dentry, string, *Dentry, uint) error {
	return unix.EPERM
}
