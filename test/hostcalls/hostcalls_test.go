package hostcalls

import (
	"reflect"
	"strings"
	"testing"
)

func TestParse(t *testing.T) {
	const log = `100 openat(AT_FDCWD, "x", O_RDONLY) = 3
101 read(3, "", 1) = 0
100 seccomp(SECCOMP_SET_MODE_FILTER, 0, {len=40, filter=0x1}) = 0
100 read(4, "abc", 10) = 3
100 getpid() = 39
100 --- SIGSYS {si_signo=SIGSYS, si_code=SYS_SECCOMP, si_call_addr=0x1, si_syscall=__NR_getpid, si_arch=AUDIT_ARCH_X86_64} ---
100 --- SIGVTALRM {si_signo=SIGVTALRM, si_code=SI_KERNEL} ---
100 ppoll([{fd=4, events=POLLIN}], 1, NULL, NULL, 8 <unfinished ...>
101 openat(AT_FDCWD, "y", O_RDONLY) = 3
100 <... ppoll resumed>) = 1
100 write(1, "x", 1) = 1
100 exit_group(0) = ?
100 +++ exited with 0 +++
`
	c, err := Parse(strings.NewReader(log), 100)
	if err != nil {
		t.Fatal(err)
	}
	want := map[string]int{"read": 1, "ppoll": 1, "write": 1, "exit_group": 1}
	if !reflect.DeepEqual(c.Calls, want) || c.Trapped != 1 || !c.Locked || c.Killed {
		t.Errorf("got %+v, want calls %v and one trap", c, want)
	}
}
