package oci

import (
	"errors"
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"regexp"
	"strings"

	"github.com/google/go-containerregistry/pkg/authn"
	"github.com/google/go-containerregistry/pkg/name"
	v1 "github.com/google/go-containerregistry/pkg/v1"
)

// Kind says where an image is kept.
type Kind string

// The kinds of references, named as in a reference.
const (
	Registry      Kind = "docker"         // no prefix, or docker://
	Layout        Kind = "oci"            // oci:DIR[:TAG]
	DockerArchive Kind = "docker-archive" // docker-archive:FILE[:REF]
	RootFS        Kind = "rootfs"         // rootfs:DIR, a source only
)

// Reference names an image. The zero value is not valid.
type Reference struct {
	Kind Kind
	text string
	path string         // of a directory or file
	tag  string         // of Layout
	name name.Reference // of Registry and, if given, DockerArchive
}

// String is the reference as it was written.
func (r Reference) String() string { return r.text }

// Path is the directory or file; "" for a registry.
func (r Reference) Path() string { return r.path }

// Options are what reading and writing needs beside a reference. The zero
// value is good.
type Options struct {
	// Keychain has the credentials of registries; nil: the docker
	// configuration of the user.
	Keychain authn.Keychain
	// Transport makes the HTTP requests; nil: the default one.
	Transport http.RoundTripper
	// Insecure permits plain HTTP for registries that are not on loopback,
	// where it is always tried.
	Insecure bool
	// Config is the configuration of an image made of a directory.
	Config v1.Config
	// UserAgent is what registries see.
	UserAgent string
}

var unsupportedTransports = map[string]string{
	"dir":                "use oci:DIR (skopeo copy dir:... oci:...)",
	"oci-archive":        "unpack it and use oci:DIR",
	"docker-daemon":      "use docker save and docker-archive:FILE",
	"containers-storage": "use podman save --format oci-dir and oci:DIR",
	"ostree":             "use oci:DIR",
	"http":               "write the reference without it",
	"https":              "write the reference without it",
}

var layoutTag = regexp.MustCompile(`^[A-Za-z0-9][-A-Za-z0-9._@:+/]*$`)

// ErrReference is wrapped by errors about references that cannot be right
// whatever exists: a mistake in the command.
var ErrReference = errors.New("not an image reference")

// Parse reads a reference as crane and skopeo users write it; see the
// constants of Kind. Nothing is looked up, but for paths that contain a colon:
// the whole text is the path if it exists.
func Parse(s string) (Reference, error) {
	r := Reference{text: s}
	bad := func(format string, a ...any) (Reference, error) {
		return Reference{}, fmt.Errorf("%q: %w: %s", s, ErrReference, fmt.Sprintf(format, a...))
	}
	prefix, rest, ok := strings.Cut(s, ":")
	if !ok || strings.Contains(prefix, "/") {
		prefix = ""
	}
	switch Kind(prefix) {
	case Layout:
		r.Kind = Layout
		r.path, r.tag = rest, ""
		if i := strings.LastIndexByte(rest, ':'); i >= 0 && !strings.Contains(rest[i:], "/") && !exists(rest) {
			r.path, r.tag = rest[:i], rest[i+1:]
			if !layoutTag.MatchString(r.tag) {
				return bad("%q is not a tag", r.tag)
			}
		}
	case DockerArchive:
		r.Kind = DockerArchive
		r.path = rest
		if i := strings.IndexByte(rest, ':'); i >= 0 && !exists(rest) {
			r.path = rest[:i]
			n, err := name.NewTag(rest[i+1:], name.WeakValidation)
			if err != nil {
				return bad("%v", err)
			}
			r.name = n
		}
	case RootFS:
		r.Kind, r.path = RootFS, rest
	default:
		text := s
		if prefix == "docker" && strings.HasPrefix(rest, "//") {
			text = rest[2:]
		} else if why, ok := unsupportedTransports[prefix]; ok {
			return bad("the transport %q is not supported: %s", prefix, why)
		}
		n, err := name.ParseReference(text, name.WeakValidation)
		if err != nil {
			why := strings.ReplaceAll(err.Error(), "\n", " ")
			if text == "" {
				why = "it is empty"
			}
			if exists(text) {
				why += "; a directory or file is named with oci:, docker-archive: or rootfs:"
			}
			return bad("%s", why)
		}
		r.Kind, r.name = Registry, n
		return r, nil
	}
	if r.path == "" || strings.IndexByte(r.path, 0) >= 0 {
		return bad("no path after %q", prefix+":")
	}
	r.path = filepath.Clean(r.path)
	return r, nil
}

func exists(p string) bool {
	_, err := os.Lstat(p)
	return err == nil
}

// Name is the full name of an image of a registry, "" for others: what the
// annotation org.opencontainers.image.base.name takes.
func (r Reference) Name() string {
	if r.Kind != Registry {
		return ""
	}
	return r.name.Name()
}

// registry is the name with the options applied.
func (r Reference) registry(o Options) (name.Reference, error) {
	if !o.Insecure {
		return r.name, nil
	}
	return name.ParseReference(r.name.Name(), name.WeakValidation, name.Insecure)
}
