//go:build integration

package integration

import (
	"fmt"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/nabla-build/nabla-build/test/hostcalls"
	"github.com/nabla-build/nabla-build/test/nablatest"
)

// permitted is what may reach the host kernel after lockdown.
var permitted = map[string]bool{"read": true, "write": true, "ppoll": true, "exit_group": true}

func TestRunAsRoot(t *testing.T) {
	port := freePort(t)
	cmd := exec.Command(nablatest.Binary(t), "run", "-p", fmt.Sprintf("%d:8080", port), relinked(t))
	s := start(t, fmt.Sprintf("http://127.0.0.1:%d", port), cmd)
	s.exercise(t)
}

// TestRunAsUser runs as an ordinary user, who can read the image and the
// binary and nothing else of ours.
func TestRunAsUser(t *testing.T) {
	dir, err := os.MkdirTemp("", "nabla-user")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	bin := filepath.Join(dir, "nabla-build")
	nablatest.CopyFile(t, nablatest.Binary(t), bin)
	img := filepath.Join(dir, "image")
	if out, err := exec.Command("cp", "-r", strings.TrimPrefix(relinked(t), "oci:"), img).CombinedOutput(); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	if out, err := exec.Command("chmod", "-R", "a+rX", dir).CombinedOutput(); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	home := filepath.Join(dir, "home")
	if err := os.Mkdir(home, 0o700); err != nil {
		t.Fatal(err)
	}
	if err := os.Chown(home, 1000, 1000); err != nil {
		t.Fatal(err)
	}
	port := freePort(t)
	cmd := exec.Command("setpriv", "--reuid=1000", "--regid=1000", "--clear-groups", "--bounding-set=-all",
		bin, "run", "-p", fmt.Sprintf("%d:8080", port), "oci:"+img)
	cmd.Env = []string{"HOME=" + home, "TMPDIR=" + home, "PATH=" + os.Getenv("PATH")}
	cmd.Dir = home
	s := start(t, fmt.Sprintf("http://127.0.0.1:%d", port), cmd)
	s.exercise(t)
}

// TestOutgoing lets the sample fetch from a server on an address of the host's
// loopback interface that is made for the test.
func TestOutgoing(t *testing.T) {
	const addr = "198.51.100.1"
	run(t, "ip", "addr", "add", addr+"/32", "dev", "lo")
	t.Cleanup(func() { exec.Command("ip", "addr", "del", addr+"/32", "dev", "lo").Run() })
	www := t.TempDir()
	if err := os.WriteFile(filepath.Join(www, "f"), make([]byte, 123456), 0o644); err != nil {
		t.Fatal(err)
	}
	back := httptest.NewUnstartedServer(http.FileServer(http.Dir(www)))
	l, err := net.Listen("tcp", addr+":0")
	if err != nil {
		t.Fatal(err)
	}
	back.Listener.Close()
	back.Listener = l
	back.Start()
	t.Cleanup(back.Close)
	port := freePort(t)
	cmd := exec.Command(nablatest.Binary(t), "run", "-p", fmt.Sprintf("%d:8080", port), relinked(t))
	s := start(t, fmt.Sprintf("http://127.0.0.1:%d", port), cmd)
	got := s.get(t, "/fetch?url="+back.URL+"/f")
	if !strings.Contains(got, `"bytes": 123456`) {
		t.Errorf("fetch: %s", got)
	}
}

// TestHostCalls counts what reaches the kernel after lockdown, from outside.
func TestHostCalls(t *testing.T) {
	port := freePort(t)
	log := filepath.Join(t.TempDir(), "strace")
	cmd := exec.Command("strace", "-D", "-f", "-o", log, nablatest.Binary(t), "run", "-p", fmt.Sprintf("%d:8080", port), relinked(t))
	t.Run("serve", func(t *testing.T) {
		s := start(t, fmt.Sprintf("http://127.0.0.1:%d", port), cmd)
		s.exercise(t)
	})
	f, err := os.Open(log)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	c, err := hostcalls.Parse(f, hostcalls.Tender(log))
	if err != nil {
		t.Fatal(err)
	}
	if !c.Locked {
		t.Fatal("no filter was installed")
	}
	for n, k := range c.Calls {
		if !permitted[n] {
			t.Errorf("%s reached the kernel %d times after lockdown", n, k)
		}
	}
	if c.Calls["read"] == 0 || c.Calls["write"] == 0 || c.Calls["ppoll"] == 0 {
		t.Errorf("calls %v: the log does not show a serving tender", c.Calls)
	}
	t.Logf("host calls after lockdown: %v; trapped: %d", c.Calls, c.Trapped)
}

func TestArgumentsAndEnvironment(t *testing.T) {
	bin := nablatest.Binary(t)
	r := nablatest.Run(t, t.TempDir(), bin, "run", "--net", "none", "-e", "GREETING=hello there", "--entrypoint",
		`["python3","-c","import os,sys; print(os.environ['GREETING'], sys.argv[1:]); sys.exit(3)"]`, source(t), "one", "two words")
	if r.Stdout != "hello there ['one', 'two words']\n" || r.Status != 3 {
		t.Errorf("status %d, output %q, stderr:\n%s", r.Status, r.Stdout, r.Stderr)
	}
}

func TestSingleFile(t *testing.T) {
	out := filepath.Join(t.TempDir(), "app")
	if r := nablatest.Run(t, t.TempDir(), nablatest.Binary(t), "link", "-o", out, source(t)); r.Status != 0 {
		t.Fatalf("link: %s", r.Stderr)
	}
	port := freePort(t)
	cmd := exec.Command(out)
	cmd.Env = append(os.Environ(), fmt.Sprintf("NABLA_PUBLISH=%d:8080", port))
	s := start(t, fmt.Sprintf("http://127.0.0.1:%d", port), cmd)
	s.exercise(t)
}
