package rumprun

import (
	"sync"
	"sync/atomic"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"

	"gvisor.dev/gvisor/pkg/abi/linux"
)

const futexBitsetAll = ^uint32(0)

// futexWaiter is a task's place in a futex queue; a task waits for one futex
// at a time. next, addr, bits and queued are protected by the table's lock.
type futexWaiter struct {
	futexNext *futexWaiter
	futexAddr uintptr
	futexBits uint32
	queued    bool
	woken     chan struct{} // capacity 1
}

func (w *futexWaiter) init() { w.woken = make(chan struct{}, 1) }

type futexQueue struct{ head, tail *futexWaiter }

// futexTable holds the waiters of every futex by its address: all guest memory
// is one address space, so private and shared futexes are the same.
type futexTable struct {
	mu     sync.Mutex
	queues map[uintptr]*futexQueue
	spare  []*futexQueue
}

func (f *futexTable) add(w *futexWaiter) {
	q := f.queues[w.futexAddr]
	if q == nil {
		if n := len(f.spare); n > 0 {
			q, f.spare = f.spare[n-1], f.spare[:n-1]
		} else {
			q = new(futexQueue)
		}
		f.queues[w.futexAddr] = q
	}
	w.futexNext, w.queued = nil, true
	if q.tail != nil {
		q.tail.futexNext = w
	} else {
		q.head = w
	}
	q.tail = w
}

func (f *futexTable) drop(addr uintptr, q *futexQueue) {
	if q.head == nil {
		delete(f.queues, addr)
		if len(f.spare) < 64 {
			f.spare = append(f.spare, q)
		}
	}
}

// take removes up to n waiters of addr whose bits meet mask and hands each to
// each.
func (f *futexTable) take(addr uintptr, n int, mask uint32, each func(*futexWaiter)) int {
	q := f.queues[addr]
	if q == nil {
		return 0
	}
	done := 0
	var prev *futexWaiter
	for w := q.head; w != nil && done < n; {
		next := w.futexNext
		if w.futexBits&mask == 0 {
			prev, w = w, next
			continue
		}
		if prev == nil {
			q.head = next
		} else {
			prev.futexNext = next
		}
		if q.tail == w {
			q.tail = prev
		}
		w.futexNext, w.queued = nil, false
		each(w)
		done++
		w = next
	}
	f.drop(addr, q)
	return done
}

func (w *futexWaiter) wake() {
	select {
	case w.woken <- struct{}{}:
	default:
	}
}

// wake wakes up to n waiters of addr and returns how many.
func (f *futexTable) wake(addr uintptr, n int, mask uint32) int {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.take(addr, n, mask, (*futexWaiter).wake)
}

// cancel takes w out of its queue; false if a waker was faster.
func (f *futexTable) cancel(w *futexWaiter) bool {
	f.mu.Lock()
	defer f.mu.Unlock()
	if !w.queued {
		return false
	}
	q := f.queues[w.futexAddr]
	var prev *futexWaiter
	for v := q.head; v != w; v = v.futexNext {
		prev = v
	}
	if prev == nil {
		q.head = w.futexNext
	} else {
		prev.futexNext = w.futexNext
	}
	if q.tail == w {
		q.tail = prev
	}
	w.futexNext, w.queued = nil, false
	f.drop(w.futexAddr, q)
	return true
}

// futexWord returns the word at addr, checked: EINVAL if it is not aligned.
func (t *Task) futexWord(addr uintptr) (*uint32, error) {
	if addr&3 != 0 {
		return nil, unix.EINVAL
	}
	return userPtr[uint32](t, addr, false)
}

