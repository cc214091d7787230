package rumprun

import (
	"sync"
	"sync/atomic"
)

// gate counts the threads of a process that may touch its memory: those that
// run guest code or a handler, not those that wait. fork(2) closes it while the
// memory belongs to the child. The zero value is open.
type gate struct {
	closed  atomic.Bool // changed with mu
	mu      sync.Mutex
	running int
	changed chan struct{} // closed at the next change, if not nil
}

func (g *gate) notify() {
	if g.changed != nil {
		close(g.changed)
		g.changed = nil
	}
}

// wait lets go of the lock until something has changed.
func (g *gate) wait() {
	if g.changed == nil {
		g.changed = make(chan struct{})
	}
	c := g.changed
	g.mu.Unlock()
	<-c
	g.mu.Lock()
}

// enter waits until the gate is open.
func (g *gate) enter() {
	g.mu.Lock()
	defer g.mu.Unlock()
	for g.closed.Load() {
		g.wait()
	}
	g.running++
}

func (g *gate) leave() {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.running--
	g.notify()
}

// shut closes the gate for a thread that is inside and stays so, once all
// others have left. The thread may be one of several that want to.
func (g *gate) shut() {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.running--
	g.notify()
	for g.closed.Load() {
		g.wait()
	}
	g.closed.Store(true)
	for g.running > 0 {
		g.wait()
	}
	g.running++
}

// open undoes shut.
func (g *gate) open() {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.closed.Store(false)
	g.notify()
}

// shutNow says whether a thread that is inside should leave and enter again.
func (g *gate) shutNow() bool { return g.closed.Load() }

// close is shut for somebody who is not inside; false, and nothing done, if the
// gate is shut already.
func (g *gate) close() bool {
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.closed.Load() {
		return false
	}
	g.closed.Store(true)
	for g.running > 0 {
		g.wait()
	}
	return true
}
