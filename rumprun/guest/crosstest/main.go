//go:build nabla

// Crosstest runs small guests over the crossing and checks that nothing of
// their state changes, under the filter of production. crosstest_test.go
// builds and runs it.
//
//	crosstest [-variant V] [-nofsgsbase] [-threads N] [-rounds N] [-tick D] MODE GUEST
package main

import (
	"debug/elf"
	"flag"
	"fmt"
	"os"
	"sync"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"

	"github.com/nabla-build/nabla-build/rumprun/guest"
	"github.com/nabla-build/nabla-build/rumprun/hypercall"
	"github.com/nabla-build/nabla-build/tender/policy"
)

func say(format string, a ...any) {
	hypercall.Write(1, fmt.Appendf(nil, format+"\n", a...))
}

func fail(format string, a ...any) {
	hypercall.Write(2, fmt.Appendf(nil, "crosstest: "+format+"\n", a...))
	hypercall.ExitGroup(1)
}

// symbols of the guest program.
var symbols = map[string]uint64{}

func symbol(name string) uint64 {
	a, ok := symbols[name]
	if !ok {
		fail("the guest has no symbol %s", name)
	}
	return a
}

const (
	mapNoReplace = 0x100000
	blocksBase   = 0x10000000
	blockSize    = 0x4000
)

func mapAt(addr, n uint64) []byte {
	r, _, e := unix.RawSyscall6(unix.SYS_MMAP, uintptr(addr), uintptr(n), unix.PROT_READ|unix.PROT_WRITE|unix.PROT_EXEC,
		unix.MAP_PRIVATE|unix.MAP_ANON|mapNoReplace, ^uintptr(0), 0)
	if e != 0 || uint64(r) != addr {
		fail("map %#x: %v", addr, e)
	}
	return unsafe.Slice((*byte)(*(*unsafe.Pointer)(unsafe.Pointer(&r))), n)
}

// load maps the guest's segments.
func load(path string) error {
	f, err := elf.Open(path)
	if err != nil {
		return err
	}
	defer f.Close()
	const page = 4096
	var lo, hi uint64 = 1 << 63, 0
	for _, p := range f.Progs {
		if p.Type == elf.PT_LOAD {
			lo, hi = min(lo, p.Vaddr&^(page-1)), max(hi, p.Vaddr+p.Memsz)
		}
	}
	mem := mapAt(lo, (hi-lo+page-1)&^(page-1))
	for _, p := range f.Progs {
		if p.Type == elf.PT_LOAD {
			if _, err := p.ReadAt(mem[p.Vaddr-lo:][:p.Filesz], 0); err != nil {
				return err
			}
		}
	}
	syms, err := f.Symbols()
	for _, s := range syms {
		symbols[s.Name] = s.Value
	}
	return err
}

// lockdown installs the filter that the tender would.
func lockdown() error {
	p := policy.Policy{Gate: uint64(hypercall.GateAddress()), Rules: []policy.Rule{
		{NR: unix.SYS_READ, Name: "read"},
		{NR: unix.SYS_WRITE, Name: "write"},
		{NR: unix.SYS_PPOLL, Name: "ppoll"},
		{NR: unix.SYS_EXIT_GROUP, Name: "exit_group"},
	}}
	if guest.NeedArchPrctl() {
		const archSetFS = 0x1002
		p.Rules = append(p.Rules, policy.Rule{NR: unix.SYS_ARCH_PRCTL, Name: "arch_prctl", Args: []policy.Arg{{Index: 0, Name: "code", OneOf: []uint64{archSetFS}}}})
	}
	raw, err := p.Program()
	if err != nil {
		return err
	}
	f := make([]unix.SockFilter, len(raw))
	for i, r := range raw {
		f[i] = unix.SockFilter{Code: r.Op, Jt: r.Jt, Jf: r.Jf, K: r.K}
	}
	prog := unix.SockFprog{Len: uint16(len(f)), Filter: &f[0]}
	if err := unix.Prctl(unix.PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0); err != nil {
		return err
	}
	hypercall.Lockdown()
	if _, _, e := unix.RawSyscall(unix.SYS_SECCOMP, unix.SECCOMP_SET_MODE_FILTER, 0, uintptr(unsafe.Pointer(&prog))); e != 0 {
		return e
	}
	return nil
}

