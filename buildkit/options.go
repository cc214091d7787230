package buildkit

import (
	"fmt"
	"os"
	"strings"

	"github.com/moby/buildkit/client"
	"github.com/tonistiigi/go-csvvalue"
)

// Options is one build, in the words of docker buildx build's flags. Values
// are as they are written there.
type Options struct {
	Frontend string // image of the frontend
	Context  string // directory, URL, or "-" for a tar file on Stdin
	File     string // Dockerfile, relative to the working directory; "-" is Stdin
	Target   string

	Tags, BuildArgs, Labels, Secrets, SSH, Platforms []string
	CacheFrom, CacheTo, Outputs, Attests             []string
	Contexts, AddHosts, Annotations, Allow           []string

	NoCache, Pull, Push, Load bool
	Insecure                  bool // plain HTTP to the registry that is pushed to

	MetadataFile, IIDFile string

	Progress string // auto, plain, tty, rawjson or quiet
}

// A UsageError is an option that cannot be understood.
type UsageError struct{ error }

func (e UsageError) Unwrap() error { return e.error }

func usagef(format string, a ...any) error { return UsageError{fmt.Errorf(format, a...)} }

// pairs puts NAME=VALUE options into attributes, their names behind prefix. A
// NAME alone takes the environment's value, or is left out, where environ is
// set; otherwise its value is empty.
func pairs(attrs map[string]string, prefix, flag string, in []string, environ bool) error {
	for _, s := range in {
		name, value, ok := strings.Cut(s, "=")
		if name == "" {
			return usagef("--%s %q: not NAME=VALUE", flag, s)
		}
		if !ok && environ {
			if value, ok = os.LookupEnv(name); !ok {
				continue
			}
		}
		attrs[prefix+name] = value
	}
	return nil
}

// attestations reads --attest type=TYPE,... into frontend attributes.
func attestations(attrs map[string]string, in []string) error {
	for _, s := range in {
		fields, err := csvvalue.Fields(s, nil)
		if err != nil {
			return usagef("--attest %q: %w", s, err)
		}
		var kind string
		var rest []string
		disabled := false
		for _, f := range fields {
			switch k, v, _ := strings.Cut(f, "="); k {
			case "type":
				kind = v
			case "disabled":
				disabled = v == "true" || v == "1" || v == ""
			default:
				rest = append(rest, f)
			}
		}
		switch {
		case kind == "":
			return usagef("--attest %q: say which with type=provenance or type=sbom", s)
		case disabled:
			delete(attrs, "attest:"+kind)
		default:
			attrs["attest:"+kind] = strings.Join(rest, ",")
		}
	}
	return nil
}

// disabled says whether an attestation was turned off.
func disabled(in []string, kind string) bool {
	for _, s := range in {
		if strings.Contains(s, "type="+kind) && strings.Contains(s, "disabled=") {
			return true
		}
	}
	return false
}

// output is one --output: buildx's short forms are a directory and "-". The
// destination stays in Attrs["dest"], as files are opened only when there is
// something to write.
func output(s string) (client.ExportEntry, error) {
	e := client.ExportEntry{Attrs: map[string]string{}}
	switch {
	case s == "-":
		e.Type, e.Attrs["dest"] = client.ExporterTar, "-"
		return e, nil
	case !strings.Contains(s, "="):
		e.Type, e.Attrs["dest"] = client.ExporterLocal, s
		return e, nil
	}
	fields, err := csvvalue.Fields(s, nil)
	if err != nil {
		return e, usagef("--output %q: %w", s, err)
	}
	for _, f := range fields {
		k, v, ok := strings.Cut(f, "=")
		if !ok {
			return e, usagef("--output %q: %q is not NAME=VALUE", s, f)
		}
		if k = strings.ToLower(k); k == "type" {
			e.Type = v
		} else {
			e.Attrs[k] = v
		}
	}
	switch e.Type {
	case "":
		return e, usagef("--output %q: say which type: image, registry, local, tar, oci, docker or cacheonly", s)
	case "registry":
		e.Type, e.Attrs["push"] = client.ExporterImage, "true"
	case client.ExporterImage, client.ExporterLocal, client.ExporterTar, client.ExporterOCI, client.ExporterDocker, "cacheonly":
	default:
		return e, usagef("--output %q: no such type; there are image, registry, local, tar, oci, docker and cacheonly", s)
	}
	return e, nil
}

// WritesStdout says whether one of the outputs takes standard output for
// itself.
func WritesStdout(outputs []string) bool {
	for _, s := range outputs {
		e, err := output(s)
		if err != nil {
			continue
		}
		dest := e.Attrs["dest"]
		if dest == "-" || dest == "" && (e.Type == client.ExporterTar || e.Type == client.ExporterOCI) {
			return true
		}
	}
	return false
}
