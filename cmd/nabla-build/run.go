package main

import (
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"time"

	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/spf13/cobra"

	"github.com/nabla-build/nabla-build/manifest"
	"github.com/nabla-build/nabla-build/oci"
	"github.com/nabla-build/nabla-build/oci/image"
)

// runFlags are those of run alone.
type runFlags struct {
	publish     []string
	net, memory string
}

func (a *app) runCommand() *cobra.Command {
	var f runFlags
	c := &cobra.Command{
		Use:   "run [flags] SOURCE|FILE [ARG...]",
		Short: "Run an image without a container engine",
		Long:  "Run an image, relinked first if it is not a nabla image, or a self-contained\nexecutable made by link, as an ordinary process of the user who calls. ARGs take\nthe place of the image's command. What was made is kept in the user's cache.\n\nNABLA_LOG, NABLA_TRACE and NABLA_TAP are passed on; nothing else of the caller's\nenvironment reaches the guest. Exit status: the guest's.\n\n" + references,
		Example: `  nabla-build run -p 8080:80 nginx:1.27
  nabla-build run -e DEBUG=1 --memory 512m oci:build/image
  nabla-build run --net none oci:build/image python3 -c 'print(1+1)'
  nabla-build run ./app`,
		Args: func(cmd *cobra.Command, args []string) error {
			if len(args) == 0 {
				return usagef("run: wants a SOURCE or FILE; see nabla-build run --help")
			}
			return nil
		},
		RunE: func(cmd *cobra.Command, args []string) error { return a.runRun(cmd, f, args[0], args[1:]) },
	}
	c.Flags().SetInterspersed(false)
	c.Flags().StringArrayVarP(&f.publish, "publish", "p", nil, "publish a port: `HOST:GUEST[/udp]`")
	c.Flags().StringVar(&f.net, "net", "", "network `mode`: "+strings.Join(manifest.Networks, ", "))
	c.Flags().StringVarP(&f.memory, "memory", "m", "", "memory limit of the guest, `SIZE` in bytes or with k, m, g")
	a.sourceFlags(c)
	c.Flags().StringArrayVarP(&a.env, "env", "e", nil, "`NAME=VALUE` for the guest; NAME alone takes the caller's value")
	return c
}

var (
	sizePattern = regexp.MustCompile(`^[0-9]+[kmgtKMGT]?[bB]?$`)
	portPattern = regexp.MustCompile(`^([0-9]{1,5}):([0-9]{1,5})(/tcp|/udp)?$`)
)

// environment makes the tender's variables of the flags.
func (f runFlags) environment() ([]string, error) {
	var out []string
	for _, name := range []string{"NABLA_LOG", "NABLA_TRACE", "NABLA_TAP"} {
		if v, ok := os.LookupEnv(name); ok {
			out = append(out, name+"="+v)
		}
	}
	for _, p := range f.publish {
		m := portPattern.FindStringSubmatch(p)
		if m == nil || !port(m[1]) || !port(m[2]) {
			return nil, usagef("run: -p %q: not HOST:GUEST or HOST:GUEST/udp with ports from 1 to 65535", p)
		}
	}
	// Always set: on the host nothing is published that was not asked for.
	out = append(out, "NABLA_PUBLISH="+strings.Join(f.publish, ","))
	if f.net != "" {
		if !slices.Contains(manifest.Networks, f.net) {
			return nil, usagef("run: --net %q: want one of %s", f.net, strings.Join(manifest.Networks, ", "))
		}
		out = append(out, "NABLA_NET="+f.net)
	}
	if f.memory != "" {
		if !sizePattern.MatchString(f.memory) {
			return nil, usagef("run: --memory %q: want a number of bytes, with k, m, g or t behind it for larger units", f.memory)
		}
		out = append(out, "NABLA_MEMORY="+f.memory)
	}
	return out, nil
}

func port(s string) bool {
	n, err := strconv.Atoi(s)
	return err == nil && n >= 1 && n <= 65535
}

// defaultPath is what engines set where an image does not.
const defaultPath = "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"

