package main

import (
	"errors"
	"fmt"
	"os"

	"github.com/moby/buildkit/solver/errdefs"
	"github.com/spf13/cobra"

	"github.com/nabla-build/nabla-build/buildkit"
	"github.com/nabla-build/nabla-build/release"
)

// frontendVariable is the environment variable that stands for --frontend.
const frontendVariable = "NABLA_FRONTEND"

func (a *app) buildCommand() *cobra.Command {
	var o buildkit.Options
	var where buildkit.Where
	c := &cobra.Command{
		Use:   "build [flags] CONTEXT",
		Short: "Build a Dockerfile to a nabla image with a BuildKit daemon",
		Long: `Build a Dockerfile to a nabla image: docker buildx build with the nabla
frontend, and with the same flags. The work is done by a BuildKit daemon:
--builder, BUILDKIT_HOST or BUILDX_BUILDER name one, otherwise it is the one
inside the Docker Engine.

CONTEXT is a directory, the URL of a git repository or of a tar file, or "-" for
a tar file or a Dockerfile on standard input. The frontend is an image that the
daemon pulls:
` + frontendHelp() + `

Without --push, --load or --output the Docker Engine keeps the image; another
daemon keeps it in its build cache only.`,
		Example: `  nabla-build build -t registry.example.org/app:1.2 --push .
  nabla-build build -t app --load --secret id=token,src=token.txt .
  BUILDKIT_HOST=tcp://builder:1234 nabla-build build --tlscacert ca.pem --tlscert cert.pem --tlskey key.pem -o type=oci,dest=app.tar .`,
		Args: exactly("CONTEXT"),
		RunE: func(cmd *cobra.Command, args []string) error {
			o.Context = args[0]
			if o.Frontend == "" {
				o.Frontend = os.Getenv(frontendVariable)
			}
			if o.Frontend == "" {
				o.Frontend = release.Frontend
			}
			if o.Frontend == "" {
				return usagef("build: which image is the frontend? give one with --frontend or %s (make frontend-image makes it)", frontendVariable)
			}
			o.Insecure = a.insecure
			return a.runBuild(cmd, o, where)
		},
	}
	f := c.Flags()
	f.StringArrayVarP(&o.Tags, "tag", "t", nil, "`NAME[:TAG]` of the image")
	f.StringVarP(&o.File, "file", "f", "", "Dockerfile (default CONTEXT/Dockerfile); - is standard input")
	f.StringVar(&o.Target, "target", "", "`stage` to build")
	f.StringArrayVar(&o.BuildArgs, "build-arg", nil, "build `argument` NAME=VALUE; NAME alone takes the environment's value")
	f.StringArrayVar(&o.Contexts, "build-context", nil, "further `context`: NAME=DIRECTORY, NAME=URL or NAME=docker-image://IMAGE")
	f.StringArrayVar(&o.Labels, "label", nil, "`label` of the image, NAME=VALUE")
	f.StringArrayVar(&o.Annotations, "annotation", nil, "OCI `annotation` [LEVEL:]NAME=VALUE")
	f.StringArrayVar(&o.AddHosts, "add-host", nil, "`host` to add to /etc/hosts of RUN steps, as NAME:ADDRESS")
	f.StringArrayVar(&o.Secrets, "secret", nil, "`secret` for RUN --mount=type=secret: id=ID[,src=FILE|env=NAME]")
	f.StringArrayVar(&o.SSH, "ssh", nil, "`agent` or keys for RUN --mount=type=ssh: default|ID[=SOCKET|KEY]")
	f.StringArrayVar(&o.Allow, "allow", nil, "`entitlement` of the build, as network.host")
	f.StringSliceVar(&o.Platforms, "platform", nil, "`platform`; nabla images are linux/amd64")
	f.BoolVar(&o.Push, "push", false, "push the image to its registry")
	f.BoolVar(&o.Load, "load", false, "load the image into the Docker Engine")
	f.StringArrayVarP(&o.Outputs, "output", "o", nil, "`destination` of the result: type=image|registry|local|tar|oci|docker|cacheonly[,dest=FILE], or a directory")
	f.StringArrayVar(&o.CacheFrom, "cache-from", nil, "`cache` to read: type=registry,ref=NAME, type=local,src=DIR, ...")
	f.StringArrayVar(&o.CacheTo, "cache-to", nil, "`cache` to write: type=registry,ref=NAME, type=local,dest=DIR, type=inline, ...")
	f.StringArrayVar(&o.Attests, "attest", nil, "`attestation`: type=provenance|sbom[,mode=max|disabled=true]")
	f.BoolVar(&o.NoCache, "no-cache", false, "run every step again")
	f.BoolVar(&o.Pull, "pull", false, "ask registries for newer images than those at hand")
	f.StringVar(&o.MetadataFile, "metadata-file", "", "`FILE` for what the daemon says of the result, as JSON")
	f.StringVar(&o.IIDFile, "iidfile", "", "`FILE` for the image's ID")
	f.StringVar(&o.Progress, "progress", "auto", "`display`: auto, plain, tty, rawjson or quiet")
	f.StringVar(&o.Frontend, "frontend", "", "`IMAGE` of the frontend, instead of "+frontendVariable+" or the release's")
	f.StringVar(&where.Builder, "builder", "", "`daemon`: an address (unix://, tcp://, ssh://, docker-container://, kube-pod://), a buildx builder's name, or default for Docker's")
	f.StringVar(&where.CA, "tlscacert", "", "`FILE` of the authority that signed the daemon's certificate")
	f.StringVar(&where.Cert, "tlscert", "", "`FILE` of the certificate to show to the daemon")
	f.StringVar(&where.Key, "tlskey", "", "`FILE` of its key")
	f.StringVar(&where.ServerName, "tlsservername", "", "`name` in the daemon's certificate, if not its host")
	return c
}

func frontendHelp() string {
	if release.Frontend == "" {
		return "give it with --frontend or " + frontendVariable + "."
	}
	return release.Frontend + ", unless --frontend or " + frontendVariable + " name another."
}

// buildError says of what an error is and keeps mistakes in the command line
// apart.
func buildError(o buildkit.Options, err error) error {
	var usage buildkit.UsageError
	if errors.As(err, &usage) {
		return usagef("build: %w", err)
	}
	return fmt.Errorf("build %s: %w", o.Context, err)
}

func (a *app) runBuild(cmd *cobra.Command, o buildkit.Options, where buildkit.Where) error {
	ctx := cmd.Context()
	if a.quiet {
		o.Progress = "quiet"
	}
	if err := o.Check(); err != nil {
		return buildError(o, err)
	}
	d, err := buildkit.Connect(ctx, where)
	if err != nil {
		return fmt.Errorf("build: %w", err)
	}
	defer d.Close()
	r, err := d.Build(ctx, o, buildkit.Terminal{Stdin: cmd.InOrStdin(), Stdout: a.stdout, Stderr: a.stderr})
	if err != nil {
		for _, s := range errdefs.Sources(err) {
			s.Print(a.stderr)
		}
		return buildError(o, err)
	}
	ui := a.ui()
	defer ui.done()
	if r.Kept && len(o.Outputs) == 0 {
		ui.line("warning: the result is in the build cache of %s only: say where it shall go with --push, --load or --output", d.Name)
	}
	if a.quiet {
		return nil
	}
	if r.Digest != "" && !buildkit.WritesStdout(o.Outputs) {
		for _, t := range o.Tags {
			fmt.Fprintf(a.stdout, "%s %s\n", t, r.Digest)
		}
	}
	return nil
}
