package tender

import (
	"fmt"
	"os"
	"slices"
	"strconv"
	"strings"
	"unsafe"

	"golang.org/x/sys/unix"

	"github.com/nabla-build/nabla-build/rumprun/hypercall"
	"github.com/nabla-build/nabla-build/tender/policy"
)

// merge joins the rules of one call whose constraints differ only in the
// descriptor.
func merge(rules []policy.Rule) []policy.Rule {
	var out []policy.Rule
next:
	for _, r := range rules {
		for i := range out {
			o := &out[i]
			if o.NR != r.NR || len(o.Args) != len(r.Args) {
				continue
			}
			for j, a := range r.Args {
				if a.OneOf == nil {
					o.Args[j].Max = max(o.Args[j].Max, a.Max)
					continue
				}
				for _, v := range a.OneOf {
					if !slices.Contains(o.Args[j].OneOf, v) {
						o.Args[j].OneOf = append(o.Args[j].OneOf, v)
					}
				}
			}
			continue next
		}
		r.Args = slices.Clone(r.Args)
		for j := range r.Args {
			r.Args[j].OneOf = slices.Clone(r.Args[j].OneOf)
		}
		out = append(out, r)
	}
	return out
}

// basicRules are what every tender needs: to wait and to end.
func basicRules() []policy.Rule {
	return []policy.Rule{
		{NR: unix.SYS_PPOLL, Name: "ppoll", Args: []policy.Arg{{Index: 1, Name: "nfds", Max: 16}, {Index: 3, Name: "sigmask", OneOf: []uint64{0}}}},
		{NR: unix.SYS_EXIT_GROUP, Name: "exit_group"},
	}
}

// lockdown gives up every right and installs the filter. Nothing but what the
// policy permits reaches the kernel from here on. keep are the descriptors that
// the rules name; any other that is open is closed first.
func lockdown(p *policy.Policy, keep []int) error {
	if err := closeOthers(keep); err != nil {
		return err
	}
	if err := singleThread(); err != nil {
		return err
	}
	prog, err := p.Program()
	if err != nil {
		return err
	}
	filter := make([]unix.SockFilter, len(prog))
	for i, r := range prog {
		filter[i] = unix.SockFilter{Code: r.Op, Jt: r.Jt, Jf: r.Jf, K: r.K}
	}
	fprog := unix.SockFprog{Len: uint16(len(filter)), Filter: &filter[0]}
	if err := unix.Prctl(unix.PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0); err != nil {
		return fmt.Errorf("set no_new_privs: %w", err)
	}
	if err := dropCapabilities(); err != nil {
		return err
	}
	if err := unix.Prctl(unix.PR_SET_DUMPABLE, 0, 0, 0, 0); err != nil {
		return fmt.Errorf("clear dumpable: %w", err)
	}
	hypercall.Lockdown()
	if _, _, e := unix.RawSyscall(unix.SYS_SECCOMP, unix.SECCOMP_SET_MODE_FILTER, 0, uintptr(unsafe.Pointer(&fprog))); e != 0 {
		return fmt.Errorf("install the seccomp filter: %w (is CONFIG_SECCOMP_FILTER on?)", e)
	}
	return nil
}

// closeOthers closes every open descriptor that is not in keep.
func closeOthers(keep []int) error {
	fds, err := openDescriptors()
	if err != nil {
		return err
	}
	for _, fd := range fds {
		if !slices.Contains(keep, fd) {
			unix.Close(fd)
		}
	}
	if fds, err = openDescriptors(); err != nil {
		return err
	}
	for _, fd := range fds {
		if !slices.Contains(keep, fd) {
			return fmt.Errorf("lockdown: descriptor %d is open and not on the list", fd)
		}
	}
	return nil
}

// openDescriptors lists the open descriptors, without the one that the listing
// itself uses.
func openDescriptors() ([]int, error) {
	d, err := os.Open("/proc/self/fd")
	if err != nil {
		return nil, fmt.Errorf("lockdown: list open descriptors: %w (is /proc mounted?)", err)
	}
	names, err := d.Readdirnames(-1)
	own := int(d.Fd())
	d.Close()
	if err != nil {
		return nil, fmt.Errorf("lockdown: list open descriptors: %w", err)
	}
	var fds []int
	for _, n := range names {
		if fd, err := strconv.Atoi(n); err == nil && fd != own {
			fds = append(fds, fd)
		}
	}
	return fds, nil
}

// singleThread fails unless this is the process's only thread.
func singleThread() error {
	b, err := os.ReadFile("/proc/self/status")
	if err != nil {
		return fmt.Errorf("lockdown: count threads: %w", err)
	}
	for line := range strings.Lines(string(b)) {
		if n, ok := strings.CutPrefix(line, "Threads:"); ok {
			if strings.TrimSpace(n) != "1" {
				return fmt.Errorf("lockdown: %s host threads, want 1: a fault of this release", strings.TrimSpace(n))
			}
			return nil
		}
	}
	return fmt.Errorf("lockdown: /proc/self/status names no thread count")
}

// dropCapabilities empties every capability set (capabilities(7)).
func dropCapabilities() error {
	if err := unix.Prctl(unix.PR_CAP_AMBIENT, unix.PR_CAP_AMBIENT_CLEAR_ALL, 0, 0, 0); err != nil {
		return fmt.Errorf("clear ambient capabilities: %w", err)
	}
	for c := uintptr(0); c <= 63; c++ {
		// EPERM without CAP_SETPCAP, EINVAL beyond the last: with empty sets and
		// no_new_privs the bounding set has no effect.
		unix.Prctl(unix.PR_CAPBSET_DROP, c, 0, 0, 0)
	}
	h := unix.CapUserHeader{Version: unix.LINUX_CAPABILITY_VERSION_3}
	var d [2]unix.CapUserData
	if err := unix.Capset(&h, &d[0]); err != nil {
		return fmt.Errorf("drop capabilities: %w", err)
	}
	return nil
}
