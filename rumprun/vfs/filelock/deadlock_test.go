package filelock_test

import (
	"testing"

	"golang.org/x/sys/unix"

	"github.com/nabla-build/nabla-build/rumprun/vfs/filelock"
)

// TestDeadlock makes circles of two and three owners, as fcntl(2) has it: who
// would close one gets EDEADLK.
func TestDeadlock(t *testing.T) {
	var table filelock.Table
	lock := func(owner int, at int64) filelock.Lock {
		return filelock.Lock{Owner: owner, PID: int32(owner), Exclusive: true, Start: at, End: at}
	}
	for owner := 1; owner <= 3; owner++ {
		if _, err := table.SetWait("file", filelock.Range, lock(owner, int64(owner))); err != nil {
			t.Fatal(err)
		}
	}
	wait := func(owner int, at int64, want error) {
		t.Helper()
		if _, err := table.SetWait("file", filelock.Range, lock(owner, at)); err != want {
			t.Errorf("%d waits for %d: %v, want %v", owner, at, err, want)
		}
	}
	wait(1, 2, unix.EAGAIN)
	wait(2, 1, unix.EDEADLK)
	wait(2, 3, unix.EAGAIN)
	wait(3, 1, unix.EDEADLK)
	wait(3, 2, unix.EDEADLK)
	table.Waited(1)
	wait(3, 1, unix.EAGAIN)
	wait(1, 2, unix.EDEADLK)
	table.Waited(2)
	table.Waited(3)
	wait(1, 2, unix.EAGAIN)
	table.Waited(1)
	table.Unset("file", filelock.Range, 2, 0, filelock.ToEnd)
	if _, err := table.SetWait("file", filelock.Range, lock(1, 2)); err != nil {
		t.Error(err)
	}
}
