package tender

import (
	"encoding/binary"
	"os"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/nabla-build/nabla-build/rumprun"
)

// Entries of the auxiliary vector (getauxval(3)).
const (
	atHWCap       = 16
	atClockTick   = 17
	atHWCap2      = 26
	atSysinfoEhdr = 33
	atMinSigStack = 51
)

// describeHost fills in what the library OS tells the guest of the host.
func describeHost(c *rumprun.Config) error {
	b, err := os.ReadFile("/proc/self/auxv")
	if err != nil {
		return err
	}
	for ; len(b) >= 16; b = b[16:] {
		v := binary.LittleEndian.Uint64(b[8:])
		switch binary.LittleEndian.Uint64(b) {
		case atHWCap:
			c.HWCap = v
		case atHWCap2:
			c.HWCap2 = v
		case atClockTick:
			c.ClockTick = v
		case atSysinfoEhdr:
			c.VDSO = uintptr(v)
		case atMinSigStack:
			c.MinSigStack = v
		}
	}
	var u unix.Utsname
	if err := unix.Uname(&u); err != nil {
		return err
	}
	c.Release = unix.ByteSliceToString(u.Release[:])
	c.Hostname = unix.ByteSliceToString(u.Nodename[:])
	if b, err := os.ReadFile("/proc/cpuinfo"); err == nil {
		one, _, _ := strings.Cut(string(b), "\n\n")
		c.CPUInfo = []byte(one + "\n\n")
	}
	var l unix.Rlimit
	if err := unix.Getrlimit(unix.RLIMIT_NOFILE, &l); err == nil {
		c.NoFile = min(l.Cur, 1<<20)
	}
	c.Files = map[string][]byte{}
	for _, name := range []string{"/etc/resolv.conf", "/etc/hosts", "/etc/hostname"} {
		if b, err := os.ReadFile(name); err == nil && len(b) <= 1<<20 {
			c.Files[name] = b
		}
	}
	if _, err := unix.Getrandom(c.Entropy[:], 0); err != nil {
		return err
	}
	return nil
}
