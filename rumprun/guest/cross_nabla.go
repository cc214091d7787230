//go:build nabla

package guest

import (
	"errors"
	"fmt"
	"math/bits"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"

	"github.com/nabla-build/nabla-build/rumprun/hypercall"
)

// The state of the crossing. There is one host thread, so one of each; the
// assembly addresses them relative to rip.
var (
	current uintptr // the Context that is entered
	hostSP  uintptr // of the goroutine in Enter
	hostBP  uintptr
	inGuest uint32 // 1 from Enter's last steps to the first of the way back
	ticked  uint32 // the timer hit library OS code

	fsLoaded uint64  // the fs base that is in the processor
	x87Owner uintptr // the Context whose x87 state is in the processor; 0: none
	hostGS   uintptr // &m.tls[1]
	fsgsbase uint32  // rdfsbase and friends may be used
	hasXSAVE uint32
	fpKind   uint32 // the Variant, for the assembly

	keepMask    uint64 // what VariantXSAVE keeps
	restoreMask uint64 // what a signal frame restores
	hostMXCSR   uint32 = initialMXCSR

	textLo, textHi uintptr
	goHandler      [32]uintptr // the Go runtime's handler of each signal
)

// x87Holder keeps the context that x87Owner names from being collected. Only
// this thread writes both, and no goroutine switch lies between.
var x87Holder *Context

// The assembly needs these to be aligned.
var (
	_ [0]byte = [unsafe.Offsetof(Context{}.fp) % contextAlign]byte{}
	_ [0]byte = [unsafe.Offsetof(Context{}.x87) % contextAlign]byte{}
)

//go:noescape
func enterGuest(c *Context)

//go:noescape
func storeX87(c *Context)

func cpuid(leaf, sub uint32) (a, b, c, d uint32)
func xgetbv0() uint64
func mxcsrMask() uint32
func readGS() uintptr
func addresses() (fastEntry, signalEntry, restorer, lo, hi uintptr)
func gate(nr, a0, a1, a2 uintptr) uintptr

func (c *Context) enter() {
	if hostGS == 0 {
		panic("guest: Enter before Setup")
	}
	enterGuest(c)
	if x87Holder != c {
		x87Holder = c
	}
}

// fetchX87 brings c.x87 up to date.
func (c *Context) fetchX87() { storeX87(c) }

// dropX87 makes c.x87 what counts, not the processor's state.
func (c *Context) dropX87() {
	if x87Owner == uintptr(unsafe.Pointer(c)) {
		x87Owner = 0
	}
}

func needArchPrctl() bool        { return hostGS != 0 && fsgsbase == 0 }
func hostText() (lo, hi uintptr) { return textLo, textHi }
func preemptPending() bool       { return ticked != 0 }
func clearPreempt()              { ticked = 0 }

// signals are those that the crossing handles; the rest is blocked.
var signals = []unix.Signal{unix.SIGSYS, unix.SIGSEGV, unix.SIGBUS, unix.SIGFPE, unix.SIGILL, unix.SIGTRAP, unix.SIGVTALRM}

func setup(o Options) error {
	if hostGS != 0 {
		return errors.New("guest: Setup was called twice")
	}
	words := hypercall.SpareWords()
	gs := uintptr(unsafe.Pointer(words))

	auxv, err := unix.Auxv()
	if err != nil {
		return fmt.Errorf("guest: read the auxiliary vector: %w", err)
	}
	const atHWCAP2, hwcap2FSGSBASE = 26, 1 << 1
	for _, a := range auxv {
		if a[0] == atHWCAP2 && a[1]&hwcap2FSGSBASE != 0 && !o.NoFSGSBase {
			fsgsbase = 1
		}
	}
	if fsgsbase != 0 && readGS() != gs {
		return fmt.Errorf("guest: the gs base is %#x, not that of the runtime's thread (%#x): the program was linked without the gs rewrite of cmd/nabla-go", readGS(), gs)
	}
	if err := layout.choose(o.Variant); err != nil {
		return err
	}
	fpKind = uint32(layout.variant)
	keepMask = layout.features
	if layout.xsave {
		hasXSAVE = 1
		restoreMask = xgetbv0() &^ featAMX
	}
	fsLoaded = ^uint64(0)

	if err := checkAltStack(); err != nil {
		return err
	}
	fast, entry, restorer, lo, hi := addresses()
	textLo, textHi = lo, hi
	words[1] = fast
	hostGS = gs
	return takeSignals(entry, restorer)
}

// checkAltStack checks the alternate signal stack. It stays the Go runtime's
// own: its handlers insist on running there and make a host call otherwise.
func checkAltStack() error {
	var st struct {
		sp    uintptr
		flags int32
		size  uintptr
	}
	if _, _, e := unix.RawSyscall(unix.SYS_SIGALTSTACK, 0, uintptr(unsafe.Pointer(&st)), 0); e != 0 {
		return fmt.Errorf("guest: sigaltstack: %w", e)
	}
	const disabled, enough = 2, 24 << 10 // room for the runtime's handler and a few nested frames
	if st.flags&disabled != 0 || st.size < enough {
		return fmt.Errorf("guest: the Go runtime's signal stack has %d bytes, want %d", st.size, enough)
	}
	return nil
}

// kernelSigaction is struct sigaction as rt_sigaction(2) takes it.
type kernelSigaction struct {
	handler, flags, restorer uintptr
	mask                     uint64
}

