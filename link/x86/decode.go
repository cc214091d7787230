// Package x86 finds the length and the kind of x86-64 instructions. It knows
// the whole opcode space (legacy, VEX, EVEX) but no operands: it is the part
// of the relinker that finds instruction boundaries, and it is fast. It imports
// nothing; the type at its heart is Inst.
//
// Source: Intel SDM volume 2, appendix A (opcode maps) and section 2.1 to 2.7
// (instruction format, REX, VEX, EVEX prefixes), 64-bit mode only.
package x86

// Kind says what an instruction does to the flow of control.
type Kind uint8

const (
	Plain        Kind = iota
	Jcc               // conditional jump, rel8 or rel32
	Jmp               // jump, rel8 or rel32
	Call              // call rel32
	Loop              // loop, loope, loopne, jrcxz: rel8 only
	JmpIndirect       // jmp to an address in a register or in memory
	CallIndirect      // call to an address in a register or in memory
	Ret               // ret, iret, sysret
	Stop              // ud2, hlt, int3: the next instruction is not reached by it
	Syscall           // 0f 05
	Begin             // xbegin: a branch on abort
)

// Inst is one decoded instruction.
type Inst struct {
	Len  uint8
	Kind Kind
	// RelOff and RelSize place a pc-relative field in the instruction: the
	// displacement of a branch, or that of a rip-relative operand. RelSize is
	// 0, 1 or 4.
	RelOff, RelSize uint8
	// Lock says that the first byte is a lock prefix.
	Lock bool
	// Lea says that it is a lea with a rip-relative operand.
	Lea bool
	// Endbr says that it is endbr64: an indirect branch may come here.
	Endbr bool
}

// Falls says whether the next instruction in memory can be reached by it.
func (in Inst) Falls() bool {
	switch in.Kind {
	case Jmp, JmpIndirect, Ret, Stop:
		return false
	}
	return true
}

// Branch says whether the pc-relative field is the target of a branch.
func (in Inst) Branch() bool {
	switch in.Kind {
	case Jcc, Jmp, Call, Loop, Begin:
		return in.RelSize != 0
	}
	return false
}

// Rel is the value of the pc-relative field; b starts with the instruction.
func (in Inst) Rel(b []byte) int64 {
	switch in.RelSize {
	case 1:
		return int64(int8(b[in.RelOff]))
	case 4:
		o := b[in.RelOff : in.RelOff+4]
		return int64(int32(uint32(o[0]) | uint32(o[1])<<8 | uint32(o[2])<<16 | uint32(o[3])<<24))
	}
	return 0
}

// What follows an opcode.
const (
	bad   = 1 << iota // no such instruction in 64-bit mode
	modrm             // a ModRM byte
	imm8
	imm16
	immz // 4 bytes, 2 with an operand size prefix
)

var oneByte, twoByte = tables()

func tables() (one, two [256]uint8) {
	set := func(t *[256]uint8, lo, hi int, v uint8) {
		for i := lo; i <= hi; i++ {
			t[i] = v
		}
	}
	for row := 0; row < 0x40; row += 8 {
		set(&one, row, row+3, modrm)
		one[row+4], one[row+5] = imm8, immz
		one[row+6], one[row+7] = bad, bad
	}
	set(&one, 0x60, 0x62, bad)
	one[0x63] = modrm
	one[0x68], one[0x69], one[0x6a], one[0x6b] = immz, modrm|immz, imm8, modrm|imm8
	set(&one, 0x70, 0x7f, imm8)
	one[0x80], one[0x81], one[0x82], one[0x83] = modrm|imm8, modrm|immz, bad, modrm|imm8
	set(&one, 0x84, 0x8f, modrm)
	one[0x9a] = bad
	one[0xa8], one[0xa9] = imm8, immz
	set(&one, 0xb0, 0xb7, imm8)
	one[0xc0], one[0xc1], one[0xc2] = modrm|imm8, modrm|imm8, imm16
	one[0xc6], one[0xc7], one[0xc8], one[0xca] = modrm|imm8, modrm|immz, imm16|imm8, imm16
	one[0xcd], one[0xce] = imm8, bad
	set(&one, 0xd0, 0xd3, modrm)
	set(&one, 0xd4, 0xd6, bad)
	set(&one, 0xd8, 0xdf, modrm)
	set(&one, 0xe0, 0xe7, imm8)
	one[0xea], one[0xeb] = bad, imm8
	one[0xf6], one[0xf7] = modrm, modrm
	one[0xfe], one[0xff] = modrm, modrm

	set(&two, 0x00, 0xff, modrm)
	for _, op := range []int{0x04, 0x0a, 0x0c, 0x24, 0x25, 0x26, 0x27, 0x36, 0x39, 0x3b, 0x3c, 0x3d, 0x3e, 0x3f, 0x7a, 0x7b, 0xa6, 0xa7} {
		two[op] = bad
	}
	for _, op := range []int{0x05, 0x06, 0x07, 0x08, 0x09, 0x0b, 0x0e, 0x30, 0x31, 0x32, 0x33, 0x34, 0x35, 0x37, 0x77, 0xa0, 0xa1, 0xa2, 0xa8, 0xa9, 0xaa} {
		two[op] = 0
	}
	set(&two, 0xc8, 0xcf, 0)
	for _, op := range []int{0x0f, 0x70, 0x71, 0x72, 0x73, 0xa4, 0xac, 0xba, 0xc2, 0xc4, 0xc5, 0xc6} {
		two[op] = modrm | imm8
	}
	return one, two
}

