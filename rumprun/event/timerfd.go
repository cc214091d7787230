package event

import (
	"encoding/binary"
	"sync"
	"time"

	"golang.org/x/sys/unix"

	"gvisor.dev/gvisor/pkg/waiter"
)

// Timerfd is the file of timerfd_create(2). It fires once and then counts the
// periods that pass when it is read, as Linux does, so that a short interval
// costs nothing while nobody reads.
//
// Deviation: an absolute time of CLOCK_REALTIME is turned into a span when it
// is set; a step of the host's clock does not move it, nor does it cancel a
// read (TFD_TIMER_CANCEL_ON_SET).
type Timerfd struct {
	anonFile
	queue waiter.Queue
	ino   uint64
	clock int32
	now   func() time.Duration // the clock

	mu       sync.Mutex
	timer    *time.Timer
	gen      int           // a firing of an older setting is void
	next     time.Duration // of the clock; 0: disarmed
	interval time.Duration
	armed    bool   // next is to come
	expired  bool   // next has passed and nobody has read since
	ticks    uint64 // expirations not read yet, valid if expired
}

// NewTimerfd makes a timer on a clock that now reads; clock is its number for
// the caller's use.
func (s *Space) NewTimerfd(clock int32, now func() time.Duration, flags uint32) *Timerfd {
	t := &Timerfd{ino: s.NextIno(), clock: clock, now: now}
	t.SetStatusFlags(unix.O_RDWR | flags)
	return t
}

// Set arms the timer for value (of the clock, if absolute; from now
// otherwise), then every interval; value 0 disarms it. It returns the old
// setting.
func (t *Timerfd) Set(value, interval time.Duration, absolute bool) (oldLeft, oldInterval time.Duration) {
	t.mu.Lock()
	defer t.mu.Unlock()
	oldLeft, oldInterval = t.leftLocked()
	if t.timer != nil {
		t.timer.Stop()
	}
	t.gen++
	t.armed, t.expired, t.ticks, t.next, t.interval = false, false, 0, 0, interval
	if value > 0 {
		if !absolute {
			if now := t.now(); value > 1<<63-1-now {
				value = 1<<63 - 1
			} else {
				value += now
			}
		}
		t.next = value
		t.armLocked()
	}
	return
}

func (t *Timerfd) armLocked() {
	gen := t.gen
	t.armed = true
	t.timer = time.AfterFunc(max(0, t.next-t.now()), func() { t.fire(gen) })
}

func (t *Timerfd) fire(gen int) {
	t.mu.Lock()
	if gen != t.gen {
		t.mu.Unlock()
		return
	}
	t.expireLocked()
	t.mu.Unlock()
	t.queue.Notify(waiter.ReadableEvents)
}

func (t *Timerfd) expireLocked() {
	if t.armed {
		t.armed, t.expired = false, true
		t.ticks++
	}
}

// lookLocked lets the timer expire if its time has come: whoever looks must
// not depend on whether the Go timer's goroutine has had its turn.
func (t *Timerfd) lookLocked() {
	if t.armed && t.now() >= t.next {
		t.expireLocked()
	}
}

// Left is timerfd_gettime(2): the time until the next expiration and the
// interval.
func (t *Timerfd) Left() (left, interval time.Duration) {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.leftLocked()
}

func (t *Timerfd) leftLocked() (time.Duration, time.Duration) {
	if t.next == 0 {
		return 0, t.interval
	}
	t.lookLocked()
	t.forwardLocked()
	left := t.next - t.now()
	if left <= 0 && t.interval == 0 {
		return 0, 0
	}
	return max(left, 1), t.interval
}

// forwardLocked counts the periods that have passed since the timer fired and
// starts it for the next.
func (t *Timerfd) forwardLocked() {
	if !t.expired || t.interval == 0 {
		return
	}
	if late := t.now() - t.next; late >= 0 {
		n := late/t.interval + 1
		t.ticks += uint64(n - 1)
		t.next += n * t.interval
		t.expired = false
		t.gen++
		t.armLocked()
	}
}

// Read takes the number of expirations.
func (t *Timerfd) Read(b []byte) (int, error) {
	if len(b) < 8 {
		return 0, unix.EINVAL
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	t.lookLocked()
	if t.ticks == 0 {
		return 0, unix.EAGAIN
	}
	t.forwardLocked()
	binary.LittleEndian.PutUint64(b, t.ticks)
	t.ticks, t.expired = 0, false
	return 8, nil
}

// Clock is the number of the clock.
func (t *Timerfd) Clock() int32 { return t.clock }

// Readiness implements waiter.Waitable.
func (t *Timerfd) Readiness(mask waiter.EventMask) waiter.EventMask {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.lookLocked()
	if t.ticks > 0 {
		return mask & waiter.EventIn
	}
	return 0
}

func (t *Timerfd) EventRegister(w *waiter.Entry) error {
	t.queue.EventRegister(w)
	return nil
}
func (t *Timerfd) EventUnregister(w *waiter.Entry) { t.queue.EventUnregister(w) }
func (t *Timerfd) Stat() (unix.Stat_t, error)      { return anonStat(t.ino), nil }

// Release stops the timer.
func (t *Timerfd) Release() { t.Set(0, 0, false) }

// Label is what readlink of /proc/PID/fd/N shows.
func (*Timerfd) Label() string { return "anon_inode:[timerfd]" }
