//go:build integration

package programs

import (
	"strings"
	"testing"
)

// TestBash runs a script that makes no child process.
func TestBash(t *testing.T) {
	want := compare(t, "", "/srv/exec.sh")
	if want.Status != 0 || !strings.HasSuffix(want.Stdout, "plum\npear\napple\n") {
		t.Errorf("natively: status %d\n%s%s", want.Status, want.Stdout, want.Stderr)
	}
	compare(t, "", "bash", "-c", "echo $BASHPID $PPID >/dev/null; exit 7")
	compare(t, "one\ntwo\n", "bash", "-c", "mapfile -t a; echo ${#a[@]} ${a[1]}; exec cat /srv/www/docs/short.txt")
}

func TestBusybox(t *testing.T) {
	for _, argv := range [][]string{
		{"busybox", "sh", "-c", `i=0; while [ $i -lt 1000 ]; do i=$((i+1)); done; echo $i; cd /srv; echo *; exec busybox md5sum www/docs/numbers.txt`},
		{"busybox", "sha256sum", "/srv/www/docs/numbers.txt"},
		{"busybox", "wc", "/srv/words.txt"},
		{"busybox", "sort", "-u", "/srv/words.txt"},
		{"busybox", "awk", "{n[$1]++} END {for (w in n) print w, n[w]}", "/srv/words.txt"},
		{"busybox", "sed", "-n", "s/^\\(.\\)7$/<\\1>/p", "/srv/www/docs/numbers.txt"},
		{"busybox", "find", "/srv", "-name", "*.txt"},
		{"busybox", "cat", "/srv/missing"},
		{"busybox", "tar", "-cf", "/tmp/a.tar", "-C", "/srv", "www"},
		{"busybox", "gzip", "-c", "/srv/words.txt"},
		{"busybox", "ls", "-ln", "/srv/www/docs"},
		{"busybox", "id"},
	} {
		t.Run(argv[1], func(t *testing.T) { compare(t, "", argv...) })
	}
}
