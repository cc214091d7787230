package rumprun

import (
	"encoding/binary"
	"math"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// pair makes a call that stores two descriptors in its argument arg.
func (b *both) pair(nr uintptr, args ...any) (fdArg, fdArg) {
	b.t.Helper()
	o := b.call(nr, args...)
	if o.err != nil {
		b.t.Fatalf("pair: %v", o.err)
	}
	var p [2][2]int
	for k := range p {
		for i := range p[k] {
			p[k][i] = int(binary.LittleEndian.Uint32(b.outs[k][0][4*i:]))
		}
	}
	n := fdArg(len(b.fds))
	b.fds = append(b.fds, [2]int{p[0][0], p[1][0]}, [2]int{p[0][1], p[1][1]})
	return n, n + 1
}

func (b *both) newFD(nr uintptr, args ...any) fdArg {
	b.t.Helper()
	if o := b.call(nr, args...); o.err != nil {
		b.t.Fatalf("call %d: %v", nr, o.err)
	}
	return fdArg(len(b.fds) - 1)
}

// close closes a descriptor in both.
func (b *both) close(f fdArg) {
	b.t.Helper()
	b.call(unix.SYS_CLOSE, f)
	b.fds[f] = [2]int{-1, -1}
}

// pollAll are the events of poll(2); 0x140 are POLLRDNORM and POLLWRNORM.
const pollAll = unix.POLLIN | unix.POLLPRI | unix.POLLOUT | 0x40 | 0x100 | unix.POLLRDHUP

// ready compares the events of descriptors.
func (b *both) ready(what string, fds ...fdArg) {
	b.t.Helper()
	for i, f := range fds {
		var mask [2]uint16
		var in [2][]byte
		for k := range in {
			x := binary.LittleEndian.AppendUint32(nil, uint32(b.fds[f][k]))
			x = binary.LittleEndian.AppendUint16(x, pollAll)
			in[k] = binary.LittleEndian.AppendUint16(x, 0)
		}
		b.call(unix.SYS_POLL, in, 1, 0)
		for k := range mask {
			mask[k] = binary.LittleEndian.Uint16(b.outs[k][0][6:])
		}
		if mask[0] != mask[1] {
			b.t.Errorf("%s: descriptor %d is ready for %#x, want %#x", what, i, mask[1], mask[0])
		}
	}
}

func le64(v uint64) []byte { return binary.LittleEndian.AppendUint64(nil, v) }

func TestPipesAgainstKernel(t *testing.T) {
	b := newBoth(t)
	r, w := b.pair(unix.SYS_PIPE2, outRaw(8), unix.O_NONBLOCK)
	big := make([]byte, 300000)
	for i := range big {
		big[i] = byte(i * 7)
	}
	fill := func(sizes ...int) {
		t.Helper()
		for _, n := range sizes {
			b.call(unix.SYS_WRITE, w, big[:n], n)
			b.call(unix.SYS_IOCTL, r, unix.TIOCINQ, outBuf(4))
			b.ready("after a write", r, w)
		}
	}
	drain := func(sizes ...int) {
		t.Helper()
		for _, n := range sizes {
			b.call(unix.SYS_READ, r, outBuf(n), n)
			b.ready("after a read", r, w)
		}
	}
	b.ready("new", r, w)
	b.call(unix.SYS_FSTAT, r, outRaw(144))
	b.call(unix.SYS_READ, w, outBuf(1), 1)
	b.call(unix.SYS_WRITE, r, []byte("x"), 1)
	b.call(unix.SYS_LSEEK, r, 0, 0)
	b.call(unix.SYS_PREAD64, r, outBuf(1), 1, 0)
	b.call(unix.SYS_FSYNC, w)
	drain(10)
	fill(1, 10, 4000, 4000, 4096, 100, 5000)
	drain(5, 5000, 100000, 1)
	for range 20 {
		fill(4000)
	}
	drain(4000, 4000, 1, 3999)
	fill(4096, 1, 1, 8192, 20000)
	drain(200000)
	fill(100000)
	fill(1)
	drain(1)
	fill(1)
	drain(4095)
	fill(4096, 1)
	drain(65536)
	b.call(unix.SYS_WRITEV, w, vec{"abc", "", "defgh"}, 3)
	b.call(unix.SYS_READV, r, vec{2, 0, 3, 100}, 4)
	for _, n := range []int{0, 1, 4096, 4097, 100000, 1 << 20, 1<<20 + 1, 65536, 8192} {
		if n == 1<<20+1 {
			continue // root may, on the host
		}
		b.call(unix.SYS_FCNTL, w, unix.F_SETPIPE_SZ, n)
		b.call(unix.SYS_FCNTL, r, unix.F_GETPIPE_SZ, 0)
		fill(10000)
		b.call(unix.SYS_FCNTL, w, unix.F_SETPIPE_SZ, 4096)
		drain(100000)
	}
	fill(100)
	b.close(w)
	b.ready("no writer", r)
	drain2 := func() { b.call(unix.SYS_READ, r, outBuf(200), 200) }
	drain2()
	drain2()
	b.ready("drained", r)

	r, w = b.pair(unix.SYS_PIPE2, outRaw(8), unix.O_NONBLOCK)
	b.close(r)
	b.ready("no reader", w)
	b.call(unix.SYS_WRITE, w, []byte("x"), 1)

	b.task.sigs.discard(^sigSet(0))
	r, w = b.pair(unix.SYS_PIPE2, outRaw(8), unix.O_NONBLOCK|unix.O_DIRECT)
	fill(10, 20, 5000)
	drain(5, 100, 3000, 3000, 3000)
	for _, fl := range []int{1, unix.O_APPEND, unix.O_CLOEXEC | unix.O_RDWR} {
		b.call(unix.SYS_PIPE2, outRaw(8), fl)
	}
	b.call(unix.SYS_PIPE2, 1<<20, 0)
}

func TestFIFOAgainstKernel(t *testing.T) {
	b := newBoth(t)
	b.call(unix.SYS_MKNODAT, atCWD, "fifo", unix.S_IFIFO|0o644, 0)
	b.call(unix.SYS_OPENAT, atCWD, "fifo", unix.O_WRONLY|unix.O_NONBLOCK, 0)
	r := b.open("fifo", unix.O_RDONLY|unix.O_NONBLOCK, 0)
	b.ready("a reader, never a writer", r)
	b.call(unix.SYS_READ, r, outBuf(4), 4)
	w := b.open("fifo", unix.O_WRONLY|unix.O_NONBLOCK, 0)
	b.ready("both ends", r, w)
	b.call(unix.SYS_WRITE, w, []byte("abc"), 3)
	b.ready("data", r, w)
	b.close(w)
	b.ready("the writer has gone", r)
	b.call(unix.SYS_READ, r, outBuf(4), 4)
	b.call(unix.SYS_READ, r, outBuf(4), 4)
	r2 := b.open("fifo", unix.O_RDONLY|unix.O_NONBLOCK, 0)
	b.ready("a late reader", r, r2)
	rw := b.open("fifo", unix.O_RDWR, 0)
	b.ready("open for both", r, r2, rw)
	b.call(unix.SYS_WRITE, rw, []byte("lost"), 4)
	b.close(rw)
	b.close(r2)
	b.close(r)
	r = b.open("fifo", unix.O_RDONLY|unix.O_NONBLOCK, 0)
	b.call(unix.SYS_READ, r, outBuf(4), 4)
}

func TestEventfdAgainstKernel(t *testing.T) {
	b := newBoth(t)
	for _, fl := range []int{unix.EFD_NONBLOCK, unix.EFD_NONBLOCK | unix.EFD_SEMAPHORE} {
		e := b.newFD(unix.SYS_EVENTFD2, 3, fl)
		b.ready("new", e)
		for _, v := range []uint64{1, math.MaxUint64, math.MaxUint64 - 1, math.MaxUint64 - 5, math.MaxUint64 - 6, 0, 1} {
			b.call(unix.SYS_WRITE, e, le64(v), 8)
			b.ready("written", e)
		}
		b.call(unix.SYS_WRITE, e, le64(1), 7)
		b.call(unix.SYS_WRITE, e, append(le64(0), 1), 9)
		b.call(unix.SYS_READ, e, outBuf(7), 7)
		for range 3 {
			b.call(unix.SYS_READ, e, outBuf(16), 16)
			b.ready("read", e)
		}
		b.call(unix.SYS_PREAD64, e, outBuf(8), 8, 0)
		b.call(unix.SYS_LSEEK, e, 0, 0)
		b.call(unix.SYS_FTRUNCATE, e, 0)
		b.call(unix.SYS_FSYNC, e)
	}
	b.call(unix.SYS_EVENTFD2, 0, 2)
}

// event is a struct epoll_event.
func epollEvent(events uint32, data uint64) []byte {
	return append(binary.LittleEndian.AppendUint32(nil, events), le64(data)...)
}

func TestEpollAgainstKernel(t *testing.T) {
	b := newBoth(t)
	ep := b.newFD(unix.SYS_EPOLL_CREATE1, 0)
	wait := func(n int) {
		t.Helper()
		b.call(unix.SYS_EPOLL_WAIT, ep, outBuf(12*max(n, 1)), n, 0)
	}
	ctl := func(op int, f fdArg, events uint32, data uint64) {
		t.Helper()
		b.call(unix.SYS_EPOLL_CTL, ep, op, f, epollEvent(events, data))
	}
	const et, one, excl = unix.EPOLLET & math.MaxUint32, unix.EPOLLONESHOT, unix.EPOLLEXCLUSIVE
	const in, out = unix.EPOLLIN, unix.EPOLLOUT
	e1 := b.newFD(unix.SYS_EVENTFD2, 0, unix.EFD_NONBLOCK)
	e2 := b.newFD(unix.SYS_EVENTFD2, 1, unix.EFD_NONBLOCK)
	r, w := b.pair(unix.SYS_PIPE2, outRaw(8), unix.O_NONBLOCK)
	put := func(f fdArg) { t.Helper(); b.call(unix.SYS_WRITE, f, le64(1), 8) }
	get := func(f fdArg) { t.Helper(); b.call(unix.SYS_READ, f, outBuf(8), 8) }

	wait(10)
	ctl(unix.EPOLL_CTL_MOD, e1, in, 1)
	ctl(unix.EPOLL_CTL_DEL, e1, in, 1)
	ctl(unix.EPOLL_CTL_ADD, e1, in, 1)
	ctl(unix.EPOLL_CTL_ADD, e1, in, 1)
	ctl(unix.EPOLL_CTL_ADD, e2, in|out, 2)
	ctl(99, e2, in|out, 2)
	b.call(unix.SYS_EPOLL_CTL, ep, unix.EPOLL_CTL_ADD, ep, epollEvent(in, 0))
	b.call(unix.SYS_EPOLL_CTL, e1, unix.EPOLL_CTL_ADD, e2, epollEvent(in, 0))
	b.call(unix.SYS_EPOLL_CTL, ep, unix.EPOLL_CTL_ADD, 999, epollEvent(in, 0))
	b.call(unix.SYS_EPOLL_CTL, ep, unix.EPOLL_CTL_ADD, e1, 0)
	f := b.open("f", unix.O_RDWR|unix.O_CREAT, 0o644)
	ctl(unix.EPOLL_CTL_ADD, f, in, 3)
	dir := b.open(".", unix.O_RDONLY, 0)
	ctl(unix.EPOLL_CTL_ADD, dir, in, 3)
	for _, n := range []int{10, 1, 0, -1} {
		wait(n)
	}
	b.call(unix.SYS_EPOLL_WAIT, e1, outBuf(12), 1, 0)
	b.call(unix.SYS_EPOLL_WAIT, 999, outBuf(12), 1, 0)
	b.call(unix.SYS_EPOLL_WAIT, ep, 1<<20, 1, 0)
	// Level-triggered: again and again.
	put(e1)
	wait(10)
	wait(10)
	get(e1)
	wait(10)
	// What does not fit comes later, in turn.
	put(e1)
	for range 4 {
		wait(1)
	}
	b.ready("the instance itself", ep)
	// Edge-triggered: each write is an event.
	ctl(unix.EPOLL_CTL_MOD, e1, in|et, 11)
	ctl(unix.EPOLL_CTL_DEL, e2, 0, 0)
	wait(10)
	wait(10)
	put(e1)
	wait(10)
	put(e1)
	put(e1)
	wait(10)
	wait(10)
	get(e1)
	wait(10)
	ctl(unix.EPOLL_CTL_MOD, e1, in|out|et, 12)
	wait(10)
	put(e1)
	wait(10)
	get(e1)
	wait(10)
	b.ready("the instance itself", ep)
	// One shot.
	ctl(unix.EPOLL_CTL_MOD, e1, out|one, 13)
	wait(10)
	wait(10)
	put(e1)
	wait(10)
	ctl(unix.EPOLL_CTL_MOD, e1, in|one|et, 14)
	wait(10)
	wait(10)
	ctl(unix.EPOLL_CTL_DEL, e1, 0, 0)
	// Exclusive.
	ctl(unix.EPOLL_CTL_ADD, e1, in|excl, 15)
	ctl(unix.EPOLL_CTL_MOD, e1, in, 15)
	wait(10)
	ctl(unix.EPOLL_CTL_DEL, e1, 0, 0)
	ctl(unix.EPOLL_CTL_ADD, e1, in|excl|one, 15)
	ctl(unix.EPOLL_CTL_ADD, e1, in|excl|unix.EPOLLRDHUP, 15)
	// Pipes.
	ctl(unix.EPOLL_CTL_ADD, r, in|et|unix.EPOLLRDHUP, 20)
	ctl(unix.EPOLL_CTL_ADD, w, out|et, 21)
	wait(10)
	for range 3 {
		b.call(unix.SYS_WRITE, w, []byte("abc"), 3)
		wait(10)
	}
	b.call(unix.SYS_READ, r, outBuf(2), 2)
	wait(10)
	b.call(unix.SYS_WRITE, w, make([]byte, 100000), 100000)
	wait(10)
	b.call(unix.SYS_READ, r, outBuf(4096), 4096)
	wait(10)
	b.call(unix.SYS_READ, r, outBuf(100000), 100000)
	wait(10)
	// A duplicate keeps the description and so the interest.
	b.call(unix.SYS_DUP, r)
	dup := fdArg(len(b.fds) - 1)
	b.close(r)
	b.call(unix.SYS_WRITE, w, []byte("abc"), 3)
	wait(10)
	b.close(dup)
	b.call(unix.SYS_WRITE, w, []byte("abc"), 3)
	b.task.sigs.discard(^sigSet(0))
	wait(10)
	wait(10)
	b.close(w)
	wait(10)
	b.ready("the instance itself", ep)
	b.call(unix.SYS_READ, ep, outBuf(4), 4)
	b.call(unix.SYS_WRITE, ep, []byte("abcd"), 4)
	b.call(unix.SYS_EPOLL_CREATE1, 1)
	b.call(unix.SYS_EPOLL_CREATE, 0)
}

func TestEpollNestingAgainstKernel(t *testing.T) {
	b := newBoth(t)
	var eps []fdArg
	for range 9 {
		eps = append(eps, b.newFD(unix.SYS_EPOLL_CREATE1, 0))
	}
	add := func(i, j int, events uint32) {
		t.Helper()
		b.call(unix.SYS_EPOLL_CTL, eps[i], unix.EPOLL_CTL_ADD, eps[j], epollEvent(events, uint64(10*i+j)))
	}
	e := b.newFD(unix.SYS_EVENTFD2, 0, unix.EFD_NONBLOCK)
	b.call(unix.SYS_EPOLL_CTL, eps[4], unix.EPOLL_CTL_ADD, e, epollEvent(unix.EPOLLIN, 99))
	// From the bottom up, then what is too deep or a circle.
	for i := 3; i >= 0; i-- {
		add(i, i+1, unix.EPOLLIN)
	}
	add(5, 0, unix.EPOLLIN)
	add(4, 0, unix.EPOLLIN)
	add(4, 4, unix.EPOLLIN)
	add(3, 6, unix.EPOLLIN|unix.EPOLLEXCLUSIVE)
	waitAll := func() {
		t.Helper()
		for _, x := range eps {
			b.call(unix.SYS_EPOLL_WAIT, x, outBuf(60), 5, 0)
		}
		b.ready("nested", eps...)
	}
	waitAll()
	b.call(unix.SYS_WRITE, e, le64(1), 8)
	waitAll()
	b.call(unix.SYS_READ, e, outBuf(8), 8)
	waitAll()
	// From the top down.
	c := newBoth(t)
	eps = nil
	for range 9 {
		eps = append(eps, c.newFD(unix.SYS_EPOLL_CREATE1, 0))
	}
	b = c
	for i := range 8 {
		add(i, i+1, unix.EPOLLIN)
	}
}

func TestTimerfdAgainstKernel(t *testing.T) {
	b := newBoth(t)
	spec := func(value, interval time.Duration) []byte {
		var x []byte
		for _, d := range []time.Duration{interval, value} {
			x = append(x, le64(uint64(d/time.Second))...)
			x = append(x, le64(uint64(d%time.Second))...)
		}
		return x
	}
	for _, clock := range []int{unix.CLOCK_MONOTONIC, unix.CLOCK_REALTIME, unix.CLOCK_BOOTTIME} {
		f := b.newFD(unix.SYS_TIMERFD_CREATE, clock, unix.TFD_NONBLOCK)
		b.ready("new", f)
		b.call(unix.SYS_READ, f, outBuf(8), 8)
		b.call(unix.SYS_READ, f, outBuf(4), 4)
		b.call(unix.SYS_TIMERFD_GETTIME, f, outBuf(32))
		b.call(unix.SYS_TIMERFD_SETTIME, f, 0, spec(time.Hour, time.Second), outBuf(32))
		b.call(unix.SYS_TIMERFD_SETTIME, f, 0, spec(20*time.Millisecond, 0), outRaw(32))
		b.ready("armed", f)
		time.Sleep(60 * time.Millisecond)
		b.ready("fired", f)
		b.call(unix.SYS_TIMERFD_GETTIME, f, outBuf(32))
		b.call(unix.SYS_READ, f, outBuf(8), 8)
		b.call(unix.SYS_READ, f, outBuf(8), 8)
		b.call(unix.SYS_TIMERFD_GETTIME, f, outBuf(32))
		// Ten periods, give or take none: read well between two.
		b.call(unix.SYS_TIMERFD_SETTIME, f, 0, spec(50*time.Millisecond, 100*time.Millisecond), 0)
		time.Sleep(300 * time.Millisecond)
		b.ready("periodic", f)
		b.call(unix.SYS_READ, f, outBuf(8), 8)
		b.ready("read", f)
		time.Sleep(100 * time.Millisecond)
		b.call(unix.SYS_READ, f, outBuf(8), 8)
		b.call(unix.SYS_TIMERFD_SETTIME, f, 0, spec(0, time.Second), 0)
		b.ready("disarmed", f)
		b.call(unix.SYS_TIMERFD_GETTIME, f, outBuf(32))
		// Long ago: at once.
		b.call(unix.SYS_TIMERFD_SETTIME, f, unix.TFD_TIMER_ABSTIME, spec(time.Nanosecond, 0), 0)
		time.Sleep(20 * time.Millisecond)
		b.ready("absolute", f)
		b.call(unix.SYS_READ, f, outBuf(8), 8)
		for _, x := range [][]byte{spec(-time.Second, 0), spec(0, -time.Second), append(le64(0), append(le64(1e9), spec(0, 0)[:16]...)...)} {
			b.call(unix.SYS_TIMERFD_SETTIME, f, 0, x, 0)
		}
		b.call(unix.SYS_TIMERFD_SETTIME, f, 8, spec(0, 0), 0)
		b.call(unix.SYS_TIMERFD_SETTIME, f, 0, 1<<20, 0)
	}
	e := b.newFD(unix.SYS_EVENTFD2, 0, 0)
	b.call(unix.SYS_TIMERFD_GETTIME, e, outBuf(32))
	b.call(unix.SYS_TIMERFD_SETTIME, e, 0, spec(0, 0), 0)
	b.call(unix.SYS_TIMERFD_CREATE, 99, 0)
	b.call(unix.SYS_TIMERFD_CREATE, unix.CLOCK_PROCESS_CPUTIME_ID, 0)
	b.call(unix.SYS_TIMERFD_CREATE, 1, 1)
}

func TestSelectAgainstKernel(t *testing.T) {
	b := newBoth(t)
	r, w := b.pair(unix.SYS_PIPE2, outRaw(8), unix.O_NONBLOCK)
	// select needs the same numbers in both.
	for i, f := range []fdArg{r, w} {
		to := 100 + i
		b.call(unix.SYS_DUP2, f, to)
		b.fds = append(b.fds, [2]int{to, to})
	}
	set := func(fds ...int) []byte {
		s := make([]byte, 128)
		for _, fd := range fds {
			s[fd/8] |= 1 << (fd % 8)
		}
		return s
	}
	tv := make([]byte, 16)
	sel := func(n int, in, out, ex any) {
		t.Helper()
		b.call(unix.SYS_SELECT, n, in, out, ex, tv)
		b.call(unix.SYS_PSELECT6, n, in, out, ex, tv, 0)
	}
	for range 2 {
		sel(102, set(100, 101), set(100, 101), set(100, 101))
		sel(101, set(100, 101), set(100, 101), 0)
		sel(100, set(100, 101), set(100, 101), 0)
		sel(102, set(100), 0, 0)
		b.call(unix.SYS_WRITE, w, []byte("x"), 1)
	}
	sel(102, set(100), set(101), set(100))
	sel(64, set(63), 0, 0)
	sel(-1, set(), 0, 0)
	sel(0, 0, 0, 0)
	sel(102, 1<<20, 0, 0)
	b.call(unix.SYS_SELECT, 0, 0, 0, 0, append(le64(math.MaxUint64), le64(0)...))
	b.call(unix.SYS_SELECT, 0, 0, 0, 0, append(le64(0), le64(math.MaxUint64)...))
	b.call(unix.SYS_PSELECT6, 0, 0, 0, 0, append(le64(0), le64(1e9)...), 0)
	b.call(unix.SYS_POLL, 0, 0, 0)
	b.call(unix.SYS_POLL, 1<<20, 1, 0)
	b.call(unix.SYS_POLL, 0, 1<<30, 0)
	// The wait itself, and the time that is left.
	left := b.alloc(16)
	copy(left[8:], le64(20e6))
	start := time.Now()
	if n, err := sysPpoll(b.task, Args{0, 0, addr(left)}); n != 0 || err != nil {
		t.Errorf("ppoll: %d, %v", n, err)
	}
	if d := time.Since(start); d < 20*time.Millisecond {
		t.Errorf("a poll of 20 ms took %v", d)
	}
	if ns := binary.LittleEndian.Uint64(left[8:]); ns != 0 {
		t.Errorf("ppoll leaves %d ns", ns)
	}
}
