// Stress runs the Go runtime behind the gate under a filter that kills: it is
// what `make stress` repeats. Every part checks its own result; a wrong one, or
// a call outside the filter, ends the process with a status other than 0.
//
//	stress [SECONDS]
package main

import (
	"bytes"
	"fmt"
	"hash/crc32"
	"math/rand/v2"
	"os"
	"runtime"
	"runtime/debug"
	"strconv"
	"sync"
	"sync/atomic"
	"time"
	"unsafe"

	"golang.org/x/net/bpf"
	"golang.org/x/sys/unix"

	"github.com/nabla-build/nabla-build/rumprun/hypercall"
)

func say(format string, a ...any) {
	hypercall.Write(1, fmt.Appendf(nil, format+"\n", a...))
}

func fail(format string, a ...any) {
	hypercall.Write(2, fmt.Appendf(nil, "stress: "+format+"\n", a...))
	hypercall.ExitGroup(1)
}

// lockdown permits read, write, ppoll (of at most 16 descriptors, as the tender
// does) and exit_group from the gate and kills for anything else.
func lockdown() error {
	gate := hypercall.GateAddress()
	prog := []bpf.Instruction{
		bpf.LoadAbsolute{Off: 8, Size: 4}, // instruction_pointer, low
		bpf.JumpIf{Cond: bpf.JumpEqual, Val: uint32(gate), SkipFalse: 9},
		bpf.LoadAbsolute{Off: 12, Size: 4},
		bpf.JumpIf{Cond: bpf.JumpEqual, Val: uint32(gate >> 32), SkipFalse: 7},
		bpf.LoadAbsolute{Off: 0, Size: 4}, // nr
		bpf.JumpIf{Cond: bpf.JumpEqual, Val: unix.SYS_READ, SkipTrue: 6},
		bpf.JumpIf{Cond: bpf.JumpEqual, Val: unix.SYS_WRITE, SkipTrue: 5},
		bpf.JumpIf{Cond: bpf.JumpEqual, Val: unix.SYS_EXIT_GROUP, SkipTrue: 4},
		bpf.JumpIf{Cond: bpf.JumpEqual, Val: unix.SYS_PPOLL, SkipFalse: 2},
		bpf.LoadAbsolute{Off: 24, Size: 4}, // nfds
		bpf.JumpIf{Cond: bpf.JumpLessOrEqual, Val: 16, SkipTrue: 1},
		bpf.RetConstant{Val: unix.SECCOMP_RET_KILL_PROCESS},
		bpf.RetConstant{Val: unix.SECCOMP_RET_ALLOW},
	}
	raw, err := bpf.Assemble(prog)
	if err != nil {
		return err
	}
	f := make([]unix.SockFilter, len(raw))
	for i, r := range raw {
		f[i] = unix.SockFilter{Code: r.Op, Jt: r.Jt, Jf: r.Jf, K: r.K}
	}
	p := unix.SockFprog{Len: uint16(len(f)), Filter: &f[0]}
	if err := unix.Prctl(unix.PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0); err != nil {
		return err
	}
	hypercall.Lockdown()
	_, _, e := unix.RawSyscall(unix.SYS_SECCOMP, unix.SECCOMP_SET_MODE_FILTER, 0, uintptr(unsafe.Pointer(&p)))
	if e != 0 {
		return e
	}
	return nil
}

