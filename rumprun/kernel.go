// Package rumprun is the library OS: it plays the Linux kernel for the guest
// in the guest's own process. It takes over the role that NetBSD's rumprun had
// in Nabla Containers; the code and the contract (the Linux x86-64 system call
// ABI) are our own. It knows nothing of images or host devices: the tender
// hands both over in Config.
//
// The types at its heart are Kernel (one per container), Process and Task (a
// guest thread: one goroutine).
package rumprun

import (
	"sync"
	"time"

	"github.com/nabla-build/nabla-build/rumprun/event"
	"github.com/nabla-build/nabla-build/rumprun/hypercall"
	"github.com/nabla-build/nabla-build/rumprun/inotify"
	"github.com/nabla-build/nabla-build/rumprun/mm"
	"github.com/nabla-build/nabla-build/rumprun/tty"
)

// Kernel is the state that all guest processes share.
type Kernel struct {
	cfg   Config
	table [maxSyscall]*Call // dispatch, by number
	arena *mm.Arena

	bootTime time.Duration // monotonic
	futexes  futexTable
	files    fileState
	events   event.Space
	inotify  inotify.Space
	tty      tty.Space
	net      network
	turns    turns

	mu       sync.Mutex // protects the maps and nextTID; taken before Process.mu
	procs    map[int32]*Process
	tasks    map[int32]*Task
	nextTID  int32
	reported map[uintptr]bool // unimplemented calls already named in the log

	exitOnce sync.Once
	forkOnce sync.Once
}

// exit ends the container with the status of its init process.
func (k *Kernel) exit(p *Process) {
	k.exitOnce.Do(func() {
		p.mu.Lock()
		status := exitStatus(p.status)
		p.mu.Unlock()
		k.cfg.Exit(status)
	})
}

// monotonic is CLOCK_MONOTONIC, the guest's too: it shares the host's vDSO.
func (k *Kernel) monotonic() time.Duration {
	return hypercall.Monotonic()
}
