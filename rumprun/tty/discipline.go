package tty

import (
	"golang.org/x/sys/unix"

	"gvisor.dev/gvisor/pkg/waiter"
)

// The line discipline follows the kernel's drivers/tty/n_tty.c.

const (
	maxInput  = 4096  // N_TTY_BUF_SIZE
	maxOutput = 65536 // what the slave may write ahead
)

// cell is a byte of input; end marks the last one of a line, and eof one that
// is not read itself (VEOF).
type cell struct {
	c        byte
	end, eof bool
}

// input is what the slave has not read yet. In canonical mode the first head
// cells are whole lines, lines of them; the others are being edited.
type input struct {
	cells   []cell
	head    int
	lines   int
	literal bool // VLNEXT was typed
}

// line takes at most len(p) bytes of the first line.
func (in *input) line(p []byte) int {
	n, k := 0, 0
	for k < in.head {
		c := in.cells[k]
		if c.eof {
			k++
			in.lines--
			break
		}
		if n == len(p) {
			break
		}
		p[n] = c.c
		n++
		k++
		if c.end {
			in.lines--
			break
		}
	}
	// An end of file right behind what filled p goes with it.
	if n == len(p) && k < in.head && in.cells[k].eof && k > 0 && !in.cells[k-1].end {
		k++
		in.lines--
	}
	in.drop(k)
	return n
}

func (in *input) drop(k int) {
	in.cells = in.cells[k:]
	in.head = max(0, in.head-k)
	if len(in.cells) == 0 {
		in.cells = nil
	}
}

// take takes bytes without regard to lines.
func (in *input) take(p []byte) int {
	n := min(len(p), len(in.cells))
	for i := range n {
		p[i] = in.cells[i].c
	}
	in.drop(n)
	return n
}

func (in *input) flush() { *in = input{} }

// output is what the master has not read yet, and where the cursor is.
type output struct {
	buf    []byte
	column int
	start  int // the column at which the line being typed begins
}

func (o *output) room() bool { return len(o.buf) < maxOutput }

func (o *output) put(c ...byte) { o.buf = append(o.buf, c...) }

func (o *output) take(p []byte) int {
	n := copy(p, o.buf)
	if o.buf = o.buf[n:]; len(o.buf) == 0 {
		o.buf = nil
	}
	return n
}

func (t *Terminal) iflag(f uint32) bool { return t.termios.Iflag&f != 0 }
func (t *Terminal) oflag(f uint32) bool { return t.termios.Oflag&f != 0 }
func (t *Terminal) lflag(f uint32) bool { return t.termios.Lflag&f != 0 }
func (t *Terminal) canonical() bool     { return t.lflag(unix.ICANON) }

// is reports whether c is the control character with index i; 0 disables it.
func (t *Terminal) is(c byte, i int) bool { return c != 0 && t.termios.Cc[i] == c }

// roomForInput reports whether the master may write. A line without end may
// always grow: what does not fit is dropped.
func (t *Terminal) roomForInput() bool {
	return len(t.in.cells) < maxInput-1 || t.canonical() && t.in.lines == 0
}

// process is output processing of one byte that the slave writes
// (do_output_char).
func (t *Terminal) process(c byte) {
	o := &t.out
	if !t.oflag(unix.OPOST) {
		o.put(c)
		return
	}
	switch c {
	case '\n':
		if t.oflag(unix.ONLRET) {
			o.column = 0
		}
		if t.oflag(unix.ONLCR) {
			o.column, o.start = 0, 0
			o.put('\r', '\n')
			return
		}
		o.start = o.column
	case '\r':
		if t.oflag(unix.ONOCR) && o.column == 0 {
			return
		}
		if t.oflag(unix.OCRNL) {
			c = '\n'
			if t.oflag(unix.ONLRET) {
				o.column, o.start = 0, 0
			}
			break
		}
		o.column, o.start = 0, 0
	case '\t':
		n := 8 - o.column&7
		o.column += n
		if t.termios.Oflag&unix.TABDLY == unix.XTABS {
			for range n {
				o.put(' ')
			}
			return
		}
	case '\b':
		if o.column > 0 {
			o.column--
		}
	default:
		if c >= ' ' && c != 0x7f {
			if t.oflag(unix.OLCUC) && c >= 'a' && c <= 'z' {
				c -= 'a' - 'A'
			}
			if !t.iflag(unix.IUTF8) || c&0xc0 != 0x80 {
				o.column++
			}
		}
	}
	o.put(c)
}

