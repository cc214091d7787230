package daemons

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
)

// Buildx is docker with the buildx plugin and a configuration of its own.
type Buildx struct {
	dir    string
	socket string
}

// NewBuildx makes the configuration. engine may be nil where only remote
// builders are used; root is the repository.
func NewBuildx(root string, engine *Engine) (*Buildx, error) {
	plugin, err := tool(root, "docker-buildx")
	if err != nil {
		return nil, err
	}
	dir, err := os.MkdirTemp("", "nabla-buildx")
	if err != nil {
		return nil, err
	}
	x := &Buildx{dir: dir, socket: "unix://" + filepath.Join(dir, "no-engine.sock")}
	if engine != nil {
		x.socket = engine.Socket
	}
	if err := os.Mkdir(filepath.Join(dir, "cli-plugins"), 0o755); err != nil {
		return nil, err
	}
	if err := os.Symlink(plugin, filepath.Join(dir, "cli-plugins", "docker-buildx")); err != nil {
		return nil, err
	}
	return x, nil
}

// Env is the environment that makes docker and nabla-build use the engine and
// this configuration, in addition to the caller's.
func (x *Buildx) Env() []string {
	return []string{"DOCKER_CONFIG=" + x.dir, "BUILDX_CONFIG=" + filepath.Join(x.dir, "buildx"), "DOCKER_HOST=" + x.socket,
		"BUILDX_BUILDER=", "DOCKER_CONTEXT=", "BUILDKIT_HOST="}
}

// Docker is a docker command for the engine.
func (x *Buildx) Docker(args ...string) *exec.Cmd {
	cmd := exec.Command("docker", args...)
	cmd.Env = append(os.Environ(), x.Env()...)
	return cmd
}

// Remote makes a builder of the remote driver for a daemon and gives the name
// to use with --builder.
func (x *Buildx) Remote(name string, b *Buildkitd) error {
	args := []string{"buildx", "create", "--name", name, "--driver", "remote"}
	if b.certs != nil {
		args = append(args, "--driver-opt", fmt.Sprintf("cacert=%s,cert=%s,key=%s", b.certs.CA, b.certs.Client.Cert, b.certs.Client.Key))
	}
	if out, err := x.Docker(append(args, b.Addr)...).CombinedOutput(); err != nil {
		return fmt.Errorf("docker buildx create: %w: %s", err, out)
	}
	return nil
}

// Close removes the configuration.
func (x *Buildx) Close() error { return os.RemoveAll(x.dir) }
