package buildkit

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/url"
	"os"
	"strings"
	"time"

	"github.com/docker/cli/cli/command"
	"github.com/docker/cli/cli/connhelper/commandconn"
	"github.com/docker/cli/cli/flags"
	"github.com/moby/buildkit/client"
	// Addresses of daemons in containers, pods and behind ssh.
	_ "github.com/moby/buildkit/client/connhelper/dockercontainer"
	_ "github.com/moby/buildkit/client/connhelper/kubepod"
	_ "github.com/moby/buildkit/client/connhelper/podmancontainer"
	_ "github.com/moby/buildkit/client/connhelper/ssh"
	docker "github.com/moby/moby/client"
)

// Where says which daemon to use.
type Where struct {
	// Builder is an address (unix://, tcp://, docker-container://, kube-pod://,
	// podman-container://, ssh://), the name of a buildx builder, or "default"
	// for Docker's own BuildKit. If it is empty the environment decides:
	// BUILDKIT_HOST, then BUILDX_BUILDER, then Docker's own.
	Builder string
	// TLS of an address tcp://: files in PEM form; ServerName is the address's
	// host where it is empty.
	CA, Cert, Key, ServerName string
}

// Daemon is a connection to a BuildKit daemon.
type Daemon struct {
	Name string // for messages
	*client.Client

	engine     bool // Docker's own BuildKit
	containerd bool // it stores images in containerd, and so attestations too
	attests    bool // it can write attestations
}

// Connect finds the daemon and asks what it can do.
func Connect(ctx context.Context, w Where) (*Daemon, error) {
	builder, from := w.Builder, "--builder"
	if builder == "" {
		builder, from = os.Getenv("BUILDKIT_HOST"), "BUILDKIT_HOST"
	}
	if builder == "" {
		builder, from = os.Getenv("BUILDX_BUILDER"), "BUILDX_BUILDER"
	}
	address := strings.Contains(builder, "://")
	if !address && from == "BUILDKIT_HOST" && builder != "" {
		return nil, fmt.Errorf("BUILDKIT_HOST=%s: not an address; write it as unix:///run/buildkit/buildkitd.sock or tcp://host:1234", builder)
	}
	if (w.CA != "" || w.Cert != "" || w.Key != "" || w.ServerName != "") && !strings.HasPrefix(builder, "tcp://") {
		return nil, errors.New("TLS files are of use with a tcp:// address only: give one with --builder or BUILDKIT_HOST")
	}
	d := &Daemon{}
	var err error
	switch {
	case address:
		d.Name = builder
		d.Client, err = w.dial(ctx, builder)
	case builder == "" || builder == "default":
		d.Name, d.engine = "Docker's BuildKit", true
		d.Client, err = dialEngine(ctx)
	default:
		d.Name = "builder " + builder
		d.Client, err = dialBuilder(ctx, builder)
	}
	if err != nil {
		return nil, fmt.Errorf("connect to %s: %w", d.Name, err)
	}
	// Long enough for a builder that has to be started first.
	asking, cancel := context.WithTimeoutCause(ctx, time.Minute, errors.New("no answer within a minute"))
	defer cancel()
	if err := d.ask(asking); err != nil {
		d.Close()
		switch {
		case ctx.Err() != nil:
			err = ctx.Err()
		case asking.Err() != nil:
			err = context.Cause(asking)
		}
		return nil, fmt.Errorf("connect to %s: %w%s", d.Name, err, d.hint())
	}
	return d, nil
}

// hint says what to look at when a daemon does not answer.
func (d *Daemon) hint() string {
	if d.engine {
		return "; is the Docker Engine running, and may you use it? --builder or BUILDKIT_HOST name another daemon"
	}
	return ""
}

// ask finds out what the daemon is.
func (d *Daemon) ask(ctx context.Context) error {
	workers, err := d.ListWorkers(ctx)
	if err != nil {
		return err
	}
	for _, w := range workers {
		for label := range w.Labels {
			switch {
			case label == "org.mobyproject.buildkit.worker.snapshotter":
				d.containerd = true
			case strings.HasPrefix(label, "org.mobyproject.buildkit.worker.moby."):
				d.engine = true
			}
		}
	}
	// Daemons that know this call (BuildKit 0.11) know attestations; those of an
	// Engine only where images are stored in containerd.
	if _, err := d.Info(ctx); err == nil {
		d.attests = !d.engine || d.containerd
	}
	return nil
}

func (w Where) dial(ctx context.Context, address string) (*client.Client, error) {
	var opts []client.ClientOpt
	if w.CA != "" || w.Cert != "" {
		name := w.ServerName
		if name == "" {
			u, err := url.Parse(address)
			if err != nil {
				return nil, err
			}
			name = u.Hostname()
		}
		if w.CA != "" {
			opts = append(opts, client.WithServerConfig(name, w.CA))
		} else {
			opts = append(opts, client.WithServerConfigSystem(name))
		}
		if (w.Cert == "") != (w.Key == "") {
			return nil, errors.New("a client's certificate and key go together: give both --tlscert and --tlskey")
		}
		if w.Cert != "" {
			opts = append(opts, client.WithCredentials(w.Cert, w.Key))
		}
	}
	return client.New(ctx, address, opts...)
}

// engineAPI is the API of the Docker Engine that the docker command would use:
// DOCKER_HOST, DOCKER_CONTEXT or the configuration's current context.
func engineAPI() (docker.APIClient, error) {
	cli, err := command.NewDockerCli(command.WithCombinedStreams(io.Discard))
	if err != nil {
		return nil, err
	}
	if err := cli.Initialize(flags.NewClientOptions()); err != nil {
		return nil, err
	}
	return cli.Client(), nil
}

// dialEngine reaches the BuildKit inside a Docker Engine through two requests
// of its API that turn into connections: /grpc and /session.
func dialEngine(ctx context.Context) (*client.Client, error) {
	api, err := engineAPI()
	if err != nil {
		return nil, err
	}
	return client.New(ctx, "",
		client.WithContextDialer(func(ctx context.Context, _ string) (net.Conn, error) {
			return api.DialHijack(ctx, "/grpc", "h2c", nil)
		}),
		client.WithSessionDialer(func(ctx context.Context, proto string, meta map[string][]string) (net.Conn, error) {
			return api.DialHijack(ctx, "/session", proto, meta)
		}))
}

// dialBuilder reaches a builder that buildx keeps, whatever its driver, through
// buildx.
func dialBuilder(ctx context.Context, name string) (*client.Client, error) {
	return client.New(ctx, "", client.WithContextDialer(func(ctx context.Context, _ string) (net.Conn, error) {
		return commandconn.New(ctx, "docker", "buildx", "--builder", name, "dial-stdio", "--progress=quiet")
	}))
}
