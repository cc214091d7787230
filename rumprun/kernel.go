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

	"github.com/nabla-build/nabla-build/rumprun/mm"
)

// Kernel is the state that all guest processes share.
type Kernel struct {
	cfg Config

	mu      sync.Mutex // protects the maps and nextTID
	procs   map[int32]*Process
	tasks   map[int32]*Task
	nextTID int32

	files fileState
}

// Process is a guest process: what its threads share. Children made by vfork
// and posix_spawn are processes of their own at other addresses of the one
// address space.
type Process struct {
	k      *Kernel
	pid    int32
	parent *Process

	as  *mm.AddressSpace
	fds *FDTable
	fs  *fsContext
}