var variants = map[string]guest.Variant{
	"auto": guest.VariantAuto, "xmm": guest.VariantXMM, "ymm": guest.VariantYMM,
	"zmm": guest.VariantZMM, "xsave": guest.VariantXSAVE,
}

func main() {
	variant := flag.String("variant", "auto", "way of keeping vector registers")
	noFSGSBase := flag.Bool("nofsgsbase", false, "as on a processor without FSGSBASE")
	threads := flag.Int("threads", 4, "guest threads")
	rounds := flag.Int("rounds", 50, "rounds of all events for each thread")
	tick := flag.Duration("tick", time.Millisecond, "CPU timer")
	flag.Parse()
	if flag.NArg() != 2 {
		flag.Usage()
		os.Exit(2)
	}
	mode := flag.Arg(0)
	if err := load(flag.Arg(1)); err != nil {
		fail("load: %v", err)
	}
	mapAt(blocksBase, uint64(2**threads+2)*blockSize)
	native := nativeCall()
	if err := guest.Setup(guest.Options{Variant: variants[*variant], NoFSGSBase: *noFSGSBase}); err != nil {
		fail("%v", err)
	}
	want := workload() // before any tick
	if err := guest.ArmTimer(*tick); err != nil {
		fail("%v", err)
	}
	if err := lockdown(); err != nil {
		fail("lockdown: %v", err)
	}
	kind := map[guest.Variant]string{guest.VariantXMM: "xmm", guest.VariantYMM: "ymm", guest.VariantZMM: "zmm"}[guest.ChosenVariant()]
	if kind == "" {
		kind = widest()
	}
	switch mode {
	case "registers":
		var wg sync.WaitGroup
		for i := range *threads {
			wg.Go(func() { newThread(i, kind).run(*rounds, *noFSGSBase) })
		}
		wg.Wait()
	case "odd":
		odd(newThread(0, kind))
	case "storm":
		storm(want)
	case "panics":
		panics()
	case "hostcall":
		unix.RawSyscall(unix.SYS_GETPID, 0, 0, 0)
		fail("the host call came back")
	case "unmapped":
		// A fault that nobody recovers ends the process as the Go runtime does.
		deref(nil)
	case "bench":
		bench(native)
	default:
		fail("mode %q", mode)
	}
	say("ok %s %v", mode, guest.ChosenVariant())
	hypercall.ExitGroup(0)
}

func nativeCall() time.Duration {
	const n = 300000
	t := time.Now()
	for range n {
		unix.RawSyscall(unix.SYS_GETPID, 0, 0, 0)
	}
	return time.Since(t) / n
}

// bench prints what a call costs by either way, answered by one Go statement.
func bench(native time.Duration) {
	run := func(entry string, n uint64) time.Duration {
		c := guest.NewContext()
		c.Rip, c.Rbx, c.Rsp, c.FsBase = symbol(entry), n, blocksBase+blockSize-64, blocksBase
		t := time.Now()
		for {
			c.Enter()
			switch {
			case c.Reason == guest.Fault:
				fail("bench: signal %d at %#x", c.Signo, c.Rip)
			case c.Reason == guest.Syscall && c.Rax == 1000:
				return time.Since(t) / time.Duration(n)
			case c.Reason == guest.Syscall:
				c.Rax = 1
			}
		}
	}
	run("bench_fast", 1000000)
	fast := run("bench_fast", 10000000)
	trap := run("bench_trap", 200000)
	say("getpid: native %v, fast path %v (%.2f of native), trap path %v (%.1f of native, %.0f of fast)", native,
		fast, float64(fast)/float64(native), trap, float64(trap)/float64(native), float64(trap)/float64(fast))
}
