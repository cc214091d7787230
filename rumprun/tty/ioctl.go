package tty

import (
	"strconv"
	"unsafe"

	"golang.org/x/sys/unix"

	"gvisor.dev/gvisor/pkg/waiter"

	"github.com/nabla-build/nabla-build/rumprun/vfs"
)

// Sizes of the kernel's structures (include/uapi/asm-generic/termbits.h).
const (
	termiosSize  = 36 // struct termios: flags, line, 19 control characters
	termios2Size = 44 // struct termios2: two speeds more
)

// Requests that golang.org/x/sys/unix does not name.
const (
	tiocgptpeer = 0x5441
	tiocgptn    = 0x80045430
	tiocsptlck  = 0x40045431
	tiocgpkt    = 0x80045438
	tiocgptlck  = 0x80045439
	tiocgexcl   = 0x80045440
	tiocsig     = 0x40045436
	tiocgdev    = 0x80045432
)

func raw(t *unix.Termios) []byte {
	return unsafe.Slice((*byte)(unsafe.Pointer(t)), unsafe.Sizeof(*t))
}

func putInt(m vfs.UserMemory, arg uintptr, n int32) error {
	return m.CopyOut(arg, unsafe.Slice((*byte)(unsafe.Pointer(&n)), 4))
}

func getInt(m vfs.UserMemory, arg uintptr) (n int32, err error) {
	err = m.CopyIn(arg, unsafe.Slice((*byte)(unsafe.Pointer(&n)), 4))
	return n, err
}

// Ioctl is ioctl_tty(2) on the master.
func (m *Master) Ioctl(mem vfs.UserMemory, req uint32, arg uintptr) (uintptr, error) {
	t := m.t
	e := effects{t: t}
	defer e.run()
	switch req {
	case tiocgptn:
		return 0, putInt(mem, arg, int32(t.n))
	case tiocsptlck:
		v, err := getInt(mem, arg)
		if err != nil {
			return 0, err
		}
		t.mu.Lock()
		t.locked = v != 0
		t.mu.Unlock()
		return 0, nil
	case tiocgptlck:
		t.mu.Lock()
		v := t.locked
		t.mu.Unlock()
		return 0, putBool(mem, arg, v)
	case tiocgptpeer:
		c, ok := mem.(Caller)
		if !ok {
			return 0, unix.ENOTTY
		}
		return c.OpenEntry(vfs.NewDentry(t.space.root, strconv.Itoa(t.n), t.node), uint32(arg))
	case unix.TIOCPKT:
		v, err := getInt(mem, arg)
		if err != nil {
			return 0, err
		}
		t.mu.Lock()
		if on := v != 0; on != t.packet {
			t.packet, t.packetStatus = on, 0
		}
		t.mu.Unlock()
		return 0, nil
	case tiocgpkt:
		t.mu.Lock()
		v := t.packet
		t.mu.Unlock()
		return 0, putBool(mem, arg, v)
	case tiocsig:
		sig := int(int32(arg))
		if s := unix.Signal(sig); s != unix.SIGINT && s != unix.SIGQUIT && s != unix.SIGTSTP {
			return 0, unix.EINVAL
		}
		t.mu.Lock()
		e.signal(t.foreground, unix.Signal(sig))
		t.mu.Unlock()
		return 0, nil
	case unix.TIOCINQ:
		t.mu.Lock()
		n := len(t.out.buf)
		t.mu.Unlock()
		return 0, putInt(mem, arg, int32(n))
	case unix.TCFLSH:
		t.mu.Lock()
		defer t.mu.Unlock()
		switch arg {
		case unix.TCIFLUSH, unix.TCIOFLUSH:
			t.out.buf = nil
			e.slave |= waiter.WritableEvents
			if arg == unix.TCIFLUSH {
				return 0, nil
			}
			fallthrough
		case unix.TCOFLUSH:
			t.in.flush()
			return 0, nil
		}
		return 0, unix.EINVAL
	case unix.TIOCGPGRP:
		t.mu.Lock()
		pg := t.foreground
		t.mu.Unlock()
		return 0, putInt(mem, arg, pg)
	case unix.TIOCSCTTY, unix.TIOCNOTTY:
		return 0, unix.ENOTTY
	case unix.TIOCGSID:
		t.mu.Lock()
		sid := t.session
		t.mu.Unlock()
		if sid == 0 {
			return 0, unix.ENOTTY
		}
		return 0, putInt(mem, arg, sid)
	}
	return t.ioctl(mem, req, arg, &e)
}

