package rumprun

import (
	"golang.org/x/sys/unix"

	"gvisor.dev/gvisor/pkg/abi/linux"

	"github.com/nabla-build/nabla-build/rumprun/guest"
)

var taskCalls = []Call{
	{unix.SYS_CLONE, "clone", sysClone, Partial, "threads and children; without CLONE_VM as fork; no namespaces"},
	{unix.SYS_CLONE3, "clone3", sysClone3, Partial, "as clone; set_tid and cgroups answer EINVAL"},
	{unix.SYS_FORK, "fork", sysFork, Partial, "if the child goes on to execve or exit; otherwise ENOSYS (docs/processes.md)"},
	{unix.SYS_VFORK, "vfork", sysVfork, Full, ""},
	{unix.SYS_EXIT, "exit", sysExit, Full, ""},
	{unix.SYS_EXIT_GROUP, "exit_group", sysExitGroup, Full, ""},
	{unix.SYS_GETPID, "getpid", sysGetpid, Full, ""},
	{unix.SYS_GETPPID, "getppid", sysGetppid, Full, ""},
	{unix.SYS_GETTID, "gettid", sysGettid, Full, ""},
	{unix.SYS_SET_TID_ADDRESS, "set_tid_address", sysSetTidAddress, Full, ""},
	{unix.SYS_SET_ROBUST_LIST, "set_robust_list", sysSetRobustList, Full, ""},
	{unix.SYS_GET_ROBUST_LIST, "get_robust_list", sysGetRobustList, Full, ""},
	{unix.SYS_FUTEX, "futex", sysFutex, Partial, "no priority-inheritance operations (ENOSYS)"},
	{unix.SYS_RSEQ, "rseq", nil, Unsupported, "the C libraries do without"},
	{unix.SYS_ARCH_PRCTL, "arch_prctl", sysArchPrctl, Partial, "ARCH_SET_FS and ARCH_GET_FS; gs belongs to the library OS"},
	{unix.SYS_MEMBARRIER, "membarrier", sysMembarrier, Full, ""},
}

const cloneThread = unix.CLONE_VM | unix.CLONE_FS | unix.CLONE_FILES | unix.CLONE_SIGHAND | unix.CLONE_THREAD

// sysClone is clone(2), in the raw x86-64 order: flags, stack, parent_tid,
// child_tid, tls.
func sysClone(t *Task, a Args) (uintptr, error) {
	return t.clone(&linux.CloneArgs{
		Flags:      uint64(a[0]) &^ 0xff,
		ExitSignal: uint64(a[0]) & 0xff,
		Stack:      uint64(a[1]),
		ParentTID:  uint64(a[2]),
		Pidfd:      uint64(a[2]),
		ChildTID:   uint64(a[3]),
		TLS:        uint64(a[4]),
	})
}

// sysClone3 is clone3(2). set_tid and cgroups answer EINVAL.
func sysClone3(t *Task, a Args) (uintptr, error) {
	const known, smallest = 88, 64 // sizes of struct clone_args
	size := a[1]
	if size < smallest {
		return 0, unix.EINVAL
	}
	if size > 4096 {
		return 0, unix.E2BIG
	}
	raw, err := t.Bytes(a[0], int(size), false)
	if err != nil {
		return 0, err
	}
	var w [known / 8]uint64
	for i := range size {
		if i >= known {
			if raw[i] != 0 {
				return 0, unix.E2BIG
			}
			continue
		}
		w[i/8] |= uint64(raw[i]) << (i % 8 * 8)
	}
	c := linux.CloneArgs{Flags: w[0], Pidfd: w[1], ChildTID: w[2], ParentTID: w[3], ExitSignal: w[4], Stack: w[5], StackSize: w[6], TLS: w[7], SetTID: w[8], SetTIDSize: w[9], Cgroup: w[10]}
	if c.SetTIDSize != 0 || c.Flags&0xff != 0 || c.ExitSignal > 64 || (c.Stack == 0) != (c.StackSize == 0) {
		return 0, unix.EINVAL
	}
	c.Stack += c.StackSize
	return t.clone(&c)
}

