package rumprun

import (
	"debug/elf"
	"encoding/hex"
	"fmt"
	"maps"
	"slices"
	"unsafe"

	"golang.org/x/sys/unix"

	"gvisor.dev/gvisor/pkg/abi/linux"

	"github.com/nabla-build/nabla-build/rumprun/vfs"
	"github.com/nabla-build/nabla-build/rumprun/vfs/procfs"
)

// procSource tells /proc of the kernel.
type procSource struct{ k *Kernel }

func (s procSource) Self(c *vfs.Context) (pid, tid int32) {
	if t, ok := c.Caller.(*Task); ok {
		return t.p.pid, t.tid
	}
	return 0, 0
}

func (s procSource) Processes() []int32 {
	s.k.mu.Lock()
	defer s.k.mu.Unlock()
	return slices.Sorted(maps.Keys(s.k.procs))
}

func (s procSource) PathOf(c *vfs.Context, d *vfs.Dentry) string {
	path, reachable, deleted := s.k.files.ns.Path(c, d)
	if !reachable {
		path = "(unreachable)" + path
	}
	if deleted {
		path += " (deleted)"
	}
	return path
}

func (s procSource) Process(pid int32) *procfs.Process {
	p := s.k.process(pid)
	if p == nil {
		return nil
	}
	out := &procfs.Process{
		PID: pid, Comm: p.name(), State: 'S', Creds: p.fs.creds.Load(), Umask: p.fs.umask.Load(),
		Start: s.k.files.boot.Add(p.start - s.k.bootTime), UserTime: p.cpuTime(),
		FDs: p.fds.Open, FD: p.procFD, Maps: p.procMaps,
		VirtualSize: p.as.Size(), ResidentSize: p.as.Resident(),
		Signals: p.procSignals(),
		Cmdline: p.readBack(func(i *programInfo) (uintptr, uintptr) { return i.argStart, i.argEnd }),
		Environ: p.readBack(func(i *programInfo) (uintptr, uintptr) { return i.envStart, i.envEnd }),
		Auxv:    p.readBack(func(i *programInfo) (uintptr, uintptr) { return i.auxvStart, i.auxvEnd }),
		SetComm: func(tid int32, name string) error {
			t := s.k.task(tid)
			if t == nil || t.p != p {
				return unix.ESRCH
			}
			t.setName(name)
			return nil
		},
	}
	p.mu.Lock()
	out.Exe = p.program.exe
	p.mu.Unlock()
	for _, t := range p.threads() {
		st := byte('S')
		if !t.waiting.Load() {
			st, out.State = 'R', 'R'
		}
		out.Threads = append(out.Threads, procfs.Thread{TID: t.tid, Comm: t.name(), State: st, Blocked: uint64(t.mask()), Pending: uint64(t.sigs.pending())})
	}
	for i := range out.Limits {
		l := p.limits.get(i)
		out.Limits[i] = unix.Rlimit{Cur: l.Cur, Max: l.Max}
	}
	if p.job.stopping.Load() {
		out.State = 'T'
		for i := range out.Threads {
			out.Threads[i].State = 'T'
		}
	}
	if p.ended() {
		out.State = 'Z'
	}
	s.k.mu.Lock()
	out.PGID, out.SID = p.pgid, p.sid
	if p.parent != nil {
		out.PPID = p.parent.pid
	}
	s.k.mu.Unlock()
	p.fs.mu.Lock()
	out.Cwd, out.Root = p.fs.cwd, p.fs.root
	p.fs.mu.Unlock()
	return out
}

// procSignals are the process's signal sets for /proc/PID/status.
func (p *Process) procSignals() procfs.Signals {
	out := procfs.Signals{Pending: uint64(p.sigs.pending()), Limit: maxQueuedSignals}
	for n := 1; n <= linux.SignalMaximum; n++ {
		switch p.sighand.get(n).Handler {
		case linux.SIG_DFL:
		case linux.SIG_IGN:
			out.Ignored |= uint64(sigBit(n))
		default:
			out.Caught |= uint64(sigBit(n))
		}
	}
	return out
}

// readBack returns a reader of a part of the program's initial stack: the
// program may have changed it since (setproctitle).
func (p *Process) readBack(where func(*programInfo) (start, end uintptr)) func() ([]byte, error) {
	return func() ([]byte, error) {
		p.mu.Lock()
		lo, hi := where(&p.program)
		p.mu.Unlock()
		b, err := p.as.Bytes(lo, int(hi-lo), false)
		return slices.Clone(b), err
	}
}

// procMaps lists the mappings for /proc/PID/maps.
func (p *Process) procMaps() ([]procfs.Mapping, error) {
	var out []procfs.Mapping
	for v := range p.as.VMAs() {
		out = append(out, procfs.Mapping{
			Start: uint64(v.Start), End: uint64(v.End), Prot: v.Prot, Shared: v.Shared,
			Offset: uint64(v.Offset), Dev: v.Dev, Ino: v.Ino, Name: v.Name,
		})
	}
	if start := uint64(p.k.cfg.VDSO); start != 0 {
		m := procfs.Mapping{Start: start, End: start + vdsoSize(p.k.cfg.VDSO), Prot: unix.PROT_READ | unix.PROT_EXEC, Name: "[vdso]"}
		i := slices.IndexFunc(out, func(o procfs.Mapping) bool { return o.Start > m.Start })
		if i < 0 {
			i = len(out)
		}
		out = slices.Insert(out, i, m)
	}
	return out, nil
}

