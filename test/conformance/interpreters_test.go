//go:build integration

package conformance

import (
	"encoding/json"
	"os"
	"os/exec"
	"path/filepath"
	"testing"

	"github.com/nabla-build/nabla-build/test/nablatest"
)

// spawned are the programs that the scripts start.
var spawned = []string{"/bin/sh", "/bin/cat", "/bin/echo", "/bin/env", "/bin/false", "/bin/pwd", "/bin/sleep", "/bin/true"}

// compareScript runs an interpreter's command line natively and inside root.
func compareScript(t *testing.T, root string, argv ...string) {
	t.Helper()
	// What is in /usr/bin natively is in /bin inside.
	t.Setenv("PATH", "/usr/bin:/bin")
	want := nablatest.Run(t, t.TempDir(), argv...)
	entry, err := json.Marshal(argv)
	if err != nil {
		t.Fatal(err)
	}
	got := nablatest.Run(t, t.TempDir(), nablatest.Binary(t), "run", "--net", "none",
		"--entrypoint", string(entry), "--workdir", "/work", "rootfs:"+root)
	judge(t, got, want)
}

// TestNodeChildProcess runs node:child_process. The node command of this
// machine is position-dependent, its children are not.
func TestNodeChildProcess(t *testing.T) {
	node, err := exec.LookPath("node")
	if err != nil {
		t.Fatal("node is not installed: test/packages.sh names its package")
	}
	if node, err = filepath.EvalSymlinks(node); err != nil {
		t.Fatal(err)
	}
	root := nablatest.RootFS(t, append(spawned, node)...)
	script, err := filepath.Abs("children/spawn.js")
	if err != nil {
		t.Fatal(err)
	}
	nablatest.CopyFile(t, script, filepath.Join(root, script))
	if err := os.MkdirAll(filepath.Join(root, filepath.Dir(node)), 0o755); err != nil {
		t.Fatal(err)
	}
	if node != "/bin/node" {
		if err := os.Rename(filepath.Join(root, "bin", filepath.Base(node)), filepath.Join(root, node)); err != nil {
			t.Fatal(err)
		}
	}
	argv := []string{node, script, "/bin"}
	if out, err := exec.Command(node, "--disable-wasm-trap-handler", "-e", "0").CombinedOutput(); err == nil {
		argv = append([]string{node, "--disable-wasm-trap-handler"}, argv[1:]...)
	} else {
		t.Logf("without --disable-wasm-trap-handler: %s", out)
	}
	compareScript(t, root, argv...)
}

// TestPythonSubprocess runs subprocess, os.posix_spawn and asyncio's children.
func TestPythonSubprocess(t *testing.T) {
	const python, library = "/usr/bin/python3.11", "/usr/lib/python3.11"
	if _, err := os.Stat(python); err != nil {
		t.Fatalf("%v: test/packages.sh names its package", err)
	}
	root := nablatest.RootFS(t, append(spawned, python)...)
	script, err := filepath.Abs("children/spawn.py")
	if err != nil {
		t.Fatal(err)
	}
	nablatest.CopyFile(t, script, filepath.Join(root, script))
	nablatest.CopyFile(t, python, filepath.Join(root, python))
	if err := os.CopyFS(filepath.Join(root, library), os.DirFS(library)); err != nil {
		t.Fatal(err)
	}
	compareScript(t, root, python, script)
}
