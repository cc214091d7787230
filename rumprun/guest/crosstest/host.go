//go:build nabla

package main

import (
	"fmt"
	"math"
	"runtime"
	"time"

	"github.com/nabla-build/nabla-build/rumprun/guest"
)

// workload computes with floats, maps and strings; always the same result.
func workload() string {
	m := map[string]float64{}
	x := 0.5
	for i := range 60000 {
		x = math.Sqrt(x*x+float64(i)) * 1.01
		if x > 1e6 {
			x = math.Mod(x, 97)
		}
		m[fmt.Sprint(i%500)] += x
	}
	sum := 0.0
	for i := range 500 {
		sum += m[fmt.Sprint(i)] * math.Sin(float64(i))
	}
	return fmt.Sprintf("%x %d", sum, len(m))
}

// storm repeats the workload while the timer hits it.
func storm(want string) {
	ticks := 0
	for end := time.Now().Add(1500 * time.Millisecond); time.Now().Before(end); {
		if got := workload(); got != want {
			fail("storm: %s, want %s", got, want)
		}
		if guest.PreemptPending() {
			ticks++
			guest.ClearPreempt()
			if guest.PreemptPending() {
				fail("storm: ClearPreempt does not")
			}
		}
		runtime.Gosched()
	}
	if ticks < 5 {
		fail("storm: the timer hit library OS code %d times", ticks)
	}
}

//go:noinline
func deref(p *int) int { return *p }

//go:noinline
func divide(a, b int) int { return a / b }

func recovered(f func()) (v any) {
	defer func() { v = recover() }()
	f()
	return nil
}

// panics are recovered from, with the floats of the code around them intact.
func panics() {
	x, want := 1.5, 1.5
	for i := range 20000 {
		if err, ok := recovered(func() { deref(nil) }).(runtime.Error); !ok || err == nil {
			fail("nil dereference %d: %v", i, err)
		}
		if err, ok := recovered(func() { divide(i, 0) }).(runtime.Error); !ok || err == nil {
			fail("division by zero %d: %v", i, err)
		}
		x = x*1.25 - 0.375
		if x != want {
			fail("float after a panic: %v, want %v", x, want)
		}
	}
}
