//go:build integration

package buildkit

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/nabla-build/nabla-build/test/nablatest"
)

// restricted is what the restricted pod security standard asks for and
// examples/ci/kubernetes-app.yaml says, as docker has it; its seccomp profile is
// in force without being named.
var restricted = []string{"--user", "65532:65532", "--cap-drop", "ALL", "--security-opt", "no-new-privileges", "--read-only"}

// TestScript runs examples/ci/build.sh as an ordinary user that the machine
// does not know otherwise: a mount namespace shows it in /etc. What it pushes
// then runs as under Kubernetes.
func TestScript(t *testing.T) {
	root := nablatest.Root(t)
	dir, err := os.MkdirTemp("", "nabla-ci")
	if err != nil {
		t.Fatal(err)
	}
	const uid = 54321
	for _, d := range []string{"etc", "bin", "home", "context"} {
		if err := os.Mkdir(filepath.Join(dir, d), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.Chmod(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	write := func(name, text string) {
		t.Helper()
		if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	passwd, err := os.ReadFile("/etc/passwd")
	if err != nil {
		t.Fatal(err)
	}
	group, err := os.ReadFile("/etc/group")
	if err != nil {
		t.Fatal(err)
	}
	write("etc/passwd", fmt.Sprintf("%sbuilder:x:%d:%d::%s:/bin/sh\n", passwd, uid, uid, filepath.Join(dir, "home")))
	write("etc/group", fmt.Sprintf("%sbuilder:x:%d:\n", group, uid))
	write("etc/subuid", "builder:600000:65536\n")
	write("etc/subgid", "builder:600000:65536\n")
	// RUN makes files of an id that only the range of ids in /etc/subuid gives.
	write("context/Dockerfile", fmt.Sprintf("FROM %s\nRUN echo by hand >/made && chown 33:33 /made\nCOPY server /server\nEXPOSE 8000\nCMD [\"/server\"]\n", busyboxBase(t)))
	nablatest.CopyFile(t, filepath.Join(goContext(t), "server"), filepath.Join(dir, "context", "server"))
	if err := os.Chown(filepath.Join(dir, "home"), uid, uid); err != nil {
		t.Fatal(err)
	}
	nablatest.CopyFile(t, nablatest.Binary(t), filepath.Join(dir, "bin", "nabla-build"))
	nablatest.CopyFile(t, filepath.Join(root, "build", "tools", "buildkitd"), filepath.Join(dir, "bin", "buildkitd"))
	nablatest.CopyFile(t, filepath.Join(root, "examples", "ci", "build.sh"), filepath.Join(dir, "bin", "build.sh"))
	t.Cleanup(func() {
		if err := os.RemoveAll(dir); err != nil {
			t.Error(err)
		}
	})
	run := func(env []string, args ...string) nablatest.Result {
		script := `mount -t overlay -o "lowerdir=$D/etc:/etc" overlay /etc && cd "$D/home" &&
exec setpriv --reuid=builder --regid=builder --init-groups env -i HOME="$D/home" PATH="$D/bin:$PATH" TMPDIR="$D/home" "$@"`
		argv := append([]string{"-m", "--propagation", "private", "sh", "-c", script, "sh"}, env...)
		cmd := exec.Command("unshare", append(append(argv, "build.sh"), args...)...)
		cmd.Env = append(os.Environ(), "D="+dir)
		return nablatest.Within(t, limit, cmd)
	}
	context := filepath.Join(dir, "context")
	dest := theRegistry(t).Name("ci:script")
	r := must(t, run([]string{"FRONTEND=" + nabla(t)}, context, dest))
	if !strings.Contains(r.Stdout, dest+" "+digestOf(t, dest)) {
		t.Errorf("stdout: %s", r.Stdout)
	}
	relinked(t, dest)
	if page := runImage(t, dest, "8000", restricted...).get(t, "/sum?a=1&b=2"); page != "sum 3 by go\n" {
		t.Errorf("page: %q", page)
	}
	if left, _ := os.ReadDir(filepath.Join(dir, "home")); len(left) > 0 {
		t.Errorf("left behind: %v", left)
	}
	// A build that fails leaves nothing either and says so by its status.
	write("context/Dockerfile", "FROM scratch\nRUN false\n")
	if r := run([]string{"FRONTEND=" + nabla(t)}, context, dest); r.Status != 1 {
		t.Errorf("a failing build: status %d\n%s", r.Status, r.Stderr)
	}
	if left, _ := os.ReadDir(filepath.Join(dir, "home")); len(left) > 0 {
		t.Errorf("left behind: %v", left)
	}
	if r := run(nil, context, dest); r.Status == 0 || !strings.Contains(r.Stderr, "nabla frontend image") {
		t.Errorf("without FRONTEND: status %d\n%s", r.Status, r.Stderr)
	}
}