func (a *app) runRun(cmd *cobra.Command, f runFlags, source string, args []string) error {
	vars, err := f.environment()
	if err != nil {
		return err
	}
	for i, e := range a.env {
		if strings.HasPrefix(e, "NABLA_") {
			return usagef("run: -e %s: variables of this name are the tender's; they are set by flags", e)
		}
		if !strings.Contains(e, "=") && e != "" {
			a.env[i] = e + "=" + os.Getenv(e)
		}
	}
	var exe string
	var guest manifest.Guest
	if local(source) {
		n, err := image.OpenExecutable(source)
		if err != nil {
			return fmt.Errorf("run %s: %w", source, err)
		}
		exe, guest = source, n.Manifest.Guest
		n.Close()
	} else if exe, guest, err = a.prepare(cmd, source); err != nil {
		return err
	}
	env := setEnv(setEnv([]string{defaultPath}, guest.Env), a.env)
	if err := cmd.Context().Err(); err != nil {
		return err
	}
	return execute(exe, guest, append([]string{exe}, args...), append(env, vars...))
}

// execute becomes the tender. Like an engine, root changes to the image's user.
func execute(exe string, g manifest.Guest, argv, env []string) error {
	f, err := os.Open(exe)
	if err != nil {
		return fmt.Errorf("run: %w", err)
	}
	defer f.Close()
	if os.Geteuid() == 0 && g.UID|g.GID != 0 {
		groups := make([]int, len(g.Groups))
		for i, id := range g.Groups {
			groups[i] = int(id)
		}
		if err := errors.Join(syscall.Setgroups(groups), syscall.Setgid(int(g.GID)), syscall.Setuid(int(g.UID))); err != nil {
			return fmt.Errorf("run: change to user %d:%d: %w", g.UID, g.GID, err)
		}
		// That user may not be able to reach the file by its name.
		exe = fmt.Sprintf("/proc/self/fd/%d", f.Fd())
	}
	return fmt.Errorf("run: start %s: %w", argv[0], syscall.Exec(exe, argv, env))
}

// prepare makes the self-contained executable of a source, or finds it made.
func (a *app) prepare(cmd *cobra.Command, source string) (string, manifest.Guest, error) {
	ctx := cmd.Context()
	ui := a.ui()
	defer ui.done()
	if a.cache == "" {
		dir, err := userCache()
		if err != nil {
			return "", manifest.Guest{}, fmt.Errorf("run: cache: %w", err)
		}
		a.cache = dir
	}
	s, err := a.store()
	if err != nil {
		return "", manifest.Guest{}, err
	}
	defer s.Close()
	// The guest's variables are the process's, not the image's.
	env := a.env
	a.env = nil
	r, img, err := a.relink(ctx, cmd, source, s, ui, true)
	a.env = env
	var m *manifest.Manifest
	var write func(context.Context, *os.File) error
	switch {
	case errors.Is(err, image.ErrNabla):
		n, err := image.Open(img)
		if err != nil {
			return "", manifest.Guest{}, fmt.Errorf("read %s: %w", source, err)
		}
		if cmd.Flags().Changed("user") {
			return "", manifest.Guest{}, usagef("run: --user: %s is a nabla image, its user was fixed when it was relinked", source)
		}
		if err := a.override(cmd, n); err != nil {
			return "", manifest.Guest{}, err
		}
		m, write = n.Manifest, func(ctx context.Context, f *os.File) error { return n.WriteExecutable(ctx, f) }
	case err != nil:
		return "", manifest.Guest{}, err
	default:
		m, write = r.Manifest, func(ctx context.Context, f *os.File) error { return r.WriteExecutable(ctx, f) }
	}
	b, err := m.Encode()
	if err != nil {
		return "", manifest.Guest{}, err
	}
	dir := filepath.Join(s.Dir(), "run")
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return "", manifest.Guest{}, err
	}
	exe := filepath.Join(dir, fmt.Sprintf("%x", sha256.Sum256(b))[:32])
	if _, err := os.Stat(exe); err != nil {
		if err := oci.WriteFile(exe, 0o755, func(f *os.File) error { return write(ctx, f) }); err != nil {
			return "", manifest.Guest{}, fmt.Errorf("run %s: %w", source, err)
		}
	}
	now := time.Now()
	os.Chtimes(exe, now, now)
	return exe, m.Guest, nil
}

// override applies the flags to the manifest of a nabla image.
func (a *app) override(cmd *cobra.Command, n *image.Nabla) error {
	configure, err := a.configure(cmd)
	if err != nil {
		return err
	}
	g := &n.Manifest.Guest
	c := v1.Config{Entrypoint: g.Entrypoint, Cmd: g.Cmd, WorkingDir: g.WorkingDir}
	configure(&c)
	g.Entrypoint, g.Cmd, g.WorkingDir = c.Entrypoint, c.Cmd, filepath.Join("/", c.WorkingDir)
	return nil
}
