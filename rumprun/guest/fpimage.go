package guest

import (
	"encoding/binary"
	"errors"
	"fmt"
)

// Variant is a way of keeping the vector registers across a crossing.
type Variant uint8

const (
	// VariantAuto lets Setup choose the fastest that keeps everything.
	VariantAuto Variant = iota
	// VariantXMM moves xmm0-15; for processors without AVX.
	VariantXMM
	// VariantYMM moves ymm0-15; for processors without AVX-512.
	VariantYMM
	// VariantZMM moves zmm0-31 and k0-7.
	VariantZMM
	// VariantXSAVE uses XSAVE and XRSTOR; for processors with state that the
	// others do not know.
	VariantXSAVE
)

func (v Variant) String() string {
	switch v {
	case VariantAuto:
		return "auto"
	case VariantXMM:
		return "xmm"
	case VariantYMM:
		return "ymm"
	case VariantZMM:
		return "zmm"
	case VariantXSAVE:
		return "xsave"
	}
	return fmt.Sprintf("variant %d", uint8(v))
}

// XSAVE state components (SDM volume 1, 13.1).
const (
	featX87     = 1 << 0
	featSSE     = 1 << 1
	featAVX     = 1 << 2
	featOpmask  = 1 << 5
	featZmmHi   = 1 << 6
	featHi16    = 1 << 7
	featPKRU    = 1 << 9
	featAMX     = 1<<17 | 1<<18
	featLegacy  = featX87 | featSSE
	featAVX512  = featOpmask | featZmmHi | featHi16
	featByMoves = featLegacy | featAVX | featAVX512
)

// Signal frame constants (asm/sigcontext.h): struct _fpx_sw_bytes at 464 of the
// legacy region, and the second magic behind the image.
const (
	swReserved      = 464
	fpXstateMagic1  = 0x46505853
	fpXstateMagic2  = 0x46505845
	fpXstateMagic2N = 4
)

// fpLayout describes the images of SaveFP and LoadFP on this machine. Setup
// sets it; before that it is the legacy region only.
type fpLayout struct {
	variant   Variant
	features  uint64 // components that are kept
	size      int    // of the XSAVE image, without the second magic
	offset    [8]int // of component i in the standard format
	mxcsrMask uint32
	xsave     bool // the processor has XSAVE
}

var layout = fpLayout{variant: VariantXMM, features: featLegacy, size: xsaveHeader, mxcsrMask: 0xffbf}

// FPSize is the number of bytes that SaveFP writes: the XSAVE image of the
// kept components and the second magic, as in a Linux signal frame; on a
// processor without XSAVE the 512 bytes of FXSAVE. In the frame the image must
// be 64-byte aligned.
func (c *Context) FPSize() int {
	if !layout.xsave {
		return layout.size
	}
	return layout.size + fpXstateMagic2N
}

// ErrFPImage says that an image given to LoadFP is not one; rt_sigreturn(2)
// answers such a frame with SIGSEGV.
var ErrFPImage = errors.New("guest: malformed floating-point image")

var le = binary.LittleEndian

// resetFP sets the initial state: FCW 0x37f, MXCSR 0x1f80, all else zero.
func (c *Context) resetFP() {
	c.dropX87()
	clear(c.fp[:])
	clear(c.x87[:])
	c.mxcsr = initialMXCSR
	le.PutUint16(c.x87[0:], initialFCW)
	le.PutUint32(c.x87[24:], initialMXCSR)
	if layout.variant == VariantXSAVE {
		le.PutUint16(c.fp[0:], initialFCW)
		le.PutUint32(c.fp[24:], initialMXCSR)
		// XSTATE_BV 0: every component in its initial state.
	}
}

// SaveFP writes the floating-point state to dst as a Linux signal frame holds
// it (sigcontext: struct _xstate in the standard format, with _fpx_sw_bytes
// and both magics) and returns FPSize. dst must have that length.
func (c *Context) SaveFP(dst []byte) int {
	n := layout.size
	dst = dst[:c.FPSize()]
	clear(dst)
	if layout.variant == VariantXSAVE {
		copy(dst[:n], c.fp[:n])
	} else {
		c.fetchX87()
		copy(dst[:24], c.x87[:24])
		copy(dst[32:160], c.x87[32:160])
		le.PutUint32(dst[24:], c.mxcsr)
		for i := range 16 {
			copy(dst[160+16*i:][:16], c.fp[64*i:])
		}
		if layout.features&featAVX != 0 {
			for i := range 16 {
				copy(dst[layout.offset[2]+16*i:][:16], c.fp[64*i+16:])
			}
		}
		if layout.features&featAVX512 != 0 {
			copy(dst[layout.offset[5]:][:64], c.fp[maskOffset:])
			for i := range 16 {
				copy(dst[layout.offset[6]+32*i:][:32], c.fp[64*i+32:])
				copy(dst[layout.offset[7]+64*i:][:64], c.fp[64*(16+i):])
			}
		}
		if layout.xsave {
			le.PutUint64(dst[xsaveHeader:], layout.features)
		}
	}
	le.PutUint32(dst[28:], layout.mxcsrMask)
	if !layout.xsave {
		return n
	}
	le.PutUint32(dst[swReserved:], fpXstateMagic1)
	le.PutUint32(dst[swReserved+4:], uint32(n+fpXstateMagic2N))
	le.PutUint64(dst[swReserved+8:], layout.features)
	le.PutUint32(dst[swReserved+16:], uint32(n))
	le.PutUint32(dst[n:], fpXstateMagic2)
	return n + fpXstateMagic2N
}