// clone makes a thread: one more goroutine with the register state of its
// creator, its own stack pointer and thread pointer.
func (t *Task) clone(c *linux.CloneArgs) (uintptr, error) {
	if c.Flags&unix.CLONE_THREAD == 0 {
		return t.cloneProcess(c)
	}
	if c.Flags&cloneThread != cloneThread || c.Flags&(unix.CLONE_NEWNS|unix.CLONE_NEWPID|unix.CLONE_NEWUSER|unix.CLONE_PIDFD) != 0 {
		return 0, unix.EINVAL
	}
	if c.Flags&unix.CLONE_PARENT_SETTID != 0 {
		if _, err := userPtr[int32](t, uintptr(c.ParentTID), true); err != nil {
			return 0, err
		}
	}
	if c.Flags&unix.CLONE_CHILD_SETTID != 0 {
		if _, err := userPtr[int32](t, uintptr(c.ChildTID), true); err != nil {
			return 0, err
		}
	}
	if t.p.limits.threadsExceeded(len(t.p.threads())) {
		return 0, unix.EAGAIN
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
	u := t.p.newTask(ctx)
	u.comm, u.attr = t.comm, t.attr.inherited()
	u.sched.inherit(&t.sched)
	u.setMask(t.mask())
	if c.Flags&unix.CLONE_PARENT_SETTID != 0 {
		copyOut(t, uintptr(c.ParentTID), u.tid)
	}
	if c.Flags&unix.CLONE_CHILD_SETTID != 0 {
		copyOut(t, uintptr(c.ChildTID), u.tid)
	}
	if c.Flags&unix.CLONE_CHILD_CLEARTID != 0 {
		u.clearTID = uintptr(c.ChildTID)
	}
	tid := u.tid
	if t.exiting.Load() {
		u.exiting.Store(true)
	}
	go u.run()
	return uintptr(tid), nil
}

// sysFork is fork(2), sysVfork is vfork(2).
func sysFork(t *Task, _ Args) (uintptr, error) {
	return t.cloneProcess(&linux.CloneArgs{ExitSignal: uint64(linux.SIGCHLD)})
}

func sysVfork(t *Task, _ Args) (uintptr, error) {
	return t.cloneProcess(&linux.CloneArgs{Flags: unix.CLONE_VM | unix.CLONE_VFORK, ExitSignal: uint64(linux.SIGCHLD)})
}

func sysExit(t *Task, a Args) (uintptr, error) {
	t.p.mu.Lock()
	if len(t.p.tasks) == 1 && !t.p.dying {
		t.p.status = int(a[0]&0xff) << 8
	}
	t.p.mu.Unlock()
	t.exiting.Store(true)
	return 0, nil
}

func sysExitGroup(t *Task, a Args) (uintptr, error) {
	t.exiting.Store(true)
	t.p.exitGroup(int(a[0]&0xff) << 8)
	return 0, nil
}

func sysGetpid(t *Task, _ Args) (uintptr, error) { return uintptr(t.p.pid), nil }
func sysGettid(t *Task, _ Args) (uintptr, error) { return uintptr(t.tid), nil }

func sysGetppid(t *Task, _ Args) (uintptr, error) {
	t.k.mu.Lock()
	defer t.k.mu.Unlock()
	if t.p.parent == nil {
		return 0, nil
	}
	return uintptr(t.p.parent.pid), nil
}

func sysSetTidAddress(t *Task, a Args) (uintptr, error) {
	t.clearTID = a[0]
	return uintptr(t.tid), nil
}

func sysSetRobustList(t *Task, a Args) (uintptr, error) {
	if a[1] != 24 {
		return 0, unix.EINVAL
	}
	t.robustList = a[0]
	return 0, nil
}

func sysGetRobustList(t *Task, a Args) (uintptr, error) {
	u := t
	if a[0] != 0 {
		if u = t.k.task(int32(a[0])); u == nil {
			return 0, unix.ESRCH
		}
	}
	if err := copyOut(t, a[1], uint64(u.robustList)); err != nil {
		return 0, err
	}
	return 0, copyOut(t, a[2], uint64(24))
}

// task returns the live thread of that number, or nil.
func (k *Kernel) task(tid int32) *Task {
	k.mu.Lock()
	defer k.mu.Unlock()
	return k.tasks[tid]
}

// process returns the process of that number, or nil.
func (k *Kernel) process(pid int32) *Process {
	k.mu.Lock()
	defer k.mu.Unlock()
	return k.procs[pid]
}

// sysArchPrctl is arch_prctl(2). The gs base is the crossing's.
func sysArchPrctl(t *Task, a Args) (uintptr, error) {
	const setGS, setFS, getFS, getGS = 0x1001, 0x1002, 0x1003, 0x1004
	switch a[0] {
	case setFS:
		if a[1] >= 1<<47 {
			return 0, unix.EPERM
		}
		t.ctx.FsBase = uint64(a[1])
		return 0, nil
	case getFS:
		return 0, copyOut(t, a[1], t.ctx.FsBase)
	case getGS:
		return 0, copyOut(t, a[1], uint64(0))
	}
	return 0, unix.EINVAL
}

// sysMembarrier is membarrier(2): with one host thread every barrier has
// happened.
func sysMembarrier(t *Task, a Args) (uintptr, error) {
	const all = 1<<0 | 1<<1 | 1<<2 | 1<<3 | 1<<4 | 1<<5 | 1<<6
	cmd := a.Int(0)
	if cmd == 0 {
		return all, nil
	}
	if a[1] != 0 || cmd&^all != 0 || cmd&(cmd-1) != 0 {
		return 0, unix.EINVAL
	}
	return 0, nil
}