// sysFutex is futex(2). Deviations: the priority-inheritance operations answer
// ENOSYS, as a kernel without CONFIG_FUTEX_PI does.
func sysFutex(t *Task, a Args) (uintptr, error) {
	addr, op, val := a[0], a.Int(1), uint32(a[2])
	cmd := op &^ (linux.FUTEX_PRIVATE_FLAG | linux.FUTEX_CLOCK_REALTIME)
	switch cmd {
	case linux.FUTEX_WAIT, linux.FUTEX_WAIT_BITSET:
		bits := futexBitsetAll
		if cmd == linux.FUTEX_WAIT_BITSET {
			if bits = uint32(a[5]); bits == 0 {
				return 0, unix.EINVAL
			}
		}
		var deadline time.Time
		if a[3] != 0 {
			ts, err := copyIn[linux.Timespec](t, a[3])
			if err != nil {
				return 0, err
			}
			if !ts.Valid() || ts.Sec < 0 {
				return 0, unix.EINVAL
			}
			d := saturatingDuration(ts)
			if cmd == linux.FUTEX_WAIT_BITSET {
				clock := int32(linux.CLOCK_MONOTONIC)
				if op&linux.FUTEX_CLOCK_REALTIME != 0 {
					clock = linux.CLOCK_REALTIME
				}
				d -= t.k.clockNow(clock)
			}
			deadline = deadlineIn(d)
		}
		return 0, t.futexWait(addr, val, bits, deadline)
	case linux.FUTEX_WAKE, linux.FUTEX_WAKE_BITSET:
		bits := futexBitsetAll
		if cmd == linux.FUTEX_WAKE_BITSET {
			if bits = uint32(a[5]); bits == 0 {
				return 0, unix.EINVAL
			}
		}
		if _, err := t.futexWord(addr); err != nil {
			return 0, err
		}
		return uintptr(t.k.futexes.wake(t.futexKey(addr), max(1, int(int32(val))), bits)), nil
	case linux.FUTEX_REQUEUE, linux.FUTEX_CMP_REQUEUE:
		return t.futexRequeue(addr, a[4], int(int32(val)), int(int32(a[3])), cmd == linux.FUTEX_CMP_REQUEUE, uint32(a[5]))
	case linux.FUTEX_WAKE_OP:
		return t.futexWakeOp(addr, a[4], int(int32(val)), int(int32(a[3])), uint32(a[5]))
	}
	return 0, unix.ENOSYS
}

func (t *Task) futexWait(addr uintptr, val, bits uint32, deadline time.Time) error {
	word, err := t.futexWord(addr)
	if err != nil {
		return err
	}
	w := &t.futexWaiter
	f := &t.k.futexes
	f.mu.Lock()
	if atomic.LoadUint32(word) != val {
		f.mu.Unlock()
		return unix.EAGAIN
	}
	select { // a wake-up of an earlier wait that was cancelled too late
	case <-w.woken:
	default:
	}
	w.futexAddr, w.futexBits = t.futexKey(addr), bits
	f.add(w)
	f.mu.Unlock()
	err = t.Wait(w.woken, deadline)
	if err != nil && !f.cancel(w) {
		return nil // woken after all
	}
	return err
}

func (t *Task) futexRequeue(addr, addr2 uintptr, wake, requeue int, cmp bool, val3 uint32) (uintptr, error) {
	word, err := t.futexWord(addr)
	if err != nil {
		return 0, err
	}
	if _, err := t.futexWord(addr2); err != nil {
		return 0, err
	}
	if wake < 0 || requeue < 0 {
		return 0, unix.EINVAL
	}
	f := &t.k.futexes
	f.mu.Lock()
	defer f.mu.Unlock()
	if cmp && atomic.LoadUint32(word) != val3 {
		return 0, unix.EAGAIN
	}
	n := f.take(t.futexKey(addr), wake, futexBitsetAll, (*futexWaiter).wake)
	var moved []*futexWaiter
	m := f.take(t.futexKey(addr), requeue, futexBitsetAll, func(w *futexWaiter) { moved = append(moved, w) })
	for _, w := range moved {
		w.futexAddr = t.futexKey(addr2)
		f.add(w)
	}
	if !cmp {
		return uintptr(n), nil
	}
	return uintptr(n + m), nil
}

