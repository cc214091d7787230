//go:build integration

package programs

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/nabla-build/nabla-build/test/nablatest"
)

var unpacked struct {
	once sync.Once
	dir  string
	err  error
}

func TestMain(m *testing.M) {
	code := m.Run()
	if unpacked.dir != "" {
		os.RemoveAll(unpacked.dir)
	}
	os.Exit(code)
}

// image is the image of the programs and of test/programs/root.
func image(t testing.TB) string {
	t.Helper()
	dir := filepath.Join(nablatest.Root(t), "build", "images", "programs")
	if _, err := os.Stat(filepath.Join(dir, "index.json")); err != nil {
		t.Fatalf("%s is not there: run make build/images/programs", dir)
	}
	return "oci:" + dir
}

// root is the same as a directory.
func root(t testing.TB) string {
	t.Helper()
	if os.Getuid() != 0 {
		t.Skip("needs root, for chroot")
	}
	unpacked.once.Do(func() {
		if unpacked.dir, unpacked.err = os.MkdirTemp("", "nabla-programs"); unpacked.err != nil {
			return
		}
		src := nablatest.Root(t)
		script := `tar -x --numeric-owner -f "$1" -C "$3" && cp -r --preserve=mode "$2/." "$3" && chmod 755 "$3"`
		out, err := exec.Command("sh", "-ec", script, "sh", filepath.Join(src, "build/images/programs-base.tar"), filepath.Join(src, "test/programs/root"), unpacked.dir).CombinedOutput()
		if err != nil {
			unpacked.err = fmt.Errorf("unpack: %w: %s", err, out)
		}
	})
	if unpacked.err != nil {
		t.Fatal(unpacked.err)
	}
	return unpacked.dir
}

var environment = []string{"PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin", "HOME=/root"}

// native is a command in the root file system on this machine's kernel.
func native(t testing.TB, argv ...string) *exec.Cmd {
	t.Helper()
	dir := root(t)
	path := argv[0]
	if !strings.Contains(path, "/") {
		for _, d := range []string{"/usr/bin/", "/usr/sbin/", "/bin/", "/sbin/"} {
			if _, err := os.Stat(filepath.Join(dir, d, path)); err == nil {
				path = d + path
				break
			}
		}
	}
	return &exec.Cmd{Path: path, Args: argv, Dir: "/", Env: environment, SysProcAttr: &syscall.SysProcAttr{Chroot: dir}}
}

// inside is a command in a nabla image of the root file system.
func inside(t testing.TB, flags []string, argv ...string) *exec.Cmd {
	t.Helper()
	args := append([]string{"run", "--quiet", "--workdir", "/", "-e", environment[1]}, flags...)
	return exec.Command(nablatest.Binary(t), append(append(args, image(t)), argv...)...)
}

// result runs a command to its end.
func result(t testing.TB, cmd *exec.Cmd, stdin string) nablatest.Result {
	t.Helper()
	var out, errs bytes.Buffer
	cmd.Stdin, cmd.Stdout, cmd.Stderr = strings.NewReader(stdin), &out, &errs
	if err := cmd.Start(); err != nil {
		t.Fatalf("%v: %v", cmd.Args, err)
	}
	timer := time.AfterFunc(time.Minute, func() { cmd.Process.Kill() })
	err := cmd.Wait()
	if !timer.Stop() {
		t.Fatalf("%v: no end after a minute\nstdout:\n%s\nstderr:\n%s", cmd.Args, out.String(), errs.String())
	}
	var ee *exec.ExitError
	if err != nil && !errors.As(err, &ee) {
		t.Fatalf("%v: %v", cmd.Args, err)
	}
	r := nablatest.Result{Stdout: out.String(), Stderr: errs.String(), Status: cmd.ProcessState.ExitCode()}
	if ws := cmd.ProcessState.Sys().(syscall.WaitStatus); ws.Signaled() {
		r.Status = 128 + int(ws.Signal())
	}
	return r
}

// compare runs a command on both sides and compares output and status. It
// returns what was said natively.
func compare(t *testing.T, stdin string, argv ...string) nablatest.Result {
	t.Helper()
	want := result(t, native(t, argv...), stdin)
	got := result(t, inside(t, []string{"--net", "none"}, argv...), stdin)
	same(t, got, want)
	return want
}

func same(t *testing.T, got, want nablatest.Result) {
	t.Helper()
	if got.Status != want.Status {
		t.Errorf("exit status %d, natively %d", got.Status, want.Status)
	}
	if got.Stdout != want.Stdout {
		t.Errorf("output:\n%.3000s\nnatively:\n%.3000s", got.Stdout, want.Stdout)
	}
	if got.Stderr != want.Stderr {
		t.Errorf("errors:\n%.3000s\nnatively:\n%.3000s", got.Stderr, want.Stderr)
	}
}

// freePort is a TCP port that nothing listens on now.
func freePort(t testing.TB) int {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	return l.Addr().(*net.TCPAddr).Port
}

// server is a program that serves until the test ends.
type server struct {
	addr string
	log  *lockedBuffer
	done chan struct{}
	cmd  *exec.Cmd
}

// serve starts a server and waits until it answers the probe: the network's
// helper accepts connections before the guest listens.
func serve(t *testing.T, port int, probe string, cmd *exec.Cmd) *server {
	t.Helper()
	s := &server{addr: fmt.Sprintf("127.0.0.1:%d", port), log: &lockedBuffer{}, done: make(chan struct{}), cmd: cmd}
	cmd.Stdout, cmd.Stderr = s.log, s.log
	cmd.WaitDelay = 2 * time.Second
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	go func() { cmd.Wait(); close(s.done) }()
	t.Cleanup(func() { s.end(t) })
	ctx, cancel := context.WithTimeout(context.Background(), 30*time.Second)
	defer cancel()
	for {
		if answers(s.addr, probe) {
			return s
		}
		select {
		case <-ctx.Done():
			t.Fatalf("%v does not answer\nlog:\n%s", cmd.Args, s.log)
		case <-s.done:
			t.Fatalf("%v ended: %v\nlog:\n%s", cmd.Args, cmd.ProcessState, s.log)
		case <-time.After(20 * time.Millisecond):
		}
	}
}

func answers(addr, probe string) bool {
	c, err := net.DialTimeout("tcp", addr, time.Second)
	if err != nil {
		return false
	}
	defer c.Close()
	c.SetDeadline(time.Now().Add(5 * time.Second))
	if _, err := c.Write([]byte(probe)); err != nil {
		return false
	}
	n, _ := c.Read(make([]byte, 1))
	return n == 1
}

// end asks the server to end, which it must.
func (s *server) end(t *testing.T) {
	t.Helper()
	s.cmd.Process.Signal(syscall.SIGTERM)
	select {
	case <-s.done:
	case <-time.After(10 * time.Second):
		t.Errorf("%v: did not end within 10 s of SIGTERM\nlog:\n%s", s.cmd.Args, s.log)
		s.cmd.Process.Kill()
		<-s.done
	}
}

type lockedBuffer struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (b *lockedBuffer) Write(p []byte) (int, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.b.Write(p)
}

func (b *lockedBuffer) String() string {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.b.String()
}
