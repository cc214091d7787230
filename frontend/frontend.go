package frontend

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"path"
	"slices"
	"strings"

	"github.com/containerd/platforms"
	"github.com/moby/buildkit/client/llb"
	"github.com/moby/buildkit/exporter/containerimage/exptypes"
	"github.com/moby/buildkit/frontend/dockerfile/dockerfile2llb"
	"github.com/moby/buildkit/frontend/dockerfile/linter"
	"github.com/moby/buildkit/frontend/dockerfile/parser"
	"github.com/moby/buildkit/frontend/dockerui"
	"github.com/moby/buildkit/frontend/gateway/client"
	"github.com/moby/buildkit/frontend/subrequests/convertllb"
	"github.com/moby/buildkit/frontend/subrequests/lint"
	"github.com/moby/buildkit/frontend/subrequests/outline"
	"github.com/moby/buildkit/frontend/subrequests/targets"
	ocispecs "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/nabla-build/nabla-build/frontend/step"
	"github.com/nabla-build/nabla-build/manifest"
)

// reportTarget is the target that stands for the link report where the
// Dockerfile has no stage of this name.
const reportTarget = "report"

// build is one request to the frontend.
type build struct {
	c       client.Client
	bc      *dockerui.Client
	src     *dockerui.Source
	options options
	source  string // the frontend's own image
	convert dockerfile2llb.ConvertOpt
	file    *dockerfile // nil if it cannot be parsed
}

// Build is the frontend: it answers one request of a BuildKit client, a build or
// one of the sub-requests behind docker buildx build --call.
func Build(ctx context.Context, c client.Client) (*client.Result, error) {
	bc, err := dockerui.NewClient(c)
	if err != nil {
		return nil, err
	}
	b := &build{c: c, bc: bc}
	opts := bc.BuildOpts().Opts
	if err := checkCaps(opts["frontend.caps"]); err != nil {
		return nil, err
	}
	if b.src, err = bc.ReadEntrypoint(ctx, "Dockerfile"); err != nil {
		return nil, err
	}
	res, err := b.answer(ctx, opts)
	if err != nil {
		return nil, b.located(err)
	}
	return res, nil
}

func (b *build) answer(ctx context.Context, opts map[string]string) (res *client.Result, err error) {
	if b.options, err = parseOptions(opts); err != nil {
		return nil, err
	}
	// They are ours, not the Dockerfile's.
	maps.DeleteFunc(b.bc.BuildArgs, func(k, _ string) bool { return strings.HasPrefix(k, prefix) })
	b.convert = dockerfile2llb.ConvertOpt{
		Config: b.bc.Config, Client: b.bc, SourceMap: b.src.SourceMap, MetaResolver: b.c,
		Warn: func(rule, description, url, msg string, at []parser.Range) {
			line := 0
			if len(at) > 0 {
				line = at[0].Start.Line
			}
			b.warn(ctx, linter.LintFormatShort(rule, msg, line), description, url, at)
		},
	}
	b.file = parse(b.src.Data)
	if b.bc.Target == reportTarget && b.file != nil && !b.file.has(reportTarget) {
		b.options.report, b.convert.Target = true, ""
	}
	res, ok, err := b.bc.HandleSubrequest(ctx, dockerui.RequestHandler{
		Outline: func(ctx context.Context) (*outline.Outline, error) {
			return dockerfile2llb.Dockerfile2Outline(ctx, b.src.Data, b.convert)
		},
		ListTargets: func(ctx context.Context) (*targets.List, error) {
			return dockerfile2llb.ListTargets(ctx, b.src.Data)
		},
		Lint: func(ctx context.Context) (*lint.LintResults, error) {
			return b.lint(ctx)
		},
		ConvertLLB: func(ctx context.Context) (*convertllb.Result, error) {
			return dockerfile2llb.DockerfileConvertLLB(ctx, b.src.Data, b.convert)
		},
	})
	if err != nil || ok {
		return res, err
	}
	if err := checkPlatforms(b.bc.TargetPlatforms); err != nil {
		return nil, err
	}
	if b.source = opts["source"]; b.source == "" {
		return nil, errors.New("the daemon does not say which image the frontend is from, so no step can run it: use it by # syntax=, BUILDKIT_SYNTAX or gateway.v0")
	}
	scan, err := b.scanner(ctx)
	if err != nil {
		return nil, err
	}
	var made *made
	rb, err := b.bc.Build(ctx, func(ctx context.Context, p *ocispecs.Platform, _ int) (*dockerui.BuildResult, error) {
		var err error
		if made, err = b.make(ctx, p); err != nil {
			return nil, err
		}
		return &dockerui.BuildResult{Reference: made.ref, Image: made.image, Epoch: made.source.Epoch}, nil
	})
	if err != nil {
		return nil, err
	}
	err = rb.EachPlatform(ctx, func(ctx context.Context, id string, p ocispecs.Platform) error {
		if b.options.report {
			return nil
		}
		for k, v := range made.annotations {
			var at *ocispecs.Platform
			if b.bc.MultiPlatformRequested {
				at = &p
			}
			rb.AddMeta(exptypes.AnnotationManifestKey(at, k), []byte(v))
		}
		if scan == nil {
			return nil
		}
		return b.attest(ctx, scan, id, made.source, rb.AddAttestation)
	})
	if err != nil {
		return nil, err
	}
	return rb.Finalize()
}