// takeSignals puts the crossing's handler before the Go runtime's. Nothing is
// masked while it runs, as it mostly leaves without rt_sigreturn.
func takeSignals(entry, restorer uintptr) error {
	const flags = 0x4 | 0x04000000 | 0x08000000 | 0x10000000 | 0x40000000 // SA_SIGINFO|SA_RESTORER|SA_ONSTACK|SA_RESTART|SA_NODEFER
	blocked := ^uint64(0)
	for _, s := range signals {
		var old kernelSigaction
		if _, _, e := unix.RawSyscall6(unix.SYS_RT_SIGACTION, uintptr(s), 0, uintptr(unsafe.Pointer(&old)), 8, 0, 0); e != 0 {
			return fmt.Errorf("guest: read the handler of %v: %w", s, e)
		}
		goHandler[s] = old.handler
		act := kernelSigaction{handler: entry, flags: flags, restorer: restorer}
		if _, _, e := unix.RawSyscall6(unix.SYS_RT_SIGACTION, uintptr(s), uintptr(unsafe.Pointer(&act)), 0, 8, 0, 0); e != 0 {
			return fmt.Errorf("guest: set the handler of %v: %w", s, e)
		}
		blocked &^= 1 << (s - 1)
	}
	const sigSetmask = 2
	if _, _, e := unix.RawSyscall6(unix.SYS_RT_SIGPROCMASK, sigSetmask, uintptr(unsafe.Pointer(&blocked)), 0, 8, 0, 0); e != 0 {
		return fmt.Errorf("guest: block signals: %w", e)
	}
	return nil
}

func armTimer(d time.Duration) error {
	tv := unix.NsecToTimeval(int64(d))
	if _, err := unix.Setitimer(unix.ItimerVirtual, unix.Itimerval{Interval: tv, Value: tv}); err != nil {
		return fmt.Errorf("guest: setitimer(ITIMER_VIRTUAL, %v): %w", d, err)
	}
	return nil
}

// choose fills l in for this processor and the wanted variant.
func (l *fpLayout) choose(want Variant) error {
	_, _, ecx, _ := cpuid(1, 0)
	const osxsave = 1 << 27
	l.xsave = ecx&osxsave != 0
	if m := mxcsrMask(); m != 0 {
		l.mxcsrMask = m
	}
	xcr0 := uint64(featLegacy)
	if l.xsave {
		xcr0 = xgetbv0()
	}
	_, ebx7, _, _ := cpuid(7, 0)
	const avx512bw = 1 << 30 // 64-bit mask registers
	best := VariantXMM
	switch {
	case xcr0&^(featByMoves|featPKRU|featAMX) != 0:
		best = VariantXSAVE
	case xcr0&featAVX512 != 0 && (xcr0&featAVX512 != featAVX512 || ebx7&avx512bw == 0):
		best = VariantXSAVE
	case xcr0&featAVX512 != 0:
		best = VariantZMM
	case xcr0&featAVX != 0:
		best = VariantYMM
	}
	able := map[Variant]bool{
		VariantXMM:   true,
		VariantYMM:   xcr0&featAVX != 0,
		VariantZMM:   xcr0&featAVX512 == featAVX512 && ebx7&avx512bw != 0,
		VariantXSAVE: l.xsave,
	}
	if want == VariantAuto {
		want = best
	}
	if !able[want] {
		return fmt.Errorf("guest: this processor (XCR0 %#x) cannot keep registers by variant %v", xcr0, want)
	}
	l.variant = want
	switch want {
	case VariantXMM:
		l.features = featLegacy
	case VariantYMM:
		l.features = featLegacy | featAVX
	case VariantZMM:
		l.features = featByMoves
	case VariantXSAVE:
		l.features = xcr0 &^ (featPKRU | featAMX)
	}
	l.size = xsaveHeader
	if !l.xsave {
		return nil
	}
	l.size = xsaveHeaderEnd
	for i := 2; i < bits.Len64(l.features); i++ {
		if l.features>>i&1 == 0 {
			continue
		}
		size, off, _, _ := cpuid(0xd, uint32(i))
		if i < len(l.offset) {
			l.offset[i] = int(off)
			if componentSize[i] != 0 && componentSize[i] != int(size) {
				return fmt.Errorf("guest: state component %d has %d bytes, want %d", i, size, componentSize[i])
			}
		}
		l.size = max(l.size, int(off+size))
	}
	if l.size > fpBytes {
		return fmt.Errorf("guest: this processor's register state (XCR0 %#x) takes %d bytes; at most %d can be kept", xcr0, l.size, fpBytes)
	}
	return nil
}

// reportHostCall ends the process because of a host call from library OS code
// that the filter does not permit: a bug. It runs in the signal handler.
//
//go:nosplit
func reportHostCall(nr, pc uintptr) {
	n := copy(report[:], "nabla: library OS bug: host system call ")
	n += decimal(report[n:], nr)
	n += copy(report[n:], " at pc 0x")
	n += hexadecimal(report[n:], pc)
	n += copy(report[n:], " after lockdown\n")
	gate(unix.SYS_WRITE, 2, uintptr(unsafe.Pointer(&report)), uintptr(n))
	const sigsysExit = 128 + 31
	for {
		gate(unix.SYS_EXIT_GROUP, sigsysExit, 0, 0)
	}
}

var report [128]byte

//go:nosplit
func decimal(b []byte, v uintptr) int {
	n := 1
	for x := v; x >= 10; x /= 10 {
		n++
	}
	for i := n - 1; i >= 0; i-- {
		b[i] = '0' + byte(v%10)
		v /= 10
	}
	return n
}

//go:nosplit
func hexadecimal(b []byte, v uintptr) int {
	const n = 16
	for i := n - 1; i >= 0; i-- {
		b[i] = "0123456789abcdef"[v&15]
		v >>= 4
	}
	return n
}
