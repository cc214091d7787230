package main

import (
	"bytes"
	"encoding/json"
	"math/rand/v2"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// helper starts the program with a configuration and returns the tender's end
// of the socketpair, what it said, and its end.
func helper(t *testing.T, c config) (frames net.Conn, status string, ended chan error) {
	t.Helper()
	bin := filepath.Join(t.TempDir(), "nabla-netd")
	build := exec.Command("go", "build", "-o", bin, ".")
	build.Env = append(os.Environ(), "CGO_ENABLED=0") // as it is released
	if out, err := build.CombinedOutput(); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	pair, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_SEQPACKET|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	ours, theirs := os.NewFile(uintptr(pair[0]), "ours"), os.NewFile(uintptr(pair[1]), "theirs")
	r, w, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	arg, err := json.Marshal(c)
	if err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command(bin, string(arg))
	cmd.ExtraFiles = []*os.File{theirs, w}
	cmd.Stderr = os.Stderr
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	theirs.Close()
	w.Close()
	ended = make(chan error, 1)
	go func() { ended <- cmd.Wait() }()
	t.Cleanup(func() { cmd.Process.Kill() })
	b := make([]byte, 1000)
	n, _ := r.Read(b)
	r.Close()
	if frames, err = net.FileConn(ours); err != nil {
		t.Fatal(err)
	}
	ours.Close()
	return frames, strings.TrimSpace(string(b[:n])), ended
}

func usual() config {
	return config{MTU: 1500, Subnet: "192.168.127.0/24", Gateway: "192.168.127.1", Guest: "192.168.127.2", MAC: "5a:94:ef:e4:0c:dd"}
}

// arp asks who has the gateway's address, and reports whether it is told.
func arp(t *testing.T, c net.Conn) bool {
	t.Helper()
	mac := []byte{0x5a, 0x94, 0xef, 0xe4, 0x0c, 0xee}
	var p []byte
	p = append(p, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff)
	p = append(p, mac...)
	p = append(p, 8, 6, 0, 1, 8, 0, 6, 4, 0, 1)
	p = append(p, mac...)
	p = append(p, 192, 168, 127, 2, 0, 0, 0, 0, 0, 0, 192, 168, 127, 1)
	if _, err := c.Write(p); err != nil {
		t.Fatalf("write: %v", err)
	}
	c.SetReadDeadline(time.Now().Add(5 * time.Second))
	b := make([]byte, 70000)
	for {
		n, err := c.Read(b)
		if err != nil {
			t.Logf("read: %v", err)
			return false
		}
		if n >= 42 && bytes.Equal(b[12:14], []byte{8, 6}) && b[21] == 2 && bytes.Equal(b[28:32], []byte{192, 168, 127, 1}) {
			return true
		}
	}
}

// TestGarbage sends what a hostile guest could: the helper still answers.
func TestGarbage(t *testing.T) {
	c, status, ended := helper(t, usual())
	if status != "ok" {
		t.Fatalf("status %q", status)
	}
	if !arp(t, c) {
		t.Fatal("no answer to an ARP request")
	}
	r := rand.New(rand.NewPCG(1, 2))
	sink := make([]byte, 70000)
	for i := range 20000 {
		p := make([]byte, r.IntN(200)+1)
		for j := range p {
			p[j] = byte(r.Uint32())
		}
		if len(p) > 14 && i%2 == 0 { // to the gateway, with a type that it knows
			copy(p, []byte{0x5a, 0x94, 0xef, 0xe4, 0x0c, 0xdd})
			copy(p[12:], [][]byte{{8, 0}, {8, 6}, {0x86, 0xdd}}[r.IntN(3)])
			if len(p) > 34 && i%4 == 0 {
				p[14] = 0x45
			}
		}
		c.SetWriteDeadline(time.Now().Add(5 * time.Second))
		if _, err := c.Write(p); err != nil {
			t.Fatalf("frame %d: %v", i, err)
		}
		if i%50 == 0 {
			c.SetReadDeadline(time.Now().Add(time.Millisecond))
			for {
				if _, err := c.Read(sink); err != nil {
					break
				}
			}
		}
	}
	if !arp(t, c) {
		t.Error("no answer after the garbage")
	}
	c.Close()
	select {
	case <-ended:
	case <-time.After(5 * time.Second):
		t.Error("the helper lives on without a tender")
	}
}

// TestPortInUse: the reason is said in one line.
func TestPortInUse(t *testing.T) {
	l, err := net.Listen("tcp", ":0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	cfg := usual()
	cfg.Publish = []port{{Host: uint16(l.Addr().(*net.TCPAddr).Port), Guest: 80, Protocol: "tcp"}}
	_, status, ended := helper(t, cfg)
	if !strings.Contains(status, "it is in use") {
		t.Errorf("status %q", status)
	}
	if err := <-ended; err == nil {
		t.Error("the helper ended with status 0")
	}
}
