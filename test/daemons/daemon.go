// Package daemons starts the real programs that nabla-build's tests talk to, a
// registry, a Docker Engine, a BuildKit daemon and buildx in front of them,
// each with its own directories and addresses, so that they disturb neither one
// another nor those of the machine. Who starts one owns it and closes it; a
// daemon ends with the test program however that ends. Root is needed for all
// but the registry.
package daemons

import (
	"bytes"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"syscall"
	"time"
)

// Process is a program in the background whose output goes to a file.
type Process struct {
	cmd  *exec.Cmd
	log  string
	done chan struct{}
	err  error // of Wait, once done is closed
}

// start runs a program with its output in the file log.
func start(log string, cmd *exec.Cmd) (*Process, error) {
	f, err := os.Create(log)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	cmd.Stdout, cmd.Stderr = f, f
	if cmd.SysProcAttr == nil {
		cmd.SysProcAttr = &syscall.SysProcAttr{}
	}
	// A signal sent to the terminal's group is for the test, which then ends us.
	cmd.SysProcAttr.Setpgid = true
	cmd.SysProcAttr.Pdeathsig = syscall.SIGTERM
	p := &Process{cmd: cmd, log: log, done: make(chan struct{})}
	started := make(chan error)
	go func() {
		// The death signal is sent when the thread ends that started the process.
		runtime.LockOSThread()
		defer runtime.UnlockOSThread()
		err := cmd.Start()
		started <- err
		if err == nil {
			p.err = cmd.Wait()
			close(p.done)
		}
	}()
	if err := <-started; err != nil {
		return nil, fmt.Errorf("start %s: %w", cmd.Args[0], err)
	}
	return p, nil
}

// Log is the end of what the program wrote.
func (p *Process) Log() string {
	b, _ := os.ReadFile(p.log)
	return string(b[max(0, len(b)-8000):])
}

// ready waits until check succeeds. It fails if the program ends or a minute
// passes.
func (p *Process) ready(check func() error) error {
	deadline := time.Now().Add(time.Minute)
	for {
		err := check()
		if err == nil {
			return nil
		}
		select {
		case <-p.done:
			return fmt.Errorf("%s ended at once (%v):\n%s", p.cmd.Args[0], p.err, p.Log())
		case <-time.After(100 * time.Millisecond):
		}
		if time.Now().After(deadline) {
			return fmt.Errorf("%s does not answer after a minute: %w\n%s", p.cmd.Args[0], err, p.Log())
		}
	}
}

// stop ends the program by its process id: SIGTERM, and SIGKILL after 20 s,
// which is an error.
func (p *Process) stop() error {
	select {
	case <-p.done:
		return fmt.Errorf("%s had ended before it was stopped (%v):\n%s", p.cmd.Args[0], p.err, p.Log())
	default:
	}
	p.cmd.Process.Signal(syscall.SIGTERM)
	select {
	case <-p.done:
		return nil
	case <-time.After(20 * time.Second):
		p.cmd.Process.Kill()
		<-p.done
		return fmt.Errorf("%s did not end within 20 s of SIGTERM:\n%s", p.cmd.Args[0], p.Log())
	}
}

// FreePort is a TCP port of the loopback address that nothing listens on now.
func FreePort() (int, error) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return 0, err
	}
	defer l.Close()
	return l.Addr().(*net.TCPAddr).Port, nil
}

// removeAll removes a daemon's directory, which must hold no mount any more.
func removeAll(dir string) error {
	b, err := os.ReadFile("/proc/self/mountinfo")
	if err != nil {
		return err
	}
	var errs []error
	lines := bytes.Split(b, []byte("\n"))
	for i := len(lines) - 1; i >= 0; i-- { // the last mounted first
		f := strings.Fields(string(lines[i]))
		if len(f) < 5 || !strings.HasPrefix(f[4], dir+"/") {
			continue
		}
		if err := syscall.Unmount(f[4], syscall.MNT_DETACH); err != nil {
			errs = append(errs, fmt.Errorf("unmount %s: %w", f[4], err))
		}
	}
	if len(errs) > 0 {
		return errors.Join(errs...) // and do not remove what is mounted there
	}
	return os.RemoveAll(dir)
}

// tool is the path of a program that make tools built.
func tool(root, name string) (string, error) {
	p := filepath.Join(root, "build", "tools", name)
	if _, err := os.Stat(p); err != nil {
		return "", fmt.Errorf("%s is not there: run make tools (make test-buildkit does)", p)
	}
	return p, nil
}
