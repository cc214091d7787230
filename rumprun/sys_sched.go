package rumprun

import (
	"sync/atomic"

	"golang.org/x/sys/unix"
)

// Scheduling: the Go scheduler runs the guest's threads. Policies and nice
// values are kept as Linux keeps them and change nothing.
var schedCalls = []Call{
	{unix.SYS_SCHED_YIELD, "sched_yield", sysSchedYield, Full, ""},
	{unix.SYS_SCHED_GETAFFINITY, "sched_getaffinity", sysSchedGetaffinity, Full, ""},
	{unix.SYS_SCHED_SETAFFINITY, "sched_setaffinity", sysSchedSetaffinity, Full, ""},
	{unix.SYS_SCHED_GETSCHEDULER, "sched_getscheduler", sysSchedGetscheduler, Full, ""},
	{unix.SYS_SCHED_SETSCHEDULER, "sched_setscheduler", sysSchedSetscheduler, Partial, "policies are kept, without effect; SCHED_FIFO and SCHED_RR are EPERM"},
	{unix.SYS_SCHED_GETPARAM, "sched_getparam", sysSchedGetparam, Full, ""},
	{unix.SYS_SCHED_SETPARAM, "sched_setparam", sysSchedSetparam, Partial, "priority 0 only, that of the policies there are"},
	{unix.SYS_SCHED_RR_GET_INTERVAL, "sched_rr_get_interval", sysSchedRRGetInterval, Partial, "always 10 ms, the time after which a busy thread is preempted"},
	{unix.SYS_SCHED_GET_PRIORITY_MAX, "sched_get_priority_max", sysSchedPriorityMax, Full, ""},
	{unix.SYS_SCHED_GET_PRIORITY_MIN, "sched_get_priority_min", sysSchedPriorityMin, Full, ""},
	{unix.SYS_GETPRIORITY, "getpriority", sysGetpriority, Full, ""},
	{unix.SYS_SETPRIORITY, "setpriority", sysSetpriority, Partial, "nice values are kept, without effect"},
	{unix.SYS_GETCPU, "getcpu", sysGetcpu, Full, ""},
}

// Scheduling policies of sched(7).
const (
	schedOther       = 0
	schedFIFO        = 1
	schedRR          = 2
	schedBatch       = 3
	schedIdle        = 5
	schedDeadline    = 6
	schedExt         = 7
	schedResetOnFork = 0x40000000
)

// scheduling is what a thread has asked of the scheduler.
type scheduling struct {
	nice   atomic.Int32
	policy atomic.Int32 // with schedResetOnFork
}

// inherit is what a new thread or process gets of its creator's.
func (s *scheduling) inherit(from *scheduling) {
	n, p := from.nice.Load(), from.policy.Load()
	if p&schedResetOnFork != 0 {
		n, p = max(n, 0), 0
	}
	s.nice.Store(n)
	s.policy.Store(p)
}

// schedTarget finds the thread of a sched_ call (0: the caller).
func (t *Task) schedTarget(tid uintptr) (*Task, error) {
	if int32(tid) == 0 {
		return t, nil
	}
	if u := t.k.task(int32(tid)); u != nil {
		return u, nil
	}
	return nil, unix.ESRCH
}

// schedTargetPositive is schedTarget for the calls that refuse negative numbers.
func (t *Task) schedTargetPositive(tid uintptr) (*Task, error) {
	if int32(tid) < 0 {
		return nil, unix.EINVAL
	}
	return t.schedTarget(tid)
}

// maySchedule says whether t may change u's scheduling: its owner may.
func (t *Task) maySchedule(u *Task) bool {
	own, other := t.p.fs.creds.Load(), u.p.fs.creds.Load()
	return own.EUID == other.UID || own.EUID == other.EUID
}

func sysSchedYield(t *Task, _ Args) (uintptr, error) {
	yield()
	return 0, nil
}

// sysSchedGetaffinity is sched_getaffinity(2): one processor, number 0.
func sysSchedGetaffinity(t *Task, a Args) (uintptr, error) {
	if a[1] < 8 || a[1]%8 != 0 {
		return 0, unix.EINVAL
	}
	if _, err := t.schedTarget(a[0]); err != nil {
		return 0, err
	}
	return 8, copyOut(t, a[2], uint64(1))
}

// sysSchedSetaffinity is sched_setaffinity(2).
func sysSchedSetaffinity(t *Task, a Args) (uintptr, error) {
	b, err := t.Bytes(a[2], int(min(a[1], 128)), false)
	if err != nil {
		return 0, err
	}
	u, err := t.schedTarget(a[0])
	if err != nil {
		return 0, err
	}
	if !t.maySchedule(u) {
		return 0, unix.EPERM
	}
	if len(b) == 0 || b[0]&1 == 0 {
		return 0, unix.EINVAL
	}
	return 0, nil
}

// sysSchedGetscheduler is sched_getscheduler(2).
func sysSchedGetscheduler(t *Task, a Args) (uintptr, error) {
	u, err := t.schedTargetPositive(a[0])
	if err != nil {
		return 0, err
	}
	return uintptr(u.sched.policy.Load()), nil
}

