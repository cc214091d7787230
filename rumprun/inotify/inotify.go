// Package inotify is inotify(7): descriptors from which a program reads what
// happens to files. It may import vfs and gVisor's waiter. The type at its
// heart is Instance; Space makes them.
package inotify

import (
	"encoding/binary"
	"sync"
	"sync/atomic"

	"golang.org/x/sys/unix"

	"gvisor.dev/gvisor/pkg/waiter"

	"github.com/nabla-build/nabla-build/rumprun/vfs"
)

// The limits of /proc/sys/fs/inotify. They hold for all users together.
const (
	MaxQueuedEvents = 16384
	MaxInstances    = 128
	MaxWatches      = 65536
)

const (
	headerSize = 16 // struct inotify_event without the name
	// known are the bits that inotify_add_watch(2) takes.
	known = unix.IN_ALL_EVENTS | unix.IN_UNMOUNT | unix.IN_Q_OVERFLOW | unix.IN_IGNORED | unix.IN_ONLYDIR |
		unix.IN_DONT_FOLLOW | unix.IN_EXCL_UNLINK | unix.IN_MASK_ADD | unix.IN_MASK_CREATE | unix.IN_ISDIR | unix.IN_ONESHOT
)

// Space is what the instances of one kernel share. The zero Space is ready to
// use.
type Space struct {
	instances atomic.Int32
	watches   atomic.Int32
}

// Instance is the file of inotify_init1(2).
type Instance struct {
	vfs.Base
	space *Space
	ns    *vfs.Namespace
	ino   uint64
	queue waiter.Queue

	setup sync.Mutex // held while watches are made or taken away; before the Namespace's lock

	mu      sync.Mutex // after the Namespace's lock
	watches map[int32]*watch
	last    int32 // the last watch descriptor given out
	events  []event
	size    int // of the events, in bytes
	over    bool
}

type event struct {
	wd           int32
	mask, cookie uint32
	name         string
}

func (e *event) size() int {
	if e.name == "" {
		return headerSize
	}
	return headerSize + (len(e.name)+1+headerSize-1)/headerSize*headerSize
}

// watch is a watch descriptor: a vfs.Mark.
type watch struct {
	i    *Instance
	wd   int32
	at   *vfs.Dentry
	key  [2]uint64 // device and inode
	mask uint32
}

// New makes an instance that watches files of ns; flags are its status flags.
// EMFILE if there are too many.
func (s *Space) New(ns *vfs.Namespace, ino uint64, flags uint32) (*Instance, error) {
	if s.instances.Add(1) > MaxInstances {
		s.instances.Add(-1)
		return nil, unix.EMFILE
	}
	i := &Instance{space: s, ns: ns, ino: ino, watches: map[int32]*watch{}}
	i.SetStatusFlags(unix.O_RDONLY | flags)
	return i, nil
}

// CheckMask says whether inotify_add_watch(2) takes mask: EINVAL.
func CheckMask(mask uint32) error {
	if mask == 0 || mask&^known != 0 || mask&(unix.IN_MASK_ADD|unix.IN_MASK_CREATE) == unix.IN_MASK_ADD|unix.IN_MASK_CREATE {
		return unix.EINVAL
	}
	return nil
}

// Add watches what d names, or changes the watch that is there, and returns
// the watch descriptor. The caller has checked mask and permissions.
func (i *Instance) Add(d *vfs.Dentry, mask uint32) (int32, error) {
	a := d.Inode().Attr()
	key := [2]uint64{a.Dev, a.Ino}
	keep := mask & (unix.IN_ALL_EVENTS | unix.IN_EXCL_UNLINK | unix.IN_ONESHOT)
	i.setup.Lock()
	defer i.setup.Unlock()
	i.mu.Lock()
	for _, w := range i.watches {
		if w.key == key {
			defer i.mu.Unlock()
			if mask&unix.IN_MASK_CREATE != 0 {
				return 0, unix.EEXIST
			}
			if mask&unix.IN_MASK_ADD != 0 {
				keep |= w.mask
			}
			w.mask = keep
			return w.wd, nil
		}
	}
	i.last++
	w := &watch{i: i, wd: i.last, at: d, key: key, mask: keep}
	i.watches[w.wd] = w
	i.mu.Unlock()
	err := error(unix.ENOSPC)
	if i.space.watches.Add(1) <= MaxWatches {
		err = i.ns.AddMark(d, w)
	}
	if err != nil {
		i.mu.Lock()
		i.forget(w)
		i.mu.Unlock()
		return 0, err
	}
	return w.wd, nil
}

// Remove is inotify_rm_watch(2).
func (i *Instance) Remove(wd int32) error {
	i.setup.Lock()
	defer i.setup.Unlock()
	i.mu.Lock()
	w := i.watches[wd]
	i.mu.Unlock()
	if w == nil {
		return unix.EINVAL
	}
	i.ns.RemoveMark(w.at, w)
	i.mu.Lock()
	if i.watches[wd] == w {
		i.forget(w)
		i.put(event{wd: wd, mask: unix.IN_IGNORED})
	}
	i.mu.Unlock()
	i.queue.Notify(waiter.ReadableEvents)
	return nil
}

