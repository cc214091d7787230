package frontend

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/distribution/reference"
	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/moby/buildkit/client/llb"
	"github.com/moby/buildkit/client/llb/sourceresolver"
	"github.com/moby/buildkit/frontend/dockerfile/dockerfile2llb"
	"github.com/moby/buildkit/frontend/gateway/client"
	dockerspec "github.com/moby/docker-image-spec/specs-go/v1"
	ocispecs "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/nabla-build/nabla-build/frontend/step"
	"github.com/nabla-build/nabla-build/manifest"
	"github.com/nabla-build/nabla-build/oci/image"
	"github.com/nabla-build/nabla-build/release"
)

// made is the nabla image that was made of a Dockerfile.
type made struct {
	source      *dockerfile2llb.Result
	ref         client.Reference
	image       *dockerspec.DockerOCIImage
	annotations map[string]string
}

// make builds the Dockerfile and relinks the result.
func (b *build) make(ctx context.Context, p *ocispecs.Platform) (*made, error) {
	convert := b.convert
	convert.TargetPlatform = p
	src, err := dockerfile2llb.Dockerfile2LLB(ctx, b.src.Data, convert)
	if err != nil {
		return nil, err
	}
	if src.BaseImage != nil && image.IsConfig(src.BaseImage.Config.Entrypoint) {
		return nil, b.file.at(b.target(), "FROM", errors.New("the base is a nabla image, in which nothing can be built: start from the ordinary image that it was made of"))
	}
	links, err := chain(ctx, src.State)
	if err != nil {
		return nil, err
	}
	var opts []llb.RunOption
	if src.IsIgnoreCache {
		opts = append(opts, llb.IgnoreCache)
	}
	r := begin(llb.Image(b.source, llb.LinuxAmd64, b.bc.ImageResolveMode), b.c.BuildOpts().LLBCaps, src.Epoch, opts...)
	r.links(ctx, links, b.options.keepLayers)
	for _, name := range b.options.archives {
		more, err := b.extra(ctx, name, convert)
		if err != nil {
			return nil, fmt.Errorf("option %sarchives: %s: %w", prefix, name, err)
		}
		r.add(name, more, nil, true)
	}
	var config v1.Config
	if err := convertJSON(src.Image.Config, &config); err != nil {
		return nil, err
	}
	if b.options.entrypoint != nil {
		config.Entrypoint, config.Cmd = b.options.entrypoint, nil
	}
	b.checkProgram(ctx, config)
	req := step.Request{Config: config, Settings: image.Settings{Network: b.options.net, Memory: b.options.memory}}
	note, err := r.end(req, b.location("ENTRYPOINT", "CMD"))
	if err != nil {
		return nil, err
	}
	ref, written, reply, err := b.reply(ctx, r.out)
	if err != nil {
		return nil, err
	}
	if reply.Problem != "" {
		return nil, b.file.at(b.target(), b.culprit(reply.Problem), errors.New(strings.Replace(reply.Problem, "--entrypoint", prefix+"entrypoint", 1)))
	}
	for _, w := range reply.Warnings {
		b.warn(ctx, "nabla: "+w, "", "", b.file.where(b.target(), b.culprit(w)))
	}
	m := &made{source: src, ref: ref, annotations: labels(links)}
	switch {
	case b.options.report:
		m.image = &dockerspec.DockerOCIImage{}
		m.image.Platform = src.Image.Platform
		m.ref, err = b.solve(ctx, llb.Scratch().File(llb.Copy(note, step.ReportFile, step.ReportFile), llb.WithCustomName("[nabla] report")))
		return m, err
	case b.options.singleFile:
		m.image, err = b.config(src.Image, config, written, m.annotations, []string{"self-contained executable"})
		if err == nil {
			m.ref, err = b.solve(ctx, r.executable())
		}
		return m, err
	}
	m.image, err = b.config(src.Image, config, written, m.annotations, r.history())
	return m, err
}

func (b *build) target() string { return b.convert.Target }

// extra is the root that an extra archive is made of: a stage of the
// Dockerfile, or an image.
func (b *build) extra(ctx context.Context, name string, convert dockerfile2llb.ConvertOpt) (llb.State, error) {
	if b.file.has(name) {
		convert.Target, convert.Warn = name, nil
		res, err := dockerfile2llb.Dockerfile2LLB(ctx, b.src.Data, convert)
		if err != nil {
			return llb.State{}, err
		}
		return res.State, nil
	}
	ref, err := reference.ParseNormalizedNamed(name)
	if err != nil {
		return llb.State{}, fmt.Errorf("neither a stage of the Dockerfile nor the name of an image: %w", err)
	}
	p := ocispecs.Platform{OS: "linux", Architecture: "amd64"}
	full, digest, _, err := b.c.ResolveImageConfig(ctx, reference.TagNameOnly(ref).String(), sourceresolver.Opt{
		ImageOpt: &sourceresolver.ResolveImageOpt{Platform: &p, ResolveMode: b.bc.ImageResolveMode.String()},
	})
	if err != nil {
		return llb.State{}, err
	}
	if named, err := reference.ParseNormalizedNamed(full); err == nil && digest != "" {
		if pinned, err := reference.WithDigest(named, digest); err == nil {
			full = pinned.String()
		}
	}
	return llb.Image(full, llb.LinuxAmd64, b.bc.ImageResolveMode), nil
}

// labels name the image that a chain begins with (OCI image specification,
// annotations).
func labels(c []chainLink) map[string]string {
	if len(c) == 0 || c[0].image == "" {
		return nil
	}
	ref, err := reference.ParseNormalizedNamed(c[0].image)
	if err != nil {
		return nil
	}
	out := map[string]string{}
	if d, ok := ref.(reference.Digested); ok {
		out[image.AnnotationBaseDigest] = d.Digest().String()
	}
	name := reference.TrimNamed(ref)
	if t, ok := ref.(reference.Tagged); ok {
		if tagged, err := reference.WithTag(name, t.Tag()); err == nil {
			name = tagged
		}
	}
	out[image.AnnotationBaseName] = name.String()
	return out
}

// history describes the layers.
func (r *relinker) history() []string {
	return slices.Concat([]string{"tender"}, r.names, []string{"manifest"})
}

// config makes the configuration of the result; BuildKit adds the layers.
func (b *build) config(src *dockerspec.DockerOCIImage, c v1.Config, m *manifest.Manifest, labels map[string]string, history []string) (*dockerspec.DockerOCIImage, error) {
	c = image.Config(c, m.Guest, labels)
	if b.options.log != "" {
		c.Env = append(slices.Clone(c.Env), "NABLA_LOG="+b.options.log)
	}
	out := &dockerspec.DockerOCIImage{}
	if err := convertJSON(c, &out.Config); err != nil {
		return nil, err
	}
	out.Platform = ocispecs.Platform{OS: "linux", Architecture: "amd64"}
	out.Author, out.Created = src.Author, src.Created
	out.RootFS.Type = "layers"
	for _, h := range history {
		out.History = append(out.History, ocispecs.History{Created: src.Created, CreatedBy: h, Comment: "nabla-build " + release.Version})
	}
	return out, nil
}

// convertJSON turns one type of a configuration into another.
func convertJSON(from, to any) error {
	b, err := json.Marshal(from)
	if err == nil {
		err = json.Unmarshal(b, to)
	}
	if err != nil {
		return fmt.Errorf("image configuration: %w", err)
	}
	return nil
}