// checkPlatforms refuses what nabla images do not exist for.
func checkPlatforms(list []ocispecs.Platform) error {
	var bad []string
	for _, p := range list {
		if p.OS != "linux" || p.Architecture != "amd64" {
			bad = append(bad, platforms.FormatAll(p))
		}
	}
	if len(bad) > 0 {
		return fmt.Errorf("platform %s: nabla images are linux/amd64 only; build other platforms with another frontend", strings.Join(bad, ", "))
	}
	return nil
}

// caps are what a client may demand of a frontend; the image names them in a
// label too (Labels).
var caps = []string{"moby.buildkit.frontend.inputs", "moby.buildkit.frontend.subrequests", "moby.buildkit.frontend.contexts",
	"moby.buildkit.frontend.gitquerystring", "moby.buildkit.frontend.contexts.zstd"}

// Labels are those that the frontend's image has for BuildKit.
func Labels() map[string]string {
	return map[string]string{
		"moby.buildkit.frontend.network.none": "true",
		"moby.buildkit.frontend.caps":         strings.Join(caps, ","),
	}
}

func checkCaps(demanded string) error {
	for c := range strings.SplitSeq(demanded, ",") {
		name, _, _ := strings.Cut(c, "+")
		if name != "" && !slices.Contains(caps, name) {
			return fmt.Errorf("the client demands %s, which this frontend does not have: use a newer one", name)
		}
	}
	return nil
}

// solve has the daemon make a state and gives what it made.
func (b *build) solve(ctx context.Context, st llb.State) (client.Reference, error) {
	def, err := st.Marshal(ctx, llb.LinuxAmd64)
	if err != nil {
		return nil, fmt.Errorf("build graph: %w", err)
	}
	r, err := b.c.Solve(ctx, client.SolveRequest{Definition: def.ToPB(), CacheImports: b.bc.CacheImports})
	if err != nil {
		return nil, err
	}
	return r.SingleRef()
}

// reply has the daemon make the image and reads what the manifest step said.
func (b *build) reply(ctx context.Context, out llb.State) (client.Reference, *manifest.Manifest, step.Reply, error) {
	var r step.Reply
	ref, err := b.solve(ctx, out)
	if err != nil {
		return nil, nil, r, err
	}
	dir := path.Dir(manifest.Path)
	notes, err := ref.ReadDir(ctx, client.ReadDirRequest{Path: dir, IncludePattern: step.ReplyFile})
	if err != nil {
		return nil, nil, r, err
	}
	if len(notes) > 0 {
		content, err := ref.ReadFile(ctx, client.ReadRequest{Filename: path.Join(dir, step.ReplyFile)})
		if err != nil {
			return nil, nil, r, err
		}
		if err := json.Unmarshal(content, &r); err != nil {
			return nil, nil, r, fmt.Errorf("%s of the manifest step: %w", step.ReplyFile, err)
		}
	}
	if r.Problem != "" {
		return ref, nil, r, nil
	}
	content, err := ref.ReadFile(ctx, client.ReadRequest{Filename: manifest.Path})
	if err != nil {
		return nil, nil, r, err
	}
	m, err := manifest.Decode(bytes.NewReader(content))
	return ref, m, r, err
}
