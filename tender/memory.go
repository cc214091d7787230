package tender

import (
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"unsafe"

	"golang.org/x/sys/unix"

	"github.com/nabla-build/nabla-build/rumprun/mm"
)

// The arena: low addresses for programs that are linked there, and a high range
// for everything else. Nothing of the tender lies in either.
const (
	lowStart  = 0x10000 // vm.mmap_min_addr's usual value
	lowEnd    = 1 << 32
	highStart = 0x200000000000
	highSize  = 256 << 30
)

// reserveArena reserves the guest's memory, all of it readable, writable and
// executable from now on: no page is used before it is touched, and no call is
// needed later.
func reserveArena() ([]mm.Range, error) {
	var ranges []mm.Range
	low := uintptr(lowStart)
	if b, err := os.ReadFile("/proc/sys/vm/mmap_min_addr"); err == nil {
		if n, err := strconv.ParseUint(strings.TrimSpace(string(b)), 10, 32); err == nil && uintptr(n) > low {
			low = (uintptr(n) + 0xffff) &^ 0xffff
		}
	}
	for _, r := range []mm.Range{{Start: low, End: lowEnd}, {Start: highStart, End: highStart + highSize}} {
		const prot = unix.PROT_READ | unix.PROT_WRITE | unix.PROT_EXEC
		const flags = unix.MAP_PRIVATE | unix.MAP_ANONYMOUS | unix.MAP_NORESERVE | unix.MAP_FIXED_NOREPLACE
		p, err := unix.MmapPtr(-1, 0, unsafe.Pointer(r.Start), r.End-r.Start, prot, flags)
		if err == nil && uintptr(p) != r.Start {
			err = unix.EEXIST
		}
		if err != nil {
			return nil, fmt.Errorf("reserve guest memory at %#x to %#x: %w (a limit on address space, `ulimit -v`, vm.overcommit_memory=2 or a ban on executable memory stands in the way)", r.Start, r.End, err)
		}
		ranges = append(ranges, r)
	}
	return ranges, nil
}

// memoryLimit is the least of the container's limit, the host's memory and
// what the manifest or NABLA_MEMORY asks for (0: nothing), in bytes.
func memoryLimit(asked uint64) uint64 {
	limit := uint64(1) << 62
	var si unix.Sysinfo_t
	if unix.Sysinfo(&si) == nil {
		limit = si.Totalram * uint64(si.Unit)
	}
	if asked != 0 {
		limit = min(limit, asked)
	}
	for _, f := range cgroupLimitFiles() {
		b, err := os.ReadFile(f)
		if err != nil {
			continue
		}
		if n, err := strconv.ParseUint(strings.TrimSpace(string(b)), 10, 64); err == nil && n > 0 {
			limit = min(limit, n)
		}
	}
	return limit &^ 4095
}

// cgroupLimitFiles names the files that may hold the container's memory limit
// (cgroups(7)), version 1 and 2, as seen from inside a container or outside.
func cgroupLimitFiles() []string {
	files := []string{"/sys/fs/cgroup/memory.max", "/sys/fs/cgroup/memory/memory.limit_in_bytes"}
	b, err := os.ReadFile("/proc/self/cgroup")
	if err != nil {
		return files
	}
	for line := range strings.Lines(string(b)) {
		f := strings.SplitN(strings.TrimSpace(line), ":", 3)
		if len(f) != 3 {
			continue
		}
		switch {
		case f[0] == "0" && f[1] == "":
			files = append(files, filepath.Join("/sys/fs/cgroup", f[2], "memory.max"))
		case strings.Contains(","+f[1]+",", ",memory,"):
			files = append(files, filepath.Join("/sys/fs/cgroup/memory", f[2], "memory.limit_in_bytes"))
		}
	}
	return files
}
