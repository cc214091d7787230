package daemons

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
)

// Buildkitd is a BuildKit daemon with the OCI worker.
type Buildkitd struct {
	Addr string // unix://... or tcp://...
	*Process

	certs *Certificates
	dir   string
	root  string
}

// StartBuildkitd starts a daemon on a socket or, where certificates are given,
// on TCP: it then shows the server's certificate and wants the client's. root
// is the repository, where make tools put the programs.
func StartBuildkitd(root string, certs *Certificates, args ...string) (*Buildkitd, error) {
	bin, err := tool(root, "buildkitd")
	if err != nil {
		return nil, err
	}
	dir, err := os.MkdirTemp("", "nabla-buildkitd")
	if err != nil {
		return nil, err
	}
	b := &Buildkitd{Addr: "unix://" + filepath.Join(dir, "buildkitd.sock"), certs: certs, dir: dir, root: root}
	fail := func(err error) (*Buildkitd, error) { return nil, errors.Join(err, removeAll(dir)) }
	// An empty configuration: that of the machine is not ours.
	config := filepath.Join(dir, "buildkitd.toml")
	if err := os.WriteFile(config, nil, 0o600); err != nil {
		return fail(err)
	}
	argv := []string{"--config", config, "--root", filepath.Join(dir, "root"), "--containerd-worker=false"}
	if certs != nil {
		port, err := FreePort()
		if err != nil {
			return fail(err)
		}
		b.Addr = fmt.Sprintf("tcp://127.0.0.1:%d", port)
		argv = append(argv, "--tlscacert", certs.CA, "--tlscert", certs.Server.Cert, "--tlskey", certs.Server.Key)
	}
	cmd := exec.Command(bin, append(append(argv, "--addr", b.Addr), args...)...)
	if b.Process, err = start(filepath.Join(dir, "log"), cmd); err != nil {
		return fail(err)
	}
	if err := b.ready(func() error {
		c, err := b.Buildctl("debug", "workers")
		if err != nil {
			return err
		}
		if out, err := c.CombinedOutput(); err != nil {
			return fmt.Errorf("buildctl debug workers: %w: %s", err, out)
		}
		return nil
	}); err != nil {
		b.stop()
		return fail(err)
	}
	return b, nil
}

// Buildctl is a buildctl command for this daemon.
func (b *Buildkitd) Buildctl(args ...string) (*exec.Cmd, error) {
	bin, err := tool(b.root, "buildctl")
	if err != nil {
		return nil, err
	}
	argv := []string{"--addr", b.Addr}
	if b.certs != nil {
		argv = append(argv, "--tlscacert", b.certs.CA, "--tlscert", b.certs.Client.Cert, "--tlskey", b.certs.Client.Key)
	}
	return exec.Command(bin, append(argv, args...)...), nil
}

// Close stops the daemon and removes what it stored.
func (b *Buildkitd) Close() error { return errors.Join(b.stop(), removeAll(b.dir)) }
