package frontend

import (
	"context"
	"fmt"
	"slices"
	"strings"

	"github.com/moby/buildkit/client/llb"
	"github.com/moby/buildkit/solver/pb"
	"github.com/opencontainers/go-digest"
)

// link is a root file system that a build goes through on its way to the final
// one: the image of the first FROM, or the result of one instruction.
type chainLink struct {
	state llb.State
	name  string // of the vertex: what the build's log calls it
	image string // the name of an image that is the source of this, with digest
}

// chain follows the root file system of a state down to where it begins. It
// gives the lowest first: an image where there is one, otherwise (FROM scratch
// or a build context) the first instruction's result. It is empty for an empty
// root.
func chain(ctx context.Context, st llb.State, opts ...llb.ConstraintsOpt) ([]chainLink, error) {
	def, err := st.Marshal(ctx, opts...)
	if err != nil {
		return nil, fmt.Errorf("build graph: %w", err)
	}
	p := def.ToPB()
	if len(p.Def) == 0 {
		return nil, nil
	}
	ops := map[string]*pb.Op{}
	var last *pb.Op
	for _, b := range p.Def {
		last = new(pb.Op)
		if err := last.Unmarshal(b); err != nil {
			return nil, fmt.Errorf("build graph: %w", err)
		}
		ops[digest.FromBytes(b).String()] = last
	}
	p.Def = p.Def[:len(p.Def)-1] // that of the last only names the result
	var out []chainLink
	for in := last.Inputs[0]; in != nil; {
		op := ops[in.Digest]
		if op == nil {
			return nil, fmt.Errorf("build graph: no vertex %s", in.Digest)
		}
		l := chainLink{name: name(p.Metadata[in.Digest])}
		if s := op.GetSource(); s != nil {
			for _, scheme := range []string{"docker-image://", "oci-layout://"} {
				if id, ok := strings.CutPrefix(s.Identifier, scheme); ok {
					l.image = id
				}
			}
		}
		if l.state, err = at(p, in); err != nil {
			return nil, err
		}
		out = append(out, l)
		if in, err = below(op, in.Index); err != nil {
			return nil, err
		}
	}
	slices.Reverse(out)
	return out, nil
}

// name is what the log calls a vertex, without where it stands in its stage.
func name(m *pb.OpMetadata) string {
	if m == nil {
		return ""
	}
	n := m.Description["llb.customname"]
	if strings.HasPrefix(n, "[") {
		if _, rest, ok := strings.Cut(n, "] "); ok {
			n = rest
		}
	}
	return n
}

// at is the state that one output of a vertex in the definition is.
func at(p *pb.Definition, in *pb.Input) (llb.State, error) {
	end, err := (&pb.Op{Inputs: []*pb.Input{in}}).Marshal()
	if err != nil {
		return llb.State{}, err
	}
	d, err := llb.NewDefinitionOp(&pb.Definition{Def: append(slices.Clone(p.Def), end), Metadata: p.Metadata, Source: p.Source})
	if err != nil {
		return llb.State{}, fmt.Errorf("build graph: %w", err)
	}
	return llb.NewState(d), nil
}

// below is the input of a vertex that its output is made of by changing it; nil
// if the output is made of nothing. The rules are those of solver/pb/ops.proto.
func below(op *pb.Op, output int64) (*pb.Input, error) {
	input := func(i int64) (*pb.Input, error) {
		if i < 0 {
			return nil, nil
		}
		if i >= int64(len(op.Inputs)) {
			return nil, fmt.Errorf("build graph: input %d of %d", i, len(op.Inputs))
		}
		return op.Inputs[i], nil
	}
	switch {
	case op.GetExec() != nil:
		for _, m := range op.GetExec().Mounts {
			if m.Output == output {
				return input(m.Input)
			}
		}
	case op.GetFile() != nil:
		actions := op.GetFile().Actions
		for i := range actions {
			if actions[i].Output != output {
				continue
			}
			in := actions[i].Input
			// An action's input is one of the operation or an action before it.
			for n := int64(len(op.Inputs)); in >= n && in-n < int64(i); {
				i = int(in - n)
				in = actions[i].Input
			}
			return input(in)
		}
	case op.GetMerge() != nil:
		if in := op.GetMerge().Inputs; len(in) > 0 {
			return input(in[0].Input)
		}
	case op.GetPassthrough() != nil:
		return input(0)
	}
	return nil, nil // a source, a difference, a build: it begins here
}
