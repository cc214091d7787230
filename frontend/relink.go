package frontend

import (
	"context"
	"fmt"
	"slices"
	"strconv"
	"time"

	"github.com/moby/buildkit/client/llb"
	"github.com/moby/buildkit/solver/pb"
	"github.com/moby/buildkit/util/apicaps"

	"github.com/nabla-build/nabla-build/frontend/step"
)

// relinker appends the steps that make a nabla image of root file systems. Each
// step changes the output of the one before, which is its layer; so there is
// nothing to merge or to copy, and every BuildKit that has RUN can do it.
type relinker struct {
	tool  llb.State // the frontend's own image
	opts  []llb.RunOption
	clamp *time.Time

	reading []llb.MountOption

	out   llb.State   // the root directory of the nabla image so far
	notes []llb.State // what the relinking steps said
	names []string    // and what they relinked
}

// reading are the options of a mount that a step reads. Without the last BuildKit
// would hash all files of a root whenever a step of the Dockerfile had run, which
// takes as long as relinking them; the graph says what the root is made of.
func reading(caps apicaps.CapSet) []llb.MountOption {
	out := []llb.MountOption{llb.Readonly, llb.ForceNoOutput}
	if caps.Supports(pb.CapExecMountContentCache) == nil {
		out = append(out, llb.ContentCache(llb.MountContentCacheOff))
	}
	return out
}

// begin makes the first layer: the same for all images of a release.
func begin(tool llb.State, caps apicaps.CapSet, clamp *time.Time, opts ...llb.RunOption) *relinker {
	r := &relinker{tool: tool, opts: opts, clamp: clamp, reading: reading(caps)}
	r.out = r.run("add the tender", step.TenderArgs()).AddMount(step.Out, llb.Scratch())
	return r
}

// run runs the tool without a network on its own image, which it cannot change.
func (r *relinker) run(name string, args []string, opts ...llb.RunOption) llb.ExecState {
	all := append([]llb.RunOption{
		llb.Args(args), llb.User("0:0"), llb.Dir("/"), llb.ReadonlyRootFS(), llb.Network(llb.NetModeNone),
		llb.WithCustomName("[nabla] " + name),
	}, r.opts...)
	return r.tool.Run(append(all, opts...)...)
}

// add relinks what upper has and lower, which may be nil, has not. What the
// step is given besides decides when it has to run again: a base is relinked
// without a time to clamp to, so once for all that is built on it.
func (r *relinker) add(name string, upper llb.State, lower *llb.State, own bool) {
	l := step.Layer{Lower: lower != nil}
	if own {
		l.Clamp = r.clamp
	}
	run := r.run("relink "+name, l.Args())
	run.AddMount(step.Upper, upper, r.reading...)
	if lower != nil {
		run.AddMount(step.Lower, *lower, r.reading...)
	}
	run.AddMount(step.Temp, llb.Scratch(), llb.ForceNoOutput)
	r.out = run.AddMount(step.Out, r.out)
	r.names = append(r.names, name)
	r.notes = append(r.notes, run.AddMount(step.Note, llb.Scratch()))
}

// end makes the last layer; note holds the link report. loc is what the
// Dockerfile says of the program.
func (r *relinker) end(req step.Request, loc ...llb.RunOption) (note llb.State, err error) {
	env, err := req.Env()
	if err != nil {
		return note, err
	}
	opts := slices.Clone(loc)
	for i, v := range env {
		opts = append(opts, llb.AddEnv(step.RequestVariable(i), v))
	}
	run := r.run("write the manifest", step.ManifestArgs(len(r.notes)), opts...)
	for i, n := range r.notes {
		run.AddMount(step.Notes+"/"+strconv.Itoa(i), n, r.reading...)
	}
	r.out = run.AddMount(step.Out, r.out)
	return run.AddMount(step.Note, llb.Scratch()), nil
}

// executable makes a root with the self-contained form of the image alone.
func (r *relinker) executable() llb.State {
	run := r.run("write the self-contained executable", step.ExecutableArgs())
	run.AddMount(step.Image, r.out, r.reading...)
	return run.AddMount(step.Out, llb.Scratch())
}

// links adds the archives of a chain: the image it begins with, and then each
// step or, without keep, all of them together.
func (r *relinker) links(ctx context.Context, c []chainLink, keep bool) {
	if len(c) == 0 {
		return
	}
	var lower *llb.State
	if c[0].image != "" {
		r.add(c[0].image, c[0].state, nil, false)
		lower, c = &c[0].state, c[1:]
	}
	if len(c) > 1 && !keep {
		r.add(fmt.Sprintf("%d steps", len(c)), c[len(c)-1].state, lower, true)
		return
	}
	for i := range c {
		r.add(c[i].name, c[i].state, lower, true)
		lower = &c[i].state
	}
}
