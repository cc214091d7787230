package rumprun

import (
	"fmt"
	"sync/atomic"
	"time"

	"golang.org/x/sys/unix"

	"gvisor.dev/gvisor/pkg/abi/linux"

	"github.com/nabla-build/nabla-build/rumprun/guest"
)

// Child processes in the one address space. A child runs in its parent's
// memory until it executes a program, which is loaded at other addresses.
// vfork(2) and clone(CLONE_VM|CLONE_VFORK) mean exactly that. fork(2) promises
// a copy: the parent stands still meanwhile and gets its memory back as it was,
// and if the child does anything else than prepare an execve, fork answers
// ENOSYS as if it had never been. docs/processes.md says more.

// birth is how a child that runs in its parent's memory leaves it.
type birth struct {
	// released is closed when the child has a program of its own, or has ended.
	released chan struct{}
	done     atomic.Bool
	// fork says that the parent gets its memory back: the child may only do
	// what leads to an execve.
	fork    bool
	undone  atomic.Bool // the child ends as if it had never been
	because atomic.Pointer[string]
}

// release lets the parent go on.
func (b *birth) release() {
	if b != nil && b.done.CompareAndSwap(false, true) {
		close(b.released)
	}
}

// undo ends a forked child t without a trace; why completes "the child".
func (b *birth) undo(t *Task, why string) {
	if b.done.Load() || !b.undone.CompareAndSwap(false, true) {
		return
	}
	b.because.Store(&why)
	for _, u := range t.p.threads() {
		u.exiting.Store(true)
		u.kick()
	}
}

// forkTime is how long a forked child may take until its execve: its parent
// stands still.
const forkTime = 5 * time.Second

// forkWait is how long it may wait in one call: for longer it waits for its
// parent, which cannot come.
const forkWait = 100 * time.Millisecond

// forked returns the birth of a forked child that has no program of its own
// yet, nil for all others.
func (p *Process) forked() *birth {
	if b := p.birth; b != nil && b.fork && !b.done.Load() {
		return b
	}
	return nil
}

// cloneProcess makes a child process: clone(2) without CLONE_THREAD.
func (t *Task) cloneProcess(c *linux.CloneArgs) (uintptr, error) {
	const namespaces = unix.CLONE_NEWNS | unix.CLONE_NEWPID | unix.CLONE_NEWUSER | unix.CLONE_NEWNET |
		unix.CLONE_NEWIPC | unix.CLONE_NEWUTS | unix.CLONE_NEWCGROUP | unix.CLONE_NEWTIME
	switch {
	case c.Flags&unix.CLONE_SIGHAND != 0 && c.Flags&unix.CLONE_VM == 0,
		c.Flags&(unix.CLONE_SIGHAND|unix.CLONE_CLEAR_SIGHAND) == unix.CLONE_SIGHAND|unix.CLONE_CLEAR_SIGHAND,
		c.Flags&unix.CLONE_PIDFD != 0 && c.Flags&unix.CLONE_PARENT_SETTID != 0 && c.Pidfd == c.ParentTID,
		c.ExitSignal > linux.SignalMaximum:
		return 0, unix.EINVAL
	case c.Flags&namespaces != 0:
		return 0, unix.EPERM
	case t.p.limits.threadsExceeded(t.k.userThreads(t.p.uid())):
		return 0, unix.EAGAIN
	}
	if c.Flags&unix.CLONE_VM == 0 {
		return t.fork(c)
	}
	child, err := t.newChild(c)
	if err != nil {
		return 0, err
	}
	pid := child.p.pid
	if c.Flags&unix.CLONE_PARENT_SETTID != 0 {
		copyOut(t, uintptr(c.ParentTID), pid)
	}
	if c.Flags&unix.CLONE_CHILD_SETTID != 0 {
		copyOut(t, uintptr(c.ChildTID), pid)
	}
	b := child.p.birth
	go child.run()
	if c.Flags&unix.CLONE_VFORK != 0 {
		t.parked()
		for waiting := true; waiting && !t.exiting.Load(); {
			select {
			case <-b.released:
				waiting = false
			case <-t.interrupt:
			}
		}
		t.resumed()
		t.kick() // what came meanwhile
	}
	return uintptr(pid), nil
}

