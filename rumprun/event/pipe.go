package event

import (
	"encoding/binary"
	"math/bits"
	"sync"
	"time"

	"golang.org/x/sys/unix"

	"gvisor.dev/gvisor/pkg/waiter"

	"github.com/nabla-build/nabla-build/rumprun/vfs"
)

const (
	pageSize = 4096
	// defaultSlots gives 64 KiB, maxSlots 1 MiB (/proc/sys/fs/pipe-max-size).
	defaultSlots = 16
	maxSlots     = 256
)

// slot is one page of a pipe, as the kernel's struct pipe_buffer: what is in
// page[off:end].
type slot struct {
	page     []byte
	off, end int
	packet   bool // written with O_DIRECT: one read takes it whole
}

// Pipe is the buffer between the two ends of pipe(2) or of a FIFO (pipe(7),
// fifo(7)). As in Linux it is a ring of pages: a write of at most PIPE_BUF
// bytes goes into one page and so is atomic. Data may fill fewer bytes than
// the capacity where writes do not fit into what a page has left.
type Pipe struct {
	waiter.Queue

	stat unix.Stat_t

	mu         sync.Mutex
	slots      []slot
	head, used int // slots[head] is the oldest of used ones
	readers    int
	writers    int
	// readerGen and writerGen count the ends ever opened: a reader that never
	// had a writer sees no POLLHUP, and an open that waits is over.
	readerGen, writerGen int
	readerCame           chan struct{} // closed and replaced at each open; nil: nobody waits
	writerCame           chan struct{}
}

func newPipe(st unix.Stat_t) *Pipe {
	return &Pipe{stat: st, slots: make([]slot, defaultSlots)}
}

// NewPipe is pipe2(2): flags are the status flags of both ends (O_NONBLOCK,
// O_DIRECT). uid and gid own it.
func (s *Space) NewPipe(flags, uid, gid uint32) (r, w *PipeEnd) {
	now := timespec(time.Now())
	p := newPipe(unix.Stat_t{
		Dev: devPipe, Ino: s.NextIno(), Nlink: 1, Mode: unix.S_IFIFO | 0o600, Uid: uid, Gid: gid,
		Blksize: pageSize, Atim: now, Mtim: now, Ctim: now,
	})
	return p.open(unix.O_RDONLY | flags), p.open(unix.O_WRONLY | flags)
}

// PipeEnd is an open end of a Pipe: the File.
type PipeEnd struct {
	vfs.Base
	p       *Pipe
	r, w    bool
	alone   bool // opening waits for no peer
	peerGen int  // the writer generation at open: POLLHUP is for later ones
}

func (p *Pipe) open(flags uint32) *PipeEnd {
	e := &PipeEnd{p: p}
	e.SetStatusFlags(flags)
	acc := flags & unix.O_ACCMODE
	e.r, e.w = acc != unix.O_WRONLY, acc != unix.O_RDONLY
	p.mu.Lock()
	defer p.mu.Unlock()
	// As fifo_open does: only a reader that need not wait for a writer lets
	// the ones that came before it go unnoticed.
	e.peerGen = -1
	if e.r && !e.w && flags&unix.O_NONBLOCK != 0 && p.writers == 0 {
		e.peerGen = p.writerGen
	}
	if e.r {
		p.readers++
		p.readerGen++
		if p.readerCame != nil {
			close(p.readerCame)
			p.readerCame = nil
		}
	}
	if e.w {
		p.writers++
		p.writerGen++
		if p.writerCame != nil {
			close(p.writerCame)
			p.writerCame = nil
		}
	}
	return e
}

// FIFO is the pipe behind a FIFO's inode; the zero FIFO is ready to use.
type FIFO struct {
	mu sync.Mutex
	p  *Pipe
}

// OpenFIFO opens an end as flags say (fifo(7)): ENXIO for a writer that would
// have to wait for a reader and is O_NONBLOCK. It does not wait: see
// PipeEnd.PeerOpened.
func (f *FIFO) OpenFIFO(flags uint32) (vfs.File, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.p == nil {
		f.p = newPipe(unix.Stat_t{Mode: unix.S_IFIFO | 0o600, Blksize: pageSize})
	}
	if flags&(unix.O_ACCMODE|unix.O_NONBLOCK) == unix.O_WRONLY|unix.O_NONBLOCK {
		f.p.mu.Lock()
		n := f.p.readers
		f.p.mu.Unlock()
		if n == 0 {
			return nil, unix.ENXIO
		}
	}
	return f.p.open(flags), nil
}