// Decode decodes the instruction at the start of b; not ok if it is none, or
// if b ends within it.
func Decode(b []byte) (Inst, bool) {
	var in Inst
	if len(b) > 15 {
		b = b[:15] // the longest instruction there is
	}
	i := 0
	var size16, addr32, rep, repne, rexW, prefix bool
prefixes:
	for ; i < len(b); i++ {
		switch b[i] {
		case 0x66:
			size16 = true
		case 0x67:
			addr32 = true
		case 0xf2:
			repne = true
		case 0xf3:
			rep = true
		case 0xf0:
			in.Lock = in.Lock || i == 0
			prefix = true
		case 0x26, 0x2e, 0x36, 0x3e, 0x64, 0x65:
		default:
			break prefixes
		}
	}
	if i < len(b) && b[i]&0xf0 == 0x40 {
		rexW = b[i]&8 != 0
		prefix = true
		i++
	}
	if i >= len(b) {
		return in, false
	}
	op := b[i]
	i++
	if op == 0xc5 || op == 0xc4 || op == 0x62 {
		if prefix || size16 || rep || repne {
			return in, false
		}
		return vector(in, b, i-1)
	}
	var what uint8
	switch {
	case op != 0x0f:
		what = oneByte[op]
		switch {
		case op >= 0xb8 && op <= 0xbf:
			n := 4
			if rexW {
				n = 8
			} else if size16 {
				n = 2
			}
			return finish(in, b, i+n)
		case op >= 0xa0 && op <= 0xa3:
			n := 8
			if addr32 {
				n = 4
			}
			return finish(in, b, i+n)
		case op == 0xe8 || op == 0xe9:
			in.Kind = Call
			if op == 0xe9 {
				in.Kind = Jmp
			}
			return branch(in, b, i, 4, size16 && !rexW)
		case op&0xf0 == 0x70:
			in.Kind = Jcc
			return branch(in, b, i, 1, size16)
		case op == 0xeb:
			in.Kind = Jmp
			return branch(in, b, i, 1, size16)
		case op >= 0xe0 && op <= 0xe3:
			in.Kind = Loop
			return branch(in, b, i, 1, size16)
		case op == 0xc3 || op == 0xc2 || op == 0xca || op == 0xcb || op == 0xcf:
			in.Kind = Ret
		case op == 0xcc || op == 0xf4:
			in.Kind = Stop
		case op >= 0x40 && op <= 0x4f, op >= 0x26 && op <= 0x3e && op&7 == 6:
			return in, false // a prefix after REX
		}
	case i >= len(b):
		return in, false
	default:
		op = b[i]
		i++
		switch {
		case op == 0x38 || op == 0x3a:
			if i >= len(b) {
				return in, false
			}
			what = modrm
			if op == 0x3a {
				what |= imm8
			}
			i++
			return operands(in, b, i, what, size16, false)
		case op&0xf0 == 0x80:
			in.Kind = Jcc
			return branch(in, b, i, 4, size16)
		case op == 0x05:
			in.Kind = Syscall
		case op == 0x07:
			in.Kind = Ret
		case op == 0x0b || op == 0xb9 || op == 0xff:
			in.Kind = Stop
		case op == 0x1e && rep && i < len(b) && b[i] == 0xfa:
			in.Endbr = true
		case op == 0x78 && (size16 || repne):
			return in, false
		}
		what = twoByte[op]
		if what&bad != 0 {
			return in, false
		}
		if op >= 0x20 && op <= 0x23 { // mov to and from control registers: always a register
			return finish(in, b, i+1)
		}
		return operands(in, b, i, what, size16, false)
	}
	if what&bad != 0 {
		return in, false
	}
	if what&modrm != 0 {
		if i >= len(b) {
			return in, false
		}
		reg := b[i] >> 3 & 7
		switch op {
		case 0xf6:
			if reg < 2 {
				what |= imm8
			}
		case 0xf7:
			if reg < 2 {
				what |= immz
			}
		case 0xfe:
			if reg > 1 {
				return in, false
			}
		case 0xff:
			switch reg {
			case 2, 3:
				in.Kind = CallIndirect
			case 4, 5:
				in.Kind = JmpIndirect
			case 7:
				return in, false
			}
		case 0x8f:
			if reg != 0 { // XOP
				return in, false
			}
		case 0xc6, 0xc7:
			if b[i] == 0xf8 && op == 0xc7 {
				in.Kind = Begin
				return branch(in, b, i+1, 4, size16)
			}
			if reg != 0 && b[i] != 0xf8 {
				return in, false
			}
		}
	}
	return operands(in, b, i, what, size16, op == 0x8d)
}

