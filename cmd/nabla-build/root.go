package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"

	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/spf13/cobra"

	"github.com/nabla-build/nabla-build/oci"
	"github.com/nabla-build/nabla-build/oci/image"
	"github.com/nabla-build/nabla-build/release"
)

// app is what all commands share: the global flags and where output goes.
type app struct {
	stdout, stderr io.Writer
	quiet          bool
	json           bool
	insecure       bool
	cache          string
	// Of sources.
	entrypoint, cmd, env []string
	workdir, user        string
}

const references = `An image is named as crane and skopeo name it:
  NAME[:TAG|@DIGEST]         in a registry
  oci:DIR[:TAG]              in an OCI layout
  docker-archive:FILE[:REF]  in a tar file made by docker save
  rootfs:DIR                 a directory, as a source only; say what to run with
                             --entrypoint, --cmd, --env, --workdir, --user`

const statuses = `Exit status: 0 done, 1 an error, 2 a mistake in the command line, 130
interrupted; run ends with the guest's status.`

func root(stdout, stderr io.Writer) *cobra.Command {
	a := &app{stdout: stdout, stderr: stderr}
	c := &cobra.Command{
		Use:           "nabla-build",
		Short:         "Relink container images to run behind a handful of system calls",
		Long:          "nabla-build relinks an ordinary container image with a library OS and a\nseccomp-restricted tender. The result is an OCI image that runs under docker,\npodman, containerd, runc and Kubernetes as it is.\n\n" + references + "\n\n" + statuses,
		SilenceErrors: true,
		SilenceUsage:  true,
		Version:       release.Version,
		Args: func(cmd *cobra.Command, args []string) error {
			if len(args) > 0 {
				return usagef("no such command: %s; see nabla-build --help", args[0])
			}
			return nil
		},
		RunE: func(cmd *cobra.Command, args []string) error { return cmd.Help() },
	}
	c.SetOut(stdout)
	c.SetErr(stderr)
	c.SetFlagErrorFunc(func(cmd *cobra.Command, err error) error {
		return usagef("%s: %w; see %s --help", cmd.CommandPath(), err, cmd.CommandPath())
	})
	p := c.PersistentFlags()
	p.BoolVarP(&a.quiet, "quiet", "q", false, "print errors only")
	p.BoolVar(&a.insecure, "insecure", false, "permit plain HTTP for registries (on loopback it always is)")
	c.AddCommand(a.buildCommand(), a.relinkCommand(), a.pushCommand(), a.linkCommand(), a.runCommand(), a.inspectCommand(), a.verifyCommand(), a.versionCommand())
	return c
}

// sourceFlags are those of commands that relink.
func (a *app) sourceFlags(c *cobra.Command) {
	f := c.Flags()
	f.StringVar(&a.cache, "cache", "", "`DIR`ectory in which relinked layers are kept for the next time")
	f.StringArrayVar(&a.entrypoint, "entrypoint", nil, "entrypoint instead of the source's: a JSON `array`, or one word each time the flag is given; clears the command")
	f.StringArrayVar(&a.cmd, "cmd", nil, "command instead of the source's, written like --entrypoint")
	f.StringVarP(&a.workdir, "workdir", "w", "", "working `directory` instead of the source's")
	f.StringVarP(&a.user, "user", "u", "", "`user[:group]` instead of the source's")
}

// words reads the value of --entrypoint or --cmd.
func words(flag string, in []string) ([]string, error) {
	if len(in) == 1 && strings.HasPrefix(in[0], "[") {
		var out []string
		if err := json.Unmarshal([]byte(in[0]), &out); err != nil {
			return nil, usagef("--%s: not a JSON array of strings: %w", flag, err)
		}
		return out, nil
	}
	return in, nil
}

// configure makes the change of a configuration that the flags ask for; nil if
// there is none.
func (a *app) configure(cmd *cobra.Command) (func(*v1.Config), error) {
	entry, err := words("entrypoint", a.entrypoint)
	if err != nil {
		return nil, err
	}
	args, err := words("cmd", a.cmd)
	if err != nil {
		return nil, err
	}
	for _, e := range a.env {
		if strings.IndexByte(e, '=') < 1 {
			return nil, usagef("--env %q: not NAME=VALUE", e)
		}
	}
	changed := cmd.Flags().Changed
	return func(c *v1.Config) {
		if changed("entrypoint") {
			c.Entrypoint, c.Cmd = entry, nil
		}
		if changed("cmd") {
			c.Cmd = args
		}
		c.Env = setEnv(c.Env, a.env)
		if changed("workdir") {
			c.WorkingDir = a.workdir
		}
		if changed("user") {
			c.User = a.user
		}
	}, nil
}

