//go:build integration

package integration

import (
	"fmt"
	"os"
	"os/exec"
	"strings"
	"testing"
	"time"

	"github.com/nabla-build/nabla-build/test/nablatest"
)

// namespace makes a network namespace for the test and returns its path.
func namespace(t *testing.T, name string) string {
	t.Helper()
	name = fmt.Sprintf("nabla-%s-%d", name, os.Getpid())
	run(t, "ip", "netns", "add", name)
	t.Cleanup(func() { exec.Command("ip", "netns", "del", name).Run() })
	path := "/var/run/netns/" + name
	in(t, path, "ip", "link", "set", "lo", "up")
	return path
}

func run(t *testing.T, argv ...string) string {
	t.Helper()
	out, err := exec.Command(argv[0], argv[1:]...).CombinedOutput()
	if err != nil {
		t.Fatalf("%s: %v: %s", strings.Join(argv, " "), err, out)
	}
	return string(out)
}

// in runs a command in a network namespace.
func in(t *testing.T, ns string, argv ...string) string {
	t.Helper()
	return run(t, append([]string{"nsenter", "--net=" + ns}, argv...)...)
}

// fetchIn fetches a URL from inside a network namespace, waiting up to 20 s
// for the server to come up.
func fetchIn(t *testing.T, ns, url string, s *service) string {
	t.Helper()
	deadline := time.Now().Add(20 * time.Second)
	for {
		out, err := exec.Command("nsenter", "--net="+ns, "python3", "-c",
			"import sys,urllib.request; sys.stdout.write(urllib.request.urlopen(sys.argv[1], timeout=5).read().decode())", url).CombinedOutput()
		if err == nil {
			return string(out)
		}
		if time.Now().After(deadline) {
			t.Fatalf("%s: %v: %s\nlog:\n%s", url, err, out, s.log())
		}
		time.Sleep(100 * time.Millisecond)
	}
}

// pair makes two namespaces with a veth between them: 10.77.0.1 and 10.77.0.2.
func pair(t *testing.T, mtu string) (client, server string) {
	t.Helper()
	client, server = namespace(t, "client"), namespace(t, "server")
	in(t, client, "ip", "link", "add", "eth0", "mtu", mtu, "type", "veth", "peer", "name", "eth0", "mtu", mtu, "netns", server)
	for ns, addr := range map[string]string{client: "10.77.0.1/24", server: "10.77.0.2/24"} {
		in(t, ns, "ip", "addr", "add", addr, "dev", "eth0")
		in(t, ns, "ip", "link", "set", "eth0", "up")
	}
	in(t, server, "ip", "route", "add", "default", "via", "10.77.0.1")
	return client, server
}

// TestPacket lets the guest take the kernel's place on an interface.
func TestPacket(t *testing.T) {
	for _, mtu := range []string{"1500", "9000", "1400"} {
		t.Run("mtu "+mtu, func(t *testing.T) {
			client, server := pair(t, mtu)
			// The kernel drops a second address of a subnet with the first.
			in(t, server, "ip", "addr", "add", "10.77.0.3/24", "dev", "eth0")
			cmd := exec.Command("nsenter", "--net="+server, nablatest.Binary(t), "run", "--net", "packet", relinked(t))
			s := start(t, "", cmd)
			page := fetchIn(t, client, "http://10.77.0.2:8080/", s)
			if !strings.Contains(page, "<h1>Notes</h1>") {
				t.Errorf("page: %s", page)
			}
			if page := fetchIn(t, client, "http://10.77.0.3:8080/", s); !strings.Contains(page, "<h1>Notes</h1>") {
				t.Errorf("page of the second address: %s", page)
			}
			big := strings.Repeat("x", 50000)
			if got := fetchIn(t, client, "http://10.77.0.2:8080/hash?text="+big, s); !strings.Contains(got, big) {
				t.Errorf("a long answer came back wrong: %d bytes", len(got))
			}
			if addrs := in(t, server, "ip", "-4", "addr", "show", "dev", "eth0"); strings.Contains(addrs, "10.77.0.") {
				t.Errorf("the kernel still has the guest's address:\n%s", addrs)
			}
		})
	}
}

// TestTap serves on the far side of a tap device that the tender makes.
func TestTap(t *testing.T) {
	ns := namespace(t, "tap")
	cmd := exec.Command("nsenter", "--net="+ns, nablatest.Binary(t), "run", "--net", "tap", relinked(t))
	s := start(t, "", cmd)
	if page := fetchIn(t, ns, "http://192.168.127.2:8080/", s); !strings.Contains(page, "<h1>Notes</h1>") {
		t.Errorf("page: %s", page)
	}
}

// TestNetworkRefusals: what cannot be had is refused with one clear line.
func TestNetworkRefusals(t *testing.T) {
	bin, image := nablatest.Binary(t), relinked(t)
	ns := namespace(t, "empty")
	for _, tt := range []struct {
		name string
		argv []string
		want string
	}{
		{"no interface", []string{"nsenter", "--net=" + ns, bin, "run", "--net", "packet", image}, "no interface with an address"},
		{"port in use", []string{"nsenter", "--net=" + ns, "python3", "-c",
			"import socket,subprocess,sys; s=socket.socket(); s.bind(('',8080)); s.listen(); sys.exit(subprocess.run(sys.argv[1:]).returncode)",
			bin, "run", "-p", "8080:8080", image}, "port 8080: it is in use"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			r := nablatest.Run(t, t.TempDir(), tt.argv...)
			if r.Status != 125 || !strings.Contains(r.Stderr, tt.want) || strings.Contains(r.Stderr, "goroutine") {
				t.Errorf("status %d, stderr %q; want 125 and %q", r.Status, r.Stderr, tt.want)
			}
		})
	}
}
