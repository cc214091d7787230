package rumprun

import (
	"fmt"
	"time"

	"golang.org/x/sys/unix"

	"gvisor.dev/gvisor/pkg/log"
	"gvisor.dev/gvisor/pkg/waiter"

	"github.com/nabla-build/nabla-build/rumprun/inet"
	"github.com/nabla-build/nabla-build/rumprun/netlink"
	"github.com/nabla-build/nabla-build/rumprun/socket"
	"github.com/nabla-build/nabla-build/rumprun/unixsock"
	"github.com/nabla-build/nabla-build/rumprun/vfs"
)

// network is the kernel's sockets.
type network struct {
	inet *inet.Stack
	unix *unixsock.Space
	link *netlink.Space
}

// stackLog takes netstack's log. Its own emitter would format the time, for
// which Go reads /etc/localtime, and write to the host's standard error: host
// calls that end the container after lockdown.
type stackLog struct{ k *Kernel }

// Emit implements log.Emitter.
func (l stackLog) Emit(_ int, _ log.Level, _ time.Time, format string, v ...any) {
	if l.k.cfg.Debug {
		l.k.logf("nabla: network stack: "+format, v...)
	}
}

// bootNetwork makes the network stack that the configuration describes.
func (k *Kernel) bootNetwork() error {
	log.SetTarget(stackLog{k})
	cfg := inet.Config{Routes: k.cfg.Routes, Random: k.files.entropy, NextIno: k.events.NextIno}
	for _, n := range k.cfg.NICs {
		cfg.NICs = append(cfg.NICs, inet.NIC{Name: n.Name, Link: n.Link, Addresses: n.Addresses})
	}
	s, err := inet.New(cfg)
	if err != nil {
		return fmt.Errorf("make the network stack: %w", err)
	}
	k.net = network{
		inet: s,
		unix: unixsock.New(k.events.NextIno, s.InterfaceIoctl),
		link: netlink.New(s, k.events.NextIno),
	}
	return nil
}

// Credentials, MayClaim, BindPath and LookupPath implement socket.Caller.
func (t *Task) Credentials() socket.Credentials {
	c := t.p.fs.creds.Load()
	return socket.Credentials{PID: t.p.pid, UID: c.EUID, GID: c.EGID}
}

func (t *Task) MayClaim(cr socket.Credentials) bool {
	c := t.p.fs.creds.Load()
	if c.EUID == 0 {
		return true
	}
	return cr.PID == t.p.pid && (cr.UID == c.UID || cr.UID == c.EUID || cr.UID == c.SUID) &&
		(cr.GID == c.GID || cr.GID == c.EGID || cr.GID == c.SGID)
}

func (t *Task) BindPath(path string, object any) error {
	c := t.vfsContext()
	mode := unix.S_IFSOCK | 0o777&^t.p.fs.umask.Load()
	d, err := t.p.fs.ns.Mknod(c, c.Cwd, path, mode, 0)
	if err == unix.EEXIST {
		return unix.EADDRINUSE
	}
	if err != nil {
		return err
	}
	a, ok := d.Inode().(vfs.Attachment)
	if !ok {
		return unix.EPERM
	}
	a.SetObject(object)
	return nil
}

func (t *Task) LookupPath(path string) (any, error) {
	c := t.vfsContext()
	d, err := t.p.fs.ns.Lookup(c, c.Cwd, path, true, 0)
	if err != nil {
		return nil, err
	}
	at := d.Inode().Attr()
	if err := c.Creds.Check(&at, vfs.MayWrite); err != nil {
		return nil, err
	}
	a, ok := d.Inode().(vfs.Attachment)
	if !ok || at.Type() != unix.S_IFSOCK || a.Object() == nil {
		return nil, unix.ECONNREFUSED
	}
	return a.Object(), nil
}

// socketDeadline is when a wait on f ends for SO_RCVTIMEO or SO_SNDTIMEO; zero
// for what has none.
func socketDeadline(f vfs.File, mask waiter.EventMask) time.Time {
	s, ok := f.(socket.Socket)
	if !ok {
		return time.Time{}
	}
	d := s.Common().RecvTimeout()
	if mask&waiter.WritableEvents != 0 {
		d = s.Common().SendTimeout()
	}
	if d == 0 {
		return time.Time{}
	}
	return deadlineIn(d)
}
