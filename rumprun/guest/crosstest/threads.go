//go:build nabla

package main

import (
	"bytes"
	"encoding/binary"
	"math"
	"math/rand/v2"
	"runtime"
	"unsafe"

	"golang.org/x/sys/unix"

	"github.com/nabla-build/nabla-build/rumprun/guest"
)

// Offsets in a block; guest.S has the same.
const (
	bFlags   = 0x080
	bMXCSR   = 0x088
	bRedzone = 0x090
	bAux     = 0x098
	bK       = 0x100
	bFX      = 0x200
	bVec     = 0x400
	bOut     = 0x1000
	bGPRs    = 16
	bStack   = 0x2800 // the pattern's rsp
	bAuxTop  = 0x3800

	userFlags = 0x244cd5 // what a guest may set: CF PF AF ZF SF DF OF NT AC ID
	flagAC    = 0x40000
	flagTF    = 0x100

	rax, rcx, rdx, rsp, r11 = 0, 2, 3, 7, 11
)

var le = binary.LittleEndian

// thread is a guest thread with a block of its own and a second one that it
// may move fs to.
type thread struct {
	id    int
	kind  string // widest registers that are checked
	c     *guest.Context
	block [2][]byte
	addr  [2]uint64
	r     *rand.Rand
	in    []byte // the block as it was loaded
}

func newThread(id int, kind string) *thread {
	t := &thread{id: id, kind: kind, c: guest.NewContext(), r: rand.New(rand.NewPCG(uint64(id), 7))}
	for i := range t.block {
		a := uintptr(blocksBase + (2*id+i)*blockSize)
		t.addr[i] = uint64(a)
		t.block[i] = unsafe.Slice((*byte)(*(*unsafe.Pointer)(unsafe.Pointer(&a))), blockSize)
	}
	return t
}

// widest is the kind of registers that the processor has.
func widest() string {
	c := guest.NewContext()
	switch n := c.FPSize(); {
	case n >= 2688:
		return "zmm"
	case n >= 832:
		return "ymm"
	}
	return "xmm"
}

// fill puts new random values in the block.
func (t *thread) fill(flags uint64) {
	b := t.block[0]
	for i := range b {
		b[i] = byte(t.r.Uint32())
	}
	le.PutUint64(b[8*rsp:], t.addr[0]+bStack)
	le.PutUint64(b[bAux:], t.addr[0]+bAuxTop)
	le.PutUint64(b[bFlags:], flags)
	mxcsr := t.r.Uint32() & 0xffff
	if t.r.IntN(4) == 0 {
		mxcsr = 0x1f80
	}
	le.PutUint32(b[bMXCSR:], mxcsr)
	clear(b[0xa0:0xb0]) // bZero
	fx := b[bFX:][:512]
	clear(fx[24:32]) // mxcsr: by ldmxcsr
	le.PutUint16(fx[0:], uint16(t.r.Uint32())&0xf00|0x37f&^0xf00|0x40)
	le.PutUint16(fx[2:], uint16(t.r.Uint32())&0x7f00&^0x8000) // TOP and condition codes, no exception
	fx[5] = 0
	for i := range 8 {
		clear(fx[32+16*i+10:][:6])
	}
	if t.r.IntN(3) == 0 { // x87 never used
		clear(fx[:24])
		clear(fx[32:160])
		le.PutUint16(fx[0:], 0x37f)
	}
	t.in = bytes.Clone(b)
	copy(t.block[1], b)
	clear(b[bOut : bOut+0x1000])
	clear(t.block[1][bOut : bOut+0x1000])
}

func (t *thread) word(off int) uint64 { return le.Uint64(t.in[off:]) }

func (t *thread) randomFlags() uint64 {
	return t.r.Uint64()&userFlags | 0x202
}

// plainFloats is what floats gives before any guest has run: the rounding mode
// and the treatment of denormals matter.
var plainFloats = floats()

//go:noinline
func floats() float64 {
	x := 1.0
	for i := range 100 {
		x = x*1.0000001 + 1/float64(i+3)
	}
	tiny := math.SmallestNonzeroFloat64
	return x + tiny*3/tiny
}

