package vfs

import (
	"slices"
	"sync/atomic"

	"golang.org/x/sys/unix"
)

// Mark is a watch on an inode: inotify(7) makes them. The Namespace's lock is
// held when its methods but Wake are called: they must not call it back, nor
// wait.
type Mark interface {
	// Event says that what mask names (IN_* bits, one event) has happened to
	// the inode, or to the entry name of the directory that it is. unlinked
	// says that the entry has been removed already. The result over ends the
	// mark; queued asks for a call of Wake.
	Event(mask, cookie uint32, name string, unlinked bool) (queued, over bool)
	// Gone says that the inode has gone, and the mark with it.
	Gone()
	// Wake is called without locks after Event or Gone.
	Wake()
}

// inodeKey names an inode; the Inode value may be another at each look-up.
type inodeKey struct{ dev, ino uint64 }

func keyOf(i Inode) inodeKey {
	a := i.Attr()
	return inodeKey{a.Dev, a.Ino}
}

// marks are the watches in a Namespace, protected by its lock.
type marks struct {
	any    atomic.Int64 // how many there are: events cost nothing while it is 0
	on     map[inodeKey][]Mark
	cookie uint32
	wake   []Mark
}

// unlock releases n.mu and wakes the readers of what was queued meanwhile.
func (n *Namespace) unlock() {
	wake := n.marks.wake
	n.marks.wake = nil
	n.mu.Unlock()
	for _, m := range wake {
		m.Wake()
	}
}

// AddMark puts a mark on d's inode; ENOENT if d has been removed meanwhile.
func (n *Namespace) AddMark(d *Dentry, m Mark) error {
	n.mu.Lock()
	defer n.mu.Unlock()
	if d.dead && !d.detached() && d.opens.Load() == 0 {
		return unix.ENOENT
	}
	if n.marks.on == nil {
		n.marks.on = map[inodeKey][]Mark{}
	}
	k := keyOf(d.inode)
	n.marks.on[k] = append(n.marks.on[k], m)
	n.marks.any.Add(1)
	return nil
}

// RemoveMark takes a mark away; no Event is called when it has returned.
func (n *Namespace) RemoveMark(d *Dentry, m Mark) {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.dropMark(keyOf(d.inode), m)
}

func (n *Namespace) dropMark(k inodeKey, m Mark) {
	l := n.marks.on[k]
	i := slices.Index(l, m)
	if i < 0 {
		return
	}
	n.marks.any.Add(-1)
	if len(l) == 1 {
		delete(n.marks.on, k)
		return
	}
	n.marks.on[k] = slices.Delete(slices.Clone(l), i, i+1)
}

// tell calls the marks on inode i, n.mu held.
func (n *Namespace) tell(i Inode, mask, cookie uint32, name string, unlinked bool) {
	k := keyOf(i)
	for _, m := range n.marks.on[k] {
		queued, over := m.Event(mask, cookie, name, unlinked)
		if queued {
			n.marks.wake = append(n.marks.wake, m)
		}
		if over {
			n.dropMark(k, m)
		}
	}
}

// watched reports whether there is any mark.
func (n *Namespace) watched() bool { return n.marks.any.Load() != 0 }

func isDirBit(i Inode) uint32 {
	if a := i.Attr(); a.IsDir() {
		return unix.IN_ISDIR
	}
	return 0
}

// happened tells the marks on d's directory and on d of event mask, n.mu held
// (fsnotify_parent of the kernel's fs/notify).
func (n *Namespace) happened(d *Dentry, mask uint32) {
	if !n.watched() {
		return
	}
	unlinked := d.dead && mask&(unix.IN_ACCESS|unix.IN_MODIFY|unix.IN_OPEN|unix.IN_CLOSE) != 0
	mask |= isDirBit(d.inode)
	if d.parent != nil {
		n.tell(d.parent.inode, mask, 0, d.name, unlinked)
	}
	n.tell(d.inode, mask, 0, "", unlinked)
}

