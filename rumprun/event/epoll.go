package event

import (
	"sync"

	"golang.org/x/sys/unix"

	"gvisor.dev/gvisor/pkg/waiter"

	"github.com/nabla-build/nabla-build/rumprun/vfs"
)

// The event bits of epoll_ctl(2) that are not poll(2)'s.
const (
	epollExclusive = 1 << 28
	epollWakeup    = 1 << 29
	epollOneshot   = 1 << 30
	epollEdge      = 1 << 31
	// epollModes are the bits that are not events.
	epollModes = epollExclusive | epollWakeup | epollOneshot | epollEdge
	// exclusiveOK are the bits that EPOLLEXCLUSIVE may come with.
	exclusiveOK = unix.EPOLLIN | unix.EPOLLOUT | unix.EPOLLERR | unix.EPOLLHUP | epollWakeup | epollEdge | epollExclusive
)

// maxNesting is how deep epoll instances may be nested (EP_MAX_NESTS).
const maxNesting = 4

// Event is struct epoll_event as x86-64 has it: packed.
type Event struct {
	Events uint32
	Data   [2]uint32
}

// Target is an open file description that an epoll instance can watch.
type Target interface {
	vfs.File
	// Interests is the list of the interests in this description. Whoever ends
	// the description calls its Drop first.
	Interests() *Interests
}

// Interests lists the epoll interests in one open file description, so that
// they go away with it. The zero value is empty.
type Interests struct {
	mu   sync.Mutex
	list map[*interest]struct{}
}

// Drop ends all interests: the description is being closed for good.
func (l *Interests) Drop() {
	for {
		l.mu.Lock()
		var i *interest
		for i = range l.list {
			break
		}
		l.mu.Unlock()
		if i == nil {
			return
		}
		i.ep.mu.Lock()
		i.ep.removeLocked(i)
		i.ep.mu.Unlock()
	}
}

func (l *Interests) add(i *interest) {
	l.mu.Lock()
	if l.list == nil {
		l.list = map[*interest]struct{}{}
	}
	l.list[i] = struct{}{}
	l.mu.Unlock()
}

func (l *Interests) remove(i *interest) {
	l.mu.Lock()
	delete(l.list, i)
	l.mu.Unlock()
}

// key identifies an interest: a description under a descriptor number.
type key struct {
	fd     int
	target Target
}

// interest is one entry of an epoll instance's interest list.
type interest struct {
	waiter.Entry
	ep     *Epoll
	key    key
	events uint32 // modes included; those alone after EPOLLONESHOT fired. ep.mu
	data   [2]uint32

	// next, prev and listed belong to the ready list; ep.readyMu.
	next, prev *interest
	listed     bool
	dead       bool
}

// NotifyEvent implements waiter.EventListener: the target has become ready.
func (i *interest) NotifyEvent(waiter.EventMask) {
	ep := i.ep
	ep.readyMu.Lock()
	ok := !i.dead
	if ok && !i.listed {
		ep.pushLocked(i)
	}
	ep.readyMu.Unlock()
	if ok {
		ep.queue.Notify(waiter.ReadableEvents)
	}
}

// set takes over what epoll_ctl asks for; errors always count.
func (i *interest) set(ev Event) {
	i.events = ev.Events&(epollModes|uint32(waiter.AllEvents)) | unix.EPOLLERR | unix.EPOLLHUP
	i.data = ev.Data
	i.Entry.Init(i, i.mask())
}

// mask is what the interest waits for; nothing after EPOLLONESHOT fired.
func (i *interest) mask() waiter.EventMask { return waiter.EventMask(i.events &^ epollModes) }

// Epoll is the file of epoll_create(2). Its methods lock for themselves.
//
// Locking: Space.nesting, then Epoll.mu (an outer instance before one that is
// nested in it), then what targets lock, then readyMu. Notifications come
// under a target's queue lock and take readyMu alone.
type Epoll struct {
	anonFile
	space *Space
	ino   uint64
	queue waiter.Queue

	mu        sync.Mutex
	interests map[key]*interest

	readyMu     sync.Mutex
	first, last *interest // the ready list: what may be ready
	idle        []*Sleeper
	outer       map[*interest]struct{} // the interests of others in this instance
}

// NewEpoll is epoll_create1(2).
func (s *Space) NewEpoll() *Epoll {
	ep := &Epoll{space: s, ino: s.NextIno(), interests: map[key]*interest{}}
	ep.SetStatusFlags(unix.O_RDWR)
	return ep
}

func (ep *Epoll) pushLocked(i *interest) {
	i.listed, i.next, i.prev = true, nil, ep.last
	if ep.last != nil {
		ep.last.next = i
	} else {
		ep.first = i
	}
	ep.last = i
}

