package event

import (
	"sync"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/nabla-build/nabla-build/rumprun/vfs"
)

// target is an open file description for tests.
type target struct {
	vfs.File
	l Interests
}

func (t *target) Interests() *Interests { return &t.l }
func (t *target) Unwrap() vfs.File      { return t.File }

// TestWaitAllocatesNothing: an event that is waited for and collected makes no
// garbage once the sleepers are made.
func TestWaitAllocatesNothing(t *testing.T) {
	var s Space
	ep := s.NewEpoll()
	e := s.NewEventfd(0, false, 0)
	if err := ep.Add(&target{File: e}, 3, Event{Events: unix.EPOLLIN, Data: [2]uint32{7}}); err != nil {
		t.Fatal(err)
	}
	out := make([]Event, 4)
	one := []byte{1, 0, 0, 0, 0, 0, 0, 0}
	buf := make([]byte, 8)
	if n := testing.AllocsPerRun(1000, func() {
		sl := ep.Sleep()
		if ep.Collect(out) != 0 {
			t.Fatal("an event without a cause")
		}
		e.Write(one)
		<-sl.C
		if ep.Collect(out) != 1 || out[0].Data[0] != 7 {
			t.Fatal("no event")
		}
		ep.Wake(sl)
		e.Read(buf)
	}); n != 0 {
		t.Errorf("%v allocations", n)
	}
}

// TestNoEventIsLost: writers and a waiter at once; every write is seen by an
// edge-triggered interest.
func TestNoEventIsLost(t *testing.T) {
	var s Space
	ep := s.NewEpoll()
	var fds []*Eventfd
	for i := range 8 {
		e := s.NewEventfd(0, false, 0)
		fds = append(fds, e)
		if err := ep.Add(&target{File: e}, i, Event{Events: unix.EPOLLIN | unix.EPOLLET&0xffffffff, Data: [2]uint32{uint32(i)}}); err != nil {
			t.Fatal(err)
		}
	}
	const rounds = 5000
	var wg sync.WaitGroup
	ack := make([]chan struct{}, len(fds))
	for i, e := range fds {
		ack[i] = make(chan struct{}, 1)
		wg.Go(func() {
			for range rounds {
				e.Write([]byte{1, 0, 0, 0, 0, 0, 0, 0})
				<-ack[i]
			}
		})
	}
	done := make(chan struct{})
	go func() { wg.Wait(); close(done) }()
	out := make([]Event, 3)
	sl := ep.Sleep()
	defer ep.Wake(sl)
	for {
		n := ep.Collect(out)
		for _, ev := range out[:n] {
			i := ev.Data[0]
			if _, err := fds[i].Read(make([]byte, 8)); err == nil {
				ack[i] <- struct{}{}
			}
		}
		if n > 0 {
			continue
		}
		select {
		case <-sl.C:
		case <-done:
			return
		case <-time.After(10 * time.Second):
			t.Fatal("nothing for ten seconds: an event was lost")
		}
	}
}

// TestTimerIsDueOnTime: whoever looks after the time sees it, whether the Go
// timer has run or not.
func TestTimerIsDueOnTime(t *testing.T) {
	var s Space
	now := time.Duration(1000)
	f := s.NewTimerfd(1, func() time.Duration { return now }, 0)
	defer f.Release()
	f.Set(time.Hour, time.Minute, false)
	now += time.Hour + 10*time.Minute
	b := make([]byte, 8)
	if n, err := f.Read(b); n != 8 || err != nil || b[0] != 11 {
		t.Errorf("read %d, %v, %v expirations; want 11", n, err, b[0])
	}
	if left, interval := f.Left(); left != time.Minute || interval != time.Minute {
		t.Errorf("left %v, %v", left, interval)
	}
	if _, err := f.Read(b); err != unix.EAGAIN {
		t.Error(err)
	}
}

// TestReopenPipe: an end of a pipe that is opened again, through /proc/PID/fd,
// waits for nobody, though the other end is closed.
func TestReopenPipe(t *testing.T) {
	var s Space
	r, w := s.NewPipe(0, 0, 0)
	if _, err := w.Write([]byte("text")); err != nil {
		t.Fatal(err)
	}
	w.Release()
	f, err := r.Reopen(unix.O_RDONLY)
	if err != nil {
		t.Fatal(err)
	}
	if c := f.(*PipeEnd).PeerOpened(); c != nil {
		t.Error("the end waits for a writer")
	}
	r.Release()
	b := make([]byte, 8)
	if n, err := f.Read(b); n != 4 || err != nil {
		t.Errorf("read: %d, %v", n, err)
	}
	if n, err := f.Read(b); n != 0 || err != nil {
		t.Errorf("read at the end: %d, %v", n, err)
	}
}