func control(c byte) bool { return c < ' ' || c == 0x7f }

// echo shows a byte that was typed (echo_char).
func (t *Terminal) echo(c byte, e *effects) {
	if !t.out.room() {
		return
	}
	if t.lflag(unix.ECHOCTL) && control(c) && c != '\t' {
		t.out.put('^', c^0x40)
		t.out.column += 2
	} else {
		t.process(c)
	}
	e.master |= waiter.ReadableEvents
}

// echoRaw shows bytes as they are, but for output processing.
func (t *Terminal) echoRaw(e *effects, s ...byte) {
	if !t.out.room() {
		return
	}
	for _, c := range s {
		t.process(c)
	}
	e.master |= waiter.ReadableEvents
}

// add puts a byte into the input; a full buffer drops it.
func (t *Terminal) add(c cell, e *effects) {
	in := &t.in
	if len(in.cells) >= maxInput-1 && !c.end {
		if t.iflag(unix.IMAXBEL) {
			t.echoRaw(e, '\a')
		}
		return
	}
	in.cells = append(in.cells, c)
	switch {
	case !t.canonical():
		in.head = 0
		e.slave |= waiter.ReadableEvents
	case c.end:
		in.head = len(in.cells)
		in.lines++
		e.slave |= waiter.ReadableEvents
	}
}

// receive is input processing of one byte that the master writes
// (n_tty_receive_char_special and its neighbours).
func (t *Terminal) receive(c byte, e *effects) {
	if t.in.literal {
		t.in.literal = false
		if t.iflag(unix.ISTRIP) {
			c &= 0x7f
		}
		t.ordinary(c, e)
		return
	}
	if t.iflag(unix.ISTRIP) {
		c &= 0x7f
	}
	if t.iflag(unix.IUCLC) && t.lflag(unix.IEXTEN) && c >= 'A' && c <= 'Z' {
		c += 'a' - 'A'
	}
	if t.iflag(unix.IXON) {
		switch {
		case t.is(c, unix.VSTART):
			t.flow(false, e)
			return
		case t.is(c, unix.VSTOP):
			t.flow(true, e)
			return
		}
	}
	if t.lflag(unix.ISIG) {
		for _, s := range [...]struct {
			i   int
			sig unix.Signal
		}{{unix.VINTR, unix.SIGINT}, {unix.VQUIT, unix.SIGQUIT}, {unix.VSUSP, unix.SIGTSTP}} {
			if !t.is(c, s.i) {
				continue
			}
			t.interrupt(s.sig, e)
			if t.iflag(unix.IXON) {
				t.flow(false, e)
			}
			if t.lflag(unix.ECHO) {
				t.echo(c, e)
			}
			return
		}
	}
	if t.stopped && t.iflag(unix.IXON) && t.iflag(unix.IXANY) {
		t.flow(false, e)
	}
	switch {
	case c == '\r' && t.iflag(unix.IGNCR):
		return
	case c == '\r' && t.iflag(unix.ICRNL):
		c = '\n'
	case c == '\n' && t.iflag(unix.INLCR):
		c = '\r'
	}
	if t.canonical() && t.edit(c, e) {
		return
	}
	t.ordinary(c, e)
}

