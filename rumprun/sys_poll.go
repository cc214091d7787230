package rumprun

import (
	"time"
	"unsafe"

	"golang.org/x/sys/unix"

	"gvisor.dev/gvisor/pkg/abi/linux"
	"gvisor.dev/gvisor/pkg/waiter"
)

// pollCalls are poll(2) and select(2).
var pollCalls = []Call{
	{unix.SYS_POLL, "poll", sysPoll, Full, ""},
	{unix.SYS_PPOLL, "ppoll", sysPpoll, Full, ""},
	{unix.SYS_SELECT, "select", sysSelect, Full, ""},
	{unix.SYS_PSELECT6, "pselect6", sysPselect6, Full, ""},
}

// pollItem is one descriptor that a call polls. d is nil for none.
type pollItem struct {
	d         *Description
	want, got waiter.EventMask
	entry     waiter.Entry
}

func (i *pollItem) check() bool {
	i.got = i.d.Readiness(i.want) & i.want
	return i.got != 0
}

// pollItems waits until an item is ready or, with ready set, not at all; it
// returns nil when the deadline has passed, too.
func (t *Task) pollItems(items []pollItem, ready bool, deadline time.Time) error {
	for i := range items {
		if items[i].d != nil && items[i].check() {
			ready = true
		}
	}
	if ready {
		return nil
	}
	ch := make(chan struct{}, 1)
	for i := range items {
		p := &items[i]
		if p.d == nil {
			continue
		}
		p.entry.Init(waiter.ChannelNotifier(ch), p.want)
		if err := p.d.EventRegister(&p.entry); err != nil {
			return err
		}
		defer p.d.EventUnregister(&p.entry)
	}
	for {
		for i := range items {
			if items[i].d != nil && items[i].check() {
				ready = true
			}
		}
		if ready {
			return nil
		}
		switch err := t.Wait(ch, deadline); err {
		case nil:
		case unix.ETIMEDOUT:
			ready = true // once more, for what came at the last moment
		default:
			return errRestartNoHand
		}
	}
}

func dropItems(items []pollItem) {
	for i := range items {
		if items[i].d != nil {
			items[i].d.DecRef()
		}
	}
}

// pollable returns the description of fd with a reference, nil if there is
// none that can be polled.
func (t *Task) pollable(fd int) *Description {
	d, err := t.p.fds.Get(fd)
	if err != nil {
		return nil
	}
	if d.StatusFlags()&unix.O_PATH != 0 {
		d.DecRef()
		return nil
	}
	return d
}

func (t *Task) poll(addr uintptr, n uintptr, deadline time.Time, block bool) (uintptr, error) {
	if n > uintptr(t.p.limits.get(unix.RLIMIT_NOFILE).Cur) {
		return 0, unix.EINVAL
	}
	var fds []unix.PollFd
	if n > 0 {
		raw, err := t.Bytes(addr, int(n)*int(unsafe.Sizeof(unix.PollFd{})), true)
		if err != nil {
			return 0, err
		}
		fds = unsafe.Slice((*unix.PollFd)(unsafe.Pointer(unsafe.SliceData(raw))), n)
	}
	var few [8]pollItem
	items := few[:]
	if len(fds) > len(few) {
		items = make([]pollItem, len(fds))
	}
	items = items[:len(fds)]
	defer dropItems(items)
	bad := 0
	for i := range fds {
		fd := int(fds[i].Fd)
		if fd < 0 {
			continue
		}
		if items[i].d = t.pollable(fd); items[i].d == nil {
			items[i].got = unix.POLLNVAL
			bad++
			continue
		}
		items[i].want = waiter.EventMask(uint16(fds[i].Events))&waiter.AllEvents | waiter.EventErr | waiter.EventHUp
	}
	err := t.pollItems(items, !block || bad > 0, deadline)
	if err != nil {
		return 0, err
	}
	ready := 0
	for i := range fds {
		fds[i].Revents = int16(items[i].got)
		if items[i].got != 0 {
			ready++
		}
	}
	return uintptr(ready), nil
}

// sysPoll is poll(2).
func sysPoll(t *Task, a Args) (uintptr, error) {
	deadline, block := millis(a.Int(2))
	return t.poll(a[0], uintptr(uint32(a[1])), t.sameEnd(deadline), block)
}

// leaveTimespec stores what is left until the deadline at addr, as the system
// calls (not the C library) do. A timespec that cannot be written is no error.
func (t *Task) leaveTimespec(addr uintptr, deadline time.Time) {
	if addr != 0 && !deadline.IsZero() {
		copyOut(t, addr, linux.DurationToTimespec(max(0, time.Until(deadline))))
	}
}

