// Package policy is the seccomp filter: one declarative list of what the gate
// may ask the kernel, and one function that turns it into a BPF program. It
// imports nothing of ours. The type at its heart is Policy.
package policy

import (
	"fmt"
	"strings"

	"golang.org/x/net/bpf"
	"golang.org/x/sys/unix"
)

// Rule permits a system call from the gate when every constraint holds.
type Rule struct {
	NR   uint32
	Name string
	Args []Arg
}

// Arg constrains one argument. With OneOf the value, as 64 bits, must be one
// of the list; otherwise it must be at most Max.
type Arg struct {
	Index int // 0 to 5
	Name  string
	OneOf []uint64
	Max   uint64
}

// Policy is the list of rules and the gate they hold for: the instruction
// pointer that the kernel sees, which is the address after the instruction.
type Policy struct {
	Gate  uint64
	Rules []Rule
}

// String lists the rules, one a line.
func (p *Policy) String() string {
	var b strings.Builder
	for _, r := range p.Rules {
		b.WriteString(r.Name)
		sep := ": "
		for _, a := range r.Args {
			b.WriteString(sep)
			sep = ", "
			if a.OneOf != nil {
				var v []string
				for _, x := range a.OneOf {
					v = append(v, fmt.Sprint(x))
				}
				fmt.Fprintf(&b, "%s %s", a.Name, strings.Join(v, "|"))
			} else {
				fmt.Fprintf(&b, "%s <= %d", a.Name, a.Max)
			}
		}
		b.WriteByte('\n')
	}
	return b.String()
}

// Offsets in struct seccomp_data (linux/seccomp.h).
const (
	offNR   = 0
	offArch = 4
	offIP   = 8
	offArgs = 16
)

const x32Bit = 0x40000000

// Program generates the filter:
//
//	not the x86-64 entry (i386): kill
//	from elsewhere than the gate: trap; the library OS emulates the call
//	an x32 number: kill
//	a rule that matches: allow
//	anything else from the gate: kill
//
// The kernel evaluates it for every system call; loads are of 32 bits.
func (p *Policy) Program() ([]bpf.RawInstruction, error) {
	var prog []bpf.Instruction
	add := func(i ...bpf.Instruction) { prog = append(prog, i...) }
	kill := bpf.RetConstant{Val: unix.SECCOMP_RET_KILL_PROCESS}
	trap := bpf.RetConstant{Val: unix.SECCOMP_RET_TRAP}
	// require goes on if the 32 bits at off equal v, and returns otherwise.
	require := func(off, v uint32, otherwise bpf.Instruction) {
		add(bpf.LoadAbsolute{Off: off, Size: 4}, bpf.JumpIf{Cond: bpf.JumpEqual, Val: v, SkipTrue: 1}, otherwise)
	}
	require(offArch, unix.AUDIT_ARCH_X86_64, kill)
	require(offIP+4, uint32(p.Gate>>32), trap)
	require(offIP, uint32(p.Gate), trap)
	for _, r := range p.Rules {
		body, err := r.body()
		if err != nil {
			return nil, err
		}
		add(bpf.LoadAbsolute{Off: offNR, Size: 4})
		if r.NR >= x32Bit || len(body) > 255 {
			return nil, fmt.Errorf("filter: rule %s: bad number or too many constraints", r.Name)
		}
		add(bpf.JumpIf{Cond: bpf.JumpEqual, Val: r.NR, SkipFalse: uint8(len(body))})
		add(body...)
	}
	add(kill)
	return bpf.Assemble(prog)
}

// body checks a rule's constraints: it returns allow or kill.
func (r *Rule) body() ([]bpf.Instruction, error) {
	kill := bpf.RetConstant{Val: unix.SECCOMP_RET_KILL_PROCESS}
	var out []bpf.Instruction
	for _, a := range r.Args {
		if a.Index < 0 || a.Index > 5 {
			return nil, fmt.Errorf("filter: rule %s: no argument %d", r.Name, a.Index)
		}
		lo, hi := uint32(offArgs+8*a.Index), uint32(offArgs+8*a.Index+4)
		if a.OneOf == nil {
			// high word smaller: fine; greater: kill; equal: the low word decides
			out = append(out,
				bpf.LoadAbsolute{Off: hi, Size: 4},
				bpf.JumpIf{Cond: bpf.JumpLessThan, Val: uint32(a.Max >> 32), SkipTrue: 5},
				bpf.JumpIf{Cond: bpf.JumpEqual, Val: uint32(a.Max >> 32), SkipTrue: 1},
				kill,
				bpf.LoadAbsolute{Off: lo, Size: 4},
				bpf.JumpIf{Cond: bpf.JumpGreaterThan, Val: uint32(a.Max), SkipFalse: 1},
				kill)
			continue
		}
		if len(a.OneOf) == 0 {
			out = append(out, kill)
			continue
		}
		for i, v := range a.OneOf {
			rest := (len(a.OneOf)-1-i)*4 + 1 // to after this argument's kill
			out = append(out,
				bpf.LoadAbsolute{Off: hi, Size: 4},
				bpf.JumpIf{Cond: bpf.JumpEqual, Val: uint32(v >> 32), SkipFalse: 2},
				bpf.LoadAbsolute{Off: lo, Size: 4},
				bpf.JumpIf{Cond: bpf.JumpEqual, Val: uint32(v), SkipTrue: uint8(rest)})
		}
		out = append(out, kill)
	}
	return append(out, bpf.RetConstant{Val: unix.SECCOMP_RET_ALLOW}), nil
}
