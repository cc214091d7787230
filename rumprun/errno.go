package rumprun

import "golang.org/x/sys/unix"

// The restart codes of the Linux kernel (include/linux/errno.h): a handler
// that a signal interrupted returns one, and signal delivery turns it into
// EINTR or into a restarted call. The guest never sees them.
const (
	// errRestart: restart if the handler has SA_RESTART, EINTR otherwise
	// (read, write, accept, futex, wait4, ...).
	errRestart = unix.Errno(512)
	// errRestartNoHand: restart if no handler runs, EINTR otherwise (pause,
	// ppoll, epoll_wait, sigsuspend, nanosleep).
	errRestartNoHand = unix.Errno(514)
)
