//go:build integration

package integration

import (
	"strings"
	"testing"
	"time"

	"os/exec"

	"github.com/nabla-build/nabla-build/test/nablatest"
)

// TestProgramsAtOneAddress: Debian's python3 is linked to fixed addresses. Five
// of them, with threads that compute, take turns there, and one talks with its
// parent line by line.
func TestProgramsAtOneAddress(t *testing.T) {
	const program = `
import subprocess, sys, threading
code = """
import hashlib, threading
r = []
def f(n):
    h = b'x'
    for i in range(20000): h = hashlib.sha256(h + bytes([n])).digest()
    r.append((n, h.hex()[:8]))
ts = [threading.Thread(target=f, args=(i,)) for i in range(3)]
[t.start() for t in ts]
[t.join() for t in ts]
print(sorted(r))
"""
total = 0
def mine():
    global total
    for k in range(200000): total += 1
ps = [subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True) for i in range(4)]
t = threading.Thread(target=mine)
t.start()
outs = [p.communicate()[0] for p in ps]
t.join()
print(len(set(outs)), total, [p.returncode for p in ps], outs[0])
p = subprocess.Popen([sys.executable, "-u", "-c", "import sys\nfor l in sys.stdin: print(int(l) * 2)"],
    stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
s = 0
for i in range(100):
    p.stdin.write(f"{i}\n"); p.stdin.flush(); s += int(p.stdout.readline())
p.stdin.close()
print(s, p.wait())
`
	cmd := exec.Command(nablatest.Binary(t), "run", "-q", "--net", "none", "--entrypoint", "python3", "--entrypoint", "-c", "--entrypoint", program, relinked(t))
	got := nablatest.Within(t, 60*time.Second, cmd)
	if got.Status != 0 || !strings.Contains(got.Stdout, "1 200000 [0, 0, 0, 0] [(0, '") || !strings.Contains(got.Stdout, "9900 0\n") {
		t.Errorf("status %d\n%s\n%s", got.Status, got.Stdout, got.Stderr)
	}
}