// interrupt sends a signal to the foreground group; what is typed goes, unless
// NOFLSH. What was written is with the master already.
func (t *Terminal) interrupt(s unix.Signal, e *effects) {
	if !t.lflag(unix.NOFLSH) {
		t.in.flush()
		if t.packet {
			t.packetStatus |= unix.TIOCPKT_FLUSHREAD | unix.TIOCPKT_FLUSHWRITE
		}
		e.slave |= waiter.WritableEvents
		e.master |= waiter.ReadableEvents | waiter.WritableEvents
	}
	e.signal(t.foreground, s)
}

// flow stops or starts the slave's output.
func (t *Terminal) flow(stop bool, e *effects) {
	if t.stopped == stop {
		return
	}
	t.stopped = stop
	if t.packet {
		bit, not := byte(unix.TIOCPKT_START), byte(unix.TIOCPKT_STOP)
		if stop {
			bit, not = not, bit
		}
		t.packetStatus = t.packetStatus&^not | bit
		e.master |= waiter.ReadableEvents | waiter.EventPri
	}
	if !stop {
		e.slave |= waiter.WritableEvents
	}
}

// edit handles the characters that canonical mode treats in a special way; it
// reports whether c was one.
func (t *Terminal) edit(c byte, e *effects) bool {
	ext := t.lflag(unix.IEXTEN)
	switch {
	case t.is(c, unix.VERASE), t.is(c, unix.VKILL), ext && t.is(c, unix.VWERASE):
		t.erase(c, e)
	case ext && t.is(c, unix.VLNEXT):
		t.in.literal = true
		if t.lflag(unix.ECHO) && t.lflag(unix.ECHOCTL) {
			t.echoRaw(e, '^', '\b')
		}
	case ext && t.is(c, unix.VREPRINT) && t.lflag(unix.ECHO):
		t.echo(c, e)
		t.echoRaw(e, '\n')
		for _, x := range t.in.cells[t.in.head:] {
			t.echo(x.c, e)
		}
	case c == '\n':
		if t.lflag(unix.ECHO) || t.lflag(unix.ECHONL) {
			t.echoRaw(e, '\n')
		}
		t.add(cell{c: c, end: true}, e)
	case t.is(c, unix.VEOF):
		t.add(cell{c: c, end: true, eof: true}, e)
	case t.is(c, unix.VEOL), ext && t.is(c, unix.VEOL2):
		if t.lflag(unix.ECHO) {
			t.startLine()
			t.echo(c, e)
		}
		t.add(cell{c: c, end: true}, e)
	default:
		return false
	}
	return true
}

// startLine remembers the column at which a line begins.
func (t *Terminal) startLine() {
	if len(t.in.cells) == t.in.head {
		t.out.start = t.out.column
	}
}

// ordinary takes a byte that means itself.
func (t *Terminal) ordinary(c byte, e *effects) {
	if t.lflag(unix.ECHO) {
		if t.canonical() {
			t.startLine()
		}
		if c == '\n' {
			t.echoRaw(e, '\n')
		} else {
			t.echo(c, e)
		}
	}
	if c == 0xff && t.iflag(unix.PARMRK) {
		t.add(cell{c: c}, e)
	}
	t.add(cell{c: c}, e)
}