// PeerOpened implements vfs.FIFOEnd.
func (e *PipeEnd) PeerOpened() <-chan struct{} {
	p := e.p
	p.mu.Lock()
	defer p.mu.Unlock()
	came := &p.writerCame
	switch {
	case e.alone, e.r && e.w, e.r && p.writers > 0, e.w && p.readers > 0:
		return nil
	case e.w:
		came = &p.readerCame
	}
	if *came == nil {
		*came = make(chan struct{})
	}
	return *came
}

func (p *Pipe) fullLocked() bool { return p.used >= len(p.slots) }

// Read takes what is there, at most len(b) bytes; 0 if there is no writer.
func (e *PipeEnd) Read(b []byte) (int, error) { return e.Readv([][]byte{b}) }

// Readv reads into the buffers of v in turn, as one read.
func (e *PipeEnd) Readv(v [][]byte) (int, error) {
	p := e.p
	room := 0
	for _, b := range v {
		room += len(b)
	}
	if room == 0 {
		return 0, nil
	}
	p.mu.Lock()
	wasFull := p.fullLocked()
	n := 0
	var b []byte
	for p.used > 0 && n < room {
		s := &p.slots[p.head]
		for s.off < s.end && n < room {
			for len(b) == 0 {
				b, v = v[0], v[1:]
			}
			k := copy(b, s.page[s.off:s.end])
			s.off += k
			n += k
			b = b[k:]
		}
		packet := s.packet
		if packet || s.off == s.end {
			p.dropLocked()
		}
		if packet {
			break
		}
	}
	writers := p.writers
	wake := wasFull && !p.fullLocked()
	p.mu.Unlock()
	if wake {
		p.Notify(waiter.WritableEvents)
	}
	if n == 0 && writers > 0 {
		return 0, unix.EAGAIN
	}
	return n, nil
}

func (p *Pipe) dropLocked() {
	s := &p.slots[p.head]
	s.off, s.end, s.packet = 0, 0, false
	p.head = (p.head + 1) % len(p.slots)
	p.used--
}

// Peek copies what a read would take, and leaves it (tee(2)).
func (e *PipeEnd) Peek(b []byte) (int, error) {
	p := e.p
	p.mu.Lock()
	defer p.mu.Unlock()
	n := 0
	for i := 0; i < p.used && n < len(b); i++ {
		s := &p.slots[(p.head+i)%len(p.slots)]
		n += copy(b[n:], s.page[s.off:s.end])
		if s.packet {
			break
		}
	}
	if n == 0 && p.writers > 0 && len(b) > 0 {
		return 0, unix.EAGAIN
	}
	return n, nil
}

// Write puts in what there is room for: all or nothing up to PIPE_BUF bytes.
// EPIPE if there is no reader.
func (e *PipeEnd) Write(b []byte) (int, error) { return e.Writev([][]byte{b}) }

// Writev writes the buffers of v as one write.
func (e *PipeEnd) Writev(v [][]byte) (int, error) {
	p := e.p
	total := 0
	for _, b := range v {
		total += len(b)
	}
	if total == 0 {
		return 0, nil
	}
	src := source{v: v}
	packet := e.StatusFlags()&unix.O_DIRECT != 0
	p.mu.Lock()
	if p.readers == 0 {
		p.mu.Unlock()
		return 0, unix.EPIPE
	}
	n := 0
	if part := total % pageSize; part > 0 && p.used > 0 {
		s := &p.slots[(p.head+p.used-1)%len(p.slots)]
		if !s.packet && s.end+part <= pageSize {
			src.copy(s.page[s.end : s.end+part])
			s.end += part
			n += part
		}
	}
	for n < total && !p.fullLocked() {
		s := &p.slots[(p.head+p.used)%len(p.slots)]
		if s.page == nil {
			s.page = make([]byte, pageSize)
		}
		s.off, s.end, s.packet = 0, min(pageSize, total-n), packet
		src.copy(s.page[:s.end])
		n += s.end
		p.used++
	}
	p.mu.Unlock()
	if n == 0 {
		return 0, unix.EAGAIN
	}
	// Every write is an event, so that edge-triggered listeners see it.
	p.Notify(waiter.ReadableEvents)
	return n, nil
}

// source reads through buffers in turn.
type source struct {
	v [][]byte
	b []byte
}

