package oci

import (
	"io/fs"
	"os"
	"strconv"
	"strings"
)

// umask is the process's file mode creation mask, read from /proc/self/status
// as umask(2) cannot ask without changing it; 022 if that is not possible.
func umask() fs.FileMode {
	b, err := os.ReadFile("/proc/self/status")
	if err != nil {
		return 0o022
	}
	for line := range strings.SplitSeq(string(b), "\n") {
		if v, ok := strings.CutPrefix(line, "Umask:"); ok {
			if n, err := strconv.ParseUint(strings.TrimSpace(v), 8, 32); err == nil {
				return fs.FileMode(n)
			}
		}
	}
	return 0o022
}
