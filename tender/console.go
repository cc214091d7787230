package tender

import (
	"sync"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"

	"gvisor.dev/gvisor/pkg/waiter"

	"github.com/nabla-build/nabla-build/rumprun/hypercall"
	"github.com/nabla-build/nabla-build/rumprun/vfs"
	"github.com/nabla-build/nabla-build/tender/policy"
)

// console is one of the container's standard streams: a file, pipe, terminal,
// socket or device of the host that the guest sees as its own.
//
// The host's description is shared with others (a shell, a log driver), so it
// is never made non-blocking. Reads follow a readiness report; writes to
// anything but a file follow one too and are of at most PIPE_BUF bytes, which a
// ready pipe takes without blocking (pipe(7)).
type console struct {
	vfs.Base
	fd       *hypercall.FD
	st       unix.Stat_t
	regular  bool // a file: always ready
	readable bool
	writable bool
	terminal *terminal // nil if it is none
	queue    waiter.Queue

	mu       sync.Mutex
	buf      []byte // read from the host, not yet by the guest
	eof      bool
	wanted   chan struct{} // capacity 1: the guest wants input
	canWrite bool          // a readiness report not yet used up
	asked    chan struct{} // capacity 1: a writer waits
}

// terminal is what ioctl answers for a terminal: its state at start.
type terminal struct {
	termios unix.Termios
	winsize unix.Winsize
}

// maxConsoleWrite is PIPE_BUF.
const maxConsoleWrite = 4096

// openConsole makes the stream of host descriptor fd; nil if it is closed.
func openConsole(fd int) (*console, error) {
	c := &console{wanted: make(chan struct{}, 1), asked: make(chan struct{}, 1)}
	if err := unix.Fstat(fd, &c.st); err != nil {
		return nil, nil
	}
	flags, err := unix.FcntlInt(uintptr(fd), unix.F_GETFL, 0)
	if err != nil {
		return nil, err
	}
	c.SetStatusFlags(uint32(flags) &^ unix.O_NONBLOCK)
	c.readable = flags&unix.O_ACCMODE != unix.O_WRONLY
	c.writable = flags&unix.O_ACCMODE != unix.O_RDONLY
	c.regular = c.st.Mode&unix.S_IFMT == unix.S_IFREG
	if t, err := unix.IoctlGetTermios(fd, unix.TCGETS); err == nil {
		c.terminal = &terminal{termios: *t}
		if w, err := unix.IoctlGetWinsize(fd, unix.TIOCGWINSZ); err == nil {
			c.terminal.winsize = *w
		}
	}
	if c.fd, err = hypercall.Register(fd); err != nil {
		return nil, err
	}
	return c, nil
}

// rules are what the stream needs from the filter.
func (c *console) rules() []policy.Rule {
	fd := policy.Arg{Index: 0, Name: "fd", OneOf: []uint64{uint64(c.fd.Sysfd())}}
	length := policy.Arg{Index: 2, Name: "length", Max: 1 << 20}
	var r []policy.Rule
	if c.readable {
		r = append(r, policy.Rule{NR: unix.SYS_READ, Name: "read", Args: []policy.Arg{fd, length}})
	}
	if c.writable {
		r = append(r, policy.Rule{NR: unix.SYS_WRITE, Name: "write", Args: []policy.Arg{fd, length}})
	}
	return r
}

// start runs the goroutines that wait for the host. Input is only read once
// the guest asks for it: what it leaves unread stays with whoever comes next.
func (c *console) start() {
	if c.readable && !c.regular {
		go c.pump()
	}
	if c.writable && !c.regular {
		go c.watch()
	}
}

func (c *console) pump() {
	for range c.wanted {
		c.fd.WaitReadable()
		buf := make([]byte, maxConsoleWrite)
		n, err := c.fd.Read(buf)
		c.mu.Lock()
		if n > 0 {
			c.buf = buf[:n]
		} else if err != unix.EAGAIN && err != unix.EINTR {
			c.eof = true
		}
		c.mu.Unlock()
		c.queue.Notify(waiter.ReadableEvents | waiter.EventHUp)
	}
}

func (c *console) watch() {
	for range c.asked {
		c.fd.WaitWritable()
		c.mu.Lock()
		c.canWrite = true
		c.mu.Unlock()
		c.queue.Notify(waiter.WritableEvents)
	}
}

func poke(c chan struct{}) {
	select {
	case c <- struct{}{}:
	default:
	}
}