// disturb does what a library OS does between two crossings, and worse.
func (t *thread) disturb() {
	switch t.r.IntN(6) {
	case 0, 1:
		runtime.Gosched()
	case 2:
		a := make([]byte, 4096)
		copy(a, t.in)
		if !bytes.Equal(a, t.in[:4096]) {
			fail("thread %d: copy", t.id)
		}
	case 3:
		if x := floats(); x != plainFloats {
			fail("thread %d: float arithmetic under the guest's MXCSR: %x, want %x", t.id, x, plainFloats)
		}
	case 4:
		if recovered(func() { deref(nil) }) == nil {
			fail("thread %d: no panic", t.id)
		}
		runtime.Gosched()
	}
	// A thread is sometimes continued by a copy of it.
	if t.r.IntN(5) == 0 {
		c := guest.NewContext()
		c.CopyFrom(t.c)
		t.c.LoadFP(nil)
		t.c = c
	}
}

// handler makes the guest run a signal handler, which spoils all registers,
// and brings them back from images as a signal frame would hold them.
func (t *thread) handler() {
	c := t.c
	regs := c.Regs
	fp := make([]byte, c.FPSize())
	if n := c.SaveFP(fp); n != len(fp) {
		fail("SaveFP wrote %d bytes of %d", n, len(fp))
	}
	c.LoadFP(nil)
	c.Rip, c.Rsp = symbol("handler"), t.addr[0]+bAuxTop
	c.Rflags = 0x202
	for c.Enter(); c.Reason == guest.Preempted; c.Enter() {
	}
	if c.Reason != guest.Syscall || c.Rax != 15 || c.Fast {
		fail("thread %d: handler: reason %d signal %d rax %d rip %#x", t.id, c.Reason, c.Signo, c.Rax, c.Rip)
	}
	runtime.Gosched()
	c.Regs = regs
	if err := c.LoadFP(fp); err != nil {
		fail("thread %d: %v", t.id, err)
	}
}

type fault struct {
	signo, code  int32
	trap, err    uint64
	addr         uint64
	addrIsTheRip bool
}

var faults = map[string]fault{
	"segv":  {signo: int32(unix.SIGSEGV), code: 1, trap: 14, err: 6, addr: 0x10},
	"ill":   {signo: int32(unix.SIGILL), code: 2, trap: 6, addrIsTheRip: true},
	"trap3": {signo: int32(unix.SIGTRAP), code: 0x80, trap: 3},
	"div":   {signo: int32(unix.SIGFPE), code: 1, trap: 0, addrIsTheRip: true},
	"align": {signo: int32(unix.SIGBUS), code: 1, trap: 17},
}

var events = []string{"mov7", "behind", "before", "after", "trap", "spin", "segv", "ill", "trap3", "div", "align", "gs", "fs"}

func (t *thread) run(rounds int, noFSGSBase bool) {
	kinds := map[string][]string{"xmm": {"xmm"}, "ymm": {"xmm", "ymm"}, "zmm": {"xmm", "ymm", "zmm"}}[t.kind]
	for range rounds {
		for _, ev := range events {
			if (ev == "gs" || ev == "fs") && noFSGSBase {
				continue
			}
			t.event(kinds[t.r.IntN(len(kinds))], ev)
		}
	}
}

