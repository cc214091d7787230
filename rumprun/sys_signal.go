package rumprun

import (
	"time"

	"golang.org/x/sys/unix"

	"gvisor.dev/gvisor/pkg/abi/linux"
)

var signalCalls = []Call{
	{unix.SYS_RT_SIGACTION, "rt_sigaction", sysRtSigaction, Full, ""},
	{unix.SYS_RT_SIGPROCMASK, "rt_sigprocmask", sysRtSigprocmask, Full, ""},
	{unix.SYS_RT_SIGRETURN, "rt_sigreturn", sysRtSigreturn, Full, ""},
	{unix.SYS_RT_SIGPENDING, "rt_sigpending", sysRtSigpending, Full, ""},
	{unix.SYS_RT_SIGTIMEDWAIT, "rt_sigtimedwait", sysRtSigtimedwait, Full, ""},
	{unix.SYS_RT_SIGSUSPEND, "rt_sigsuspend", sysRtSigsuspend, Full, ""},
	{unix.SYS_RT_SIGQUEUEINFO, "rt_sigqueueinfo", sysRtSigqueueinfo, Full, ""},
	{unix.SYS_RT_TGSIGQUEUEINFO, "rt_tgsigqueueinfo", sysRtTgsigqueueinfo, Full, ""},
	{unix.SYS_SIGALTSTACK, "sigaltstack", sysSigaltstack, Full, ""},
	{unix.SYS_TKILL, "tkill", sysTkill, Full, ""},
	{unix.SYS_TGKILL, "tgkill", sysTgkill, Full, ""},
	{unix.SYS_PAUSE, "pause", sysPause, Full, ""},
}

const sigsetSize = 8

// copySigset reads a sigset_t of size bytes; EINVAL for another size.
func (t *Task) copySigset(addr, size uintptr) (sigSet, error) {
	if size != sigsetSize {
		return 0, unix.EINVAL
	}
	return copyIn[sigSet](t, addr)
}

func sysRtSigaction(t *Task, a Args) (uintptr, error) {
	n := a.Int(0)
	if a[3] != sigsetSize || n < 1 || n > linux.SignalMaximum {
		return 0, unix.EINVAL
	}
	var act linux.SigAction
	if a[1] != 0 {
		if unblockable&sigBit(n) != 0 {
			return 0, unix.EINVAL
		}
		var err error
		if act, err = copyIn[linux.SigAction](t, a[1]); err != nil {
			return 0, err
		}
		act.Mask &^= linux.SignalSet(unblockable)
	}
	h := t.p.sighand
	h.mu.Lock()
	old := h.actions[n]
	if a[1] != 0 {
		h.actions[n] = act
	}
	h.mu.Unlock()
	if a[1] != 0 && (act.Handler == linux.SIG_IGN || act.Handler == linux.SIG_DFL && actionOf(n) == actIgnore) {
		t.p.sigs.discard(sigBit(n))
		for _, u := range t.p.threads() {
			u.sigs.discard(sigBit(n))
		}
	}
	if a[2] != 0 {
		return 0, copyOut(t, a[2], old)
	}
	return 0, nil
}

func sysRtSigprocmask(t *Task, a Args) (uintptr, error) {
	if a[3] != sigsetSize {
		return 0, unix.EINVAL
	}
	old := t.mask()
	if a[1] != 0 {
		set, err := copyIn[sigSet](t, a[1])
		if err != nil {
			return 0, err
		}
		switch a.Int(0) {
		case linux.SIG_BLOCK:
			set |= old
		case linux.SIG_UNBLOCK:
			set = old &^ set
		case linux.SIG_SETMASK:
		default:
			return 0, unix.EINVAL
		}
		t.setMask(set)
	}
	if a[2] != 0 {
		return 0, copyOut(t, a[2], old)
	}
	return 0, nil
}

func sysRtSigpending(t *Task, a Args) (uintptr, error) {
	if a[1] > sigsetSize {
		return 0, unix.EINVAL
	}
	set := t.pendingSet() & t.mask()
	var b [8]byte
	for i := range b {
		b[i] = byte(set >> (8 * i))
	}
	return 0, t.CopyOut(a[0], b[:a[1]])
}

// sysRtSigtimedwait is sigtimedwait(2): EAGAIN when the time is over, EINTR
// when another signal's handler is due.
func sysRtSigtimedwait(t *Task, a Args) (uintptr, error) {
	set, err := t.copySigset(a[0], a[3])
	if err != nil {
		return 0, err
	}
	set &^= unblockable
	var deadline time.Time
	if a[2] != 0 {
		ts, err := copyIn[linux.Timespec](t, a[2])
		if err != nil {
			return 0, err
		}
		if !ts.Valid() {
			return 0, unix.EINVAL
		}
		deadline = deadlineIn(saturatingDuration(ts))
	}
	// While it waits, the thread is a target for the signals of the set
	// although it blocks them; they do not interrupt it.
	t.sigwait.Store(uint64(set))
	defer t.sigwait.Store(0)
	for {
		if info, ok := t.dequeueSignal(set); ok {
			if a[1] != 0 {
				if err := copyOut(t, a[1], info); err != nil {
					return 0, err
				}
			}
			return uintptr(info.Signo), nil
		}
		switch err := t.waitInterrupt(deadline, set); err {
		case nil:
		case unix.ETIMEDOUT:
			return 0, unix.EAGAIN
		default:
			return 0, unix.EINTR
		}
	}
}

