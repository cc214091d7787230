package rumprun

import (
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/sys/unix"

	"github.com/nabla-build/nabla-build/rumprun/loader"
	"github.com/nabla-build/nabla-build/rumprun/mm"
)

// sharedSpace is the memory of one process, or of several before their execve.
type sharedSpace struct {
	*mm.AddressSpace
	users atomic.Int32
	// windowed says that other programs are linked to the same addresses: its
	// threads take turns with theirs (turns).
	windowed atomic.Bool
	// tag tells its futexes in fixed, the addresses that it is linked to, from
	// those at the same addresses elsewhere: 0 for the first program of a window.
	tag     uintptr
	fixed   mm.Range
	waiting int // threads that wait for a turn; turns.mu protects it
}

func newSpace(as *mm.AddressSpace) *sharedSpace {
	s := &sharedSpace{AddressSpace: as}
	s.users.Store(1)
	return s
}

// drop ends one process's use; the last one's unmaps everything.
func (s *sharedSpace) drop() {
	if s.users.Add(-1) == 0 {
		s.Clear()
	}
}

// turn is how long a program runs while others that are linked to the same
// addresses want to.
const turn = 20 * time.Millisecond

// turns lets one of the programs in windows (package mm) run at a time: its
// threads are inside, those of the others wait. The zero value is ready.
type turns struct {
	mu      sync.Mutex
	holder  *sharedSpace
	inside  int
	granted bool // the holder was chosen and none of its threads is inside yet
	since   time.Time
	queue   []*sharedSpace
	changed chan struct{} // closed at the next change, if not nil
	tags    uintptr
}

// over says whether the holder must let another one run. q.mu is held.
func (q *turns) over() bool { return len(q.queue) > 0 && time.Since(q.since) > turn }

// enter waits until it is the turn of s. An error says that the memory of s
// cannot be brought in; the caller is inside all the same.
func (q *turns) enter(s *sharedSpace) error {
	q.mu.Lock()
	defer q.mu.Unlock()
	for !q.admit(s) {
		s.waiting++
		if !slices.Contains(q.queue, s) {
			q.queue = append(q.queue, s)
		}
		if q.changed == nil {
			q.changed = make(chan struct{})
		}
		c := q.changed
		q.mu.Unlock()
		<-c
		q.mu.Lock()
		if s.waiting--; s.waiting == 0 {
			// The turns that are granted are those of threads that wait.
			q.queue = slices.DeleteFunc(q.queue, func(w *sharedSpace) bool { return w == s })
		}
	}
	q.granted = false
	q.inside++
	return s.Enter()
}

// admit says whether a thread of s may enter now, and makes s the holder where
// nobody is inside. q.mu is held.
func (q *turns) admit(s *sharedSpace) bool {
	if q.inside == 0 && !q.granted {
		switch {
		case len(q.queue) > 0 && q.queue[0] != s:
			q.next()
		case q.holder != s:
			q.holder, q.since = s, time.Now()
		default: // it goes on
			q.since = time.Now()
		}
	}
	return q.holder == s && (q.granted || !q.over())
}

// next gives the turn to whoever waits longest. q.mu is held.
func (q *turns) next() {
	q.holder, q.since, q.granted = q.queue[0], time.Now(), true
	q.queue = q.queue[1:]
	if q.changed != nil {
		close(q.changed)
		q.changed = nil
	}
}

func (q *turns) leave() {
	q.mu.Lock()
	defer q.mu.Unlock()
	if q.inside--; q.inside == 0 && len(q.queue) > 0 {
		q.next()
	}
}

// wanted says whether a thread that is inside should leave and enter again.
func (q *turns) wanted() bool {
	q.mu.Lock()
	defer q.mu.Unlock()
	return q.over()
}

// enterMemory must be called before the thread touches guest memory, and
// leaveMemory before it waits: meanwhile a forked child, or a program at the
// same addresses, may have it.
func (t *Task) enterMemory() {
	t.p.gate.enter()
	if t.p.space.windowed.Load() {
		t.takeTurn()
	}
}

func (t *Task) leaveMemory() {
	t.endTurn()
	t.p.gate.leave()
}

// passMemory lets others have the memory if they want to.
func (t *Task) passMemory() {
	if t.inTurn && t.k.turns.wanted() {
		t.endTurn()
		t.takeTurn()
	}
	if t.p.gate.shutNow() {
		t.leaveMemory()
		t.enterMemory()
	}
}

func (t *Task) takeTurn() {
	t.inTurn = true
	if err := t.k.turns.enter(t.p.space); err != nil {
		t.k.logf("nabla: process %d (%s): its memory cannot be brought back: %v: it is killed", t.p.pid, t.p.name(), err)
		t.clearTID, t.robustList = 0, 0
		t.exiting.Store(true)
		t.p.exitGroup(int(unix.SIGKILL))
	}
}

func (t *Task) endTurn() {
	if t.inTurn {
		t.inTurn = false
		t.k.turns.leave()
	}
}

// claimFixed reserves the addresses that program x is linked to.
func (t *Task) claimFixed(x *loader.Program) error {
	t.endTurn()
	t.takeTurn() // nobody else's bytes are in use now
	q, s := &t.k.turns, t.p.space
	err := s.Claim(x.File, uintptr(x.Image.Lo()), uintptr(x.Image.Hi()), func(as *mm.AddressSpace) func() {
		var opened []func()
		var theirs *sharedSpace
		for _, p := range t.k.processes() {
			if p.as != as {
				continue
			}
			theirs = p.space
			if p.gate.close() { // if not, a fork keeps them out already
				opened = append(opened, p.gate.open)
			}
		}
		if theirs != nil {
			theirs.windowed.Store(true)
		}
		return func() {
			for _, open := range opened {
				open()
			}
		}
	})
	if err == nil && s.Windowed() {
		q.mu.Lock()
		q.tags++
		s.tag = q.tags << 48
		s.fixed = mm.Range{Start: uintptr(x.Image.Lo()), End: uintptr(x.Image.Hi())}
		q.mu.Unlock()
		s.windowed.Store(true)
		return nil
	}
	t.endTurn()
	return err
}

// futexKey is what tells the futex at addr from all others.
// Outside the program's fixed addresses every address is one place, shared or
// not.
func (t *Task) futexKey(addr uintptr) uintptr {
	s := t.p.space
	if s.tag != 0 && addr >= s.fixed.Start && addr < s.fixed.End {
		return addr | s.tag
	}
	return addr
}