func (ep *Epoll) unlistLocked(i *interest) {
	if !i.listed {
		return
	}
	if i.prev != nil {
		i.prev.next = i.next
	} else {
		ep.first = i.next
	}
	if i.next != nil {
		i.next.prev = i.prev
	} else {
		ep.last = i.prev
	}
	i.next, i.prev, i.listed = nil, nil, false
}

func (ep *Epoll) removeLocked(i *interest) {
	if ep.interests[i.key] != i {
		return
	}
	delete(ep.interests, i.key)
	i.key.target.EventUnregister(&i.Entry)
	i.key.target.Interests().remove(i)
	ep.readyMu.Lock()
	i.dead = true
	ep.unlistLocked(i)
	ep.readyMu.Unlock()
	if inner := self(i.key.target); inner != nil {
		inner.readyMu.Lock()
		delete(inner.outer, i)
		inner.readyMu.Unlock()
	}
}

// Pollable reports whether a file can be watched: regular files and
// directories cannot (epoll_ctl(2), EPERM).
func Pollable(f vfs.File) bool {
	st, err := f.Stat()
	if err != nil {
		return true
	}
	switch st.Mode & unix.S_IFMT {
	case unix.S_IFREG, unix.S_IFDIR:
		return false
	case unix.S_IFCHR:
		switch st.Rdev {
		case unix.Mkdev(1, 3), unix.Mkdev(1, 5), unix.Mkdev(1, 7): // null, zero, full
			return false
		}
	}
	return true
}

// self returns the Epoll that a target is, nil if it is another file. A target
// is a description around its file.
func self(t Target) *Epoll {
	if u, ok := t.(interface{ Unwrap() vfs.File }); ok {
		ep, _ := u.Unwrap().(*Epoll)
		return ep
	}
	return nil
}

// Add is EPOLL_CTL_ADD: EEXIST if there is the interest, EPERM if the file
// cannot be watched, ELOOP for circles and too deep a nesting, EINVAL for ep
// itself or EPOLLEXCLUSIVE with what it cannot be combined with.
func (ep *Epoll) Add(t Target, fd int, ev Event) error {
	if !Pollable(t) {
		return unix.EPERM
	}
	inner := self(t)
	if inner == ep {
		return unix.EINVAL
	}
	if ev.Events&epollExclusive != 0 && (inner != nil || ev.Events&^uint32(exclusiveOK) != 0) {
		return unix.EINVAL
	}
	if inner != nil {
		ep.space.nesting.Lock()
		defer ep.space.nesting.Unlock()
		below, loop := inner.depth(ep, 0)
		if loop || below+ep.above(0) > maxNesting {
			return unix.ELOOP
		}
	}
	ep.mu.Lock()
	defer ep.mu.Unlock()
	k := key{fd, t}
	if ep.interests[k] != nil {
		return unix.EEXIST
	}
	i := &interest{ep: ep, key: k}
	i.set(ev)
	ep.interests[k] = i
	t.Interests().add(i)
	if err := t.EventRegister(&i.Entry); err != nil {
		delete(ep.interests, k)
		t.Interests().remove(i)
		return err
	}
	if inner != nil {
		inner.readyMu.Lock()
		if inner.outer == nil {
			inner.outer = map[*interest]struct{}{}
		}
		inner.outer[i] = struct{}{}
		inner.readyMu.Unlock()
	}
	ep.checkLocked(i)
	return nil
}

// depth is how many instances are nested below and including ep; loop reports
// that outer is one of them. Space.nesting is held.
func (ep *Epoll) depth(outer *Epoll, level int) (n int, loop bool) {
	if ep == outer || level > maxNesting {
		return 0, true
	}
	ep.mu.Lock()
	var inner []*Epoll
	for k := range ep.interests {
		if e := self(k.target); e != nil {
			inner = append(inner, e)
		}
	}
	ep.mu.Unlock()
	for _, e := range inner {
		d, l := e.depth(outer, level+1)
		if l {
			return 0, true
		}
		n = max(n, d)
	}
	return n + 1, false
}

// above is how many instances ep is nested in, one in the other. Space.nesting
// is held.
func (ep *Epoll) above(level int) int {
	if level > maxNesting {
		return level
	}
	ep.readyMu.Lock()
	var outer []*Epoll
	for i := range ep.outer {
		outer = append(outer, i.ep)
	}
	ep.readyMu.Unlock()
	n := 0
	for _, o := range outer {
		n = max(n, 1+o.above(level+1))
	}
	return n
}

// Modify is EPOLL_CTL_MOD: ENOENT if there is no such interest, EINVAL for
// EPOLLEXCLUSIVE.
func (ep *Epoll) Modify(t Target, fd int, ev Event) error {
	ep.mu.Lock()
	defer ep.mu.Unlock()
	i := ep.interests[key{fd, t}]
	switch {
	case ev.Events&epollExclusive != 0:
		return unix.EINVAL
	case i == nil:
		return unix.ENOENT
	case i.events&epollExclusive != 0:
		return unix.EINVAL
	}
	t.EventUnregister(&i.Entry)
	i.set(ev)
	if err := t.EventRegister(&i.Entry); err != nil {
		return err
	}
	ep.checkLocked(i)
	return nil
}