// futexWakeOp is FUTEX_WAKE_OP: an atomic operation on the second word decides
// whether its waiters are woken too.
func (t *Task) futexWakeOp(addr, addr2 uintptr, n1, n2 int, op uint32) (uintptr, error) {
	if _, err := t.futexWord(addr); err != nil {
		return 0, err
	}
	if addr2&3 != 0 {
		return 0, unix.EINVAL
	}
	word, err := userPtr[uint32](t, addr2, true)
	if err != nil {
		return 0, err
	}
	arg := op >> 12 & 0xfff
	if op>>28&8 != 0 { // FUTEX_OP_ARG_SHIFT
		arg = 1 << (arg & 31)
	} else {
		arg = uint32(int32(arg<<20) >> 20)
	}
	var modify func(uint32) uint32
	switch op >> 28 & 7 {
	case linux.FUTEX_OP_SET:
		modify = func(uint32) uint32 { return arg }
	case linux.FUTEX_OP_ADD:
		modify = func(v uint32) uint32 { return v + arg }
	case linux.FUTEX_OP_OR:
		modify = func(v uint32) uint32 { return v | arg }
	case linux.FUTEX_OP_ANDN:
		modify = func(v uint32) uint32 { return v &^ arg }
	case linux.FUTEX_OP_XOR:
		modify = func(v uint32) uint32 { return v ^ arg }
	default:
		return 0, unix.ENOSYS
	}
	f := &t.k.futexes
	f.mu.Lock()
	defer f.mu.Unlock()
	old := atomic.LoadUint32(word)
	for !atomic.CompareAndSwapUint32(word, old, modify(old)) {
		old = atomic.LoadUint32(word)
	}
	x, y := int32(old), int32(op<<20)>>20
	var cond bool
	switch op >> 24 & 15 {
	case linux.FUTEX_OP_CMP_EQ:
		cond = x == y
	case linux.FUTEX_OP_CMP_NE:
		cond = x != y
	case linux.FUTEX_OP_CMP_LT:
		cond = x < y
	case linux.FUTEX_OP_CMP_LE:
		cond = x <= y
	case linux.FUTEX_OP_CMP_GT:
		cond = x > y
	case linux.FUTEX_OP_CMP_GE:
		cond = x >= y
	default:
		return 0, unix.ENOSYS
	}
	n := f.take(t.futexKey(addr), max(1, n1), futexBitsetAll, (*futexWaiter).wake)
	if cond {
		n += f.take(t.futexKey(addr2), max(1, n2), futexBitsetAll, (*futexWaiter).wake)
	}
	return uintptr(n), nil
}

// robustListHead is struct robust_list_head (linux/futex.h).
type robustListHead struct {
	List        uint64
	FutexOffset int64
	Pending     uint64
}

// exitRobustList marks the robust mutexes that the ending thread holds as
// ownerless and wakes one waiter each (get_robust_list(2)).
func (t *Task) exitRobustList() {
	const limit = 2048 // ROBUST_LIST_LIMIT
	if t.robustList == 0 {
		return
	}
	head, err := copyIn[robustListHead](t, t.robustList)
	if err != nil {
		return
	}
	for i, e := 0, head.List; i < limit && e != 0 && uintptr(e) != t.robustList; i++ {
		next, err := copyIn[uint64](t, uintptr(e&^1))
		if e != head.Pending {
			t.ownerDied(uintptr(e&^1) + uintptr(head.FutexOffset))
		}
		if err != nil {
			return
		}
		e = next
	}
	if head.Pending != 0 {
		t.ownerDied(uintptr(head.Pending&^1) + uintptr(head.FutexOffset))
	}
}

func (t *Task) ownerDied(addr uintptr) {
	const waiters, died, tidMask = 0x80000000, 0x40000000, 0x3fffffff
	if addr&3 != 0 {
		return
	}
	b, err := t.Bytes(addr, 4, true)
	if err != nil {
		return
	}
	word := (*uint32)(unsafe.Pointer(unsafe.SliceData(b)))
	for {
		v := atomic.LoadUint32(word)
		if v&tidMask != uint32(t.tid) {
			return
		}
		if atomic.CompareAndSwapUint32(word, v, v&waiters|died) {
			if v&waiters != 0 {
				t.k.futexes.wake(t.futexKey(addr), 1, futexBitsetAll)
			}
			return
		}
	}
}
