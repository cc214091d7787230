package frontend

import (
	"encoding/json"
	"fmt"
	"maps"
	"slices"
	"strconv"
	"strings"

	"github.com/docker/go-units"

	"github.com/nabla-build/nabla-build/manifest"
	"github.com/nabla-build/nabla-build/release"
)

// options are those of nabla. They come as build arguments or as options of
// the frontend with the prefix "nabla."; docs/frontend.md lists them.
type options struct {
	entrypoint []string // nil: the image's
	memory     uint64
	net        string
	log        string
	keepLayers bool
	archives   []string
	singleFile bool
	report     bool
}

// prefix is that of option names.
const prefix = "nabla."

// setters reads the value of each option.
var setters = map[string]func(*options, string) error{
	"entrypoint": func(o *options, v string) error {
		if !strings.HasPrefix(v, "[") {
			o.entrypoint = strings.Fields(v)
		} else if err := json.Unmarshal([]byte(v), &o.entrypoint); err != nil {
			return fmt.Errorf("not a JSON array of strings: %w", err)
		}
		if len(o.entrypoint) == 0 {
			return fmt.Errorf("it names no program")
		}
		return nil
	},
	"memory": func(o *options, v string) error {
		n, err := units.RAMInBytes(v)
		if err != nil || n <= 0 {
			return fmt.Errorf("not a number of bytes such as 512m")
		}
		o.memory = uint64(n)
		return nil
	},
	"net": func(o *options, v string) error { return oneOf(&o.net, v, manifest.Networks) },
	"log": func(o *options, v string) error { return oneOf(&o.log, v, []string{"error", "info", "debug"}) },
	"archives": func(o *options, v string) error {
		for name := range strings.SplitSeq(v, ",") {
			if name = strings.TrimSpace(name); name == "" {
				return fmt.Errorf("an empty name")
			}
			o.archives = append(o.archives, name)
		}
		return nil
	},
	"keep-layers": func(o *options, v string) error { return boolean(&o.keepLayers, v) },
	"single-file": func(o *options, v string) error { return boolean(&o.singleFile, v) },
	"report":      func(o *options, v string) error { return boolean(&o.report, v) },
}

func oneOf(to *string, v string, values []string) error {
	if !slices.Contains(values, v) {
		return fmt.Errorf("want one of %s", strings.Join(values, ", "))
	}
	*to = v
	return nil
}

func boolean(to *bool, v string) error {
	b, err := strconv.ParseBool(v)
	if err != nil {
		return fmt.Errorf("want 1 or 0")
	}
	*to = b
	return nil
}

// parseOptions reads the options of a build. An option with an empty value is
// not set.
func parseOptions(opts map[string]string) (options, error) {
	o := options{keepLayers: true}
	for _, k := range slices.Sorted(maps.Keys(opts)) {
		name, ok := strings.CutPrefix(strings.TrimPrefix(k, "build-arg:"), prefix)
		if !ok || opts[k] == "" {
			continue
		}
		set := setters[name]
		if set == nil {
			return o, fmt.Errorf("option %s%s: this frontend, of release %s, knows only %s%s; options of another release need the frontend of that release", prefix, name, release.Version,
				prefix, strings.Join(slices.Sorted(maps.Keys(setters)), ", "+prefix))
		}
		if err := set(&o, opts[k]); err != nil {
			return o, fmt.Errorf("option %s%s=%q: %w", prefix, name, opts[k], err)
		}
	}
	if o.report && o.singleFile {
		return o, fmt.Errorf("options %sreport and %ssingle-file: one build has one result", prefix, prefix)
	}
	return o, nil
}
