package guest

import (
	"bytes"
	"errors"
	"math/rand/v2"
	"testing"
	"unsafe"
)

// layouts are those of common processors (Intel SDM volume 1, 13.4 and 13.5).
var layouts = []fpLayout{
	{variant: VariantXMM, features: featLegacy, size: 512, mxcsrMask: 0xffff},
	{variant: VariantXMM, features: featLegacy, size: 576, mxcsrMask: 0xffff, xsave: true},
	{variant: VariantYMM, features: featLegacy | featAVX, size: 832, offset: [8]int{2: 576}, mxcsrMask: 0xffff, xsave: true},
	{variant: VariantZMM, features: featByMoves, size: 2688, offset: [8]int{2: 576, 5: 1088, 6: 1152, 7: 1664}, mxcsrMask: 0xffff, xsave: true},
	{variant: VariantXSAVE, features: featByMoves, size: 2688, offset: [8]int{2: 576, 5: 1088, 6: 1152, 7: 1664}, mxcsrMask: 0xffff, xsave: true},
}

// withLayouts runs f for each; tests of this package do not run in parallel.
func withLayouts(t *testing.T, f func(t *testing.T)) {
	old := layout
	defer func() { layout = old }()
	for _, l := range layouts {
		layout = l
		t.Run(l.variant.String(), f)
	}
}

func TestContextAlignment(t *testing.T) {
	for range 100 {
		if p := uintptr(unsafe.Pointer(NewContext())); p%contextAlign != 0 {
			t.Fatalf("context at %#x", p)
		}
	}
	var c Context
	if o := unsafe.Offsetof(c.fp); o%contextAlign != 0 {
		t.Errorf("fp at %d", o)
	}
	if o := unsafe.Offsetof(c.x87); o%contextAlign != 0 {
		t.Errorf("x87 at %d", o)
	}
}

// TestFPInitial checks a new context against what execve gives a program.
func TestFPInitial(t *testing.T) {
	withLayouts(t, func(t *testing.T) {
		c := NewContext()
		b := make([]byte, c.FPSize())
		if n := c.SaveFP(b); n != len(b) {
			t.Fatalf("SaveFP = %d, want %d", n, len(b))
		}
		if le.Uint16(b[0:]) != 0x37f || le.Uint32(b[24:]) != 0x1f80 {
			t.Errorf("FCW %#x MXCSR %#x", le.Uint16(b[0:]), le.Uint32(b[24:]))
		}
		for i, v := range b[32:swReserved] {
			if v != 0 {
				t.Fatalf("byte %d is %#x", 32+i, v)
			}
		}
		if layout.xsave && (le.Uint32(b[464:]) != 0x46505853 || int(le.Uint32(b[468:])) != len(b) || int(le.Uint32(b[480:])) != len(b)-4 || le.Uint32(b[len(b)-4:]) != 0x46505845) {
			t.Errorf("software bytes % x", b[464:512])
		}
	})
}

// TestFPRoundTrip loads a random image, saves it and compares every component.
func TestFPRoundTrip(t *testing.T) {
	withLayouts(t, func(t *testing.T) {
		r := rand.New(rand.NewPCG(1, 1))
		c := NewContext()
		img := make([]byte, c.FPSize())
		c.SaveFP(img)
		for i := range img {
			if i < 24 || i >= 32 && i < 416 || i >= 576 && i < layout.size {
				img[i] = byte(r.Uint32())
			}
		}
		le.PutUint32(img[24:], 0x5f9f)
		if layout.xsave {
			le.PutUint64(img[512:], layout.features)
		}
		if err := c.LoadFP(img); err != nil {
			t.Fatal(err)
		}
		out := make([]byte, c.FPSize())
		c.SaveFP(out)
		for i := range img {
			kept := i < 28 || i >= 32 && i < 416 || i >= 512 && i < 520
			for n, o := range layout.offset {
				kept = kept || o != 0 && i >= o && i < o+componentSize[n]
			}
			if kept && img[i] != out[i] {
				t.Fatalf("byte %d: %#x, want %#x", i, out[i], img[i])
			}
		}
		d := NewContext()
		d.CopyFrom(c)
		again := make([]byte, d.FPSize())
		d.SaveFP(again)
		if !bytes.Equal(out, again) {
			t.Error("the copy has other contents")
		}
	})
}

// TestFPAbsent: components that an image leaves out get their initial values.
func TestFPAbsent(t *testing.T) {
	withLayouts(t, func(t *testing.T) {
		if !layout.xsave {
			t.Skip("no header")
		}
		c := NewContext()
		img := make([]byte, c.FPSize())
		c.SaveFP(img)
		for i := 160; i < 416; i++ {
			img[i] = 0xaa
		}
		le.PutUint32(img[24:], 0x5f80)
		le.PutUint64(img[512:], featX87)
		if err := c.LoadFP(img); err != nil {
			t.Fatal(err)
		}
		if layout.variant == VariantXSAVE {
			if bv := le.Uint64(c.fp[512:]); bv != featX87 {
				t.Errorf("XSTATE_BV %#x", bv)
			}
			return
		}
		out := make([]byte, c.FPSize())
		c.SaveFP(out)
		if out[160] != 0 || le.Uint32(out[24:]) != 0x1f80 {
			t.Errorf("xmm0 % x, MXCSR %#x", out[160:176], le.Uint32(out[24:]))
		}
	})
}

// FuzzLoadFP: no image from a guest may panic, or leave what would fault when
// it is loaded into the processor.
func FuzzLoadFP(f *testing.F) {
	for i := range layouts {
		layout = layouts[i]
		c := NewContext()
		b := make([]byte, c.FPSize())
		c.SaveFP(b)
		f.Add(i, b)
		f.Add(i, b[:512])
	}
	f.Fuzz(func(t *testing.T, i int, b []byte) {
		layout = layouts[uint(i)%uint(len(layouts))]
		c := NewContext()
		if err := c.LoadFP(b); err != nil && !errors.Is(err, ErrFPImage) {
			t.Errorf("error %v", err)
		}
		if c.mxcsr&^layout.mxcsrMask != 0 {
			t.Errorf("mxcsr %#x", c.mxcsr)
		}
		h := c.x87[512:]
		if layout.variant == VariantXSAVE {
			h = c.fp[512:576]
			if m := le.Uint32(c.fp[24:]); m&^layout.mxcsrMask != 0 {
				t.Errorf("mxcsr %#x in the image", m)
			}
		}
		if bv := le.Uint64(h); bv&^layout.features != 0 {
			t.Errorf("XSTATE_BV %#x", bv)
		}
		for _, v := range h[8:64] {
			if v != 0 {
				t.Errorf("header % x", h)
			}
		}
	})
}
