package event

import (
	"golang.org/x/sys/unix"

	"gvisor.dev/gvisor/pkg/waiter"
)

// Pidfd is a file that stands for a process (pidfd_open(2)). It becomes
// readable, for good, when the process ends; it cannot be read.
type Pidfd struct {
	anonFile
	// Process is whatever the owner of processes put there.
	Process any
	ended   func() bool
	queue   *waiter.Queue
	ino     uint64
}

// NewPidfd makes a file for process. ended says whether it has ended; queue is
// notified with waiter.ReadableEvents when it does.
func (s *Space) NewPidfd(process any, ended func() bool, queue *waiter.Queue, flags uint32) *Pidfd {
	p := &Pidfd{Process: process, ended: ended, queue: queue, ino: s.NextIno()}
	p.SetStatusFlags(unix.O_RDWR | flags)
	return p
}

// Read and Write are EINVAL, as on Linux.
func (*Pidfd) Read([]byte) (int, error)  { return 0, unix.EINVAL }
func (*Pidfd) Write([]byte) (int, error) { return 0, unix.EINVAL }

// Readiness implements waiter.Waitable.
func (p *Pidfd) Readiness(mask waiter.EventMask) waiter.EventMask {
	if p.ended() {
		return waiter.EventIn & mask
	}
	return 0
}

func (p *Pidfd) EventRegister(w *waiter.Entry) error {
	p.queue.EventRegister(w)
	return nil
}
func (p *Pidfd) EventUnregister(w *waiter.Entry) { p.queue.EventUnregister(w) }
func (p *Pidfd) Stat() (unix.Stat_t, error)      { return anonStat(p.ino), nil }

// Label is what readlink of /proc/PID/fd/N shows.
func (*Pidfd) Label() string { return "anon_inode:[pidfd]" }
