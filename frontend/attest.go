package frontend

import (
	"context"
	"fmt"

	"github.com/moby/buildkit/client/llb"
	"github.com/moby/buildkit/client/llb/sourceresolver"
	"github.com/moby/buildkit/frontend/attestations/sbom"
	"github.com/moby/buildkit/frontend/dockerfile/dockerfile2llb"
	"github.com/moby/buildkit/frontend/gateway/client"
	"github.com/moby/buildkit/solver/result"
)

// scanner is the program that lists packages; nil if no SBOM is asked for.
func (b *build) scanner(ctx context.Context) (sbom.Scanner, error) {
	if b.bc.SBOM == nil || b.options.report {
		return nil, nil
	}
	p := b.bc.BuildPlatforms[0]
	s, err := sbom.CreateSBOMScanner(ctx, b.c, b.bc.SBOM.Generator, p, sourceresolver.Opt{
		ImageOpt: &sourceresolver.ResolveImageOpt{ResolveMode: b.bc.BuildOpts().Opts["image-resolve-mode"], Platform: &p},
	}, b.bc.SBOM.Parameters)
	if err != nil {
		return nil, fmt.Errorf("attestation sbom: scanner %s: %w", b.bc.SBOM.Generator, err)
	}
	return s, nil
}

// attest scans the root file system before it is relinked, as packages are not
// visible in the result, and adds what was found.
func (b *build) attest(ctx context.Context, scan sbom.Scanner, id string, src *dockerfile2llb.Result, add func(string, result.Attestation[client.Reference])) error {
	var opts []llb.ConstraintsOpt
	if src.IsIgnoreCache {
		opts = append(opts, llb.IgnoreCache)
	}
	a, err := scan(ctx, id, src.SBOM.Core, src.SBOM.Extras, opts...)
	if err != nil {
		return err
	}
	done, err := result.ConvertAttestation(&a, func(st *llb.State) (client.Reference, error) {
		def, err := st.Marshal(ctx)
		if err != nil {
			return nil, err
		}
		r, err := b.c.Solve(ctx, client.SolveRequest{Definition: def.ToPB()})
		if err != nil {
			return nil, err
		}
		return r.Ref, nil
	})
	if err != nil {
		return err
	}
	add(id, *done)
	return nil
}
