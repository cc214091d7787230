//go:build integration

package programs

import (
	"fmt"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"sort"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"
)

// requests are what both nginx are asked.
var requests = []struct {
	method, path, body string
	header             map[string]string
}{
	{"GET", "/", "", nil},
	{"GET", "/index.html", "", map[string]string{"Accept-Encoding": "gzip"}},
	{"HEAD", "/docs/numbers.txt", "", nil},
	{"GET", "/docs/numbers.txt", "", nil},
	{"GET", "/docs/numbers.txt", "", map[string]string{"Accept-Encoding": "gzip"}},
	{"GET", "/docs/numbers.txt", "", map[string]string{"Range": "bytes=1000-1999"}},
	{"GET", "/docs/numbers.txt", "", map[string]string{"Range": "bytes=10-19,100-109"}},
	{"GET", "/docs/numbers.txt", "", map[string]string{"Range": "bytes=9999999-"}},
	{"GET", "/docs", "", nil},
	{"GET", "/missing", "", nil},
	{"GET", "/hello?name=you", "", nil},
	{"GET", "/old", "", nil},
	{"GET", "/proxied/hello", "", nil},
	{"POST", "/upload", "small", nil},
	{"POST", "/upload", strings.Repeat("large", 1000), nil},
	{"DELETE", "/index.html", "", nil},
}

// ask makes a request and describes the answer, without what is of the moment.
func ask(c *http.Client, addr string, i int) (string, error) {
	q := requests[i]
	req, err := http.NewRequest(q.method, "http://"+addr+q.path, strings.NewReader(q.body))
	if err != nil {
		return "", err
	}
	req.Host = "sample.example"
	for k, v := range q.header {
		req.Header.Set(k, v)
	}
	if req.Header.Get("Accept-Encoding") == "" {
		req.Header.Set("Accept-Encoding", "identity")
	}
	r, err := c.Do(req)
	if err != nil {
		return "", err
	}
	defer r.Body.Close()
	body, err := io.ReadAll(r.Body)
	if err != nil {
		return "", err
	}
	var b strings.Builder
	fmt.Fprintf(&b, "%s %s: %s %s\n", q.method, q.path, r.Proto, r.Status)
	var names []string
	for k := range r.Header {
		names = append(names, k)
	}
	sort.Strings(names)
	for _, k := range names {
		switch v := strings.Join(r.Header[k], ", "); {
		case k == "Date", k == "Last-Modified", k == "Etag": // the files' times are the image's
		case strings.HasPrefix(v, "multipart/byteranges"):
			fmt.Fprintf(&b, "%s: multipart/byteranges\n", k)
			body = body[:0]
		default:
			fmt.Fprintf(&b, "%s: %s\n", k, v)
		}
	}
	fmt.Fprintf(&b, "%d bytes: %.300q", len(body), body)
	return b.String(), nil
}

func client() *http.Client {
	return &http.Client{Timeout: 20 * time.Second, Transport: &http.Transport{MaxIdleConnsPerHost: 20, DisableCompression: true},
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }}
}

const alone = "daemon off; master_process off;"

// TestNginx serves files, ranges, compressed answers and a proxied server from
// one process, to 20 clients at once.
func TestNginx(t *testing.T) {
	p := freePort(t)
	if err := os.WriteFile(filepath.Join(root(t), "srv/listen.conf"), fmt.Appendf(nil, "listen 127.0.0.1:%d;\n", p), 0o644); err != nil {
		t.Fatal(err)
	}
	nat := serve(t, p, "HEAD / HTTP/1.0\r\n\r\n", native(t, "nginx", "-c", "/srv/nginx.conf", "-g", alone))
	want := make([]string, len(requests))
	for i := range requests {
		var err error
		if want[i], err = ask(client(), nat.addr, i); err != nil {
			t.Fatalf("natively: %v\n%s", err, nat.log)
		}
	}
	p = freePort(t)
	s := serve(t, p, "HEAD / HTTP/1.0\r\n\r\n", inside(t, []string{"-p", fmt.Sprintf("%d:8080", p)}, "nginx", "-c", "/srv/nginx.conf", "-g", alone))
	c := client()
	for i := range requests {
		got, err := ask(c, s.addr, i)
		if err != nil {
			t.Fatalf("%v\n%s", err, s.log)
		}
		if got != want[i] {
			t.Errorf("inside:   %s\nnatively: %s", got, want[i])
		}
	}
	var wg sync.WaitGroup
	for k := range 20 {
		wg.Go(func() {
			for j := range 40 {
				i := (k + j) % len(requests)
				got, err := ask(c, s.addr, i)
				if err != nil {
					t.Error(err)
					return
				}
				if got != want[i] {
					t.Errorf("client %d: inside:   %s\nnatively: %s", k, got, want[i])
					return
				}
			}
		})
	}
	wg.Wait()
	if t.Failed() {
		t.Logf("log:\n%s", s.log)
	}
	s.end(t)
	if code := s.cmd.ProcessState.ExitCode(); code != 0 {
		t.Errorf("exit status %d after SIGTERM\n%s", code, s.log)
	}
}

// TestNginxWorkers: worker processes are children that do not execve, which
// the library OS refuses. nginx says so and stays; as on Linux, a master that
// never had a worker does not end on SIGTERM, since no SIGCHLD comes.
func TestNginxWorkers(t *testing.T) {
	var log lockedBuffer
	cmd := inside(t, []string{"--net", "none"}, "nginx", "-c", "/srv/nginx.conf", "-g", "daemon off;")
	cmd.Stdout, cmd.Stderr = &log, &log
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { cmd.Process.Kill(); cmd.Wait() })
	deadline := time.Now().Add(10 * time.Second)
	for !strings.Contains(log.String(), `fork() failed while spawning "worker process" (38: Function not implemented)`) ||
		!strings.Contains(log.String(), "nabla: nginx called fork") {
		if time.Now().After(deadline) {
			t.Fatalf("the log does not say that fork was refused:\n%s", &log)
		}
		time.Sleep(20 * time.Millisecond)
	}
	cmd.Process.Signal(syscall.SIGTERM)
	for !strings.Contains(log.String(), "signal 15 (SIGTERM) received, exiting") {
		if time.Now().After(deadline) {
			t.Fatalf("the log does not say that SIGTERM came:\n%s", &log)
		}
		time.Sleep(20 * time.Millisecond)
	}
}
