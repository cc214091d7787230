// Package tty is pseudo terminals (pty(7), pts(4)): pairs of a master and a
// slave with the kernel's line discipline between them (termios(3)), and the
// file system /dev/pts that names the slaves. It may import vfs and gVisor's
// waiter; of processes it knows what Caller says. The type at its heart is
// Terminal; Space makes them.
package tty

import (
	"slices"
	"sync"
	"time"

	"golang.org/x/sys/unix"

	"gvisor.dev/gvisor/pkg/waiter"

	"github.com/nabla-build/nabla-build/rumprun/vfs"
)

// Caller is the process on whose behalf a call is made: vfs.Context.Caller and
// the UserMemory of ioctl(2) implement it.
type Caller interface {
	// Session and Group are the numbers of the session and process group.
	Session() int32
	Group() int32
	// SessionLeader reports whether the process leads its session.
	SessionLeader() bool
	// GroupSession is the session of process group pgid; 0 if there is none.
	GroupSession(pgid int32) int32
	// OpenEntry opens what d stands for and installs the descriptor.
	OpenEntry(d *vfs.Dentry, flags uint32) (uintptr, error)
}

// Space is what the terminals of one kernel share.
type Space struct {
	// Signal sends a signal to a process group; SignalLeader to the leader of
	// a session. They are called without locks.
	Signal       func(pgid int32, sig unix.Signal)
	SignalLeader func(sid int32, sig unix.Signal)

	mu    sync.Mutex
	terms []*Terminal // by number; nil: free
	gen   uint64
	dir   *directory
	root  *vfs.Dentry // what is mounted on /dev/pts
}

// maxTerminals is /proc/sys/kernel/pty/max.
const maxTerminals = 4096

// Terminal is a pair of master and slave.
type Terminal struct {
	space *Space
	n     int
	node  *node // the slave's inode

	masterQueue, slaveQueue waiter.Queue

	mu           sync.Mutex
	termios      unix.Termios
	winsize      unix.Winsize
	locked       bool // TIOCSPTLCK
	exclusive    bool
	masterOpen   bool
	slaves       int  // open descriptions of the slave
	slaveGone    bool // it was open and is not: POLLHUP on the master
	packet       bool
	packetStatus byte
	stopped      bool // ^S or tcflow(3): the slave's output waits
	session      int32
	foreground   int32
	in           input
	out          output
	deadline     time.Time // of a read with VTIME, see Slave.readRaw
}

// effects are what a call has caused: done without locks.
type effects struct {
	t       *Terminal
	master  waiter.EventMask
	slave   waiter.EventMask
	signals []signal
}

type signal struct {
	pgid   int32
	leader bool // pgid is a session, whose leader gets it
	sig    unix.Signal
}

func (e *effects) signal(pgid int32, s unix.Signal) {
	if pgid > 0 {
		e.signals = append(e.signals, signal{pgid, false, s})
	}
}

func (e *effects) run() {
	if e.master != 0 {
		e.t.masterQueue.Notify(e.master)
	}
	if e.slave != 0 {
		e.t.slaveQueue.Notify(e.slave)
	}
	for _, s := range e.signals {
		if s.leader {
			e.t.space.SignalLeader(s.pgid, s.sig)
		} else {
			e.t.space.Signal(s.pgid, s.sig)
		}
	}
}

// defaults are the kernel's tty_std_termios as pseudo terminals have it.
func defaults() unix.Termios {
	t := unix.Termios{
		Iflag: unix.ICRNL | unix.IXON, Oflag: unix.OPOST | unix.ONLCR, Cflag: unix.B38400 | unix.CS8 | unix.CREAD,
		Lflag:  unix.ISIG | unix.ICANON | unix.ECHO | unix.ECHOE | unix.ECHOK | unix.ECHOCTL | unix.ECHOKE | unix.IEXTEN,
		Ispeed: 38400, Ospeed: 38400,
	}
	for i, c := range map[int]byte{
		unix.VINTR: 3, unix.VQUIT: 0x1c, unix.VERASE: 0x7f, unix.VKILL: 0x15, unix.VEOF: 4, unix.VMIN: 1, unix.VSTART: 0x11,
		unix.VSTOP: 0x13, unix.VSUSP: 0x1a, unix.VREPRINT: 0x12, unix.VDISCARD: 0xf, unix.VWERASE: 0x17, unix.VLNEXT: 0x16,
	} {
		t.Cc[i] = c
	}
	return t
}

