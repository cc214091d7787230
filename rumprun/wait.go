package rumprun

import (
	"time"

	"golang.org/x/sys/unix"

	"gvisor.dev/gvisor/pkg/waiter"

	"github.com/nabla-build/nabla-build/rumprun/vfs"
)

// Wait blocks the task until c delivers, the deadline passes (zero: none), or
// an unblocked signal is pending. It returns nil, unix.ETIMEDOUT or errRestart.
// The host thread goes on with other goroutines meanwhile.
func (t *Task) Wait(c <-chan struct{}, deadline time.Time) error {
	if t.signalPending() {
		return errRestart
	}
	var timeout <-chan time.Time
	if !deadline.IsZero() {
		d := time.Until(deadline)
		if d <= 0 {
			select {
			case <-c:
				return nil
			default:
				return unix.ETIMEDOUT
			}
		}
		timer := time.NewTimer(d)
		defer timer.Stop()
		timeout = timer.C
	}
	if b := t.p.forked(); b != nil {
		stop := time.AfterFunc(forkWait, func() { b.undo(t, "waited for something") })
		defer stop.Stop()
	}
	t.parked()
	defer t.resumed()
	for {
		select {
		case <-c:
			return nil
		case <-timeout:
			return unix.ETIMEDOUT
		case <-t.interrupt:
			if t.signalPending() {
				return errRestart
			}
		}
	}
}

// sameEnd returns the deadline of a call with a relative timeout: when it is
// made again because no handler ran, the one it began with (restart_syscall(2)).
func (t *Task) sameEnd(deadline time.Time) time.Time {
	if t.restarted {
		return t.deadline
	}
	t.deadline = deadline
	return deadline
}

// Retry runs op until it answers something else than unix.EAGAIN, waiting for
// one of the events in mask on f in between. A description that is O_NONBLOCK
// gets EAGAIN at once. A deadline that passes is unix.EAGAIN too, as SO_RCVTIMEO
// has it. Without a deadline a socket's own timeout counts (SO_RCVTIMEO,
// SO_SNDTIMEO), and a signal is EINTR whatever its handler's flags (signal(7)).
func (t *Task) Retry(f vfs.File, mask waiter.EventMask, deadline time.Time, op func() error) error {
	err := op()
	if err != unix.EAGAIN || f.StatusFlags()&unix.O_NONBLOCK != 0 {
		return err
	}
	e, ch := waiter.NewChannelEntry(mask | waiter.EventErr | waiter.EventHUp)
	if err := f.EventRegister(&e); err != nil {
		return err
	}
	defer f.EventUnregister(&e)
	timed := false
	if deadline.IsZero() {
		deadline = socketDeadline(f, mask)
		timed = !deadline.IsZero()
	}
	for {
		if err := op(); err != unix.EAGAIN {
			return err
		}
		if err := t.Wait(ch, deadline); err == unix.ETIMEDOUT {
			return unix.EAGAIN
		} else if err != nil {
			if timed {
				return unix.EINTR
			}
			return err
		}
	}
}
