// The vector registers by plain moves. off is where register 0 goes in *r, a
// register every 64 bytes; everything is aligned.

#define SAVE_XMM(off, r) \
	MOVAPS X0, (off+0)(r) \
	MOVAPS X1, (off+64)(r) \
	MOVAPS X2, (off+128)(r) \
	MOVAPS X3, (off+192)(r) \
	MOVAPS X4, (off+256)(r) \
	MOVAPS X5, (off+320)(r) \
	MOVAPS X6, (off+384)(r) \
	MOVAPS X7, (off+448)(r) \
	MOVAPS X8, (off+512)(r) \
	MOVAPS X9, (off+576)(r) \
	MOVAPS X10, (off+640)(r) \
	MOVAPS X11, (off+704)(r) \
	MOVAPS X12, (off+768)(r) \
	MOVAPS X13, (off+832)(r) \
	MOVAPS X14, (off+896)(r) \
	MOVAPS X15, (off+960)(r)

#define LOAD_XMM(off, r) \
	MOVAPS (off+0)(r), X0 \
	MOVAPS (off+64)(r), X1 \
	MOVAPS (off+128)(r), X2 \
	MOVAPS (off+192)(r), X3 \
	MOVAPS (off+256)(r), X4 \
	MOVAPS (off+320)(r), X5 \
	MOVAPS (off+384)(r), X6 \
	MOVAPS (off+448)(r), X7 \
	MOVAPS (off+512)(r), X8 \
	MOVAPS (off+576)(r), X9 \
	MOVAPS (off+640)(r), X10 \
	MOVAPS (off+704)(r), X11 \
	MOVAPS (off+768)(r), X12 \
	MOVAPS (off+832)(r), X13 \
	MOVAPS (off+896)(r), X14 \
	MOVAPS (off+960)(r), X15

#define SAVE_YMM(off, r) \
	VMOVDQA Y0, (off+0)(r) \
	VMOVDQA Y1, (off+64)(r) \
	VMOVDQA Y2, (off+128)(r) \
	VMOVDQA Y3, (off+192)(r) \
	VMOVDQA Y4, (off+256)(r) \
	VMOVDQA Y5, (off+320)(r) \
	VMOVDQA Y6, (off+384)(r) \
	VMOVDQA Y7, (off+448)(r) \
	VMOVDQA Y8, (off+512)(r) \
	VMOVDQA Y9, (off+576)(r) \
	VMOVDQA Y10, (off+640)(r) \
	VMOVDQA Y11, (off+704)(r) \
	VMOVDQA Y12, (off+768)(r) \
	VMOVDQA Y13, (off+832)(r) \
	VMOVDQA Y14, (off+896)(r) \
	VMOVDQA Y15, (off+960)(r)

#define LOAD_YMM(off, r) \
	VMOVDQA (off+0)(r), Y0 \
	VMOVDQA (off+64)(r), Y1 \
	VMOVDQA (off+128)(r), Y2 \
	VMOVDQA (off+192)(r), Y3 \
	VMOVDQA (off+256)(r), Y4 \
	VMOVDQA (off+320)(r), Y5 \
	VMOVDQA (off+384)(r), Y6 \
	VMOVDQA (off+448)(r), Y7 \
	VMOVDQA (off+512)(r), Y8 \
	VMOVDQA (off+576)(r), Y9 \
	VMOVDQA (off+640)(r), Y10 \
	VMOVDQA (off+704)(r), Y11 \
	VMOVDQA (off+768)(r), Y12 \
	VMOVDQA (off+832)(r), Y13 \
	VMOVDQA (off+896)(r), Y14 \
	VMOVDQA (off+960)(r), Y15

