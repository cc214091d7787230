package rumprun

import (
	"fmt"
	"time"

	"golang.org/x/sys/unix"

	"gvisor.dev/gvisor/pkg/abi/linux"

	"github.com/nabla-build/nabla-build/rumprun/guest"
	"github.com/nabla-build/nabla-build/rumprun/mm"
	"github.com/nabla-build/nabla-build/rumprun/vfs"
)

// Boot makes the library OS's state: file systems, network stack, the first
// process with its standard descriptors. It runs before lockdown and starts no
// guest code. An error names what could not be set up.
func Boot(cfg Config) (*Kernel, error) {
	// The local time zone would be read from a file at its first use, which
	// may come after lockdown.
	time.Local = time.UTC
	table, err := buildTable()
	if err != nil {
		return nil, err
	}
	arena, err := mm.NewArena(cfg.Memory, cfg.MemoryLimit)
	if err != nil {
		return nil, fmt.Errorf("guest memory: %w", err)
	}
	k := &Kernel{
		cfg: cfg, table: table, arena: arena,
		procs: map[int32]*Process{}, tasks: map[int32]*Task{}, reported: map[uintptr]bool{},
	}
	k.futexes.queues = map[uintptr]*futexQueue{}
	k.bootTime = k.monotonic()
	if err := k.newFiles(); err != nil {
		return nil, err
	}
	if err := k.bootNetwork(); err != nil {
		return nil, err
	}
	return k, nil
}

// Run loads the first program and runs the guest. It does not return before
// the container ends, which it does through Config.Exit; the returned error
// says why the program could not be started at all, errno as execve(2) has it.
func (k *Kernel) Run() error {
	p := k.newProcess(nil)
	p.setSpace(newSpace(k.arena.NewAddressSpace()))
	p.fds = NewFDTable(int(p.limits.get(unix.RLIMIT_NOFILE).Cur))
	p.fs = newFSContext(k.files.ns, k.cfg.Dir, vfs.NewCreds(k.cfg.UID, k.cfg.GID, k.cfg.Groups))
	for i, f := range k.cfg.Stdio {
		if f == nil {
			continue
		}
		if err := p.fds.Replace(i, NewDescription(f), false); err != nil {
			return fmt.Errorf("standard descriptor %d: %w", i, err)
		}
	}
	ctx := guest.NewContext()
	t := p.newTask(ctx)
	if err := t.loadFirst(k.cfg.Argv, k.cfg.Env); err != nil {
		return err
	}
	go k.hostSignals(p)
	go t.run()
	<-p.done
	return nil
}

// hostSignals passes the signals that are sent to the container on to its
// init.
func (k *Kernel) hostSignals(init *Process) {
	for n := range k.cfg.Signals {
		if n < 1 || n > linux.SignalMaximum {
			continue
		}
		init.signal(nil, linux.SignalInfo{Signo: int32(n), Code: linux.SI_USER})
	}
}