// checkLocked lists an interest that is ready already. ep.mu is held.
func (ep *Epoll) checkLocked(i *interest) {
	if i.ready() != 0 {
		i.NotifyEvent(0)
	}
}

// ready is which of its events have come. ep.mu is held.
func (i *interest) ready() waiter.EventMask {
	m := i.mask()
	if m == 0 {
		return 0
	}
	return i.key.target.Readiness(m) & m
}

// Delete is EPOLL_CTL_DEL: ENOENT if there is no such interest.
func (ep *Epoll) Delete(t Target, fd int) error {
	ep.mu.Lock()
	defer ep.mu.Unlock()
	i := ep.interests[key{fd, t}]
	if i == nil {
		return unix.ENOENT
	}
	ep.removeLocked(i)
	return nil
}

// Collect stores the events that are ready into out, at most len(out), and
// returns how many. It does not wait. It takes time in proportion to what is
// ready and allocates nothing.
func (ep *Epoll) Collect(out []Event) int {
	ep.mu.Lock()
	defer ep.mu.Unlock()
	n := 0
	// Level-triggered interests go back to the end of the list: stop at the
	// first that was put back, so that each is looked at once.
	var back *interest
	for n < len(out) {
		ep.readyMu.Lock()
		i := ep.first
		if i == nil || i == back {
			ep.readyMu.Unlock()
			break
		}
		ep.unlistLocked(i)
		ep.readyMu.Unlock()
		m := i.ready()
		if m == 0 {
			continue
		}
		out[n] = Event{Events: uint32(m), Data: i.data}
		n++
		switch {
		case i.events&epollOneshot != 0:
			i.events &= epollModes
		case i.events&epollEdge == 0:
			ep.readyMu.Lock()
			if !i.listed && !i.dead {
				ep.pushLocked(i)
				if back == nil {
					back = i
				}
			}
			ep.readyMu.Unlock()
		}
	}
	return n
}

// Sleeper is a listener of one thread that waits for an Epoll: C delivers when
// it is worthwhile to Collect again.
type Sleeper struct {
	waiter.Entry
	C chan struct{}
}

// Sleep registers a sleeper; Wake gives it back. They keep what they make, so
// that waiting allocates nothing in the long run.
func (ep *Epoll) Sleep() *Sleeper {
	ep.readyMu.Lock()
	var s *Sleeper
	if n := len(ep.idle); n > 0 {
		s, ep.idle = ep.idle[n-1], ep.idle[:n-1]
	}
	ep.readyMu.Unlock()
	if s == nil {
		s = &Sleeper{C: make(chan struct{}, 1)}
		s.Init(waiter.ChannelNotifier(s.C), waiter.ReadableEvents)
	}
	ep.queue.EventRegister(&s.Entry)
	return s
}

// Wake ends a Sleep.
func (ep *Epoll) Wake(s *Sleeper) {
	ep.queue.EventUnregister(&s.Entry)
	select {
	case <-s.C:
	default:
	}
	ep.readyMu.Lock()
	ep.idle = append(ep.idle, s)
	ep.readyMu.Unlock()
}

// Readiness implements waiter.Waitable: readable while an event is ready.
func (ep *Epoll) Readiness(mask waiter.EventMask) waiter.EventMask {
	if mask&waiter.ReadableEvents == 0 {
		return 0
	}
	ep.mu.Lock()
	defer ep.mu.Unlock()
	for {
		ep.readyMu.Lock()
		i := ep.first
		if i == nil {
			ep.readyMu.Unlock()
			return 0
		}
		ep.unlistLocked(i)
		ep.readyMu.Unlock()
		if i.ready() != 0 {
			ep.readyMu.Lock()
			if !i.listed && !i.dead {
				ep.pushLocked(i)
			}
			ep.readyMu.Unlock()
			return mask & waiter.ReadableEvents
		}
	}
}

func (ep *Epoll) EventRegister(w *waiter.Entry) error {
	ep.queue.EventRegister(w)
	return nil
}
func (ep *Epoll) EventUnregister(w *waiter.Entry) { ep.queue.EventUnregister(w) }
func (ep *Epoll) Stat() (unix.Stat_t, error)      { return anonStat(ep.ino), nil }

// Release ends all interests.
func (ep *Epoll) Release() {
	ep.mu.Lock()
	defer ep.mu.Unlock()
	for _, i := range ep.interests {
		ep.removeLocked(i)
	}
}

// Label is what readlink of /proc/PID/fd/N shows.
func (*Epoll) Label() string { return "anon_inode:[eventpoll]" }