#define SAVE_ZMM(off, r) \
	VMOVDQA64 Z0, (off+0)(r) \
	VMOVDQA64 Z1, (off+64)(r) \
	VMOVDQA64 Z2, (off+128)(r) \
	VMOVDQA64 Z3, (off+192)(r) \
	VMOVDQA64 Z4, (off+256)(r) \
	VMOVDQA64 Z5, (off+320)(r) \
	VMOVDQA64 Z6, (off+384)(r) \
	VMOVDQA64 Z7, (off+448)(r) \
	VMOVDQA64 Z8, (off+512)(r) \
	VMOVDQA64 Z9, (off+576)(r) \
	VMOVDQA64 Z10, (off+640)(r) \
	VMOVDQA64 Z11, (off+704)(r) \
	VMOVDQA64 Z12, (off+768)(r) \
	VMOVDQA64 Z13, (off+832)(r) \
	VMOVDQA64 Z14, (off+896)(r) \
	VMOVDQA64 Z15, (off+960)(r) \
	VMOVDQA64 Z16, (off+1024)(r) \
	VMOVDQA64 Z17, (off+1088)(r) \
	VMOVDQA64 Z18, (off+1152)(r) \
	VMOVDQA64 Z19, (off+1216)(r) \
	VMOVDQA64 Z20, (off+1280)(r) \
	VMOVDQA64 Z21, (off+1344)(r) \
	VMOVDQA64 Z22, (off+1408)(r) \
	VMOVDQA64 Z23, (off+1472)(r) \
	VMOVDQA64 Z24, (off+1536)(r) \
	VMOVDQA64 Z25, (off+1600)(r) \
	VMOVDQA64 Z26, (off+1664)(r) \
	VMOVDQA64 Z27, (off+1728)(r) \
	VMOVDQA64 Z28, (off+1792)(r) \
	VMOVDQA64 Z29, (off+1856)(r) \
	VMOVDQA64 Z30, (off+1920)(r) \
	VMOVDQA64 Z31, (off+1984)(r)

#define LOAD_ZMM(off, r) \
	VMOVDQA64 (off+0)(r), Z0 \
	VMOVDQA64 (off+64)(r), Z1 \
	VMOVDQA64 (off+128)(r), Z2 \
	VMOVDQA64 (off+192)(r), Z3 \
	VMOVDQA64 (off+256)(r), Z4 \
	VMOVDQA64 (off+320)(r), Z5 \
	VMOVDQA64 (off+384)(r), Z6 \
	VMOVDQA64 (off+448)(r), Z7 \
	VMOVDQA64 (off+512)(r), Z8 \
	VMOVDQA64 (off+576)(r), Z9 \
	VMOVDQA64 (off+640)(r), Z10 \
	VMOVDQA64 (off+704)(r), Z11 \
	VMOVDQA64 (off+768)(r), Z12 \
	VMOVDQA64 (off+832)(r), Z13 \
	VMOVDQA64 (off+896)(r), Z14 \
	VMOVDQA64 (off+960)(r), Z15 \
	VMOVDQA64 (off+1024)(r), Z16 \
	VMOVDQA64 (off+1088)(r), Z17 \
	VMOVDQA64 (off+1152)(r), Z18 \
	VMOVDQA64 (off+1216)(r), Z19 \
	VMOVDQA64 (off+1280)(r), Z20 \
	VMOVDQA64 (off+1344)(r), Z21 \
	VMOVDQA64 (off+1408)(r), Z22 \
	VMOVDQA64 (off+1472)(r), Z23 \
	VMOVDQA64 (off+1536)(r), Z24 \
	VMOVDQA64 (off+1600)(r), Z25 \
	VMOVDQA64 (off+1664)(r), Z26 \
	VMOVDQA64 (off+1728)(r), Z27 \
	VMOVDQA64 (off+1792)(r), Z28 \
	VMOVDQA64 (off+1856)(r), Z29 \
	VMOVDQA64 (off+1920)(r), Z30 \
	VMOVDQA64 (off+1984)(r), Z31

#define SAVE_K(off, r) \
	KMOVQ K0, (off+0)(r) \
	KMOVQ K1, (off+8)(r) \
	KMOVQ K2, (off+16)(r) \
	KMOVQ K3, (off+24)(r) \
	KMOVQ K4, (off+32)(r) \
	KMOVQ K5, (off+40)(r) \
	KMOVQ K6, (off+48)(r) \
	KMOVQ K7, (off+56)(r)

#define LOAD_K(off, r) \
	KMOVQ (off+0)(r), K0 \
	KMOVQ (off+8)(r), K1 \
	KMOVQ (off+16)(r), K2 \
	KMOVQ (off+24)(r), K3 \
	KMOVQ (off+32)(r), K4 \
	KMOVQ (off+40)(r), K5 \
	KMOVQ (off+48)(r), K6 \
	KMOVQ (off+56)(r), K7
