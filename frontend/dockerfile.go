package frontend

import (
	"bytes"
	"context"
	"errors"
	"slices"
	"strconv"
	"strings"

	"github.com/moby/buildkit/client/llb"
	"github.com/moby/buildkit/frontend/dockerfile/instructions"
	"github.com/moby/buildkit/frontend/dockerfile/parser"
	"github.com/moby/buildkit/frontend/gateway/client"
	"github.com/moby/buildkit/solver/errdefs"
	"github.com/moby/buildkit/solver/pb"
)

// dockerfile says where in the Dockerfile something is. A nil one knows nothing.
type dockerfile struct{ stages []instructions.Stage }

// parse reads a Dockerfile; nil if it has errors, which dockerfile2llb reports.
func parse(content []byte) *dockerfile {
	p, err := parser.Parse(bytes.NewReader(content))
	if err != nil {
		return nil
	}
	stages, _, err := instructions.Parse(p.AST, nil)
	if err != nil || len(stages) == 0 {
		return nil
	}
	return &dockerfile{stages}
}

// stage is the index of a stage by name or number, from the one before the
// index below; -1 if there is none. "" is the last.
func (d *dockerfile) stage(name string, below int) int {
	if d == nil {
		return -1
	}
	if name == "" {
		return below - 1
	}
	for i := below - 1; i >= 0; i-- {
		if strings.EqualFold(d.stages[i].Name, name) {
			return i
		}
	}
	if n, err := strconv.Atoi(name); err == nil && n >= 0 && n < below {
		return n
	}
	return -1
}

func (d *dockerfile) has(name string) bool {
	return d != nil && name != "" && d.stage(name, len(d.stages)) >= 0
}

// find is the last instruction of a kind that counts for a target, and the
// stage it is in: in the target's stage or those that it is built from. nil
// where a base image decides.
func (d *dockerfile) find(target, kind string) instructions.Command {
	if d == nil {
		return nil
	}
	for i := d.stage(target, len(d.stages)); i >= 0; i = d.stage(d.stages[i].BaseName, i) {
		for _, c := range slices.Backward(d.stages[i].Commands) {
			if strings.EqualFold(c.Name(), kind) {
				return c
			}
		}
		if d.stages[i].BaseName == "" {
			return nil
		}
	}
	return nil
}

// where is where an instruction of a kind stands, FROM that of the target's
// stage; nil if it is not in the Dockerfile.
func (d *dockerfile) where(target, kind string) []parser.Range {
	if d == nil {
		return nil
	}
	if kind == "FROM" {
		if i := d.stage(target, len(d.stages)); i >= 0 {
			return d.stages[i].Location
		}
		return nil
	}
	if c := d.find(target, kind); c != nil {
		return c.Location()
	}
	return nil
}

// at says where an error comes from; in FROM if the instruction of the kind is
// not in the Dockerfile.
func (d *dockerfile) at(target, kind string, err error) error {
	w := d.where(target, kind)
	if w == nil {
		w = d.where(target, "FROM")
	}
	if w == nil {
		return err
	}
	return parser.WithLocation(err, w)
}

// culprit is the instruction that a message about the image's configuration
// is about.
func (b *build) culprit(message string) string {
	switch {
	case strings.HasPrefix(message, "image user"):
		return "USER"
	case strings.HasPrefix(message, "HEALTHCHECK"), strings.HasPrefix(message, "ONBUILD"):
		kind, _, _ := strings.Cut(message, " ")
		return kind
	case strings.Contains(message, "exposed port"):
		return "EXPOSE"
	case strings.Contains(message, "environment entry"):
		return "ENV"
	case b.file.find(b.target(), "ENTRYPOINT") != nil:
		return "ENTRYPOINT"
	}
	return "CMD"
}

// location has a failing step show the first instruction of the kinds that is
// there.
func (b *build) location(kinds ...string) llb.ConstraintsOpt {
	for _, k := range kinds {
		if w := b.file.where(b.target(), k); w != nil {
			return b.src.Location(ranges(w))
		}
	}
	return b.src.Location(nil)
}

func ranges(in []parser.Range) []*pb.Range {
	out := make([]*pb.Range, 0, len(in))
	for _, r := range in {
		out = append(out, &pb.Range{
			Start: &pb.Position{Line: int32(r.Start.Line), Character: int32(r.Start.Character)},
			End:   &pb.Position{Line: int32(r.End.Line), Character: int32(r.End.Character)},
		})
	}
	return out
}

// warn has the client print a warning with the lines it is about.
func (b *build) warn(ctx context.Context, message, detail, url string, at []parser.Range) {
	o := client.WarnOpts{Level: 1, URL: url}
	if detail != "" {
		o.Detail = [][]byte{[]byte(detail)}
	}
	if at != nil {
		o.Range = ranges(at)
	}
	b.src.Warn(ctx, message, o)
}

// located gives an error the lines of the Dockerfile that it is about, as
// BuildKit shows them.
func (b *build) located(err error) error {
	var el *parser.LocationError
	if !errors.As(err, &el) {
		return err
	}
	for _, l := range el.Locations {
		err = errdefs.WithSource(err, &errdefs.Source{
			Info: &pb.SourceInfo{
				Data: b.src.Data, Filename: b.src.Filename, Language: b.src.Language, Definition: b.src.Definition.ToPB(),
			},
			Ranges: ranges(l),
		})
	}
	return err
}