// waitInterrupt blocks until a signal of set is pending (nil), another one is
// (errRestartNoHand) or the deadline passes (ETIMEDOUT).
func (t *Task) waitInterrupt(deadline time.Time, set sigSet) error {
	var timeout <-chan time.Time
	if !deadline.IsZero() {
		timer := time.NewTimer(max(0, time.Until(deadline)))
		defer timer.Stop()
		timeout = timer.C
	}
	t.parked()
	defer t.resumed()
	for {
		switch {
		case t.pendingSet()&set != 0:
			return nil
		case t.signalPending():
			return errRestartNoHand
		}
		select {
		case <-t.interrupt:
		case <-timeout:
			return unix.ETIMEDOUT
		}
	}
}

func sysRtSigsuspend(t *Task, a Args) (uintptr, error) {
	set, err := t.copySigset(a[0], a[1])
	if err != nil {
		return 0, err
	}
	t.setTempMask(set)
	t.waitInterrupt(time.Time{}, 0)
	return 0, errRestartNoHand
}

func sysPause(t *Task, _ Args) (uintptr, error) {
	t.waitInterrupt(time.Time{}, 0)
	return 0, errRestartNoHand
}

func validSignal(n int) error {
	if n < 0 || n > linux.SignalMaximum {
		return unix.EINVAL
	}
	return nil
}

func sysTkill(t *Task, a Args) (uintptr, error) { return t.tgkill(0, int32(a[0]), a.Int(1)) }

func sysTgkill(t *Task, a Args) (uintptr, error) {
	if int32(a[0]) <= 0 {
		return 0, unix.EINVAL
	}
	return t.tgkill(int32(a[0]), int32(a[1]), a.Int(2))
}

func (t *Task) tgkill(tgid, tid int32, n int) (uintptr, error) {
	if tid <= 0 {
		return 0, unix.EINVAL
	}
	if err := validSignal(n); err != nil {
		return 0, err
	}
	u := t.k.task(tid)
	if u == nil || tgid != 0 && u.p.pid != tgid {
		return 0, unix.ESRCH
	}
	if !t.maySignal(u.p, n) {
		return 0, unix.EPERM
	}
	if n == 0 {
		return 0, nil
	}
	return 0, u.p.signal(u, t.killInfo(n, linux.SI_TKILL))
}

// queueInfo reads the siginfo of rt_sigqueueinfo(2): a process may not forge
// what only the kernel sends to another one.
func (t *Task) queueInfo(addr uintptr, n int, self bool) (linux.SignalInfo, error) {
	info, err := copyIn[linux.SignalInfo](t, addr)
	if err != nil {
		return info, err
	}
	if (info.Code >= 0 || info.Code == linux.SI_TKILL) && !self {
		return info, unix.EPERM
	}
	info.Signo = int32(n)
	return info, nil
}

func sysRtSigqueueinfo(t *Task, a Args) (uintptr, error) {
	n := a.Int(1)
	if err := validSignal(n); err != nil {
		return 0, err
	}
	p := t.k.process(int32(a[0]))
	if p == nil {
		return 0, unix.ESRCH
	}
	info, err := t.queueInfo(a[2], n, p == t.p)
	if err != nil || n == 0 {
		return 0, err
	}
	return 0, p.signal(nil, info)
}

func sysRtTgsigqueueinfo(t *Task, a Args) (uintptr, error) {
	n := a.Int(2)
	if err := validSignal(n); err != nil {
		return 0, err
	}
	u := t.k.task(int32(a[1]))
	if u == nil || u.p.pid != int32(a[0]) {
		return 0, unix.ESRCH
	}
	info, err := t.queueInfo(a[3], n, u.p == t.p)
	if err != nil || n == 0 {
		return 0, err
	}
	return 0, u.p.signal(u, info)
}

// sysSigaltstack is sigaltstack(2).
func sysSigaltstack(t *Task, a Args) (uintptr, error) {
	old := t.altstack
	old.Flags = t.altFlags(t.ctx.Rsp)
	if a[0] != 0 {
		st, err := copyIn[linux.SignalStack](t, a[0])
		if err != nil {
			return 0, err
		}
		if t.onAltStack(t.ctx.Rsp) {
			return 0, unix.EPERM
		}
		switch st.Flags &^ ssAutodisarm {
		case linux.SS_DISABLE:
			st = linux.SignalStack{Flags: linux.SS_DISABLE}
		case 0, linux.SS_ONSTACK:
			if st.Size < minSigStackBytes {
				return 0, unix.ENOMEM
			}
			st.Flags &= ssAutodisarm
		default:
			return 0, unix.EINVAL
		}
		t.altstack = st
	}
	if a[1] != 0 {
		return 0, copyOut(t, a[1], old)
	}
	return 0, nil
}