// erase takes back a character, a word or the line (eraser).
func (t *Terminal) erase(c byte, e *effects) {
	in := &t.in
	if len(in.cells) == in.head {
		return
	}
	kill := t.is(c, unix.VKILL)
	word := !kill && !t.is(c, unix.VERASE)
	echo := t.lflag(unix.ECHO)
	if kill {
		if !echo {
			in.cells = in.cells[:in.head]
			return
		}
		if !t.lflag(unix.ECHOK) || !t.lflag(unix.ECHOKE) || !t.lflag(unix.ECHOE) {
			in.cells = in.cells[:in.head]
			t.echo(c, e)
			if t.lflag(unix.ECHOK) {
				t.echoRaw(e, '\n')
			}
			return
		}
	}
	seen := false
	for len(in.cells) > in.head {
		k := len(in.cells) - 1
		if t.iflag(unix.IUTF8) {
			for k > in.head && in.cells[k].c&0xc0 == 0x80 {
				k--
			}
		}
		x := in.cells[k].c
		if word {
			letter := x >= '0' && x <= '9' || x >= 'a' && x <= 'z' || x >= 'A' && x <= 'Z' || x == '_' || x >= 0xc0 && x != 0xd7 && x != 0xf7 || x == 0xaa || x == 0xb5 || x == 0xba
			if letter {
				seen = true
			} else if seen {
				break
			}
		}
		in.cells = in.cells[:k]
		if echo {
			switch {
			case !kill && !t.lflag(unix.ECHOE):
				t.echo(t.termios.Cc[unix.VERASE], e)
			case x == '\t':
				t.eraseTab(e)
			default:
				if control(x) && t.lflag(unix.ECHOCTL) {
					t.echoRaw(e, '\b', ' ', '\b')
				}
				if !control(x) || t.lflag(unix.ECHOCTL) {
					t.echoRaw(e, '\b', ' ', '\b')
				}
			}
		}
		if !kill && !word {
			break
		}
	}
}

// eraseTab moves the cursor back over a tab: what is before it in the line
// says how far.
func (t *Terminal) eraseTab(e *effects) {
	column, tab := 0, false
	for i := len(t.in.cells) - 1; i >= t.in.head; i-- {
		c := t.in.cells[i].c
		if c == '\t' {
			tab = true
			break
		}
		if control(c) {
			if t.lflag(unix.ECHOCTL) {
				column += 2
			}
		} else if !t.iflag(unix.IUTF8) || c&0xc0 != 0x80 {
			column++
		}
	}
	if !tab {
		column += t.out.start
	}
	for range 8 - column&7 {
		t.echoRaw(e, '\b')
	}
}

// setTermios replaces the attributes (n_tty_set_termios). What was typed in
// the other mode is one line.
func (t *Terminal) setTermios(n unix.Termios, e *effects) {
	old := t.termios
	// A terminal has no parity and no other size than 8 bits (pty_set_termios).
	n.Cflag = n.Cflag&^(unix.CSIZE|unix.PARENB) | unix.CS8 | unix.CREAD
	t.termios = n
	if (old.Lflag^n.Lflag)&unix.ICANON != 0 {
		in := &t.in
		for i := range in.cells {
			in.cells[i].end, in.cells[i].eof = false, false
		}
		in.head, in.lines, in.literal = 0, 0, false
		if t.canonical() && len(in.cells) > 0 {
			in.cells[len(in.cells)-1].end = true
			in.head, in.lines = len(in.cells), 1
		}
		if t.readable() {
			e.slave |= waiter.ReadableEvents
		}
	}
	if old.Iflag&unix.IXON != 0 && n.Iflag&unix.IXON == 0 {
		t.flow(false, e)
	}
	if t.packet {
		flow := func(x *unix.Termios) bool {
			return x.Iflag&unix.IXON != 0 && x.Cc[unix.VSTOP] == 0x13 && x.Cc[unix.VSTART] == 0x11
		}
		was, is := flow(&old), flow(&n)
		if was != is {
			t.packetStatus &^= unix.TIOCPKT_DOSTOP | unix.TIOCPKT_NOSTOP
			if is {
				t.packetStatus |= unix.TIOCPKT_DOSTOP
			} else {
				t.packetStatus |= unix.TIOCPKT_NOSTOP
			}
		}
		if (old.Lflag^n.Lflag)&unix.EXTPROC != 0 || old.Lflag&unix.EXTPROC != 0 {
			t.packetStatus |= unix.TIOCPKT_IOCTL
		}
		if t.packetStatus != 0 {
			e.master |= waiter.ReadableEvents | waiter.EventPri
		}
	}
}
