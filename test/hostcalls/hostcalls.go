// Package hostcalls counts, from outside, the system calls that a tender makes
// after lockdown: it reads what strace wrote of it.
package hostcalls

import (
	"bufio"
	"fmt"
	"io"
	"os"
	"regexp"
	"sort"
	"strings"
)

// Count is what a tender did after it installed its filter.
type Count struct {
	// Calls reached the kernel, by name.
	Calls map[string]int
	// Trapped is how many system call instructions of the guest the filter
	// turned away: the library OS handled them, the kernel did not.
	Trapped int
	// Killed says that the filter ended the process.
	Killed bool
	// Locked says that a filter was installed at all.
	Locked bool
}

// Names lists the calls that reached the kernel, sorted.
func (c *Count) Names() []string {
	var names []string
	for n := range c.Calls {
		names = append(names, n)
	}
	sort.Strings(names)
	return names
}

var (
	line    = regexp.MustCompile(`^(\d+)\s+(.*)$`)
	call    = regexp.MustCompile(`^([a-z_0-9]+)\(`)
	resumed = regexp.MustCompile(`^<\.\.\. ([a-z_0-9]+) resumed>`)
)

// Parse reads the output of strace -f (one process and its children) and
// counts the calls of the process that installed a seccomp filter with the
// gate's rules first: pid, the tender.
func Parse(r io.Reader, pid int) (*Count, error) {
	c := &Count{Calls: map[string]int{}}
	s := bufio.NewScanner(r)
	s.Buffer(nil, 1<<20)
	last := "" // the call that the next SIGSYS takes back
	want := fmt.Sprint(pid)
	for s.Scan() {
		m := line.FindStringSubmatch(s.Text())
		if m == nil || m[1] != want {
			continue
		}
		text := m[2]
		if !c.Locked {
			if strings.HasPrefix(text, "seccomp(SECCOMP_SET_MODE_FILTER") && strings.HasSuffix(text, "= 0") {
				c.Locked = true
			}
			continue
		}
		switch {
		case strings.HasPrefix(text, "--- SIGSYS") && strings.Contains(text, "SYS_SECCOMP"):
			c.Trapped++
			if last != "" {
				if c.Calls[last]--; c.Calls[last] == 0 {
					delete(c.Calls, last)
				}
				last = ""
			}
		case strings.HasPrefix(text, "+++ killed by SIGSYS"):
			c.Killed = true
		case resumed.MatchString(text):
			// counted when it began
		default:
			if m := call.FindStringSubmatch(text); m != nil {
				last = m[1]
				c.Calls[last]++
			}
		}
	}
	return c, s.Err()
}

// Tender finds the tender in the log of strace -f -o: the process that was
// started, since nabla-build run becomes the tender. It is 0 if the log cannot
// be read.
func Tender(log string) int {
	f, err := os.Open(log)
	if err != nil {
		return 0
	}
	defer f.Close()
	var pid int
	fmt.Fscan(f, &pid)
	return pid
}