func (s *source) copy(dst []byte) {
	for len(dst) > 0 {
		for len(s.b) == 0 {
			s.b, s.v = s.v[0], s.v[1:]
		}
		k := copy(dst, s.b)
		s.b, dst = s.b[k:], dst[k:]
	}
}

// Readiness implements waiter.Waitable.
func (e *PipeEnd) Readiness(mask waiter.EventMask) waiter.EventMask {
	p := e.p
	p.mu.Lock()
	defer p.mu.Unlock()
	var m waiter.EventMask
	if e.r {
		if p.used > 0 {
			m |= waiter.ReadableEvents
		}
		if p.writers == 0 && p.writerGen != e.peerGen {
			m |= waiter.EventHUp
		}
	}
	if e.w {
		if !p.fullLocked() {
			m |= waiter.WritableEvents
		}
		if p.readers == 0 {
			m |= waiter.EventErr
		}
	}
	return m & (mask | waiter.EventErr | waiter.EventHUp)
}

func (e *PipeEnd) EventRegister(w *waiter.Entry) error {
	e.p.EventRegister(w)
	return nil
}
func (e *PipeEnd) EventUnregister(w *waiter.Entry) { e.p.EventUnregister(w) }

// Stat is fstat(2) of a pipe; the caller asks a FIFO's inode.
func (e *PipeEnd) Stat() (unix.Stat_t, error) { return e.p.stat, nil }

// Ioctl knows FIONREAD (TIOCINQ).
func (e *PipeEnd) Ioctl(m vfs.UserMemory, req uint32, arg uintptr) (uintptr, error) {
	if req != unix.TIOCINQ {
		return 0, unix.ENOTTY
	}
	p := e.p
	p.mu.Lock()
	n := 0
	for i := range p.used {
		s := &p.slots[(p.head+i)%len(p.slots)]
		n += s.end - s.off
	}
	p.mu.Unlock()
	var b [4]byte
	binary.LittleEndian.PutUint32(b[:], uint32(n))
	return 0, m.CopyOut(arg, b[:])
}

// SamePipe reports whether f is an end of the same pipe.
func (e *PipeEnd) SamePipe(f vfs.File) bool {
	o, ok := f.(*PipeEnd)
	return ok && o.p == e.p
}

// PipeSize is F_GETPIPE_SZ.
func (e *PipeEnd) PipeSize() int {
	e.p.mu.Lock()
	defer e.p.mu.Unlock()
	return len(e.p.slots) * pageSize
}

// SetPipeSize is F_SETPIPE_SZ: n is rounded up to a power of two pages. EPERM
// beyond 1 MiB, EBUSY if what is in the pipe would not fit.
func (e *PipeEnd) SetPipeSize(n int) (int, error) {
	if n < 0 || n > 1<<31 {
		return 0, unix.EINVAL
	}
	slots := 1
	if pages := (n + pageSize - 1) / pageSize; pages > 1 {
		slots = 1 << bits.Len(uint(pages-1))
	}
	if slots > maxSlots {
		return 0, unix.EPERM
	}
	p := e.p
	p.mu.Lock()
	if slots < p.used {
		p.mu.Unlock()
		return 0, unix.EBUSY
	}
	wasFull := p.fullLocked()
	ring := make([]slot, slots)
	for i := range p.used {
		ring[i] = p.slots[(p.head+i)%len(p.slots)]
	}
	p.slots, p.head = ring, 0
	wake := wasFull && !p.fullLocked()
	p.mu.Unlock()
	if wake {
		p.Notify(waiter.WritableEvents)
	}
	return slots * pageSize, nil
}

// Reopen opens the pipe again, as open(2) of /proc/PID/fd/N does.
// A pipe that has no name waits for no peer (fifo_open in fs/pipe.c).
func (e *PipeEnd) Reopen(flags uint32) (vfs.File, error) {
	n := e.p.open(flags)
	n.alone = true
	return n, nil
}

// Release closes the end. What is left in the pipe goes with the last one.
func (e *PipeEnd) Release() {
	p := e.p
	p.mu.Lock()
	if e.r {
		p.readers--
	}
	if e.w {
		p.writers--
	}
	if p.readers == 0 && p.writers == 0 {
		p.slots, p.head, p.used = make([]slot, defaultSlots), 0, 0
	}
	wake := (p.readers == 0) != (p.writers == 0)
	p.mu.Unlock()
	if wake {
		p.Notify(waiter.ReadableEvents | waiter.WritableEvents | waiter.EventErr | waiter.EventHUp)
	}
}
