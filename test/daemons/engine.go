package daemons

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
)

// Engine is a Docker Engine (Debian's docker.io) with its own data, socket and
// bridge. It makes no packet filter rules, so containers reach other networks
// than their bridge only through what they are given; ports that are published
// on the loopback address work.
type Engine struct {
	Socket string // unix://...
	*Process

	dir, bridge string
}

// StartEngine starts an engine; args are further arguments of dockerd.
func StartEngine(args ...string) (*Engine, error) {
	dir, err := os.MkdirTemp("", "nabla-docker")
	if err != nil {
		return nil, err
	}
	e := &Engine{Socket: "unix://" + filepath.Join(dir, "docker.sock"), dir: dir}
	fail := func(err error) (*Engine, error) {
		e.removeBridge()
		return nil, errors.Join(err, removeAll(dir))
	}
	if err := e.addBridge(); err != nil {
		return fail(err)
	}
	cmd := exec.Command("dockerd", append([]string{
		"--data-root", filepath.Join(dir, "data"), "--exec-root", filepath.Join(dir, "exec"),
		"--pidfile", filepath.Join(dir, "pid"), "--config-file", filepath.Join(dir, "daemon.json"),
		"-H", e.Socket, "--bridge", e.bridge, "--iptables=false", "--ip6tables=false", "--ip-masq=false",
	}, args...)...)
	if err := os.WriteFile(filepath.Join(dir, "daemon.json"), []byte("{}\n"), 0o600); err != nil {
		return fail(err)
	}
	if e.Process, err = start(filepath.Join(dir, "log"), cmd); err != nil {
		return fail(fmt.Errorf("%w (Debian package docker.io)", err))
	}
	if err := e.ready(func() error { return exec.Command("docker", "-H", e.Socket, "version").Run() }); err != nil {
		e.stop()
		return fail(err)
	}
	return e, nil
}

// addBridge makes a bridge with the first of our networks that no interface
// has. The name is taken by the kernel or refused, so two tests never share one.
func (e *Engine) addBridge() error {
	for i := range 200 {
		name := fmt.Sprintf("nbk%d", i)
		if exec.Command("ip", "link", "add", name, "type", "bridge").Run() != nil {
			continue
		}
		e.bridge = name
		addr := fmt.Sprintf("10.213.%d.1/24", i)
		for _, args := range [][]string{{"addr", "add", addr, "dev", name}, {"link", "set", name, "up"}} {
			if out, err := exec.Command("ip", args...).CombinedOutput(); err != nil {
				return fmt.Errorf("ip %s: %w: %s", strings.Join(args, " "), err, out)
			}
		}
		return nil
	}
	out, err := exec.Command("ip", "link", "add", "nbk0", "type", "bridge").CombinedOutput()
	return fmt.Errorf("make a bridge for dockerd: %v: %s", err, out)
}

func (e *Engine) removeBridge() error {
	if e.bridge == "" {
		return nil
	}
	if out, err := exec.Command("ip", "link", "del", e.bridge).CombinedOutput(); err != nil {
		return fmt.Errorf("ip link del %s: %w: %s", e.bridge, err, out)
	}
	return nil
}

// Gateway is the host's address on the engine's bridge.
func (e *Engine) Gateway() string {
	return "10.213." + strings.TrimPrefix(e.bridge, "nbk") + ".1"
}

// Close stops the engine with its containers and removes what it stored.
func (e *Engine) Close() error {
	return errors.Join(e.stop(), e.removeBridge(), removeAll(e.dir))
}
