package tender

import (
	"fmt"
	"os"
	"unsafe"

	"golang.org/x/sys/unix"

	"github.com/nabla-build/nabla-build/rumprun/hypercall"
	"github.com/nabla-build/nabla-build/tender/policy"
)

// signalSource is the descriptor that signals sent to the container arrive on.
// The crossing blocks them, so that none is lost.
type signalSource struct {
	fd  *hypercall.FD
	out chan int
	pid uint32 // the process's own
}

// openSignals blocks every signal but those that report faults or ticks and
// opens a signalfd for them.
func openSignals() (*signalSource, error) {
	var set unix.Sigset_t
	for n := 1; n <= 64; n++ {
		switch unix.Signal(n) {
		case unix.SIGSEGV, unix.SIGBUS, unix.SIGFPE, unix.SIGILL, unix.SIGTRAP, unix.SIGSYS, unix.SIGVTALRM,
			unix.SIGKILL, unix.SIGSTOP:
			continue
		}
		set.Val[0] |= 1 << (n - 1)
	}
	if _, _, e := unix.RawSyscall6(unix.SYS_RT_SIGPROCMASK, unix.SIG_SETMASK, uintptr(unsafe.Pointer(&set)), 0, 8, 0, 0); e != 0 {
		return nil, fmt.Errorf("block signals: %w", e)
	}
	n, err := unix.Signalfd(-1, &set, unix.SFD_NONBLOCK|unix.SFD_CLOEXEC)
	if err != nil {
		return nil, fmt.Errorf("open a descriptor for signals: %w", err)
	}
	fd, err := hypercall.Register(n)
	if err != nil {
		return nil, err
	}
	return &signalSource{fd: fd, out: make(chan int), pid: uint32(os.Getpid())}, nil
}

func (s *signalSource) rules() []policy.Rule {
	return []policy.Rule{{NR: unix.SYS_READ, Name: "read", Args: []policy.Arg{
		{Index: 0, Name: "fd", OneOf: []uint64{uint64(s.fd.Sysfd())}}, {Index: 2, Name: "length", Max: 1 << 20}}}}
}

// run passes signals on. ignore says which are the tender's own business.
func (s *signalSource) run(ignore func(signo int) bool) {
	const size = int(unsafe.Sizeof(unix.SignalfdSiginfo{}))
	buf := make([]byte, 16*size)
	for {
		n, err := s.fd.Read(buf)
		if err == unix.EAGAIN {
			s.fd.WaitReadable()
			continue
		}
		if err != nil {
			return
		}
		for b := buf[:n]; len(b) >= size; b = b[size:] {
			info := (*unix.SignalfdSiginfo)(unsafe.Pointer(&b[0]))
			if signo := int(info.Signo); !s.ownPipe(info) && !ignore(signo) {
				s.out <- signo
			}
		}
	}
}

// ownPipe reports that a signal is the SIGPIPE of a write of our own, which
// the kernel sends in our own name: the library OS gives the guest's thread its
// own for the same EPIPE. One that another process sends is the guest's.
func (s *signalSource) ownPipe(info *unix.SignalfdSiginfo) bool {
	return unix.Signal(info.Signo) == unix.SIGPIPE && info.Pid == s.pid
}