func main() {
	seconds := 1.0
	if len(os.Args) > 1 {
		var err error
		if seconds, err = strconv.ParseFloat(os.Args[1], 64); err != nil {
			fail("%v", err)
		}
	}
	if n := runtime.GOMAXPROCS(0); n != 1 {
		fail("GOMAXPROCS is %d", n)
	}
	var fds [2]int
	if err := unix.Pipe2(fds[:], unix.O_NONBLOCK); err != nil {
		fail("pipe: %v", err)
	}
	in, err := hypercall.Register(fds[0])
	if err != nil {
		fail("%v", err)
	}
	out, err := hypercall.Register(fds[1])
	if err != nil {
		fail("%v", err)
	}
	ents, err := os.ReadDir("/proc/self/task")
	if err != nil || len(ents) != 1 {
		fail("%d host threads, want 1 (%v)", len(ents), err)
	}
	// A non-blocking descriptor in an os.File, as os.Stdin can be, joins Go's
	// poller. The tender closes its number without telling Go.
	var left [2]int
	if err := unix.Pipe2(left[:], unix.O_NONBLOCK); err != nil {
		fail("pipe: %v", err)
	}
	kept := os.NewFile(uintptr(left[0]), "left open")
	defer runtime.KeepAlive(kept)
	unix.Close(left[0])
	if err := lockdown(); err != nil {
		fail("lockdown: %v", err)
	}
	deadline := time.Now().Add(time.Duration(seconds * float64(time.Second)))
	var wg sync.WaitGroup
	for _, f := range []func(time.Time){churn, maps, channels, timers, locks, stacks, finalizers, collector} {
		wg.Go(func() { f(deadline) })
	}
	wg.Go(func() { pipe(in, out, deadline) })
	wg.Wait()
	recovered()
	var ms runtime.MemStats
	runtime.ReadMemStats(&ms)
	say("ok: %d collections, %d MiB allocated in all", ms.NumGC, ms.TotalAlloc>>20)
	hypercall.ExitGroup(0)
}

// churn keeps blocks with checksums and replaces them at random.
func churn(deadline time.Time) {
	type block struct {
		data []byte
		sum  uint32
		next *block
	}
	r := rand.New(rand.NewPCG(1, 2))
	live := make([]*block, 400)
	for time.Now().Before(deadline) {
		for range 200 {
			i := r.IntN(len(live))
			if b := live[i]; b != nil {
				for c := b; c != nil; c = c.next {
					if crc32.ChecksumIEEE(c.data) != c.sum {
						fail("heap block changed")
					}
				}
			}
			var head *block
			for range r.IntN(4) + 1 {
				b := &block{data: make([]byte, 1<<r.IntN(17)), next: head}
				for _, c := range b.data[:min(len(b.data), 64)] {
					if c != 0 {
						fail("new memory is not zero")
					}
				}
				if i := bytes.IndexFunc(b.data, func(c rune) bool { return c != 0 }); i >= 0 {
					fail("new memory is not zero at %d", i)
				}
				for j := 0; j < len(b.data); j += 61 {
					b.data[j] = byte(r.Uint32())
				}
				b.sum = crc32.ChecksumIEEE(b.data)
				head = b
			}
			live[i] = head
		}
		runtime.Gosched()
	}
}

func maps(deadline time.Time) {
	m := map[string]int{}
	for n := 0; time.Now().Before(deadline); n++ {
		for i := range 1000 {
			m[fmt.Sprint(n%7, "-", i)] = n
		}
		if n%5 == 4 {
			for k, v := range m {
				if v > n || v < n-7 {
					fail("map: %s is %d in round %d", k, v, n)
				}
			}
			clear(m)
		}
		runtime.Gosched()
	}
}

func channels(deadline time.Time) {
	for time.Now().Before(deadline) {
		c, done := make(chan int), make(chan int)
		const workers, each = 50, 40
		var sum atomic.Int64
		for range workers {
			go func() {
				for v := range c {
					sum.Add(int64(v))
				}
				done <- 1
			}()
		}
		for i := range workers * each {
			select {
			case c <- i:
			case <-time.After(5 * time.Second):
				fail("channel: nobody receives")
			}
		}
		close(c)
		for range workers {
			<-done
		}
		if want := int64(workers * each * (workers*each - 1) / 2); sum.Load() != want {
			fail("channel: sum %d, want %d", sum.Load(), want)
		}
	}
}

func timers(deadline time.Time) {
	var wg sync.WaitGroup
	for i := range 1000 {
		wg.Go(func() {
			for time.Now().Before(deadline) {
				d := time.Duration(i%50+1) * time.Millisecond
				t := time.Now()
				time.Sleep(d)
				if e := time.Since(t); e < d {
					fail("slept %v, want %v", e, d)
				}
			}
		})
	}
	tick := time.NewTicker(3 * time.Millisecond)
	n := 0
	for t := range tick.C {
		if n++; t.After(deadline) {
			break
		}
	}
	tick.Stop()
	if n < 2 {
		fail("the ticker ticked %d times", n)
	}
	wg.Wait()
}

