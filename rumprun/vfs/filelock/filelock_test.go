package filelock_test

import (
	"fmt"
	"math/rand/v2"
	"os"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/nabla-build/nabla-build/rumprun/vfs/filelock"
)

// TestRandomLocksAgainstKernel takes and gives up random locks of open file
// descriptions, on the host and here: each attempt must have the same answer,
// and F_OFD_GETLK must name a lock in the way in the same cases.
func TestRandomLocksAgainstKernel(t *testing.T) {
	for seed := range uint64(100) {
		r := rand.New(rand.NewPCG(seed, 0))
		f, err := os.CreateTemp(t.TempDir(), "lock")
		if err != nil {
			t.Fatal(err)
		}
		var fds [4]*os.File
		for i := range fds {
			if fds[i], err = os.OpenFile(f.Name(), os.O_RDWR, 0); err != nil {
				t.Fatal(err)
			}
		}
		var table filelock.Table
		for step := range 300 {
			who := r.IntN(len(fds))
			start := int64(r.IntN(20))
			length := int64(r.IntN(10)) // 0: to the end
			fl := unix.Flock_t{Start: start, Len: length, Type: []int16{unix.F_RDLCK, unix.F_WRLCK, unix.F_UNLCK}[r.IntN(3)]}
			end := start + length - 1
			if length == 0 {
				end = filelock.ToEnd
			}
			l := filelock.Lock{Owner: who, Exclusive: fl.Type == unix.F_WRLCK, Start: start, End: end}
			what := fmt.Sprintf("seed %d step %d: %d type %d [%d, %d]", seed, step, who, fl.Type, start, end)
			if fl.Type != unix.F_UNLCK && r.IntN(3) == 0 {
				err := unix.FcntlFlock(fds[who].Fd(), unix.F_OFD_GETLK, &fl)
				if err != nil {
					t.Fatal(err)
				}
				_, busy := table.Conflict("f", filelock.Range, l)
				if busy != (fl.Type != unix.F_UNLCK) {
					t.Fatalf("%s: conflict %v, natively %v", what, busy, fl.Type)
				}
				continue
			}
			want := unix.FcntlFlock(fds[who].Fd(), unix.F_OFD_SETLK, &fl)
			var got error
			if fl.Type == unix.F_UNLCK {
				table.Unset("f", filelock.Range, who, start, end)
			} else {
				_, got = table.Set("f", filelock.Range, l)
			}
			if fmt.Sprint(got) != fmt.Sprint(want) {
				t.Fatalf("%s: %v, natively %v", what, got, want)
			}
			if r.IntN(60) == 0 {
				// Closing gives everything up.
				fds[who].Close()
				table.Release(who)
				if fds[who], err = os.OpenFile(f.Name(), os.O_RDWR, 0); err != nil {
					t.Fatal(err)
				}
			}
		}
		f.Close()
		for _, f := range fds {
			f.Close()
		}
	}
}

func TestWaitersAreWoken(t *testing.T) {
	var table filelock.Table
	ex := func(owner string) (<-chan struct{}, error) {
		return table.Set("f", filelock.Whole, filelock.Lock{Owner: owner, Exclusive: true, End: filelock.ToEnd})
	}
	if _, err := ex("a"); err != nil {
		t.Fatal(err)
	}
	c, err := ex("b")
	if err != unix.EAGAIN {
		t.Fatalf("second lock: %v", err)
	}
	select {
	case <-c:
		t.Fatal("woken with nothing given up")
	default:
	}
	// The two families do not see each other.
	if _, err := table.Set("f", filelock.Range, filelock.Lock{Owner: "b", Exclusive: true, End: 5}); err != nil {
		t.Fatal(err)
	}
	table.Release("a")
	select {
	case <-c:
	default:
		t.Fatal("not woken")
	}
	if _, err := ex("b"); err != nil {
		t.Fatal(err)
	}
}
