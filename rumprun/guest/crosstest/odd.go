//go:build nabla

package main

import (
	"errors"
	"math"
	"reflect"
	"runtime"

	"golang.org/x/sys/unix"

	"github.com/nabla-build/nabla-build/rumprun/guest"
)

// odd tries what a guest hardly does: addresses that are none, TF, a jump into
// the library OS.
func odd(t *thread) {
	c := t.c
	enter := func() {
		for c.Enter(); c.Reason == guest.Preempted; c.Enter() {
		}
	}
	start := func(rip uint64) {
		c.Rip, c.Rsp, c.FsBase, c.Rflags = rip, t.addr[0]+bAuxTop, t.addr[0], 0x202
	}
	for _, rip := range []uint64{0x10, 1 << 63, 0x800000000000, math.MaxUint64} {
		start(rip)
		enter()
		if c.Reason != guest.Fault || c.Signo != int32(unix.SIGSEGV) || c.Rip != rip {
			fail("rip %#x: reason %d signal %d rip %#x", rip, c.Reason, c.Signo, c.Rip)
		}
	}
	// TF set by the guest traps once and is gone after the trap.
	t.fill(t.randomFlags()&^0x4000 | flagTF)
	start(symbol("probe_xmm_mov7"))
	traps := 0
	for enter(); c.Reason == guest.Fault; enter() {
		if c.Signo != int32(unix.SIGTRAP) || c.Rflags&flagTF == 0 {
			fail("TF: signal %d rflags %#x", c.Signo, c.Rflags)
		}
		traps++
	}
	if traps != 1 || c.Reason != guest.Syscall || !c.Fast || c.Rflags&flagTF != 0 {
		fail("TF: %d traps, reason %d, rflags %#x", traps, c.Reason, c.Rflags)
	}
	// rflags with bits that a frame may claim but nobody may set.
	start(symbol("bench_fast"))
	c.Rbx, c.Rflags = 3, math.MaxUint64
	enter()
	if c.Reason != guest.Syscall || c.Rflags&^userFlags != 0x202 {
		fail("rflags: reason %d signal %d rflags %#x", c.Reason, c.Signo, c.Rflags)
	}
	// An fs base that is no address does no harm to the host.
	start(symbol("bench_fast"))
	c.Rbx, c.FsBase = 3, 1<<63
	enter()
	if c.Reason != guest.Syscall {
		fail("fs base: reason %d signal %d", c.Reason, c.Signo)
	}
	// The guest jumps into the library OS's code, where the first instructions
	// use g, which is in a register that the guest has set to 8.
	rip := uint64(reflect.ValueOf(runtime.Breakpoint).Pointer())
	lo, hi := guest.HostText()
	if rip < uint64(lo) || rip >= uint64(hi) {
		fail("host text %#x-%#x does not hold %#x", lo, hi, rip)
	}
	start(rip)
	c.R14 = 8
	enter()
	if c.Reason != guest.Fault || c.Signo != int32(unix.SIGSEGV) || c.Rip < uint64(lo) || c.Rip >= uint64(hi) {
		fail("jump into the library OS: reason %d signal %d at %#x", c.Reason, c.Signo, c.Rip)
	}
	hostile(c)
	// And all is still well.
	t.run(3, guest.NeedArchPrctl())
}

// hostile gives LoadFP images that would fault if they were loaded as they are.
func hostile(c *guest.Context) {
	good := make([]byte, c.FPSize())
	c.SaveFP(good)
	enter := func(what string) {
		c.Rip, c.Rbx, c.Rflags = symbol("bench_fast"), 1, 0x202
		for c.Enter(); c.Reason == guest.Preempted; c.Enter() {
		}
		if c.Reason != guest.Syscall {
			fail("image with %s: reason %d signal %d", what, c.Reason, c.Signo)
		}
	}
	for _, b := range []struct {
		what   string
		off    int
		v      uint64
		refuse bool
	}{
		{"mxcsr", 24, math.MaxUint64, false},
		{"xstate_bv", 512, math.MaxUint64, false},
		{"xcomp_bv", 520, 1 << 63, true},
		{"reserved header", 560, 1, true},
		{"features", 464 + 8, math.MaxUint64, false},
		{"size", 464 + 16, math.MaxUint64, false},
		{"no magic", 464, 0, false},
		{"x87 control and status", 0, math.MaxUint64, false},
	} {
		img := append([]byte(nil), good...)
		le.PutUint64(img[b.off:], b.v)
		err := c.LoadFP(img)
		if (err != nil) != b.refuse || err != nil && !errors.Is(err, guest.ErrFPImage) {
			fail("image with %s: %v", b.what, err)
		}
		enter(b.what)
	}
	for n := range len(good) {
		if err := c.LoadFP(good[:n]); err == nil && n < 512 {
			fail("image of %d bytes: no error", n)
		}
	}
	enter("cut short")
}