// sysSchedSetscheduler is sched_setscheduler(2), without CAP_SYS_NICE and with
// RLIMIT_RTPRIO and RLIMIT_NICE 0.
func sysSchedSetscheduler(t *Task, a Args) (uintptr, error) {
	if int32(a[0]) < 0 || a[2] == 0 || a.Int(1) < 0 {
		return 0, unix.EINVAL
	}
	prio, err := copyIn[int32](t, a[2])
	if err != nil {
		return 0, err
	}
	u, err := t.schedTarget(a[0])
	if err != nil {
		return 0, err
	}
	policy := int32(a[1])
	switch policy &^ schedResetOnFork {
	case schedOther, schedBatch, schedIdle:
		if prio != 0 {
			return 0, unix.EINVAL
		}
	case schedFIFO, schedRR:
		if prio < 1 || prio > 99 {
			return 0, unix.EINVAL
		}
		return 0, unix.EPERM
	default:
		return 0, unix.EINVAL
	}
	old := u.sched.policy.Load()
	switch {
	case !t.maySchedule(u),
		old&^schedResetOnFork == schedIdle && policy&^schedResetOnFork != schedIdle, // as a raise of priority
		old&schedResetOnFork != 0 && policy&schedResetOnFork == 0:
		return 0, unix.EPERM
	}
	u.sched.policy.Store(policy)
	return 0, nil
}

// sysSchedGetparam is sched_getparam(2).
func sysSchedGetparam(t *Task, a Args) (uintptr, error) {
	if a[1] == 0 {
		return 0, unix.EINVAL
	}
	if _, err := t.schedTargetPositive(a[0]); err != nil {
		return 0, err
	}
	return 0, copyOut(t, a[1], int32(0))
}

// sysSchedSetparam is sched_setparam(2).
func sysSchedSetparam(t *Task, a Args) (uintptr, error) {
	if int32(a[0]) < 0 || a[1] == 0 {
		return 0, unix.EINVAL
	}
	prio, err := copyIn[int32](t, a[1])
	if err != nil {
		return 0, err
	}
	u, err := t.schedTarget(a[0])
	switch {
	case err != nil:
	case prio != 0:
		err = unix.EINVAL
	case !t.maySchedule(u):
		err = unix.EPERM
	}
	return 0, err
}

// sysSchedRRGetInterval is sched_rr_get_interval(2).
func sysSchedRRGetInterval(t *Task, a Args) (uintptr, error) {
	if _, err := t.schedTargetPositive(a[0]); err != nil {
		return 0, err
	}
	return 0, copyOut(t, a[1], unix.Timespec{Nsec: 10_000_000})
}

func sysSchedPriorityMax(t *Task, a Args) (uintptr, error) {
	switch a[0] {
	case schedFIFO, schedRR:
		return 99, nil
	case schedOther, schedBatch, schedIdle, schedDeadline, schedExt:
		return 0, nil
	}
	return 0, unix.EINVAL
}

func sysSchedPriorityMin(t *Task, a Args) (uintptr, error) {
	switch a[0] {
	case schedFIFO, schedRR:
		return 1, nil
	case schedOther, schedBatch, schedIdle, schedDeadline, schedExt:
		return 0, nil
	}
	return 0, unix.EINVAL
}

// priorityTargets are the threads that getpriority(2) and setpriority(2) mean.
func (t *Task) priorityTargets(which, who uintptr) ([]*Task, error) {
	var of func(u *Task) bool
	switch int32(which) {
	case unix.PRIO_PROCESS:
		u, err := t.schedTarget(who)
		if err != nil {
			return nil, err
		}
		return []*Task{u}, nil
	case unix.PRIO_PGRP:
		group, err := sysGetpgid(t, Args{who})
		if err != nil {
			return nil, err
		}
		of = func(u *Task) bool { g, err := sysGetpgid(t, Args{uintptr(u.p.pid)}); return err == nil && g == group }
	case unix.PRIO_USER:
		uid := uint32(who)
		if uid == 0 {
			uid = t.p.fs.creds.Load().UID
		}
		of = func(u *Task) bool { return u.p.fs.creds.Load().UID == uid }
	default:
		return nil, unix.EINVAL
	}
	t.k.mu.Lock()
	all := make([]*Task, 0, len(t.k.tasks))
	for _, u := range t.k.tasks {
		all = append(all, u)
	}
	t.k.mu.Unlock()
	var list []*Task
	for _, u := range all {
		if of(u) {
			list = append(list, u)
		}
	}
	if len(list) == 0 {
		return nil, unix.ESRCH
	}
	return list, nil
}

// sysGetpriority is getpriority(2): the raw call answers 20 minus the lowest
// nice value.
func sysGetpriority(t *Task, a Args) (uintptr, error) {
	list, err := t.priorityTargets(a[0], a[1])
	if err != nil {
		return 0, err
	}
	lowest := int32(19)
	for _, u := range list {
		lowest = min(lowest, u.sched.nice.Load())
	}
	return uintptr(20 - lowest), nil
}

// sysSetpriority is setpriority(2), without CAP_SYS_NICE and with RLIMIT_NICE 0:
// a nice value can only rise.
func sysSetpriority(t *Task, a Args) (uintptr, error) {
	list, err := t.priorityTargets(a[0], a[1])
	if err != nil {
		return 0, err
	}
	nice := min(max(int32(a[2]), -20), 19)
	for _, u := range list {
		switch {
		case !t.maySchedule(u):
			err = unix.EPERM
		case nice < u.sched.nice.Load():
			err = unix.EACCES
		default:
			u.sched.nice.Store(nice)
		}
	}
	return 0, err
}

// sysGetcpu is getcpu(2): processor 0 of node 0.
func sysGetcpu(t *Task, a Args) (uintptr, error) {
	for _, p := range a[:2] {
		if p != 0 {
			if err := copyOut(t, p, uint32(0)); err != nil {
				return 0, err
			}
		}
	}
	return 0, nil
}
