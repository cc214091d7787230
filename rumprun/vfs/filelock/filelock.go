// Package filelock holds advisory file locks: the byte ranges of fcntl(2)
// (F_SETLK and F_OFD_SETLK) and the whole-file locks of flock(2). It knows
// nothing of files: a lock is on a key and belongs to an owner. The type at
// its heart is Table.
package filelock

import (
	"math"
	"slices"
	"sync"

	"golang.org/x/sys/unix"
)

// Kind keeps apart the two families of locks, which do not see each other.
type Kind uint8

const (
	Range Kind = iota // fcntl(2)
	Whole             // flock(2)
)

// Lock is one lock, on [Start, End].
type Lock struct {
	Owner      any // comparable: a process, or an open file description
	PID        int32
	Exclusive  bool
	Start, End int64 // inclusive; End math.MaxInt64: to the end of the file
}

// ToEnd is the End of a lock that grows with the file.
const ToEnd = math.MaxInt64

type key struct {
	file any
	kind Kind
}

// Table holds all locks. The zero Table is ready.
type Table struct {
	mu    sync.Mutex
	locks map[key][]Lock
	// waiters are closed when a lock of their key goes.
	waiters map[key]chan struct{}
	// waits says who waits for whom, of the range locks of processes.
	waits []waitFor
}

// waitFor is an edge of the graph in which a circle is a deadlock.
type waitFor struct{ owner, holder any }

func overlap(a, b *Lock) bool { return a.Start <= b.End && b.Start <= a.End }

func conflict(have, want *Lock) bool {
	return have.Owner != want.Owner && (have.Exclusive || want.Exclusive) && overlap(have, want)
}

// Conflict returns a lock that stands in the way of l on file (F_GETLK).
func (t *Table) Conflict(file any, kind Kind, l Lock) (Lock, bool) {
	t.mu.Lock()
	defer t.mu.Unlock()
	for _, h := range t.locks[key{file, kind}] {
		if conflict(&h, &l) {
			return h, true
		}
	}
	return Lock{}, false
}

// Held returns a lock that owner holds in [start, end] of file.
func (t *Table) Held(file any, kind Kind, owner any, start, end int64) (Lock, bool) {
	t.mu.Lock()
	defer t.mu.Unlock()
	for _, h := range t.locks[key{file, kind}] {
		if h.Owner == owner && overlap(&h, &Lock{Start: start, End: end}) {
			return h, true
		}
	}
	return Lock{}, false
}

// Set takes l on file, replacing what its owner holds in that range. If another
// lock stands in the way it answers unix.EAGAIN and a channel that is closed
// when it is worth trying again.
func (t *Table) Set(file any, kind Kind, l Lock) (<-chan struct{}, error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	k := key{file, kind}
	for _, h := range t.locks[k] {
		if conflict(&h, &l) {
			c := t.waiters[k]
			if c == nil {
				c = make(chan struct{})
				if t.waiters == nil {
					t.waiters = make(map[key]chan struct{})
				}
				t.waiters[k] = c
			}
			return c, unix.EAGAIN
		}
	}
	rest := t.cut(k, l)
	// Join neighbours of the same owner and mode.
	i := 0
	for _, h := range rest {
		if h.Owner == l.Owner && h.Exclusive == l.Exclusive &&
			(overlap(&h, &l) || h.End != ToEnd && h.End+1 == l.Start || l.End != ToEnd && l.End+1 == h.Start) {
			l.Start, l.End = min(l.Start, h.Start), max(l.End, h.End)
			continue
		}
		rest[i] = h
		i++
	}
	t.put(k, append(rest[:i], l))
	t.wake(k) // a lock may have become weaker
	return nil, nil
}

// SetWait is Set for an owner that will wait (F_SETLKW): EDEADLK if it would
// wait for one that waits for it, perhaps through others. If the answer is
// EAGAIN the owner counts as waiting until Waited.
func (t *Table) SetWait(file any, kind Kind, l Lock) (<-chan struct{}, error) {
	c, err := t.Set(file, kind, l)
	if err != unix.EAGAIN || kind != Range {
		return c, err
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	for _, h := range t.locks[key{file, kind}] {
		if !conflict(&h, &l) {
			continue
		}
		if t.reaches(h.Owner, l.Owner, len(t.waits)) {
			return nil, unix.EDEADLK
		}
		t.waits = append(t.waits, waitFor{l.Owner, h.Owner})
		return c, unix.EAGAIN
	}
	t.waits = append(t.waits, waitFor{l.Owner, nil}) // it has gone meanwhile
	return c, unix.EAGAIN
}

// reaches reports whether owner from waits for to, through at most depth
// others.
func (t *Table) reaches(from, to any, depth int) bool {
	if from == to {
		return true
	}
	for _, w := range t.waits {
		if depth > 0 && w.owner == from && t.reaches(w.holder, to, depth-1) {
			return true
		}
	}
	return false
}

// Waited says that owner has stopped one wait that SetWait began.
func (t *Table) Waited(owner any) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if i := slices.IndexFunc(t.waits, func(w waitFor) bool { return w.owner == owner }); i >= 0 {
		t.waits = slices.Delete(t.waits, i, i+1)
	}
}

// Unset gives up what owner holds of [start, end] on file.
func (t *Table) Unset(file any, kind Kind, owner any, start, end int64) {
	t.mu.Lock()
	defer t.mu.Unlock()
	k := key{file, kind}
	if len(t.locks[k]) == 0 {
		return
	}
	t.put(k, t.cut(k, Lock{Owner: owner, Start: start, End: end}))
	t.wake(k)
}

// Release gives up everything that owner holds.
func (t *Table) Release(owner any) {
	t.mu.Lock()
	defer t.mu.Unlock()
	for k := range t.locks {
		n := len(t.locks[k])
		t.put(k, slices.DeleteFunc(t.locks[k], func(l Lock) bool { return l.Owner == owner }))
		if len(t.locks[k]) != n {
			t.wake(k)
		}
	}
}

// cut returns the locks of k without l's range of l's owner, sorted by start.
func (t *Table) cut(k key, l Lock) []Lock {
	var out []Lock
	for _, h := range t.locks[k] {
		if h.Owner != l.Owner || !overlap(&h, &l) {
			out = append(out, h)
			continue
		}
		if h.Start < l.Start {
			left := h
			left.End = l.Start - 1
			out = append(out, left)
		}
		if h.End > l.End {
			right := h
			right.Start = l.End + 1
			out = append(out, right)
		}
	}
	return out
}

func (t *Table) put(k key, l []Lock) {
	if len(l) == 0 {
		delete(t.locks, k)
		return
	}
	slices.SortFunc(l, func(a, b Lock) int {
		switch {
		case a.Start < b.Start:
			return -1
		case a.Start > b.Start:
			return 1
		}
		return 0
	})
	if t.locks == nil {
		t.locks = make(map[key][]Lock)
	}
	t.locks[k] = l
}

func (t *Table) wake(k key) {
	if c := t.waiters[k]; c != nil {
		close(c)
		delete(t.waiters, k)
	}
}