func (c *console) Readiness(mask waiter.EventMask) waiter.EventMask {
	if c.regular {
		return mask & (waiter.ReadableEvents | waiter.WritableEvents)
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	var m waiter.EventMask
	if c.readable {
		if len(c.buf) > 0 || c.eof {
			m |= waiter.ReadableEvents
		} else if mask&waiter.ReadableEvents != 0 {
			poke(c.wanted)
		}
	}
	if c.writable {
		if mask&waiter.WritableEvents != 0 && !c.canWrite {
			c.canWrite = c.fd.Writable()
		}
		if c.canWrite {
			m |= waiter.WritableEvents
		} else if mask&waiter.WritableEvents != 0 {
			poke(c.asked)
		}
	}
	return m & mask
}

func (c *console) EventRegister(e *waiter.Entry) error {
	c.queue.EventRegister(e)
	c.Readiness(e.Mask())
	return nil
}

func (c *console) EventUnregister(e *waiter.Entry) { c.queue.EventUnregister(e) }

func (c *console) Read(p []byte) (int, error) {
	if !c.readable {
		return 0, unix.EBADF
	}
	if c.regular {
		return c.fd.Read(p[:min(len(p), 1<<20)])
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	if len(c.buf) > 0 {
		n := copy(p, c.buf)
		c.buf = c.buf[n:]
		return n, nil
	}
	if c.eof {
		// A terminal goes on after an end of file.
		if c.terminal != nil {
			c.eof = false
		}
		return 0, nil
	}
	poke(c.wanted)
	return 0, unix.EAGAIN
}

// Write writes what the host takes at once: a stream that is ready takes one
// piece without blocking.
func (c *console) Write(p []byte) (int, error) {
	if !c.writable {
		return 0, unix.EBADF
	}
	if c.regular {
		return c.fd.Write(p[:min(len(p), 1<<20)])
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.canWrite = c.fd.Writable(); !c.canWrite {
		poke(c.asked)
		return 0, unix.EAGAIN
	}
	n, err := c.fd.Write(p[:min(len(p), maxConsoleWrite)])
	c.canWrite = false
	return n, err
}

func (c *console) Stat() (unix.Stat_t, error) { return c.st, nil }

// Ioctl answers for terminals from their state at start.
func (c *console) Ioctl(m vfs.UserMemory, req uint32, arg uintptr) (uintptr, error) {
	if req == unix.TIOCINQ {
		c.mu.Lock()
		n := int32(len(c.buf))
		c.mu.Unlock()
		return 0, m.CopyOut(arg, unsafe.Slice((*byte)(unsafe.Pointer(&n)), 4))
	}
	if c.terminal == nil {
		return 0, unix.ENOTTY
	}
	switch req {
	case unix.TCGETS:
		const size = 36 // struct termios of the kernel
		return 0, m.CopyOut(arg, unsafe.Slice((*byte)(unsafe.Pointer(&c.terminal.termios)), size))
	case unix.TIOCGWINSZ:
		return 0, m.CopyOut(arg, unsafe.Slice((*byte)(unsafe.Pointer(&c.terminal.winsize)), 8))
	case unix.TIOCGPGRP, unix.TIOCGSID:
		one := int32(1)
		return 0, m.CopyOut(arg, unsafe.Slice((*byte)(unsafe.Pointer(&one)), 4))
	case unix.TIOCSPGRP, unix.TCSETS, unix.TCSETSW, unix.TCSETSF, unix.TIOCSWINSZ, unix.TIOCSCTTY:
		return 0, nil
	}
	return 0, unix.ENOTTY
}

// logger writes the library OS's log to standard error, whole lines in order,
// waiting where the host's end is full.
type logger struct {
	mu sync.Mutex
	c  *console
}

func (l *logger) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.c == nil || !l.c.writable {
		return len(p), nil
	}
	for n := 0; n < len(p); {
		k, err := l.c.Write(p[n:])
		switch err {
		case nil:
			n += k
		case unix.EAGAIN:
			e, ch := waiter.NewChannelEntry(waiter.WritableEvents)
			l.c.EventRegister(&e)
			if l.c.Readiness(waiter.WritableEvents) == 0 {
				select {
				case <-ch:
				case <-time.After(5 * time.Second): // nobody reads the log
					l.c.EventUnregister(&e)
					return n, unix.EAGAIN
				}
			}
			l.c.EventUnregister(&e)
		default:
			return n, err
		}
	}
	return len(p), nil
}