func putBool(m vfs.UserMemory, arg uintptr, v bool) error {
	if v {
		return putInt(m, arg, 1)
	}
	return putInt(m, arg, 0)
}

// Ioctl is ioctl_tty(2) on the slave; EIO when the master has gone.
func (f *Slave) Ioctl(mem vfs.UserMemory, req uint32, arg uintptr) (uintptr, error) {
	t := f.t
	e := effects{t: t}
	defer e.run()
	t.mu.Lock()
	gone := !t.masterOpen
	t.mu.Unlock()
	if gone {
		if req == unix.TIOCSPGRP {
			return 0, unix.ENOTTY
		}
		return 0, unix.EIO
	}
	c, isCaller := mem.(Caller)
	switch req {
	case tiocgptn, tiocsptlck, tiocgptlck, tiocgptpeer, unix.TIOCPKT, tiocgpkt, tiocsig:
		return 0, unix.ENOTTY
	case unix.TIOCINQ:
		t.mu.Lock()
		n := len(t.in.cells)
		if t.canonical() {
			n = 0
			for _, x := range t.in.cells[:t.in.head] {
				if !x.eof {
					n++
				}
			}
		}
		t.mu.Unlock()
		return 0, putInt(mem, arg, int32(n))
	case unix.TCFLSH:
		t.mu.Lock()
		defer t.mu.Unlock()
		var status byte
		switch arg {
		case unix.TCIFLUSH, unix.TCIOFLUSH, unix.TCOFLUSH:
		default:
			return 0, unix.EINVAL
		}
		if arg != unix.TCOFLUSH {
			t.in.flush()
			e.master |= waiter.WritableEvents
			status |= unix.TIOCPKT_FLUSHREAD
		}
		if arg != unix.TCIFLUSH {
			// What was written is with the master already, and stays.
			status |= unix.TIOCPKT_FLUSHWRITE
		}
		if t.packet {
			t.packetStatus |= status
			e.master |= waiter.ReadableEvents | waiter.EventPri
		}
		return 0, nil
	case unix.TIOCSCTTY:
		if !isCaller {
			return 0, unix.ENOTTY
		}
		return 0, t.setControlling(c)
	case unix.TIOCNOTTY:
		if !isCaller {
			return 0, unix.ENOTTY
		}
		return 0, t.giveUp(c, &e)
	case unix.TIOCGPGRP, unix.TIOCGSID, unix.TIOCSPGRP:
		t.mu.Lock()
		defer t.mu.Unlock()
		if !isCaller || t.session == 0 || t.session != c.Session() {
			return 0, unix.ENOTTY
		}
		switch req {
		case unix.TIOCGPGRP:
			return 0, putInt(mem, arg, t.foreground)
		case unix.TIOCGSID:
			return 0, putInt(mem, arg, t.session)
		}
		pg, err := getInt(mem, arg)
		switch {
		case err != nil:
			return 0, err
		case pg < 0:
			return 0, unix.EINVAL
		}
		switch c.GroupSession(pg) {
		case 0:
			return 0, unix.ESRCH
		case c.Session():
			t.foreground = pg
			return 0, nil
		}
		return 0, unix.EPERM
	}
	return t.ioctl(mem, req, arg, &e)
}

// setControlling is TIOCSCTTY.
func (t *Terminal) setControlling(c Caller) error {
	t.mu.Lock()
	mine := t.session != 0 && t.session == c.Session()
	taken := t.session != 0
	t.mu.Unlock()
	switch {
	case c.SessionLeader() && mine:
		return nil
	case !c.SessionLeader(), t.space.Controlling(c.Session()) != nil, taken:
		return unix.EPERM
	}
	t.acquire(c)
	return nil
}

