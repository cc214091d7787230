package buildkit

import (
	"context"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"os"
	"strings"
	"time"

	"github.com/docker/cli/cli/config"
	"github.com/moby/buildkit/client"
	"github.com/moby/buildkit/cmd/buildctl/build"
	"github.com/moby/buildkit/exporter/containerimage/exptypes"
	"github.com/moby/buildkit/identity"
	"github.com/moby/buildkit/session"
	"github.com/moby/buildkit/session/auth/authprovider"
	"github.com/moby/buildkit/session/sshforward/sshprovider"
	"github.com/moby/buildkit/util/progress/progressui"
	"github.com/moby/moby/api/types/jsonstream"
	"github.com/opencontainers/go-digest"
	"github.com/tonistiigi/fsutil"
	"golang.org/x/sync/errgroup"

	"github.com/nabla-build/nabla-build/oci"
)

// Terminal is where a build reads and writes.
type Terminal struct {
	Stdin          io.Reader
	Stdout, Stderr io.Writer
}

// Result is what the daemon said of a build that succeeded.
type Result struct {
	Digest       string         // of the image or index; empty if none was written
	ConfigDigest string         // of the image's configuration, where images are known by it
	Metadata     map[string]any // all that the exporters said
	Kept         bool           // nothing was written: the result is in the build cache only
}

// Check tells mistakes in the options that need no daemon to be seen.
func (o *Options) Check() error {
	able := &Daemon{attests: true}
	if _, err := o.outputs(able, io.Discard); err != nil {
		return err
	}
	if _, err := progressui.NewDisplay(io.Discard, progressui.DisplayMode(o.Progress)); err != nil && o.Progress != string(progressui.TtyMode) {
		return usagef("--progress: %w", err)
	}
	_, err := able.request(o)
	return err
}

// request turns options into a request without the build's inputs and secrets.
func (d *Daemon) request(o *Options) (*client.SolveOpt, error) {
	attrs := map[string]string{"source": o.Frontend}
	so := &client.SolveOpt{
		Frontend: "gateway.v0", FrontendAttrs: attrs, Ref: identity.NewID(),
		LocalMounts: map[string]fsutil.FS{}, AllowedEntitlements: o.Allow,
	}
	for _, p := range []struct {
		prefix, flag string
		in           []string
		environ      bool
	}{
		{"build-arg:", "build-arg", o.BuildArgs, true},
		{"label:", "label", o.Labels, false},
	} {
		if err := pairs(attrs, p.prefix, p.flag, p.in, p.environ); err != nil {
			return nil, err
		}
	}
	if v, ok := attrs["build-arg:BUILDKIT_SYNTAX"]; ok {
		return nil, usagef("--build-arg BUILDKIT_SYNTAX=%s: the frontend is given with --frontend here", v)
	}
	if o.Target != "" {
		attrs["target"] = o.Target
	}
	if len(o.Platforms) > 0 {
		attrs["platform"] = strings.Join(o.Platforms, ",")
	}
	if len(o.AddHosts) > 0 {
		hosts := make([]string, len(o.AddHosts))
		for i, h := range o.AddHosts {
			name, ip, ok := strings.Cut(h, "=")
			if !ok {
				name, ip, ok = strings.Cut(h, ":")
			}
			if !ok || name == "" || ip == "" {
				return nil, usagef("--add-host %q: not NAME:ADDRESS", h)
			}
			hosts[i] = name + "=" + strings.Trim(ip, "[]")
		}
		attrs["add-hosts"] = strings.Join(hosts, ",")
	}
	if o.NoCache {
		attrs["no-cache"] = ""
	}
	switch {
	case o.Pull:
		attrs["image-resolve-mode"] = "pull"
	case d.engine:
		attrs["image-resolve-mode"] = "local" // images of the Engine, as docker build
	}
	if d.attests && !disabled(o.Attests, "provenance") {
		attrs["attest:provenance"] = "mode=min,inline-only=true" // as docker buildx
	}
	if err := attestations(attrs, o.Attests); err != nil {
		return nil, err
	}
	if !d.attests {
		for k := range attrs {
			if strings.HasPrefix(k, "attest:") {
				return nil, fmt.Errorf("--attest: %s cannot write attestations; use BuildKit 0.11 or later with --builder", d.Name)
			}
		}
	}
	if err := build.ValidateAllow(o.Allow); err != nil {
		return nil, usagef("--allow: %w", err)
	}
	var err error
	if so.CacheImports, err = build.ParseImportCache(caches(o.CacheFrom)); err != nil {
		return nil, usagef("--cache-from: %w", err)
	}
	if so.CacheExports, err = build.ParseExportCache(caches(o.CacheTo)); err != nil {
		return nil, usagef("--cache-to: %w", err)
	}
	return so, nil
}

