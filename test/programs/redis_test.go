//go:build integration

package programs

import (
	"fmt"
	"strconv"
	"strings"
	"testing"

	"github.com/nabla-build/nabla-build/test/nablatest"
)

// redis starts redis-server on a side.
func redis(t *testing.T, isInside bool) (port string, s *server) {
	t.Helper()
	p := freePort(t)
	args := []string{"redis-server", "--save", "", "--appendonly", "yes", "--dir", "/tmp", "--bind", "0.0.0.0", "--protected-mode", "no"}
	if isInside {
		s = serve(t, p, "PING\r\n", inside(t, []string{"-p", fmt.Sprintf("%d:6379", p)}, append(args, "--port", "6379")...))
	} else {
		s = serve(t, p, "PING\r\n", native(t, append(args, "--port", strconv.Itoa(p))...))
	}
	return strconv.Itoa(p), s
}

// script is what a client does; every answer is the same each time.
const script = `ping
set greeting "hello world" ex 1000
get greeting
append greeting "!"
incrby n 41
incr n
lpush list a b c d
lrange list 0 -1
sort list alpha desc
hset h f1 v1 f2 v2
hgetall h
zadd z 3 c 1 a 2 b
zrange z 0 -1 withscores
xadd s 1-1 k v
xrange s - +
eval "local t = 0; for i = 1, 1000 do t = t + i end; return t" 0
setbit bits 100 1
bitcount bits
geoadd g 13.361389 38.115556 Palermo 15.087269 37.502669 Catania
geodist g Palermo Catania km
multi
set a 1
incr a
exec
save
config get appendonly
dbsize
flushall
dbsize
nosuchcommand
`

func cli(t *testing.T, port, input string, args ...string) nablatest.Result {
	t.Helper()
	return result(t, native(t, append([]string{"redis-cli", "-h", "127.0.0.1", "-p", port}, args...)...), input)
}

func TestRedis(t *testing.T) {
	nativePort, n := redis(t, false)
	want := cli(t, nativePort, script)
	n.end(t)
	port, s := redis(t, true)
	same(t, cli(t, port, script), want)
	if !strings.Contains(want.Stdout, "500500") {
		t.Errorf("natively:\n%s", want.Stdout)
	}

	r := result(t, native(t, "redis-benchmark", "-h", "127.0.0.1", "-p", port, "-n", "3000", "-c", "20", "-P", "4", "-d", "100", "--csv"), "")
	lines := strings.Split(strings.TrimSpace(r.Stdout), "\n")
	if r.Status != 0 || len(lines) < 19 {
		t.Errorf("redis-benchmark: status %d, %d lines\n%s%s", r.Status, len(lines), r.Stdout, r.Stderr)
	}
	t.Logf("redis-benchmark:\n%s", r.Stdout)

	// A background save is a child that goes on without execve: refused, and
	// the server goes on.
	if r := cli(t, port, "", "bgsave"); !strings.Contains(r.Stdout, "ERR") {
		t.Errorf("bgsave: %q", r.Stdout)
	}
	if !strings.Contains(s.log.String(), "Can't save in background: fork: Function not implemented") {
		t.Errorf("the log does not say that the background save was refused:\n%s", s.log)
	}
	if r := cli(t, port, "", "ping"); r.Stdout != "PONG\n" {
		t.Errorf("ping after bgsave: %q", r.Stdout)
	}
	s.end(t)
	if code := s.cmd.ProcessState.ExitCode(); code != 0 {
		t.Errorf("exit status %d after SIGTERM\n%s", code, s.log)
	}
}