// giveUp is TIOCNOTTY.
func (t *Terminal) giveUp(c Caller, e *effects) error {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.session == 0 || t.session != c.Session() {
		return unix.ENOTTY
	}
	if c.SessionLeader() {
		e.signal(t.foreground, unix.SIGHUP)
		e.signal(t.foreground, unix.SIGCONT)
		t.session, t.foreground = 0, 0
	}
	return nil
}

// ioctl are the requests that both ends answer alike: the attributes and the
// window size are the slave's, whichever end is asked.
func (t *Terminal) ioctl(mem vfs.UserMemory, req uint32, arg uintptr, e *effects) (uintptr, error) {
	switch req {
	case unix.TCGETS, unix.TCGETS2:
		t.mu.Lock()
		v := t.termios
		t.mu.Unlock()
		n := termiosSize
		if req == unix.TCGETS2 {
			n = termios2Size
		}
		return 0, mem.CopyOut(arg, raw(&v)[:n])
	case unix.TCSETS, unix.TCSETSW, unix.TCSETSF, unix.TCSETS2, unix.TCSETSW2, unix.TCSETSF2:
		n := termiosSize
		if req == unix.TCSETS2 || req == unix.TCSETSW2 || req == unix.TCSETSF2 {
			n = termios2Size
		}
		t.mu.Lock()
		v := t.termios
		t.mu.Unlock()
		if err := mem.CopyIn(arg, raw(&v)[:n]); err != nil {
			return 0, err
		}
		t.mu.Lock()
		defer t.mu.Unlock()
		if req == unix.TCSETSF || req == unix.TCSETSF2 {
			t.in.flush()
			e.master |= waiter.WritableEvents
		}
		t.setTermios(v, e)
		return 0, nil
	case unix.TIOCGWINSZ:
		t.mu.Lock()
		w := t.winsize
		t.mu.Unlock()
		return 0, mem.CopyOut(arg, unsafe.Slice((*byte)(unsafe.Pointer(&w)), 8))
	case unix.TIOCSWINSZ:
		var w unix.Winsize
		if err := mem.CopyIn(arg, unsafe.Slice((*byte)(unsafe.Pointer(&w)), 8)); err != nil {
			return 0, err
		}
		t.mu.Lock()
		if w != t.winsize {
			t.winsize = w
			e.signal(t.foreground, unix.SIGWINCH)
		}
		t.mu.Unlock()
		return 0, nil
	case unix.TIOCOUTQ:
		return 0, putInt(mem, arg, 0)
	case unix.TCSBRK, unix.TCSBRKP, unix.TIOCSBRK, unix.TIOCCBRK:
		return 0, nil // what is written is with the master at once
	case unix.TCXONC:
		t.mu.Lock()
		defer t.mu.Unlock()
		switch arg {
		case unix.TCOOFF:
			t.flow(true, e)
		case unix.TCOON:
			t.flow(false, e)
		case unix.TCIOFF, unix.TCION:
			i := unix.VSTOP
			if arg == unix.TCION {
				i = unix.VSTART
			}
			if c := t.termios.Cc[i]; c != 0 {
				t.out.put(c)
				e.master |= waiter.ReadableEvents
			}
		default:
			return 0, unix.EINVAL
		}
		return 0, nil
	case unix.TIOCEXCL, unix.TIOCNXCL:
		t.mu.Lock()
		t.exclusive = req == unix.TIOCEXCL
		t.mu.Unlock()
		return 0, nil
	case tiocgexcl:
		t.mu.Lock()
		v := t.exclusive
		t.mu.Unlock()
		return 0, putBool(mem, arg, v)
	case unix.TIOCGETD:
		return 0, putInt(mem, arg, 0) // N_TTY
	case unix.TIOCSETD:
		n, err := getInt(mem, arg)
		if err == nil && n != 0 {
			err = unix.EINVAL
		}
		return 0, err
	case unix.TIOCSTI:
		return 0, unix.EIO // as sysctl dev.tty.legacy_tiocsti = 0 has it
	case tiocgdev:
		return 0, putInt(mem, arg, int32(t.node.Attr().Rdev))
	}
	return 0, unix.ENOTTY
}