// Notify tells the marks of an event on d: IN_ATTRIB, IN_MODIFY, IN_ACCESS.
func (n *Namespace) Notify(d *Dentry, mask uint32) {
	if d == nil || !n.watched() {
		return
	}
	n.mu.Lock()
	n.happened(d, mask)
	n.unlock()
}

// made tells the marks on dir that entry name, which is i, has been made.
func (n *Namespace) made(dir *Dentry, name string, i Inode) {
	if n.watched() {
		n.tell(dir.inode, unix.IN_CREATE|isDirBit(i), 0, name, false)
	}
}

// linkCount tells the marks on i that its number of links has changed.
func (n *Namespace) linkCount(i Inode) { n.tell(i, unix.IN_ATTRIB, 0, "", false) }

// removed tells of the removal of d from dir (d_delete_notify of the kernel).
func (n *Namespace) removed(dir, d *Dentry) {
	if !n.watched() {
		return
	}
	bit := isDirBit(d.inode)
	if bit == 0 {
		n.linkCount(d.inode)
	}
	n.gone(d)
	n.tell(dir.inode, unix.IN_DELETE|bit, 0, d.name, false)
}

// gone ends the marks on d's inode if d was its last name and is not open any
// more.
func (n *Namespace) gone(d *Dentry) {
	a := d.inode.Attr()
	if !d.dead || d.opens.Load() > 0 || a.Nlink > 0 && !a.IsDir() {
		return
	}
	n.tell(d.inode, unix.IN_DELETE_SELF, 0, "", false)
	k := inodeKey{a.Dev, a.Ino}
	for _, m := range n.marks.on[k] {
		m.Gone()
		n.marks.wake = append(n.marks.wake, m)
		n.marks.any.Add(-1)
	}
	delete(n.marks.on, k)
}

// moved tells of the rename of d, which was oldName of oldDir, over target if
// that is not nil (fsnotify_move of the kernel).
func (n *Namespace) moved(oldDir *Dentry, oldName string, d, target *Dentry) {
	n.marks.cookie++
	bit := isDirBit(d.inode)
	n.tell(oldDir.inode, unix.IN_MOVED_FROM|bit, n.marks.cookie, oldName, false)
	n.tell(d.parent.inode, unix.IN_MOVED_TO|bit, n.marks.cookie, d.name, false)
	if target != nil {
		n.linkCount(target.inode)
	}
	n.tell(d.inode, unix.IN_MOVE_SELF, 0, "", false)
	if target != nil {
		n.gone(target)
	}
}

// Tracked is embedded by files whose use marks are told of. Open calls track
// once, before anybody else has the file.
type Tracked struct {
	ns *Namespace
	at *Dentry
}

func (t *Tracked) track(n *Namespace, d *Dentry) {
	t.ns, t.at = n, d
	d.opens.Add(1)
}

type tracker interface{ track(*Namespace, *Dentry) }

// Accessed and Modified tell that the file has been read and written. The
// caller holds no lock of its own.
func (t *Tracked) Accessed() { t.tell(unix.IN_ACCESS) }
func (t *Tracked) Modified() { t.tell(unix.IN_MODIFY) }

func (t *Tracked) tell(mask uint32) {
	if t.ns != nil {
		t.ns.Notify(t.at, mask)
	}
}

// Closed tells that the description with status flags flags has gone; the file
// has let go of its inode already.
func (t *Tracked) Closed(flags uint32) {
	n, d := t.ns, t.at
	if n == nil {
		return
	}
	if !n.watched() {
		d.opens.Add(-1)
		return
	}
	n.mu.Lock()
	if flags&unix.O_PATH == 0 {
		mask := uint32(unix.IN_CLOSE_NOWRITE)
		if flags&unix.O_ACCMODE != unix.O_RDONLY {
			mask = unix.IN_CLOSE_WRITE
		}
		n.happened(d, mask)
	}
	if d.opens.Add(-1) == 0 {
		n.gone(d)
	}
	n.unlock()
}