// vdsoSize is the size in memory of the vDSO, an ELF object that the kernel
// mapped, at addr: its PT_LOAD segments end there, rounded up to a page.
func vdsoSize(addr uintptr) uint64 {
	h := (*elf.Header64)(unsafe.Pointer(addr))
	end := uint64(0)
	for i := range uintptr(h.Phnum) {
		p := (*elf.Prog64)(unsafe.Pointer(addr + uintptr(h.Phoff) + i*unsafe.Sizeof(elf.Prog64{})))
		if p.Type == uint32(elf.PT_LOAD) {
			end = max(end, p.Vaddr+p.Memsz)
		}
	}
	return (end + 4095) &^ 4095
}

// procFD describes descriptor fd for /proc/PID/fd.
func (p *Process) procFD(fd int) (procfs.FD, bool) {
	d, err := p.fds.Get(fd)
	if err != nil {
		return procfs.FD{}, false
	}
	// The Namespace's lock may be held: the description is not released here.
	defer d.dropLater()
	o := procfs.FD{Entry: d.entry, Flags: d.StatusFlags(), Stat: d.Stat, Position: func() int64 {
		// Not before it is asked for: a directory's position is protected by
		// a lock that is taken before the Namespace's.
		pos, err := d.Seek(0, unix.SEEK_CUR)
		if err != nil {
			return 0
		}
		return pos
	}}
	if on, _ := p.fds.CloExec(fd); on {
		o.Flags |= unix.O_CLOEXEC
	}
	if d.entry != nil {
		return o, true
	}
	o.Label = label(d.File)
	o.Reopen = func(flags uint32) (vfs.File, error) {
		// The descriptor may name something else by now, or nothing.
		now, err := p.fds.Get(fd)
		if err != nil || now != d {
			if err == nil {
				now.DecRef()
			}
			return nil, unix.ENOENT
		}
		return reopen(now, flags)
	}
	return o, true
}

// Labelled is a file without a name that says how /proc/PID/fd shows it:
// "anon_inode:[eventpoll]".
type Labelled interface{ Label() string }

func label(f vfs.File) string {
	if l, ok := f.(Labelled); ok {
		return l.Label()
	}
	st, err := f.Stat()
	if err != nil {
		return "anon_inode:[file]"
	}
	switch st.Mode & unix.S_IFMT {
	case unix.S_IFIFO:
		return fmt.Sprintf("pipe:[%d]", st.Ino)
	case unix.S_IFSOCK:
		return fmt.Sprintf("socket:[%d]", st.Ino)
	case unix.S_IFCHR:
		return "/dev/console"
	}
	return "anon_inode:[file]"
}

// Reopener is a file without a name that can be opened again through
// /proc/PID/fd, as a pipe can.
type Reopener interface {
	Reopen(flags uint32) (vfs.File, error)
}

// reopen opens what d is once more; it takes over the reference. Streams that
// the container was started with are shared: the new description has status
// flags of its own. Sockets are ENXIO, as on Linux.
func reopen(d *Description, flags uint32) (vfs.File, error) {
	if r, ok := d.File.(Reopener); ok {
		defer d.DecRef()
		return r.Reopen(flags)
	}
	st, err := d.Stat()
	if err != nil || st.Mode&unix.S_IFMT != unix.S_IFIFO && st.Mode&unix.S_IFMT != unix.S_IFCHR {
		d.DecRef()
		return nil, unix.ENXIO
	}
	have, want := d.StatusFlags()&unix.O_ACCMODE, flags&unix.O_ACCMODE
	if have != unix.O_RDWR && have != want {
		d.DecRef()
		return nil, unix.EACCES
	}
	return &sharedFile{File: d.File, d: d, flags: flags}, nil
}

// sharedFile is another description of a stream.
type sharedFile struct {
	vfs.File
	d     *Description
	flags uint32
}

func (f *sharedFile) StatusFlags() uint32      { return f.flags }
func (f *sharedFile) SetStatusFlags(fl uint32) { f.flags = fl }
func (f *sharedFile) Release()                 { f.d.DecRef() }

func (s procSource) System() procfs.System {
	k := s.k
	files := uint64(k.files.usage())
	sys := procfs.System{
		Release: k.cfg.Release, Hostname: k.cfg.Hostname, CPUInfo: k.cfg.CPUInfo, Boot: k.files.boot,
		MemTotal: k.cfg.MemoryLimit, MemUsed: files, FileMemory: files,
		NoFile: k.cfg.NoFile, BootID: k.files.bootID, UUID: k.uuid,
	}
	for i, m := range k.files.mounts {
		parent := firstMountID
		if i == 0 {
			parent = 1
		} else if m.parent > 0 {
			parent = firstMountID + m.parent
		}
		sys.Mounts = append(sys.Mounts, procfs.Mount{ID: firstMountID + i, Parent: parent, Path: m.path, Root: m.root})
	}
	k.mu.Lock()
	sys.Threads, sys.LastPID = len(k.tasks), k.nextTID
	sys.Forks = uint64(k.nextTID)
	var procs []*Process
	for _, p := range k.procs {
		procs = append(procs, p)
	}
	for _, t := range k.tasks {
		if !t.waiting.Load() {
			sys.Runnable++
		}
	}
	k.mu.Unlock()
	for _, p := range procs {
		sys.MemUsed += p.as.Resident()
		sys.UserTime += p.cpuTime()
	}
	sys.IdleTime = max(0, k.monotonic()-k.bootTime-sys.UserTime)
	return sys
}

// uuid makes a random UUID (RFC 9562, version 4).
func (k *Kernel) uuid() string {
	var b [16]byte
	k.files.entropy.Read(b[:])
	b[6], b[8] = b[6]&0x0f|0x40, b[8]&0x3f|0x80
	h := hex.EncodeToString(b[:])
	return h[:8] + "-" + h[8:12] + "-" + h[12:16] + "-" + h[16:20] + "-" + h[20:]
}
