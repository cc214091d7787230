package buildkit

import (
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"

	"github.com/distribution/reference"
	"github.com/moby/buildkit/client"
	"github.com/moby/buildkit/session/filesync"
)

// outputs are the exporters of one build and what is to be done when the build
// is over.
type outputs struct {
	entries []client.ExportEntry
	files   []*file
	load    *load    // of an image into the Docker Engine
	push    []string // names that the Engine pushes, as its BuildKit cannot
}

// outputs decides where the result goes.
func (o *Options) outputs(d *Daemon, stdout io.Writer) (*outputs, error) {
	var entries []client.ExportEntry
	for _, s := range o.Outputs {
		e, err := output(s)
		if err != nil {
			return nil, err
		}
		entries = append(entries, e)
	}
	names := make([]string, len(o.Tags))
	for i, t := range o.Tags {
		ref, err := reference.ParseNormalizedNamed(t)
		if err != nil {
			return nil, usagef("--tag %q: %w", t, err)
		}
		names[i] = reference.TagNameOnly(ref).String()
	}
	if o.Push {
		if err := force(&entries, client.ExporterImage, "push", "true"); err != nil {
			return nil, err
		}
	}
	if o.Load {
		if err := force(&entries, client.ExporterDocker, "", ""); err != nil {
			return nil, err
		}
	}
	if len(entries) == 0 && d.engine {
		entries = append(entries, client.ExportEntry{Type: client.ExporterImage, Attrs: map[string]string{}})
	}
	out := &outputs{}
	for _, e := range entries {
		dest := e.Attrs["dest"]
		delete(e.Attrs, "dest")
		switch e.Type {
		case "cacheonly":
			continue
		case client.ExporterImage, client.ExporterOCI, client.ExporterDocker:
			if len(names) > 0 && e.Attrs["name"] == "" {
				e.Attrs["name"] = strings.Join(names, ",")
			}
		}
		switch e.Type {
		case client.ExporterImage:
			if dest != "" {
				return nil, usagef("--output type=image takes no dest; type=oci and type=docker do")
			}
			push := e.Attrs["push"] == "true"
			if push && e.Attrs["name"] == "" {
				return nil, usagef("to push, name the image with -t")
			}
			if push && o.Insecure {
				e.Attrs["registry.insecure"] = "true"
			}
			if d.engine {
				e.Type = "moby"
				if push && !d.containerd {
					delete(e.Attrs, "push")
					out.push = append(out.push, strings.Split(e.Attrs["name"], ",")...)
				}
			}
		case client.ExporterLocal:
			if dest == "" {
				return nil, usagef("--output type=local: say where with dest=DIRECTORY")
			}
			e.OutputDir = dest
		case client.ExporterDocker:
			if dest != "" {
				e.Output = out.file(dest, stdout)
				break
			}
			if d.engine {
				e.Type = "moby"
				break
			}
			if out.load != nil {
				return nil, usagef("an image can be loaded into Docker once in a build")
			}
			out.load = &load{}
			e.Output = out.load.open
		case client.ExporterTar, client.ExporterOCI:
			if dest == "" {
				dest = "-"
			}
			e.Output = out.file(dest, stdout)
		}
		out.entries = append(out.entries, e)
	}
	if d.engine && !d.containerd {
		for _, e := range out.entries {
			if e.Type == client.ExporterOCI || e.Type == client.ExporterDocker {
				return nil, fmt.Errorf("output type=%s: this Docker Engine's BuildKit cannot write it; use another daemon with --builder", e.Type)
			}
		}
	}
	return out, nil
}

// force sets an attribute of the exporter of a type that has no destination, and
// adds the exporter where there is none.
func force(entries *[]client.ExportEntry, kind, attr, value string) error {
	for _, e := range *entries {
		if e.Type == kind && e.Attrs["dest"] == "" {
			if attr != "" {
				e.Attrs[attr] = value
			}
			return nil
		}
	}
	e := client.ExportEntry{Type: kind, Attrs: map[string]string{}}
	if attr != "" {
		e.Attrs[attr] = value
	}
	*entries = append(*entries, e)
	return nil
}

// file is a file that an exporter writes. It takes its name only when the
// whole build has succeeded.
type file struct {
	name string
	temp *os.File
}

// file opens a destination when the exporter has something to write.
func (out *outputs) file(dest string, stdout io.Writer) filesync.FileOutputFunc {
	if dest == "-" {
		return func(map[string]string) (io.WriteCloser, error) { return nopCloser{stdout}, nil }
	}
	f := &file{name: dest}
	out.files = append(out.files, f)
	return func(map[string]string) (io.WriteCloser, error) {
		t, err := os.CreateTemp(filepath.Dir(f.name), "."+filepath.Base(f.name)+".*")
		f.temp = t
		return t, err
	}
}

type nopCloser struct{ io.Writer }

func (nopCloser) Close() error { return nil }

// finish gives the files their names if the build succeeded, and removes them
// otherwise.
func (out *outputs) finish(failed bool) error {
	var errs []error
	for _, f := range out.files {
		if f.temp == nil {
			continue
		}
		f.temp.Close()
		if failed {
			os.Remove(f.temp.Name())
			continue
		}
		err := os.Chmod(f.temp.Name(), 0o644)
		if err == nil {
			err = os.Rename(f.temp.Name(), f.name)
		}
		if err != nil {
			os.Remove(f.temp.Name())
			errs = append(errs, fmt.Errorf("write %s: %w", f.name, err))
		}
	}
	return errors.Join(errs...)
}