// session adds what the daemon may ask the client for during the build. The
// function that it returns removes temporary files.
func (o *Options) session(so *client.SolveOpt, term Terminal) (func(), error) {
	so.Session = []session.Attachable{authprovider.NewDockerAuthProvider(authprovider.DockerAuthProviderConfig{
		AuthConfigProvider: authprovider.LoadAuthConfig(config.LoadDefaultConfigFile(term.Stderr)),
	})}
	if len(o.Secrets) > 0 {
		p, err := build.ParseSecret(o.Secrets)
		if err != nil {
			return nil, usagef("--secret: %w", err)
		}
		so.Session = append(so.Session, p)
	}
	if len(o.SSH) > 0 {
		c, err := build.ParseSSH(o.SSH)
		if err != nil {
			return nil, usagef("--ssh: %w", err)
		}
		p, err := sshprovider.NewSSHAgentProvider(c)
		if err != nil {
			return nil, fmt.Errorf("--ssh: %w", err)
		}
		so.Session = append(so.Session, p)
	}
	if err := o.contexts(so); err != nil {
		return nil, err
	}
	cleanup, err := o.inputs(so, term.Stdin)
	if err != nil {
		cleanup()
		return nil, err
	}
	return cleanup, nil
}

// caches writes buildx's short form, a name alone, in full.
func caches(in []string) []string {
	out := make([]string, len(in))
	for i, s := range in {
		if !strings.Contains(s, "=") {
			s = "type=registry,ref=" + s
		}
		out[i] = s
	}
	return out
}

// Build runs a build and writes its result where the options say. Where it
// fails no file has been written. Errors of the Dockerfile carry their place in
// it: see errdefs.Sources.
func (d *Daemon) Build(ctx context.Context, o Options, term Terminal) (*Result, error) {
	if o.Frontend == "" {
		return nil, usagef("which image is the frontend? give one with --frontend")
	}
	if d.engine && !d.containerd && len(o.Platforms) > 1 {
		return nil, fmt.Errorf("--platform: %s builds for one platform at a time", d.Name)
	}
	display, err := progressui.NewDisplay(term.Stderr, progressui.DisplayMode(o.Progress))
	if err != nil {
		return nil, usagef("--progress: %w", err)
	}
	out, err := o.outputs(d, term.Stdout)
	if err != nil {
		return nil, err
	}
	so, err := d.request(&o)
	if err != nil {
		return nil, err
	}
	cleanup, err := o.session(so, term)
	if err != nil {
		return nil, err
	}
	defer cleanup()
	so.Exports = out.entries
	for _, e := range so.Exports {
		if e.Type == client.ExporterImage || e.Type == client.ExporterOCI || e.Type == "moby" {
			for _, a := range o.Annotations {
				k, v, ok := strings.Cut(a, "=")
				if !ok || k == "" {
					return nil, usagef("--annotation %q: not NAME=VALUE", a)
				}
				if level, name, ok := strings.Cut(k, ":"); ok {
					e.Attrs["annotation-"+level+"."+name] = v
				} else {
					e.Attrs["annotation."+k] = v
				}
			}
		}
	}

	shown := make(chan *client.SolveStatus)
	var res *client.SolveResponse
	caller := ctx
	eg, ctx := errgroup.WithContext(ctx)
	eg.Go(func() error {
		// The display ends with the channel, not with the context: it says last
		// what was cancelled.
		_, err := display.UpdateFrom(context.Background(), shown)
		return err
	})
	eg.Go(func() error {
		defer close(shown)
		status := make(chan *client.SolveStatus)
		forwarded := make(chan struct{})
		go func() {
			for s := range status {
				shown <- s
			}
			close(forwarded)
		}()
		var err error
		res, err = d.Solve(ctx, nil, *so, status)
		<-forwarded
		if out.load != nil {
			if lerr := out.load.wait(err); err == nil {
				err = lerr
			}
		}
		if err != nil {
			return err
		}
		for _, name := range out.push {
			if err := pushed(ctx, name, shown, res); err != nil {
				return err
			}
		}
		return nil
	})
	err = eg.Wait()
	if caller.Err() != nil {
		err = caller.Err() // rather than what the daemon says of its being cancelled
	}
	if ferr := out.finish(err != nil); err == nil {
		err = ferr
	}
	if err != nil {
		return nil, err
	}
	r := &Result{Metadata: metadata(res.ExporterResponse), Kept: len(out.entries) == 0}
	r.Digest = res.ExporterResponse[exptypes.ExporterImageDigestKey]
	if !d.containerd { // which knows images by the digest of their manifest or index
		r.ConfigDigest = res.ExporterResponse[exptypes.ExporterImageConfigDigestKey]
	}
	return r, r.write(&o)
}

