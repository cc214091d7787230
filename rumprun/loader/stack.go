package loader

import (
	"encoding/binary"

	"golang.org/x/sys/unix"

	"github.com/nabla-build/nabla-build/rumprun/mm"
)

const (
	// DefaultStack is the stack's size where RLIMIT_STACK sets none.
	DefaultStack = 8 << 20
	leastStack   = 256 << 10
	largestStack = 1 << 30

	// Limits of execve(2): one string, all strings and pointers.
	maxStringLen = 32 * mm.PageSize     // MAX_ARG_STRLEN
	maxArgsTotal = DefaultStack / 4 * 3 // 3/4 of _STK_LIM
	minArgsTotal = 32 * mm.PageSize     // ARG_MAX
)

// CheckArgs is execve(2)'s E2BIG: the size of arguments and environment, each
// with its terminating zero and its pointer, against a quarter of RLIMIT_STACK.
func CheckArgs(argv, env []string, stackLimit uint64) error {
	limit := max(min(stackLimit/4, maxArgsTotal), minArgsTotal)
	total := uint64(0)
	for _, list := range [][]string{argv, env} {
		for _, s := range list {
			if len(s) >= maxStringLen {
				return unix.E2BIG
			}
			total += uint64(len(s)) + 1 + 8
			if total > limit {
				return unix.E2BIG
			}
		}
	}
	return nil
}

// stack makes the initial stack (psABI, 3.4.1), strings and tables in Linux's
// order, from the top: a zero word, the path, environment, arguments; platform
// and random bytes; auxiliary vector, environment, argument pointers, argc.
func (p *Program) stack(as *mm.AddressSpace, st *Start, bias, base, entry uintptr) error {
	size := uint64(DefaultStack)
	if p.StackSize < largestStack {
		size = (max(p.StackSize, leastStack) + pageMask) &^ pageMask
	}
	strs := len(p.ExecFn) + 1
	for _, list := range [][]string{p.Argv, p.Env} {
		for _, s := range list {
			strs += len(s) + 1 + 8
		}
	}
	size = max(size, (uint64(strs)+leastStack)&^pageMask)
	prot := unix.PROT_READ | unix.PROT_WRITE
	if p.Image.ExecStack {
		prot |= unix.PROT_EXEC
	}
	low, err := as.Map(mm.Mapping{Len: size, Prot: prot, Flags: unix.MAP_PRIVATE | unix.MAP_ANONYMOUS | unix.MAP_NORESERVE | unix.MAP_STACK, Name: "[stack]", TopDown: true})
	if err != nil {
		return err
	}
	mem, err := as.Bytes(low, int(size), true)
	if err != nil {
		return err
	}
	sp := size - 8
	push := func(s string) uintptr {
		sp -= uint64(len(s)) + 1
		copy(mem[sp:], s)
		return low + uintptr(sp)
	}
	pushAll := func(list []string) []uint64 {
		at := make([]uint64, len(list))
		for i := len(list) - 1; i >= 0; i-- {
			at[i] = uint64(push(list[i]))
		}
		return at
	}
	execfn := push(p.ExecFn)
	st.EnvEnd = low + uintptr(sp)
	env := pushAll(p.Env)
	st.EnvStart = low + uintptr(sp)
	st.ArgEnd = st.EnvStart
	args := pushAll(p.Argv)
	st.ArgStart = low + uintptr(sp)
	sp &^= 15
	platform := push("x86_64")
	sp = (sp - 16) &^ 15
	copy(mem[sp:], p.Random[:])
	random := low + uintptr(sp)

	aux := p.auxv(bias, base, entry, execfn, platform, random)
	words := make([]uint64, 0, 3+len(args)+len(env)+len(aux))
	words = append(words, uint64(len(args)))
	words = append(append(words, args...), 0)
	words = append(append(words, env...), 0)
	auxAt := len(words)
	words = append(words, aux...)
	sp = (sp - uint64(len(words))*8) &^ 15
	for i, w := range words {
		binary.LittleEndian.PutUint64(mem[sp+uint64(i)*8:], w)
	}
	st.SP = low + uintptr(sp)
	st.AuxvStart = st.SP + uintptr(auxAt)*8
	st.AuxvEnd = st.SP + uintptr(len(words))*8
	return nil
}

// Types of auxiliary vector entries (getauxval(3), psABI 3.4.3).
const (
	atNull, atPhdr, atPhent, atPhnum, atPagesz, atBase, atFlags, atEntry         = 0, 3, 4, 5, 6, 7, 8, 9
	atUID, atEUID, atGID, atEGID, atPlatform, atHWCap, atClkTck, atSecure        = 11, 12, 13, 14, 15, 16, 17, 23
	atRandom, atHWCap2, atExecFn, atSysinfoEhdr, atMinSigStkSz            uint64 = 25, 26, 31, 33, 51
)

func (p *Program) auxv(bias, base, entry, execfn, platform, random uintptr) []uint64 {
	var out []uint64
	add := func(k uint64, v uint64) { out = append(out, k, v) }
	host := func(k uint64, v uint64) {
		if v != 0 {
			add(k, v)
		}
	}
	host(atSysinfoEhdr, uint64(p.Host.VDSO))
	host(atMinSigStkSz, p.Host.MinSigStack)
	host(atHWCap, p.Host.HWCap)
	add(atPagesz, mm.PageSize)
	host(atClkTck, p.Host.ClockTick)
	phdr, ok := p.Image.phdr()
	if ok {
		phdr += uint64(bias)
	}
	add(atPhdr, phdr)
	add(atPhent, phdrSize)
	add(atPhnum, uint64(p.Image.Phnum))
	add(atBase, uint64(base))
	add(atFlags, 0)
	add(atEntry, uint64(entry))
	add(atUID, uint64(p.UID))
	add(atEUID, uint64(p.EUID))
	add(atGID, uint64(p.GID))
	add(atEGID, uint64(p.EGID))
	add(atSecure, 0)
	add(atRandom, uint64(random))
	host(atHWCap2, p.Host.HWCap2)
	add(atExecFn, uint64(execfn))
	add(atPlatform, uint64(platform))
	add(atNull, 0)
	return out
}
