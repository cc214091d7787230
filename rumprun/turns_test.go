package rumprun

import (
	"runtime"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/nabla-build/nabla-build/rumprun/mm"
)

// TestTurns has threads of several programs enter and leave, with pauses
// inside longer than a turn and with threads that park: threads of one program
// only are inside at any time, and every one comes to its end.
func TestTurns(t *testing.T) {
	var q turns
	var inside [4]atomic.Int32
	var wg sync.WaitGroup
	for i := range inside {
		s := newSpace(newEmptySpace(t))
		for thread := range 3 {
			wg.Add(1)
			go func() {
				defer wg.Done()
				for round := range 60 {
					if err := q.enter(s); err != nil {
						t.Error(err)
					}
					inside[i].Add(1)
					for range 3 {
						if round%10 == thread {
							time.Sleep(turn / 2)
						}
						runtime.Gosched()
						for j := range inside {
							if n := inside[j].Load(); j != i && n > 0 {
								t.Errorf("%d threads of program %d are inside with one of %d", n, j, i)
							}
						}
						if q.wanted() {
							inside[i].Add(-1)
							q.leave()
							q.enter(s)
							inside[i].Add(1)
						}
					}
					inside[i].Add(-1)
					q.leave()
					if round%3 == 0 {
						time.Sleep(time.Millisecond)
					}
				}
			}()
		}
	}
	done := make(chan struct{})
	go func() { wg.Wait(); close(done) }()
	select {
	case <-done:
	case <-time.After(60 * time.Second):
		t.Fatalf("not all threads had their turns: %d inside, %d programs in the queue, granted %v", q.inside, len(q.queue), q.granted)
	}
	if q.inside != 0 || len(q.queue) != 0 {
		t.Errorf("%d inside and %d in the queue at the end", q.inside, len(q.queue))
	}
}

// newEmptySpace is an address space without a window, as far as turns are
// concerned.
func newEmptySpace(t *testing.T) *mm.AddressSpace {
	t.Helper()
	a, err := mm.NewArena([]mm.Range{{Start: 1 << 20, End: 2 << 20}}, 1<<20)
	if err != nil {
		t.Fatal(err)
	}
	return a.NewAddressSpace()
}