func branch(in Inst, b []byte, at, size int, size16 bool) (Inst, bool) {
	if size16 {
		// Processors disagree about the width of the displacement.
		return in, false
	}
	in.RelOff, in.RelSize = uint8(at), uint8(size)
	return finish(in, b, at+size)
}

func finish(in Inst, b []byte, n int) (Inst, bool) {
	if n > len(b) {
		return in, false
	}
	in.Len = uint8(n)
	return in, true
}

// operands decodes ModRM, SIB, displacement and immediate from i on.
func operands(in Inst, b []byte, i int, what uint8, size16, lea bool) (Inst, bool) {
	if what&modrm != 0 {
		if i >= len(b) {
			return in, false
		}
		m := b[i]
		mod, rm := m>>6, m&7
		i++
		if mod != 3 {
			if rm == 4 {
				if i >= len(b) {
					return in, false
				}
				if mod == 0 && b[i]&7 == 5 {
					i += 4
				}
				i++
			}
			switch {
			case mod == 1:
				i++
			case mod == 2:
				i += 4
			case rm == 5:
				in.RelOff, in.RelSize = uint8(i), 4
				in.Lea = lea
				i += 4
			}
		}
	}
	if what&imm8 != 0 {
		i++
	}
	if what&imm16 != 0 {
		i += 2
	}
	if what&immz != 0 {
		if size16 {
			i += 2
		} else {
			i += 4
		}
	}
	return finish(in, b, i)
}

// vector decodes an instruction with a VEX or EVEX prefix at i.
func vector(in Inst, b []byte, i int) (Inst, bool) {
	if i+5 > len(b) {
		if i+2 >= len(b) {
			return in, false
		}
	}
	var opmap byte
	switch b[i] {
	case 0xc5:
		opmap = 1
		i += 2
	case 0xc4:
		opmap = b[i+1] & 31
		i += 3
	default:
		opmap = b[i+1] & 7
		if b[i+1]&8 != 0 || opmap == 4 { // APX
			return in, false
		}
		i += 4
	}
	if i >= len(b) {
		return in, false
	}
	op := b[i]
	what := uint8(modrm)
	switch opmap {
	case 1:
		what = twoByte[op]
		if op == 0x77 {
			what = 0
		} else if what&modrm == 0 {
			return in, false
		}
		if op == 0x0f || op == 0xa4 || op == 0xac || op == 0xba {
			return in, false
		}
	case 2, 5, 6:
	case 3:
		what |= imm8
	default:
		return in, false
	}
	return operands(in, b, i+1, what, false, false)
}