// OpenMaster makes a terminal and opens its master: open(2) of /dev/ptmx,
// which is d. ENOSPC if there are too many. c owns the slave.
func (s *Space) OpenMaster(c *vfs.Context, d *vfs.Dentry, flags uint32) (*Master, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	n := slices.Index(s.terms, nil)
	if n < 0 {
		if len(s.terms) >= maxTerminals {
			return nil, unix.ENOSPC
		}
		n = len(s.terms)
		s.terms = append(s.terms, nil)
	}
	t := &Terminal{space: s, n: n, termios: defaults(), locked: true, masterOpen: true}
	t.node = newNode(t, c)
	s.terms[n] = t
	s.gen++
	m := &Master{t: t, entry: d}
	m.SetStatusFlags(flags)
	return m, nil
}

// Controlling returns the slave of session sid's controlling terminal; nil if
// it has none.
func (s *Space) Controlling(sid int32) *Terminal {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, t := range s.terms {
		if t != nil {
			t.mu.Lock()
			is := t.session == sid && sid != 0
			t.mu.Unlock()
			if is {
				return t
			}
		}
	}
	return nil
}

// OpenSlave opens the slave of t: /dev/tty. EIO if the master has gone.
func (t *Terminal) OpenSlave(flags uint32) (vfs.File, error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	switch {
	case !t.masterOpen, t.locked:
		return nil, unix.EIO
	case t.exclusive && t.slaves > 0:
		return nil, unix.EBUSY
	}
	t.slaves++
	t.slaveGone = false
	f := &Slave{t: t}
	f.SetStatusFlags(flags)
	return f, nil
}

// LeaderExits is what the end of session sid's leader does to its controlling
// terminal (disassociate_ctty of the kernel): SIGHUP to the foreground group,
// and the session has no terminal any more.
func (s *Space) LeaderExits(sid int32) {
	t := s.Controlling(sid)
	if t == nil {
		return
	}
	e := effects{t: t}
	t.mu.Lock()
	e.signal(t.foreground, unix.SIGHUP)
	e.signal(t.foreground, unix.SIGCONT)
	t.session, t.foreground = 0, 0
	t.mu.Unlock()
	e.run()
}

// acquire makes t the controlling terminal of c's session if c leads it and
// has none (tty_open_proc_set_tty of the kernel).
func (t *Terminal) acquire(c Caller) {
	if !c.SessionLeader() || t.space.Controlling(c.Session()) != nil {
		return
	}
	t.mu.Lock()
	if t.session == 0 {
		t.session, t.foreground = c.Session(), c.Group()
	}
	t.mu.Unlock()
}

// free gives the number back when nobody has the terminal open, t.mu not held.
func (s *Space) free(t *Terminal) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.terms[t.n] == t {
		s.terms[t.n] = nil
		s.gen++
	}
}

// Master is the file of /dev/ptmx.
type Master struct {
	vfs.Base
	t     *Terminal
	entry *vfs.Dentry
}

// Read takes what the slave has written; in packet mode (ioctl_tty(2)) a byte
// that says what follows comes first. EIO if the slave has been closed.
func (m *Master) Read(p []byte) (int, error) {
	t := m.t
	if len(p) == 0 {
		return 0, nil
	}
	e := effects{t: t}
	t.mu.Lock()
	n, err := t.masterRead(p)
	if n > 0 {
		e.slave = waiter.WritableEvents
	}
	t.mu.Unlock()
	e.run()
	return n, err
}

