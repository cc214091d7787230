package event

import (
	"encoding/binary"
	"math"
	"sync"

	"golang.org/x/sys/unix"

	"gvisor.dev/gvisor/pkg/waiter"
)

// Eventfd is the file of eventfd(2): a counter.
type Eventfd struct {
	anonFile
	queue     waiter.Queue
	semaphore bool
	ino       uint64

	mu    sync.Mutex
	count uint64
}

// NewEventfd makes an eventfd with value init; flags are its status flags.
func (s *Space) NewEventfd(init uint64, semaphore bool, flags uint32) *Eventfd {
	e := &Eventfd{semaphore: semaphore, count: init, ino: s.NextIno()}
	e.SetStatusFlags(unix.O_RDWR | flags)
	return e
}

// Read takes the counter, or one of it with EFD_SEMAPHORE.
func (e *Eventfd) Read(b []byte) (int, error) {
	if len(b) < 8 {
		return 0, unix.EINVAL
	}
	e.mu.Lock()
	v := e.count
	if v == 0 {
		e.mu.Unlock()
		return 0, unix.EAGAIN
	}
	if e.semaphore {
		v = 1
	}
	e.count -= v
	e.mu.Unlock()
	binary.LittleEndian.PutUint64(b, v)
	e.queue.Notify(waiter.WritableEvents)
	return 8, nil
}

// Write adds to the counter; EAGAIN if it would pass its maximum.
func (e *Eventfd) Write(b []byte) (int, error) {
	if len(b) != 8 {
		return 0, unix.EINVAL
	}
	v := binary.LittleEndian.Uint64(b)
	if v == math.MaxUint64 {
		return 0, unix.EINVAL
	}
	e.mu.Lock()
	if v > math.MaxUint64-1-e.count {
		e.mu.Unlock()
		return 0, unix.EAGAIN
	}
	e.count += v
	e.mu.Unlock()
	e.queue.Notify(waiter.ReadableEvents)
	return 8, nil
}

// Readiness implements waiter.Waitable.
func (e *Eventfd) Readiness(mask waiter.EventMask) waiter.EventMask {
	e.mu.Lock()
	defer e.mu.Unlock()
	var m waiter.EventMask
	if e.count > 0 {
		m |= waiter.EventIn
	}
	if e.count < math.MaxUint64-1 {
		m |= waiter.EventOut
	}
	return m & mask
}

func (e *Eventfd) EventRegister(w *waiter.Entry) error {
	e.queue.EventRegister(w)
	return nil
}
func (e *Eventfd) EventUnregister(w *waiter.Entry) { e.queue.EventUnregister(w) }
func (e *Eventfd) Stat() (unix.Stat_t, error)      { return anonStat(e.ino), nil }

// Label is what readlink of /proc/PID/fd/N shows.
func (*Eventfd) Label() string { return "anon_inode:[eventfd]" }
