package rumprun

import (
	"time"

	"golang.org/x/sys/unix"

	"gvisor.dev/gvisor/pkg/abi/linux"
)

var systemCalls = []Call{
	{unix.SYS_UNAME, "uname", sysUname, Full, ""},
	{unix.SYS_SYSINFO, "sysinfo", sysSysinfo, Partial, "load averages are 0"},
	{unix.SYS_GETRLIMIT, "getrlimit", sysGetrlimit, Full, ""},
	{unix.SYS_SETRLIMIT, "setrlimit", sysSetrlimit, Partial, "RLIMIT_NOFILE, RLIMIT_NPROC and RLIMIT_STACK have an effect"},
	{unix.SYS_PRLIMIT64, "prlimit64", sysPrlimit64, Partial, "RLIMIT_NOFILE, RLIMIT_NPROC and RLIMIT_STACK have an effect"},
	{unix.SYS_PERSONALITY, "personality", sysPersonality, Partial, "PER_LINUX only"},
	{unix.SYS_SYSLOG, "syslog", sysEPERM, Unsupported, "EPERM, as in any container"},
	{unix.SYS_SETHOSTNAME, "sethostname", sysEPERM, Unsupported, "EPERM, as in any container"},
	{unix.SYS_SETDOMAINNAME, "setdomainname", sysEPERM, Unsupported, "EPERM, as in any container"},
	{unix.SYS_REBOOT, "reboot", sysEPERM, Unsupported, "EPERM, as in any container"},
	{unix.SYS_IO_URING_SETUP, "io_uring_setup", nil, Unsupported, "programs fall back to epoll"},
	{unix.SYS_BPF, "bpf", sysEPERM, Unsupported, "EPERM, as in any container"},
	{unix.SYS_PERF_EVENT_OPEN, "perf_event_open", sysEPERM, Unsupported, "EPERM, as in any container"},
	{unix.SYS_PTRACE, "ptrace", sysEPERM, Unsupported, "EPERM: there is no other process to trace"},
	{unix.SYS_UNSHARE, "unshare", sysEPERM, Unsupported, "EPERM, as in any container"},
	{unix.SYS_SETNS, "setns", sysEPERM, Unsupported, "EPERM, as in any container"},
	{unix.SYS_KEYCTL, "keyctl", nil, Unsupported, "no kernel keyring"},
	{unix.SYS_ADD_KEY, "add_key", nil, Unsupported, "no kernel keyring"},
	{unix.SYS_REQUEST_KEY, "request_key", nil, Unsupported, "no kernel keyring"},
	{unix.SYS_SECCOMP, "seccomp", sysSeccomp, Unsupported, "EINVAL: the guest cannot narrow its own filter"},
	{unix.SYS_IOPRIO_GET, "ioprio_get", sysIoprioGet, Full, ""},
	{unix.SYS_IOPRIO_SET, "ioprio_set", sysIoprioSet, Partial, "accepted, without effect"},
}

// sysUname is uname(2).
func sysUname(t *Task, a Args) (uintptr, error) {
	var u linux.UtsName
	copy(u.Sysname[:], "Linux")
	copy(u.Nodename[:linux.UTSLen], t.k.cfg.Hostname)
	copy(u.Release[:linux.UTSLen], t.k.cfg.Release)
	copy(u.Version[:], "#1 SMP nabla")
	copy(u.Machine[:], "x86_64")
	copy(u.Domainname[:], "(none)")
	return 0, copyOut(t, a[0], u)
}

// sysSysinfo is sysinfo(2).
func sysSysinfo(t *Task, a Args) (uintptr, error) {
	k := t.k
	k.mu.Lock()
	procs := len(k.tasks)
	k.mu.Unlock()
	used := t.p.as.Resident()
	s := linux.Sysinfo{
		Uptime:   int64((k.monotonic() - k.bootTime) / time.Second),
		TotalRAM: k.cfg.MemoryLimit,
		FreeRAM:  k.cfg.MemoryLimit - min(used, k.cfg.MemoryLimit),
		Procs:    uint16(procs),
		Unit:     1,
	}
	return 0, copyOut(t, a[0], s)
}

const addrNoRandomize = 0x0040000 // ADDR_NO_RANDOMIZE (personality(2))

// sysPersonality is personality(2).
func sysPersonality(t *Task, a Args) (uintptr, error) {
	if p := uint32(a[0]); p != 0xffffffff && p != 0 && p != addrNoRandomize {
		return 0, unix.EINVAL
	}
	return 0, nil
}

func sysSeccomp(t *Task, a Args) (uintptr, error) { return 0, unix.EINVAL }

func sysIoprioGet(t *Task, a Args) (uintptr, error) { return 4, nil } // IOPRIO_CLASS_NONE, level 4

func sysIoprioSet(t *Task, a Args) (uintptr, error) { return 0, nil }
