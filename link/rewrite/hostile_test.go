package rewrite

import (
	"bytes"
	"math/rand"
	"testing"
	"time"
)

// Bytes changed at random in headers and tables: no panic, no endless work,
// and what is rewritten still stands verification.
func TestHostile(t *testing.T) {
	im := image{text: asm(t, "b827000000 0f05 4889df 0f05 c3"), frames: []frame{{0x1000, 0x100d, false}}}
	im.symbols = whole(im.text)
	good := im.build()
	r := rand.New(rand.NewSource(1))
	rewritten := 0
	for i := range 3000 {
		b := bytes.Clone(good)
		for range 1 + r.Intn(4) {
			at := []int{r.Intn(64 + 56*3), 0x500 + r.Intn(64), len(b) - 1 - r.Intn(64*6), r.Intn(len(b))}[r.Intn(4)]
			b[at] = byte(r.Intn(256))
		}
		orig := bytes.Clone(b)
		start := time.Now()
		res, err := Object(b)
		if err == nil {
			checkResult(t, orig, b, res)
		}
		if res.Patch != nil {
			rewritten++
		}
		if d := time.Since(start); d > 2*time.Second {
			t.Errorf("mutation %d took %v", i, d)
		}
	}
	if rewritten < 100 {
		t.Errorf("only %d mutations could be rewritten: the test does not reach what it should", rewritten)
	}
}
