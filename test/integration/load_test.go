//go:build integration

package integration

import (
	"bufio"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/nabla-build/nabla-build/test/nablatest"
)

// requests is how many the load test makes: a short form, or what
// NABLA_REQUESTS says (make million).
func requests(t *testing.T) int64 {
	s := os.Getenv("NABLA_REQUESTS")
	if s == "" {
		return 20000
	}
	n, err := strconv.ParseInt(s, 10, 64)
	if err != nil {
		t.Fatalf("NABLA_REQUESTS=%s: %v", s, err)
	}
	return n
}

// resident is a process's memory in use, in KiB.
func resident(t *testing.T, pid int) int64 {
	t.Helper()
	b, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", pid))
	if err != nil {
		t.Fatal(err)
	}
	for line := range strings.Lines(string(b)) {
		if v, ok := strings.CutPrefix(line, "VmRSS:"); ok {
			n, err := strconv.ParseInt(strings.Fields(v)[0], 10, 64)
			if err != nil {
				t.Fatal(err)
			}
			return n
		}
	}
	t.Fatalf("no VmRSS of process %d", pid)
	return 0
}

// cpuTime is the CPU time of a process and its children so far
// (/proc/PID/task/TID/schedstat, in nanoseconds).
func cpuTime(t *testing.T, pid int) time.Duration {
	t.Helper()
	var total time.Duration
	pids := []string{strconv.Itoa(pid)}
	if b, err := os.ReadFile(fmt.Sprintf("/proc/%d/task/%d/children", pid, pid)); err == nil {
		pids = append(pids, strings.Fields(string(b))...)
	}
	for _, p := range pids {
		tasks, err := filepath.Glob("/proc/" + p + "/task/*/schedstat")
		if err != nil || len(tasks) == 0 {
			t.Fatalf("no schedstat of process %s: %v", p, err)
		}
		for _, f := range tasks {
			b, err := os.ReadFile(f)
			if err != nil {
				continue // the thread has ended
			}
			n, err := strconv.ParseInt(strings.Fields(string(b))[0], 10, 64)
			if err != nil {
				t.Fatal(err)
			}
			total += time.Duration(n)
		}
	}
	return total
}

// TestManyRequests sends requests to one instance: none fails, memory is flat
// after a tenth of them, and an idle instance uses next to no CPU.
func TestManyRequests(t *testing.T) {
	total := requests(t)
	port := freePort(t)
	cmd := exec.Command(nablatest.Binary(t), "run", "-p", fmt.Sprintf("%d:8080", port), relinked(t))
	s := start(t, fmt.Sprintf("http://127.0.0.1:%d", port), cmd)
	s.get(t, "/healthz")
	pid := cmd.Process.Pid // nabla-build run becomes the tender

	var done, failed atomic.Int64
	var warm int64
	warmOnce := sync.Once{}
	begin := time.Now()
	var wg sync.WaitGroup
	for range 16 {
		wg.Go(func() {
			request := []byte("GET /hash?text=abc HTTP/1.1\r\nHost: x\r\n\r\n")
			var c net.Conn
			var r *bufio.Reader
			for n := 0; done.Add(1) <= total; n++ {
				// A new connection now and then: threads come and go.
				if c == nil || n%500 == 0 {
					if c != nil {
						c.Close()
					}
					var err error
					if c, err = net.Dial("tcp", fmt.Sprintf("127.0.0.1:%d", port)); err != nil {
						t.Errorf("connect: %v", err)
						failed.Add(1)
						return
					}
					r = bufio.NewReader(c)
				}
				c.SetDeadline(time.Now().Add(30 * time.Second))
				if _, err := c.Write(request); err != nil {
					t.Errorf("request: %v", err)
					failed.Add(1)
					return
				}
				resp, err := http.ReadResponse(r, nil)
				if err != nil {
					t.Errorf("response: %v", err)
					failed.Add(1)
					return
				}
				b, err := io.ReadAll(resp.Body)
				if err != nil || resp.StatusCode != 200 || !strings.Contains(string(b), "ba7816bf8f01cfea") {
					t.Errorf("response: %s %q %v", resp.Status, b, err)
					failed.Add(1)
					return
				}
				if done.Load() > total/10 {
					warmOnce.Do(func() { warm = resident(t, pid) })
				}
			}
			c.Close()
		})
	}
	wg.Wait()
	if t.Failed() {
		t.Fatalf("%d requests failed, log:\n%s", failed.Load(), s.log())
	}
	took := time.Since(begin)
	end := resident(t, pid)
	t.Logf("%d requests, none failed, %.0f a second; resident %d KiB after a tenth, %d KiB at the end", total, float64(total)/took.Seconds(), warm, end)
	if end > warm+warm/20+4096 {
		t.Errorf("memory grew from %d to %d KiB", warm, end)
	}
	time.Sleep(2 * time.Second) // keep-alive threads end
	const idle = 10 * time.Second
	before := cpuTime(t, pid)
	time.Sleep(idle)
	used := cpuTime(t, pid) - before
	share := 100 * used.Seconds() / idle.Seconds()
	t.Logf("idle: %v of CPU in %v (%.3f %%), the helper included", used, idle, share)
	if share > 0.2 {
		t.Errorf("idle: %.3f %% CPU, want at most 0.2 %%", share)
	}
}