// sysPpoll is ppoll(2), the system call: it updates the timeout.
func sysPpoll(t *Task, a Args) (uintptr, error) {
	deadline, block, err := t.timeoutArg(a[2])
	if err != nil {
		return 0, err
	}
	defer t.leaveTimespec(a[2], deadline)
	return t.withMask(a[3], a[4], func() (uintptr, error) {
		return t.poll(a[0], uintptr(uint32(a[1])), deadline, block)
	})
}

// fdSet is an fd_set in guest memory; nil for a null pointer.
type fdSet []uint64

func (t *Task) fdSetArg(addr uintptr, n int) (fdSet, error) {
	if addr == 0 || n == 0 {
		return nil, nil
	}
	words := (n + 63) / 64
	raw, err := t.Bytes(addr, words*8, true)
	if err != nil {
		return nil, err
	}
	return unsafe.Slice((*uint64)(unsafe.Pointer(unsafe.SliceData(raw))), words), nil
}

func (s fdSet) has(fd int) bool { return s != nil && s[fd/64]>>(fd%64)&1 != 0 }

// What select reports in which set (select(2), "Correspondence between
// select() and poll() notifications").
const (
	selectIn  = waiter.ReadableEvents | waiter.EventHUp | waiter.EventErr
	selectOut = waiter.WritableEvents | waiter.EventErr
	selectPri = waiter.EventPri
)

func (t *Task) selectFDs(n int, addrs [3]uintptr, deadline time.Time, block bool) (uintptr, error) {
	if n < 0 {
		return 0, unix.EINVAL
	}
	// BUGS in select(2): descriptors beyond the table are not looked at.
	n = min(n, t.p.fds.Size())
	var sets [3]fdSet
	for i, addr := range addrs {
		var err error
		if sets[i], err = t.fdSetArg(addr, n); err != nil {
			return 0, err
		}
	}
	masks := [3]waiter.EventMask{selectIn, selectOut, selectPri}
	var items []pollItem
	var fds []int
	defer func() { dropItems(items) }()
	for fd := range n {
		if fd%64 == 0 {
			var any uint64
			for _, s := range sets {
				if s != nil {
					any |= s[fd/64]
				}
			}
			if any == 0 && fd+64 <= n {
				continue // the following 63 find nothing either
			}
		}
		var want waiter.EventMask
		for i, s := range sets {
			if s.has(fd) {
				want |= masks[i]
			}
		}
		if want == 0 {
			continue
		}
		d := t.pollable(fd)
		if d == nil {
			return 0, unix.EBADF
		}
		items = append(items, pollItem{d: d, want: want})
		fds = append(fds, fd)
	}
	if err := t.pollItems(items, !block, deadline); err != nil {
		return 0, err
	}
	count := 0
	var asked [3][]bool
	for i, s := range sets {
		asked[i] = make([]bool, len(fds))
		for j, fd := range fds {
			asked[i][j] = s.has(fd)
		}
		clear(s)
	}
	for i, s := range sets {
		for j, fd := range fds {
			if asked[i][j] && items[j].got&masks[i] != 0 {
				s[fd/64] |= 1 << (fd % 64)
				count++
			}
		}
	}
	return uintptr(count), nil
}

// sysSelect is select(2), the system call: it updates the timeout.
func sysSelect(t *Task, a Args) (uintptr, error) {
	var deadline time.Time
	block := true
	if a[4] != 0 {
		tv, err := copyIn[linux.Timeval](t, a[4])
		if err != nil {
			return 0, err
		}
		if tv.Sec < 0 || tv.Usec < 0 {
			return 0, unix.EINVAL
		}
		d := saturatingDuration(linux.Timespec{Sec: tv.Sec + tv.Usec/1e6, Nsec: tv.Usec % 1e6 * 1000})
		if block = d > 0; block {
			deadline = deadlineIn(d)
		}
	}
	r, err := t.selectFDs(a.Int(0), [3]uintptr{a[1], a[2], a[3]}, deadline, block)
	if !deadline.IsZero() {
		copyOut(t, a[4], linux.DurationToTimeval(max(0, time.Until(deadline))))
	}
	return r, err
}

// sysPselect6 is pselect(2), the system call: it updates the timeout, and the
// sixth argument points to the mask's address and size.
func sysPselect6(t *Task, a Args) (uintptr, error) {
	deadline, block, err := t.timeoutArg(a[4])
	if err != nil {
		return 0, err
	}
	var mask [2]uintptr
	if a[5] != 0 {
		if mask, err = copyIn[[2]uintptr](t, a[5]); err != nil {
			return 0, err
		}
	}
	defer t.leaveTimespec(a[4], deadline)
	return t.withMask(mask[0], mask[1], func() (uintptr, error) {
		return t.selectFDs(a.Int(0), [3]uintptr{a[1], a[2], a[3]}, deadline, block)
	})
}
