package main

import (
	"context"
	"errors"
	"fmt"
	"os"

	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/spf13/cobra"

	"github.com/nabla-build/nabla-build/link"
	"github.com/nabla-build/nabla-build/oci"
	"github.com/nabla-build/nabla-build/oci/image"
)

func (a *app) relinkCommand() *cobra.Command {
	c := &cobra.Command{
		Use:   "relink SOURCE DEST",
		Short: "Make a nabla image of an ordinary image",
		Long:  "Relink SOURCE and write the nabla image to DEST. Each layer is relinked by\nitself; with --cache, layers that were relinked before are taken from there.\nDEST is complete or not changed.\n\n" + references,
		Example: `  nabla-build relink python:3.12-slim registry.example.org/app:nabla
  nabla-build relink oci:build/image oci:build/nabla --cache ~/.cache/relink
  docker save app | cat > app.tar && nabla-build relink docker-archive:app.tar docker-archive:app-nabla.tar:app:nabla
  nabla-build relink rootfs:./root oci:out:v1 --entrypoint '["python3","/app/server.py"]' --workdir /app`,
		Args: exactly("SOURCE", "DEST"),
		RunE: func(cmd *cobra.Command, args []string) error { return a.runRelink(cmd, args[0], args[1], false) },
	}
	a.sourceFlags(c)
	a.envFlag(c)
	c.Flags().BoolVar(&a.json, "json", false, "print the result as JSON")
	return c
}

func (a *app) envFlag(c *cobra.Command) {
	c.Flags().StringArrayVarP(&a.env, "env", "e", nil, "`NAME=VALUE` in addition to the source's environment")
}

func (a *app) pushCommand() *cobra.Command {
	c := &cobra.Command{
		Use:   "push SOURCE REF",
		Short: "Relink an image and push it to a registry",
		Long:  "Relink SOURCE, if it is not a nabla image already, and push the result to a\nregistry. An interrupted push changes no tag; repeating it sends what is missing.\n\n" + references,
		Example: `  nabla-build push oci:build/image registry.example.org/app:1.2
  nabla-build push oci:build/nabla localhost:5000/app`,
		Args: exactly("SOURCE", "REF"),
		RunE: func(cmd *cobra.Command, args []string) error { return a.runRelink(cmd, args[0], args[1], true) },
	}
	a.sourceFlags(c)
	a.envFlag(c)
	c.Flags().BoolVar(&a.json, "json", false, "print the result as JSON")
	return c
}

// relinked is the JSON form of what relink and push did.
type relinked struct {
	Reference string       `json:"reference"`
	Digest    string       `json:"digest"`
	Layers    []layerState `json:"layers,omitempty"`
	Sites     link.Sites   `json:"sites"`
	Warnings  []string     `json:"warnings,omitempty"`
}

type layerState struct {
	Source  string     `json:"source"`
	Archive string     `json:"archive"`
	Size    int64      `json:"size"`
	Cached  bool       `json:"cached"`
	Sites   link.Sites `json:"sites"`
}

// summary describes a result.
func summary(dest string, digest v1.Hash, r *image.Result) relinked {
	out := relinked{Reference: dest, Digest: digest.String()}
	if r == nil {
		return out
	}
	out.Warnings = r.Warnings
	for i, l := range r.Report.Layers {
		m := r.Manifest.Archives[i]
		out.Layers = append(out.Layers, layerState{Source: m.Source, Archive: m.Digest, Size: m.Size, Cached: r.Cached[i], Sites: l.Sites})
		out.Sites.Found += l.Sites.Found
		out.Sites.Rewritten += l.Sites.Rewritten
		out.Sites.Left += l.Sites.Left
		out.Sites.Bogus += l.Sites.Bogus
	}
	return out
}

func (a *app) runRelink(cmd *cobra.Command, source, dest string, push bool) error {
	ctx := cmd.Context()
	to, err := oci.Parse(dest)
	if err != nil {
		return err
	}
	switch {
	case push && to.Kind != oci.Registry:
		return usagef("push: %s is not in a registry; use nabla-build relink", dest)
	case to.Kind == oci.RootFS:
		return usagef("relink: %s: a rootfs: reference is a source only", dest)
	}
	s, err := a.store()
	if err != nil {
		return err
	}
	defer s.Close()
	ui := a.ui()
	defer ui.done()
	r, img, err := a.relink(ctx, cmd, source, s, ui, false)
	switch {
	case errors.Is(err, image.ErrNabla) && push:
	case errors.Is(err, image.ErrNabla):
		return fmt.Errorf("relink %s: %w; copy it with nabla-build push or crane", source, err)
	case err != nil:
		return err
	default:
		if img, err = r.Image(ctx); err != nil {
			return fmt.Errorf("relink %s: %w", source, err)
		}
	}
	digest, err := img.Digest()
	if err != nil {
		return err
	}
	if err := to.Write(ctx, img, a.options(), ui.transfer(to.String())); err != nil {
		return err
	}
	ui.done()
	out := summary(dest, digest, r)
	if a.json {
		return a.printJSON(out)
	}
	if r != nil {
		ui.line("call sites: %d found, %d rewritten, %d left to the trap", out.Sites.Found, out.Sites.Rewritten, out.Sites.Left)
	}
	if !a.quiet {
		fmt.Fprintf(a.stdout, "%s %s\n", dest, digest)
	}
	return nil
}

func (a *app) linkCommand() *cobra.Command {
	var out string
	c := &cobra.Command{
		Use:     "link -o FILE SOURCE",
		Short:   "Make one self-contained executable of an image",
		Long:    "Relink SOURCE, if it is not a nabla image already, and write it with the tender\nas one executable that runs without any container engine.\n\n" + references,
		Example: "  nabla-build link -o app oci:build/image\n  NABLA_PUBLISH=8080:80 ./app",
		Args:    exactly("SOURCE"),
		RunE: func(cmd *cobra.Command, args []string) error {
			if out == "" {
				return usagef("link: say where to write with -o FILE")
			}
			return a.runLink(cmd, args[0], out)
		},
	}
	c.Flags().StringVarP(&out, "output", "o", "", "`FILE` to write")
	a.sourceFlags(c)
	a.envFlag(c)
	return c
}

func (a *app) runLink(cmd *cobra.Command, source, out string) error {
	ctx := cmd.Context()
	s, err := a.store()
	if err != nil {
		return err
	}
	defer s.Close()
	ui := a.ui()
	defer ui.done()
	var write func(context.Context, *os.File) error
	r, img, err := a.relink(ctx, cmd, source, s, ui, true)
	switch {
	case errors.Is(err, image.ErrNabla):
		n, err := image.Open(img)
		if err != nil {
			return fmt.Errorf("read %s: %w", source, err)
		}
		write = func(ctx context.Context, f *os.File) error { return n.WriteExecutable(ctx, f) }
	case err != nil:
		return err
	default:
		write = func(ctx context.Context, f *os.File) error { return r.WriteExecutable(ctx, f) }
	}
	if err := oci.WriteFile(out, 0o777, func(f *os.File) error { return write(ctx, f) }); err != nil {
		return fmt.Errorf("link %s: %w", out, err)
	}
	ui.done()
	if fi, err := os.Stat(out); err == nil {
		ui.line("%s: %s", out, size(fi.Size()))
	}
	return nil
}
