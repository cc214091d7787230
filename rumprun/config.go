package rumprun

import (
	"io"

	"gvisor.dev/gvisor/pkg/tcpip"
	"gvisor.dev/gvisor/pkg/tcpip/stack"

	"github.com/nabla-build/nabla-build/rumprun/mm"
	"github.com/nabla-build/nabla-build/rumprun/vfs"
)

// Config is all that the tender hands to the library OS. The library OS makes
// no host call to learn anything else.
type Config struct {
	// Argv and Env start the guest's first process in directory Dir. Argv[0]
	// is looked up in PATH of Env as execvp(3) does where it has no slash.
	Argv, Env []string
	Dir       string
	// UID, GID and Groups are the first process's credentials: those that the
	// container was started with.
	UID, GID uint32
	Groups   []uint32
	Hostname string

	// Memory holds the ranges of the arena; MemoryLimit is the most that the
	// guest may have in use, in bytes (the cgroup's limit, or the host's
	// memory): what /proc/meminfo and sysinfo show.
	Memory      []mm.Range
	MemoryLimit uint64
	// NoFile is RLIMIT_NOFILE's soft limit.
	NoFile uint64

	// Archives are the root file system's layers, lowest first: the bytes of
	// each nabla archive, mapped read-only for the life of the process.
	Archives [][]byte
	// Files are files that the container gives (/etc/resolv.conf, /etc/hosts,
	// /etc/hostname): absolute path to content, laid over the archives.
	Files map[string][]byte

	// Stdio are the container's standard input, output and error: open
	// descriptions of kind console or pipe, made by the tender.
	Stdio [3]vfs.File

	// NICs are the network interfaces besides loopback; Net tells the routes.
	NICs   []NIC
	Routes []tcpip.Route // NIC IDs count from 2 in the order of NICs; 1 is lo

	// Signals delivers the numbers of signals sent to the container.
	Signals <-chan int

	// Entropy seeds the guest's random numbers; 64 bytes from the host's
	// getrandom, never used twice.
	Entropy [64]byte

	// VDSO is the host vDSO's address (0: none). HWCap, HWCap2, ClockTick and
	// MinSigStack are the host's auxiliary vector entries AT_HWCAP, AT_HWCAP2,
	// AT_CLKTCK and AT_MINSIGSTKSZ (getauxval(3)).
	VDSO                                  uintptr
	HWCap, HWCap2, ClockTick, MinSigStack uint64
	// CPUInfo is the host's /proc/cpuinfo entry of one processor.
	CPUInfo []byte
	// Release is the kernel release that uname(2) answers.
	Release string

	// Log receives lines of the library OS, one Write each; Debug turns on
	// the reports of unimplemented calls, Trace a line per call.
	Log          io.Writer
	Debug, Trace bool

	// Exit ends the host process with status; it does not return.
	Exit func(status int)
}

// NIC is a network interface that the tender attached.
type NIC struct {
	Name      string // as the guest sees it, e.g. "eth0"
	Link      stack.LinkEndpoint
	Addresses []tcpip.ProtocolAddress
}
