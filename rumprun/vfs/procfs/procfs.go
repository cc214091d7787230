// Package procfs makes the guest's /proc (proc(5)). What it shows comes from
// the kernel through Source; the formats are those of the Linux kernel's
// fs/proc. It may import vfs and pseudo. The type at its heart is Process.
package procfs

import (
	"strconv"
	"time"

	"golang.org/x/sys/unix"

	"github.com/nabla-build/nabla-build/rumprun/vfs"
	"github.com/nabla-build/nabla-build/rumprun/vfs/pseudo"
)

// Source is what the kernel tells. Its methods are called with the namespace's
// lock held: they must not use the namespace.
type Source interface {
	// Self is the caller's process and thread; 0 if it has none.
	Self(c *vfs.Context) (pid, tid int32)
	// Processes lists the processes, ascending.
	Processes() []int32
	// Process describes a process; nil if there is none.
	Process(pid int32) *Process
	// System describes the machine now.
	System() System
	// PathOf returns the path of d as c sees it, with " (deleted)" where it
	// has been removed. It is called without the namespace's lock.
	PathOf(c *vfs.Context, d *vfs.Dentry) string
}

// Process is a process at the moment it was asked for. The functions compute
// what costs more; they may be called later, without any lock held, and answer
// unix.ESRCH when the process has gone.
type Process struct {
	PID, PPID, PGID, SID int32
	Comm                 string
	State                byte // R, S, D, Z, T
	Creds                *vfs.Creds
	Umask                uint32
	Threads              []Thread
	Start                time.Time
	UserTime, SystemTime time.Duration
	// VirtualSize and ResidentSize are in bytes.
	VirtualSize, ResidentSize uint64
	Limits                    [16]unix.Rlimit // by RLIMIT_* number
	Signals                   Signals
	MinorFaults               uint64
	ReadBytes, WriteBytes     uint64

	Exe, Cwd, Root         *vfs.Dentry
	Cmdline, Environ, Auxv func() ([]byte, error)
	Maps                   func() ([]Mapping, error)
	FDs                    func() []int
	FD                     func(fd int) (FD, bool)
	OOMScoreAdj            func() int
	SetOOMScoreAdj         func(int) error
	SetComm                func(tid int32, name string) error
}

// Thread is a thread of a process.
type Thread struct {
	TID   int32
	Comm  string
	State byte
	// Blocked and Pending are signal sets, bit signo-1.
	Blocked, Pending uint64
}

// Signals are the signal sets of a process, bit signo-1.
type Signals struct {
	Pending, Ignored, Caught uint64
	Queued, Limit            uint64
}

// FD is an open descriptor.
type FD struct {
	// Entry is the name that it was opened by; nil for a pipe, socket or the
	// like, which Label names ("pipe:[12]").
	Entry    *vfs.Dentry
	Label    string
	Flags    uint32       // status flags, with O_CLOEXEC
	Position func() int64 // nil: it has none
	// Reopen opens the file again, for open(2) of /proc/self/fd/N where Entry
	// is nil; nil: ENXIO.
	Reopen func(flags uint32) (vfs.File, error)
	Stat   func() (unix.Stat_t, error)
	Extra  string // more lines of fdinfo
}

// Mapping is a line of /proc/PID/maps.
type Mapping struct {
	Start, End uint64
	Prot       int // PROT_*
	Shared     bool
	Offset     uint64
	Dev, Ino   uint64
	Name       string // path, "[heap]", "[stack]", "[vdso]" or empty
}

// Mount is a line of /proc/PID/mountinfo.
type Mount struct {
	ID, Parent int
	Path       string
	Root       *vfs.Dentry
}

// System is the machine.
type System struct {
	Release, Hostname    string
	CPUInfo              []byte // of one processor
	Boot                 time.Time
	MemTotal, MemUsed    uint64 // bytes
	FileMemory           uint64 // bytes of MemUsed that are file content
	UserTime, SystemTime time.Duration
	IdleTime             time.Duration
	ContextSwitches      uint64
	Forks                uint64
	Runnable, Threads    int
	LastPID              int32
	Mounts               []Mount
	NoFile               uint64
	UUID                 func() string // a new random UUID
	BootID               string
	Interfaces           []Interface
	SetHostname          func(string) error
}