// LoadFP replaces the floating-point state by an image from guest memory, as
// rt_sigreturn(2) does: with both magics an XSAVE image, whose absent
// components get their initial values; otherwise the 512 bytes of the legacy
// region alone. The image is not trusted: reserved MXCSR bits are cleared,
// unknown components ignored; a compacted image, a short one or a header with
// reserved bits set is ErrFPImage, and c is unchanged. nil stands for the
// initial state: what a signal handler starts with, and what a frame without
// an image means.
func (c *Context) LoadFP(src []byte) error {
	if src == nil {
		c.resetFP()
		return nil
	}
	if len(src) < xsaveHeader {
		return fmt.Errorf("%w: %d bytes", ErrFPImage, len(src))
	}
	have := uint64(featLegacy)
	extended := false
	if layout.xsave && le.Uint32(src[swReserved:]) == fpXstateMagic1 {
		size := int(le.Uint32(src[swReserved+16:]))
		if size >= xsaveHeaderEnd && size <= layout.size && len(src) >= size+fpXstateMagic2N && le.Uint32(src[size:]) == fpXstateMagic2 {
			extended = true
			h := src[xsaveHeader:xsaveHeaderEnd]
			for i := 8; i < 64; i += 8 {
				if le.Uint64(h[i:]) != 0 {
					return fmt.Errorf("%w: reserved or compaction bits in its header", ErrFPImage)
				}
			}
			have = le.Uint64(h) & le.Uint64(src[swReserved+8:]) & layout.features
			for i := 2; i < 64; i++ {
				if have>>i&1 != 0 && layout.end(i) > size {
					return fmt.Errorf("%w: component %d lies behind its end", ErrFPImage, i)
				}
			}
		}
	}
	c.resetFP()
	// MXCSR goes with the SSE or the AVX component (SDM volume 1, 13.11).
	if have&(featSSE|featAVX) != 0 {
		c.mxcsr = le.Uint32(src[24:]) & layout.mxcsrMask
	}
	if layout.variant == VariantXSAVE {
		n := xsaveHeader
		if extended {
			n = min(int(le.Uint32(src[swReserved+16:])), layout.size)
		}
		copy(c.fp[:n], src[:n])
		clear(c.fp[swReserved:xsaveHeader])
		clear(c.fp[xsaveHeader:xsaveHeaderEnd])
		le.PutUint64(c.fp[xsaveHeader:], have)
		le.PutUint32(c.fp[24:], c.mxcsr)
		return nil
	}
	if have&featX87 != 0 {
		copy(c.x87[:24], src[:24])
		copy(c.x87[32:160], src[32:160])
		le.PutUint64(c.x87[xsaveHeader:], featX87)
	}
	if have&featSSE != 0 {
		for i := range 16 {
			copy(c.fp[64*i:][:16], src[160+16*i:])
		}
	}
	if have&featAVX != 0 {
		for i := range 16 {
			copy(c.fp[64*i+16:][:16], src[layout.offset[2]+16*i:])
		}
	}
	if have&featOpmask != 0 {
		copy(c.fp[maskOffset:][:64], src[layout.offset[5]:])
	}
	for i := range 16 {
		if have&featZmmHi != 0 {
			copy(c.fp[64*i+32:][:32], src[layout.offset[6]+32*i:])
		}
		if have&featHi16 != 0 {
			copy(c.fp[64*(16+i):][:64], src[layout.offset[7]+64*i:])
		}
	}
	return nil
}

// end is where component i ends in the standard format.
func (l *fpLayout) end(i int) int {
	if i < len(l.offset) && l.offset[i] != 0 {
		return l.offset[i] + componentSize[i]
	}
	return l.size // one of VariantXSAVE alone
}

// componentSize of those that are moved by hand.
var componentSize = [8]int{2: 256, 5: 64, 6: 512, 7: 1024}