// setEnv puts variables into an environment; later ones replace earlier ones.
func setEnv(env, more []string) []string {
	out := append([]string(nil), env...)
next:
	for _, e := range more {
		name, _, _ := strings.Cut(e, "=")
		for i := range out {
			if strings.HasPrefix(out[i], name+"=") {
				out[i] = e
				continue next
			}
		}
		out = append(out, e)
	}
	return out
}

func (a *app) options() oci.Options {
	return oci.Options{Insecure: a.insecure, UserAgent: "nabla-build/" + release.Version}
}

// store opens the cache that --cache names, or a temporary one.
func (a *app) store() (*image.Store, error) {
	if a.cache == "" {
		return image.NewStore()
	}
	return image.OpenStore(a.cache)
}

// relink opens a source and relinks it. For a nabla image the error is
// image.ErrNabla, and the image is returned.
func (a *app) relink(ctx context.Context, cmd *cobra.Command, source string, s *image.Store, ui *ui, archives bool) (*image.Result, v1.Image, error) {
	ref, err := oci.Parse(source)
	if err != nil {
		return nil, nil, err
	}
	for _, asset := range []release.Asset{release.Tender, release.Netd} {
		f, _, err := release.Open(asset)
		if err != nil {
			return nil, nil, err
		}
		f.Close()
	}
	configure, err := a.configure(cmd)
	if err != nil {
		return nil, nil, err
	}
	src, err := ref.Source(ctx, a.options())
	if err != nil {
		return nil, nil, err
	}
	o := image.Options{Store: s, BaseName: ref.Name(), Configure: configure, Progress: ui.layer, Archives: archives}
	if ref.Kind == oci.Registry || ref.Kind == oci.Layout {
		d, err := src.Digest()
		if err != nil {
			return nil, nil, fmt.Errorf("read %s: %w", ref, err)
		}
		o.BaseDigest = d.String()
	}
	r, err := image.Relink(ctx, src, o)
	if err != nil {
		if errors.Is(err, image.ErrNabla) {
			return nil, src, err
		}
		return nil, nil, fmt.Errorf("relink %s: %w", ref, err)
	}
	const most = 4
	for i, w := range r.Warnings {
		if i == most-1 && len(r.Warnings) > most {
			ui.line("warning: %d more; inspect --json shows them", len(r.Warnings)-i)
			break
		}
		ui.line("warning: %s", w)
	}
	return r, nil, nil
}

// local says whether an argument names a file rather than an image.
func local(arg string) bool {
	if strings.HasPrefix(arg, "/") || strings.HasPrefix(arg, "./") || strings.HasPrefix(arg, "../") {
		return true
	}
	fi, err := os.Stat(arg)
	return err == nil && fi.Mode().IsRegular()
}

// open opens an existing nabla image or self-contained executable.
func (a *app) open(ctx context.Context, arg string) (*image.Nabla, error) {
	if local(arg) {
		n, err := image.OpenExecutable(arg)
		if err != nil {
			return nil, fmt.Errorf("read %s: %w", arg, err)
		}
		return n, nil
	}
	ref, err := oci.Parse(arg)
	if err != nil {
		return nil, err
	}
	img, err := ref.Source(ctx, a.options())
	if err != nil {
		return nil, err
	}
	n, err := image.Open(img)
	if errors.Is(err, image.ErrNotNabla) {
		return nil, fmt.Errorf("read %s: %w; make one of it with nabla-build relink", ref, err)
	}
	if err != nil {
		return nil, fmt.Errorf("read %s: %w", ref, err)
	}
	return n, nil
}

// printJSON writes a value for programs.
func (a *app) printJSON(v any) error {
	e := json.NewEncoder(a.stdout)
	e.SetIndent("", "  ")
	return e.Encode(v)
}

// userCache is where run keeps what it made, for the user who runs it.
func userCache() (string, error) {
	if dir, err := os.UserCacheDir(); err == nil {
		dir = filepath.Join(dir, "nabla-build")
		if err := os.MkdirAll(dir, 0o700); err == nil {
			return dir, nil
		}
	}
	dir := filepath.Join(os.TempDir(), fmt.Sprintf("nabla-build-%d", os.Getuid()))
	if err := os.Mkdir(dir, 0o700); err != nil && !errors.Is(err, os.ErrExist) {
		return "", err
	}
	fi, err := os.Lstat(dir)
	if err != nil {
		return "", err
	}
	if !fi.IsDir() || fi.Mode().Perm()&0o022 != 0 || ownerOf(fi) != os.Getuid() {
		return "", fmt.Errorf("%s belongs to somebody else: give another directory with --cache", dir)
	}
	return dir, nil
}