// newChild makes a child with one thread, which is not started, in t's memory.
func (t *Task) newChild(c *linux.CloneArgs) (*Task, error) {
	parent := t.p
	if c.Flags&unix.CLONE_PARENT != 0 && parent.parent != nil {
		parent = parent.parent
	}
	p := t.k.newProcess(parent)
	p.exitSignal = int32(c.ExitSignal)
	p.birth = &birth{released: make(chan struct{})}
	t.p.space.users.Add(1)
	p.setSpace(t.p.space)
	if c.Flags&unix.CLONE_FILES != 0 {
		p.fds = t.p.fds.Share()
	} else {
		p.fds = t.p.fds.Clone()
	}
	if c.Flags&unix.CLONE_FS != 0 {
		p.fs = t.p.fs
	} else {
		p.fs = t.p.fs.clone()
	}
	switch {
	case c.Flags&unix.CLONE_SIGHAND != 0:
		p.sighand = t.p.sighand
	case c.Flags&unix.CLONE_CLEAR_SIGHAND != 0:
		p.sighand = t.p.sighand.copy()
		p.sighand.exec()
	default:
		p.sighand = t.p.sighand.copy()
	}
	p.limits.copy(&t.p.limits)
	t.p.mu.Lock()
	p.program, p.dumpable = t.p.program, t.p.dumpable
	t.p.mu.Unlock()
	if c.Flags&unix.CLONE_PIDFD != 0 {
		fd, err := t.newFD(newPidfd(p, 0), true)
		if err == nil {
			if err = copyOut(t, uintptr(c.Pidfd), int32(fd)); err != nil {
				t.p.fds.Close(int(fd))
			}
		}
		if err != nil {
			t.k.forget(p)
			p.releaseAll()
			return nil, err
		}
	}
	ctx := guest.NewContext()
	ctx.CopyFrom(t.ctx)
	ctx.Rax = 0
	if c.Stack != 0 {
		ctx.Rsp = c.Stack
	}
	if c.Flags&unix.CLONE_SETTLS != 0 {
		ctx.FsBase = c.TLS
	}
	u := p.newTask(ctx)
	u.comm, u.attr = t.comm, t.attr.inherited()
	u.setMask(t.mask())
	if c.Flags&(unix.CLONE_VM|unix.CLONE_VFORK) != unix.CLONE_VM {
		u.altstack = t.altstack // sigaltstack(2)
	}
	if c.Flags&unix.CLONE_CHILD_CLEARTID != 0 {
		u.clearTID = uintptr(c.ChildTID)
	}
	return u, nil
}

// fork is clone(2) without CLONE_VM.
func (t *Task) fork(c *linux.CloneArgs) (uintptr, error) {
	p := t.p
	if p.birth != nil && !p.birth.done.Load() || p.space.users.Load() > 1 {
		return t.noFork("it is a child without a program of its own")
	}
	t.endTurn() // a thread that waits for it must get through the gate
	p.gate.shut()
	defer p.gate.open()
	if p.space.windowed.Load() {
		t.takeTurn()
	}
	snap, err := p.space.Snapshot()
	if err != nil {
		return 0, err
	}
	child, err := t.newChild(c)
	if err != nil {
		snap.Restore()
		return 0, err
	}
	b := child.p.birth
	b.fork = true
	child.clearTID = 0 // of memory that comes back as it was
	pid := child.p.pid
	if c.Flags&unix.CLONE_CHILD_SETTID != 0 {
		copyOut(t, uintptr(c.ChildTID), pid)
	}
	timer := time.AfterFunc(forkTime, func() { b.undo(child, fmt.Sprintf("did not execute a program within %s", forkTime)) })
	t.endTurn()
	go child.run()
	<-b.released
	timer.Stop()
	if p.space.windowed.Load() {
		t.takeTurn()
	}
	snap.Restore()
	if b.undone.Load() {
		return t.noFork("the child " + *b.because.Load())
	}
	if c.Flags&unix.CLONE_PARENT_SETTID != 0 {
		copyOut(t, uintptr(c.ParentTID), pid)
	}
	return uintptr(pid), nil
}

// noFork answers ENOSYS for a fork that is not possible, and says why once.
func (t *Task) noFork(why string) (uintptr, error) {
	t.k.forkOnce.Do(func() {
		t.k.logf("nabla: %s called fork: not possible, because application and library OS are one process: %s; a fork that leads to execve at once, vfork, posix_spawn and threads work", t.p.name(), why)
	})
	return 0, unix.ENOSYS
}