func (t *Terminal) masterRead(p []byte) (int, error) {
	if t.packet && t.packetStatus != 0 {
		p[0] = t.packetStatus
		t.packetStatus = 0
		return 1, nil
	}
	if len(t.out.buf) == 0 {
		if t.slaveGone {
			return 0, unix.EIO
		}
		return 0, unix.EAGAIN
	}
	n := 0
	if t.packet {
		p[0] = unix.TIOCPKT_DATA
		n, p = 1, p[1:]
	}
	n += t.out.take(p)
	return n, nil
}

// Write is what the user types: it goes through the line discipline.
func (m *Master) Write(p []byte) (int, error) {
	t := m.t
	e := effects{t: t}
	t.mu.Lock()
	n := 0
	for n < len(p) && t.roomForInput() {
		t.receive(p[n], &e)
		n++
	}
	t.mu.Unlock()
	e.run()
	if n == 0 && len(p) > 0 {
		return 0, unix.EAGAIN
	}
	return n, nil
}

// Readiness implements waiter.Waitable.
func (m *Master) Readiness(mask waiter.EventMask) waiter.EventMask {
	t := m.t
	t.mu.Lock()
	defer t.mu.Unlock()
	var r waiter.EventMask
	if len(t.out.buf) > 0 {
		r |= waiter.ReadableEvents
	}
	if t.packet && t.packetStatus != 0 {
		r |= waiter.ReadableEvents | waiter.EventPri
	}
	if t.slaveGone {
		r |= waiter.EventHUp
	}
	if t.roomForInput() {
		r |= waiter.WritableEvents
	}
	return r & (mask | waiter.EventHUp | waiter.EventErr)
}

func (m *Master) EventRegister(e *waiter.Entry) error {
	m.t.masterQueue.EventRegister(e)
	return nil
}
func (m *Master) EventUnregister(e *waiter.Entry) { m.t.masterQueue.EventUnregister(e) }

func (m *Master) Stat() (unix.Stat_t, error) {
	a := m.entry.Inode().Attr()
	return a.Stat(), nil
}

// Release hangs the slave up: who has it as controlling terminal gets SIGHUP.
func (m *Master) Release() {
	t := m.t
	e := effects{t: t, slave: waiter.ReadableEvents | waiter.WritableEvents | waiter.EventHUp | waiter.EventErr}
	t.mu.Lock()
	t.masterOpen = false
	if t.session != 0 {
		e.signals = append(e.signals, signal{t.session, true, unix.SIGHUP}, signal{t.session, true, unix.SIGCONT})
		if t.foreground != t.session {
			e.signal(t.foreground, unix.SIGHUP)
			e.signal(t.foreground, unix.SIGCONT)
		}
	}
	t.session, t.foreground = 0, 0
	t.mu.Unlock()
	t.space.free(t)
	e.run()
}

// Slave is the file of /dev/pts/N.
type Slave struct {
	vfs.Base
	t *Terminal
}

// Read takes a line, or what is there if the terminal is not in canonical mode.
// 0 is the end of file: typed, or the master has gone.
func (f *Slave) Read(p []byte) (int, error) {
	t := f.t
	e := effects{t: t}
	t.mu.Lock()
	n, err := f.read(p)
	if n > 0 {
		e.master = waiter.WritableEvents
	}
	t.mu.Unlock()
	e.run()
	return n, err
}

func (f *Slave) read(p []byte) (int, error) {
	t := f.t
	switch {
	case !t.masterOpen:
		return 0, nil
	case len(p) == 0:
		return 0, nil
	case t.canonical():
		if t.in.lines == 0 {
			return 0, unix.EAGAIN
		}
		return t.in.line(p), nil
	}
	return f.readRaw(p)
}

