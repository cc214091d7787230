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
		{"busybox", "find", "/srv", "-name", "num*.txt", "-size", "+100"},
		{"busybox", "cat", "/srv/missing"},
		{"busybox", "tar", "-cvf", "/tmp/a.tar", "-C", "/srv", "www/index.html"},
		{"busybox", "gzip", "-c", "/srv/words.txt"},
		{"busybox", "ls", "-1p", "/srv/www"},
		{"busybox", "id"},
	} {
		t.Run(argv[1], func(t *testing.T) { compare(t, "", argv...) })
	}
}

// TestChildren: a child that goes on to execve is possible. One that does not,
// as the parts of a pipeline that are the shell's own, is refused.
func TestChildren(t *testing.T) {
	compare(t, "", "bash", "-c", "cat /srv/www/docs/short.txt; ls /srv/www; false || echo $?; sha256sum /srv/words.txt")
	compare(t, "", "bash", "-c", "seq 1 10 | sort -rn | head -n 3")
	compare(t, "", "sh", "-c", "sort -u /srv/words.txt | wc -l; sleep 0.1 & wait; echo ok")
	compare(t, "", "busybox", "sh", "-c", "sort -u /srv/words.txt | wc -l; echo $?")
	compare(t, "", "bash", "-c", "x=$(wc -l /srv/words.txt); echo got $x")
	compare(t, "", "find", "/srv/www", "-name", "*.txt", "-size", "+10", "-exec", "wc", "-l", "{}", ";")
	compare(t, "b\na\n", "xargs", "-n", "1", "echo", "word")
	compare(t, "", "timeout", "-s", "KILL", "0.3", "sleep", "20")
	compare(t, "", "env", "A=b", "nice", "-n", "5", "printenv", "A")

	for _, argv := range [][]string{
		{"bash", "-c", "( cd /tmp; while read -r w; do n=$((n+1)); done < /srv/words.txt; echo $n ); echo after $?"},
		{"busybox", "sh", "-c", "cat /srv/words.txt | while read w; do n=$((n+1)); done; echo after $?"},
	} {
		want := result(t, native(t, argv...), "")
		got := result(t, inside(t, []string{"--net", "none"}, argv...), "")
		if got.Stdout == want.Stdout && got.Status == want.Status {
			continue
		}
		if got.Status == 0 || got.Status >= 128 || !strings.Contains(got.Stderr, "called fork: not possible") {
			t.Errorf("%q: neither done nor refused: status %d\n%s%s", argv, got.Status, got.Stdout, got.Stderr)
		}
	}
}