// event runs one probe and checks what came of it.
func (t *thread) event(kind, ev string) {
	flags := t.randomFlags()
	if ev == "align" {
		flags |= flagAC
	}
	t.fill(flags)
	want := make([]uint64, bGPRs)
	for i := range want {
		want[i] = t.word(8 * i)
	}
	set := func(reg int, v uint64) {
		want[reg] = v
		le.PutUint64(t.in[8*reg:], v)
		le.PutUint64(t.block[0][8*reg:], v)
		le.PutUint64(t.block[1][8*reg:], v)
	}
	out := 0 // the block that the results go to
	switch ev {
	case "behind", "trap":
		set(rax, 39)
	case "gs":
		set(rax, 39)
	case "fs":
		set(rax, t.addr[1])
		out = 1
	}
	c := t.c
	c.FsBase = t.addr[0]
	c.Rip = symbol("probe_" + kind + "_" + ev)
	c.Rsp = t.addr[0] + bAuxTop
	c.Rflags = 0x202
	spin, spun := symbols["spin_"+kind], symbols["spun_"+kind]
	fastCalls, trapCalls, spins, faulted := 0, 0, 0, false
	var result, ret uint64
	for done := false; !done; {
		c = t.c
		c.Enter()
		switch c.Reason {
		case guest.Preempted:
			if c.Rip == spin {
				if spins++; spins == 2 {
					c.Rip = spun
				}
			}
		case guest.Fault:
			f, ok := faults[ev]
			at := symbols["fault_"+kind+"_"+ev]
			if ev == "trap3" {
				at++ // a trap, not a fault: behind the instruction
			}
			if f.addrIsTheRip {
				f.addr = at
			}
			if !ok || faulted || c.Rip != at || c.Signo != f.signo || c.Code != f.code || c.TrapNo != f.trap || c.ErrCode != f.err || c.Addr != f.addr {
				fail("thread %d %s %s: signal %d code %d addr %#x trap %d err %d at %#x, want %+v at %#x", t.id, kind, ev,
					c.Signo, c.Code, c.Addr, c.TrapNo, c.ErrCode, c.Rip, f, at)
			}
			faulted = true
			t.handler()
			c.Rip = symbol("faulted_" + kind + "_" + ev)
		case guest.Syscall:
			if c.Rax == 1000 {
				done = true
				break
			}
			if c.Fast {
				fastCalls++
			} else {
				trapCalls++
			}
			if nr := c.Rax; nr != 39 && !(ev == "fs" && nr == t.addr[1]) {
				fail("thread %d %s %s: call %d at %#x", t.id, kind, ev, nr, c.Rip)
			}
			if c.Rcx != c.Rip || c.R11&userFlags != flags&userFlags {
				fail("thread %d %s %s: rcx %#x rip %#x r11 %#x", t.id, kind, ev, c.Rcx, c.Rip, c.R11)
			}
			result, ret = t.r.Uint64(), c.Rip
			c.Rax = result
			if t.r.IntN(4) == 0 {
				t.handler()
			}
		}
		t.disturb()
	}
	switch ev {
	case "mov7", "before", "after":
		t.expect(kind, ev, fastCalls == 1 && trapCalls == 0)
	case "behind", "trap":
		t.expect(kind, ev, fastCalls == 0 && trapCalls == 1)
	case "gs", "fs":
		t.expect(kind, ev, fastCalls == 1 && trapCalls == 1)
		t.expect(kind, ev+" base", t.c.FsBase == t.addr[out])
	case "spin":
		t.expect(kind, ev, spins == 2)
	default:
		t.expect(kind, ev, faulted && fastCalls+trapCalls == 0)
	}
	if fastCalls+trapCalls > 0 {
		want[rax], want[rcx], want[r11] = result, ret, 0
	}
	if ev == "before" || ev == "after" {
		want[rdx]++
	}
	t.compare(kind, ev, t.block[out], want, fastCalls+trapCalls > 0)
}

func (t *thread) expect(kind, what string, ok bool) {
	if !ok {
		fail("thread %d %s %s: not as expected", t.id, kind, what)
	}
}

var regNames = []string{"rax", "rbx", "rcx", "rdx", "rsi", "rdi", "rbp", "rsp", "r8", "r9", "r10", "r11", "r12", "r13", "r14", "r15"}

func (t *thread) compare(kind, ev string, b []byte, want []uint64, called bool) {
	out := b[bOut:]
	for i, w := range want {
		if got := le.Uint64(out[8*i:]); got != w && !(i == r11 && called) {
			fail("thread %d %s %s: %s is %#x, want %#x", t.id, kind, ev, regNames[i], got, w)
		}
	}
	if got, w := le.Uint64(out[bFlags:]), t.word(bFlags); got&(userFlags|flagTF) != w&userFlags {
		fail("thread %d %s %s: rflags %#x, want %#x", t.id, kind, ev, got, w)
	}
	for i := 1; i <= 16; i++ {
		if got := le.Uint64(t.block[0][bStack-8*i:]); got != t.word(bRedzone) {
			fail("thread %d %s %s: red zone at -%d is %#x, want %#x", t.id, kind, ev, 8*i, got, t.word(bRedzone))
		}
	}
	same := func(what string, off, n int) {
		if !bytes.Equal(out[off:off+n], t.in[off:off+n]) {
			fail("thread %d %s %s: %s is %x, want %x", t.id, kind, ev, what, out[off:off+n], t.in[off:off+n])
		}
	}
	width := map[string]int{"xmm": 16, "ymm": 32, "zmm": 64}[kind]
	n := 16
	if kind == "zmm" {
		n = 32
		same("k0-7", bK, 64)
	}
	for i := range n {
		same(kind+string(rune('0'+i/10))+string(rune('0'+i%10)), bVec+64*i, width)
	}
	same("x87 control, status, tag", bFX, 5)
	for i := range 8 {
		same("st", bFX+32+16*i, 10)
	}
	if got, w := le.Uint32(out[bFX+24:]), le.Uint32(t.in[bMXCSR:]); got != w {
		fail("thread %d %s %s: mxcsr %#x, want %#x", t.id, kind, ev, got, w)
	}
}