// readRaw is a read in non-canonical mode with VMIN and VTIME (termios(3)).
func (f *Slave) readRaw(p []byte) (int, error) {
	t := f.t
	vmin, vtime := int(t.termios.Cc[unix.VMIN]), time.Duration(t.termios.Cc[unix.VTIME])*100*time.Millisecond
	have := len(t.in.cells)
	enough := have > 0 && have >= min(vmin, len(p))
	switch {
	case enough, have > 0 && vmin == 0, have > 0 && f.StatusFlags()&unix.O_NONBLOCK != 0:
		t.deadline = time.Time{}
		return t.in.take(p), nil
	case vmin == 0 && vtime == 0:
		return 0, nil
	case f.StatusFlags()&unix.O_NONBLOCK != 0, vtime == 0, vmin > 0 && have == 0:
		return 0, unix.EAGAIN
	}
	// The clock runs: from the start of the read, or from the last byte.
	now := time.Now()
	const slack = 100 * time.Millisecond // a read that was given up left it behind
	switch {
	case t.deadline.IsZero(), now.After(t.deadline.Add(slack)):
		t.deadline = now.Add(vtime)
		time.AfterFunc(vtime, func() { t.slaveQueue.Notify(waiter.ReadableEvents) })
		return 0, unix.EAGAIN
	case now.Before(t.deadline):
		return 0, unix.EAGAIN
	}
	t.deadline = time.Time{}
	return t.in.take(p), nil
}

// Write puts p through output processing to the master.
func (f *Slave) Write(p []byte) (int, error) {
	t := f.t
	e := effects{t: t}
	t.mu.Lock()
	n, err := t.slaveWrite(p)
	if n > 0 {
		e.master = waiter.ReadableEvents
	}
	t.mu.Unlock()
	e.run()
	return n, err
}

func (t *Terminal) slaveWrite(p []byte) (int, error) {
	switch {
	case !t.masterOpen:
		return 0, unix.EIO
	case len(p) == 0:
		return 0, nil
	case t.stopped:
		return 0, unix.EAGAIN
	}
	n := 0
	for n < len(p) && t.out.room() {
		t.process(p[n])
		n++
	}
	if n == 0 {
		return 0, unix.EAGAIN
	}
	return n, nil
}

// Readiness implements waiter.Waitable.
func (f *Slave) Readiness(mask waiter.EventMask) waiter.EventMask {
	t := f.t
	t.mu.Lock()
	defer t.mu.Unlock()
	if !t.masterOpen {
		return (waiter.ReadableEvents | waiter.WritableEvents | waiter.EventHUp | waiter.EventErr) & (mask | waiter.EventHUp | waiter.EventErr)
	}
	var r waiter.EventMask
	if t.readable() {
		r |= waiter.ReadableEvents
	}
	if !t.stopped && t.out.room() {
		r |= waiter.WritableEvents
	}
	return r & mask
}

// readable reports whether a read would not wait, as poll(2) has it.
func (t *Terminal) readable() bool {
	if t.canonical() {
		return t.in.lines > 0
	}
	need := 1
	if t.termios.Cc[unix.VTIME] == 0 && t.termios.Cc[unix.VMIN] > 0 {
		need = int(t.termios.Cc[unix.VMIN])
	}
	return len(t.in.cells) >= need
}

func (f *Slave) EventRegister(e *waiter.Entry) error {
	f.t.slaveQueue.EventRegister(e)
	return nil
}
func (f *Slave) EventUnregister(e *waiter.Entry) { f.t.slaveQueue.EventUnregister(e) }

func (f *Slave) Stat() (unix.Stat_t, error) {
	a := f.t.node.Attr()
	return a.Stat(), nil
}

// Release closes the slave; the master sees the last one go.
func (f *Slave) Release() {
	t := f.t
	e := effects{t: t}
	t.mu.Lock()
	if t.slaves--; t.slaves == 0 {
		t.slaveGone = true
		e.master = waiter.ReadableEvents | waiter.EventHUp
	}
	t.mu.Unlock()
	e.run()
}
