// Package gsbase rewrites a linked Go program so that it keeps its goroutine
// pointer behind the gs segment instead of fs, which then belongs to the guest
// alone: a crossing writes no segment base.
//
// Go on linux/amd64 (no cgo) addresses g as -8(%fs) and sets the fs base to
// &m.tls[1] (runtime.settls, and CLONE_SETTLS for further threads). After the
// rewrite it is -8(%gs); gs points at &m.tls[1], and the words 0(%gs) to
// 32(%gs), m.tls[1] to m.tls[5], are free for the crossing.
package gsbase

import (
	"bytes"
	"debug/elf"
	"encoding/binary"
	"fmt"

	"github.com/nabla-build/nabla-build/link/x86"
)

// Result counts what was rewritten.
type Result struct {
	Accesses int // instructions that address g
}

// Rewrite edits the program in place. It decodes every function from its
// symbol, and fails if one has bytes that are no instruction, if an instruction
// addresses anything else through fs, or if an access to g lies in no function;
// b is then partly rewritten and must not be used. The symbol fixup names a routine that the
// child path of runtime.clone calls with R8 = &m.tls[1] instead of gettid(2):
// it must set the gs base and answer the thread number.
func Rewrite(b []byte, fixup string) (Result, error) {
	var r Result
	f, err := elf.NewFile(bytes.NewReader(b))
	if err != nil {
		return r, fmt.Errorf("gs rewrite: %w", err)
	}
	text := f.Section(".text")
	if text == nil || text.Offset+text.Size > uint64(len(b)) {
		return r, fmt.Errorf("gs rewrite: no .text section")
	}
	code := b[text.Offset : text.Offset+text.Size]
	syms, err := f.Symbols()
	if err != nil {
		return r, fmt.Errorf("gs rewrite: the program must be linked with its symbol table: %w", err)
	}
	found := map[string][]byte{}
	addr := map[string]uint64{}
	for _, s := range syms {
		if elf.ST_TYPE(s.Info) != elf.STT_FUNC || s.Value < text.Addr || s.Size > text.Size || s.Value-text.Addr > text.Size-s.Size {
			continue
		}
		fn := code[s.Value-text.Addr:][:s.Size]
		found[s.Name], addr[s.Name] = fn, s.Value
		for off := 0; off < len(fn); {
			in, ok := x86.Decode(fn[off:])
			if !ok {
				return r, fmt.Errorf("gs rewrite: %s+%#x: not an instruction: % x", s.Name, off, fn[off:min(off+15, len(fn))])
			}
			n := int(in.Len)
			switch {
			case match(fn[off : off+n]):
				fn[off] = 0x65
				r.Accesses++
			case usesFS(fn[off : off+n]):
				return r, fmt.Errorf("gs rewrite: %s+%#x: uses fs in a way that is not known: % x", s.Name, off, fn[off:off+n])
			}
			off += n
		}
	}
	for i := range code {
		if m := match(code[i:]); m {
			return r, fmt.Errorf("gs rewrite: an access to g at %#x lies in no function", text.Addr+uint64(i))
		}
	}
	// runtime.settls: ARCH_SET_FS becomes ARCH_SET_GS.
	settls := find(found, "runtime.settls")
	i := bytes.Index(settls, []byte{0x02, 0x10, 0x00, 0x00})
	if i < 0 || bytes.Count(settls, []byte{0x02, 0x10, 0x00, 0x00}) != 1 {
		return r, fmt.Errorf("gs rewrite: runtime.settls does not set the fs base as expected")
	}
	settls[i] = 0x01
	// runtime.clone, child: mov $SYS_gettid,%eax; syscall -> call fixup; nop.
	clone, fix := find(found, "runtime.clone"), addr[fixup]
	gettid := []byte{0xb8, 0xba, 0, 0, 0, 0x0f, 0x05}
	i = bytes.Index(clone, gettid)
	if i < 0 || fix == 0 {
		return r, fmt.Errorf("gs rewrite: runtime.clone (found %v) or %s (found %v) is not as expected", i >= 0, fixup, fix != 0)
	}
	base := addr["runtime.clone.abi0"]
	if base == 0 {
		base = addr["runtime.clone"]
	}
	clone[i] = 0xe8
	binary.LittleEndian.PutUint32(clone[i+1:], uint32(fix-(base+uint64(i)+5)))
	clone[i+5], clone[i+6] = 0x66, 0x90
	if r.Accesses == 0 {
		return r, fmt.Errorf("gs rewrite: no access to g found")
	}
	return r, nil
}

func find(m map[string][]byte, name string) []byte {
	if f := m[name+".abi0"]; f != nil {
		return f
	}
	return m[name]
}

// usesFS reports whether the instruction in has a legacy prefix that selects fs
// (SDM volume 2, 2.1.1).
func usesFS(in []byte) bool {
	for _, b := range in {
		switch b {
		case 0x64:
			return true
		case 0x26, 0x2e, 0x36, 0x3e, 0x65, 0x66, 0x67, 0xf0, 0xf2, 0xf3:
		default:
			return false
		}
	}
	return false
}

// match reports whether b starts as fs:[disp32 = -8]: prefix, REX.W, opcode,
// ModRM with mod 0 rm 4, SIB 0x25 (no base, no index), displacement -8.
func match(b []byte) bool {
	return len(b) >= 9 && b[0] == 0x64 && b[1]&0xf8 == 0x48 && b[3]&0xc7 == 0x04 && b[4] == 0x25 &&
		bytes.Equal(b[5:9], []byte{0xf8, 0xff, 0xff, 0xff})
}