func locks(deadline time.Time) {
	var mu sync.RWMutex
	var wg sync.WaitGroup
	total, want := 0, int64(0)
	var done atomic.Int64
	for range 20 {
		wg.Go(func() {
			for time.Now().Before(deadline) {
				mu.Lock()
				total++
				mu.Unlock()
				done.Add(1)
				mu.RLock()
				runtime.Gosched()
				mu.RUnlock()
			}
		})
	}
	wg.Wait()
	if want = done.Load(); int64(total) != want {
		fail("counter %d, want %d", total, want)
	}
}

// stacks grows stacks with pointers into them, so that they are copied.
func stacks(deadline time.Time) {
	for time.Now().Before(deadline) {
		c := make(chan int)
		for range 20 {
			go func() {
				x := 5
				c <- deep(300, &x)
			}()
		}
		for range 20 {
			if got := <-c; got != 305 {
				fail("stack: %d, want 305", got)
			}
		}
	}
}

func deep(n int, p *int) int {
	var pad [200]byte
	pad[n%200] = byte(n)
	if n == 0 {
		return *p
	}
	*p++
	return deep(n-1, p) + int(pad[(n+1)%200])
}

func finalizers(deadline time.Time) {
	var ran atomic.Int64
	made := int64(0)
	for time.Now().Before(deadline) {
		for range 100 {
			p := new([64]byte)
			runtime.SetFinalizer(p, func(*[64]byte) { ran.Add(1) })
			made++
		}
		time.Sleep(time.Millisecond)
	}
	for range 20 {
		runtime.GC()
		time.Sleep(time.Millisecond)
	}
	if ran.Load() < made/2 {
		fail("%d of %d finalizers ran", ran.Load(), made)
	}
}

// collector collects, gives memory back and changes the pace meanwhile.
func collector(deadline time.Time) {
	for i := 0; time.Now().Before(deadline); i++ {
		debug.SetGCPercent([]int{5, 20, 100, 400}[i%4])
		if i%3 == 0 {
			debug.FreeOSMemory()
		} else {
			runtime.GC()
		}
		time.Sleep(2 * time.Millisecond)
	}
	debug.SetGCPercent(100)
}

// pipe sends bytes to itself through the host, waiting at both ends.
func pipe(in, out *hypercall.FD, deadline time.Time) {
	done := make(chan int)
	go func() {
		buf := make([]byte, 5000)
		var next byte
		got := 0
		for {
			n, err := in.Read(buf)
			if err == unix.EAGAIN {
				in.WaitReadable()
				continue
			}
			if err != nil {
				fail("pipe read: %v", err)
			}
			for _, c := range buf[:n] {
				if c == 255 {
					done <- got
					return
				}
				if c != next {
					fail("pipe: byte %d, want %d", c, next)
				}
				next = (next + 1) % 251
			}
			got += n
		}
	}()
	var next byte
	sent := 0
	for time.Now().Before(deadline) {
		p := make([]byte, rand.IntN(9000)+1)
		for i := range p {
			p[i] = next
			next = (next + 1) % 251
		}
		for len(p) > 0 {
			n, err := out.Write(p)
			if err == unix.EAGAIN {
				out.WaitWritable()
				continue
			}
			if err != nil {
				fail("pipe write: %v", err)
			}
			p = p[n:]
			sent += n
		}
		runtime.Gosched()
	}
	for {
		if _, err := out.Write([]byte{255}); err == nil {
			break
		}
		out.WaitWritable()
	}
	if got := <-done; got < sent-5000 {
		fail("pipe: got %d of %d", got, sent)
	}
}

// recovered panics and recovers: unwinding makes no host call.
func recovered() {
	defer func() {
		if recover() == nil {
			fail("no panic")
		}
	}()
	var m map[string]int
	m["x"] = 1
}
