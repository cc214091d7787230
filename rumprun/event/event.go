// Package event holds the files of the library OS that exist to wait for
// something: pipes, eventfd, epoll, timerfd and signalfd. It may import vfs
// and gVisor's waiter; it knows nothing of tasks, descriptors or guest memory.
// The type at its heart is Epoll; Space makes the files.
package event

import (
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/sys/unix"

	"github.com/nabla-build/nabla-build/rumprun/vfs"
)

// Device numbers that stat(2) shows for these files.
const (
	devPipe = 0xd
	devAnon = 0xe
)

// Space is what the anonymous files of one kernel share: their inode numbers,
// and the lock that keeps epoll instances from being nested in a circle. The
// zero Space is ready to use.
type Space struct {
	ino     atomic.Uint64
	nesting sync.Mutex // held while an epoll instance is put into another
}

// NextIno returns a new inode number (sockets use it too).
func (s *Space) NextIno() uint64 { return s.ino.Add(1) + 1024 }

// anonStat is the stat of an anonymous inode (eventfd, epoll, ...).
func anonStat(ino uint64) unix.Stat_t {
	return unix.Stat_t{Dev: devAnon, Ino: ino, Nlink: 1, Mode: 0o600, Blksize: 4096}
}

// anonFile is what files of an anonymous inode have in common.
type anonFile struct{ vfs.Base }

// Seek is the kernel's noop_llseek: the position is 0 and stays so.
func (*anonFile) Seek(int64, int) (int64, error) { return 0, nil }

func timespec(t time.Time) unix.Timespec {
	return unix.Timespec{Sec: t.Unix(), Nsec: int64(t.Nanosecond())}
}
