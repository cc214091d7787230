package x86

import (
	"bufio"
	"encoding/hex"
	"os"
	"os/exec"
	"strings"
	"testing"
)

func TestDecode(t *testing.T) {
	for _, c := range []struct {
		hex  string
		want Inst
	}{
		{"0f05", Inst{Len: 2, Kind: Syscall}},
		{"b801000000", Inst{Len: 5}},
		{"48c7c00f000000", Inst{Len: 7}},
		{"48b80102030405060708", Inst{Len: 10}},
		{"f30f1efa", Inst{Len: 4, Endbr: true}},
		{"c5f877", Inst{Len: 3}},                                       // vzeroupper
		{"c5fd6f0511223344", Inst{Len: 8, RelOff: 4, RelSize: 4}},      // vmovdqa ymm0, [rip+x]
		{"c4e37d39c101", Inst{Len: 6}},                                 // vextracti128
		{"62f1fd486f0511223344", Inst{Len: 10, RelOff: 6, RelSize: 4}}, // vmovdqa64 zmm0, [rip+x]
		{"62f37d483f0c0a04", Inst{Len: 8}},                             // vpcmpub k, zmm, [rdx+rcx], 4
		{"e811223344", Inst{Len: 5, Kind: Call, RelOff: 1, RelSize: 4}},
		{"0f8411223344", Inst{Len: 6, Kind: Jcc, RelOff: 2, RelSize: 4}},
		{"74fe", Inst{Len: 2, Kind: Jcc, RelOff: 1, RelSize: 1}},
		{"f00fb111", Inst{Len: 4, Lock: true}},
		{"488d0511223344", Inst{Len: 7, RelOff: 3, RelSize: 4, Lea: true}},
		{"488d4508", Inst{Len: 4}},
		{"ffe0", Inst{Len: 2, Kind: JmpIndirect}},
		{"3effe0", Inst{Len: 3, Kind: JmpIndirect}},
		{"ff1511223344", Inst{Len: 6, Kind: CallIndirect, RelOff: 2, RelSize: 4}},
		{"c7f811223344", Inst{Len: 6, Kind: Begin, RelOff: 2, RelSize: 4}},
		{"66c7050102030405" + "06", Inst{Len: 9, RelOff: 3, RelSize: 4}}, // movw $imm16, x(%rip)
		{"f604240f", Inst{Len: 4}},                                       // testb
		{"f6142405", Inst{Len: 3}},                                       // notb
		{"67e302", Inst{Len: 3, Kind: Loop, RelOff: 2, RelSize: 1}},
		{"64488b042528000000", Inst{Len: 9}},
		{"0fc7f0", Inst{Len: 3}}, // rdrand
		{"f30fc7f8", Inst{Len: 4}},
		{"0f01f9", Inst{Len: 3}}, // rdtscp
		{"c3", Inst{Len: 1, Kind: Ret}},
		{"0f0b", Inst{Len: 2, Kind: Stop}},
	} {
		b, err := hex.DecodeString(c.hex)
		if err != nil {
			t.Fatal(err)
		}
		in, ok := Decode(append(b, make([]byte, 16)...))
		if !ok || in != c.want {
			t.Errorf("%s: %+v, %v; want %+v", c.hex, in, ok, c.want)
		}
		for n := range int(c.want.Len) {
			if _, ok := Decode(b[:n]); ok {
				t.Errorf("%s: decoded from its first %d bytes", c.hex, n)
			}
		}
	}
	for _, s := range []string{"06", "60", "9a0000000000", "ea", "d6", "0f04", "8fe8", "66e800000000", "66c5f877", "48c5f877", "62ff", "ffff", "fed0"} {
		b, _ := hex.DecodeString(s)
		if in, ok := Decode(append(b, make([]byte, 16)...)); ok {
			t.Errorf("%s: decoded as %+v", s, in)
		}
	}
}

// The boundaries must be objdump's, address for address.
func TestAgainstObjdump(t *testing.T) {
	obj := os.Getenv("OBJECT")
	if obj == "" {
		obj = "/lib64/ld-linux-x86-64.so.2"
	}
	if _, err := exec.LookPath("objdump"); err != nil {
		t.Skip("needs objdump")
	}
	cmd := exec.Command("objdump", "-dw", "--insn-width=15", "--no-addresses", "-j", ".text", obj)
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	n, wrong := 0, 0
	var code []byte
	var lens []int
	var text []string
	sc := bufio.NewScanner(out)
	for sc.Scan() {
		f := strings.SplitN(sc.Text(), "\t", 3)
		if len(f) < 2 || !strings.HasPrefix(sc.Text(), "\t") && !strings.HasPrefix(f[0], " ") {
			continue
		}
		b, err := hex.DecodeString(strings.ReplaceAll(strings.TrimSpace(f[1]), " ", ""))
		if err != nil || len(b) == 0 {
			continue
		}
		code = append(code, b...)
		lens = append(lens, len(b))
		text = append(text, f[len(f)-1])
	}
	if err := cmd.Wait(); err != nil {
		t.Skipf("objdump: %v", err)
	}
	at := 0
	for i, l := range lens {
		if strings.Contains(text[i], "(bad)") || strings.HasPrefix(text[i], ".byte") || isPrefix(code[at]) && l == 1 || code[at] == 0x9b {
			at += l // objdump shows prefixes alone where nothing fits them, and joins fwait
			continue
		}
		in, ok := Decode(code[at:])
		n++
		if !ok || int(in.Len) != l {
			if wrong++; wrong < 20 {
				t.Errorf("% x: length %d, %v; objdump has %d: %s", code[at:at+l], in.Len, ok, l, text[i])
			}
		}
		at += l
	}
	if n < 1000 {
		t.Errorf("only %d instructions compared", n)
	}
	t.Logf("%d instructions compared, %d differ", n, wrong)
}

func isPrefix(b byte) bool {
	switch b {
	case 0x66, 0x67, 0xf0, 0xf2, 0xf3, 0x2e, 0x36, 0x3e, 0x26, 0x64, 0x65:
		return true
	}
	return b&0xf0 == 0x40
}

func FuzzDecode(f *testing.F) {
	f.Add([]byte{0x62, 0xf1, 0xfd, 0x48, 0x6f, 0x05, 1, 2, 3, 4})
	f.Add([]byte{0x0f, 0x05})
	f.Fuzz(func(t *testing.T, b []byte) {
		in, ok := Decode(b)
		if !ok {
			return
		}
		if in.Len == 0 || int(in.Len) > min(len(b), 15) || in.RelSize > 0 && in.RelOff+in.RelSize > in.Len {
			t.Fatalf("% x: %+v", b, in)
		}
		in.Rel(b)
	})
}
