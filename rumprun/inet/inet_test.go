package inet

import (
	"bytes"
	crand "crypto/rand"
	"sync/atomic"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"gvisor.dev/gvisor/pkg/waiter"

	"github.com/nabla-build/nabla-build/rumprun/socket"
)

func newStack(t testing.TB) *Stack {
	t.Helper()
	var ino atomic.Uint64
	s, err := New(Config{Random: crand.Reader, NextIno: func() uint64 { return ino.Add(1) }})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(s.Destroy)
	return s
}

// await waits for events of a socket.
func await(t testing.TB, s *Socket, mask waiter.EventMask) {
	t.Helper()
	e, ch := waiter.NewChannelEntry(mask | waiter.EventErr | waiter.EventHUp)
	s.EventRegister(&e)
	defer s.EventUnregister(&e)
	for s.Readiness(mask) == 0 {
		select {
		case <-ch:
		case <-time.After(10 * time.Second):
			t.Fatalf("no event of %#x in ten seconds", mask)
		}
	}
}

// connection is a TCP connection over the loopback.
func connection(t testing.TB, s *Stack) (c, d *Socket) {
	t.Helper()
	l, err := s.NewSocket(unix.AF_INET, unix.SOCK_STREAM, 0, 0, false)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(l.Release)
	if err := l.Bind(nil, []byte{unix.AF_INET, 0, 0, 0, 127, 0, 0, 1, 0, 0, 0, 0, 0, 0, 0, 0}); err != nil {
		t.Fatal(err)
	}
	if err := l.Listen(5); err != nil {
		t.Fatal(err)
	}
	at, err := l.LocalAddr()
	if err != nil {
		t.Fatal(err)
	}
	if c, err = s.NewSocket(unix.AF_INET, unix.SOCK_STREAM, 0, 0, false); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(c.Release)
	if err := c.Connect(nil, at); err != nil && err != unix.EINPROGRESS {
		t.Fatal(err)
	}
	await(t, l, waiter.ReadableEvents)
	a, _, err := l.Accept()
	if err != nil {
		t.Fatal(err)
	}
	d = a.(*Socket)
	t.Cleanup(d.Release)
	await(t, c, waiter.WritableEvents)
	return c, d
}

// TestLoopbackThroughput moves 64 MiB and checks every byte. It fails below 50
// MB/s, a twentieth of what an idle machine does.
func TestLoopbackThroughput(t *testing.T) {
	c, d := connection(t, newStack(t))
	const total = 64 << 20
	chunk := make([]byte, 64<<10)
	for i := range chunk {
		chunk[i] = byte(i % 251)
	}
	start := time.Now()
	go func() {
		for sent := 0; sent < total; {
			// Two buffers, so that the gathering is tested, too.
			b := chunk[sent%len(chunk):]
			n, err := c.Writev([][]byte{b[:len(b)/3], b[len(b)/3:]})
			if err == unix.EAGAIN {
				await(t, c, waiter.WritableEvents)
				continue
			}
			if err != nil {
				t.Error(err)
				return
			}
			sent += n
		}
		c.Shutdown(unix.SHUT_WR)
	}()
	buf := make([]byte, 100_000)
	got := 0
	for {
		n, err := d.Readv([][]byte{buf[:1000], buf[1000:]})
		if err == unix.EAGAIN {
			await(t, d, waiter.ReadableEvents)
			continue
		}
		if err != nil {
			t.Fatal(err)
		}
		if n == 0 {
			break
		}
		for p := buf[:n]; len(p) > 0; {
			want := chunk[got%len(chunk):]
			k := min(len(p), len(want))
			if !bytes.Equal(p[:k], want[:k]) {
				t.Fatalf("wrong bytes at %d", got)
			}
			got += k
			p = p[k:]
		}
	}
	if got != total {
		t.Fatalf("%d bytes, want %d", got, total)
	}
	rate := float64(total) / time.Since(start).Seconds() / 1e6
	t.Logf("%.0f MB/s", rate)
	if rate < 50 {
		t.Errorf("%.0f MB/s", rate)
	}
}

// TestRandom checks that all random numbers come from the given source: the
// host must not be asked after lockdown.
func TestRandom(t *testing.T) {
	var n atomic.Int64
	s, err := New(Config{Random: countingReader{&n}, NextIno: func() uint64 { return 1 }})
	if err != nil {
		t.Fatal(err)
	}
	defer s.Destroy()
	before := n.Load()
	connection(t, s)
	if n.Load() == before {
		t.Error("a connection took no random numbers from the source: where do its sequence numbers come from?")
	}
}

type countingReader struct{ n *atomic.Int64 }

func (r countingReader) Read(p []byte) (int, error) {
	r.n.Add(int64(len(p)))
	return crand.Read(p)
}

// TestReadWriteAllocate bounds the garbage of a round trip: netstack's own.
func TestReadWriteAllocate(t *testing.T) {
	c, d := connection(t, newStack(t))
	b := make([]byte, 100)
	// What our side adds to a call that finds nothing must be nothing.
	if n := testing.AllocsPerRun(100, func() {
		if _, err := d.Read(b); err != unix.EAGAIN {
			t.Fatal(err)
		}
	}); n > 1 { // netstack's *ErrWouldBlock
		t.Errorf("a read that finds nothing makes %v allocations", n)
	}
	if n := testing.AllocsPerRun(100, func() {
		if _, err := c.Write(b); err != nil {
			t.Fatal(err)
		}
		for {
			n, err := d.Read(b)
			if err == unix.EAGAIN {
				await(t, d, waiter.ReadableEvents)
				continue
			}
			if n != len(b) || err != nil {
				t.Fatal(n, err)
			}
			break
		}
	}); n > 40 {
		t.Errorf("a round trip makes %v allocations", n)
	}
}

var _ socket.Socket = (*Socket)(nil)
