package rumprun

import (
	"golang.org/x/sys/unix"

	"gvisor.dev/gvisor/pkg/abi/linux"

	"github.com/nabla-build/nabla-build/rumprun/tty"
	"github.com/nabla-build/nabla-build/rumprun/vfs"
)

// openMultiplexer opens /dev/ptmx: the master of a new pseudo terminal.
func (k *Kernel) openMultiplexer(c *vfs.Context, d *vfs.Dentry, flags uint32) (vfs.File, error) {
	return k.tty.OpenMaster(c, d, flags)
}

// openTerminal opens the caller's controlling terminal, /dev/tty: a pseudo
// terminal, or the container's own, where it has one.
func (k *Kernel) openTerminal(c *vfs.Context, flags uint32) (vfs.File, error) {
	if p, ok := c.Caller.(tty.Caller); ok {
		if t := k.tty.Controlling(p.Session()); t != nil {
			return t.OpenSlave(flags)
		}
	}
	for _, f := range k.cfg.Stdio {
		if f == nil {
			continue
		}
		if st, err := f.Stat(); err == nil && st.Mode&unix.S_IFMT == unix.S_IFCHR && st.Rdev>>8 != 1 {
			d := NewDescription(keepOpen{f})
			return &sharedFile{File: f, d: d, flags: flags}, nil
		}
	}
	return nil, unix.ENXIO
}

// keepOpen is a file that outlives its descriptions.
type keepOpen struct{ vfs.File }

func (keepOpen) Release() {}

// signalGroup sends a signal that a terminal causes to process group pgid.
func (k *Kernel) signalGroup(pgid int32, sig unix.Signal) {
	for _, p := range k.processes() {
		if p.group() == pgid {
			p.signal(nil, linux.SignalInfo{Signo: int32(sig), Code: linux.SI_KERNEL})
		}
	}
}

// signalLeader sends a signal to the process that leads session sid.
func (k *Kernel) signalLeader(sid int32, sig unix.Signal) {
	if p := k.process(sid); p != nil {
		p.signal(nil, linux.SignalInfo{Signo: int32(sig), Code: linux.SI_KERNEL})
	}
}

// Session, Group, SessionLeader, GroupSession and OpenEntry implement
// tty.Caller.
func (t *Task) Session() int32      { return t.p.session() }
func (t *Task) Group() int32        { return t.p.group() }
func (t *Task) SessionLeader() bool { return t.p.session() == t.p.pid }

func (t *Task) GroupSession(pgid int32) int32 {
	for _, p := range t.k.processes() {
		if p.group() == pgid {
			return p.session()
		}
	}
	return 0
}

func (t *Task) OpenEntry(d *vfs.Dentry, flags uint32) (uintptr, error) {
	f, err := t.p.fs.ns.OpenDentry(t.vfsContext(), d, flags&openFlags)
	if err != nil {
		return 0, err
	}
	return t.install(newDescriptionAt(f, d), flags&unix.O_CLOEXEC != 0)
}