// beforeExec are the calls that a forked child may make: what programs do
// between fork and execve. They change what is the child's own, or files.
var beforeExec = func() (set [maxSyscall]bool) {
	for _, nr := range []uintptr{
		unix.SYS_EXECVE, unix.SYS_EXECVEAT, unix.SYS_EXIT, unix.SYS_EXIT_GROUP,
		unix.SYS_READ, unix.SYS_WRITE, unix.SYS_WRITEV, unix.SYS_OPEN, unix.SYS_OPENAT, unix.SYS_CLOSE, unix.SYS_CLOSE_RANGE, unix.SYS_LSEEK,
		unix.SYS_PREAD64, unix.SYS_DUP, unix.SYS_DUP2, unix.SYS_DUP3, unix.SYS_FCNTL, unix.SYS_PIPE, unix.SYS_PIPE2, unix.SYS_IOCTL,
		unix.SYS_STAT, unix.SYS_LSTAT, unix.SYS_FSTAT, unix.SYS_NEWFSTATAT, unix.SYS_STATX, unix.SYS_ACCESS, unix.SYS_FACCESSAT, unix.SYS_FACCESSAT2,
		unix.SYS_READLINK, unix.SYS_READLINKAT, unix.SYS_GETDENTS64, unix.SYS_GETCWD, unix.SYS_CHDIR, unix.SYS_FCHDIR, unix.SYS_CHROOT, unix.SYS_UMASK,
		unix.SYS_RT_SIGACTION, unix.SYS_RT_SIGPROCMASK, unix.SYS_RT_SIGRETURN, unix.SYS_SIGALTSTACK, unix.SYS_KILL, unix.SYS_TKILL, unix.SYS_TGKILL,
		unix.SYS_GETPID, unix.SYS_GETPPID, unix.SYS_GETTID, unix.SYS_GETPGRP, unix.SYS_GETPGID, unix.SYS_GETSID, unix.SYS_SETPGID, unix.SYS_SETSID,
		unix.SYS_GETUID, unix.SYS_GETEUID, unix.SYS_GETGID, unix.SYS_GETEGID, unix.SYS_GETRESUID, unix.SYS_GETRESGID, unix.SYS_GETGROUPS,
		unix.SYS_SETUID, unix.SYS_SETGID, unix.SYS_SETREUID, unix.SYS_SETREGID, unix.SYS_SETRESUID, unix.SYS_SETRESGID, unix.SYS_SETGROUPS,
		unix.SYS_SETFSUID, unix.SYS_SETFSGID, unix.SYS_CAPGET, unix.SYS_CAPSET, unix.SYS_PRCTL,
		unix.SYS_GETRLIMIT, unix.SYS_SETRLIMIT, unix.SYS_PRLIMIT64, unix.SYS_GETRUSAGE, unix.SYS_GETPRIORITY, unix.SYS_SETPRIORITY,
		unix.SYS_SCHED_YIELD, unix.SYS_SCHED_SETSCHEDULER, unix.SYS_SCHED_SETAFFINITY, unix.SYS_SCHED_GETAFFINITY, unix.SYS_SCHED_SETPARAM,
		unix.SYS_SET_ROBUST_LIST, unix.SYS_SET_TID_ADDRESS, unix.SYS_RSEQ, unix.SYS_FUTEX, unix.SYS_GETRANDOM, unix.SYS_UNAME,
		unix.SYS_CLOCK_GETTIME, unix.SYS_GETTIMEOFDAY, unix.SYS_TIME, unix.SYS_GETITIMER, unix.SYS_SETITIMER, unix.SYS_ALARM,
		unix.SYS_BRK, unix.SYS_MMAP, unix.SYS_MPROTECT, unix.SYS_MADVISE,
	} {
		set[nr] = true
	}
	return set
}()

// mayBeforeExec says whether a forked child may make a call.
func (t *Task) mayBeforeExec(nr uintptr, a *Args) bool {
	if nr >= maxSyscall || !beforeExec[nr] {
		return false
	}
	switch nr {
	case unix.SYS_MMAP: // more memory for itself; what it has stays
		return a[3]&(unix.MAP_FIXED|unix.MAP_SHARED) == 0
	case unix.SYS_FUTEX: // nobody is there to wake it
		op := a.Int(1) & 0x7f
		return op == linux.FUTEX_WAKE || op == linux.FUTEX_WAKE_BITSET
	case unix.SYS_MADVISE:
		return a.Int(2) != unix.MADV_DONTNEED && a.Int(2) != unix.MADV_REMOVE
	}
	return true
}

// ownMemory gives the process memory of its own instead of its parent's, which
// it leaves (execve(2)).
func (p *Process) ownMemory() {
	old := p.space
	p.setSpace(newSpace(p.k.arena.NewAddressSpace()))
	old.drop()
}

func (p *Process) setSpace(s *sharedSpace) { p.space, p.as = s, s.AddressSpace }