// forget drops w from the table, mu held.
func (i *Instance) forget(w *watch) {
	delete(i.watches, w.wd)
	i.space.watches.Add(-1)
}

// put queues an event, mu held. One that is as the last in the queue is not
// queued again; beyond the limit one IN_Q_OVERFLOW says that events are lost.
func (i *Instance) put(e event) {
	if n := len(i.events); n > 0 && e.mask != unix.IN_IGNORED {
		l := &i.events[n-1]
		if l.wd == e.wd && l.mask == e.mask && l.name == e.name {
			return
		}
	}
	if len(i.events) >= MaxQueuedEvents {
		if i.over {
			return
		}
		i.over = true
		e = event{wd: -1, mask: unix.IN_Q_OVERFLOW}
	}
	i.events = append(i.events, e)
	i.size += e.size()
}

// Event implements vfs.Mark.
func (w *watch) Event(mask, cookie uint32, name string, unlinked bool) (queued, over bool) {
	i := w.i
	i.mu.Lock()
	defer i.mu.Unlock()
	if i.watches[w.wd] != w || mask&w.mask&unix.IN_ALL_EVENTS == 0 || unlinked && w.mask&unix.IN_EXCL_UNLINK != 0 {
		return false, false
	}
	if mask&(unix.IN_MOVE_SELF|unix.IN_DELETE_SELF) != 0 {
		mask &^= unix.IN_ISDIR
	}
	i.put(event{w.wd, mask, cookie, name})
	if w.mask&unix.IN_ONESHOT != 0 {
		i.forget(w)
		i.put(event{wd: w.wd, mask: unix.IN_IGNORED})
		return true, true
	}
	return true, false
}

// Gone implements vfs.Mark.
func (w *watch) Gone() {
	i := w.i
	i.mu.Lock()
	defer i.mu.Unlock()
	if i.watches[w.wd] == w {
		i.forget(w)
		i.put(event{wd: w.wd, mask: unix.IN_IGNORED})
	}
}

// Wake implements vfs.Mark.
func (w *watch) Wake() { w.i.queue.Notify(waiter.ReadableEvents) }

// Read takes as many whole events as p has room for: EINVAL if not even the
// first fits.
func (i *Instance) Read(p []byte) (int, error) {
	i.mu.Lock()
	defer i.mu.Unlock()
	if len(i.events) == 0 {
		return 0, unix.EAGAIN
	}
	n, k := 0, 0
	for ; k < len(i.events); k++ {
		e := &i.events[k]
		size := e.size()
		if size > len(p)-n {
			break
		}
		b := p[n : n+size]
		binary.LittleEndian.PutUint32(b, uint32(e.wd))
		binary.LittleEndian.PutUint32(b[4:], e.mask)
		binary.LittleEndian.PutUint32(b[8:], e.cookie)
		binary.LittleEndian.PutUint32(b[12:], uint32(size-headerSize))
		clear(b[headerSize:])
		copy(b[headerSize:], e.name)
		if e.mask == unix.IN_Q_OVERFLOW {
			i.over = false
		}
		n += size
	}
	if k == 0 {
		return 0, unix.EINVAL
	}
	if i.events = i.events[k:]; len(i.events) == 0 {
		i.events = nil
	}
	i.size -= n
	return n, nil
}

// Write is EBADF: the description is open for reading.
func (i *Instance) Write([]byte) (int, error) { return 0, unix.EBADF }

// Readiness implements waiter.Waitable.
func (i *Instance) Readiness(mask waiter.EventMask) waiter.EventMask {
	i.mu.Lock()
	defer i.mu.Unlock()
	if len(i.events) > 0 {
		return mask & waiter.ReadableEvents
	}
	return 0
}

func (i *Instance) EventRegister(e *waiter.Entry) error {
	i.queue.EventRegister(e)
	return nil
}
func (i *Instance) EventUnregister(e *waiter.Entry) { i.queue.EventUnregister(e) }

// Ioctl knows FIONREAD.
func (i *Instance) Ioctl(m vfs.UserMemory, req uint32, arg uintptr) (uintptr, error) {
	if req != unix.TIOCINQ {
		return 0, unix.ENOTTY
	}
	i.mu.Lock()
	n := i.size
	i.mu.Unlock()
	return 0, m.CopyOut(arg, binary.LittleEndian.AppendUint32(nil, uint32(n)))
}

// Stat shows an anonymous inode.
func (i *Instance) Stat() (unix.Stat_t, error) {
	return unix.Stat_t{Dev: 0xe, Ino: i.ino, Nlink: 1, Mode: 0o600, Blksize: 4096}, nil
}

// Label is what readlink of /proc/PID/fd/N shows.
func (*Instance) Label() string { return "anon_inode:inotify" }

// Release ends all watches.
func (i *Instance) Release() {
	i.setup.Lock()
	defer i.setup.Unlock()
	i.mu.Lock()
	var all []*watch
	for _, w := range i.watches {
		all = append(all, w)
		i.forget(w)
	}
	i.mu.Unlock()
	for _, w := range all {
		i.ns.RemoveMark(w.at, w)
	}
	i.space.instances.Add(-1)
}
