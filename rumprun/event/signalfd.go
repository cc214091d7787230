package event

import (
	"sync/atomic"
	"unsafe"

	"golang.org/x/sys/unix"

	"gvisor.dev/gvisor/pkg/waiter"
)

// SignalSource is where a signalfd finds pending signals. Sets have bit
// signo-1. It notifies its listeners when a signal becomes pending.
type SignalSource interface {
	PendingSignals() uint64
	// TakeSignal takes a pending signal of set; false if there is none.
	TakeSignal(set uint64, info *unix.SignalfdSiginfo) bool
	EventRegister(*waiter.Entry)
	EventUnregister(*waiter.Entry)
}

// Signalfd is the file of signalfd(2).
type Signalfd struct {
	anonFile
	src SignalSource
	set atomic.Uint64
	ino uint64
}

// NewSignalfd makes a signalfd that reads the signals of set from src.
func (s *Space) NewSignalfd(src SignalSource, set uint64, flags uint32) *Signalfd {
	f := &Signalfd{src: src, ino: s.NextIno()}
	f.set.Store(set)
	f.SetStatusFlags(unix.O_RDWR | flags)
	return f
}

// SetMask replaces the set.
func (f *Signalfd) SetMask(set uint64) { f.set.Store(set) }

// Read takes as many signals as b has room for.
func (f *Signalfd) Read(b []byte) (int, error) {
	const size = int(unsafe.Sizeof(unix.SignalfdSiginfo{}))
	if len(b) < size {
		return 0, unix.EINVAL
	}
	n := 0
	for len(b)-n >= size {
		var info unix.SignalfdSiginfo
		if !f.src.TakeSignal(f.set.Load(), &info) {
			break
		}
		n += copy(b[n:], unsafe.Slice((*byte)(unsafe.Pointer(&info)), size))
	}
	if n == 0 {
		return 0, unix.EAGAIN
	}
	return n, nil
}

// Readiness implements waiter.Waitable.
func (f *Signalfd) Readiness(mask waiter.EventMask) waiter.EventMask {
	if f.src.PendingSignals()&f.set.Load() != 0 {
		return mask & waiter.EventIn
	}
	return 0
}

func (f *Signalfd) EventRegister(w *waiter.Entry) error {
	f.src.EventRegister(w)
	return nil
}
func (f *Signalfd) EventUnregister(w *waiter.Entry) { f.src.EventUnregister(w) }
func (f *Signalfd) Stat() (unix.Stat_t, error)      { return anonStat(f.ino), nil }

// Label is what readlink of /proc/PID/fd/N shows.
func (*Signalfd) Label() string { return "anon_inode:[signalfd]" }
