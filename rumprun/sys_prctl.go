package rumprun

import (
	"gvisor.dev/gvisor/pkg/abi/linux"

	"golang.org/x/sys/unix"
)

var prctlCalls = []Call{
	{unix.SYS_PRCTL, "prctl", sysPrctl, Partial, "names, dumpable, parent-death signal, subreaper, kept capabilities, timer slack (kept, without effect), no_new_privs (always set), capabilities of a default container; all else EINVAL"},
}

// attributes are what a thread sets with prctl(2) and only reads back: the
// library OS has no capabilities that setuid would drop, and its timers are
// precise.
type attributes struct {
	keepCaps bool // PR_SET_KEEPCAPS
	// slack and defaultSlack are timer slacks in ns; 0 is Linux's 50 µs.
	slack, defaultSlack uint64
}

// inherited are the attributes of a thread or process that is made.
func (a attributes) inherited() attributes {
	a.defaultSlack = a.slack
	return a
}

func bit(b bool) uintptr {
	if b {
		return 1
	}
	return 0
}

// sysPrctl is prctl(2).
func sysPrctl(t *Task, a Args) (uintptr, error) {
	const (
		vmaName      = 0x53564d41 // PR_SET_VMA
		defaultSlack = 50_000
	)
	switch a.Int(0) {
	case unix.PR_SET_NAME:
		s, err := t.CString(a[1], 16)
		if err == unix.ENAMETOOLONG {
			b, err2 := t.Bytes(a[1], 15, false)
			if err2 != nil {
				return 0, err2
			}
			s, err = string(b), nil
		}
		if err != nil {
			return 0, err
		}
		t.setName(s)
		return 0, nil
	case unix.PR_GET_NAME:
		return 0, t.CopyOut(a[1], t.comm[:])
	case unix.PR_GET_DUMPABLE:
		return bit(t.p.dumpable), nil
	case unix.PR_SET_DUMPABLE:
		if a[1] > 1 {
			return 0, unix.EINVAL
		}
		t.p.dumpable = a[1] == 1
		return 0, nil
	case unix.PR_SET_PDEATHSIG:
		if a[1] > linux.SignalMaximum {
			return 0, unix.EINVAL
		}
		t.p.deathSignal.Store(int32(a[1]))
		return 0, nil
	case unix.PR_GET_PDEATHSIG:
		return 0, copyOut(t, a[1], t.p.deathSignal.Load())
	case unix.PR_SET_CHILD_SUBREAPER:
		t.k.mu.Lock()
		defer t.k.mu.Unlock()
		t.p.subreaper = a[1] != 0
		return 0, nil
	case unix.PR_GET_CHILD_SUBREAPER:
		t.k.mu.Lock()
		on := t.p.subreaper
		t.k.mu.Unlock()
		return 0, copyOut(t, a[1], int32(bit(on)))
	case unix.PR_SET_KEEPCAPS:
		if a[1] > 1 {
			return 0, unix.EINVAL
		}
		t.attr.keepCaps = a[1] == 1
		return 0, nil
	case unix.PR_GET_KEEPCAPS:
		return bit(t.attr.keepCaps), nil
	case unix.PR_SET_TIMERSLACK:
		t.attr.slack = uint64(a[1])
		if int(a[1]) <= 0 {
			t.attr.slack = t.attr.defaultSlack
		}
		return 0, nil
	case unix.PR_GET_TIMERSLACK:
		if t.attr.slack == 0 {
			return defaultSlack, nil
		}
		return uintptr(t.attr.slack), nil
	case unix.PR_SET_THP_DISABLE:
		if a[2] != 0 || a[3] != 0 || a[4] != 0 {
			return 0, unix.EINVAL
		}
		return 0, nil
	case unix.PR_GET_THP_DISABLE:
		if a[1] != 0 || a[2] != 0 || a[3] != 0 || a[4] != 0 {
			return 0, unix.EINVAL
		}
		return 0, nil
	case vmaName, unix.PR_GET_SECCOMP, unix.PR_GET_SECUREBITS:
		return 0, nil
	case unix.PR_SET_NO_NEW_PRIVS:
		if a[1] != 1 || a[2] != 0 || a[3] != 0 || a[4] != 0 {
			return 0, unix.EINVAL
		}
		return 0, nil
	case unix.PR_GET_NO_NEW_PRIVS:
		if a[1] != 0 || a[2] != 0 || a[3] != 0 || a[4] != 0 {
			return 0, unix.EINVAL
		}
		return 1, nil
	case unix.PR_CAPBSET_READ:
		if a[1] > unix.CAP_LAST_CAP {
			return 0, unix.EINVAL
		}
		return bit(uint64(rootCaps)>>a[1]&1 == 1), nil
	case unix.PR_CAP_AMBIENT:
		return 0, ambient(a)
	}
	return 0, unix.EINVAL
}

// ambient is PR_CAP_AMBIENT: nothing is inheritable, so nothing can be raised.
func ambient(a Args) error {
	if a[3] != 0 || a[4] != 0 {
		return unix.EINVAL
	}
	if a[1] == unix.PR_CAP_AMBIENT_CLEAR_ALL {
		if a[2] != 0 {
			return unix.EINVAL
		}
		return nil
	}
	if a[2] > unix.CAP_LAST_CAP {
		return unix.EINVAL
	}
	switch a[1] {
	case unix.PR_CAP_AMBIENT_IS_SET, unix.PR_CAP_AMBIENT_LOWER:
		return nil
	case unix.PR_CAP_AMBIENT_RAISE:
		return unix.EPERM
	}
	return unix.EINVAL
}