// pushed pushes an image from the Docker Engine and shows it as a step.
func pushed(ctx context.Context, name string, shown chan<- *client.SolveStatus, res *client.SolveResponse) error {
	now := time.Now()
	v := client.Vertex{Digest: digest.FromString("push " + name), Name: "pushing " + name + " with Docker", Started: &now}
	shown <- &client.SolveStatus{Vertexes: []*client.Vertex{&v}}
	layers := map[string]*client.VertexStatus{}
	d, err := enginePush(ctx, name, func(m jsonstream.Message) {
		if m.ID == "" || m.Progress == nil && m.Status != "Pushed" {
			return
		}
		now := time.Now()
		s := layers[m.ID]
		if s == nil {
			s = &client.VertexStatus{ID: "pushing layer " + m.ID, Vertex: v.Digest, Started: &now}
			layers[m.ID] = s
		}
		s.Timestamp = now
		if m.Progress != nil {
			s.Current, s.Total = m.Progress.Current, m.Progress.Total
		}
		if m.Status == "Pushed" {
			s.Completed = &now
		}
		c := *s
		shown <- &client.SolveStatus{Statuses: []*client.VertexStatus{&c}}
	})
	end := v
	done := time.Now()
	end.Completed = &done
	if err != nil {
		err = fmt.Errorf("push %s: %w", name, err)
		end.Error = err.Error()
	} else if d != "" {
		// What the Engine calls the digest before is that of the configuration.
		if c := res.ExporterResponse[exptypes.ExporterImageDigestKey]; c != "" && res.ExporterResponse[exptypes.ExporterImageConfigDigestKey] == "" {
			res.ExporterResponse[exptypes.ExporterImageConfigDigestKey] = c
		}
		res.ExporterResponse[exptypes.ExporterImageDigestKey] = d
	}
	shown <- &client.SolveStatus{Vertexes: []*client.Vertex{&end}}
	return err
}

// metadata is the exporter's response with what is JSON in it decoded.
func metadata(in map[string]string) map[string]any {
	out := map[string]any{}
	for k, v := range in {
		out[k] = v
		raw, err := base64.StdEncoding.DecodeString(v)
		if err != nil {
			continue
		}
		var object map[string]any
		if json.Unmarshal(raw, &object) == nil && len(object) > 0 {
			out[k] = object
		}
	}
	return out
}

// write writes the files of --metadata-file and --iidfile.
func (r *Result) write(o *Options) error {
	if o.MetadataFile != "" {
		m := maps.Clone(r.Metadata)
		if len(o.Tags) > 0 {
			m["image.name"] = strings.Join(o.Tags, ",")
		}
		b, err := json.MarshalIndent(m, "", "  ")
		if err != nil {
			return err
		}
		if err := writeFile(o.MetadataFile, append(b, '\n')); err != nil {
			return fmt.Errorf("--metadata-file: %w", err)
		}
	}
	if o.IIDFile != "" {
		id := r.ConfigDigest
		if id == "" {
			id = r.Digest
		}
		if id == "" {
			return errors.New("--iidfile: the build made no image: give --load, --push or an --output of an image")
		}
		if err := writeFile(o.IIDFile, []byte(id)); err != nil {
			return fmt.Errorf("--iidfile: %w", err)
		}
	}
	return nil
}

// writeFile writes a small file as a whole.
func writeFile(name string, data []byte) error {
	return oci.WriteFile(name, 0o666, func(f *os.File) error {
		_, err := f.Write(data)
		return err
	})
}