// Interface is a line of /proc/net/dev.
type Interface struct {
	Name                                   string
	RxBytes, RxPackets, TxBytes, TxPackets uint64
}

// clockTick is USER_HZ: times in /proc are in 1/100 s.
const clockTick = 100

func ticks(d time.Duration) int64 { return int64(d / (time.Second / clockTick)) }

type fs struct {
	pseudo.FS
	src Source
}

// New makes the file system.
func New(dev uint64, src Source) *vfs.Dentry {
	f := &fs{src: src}
	f.Dev, f.Boot = dev, src.System().Boot
	f.Info = vfs.FSInfo{Type: unix.PROC_SUPER_MAGIC, Name: "proc", BlockSize: 4096, Source: "proc", Options: "rw,nosuid,nodev,noexec,relatime"}
	return vfs.NewDentry(nil, "", f.root())
}

func (f *fs) root() vfs.Inode {
	fixed := map[string]vfs.Inode{
		"self": f.link("self", 0o777, func(c *vfs.Context) (string, error) {
			if pid, _ := f.src.Self(c); pid != 0 {
				return strconv.Itoa(int(pid)), nil
			}
			return "", unix.ENOENT
		}),
		"thread-self": f.link("thread-self", 0o777, func(c *vfs.Context) (string, error) {
			if pid, tid := f.src.Self(c); pid != 0 {
				return strconv.Itoa(int(pid)) + "/task/" + strconv.Itoa(int(tid)), nil
			}
			return "", unix.ENOENT
		}),
		"mounts": f.text("mounts", "self/mounts"),
		"net":    f.text("net", "self/net"),
		"sys":    f.sysctl(),
	}
	f.system(fixed)
	find, list := pseudo.Static(fixed)
	d := &pseudo.Dir{Node: f.node("/", 0o555)}
	d.Find = func(c *vfs.Context, name string) vfs.Inode {
		if i := find(c, name); i != nil {
			return i
		}
		pid, ok := number(name)
		if !ok || f.src.Process(pid) == nil {
			return nil
		}
		return f.process(pid)
	}
	d.List = func(c *vfs.Context) ([]string, error) {
		var names []string
		for _, pid := range f.src.Processes() {
			names = append(names, strconv.Itoa(int(pid)))
		}
		fixedNames, err := list(c)
		return append(names, fixedNames...), err
	}
	return d
}

// number reads a process, thread or descriptor number as the kernel does:
// decimal digits without a leading zero.
func number(s string) (int32, bool) {
	if s == "" || s[0] < '0' || s[0] > '9' || s[0] == '0' && len(s) > 1 {
		return 0, false
	}
	n, err := strconv.ParseInt(s, 10, 32)
	return int32(n), err == nil
}

func (f *fs) node(path string, perm uint32) pseudo.Node {
	return pseudo.Node{FS: &f.FS, Path: path, Perm: perm}
}

func (f *fs) link(path string, perm uint32, text func(*vfs.Context) (string, error)) *pseudo.Link {
	return &pseudo.Link{Node: f.node(path, perm), Text: text}
}

func (f *fs) text(path, target string) *pseudo.Link {
	return f.link(path, 0o777, func(*vfs.Context) (string, error) { return target, nil })
}

func (f *fs) file(path string, perm uint32, get func() ([]byte, error)) *pseudo.File {
	return &pseudo.File{Node: f.node(path, perm), Get: get}
}

// dir makes a directory with fixed entries.
func (f *fs) dir(path string, entries map[string]vfs.Inode) *pseudo.Dir {
	d := &pseudo.Dir{Node: f.node(path, 0o555)}
	d.Find, d.List = pseudo.Static(entries)
	return d
}
