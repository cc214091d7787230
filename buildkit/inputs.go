package buildkit

import (
	"bufio"
	"bytes"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"

	"github.com/moby/buildkit/client"
	"github.com/moby/buildkit/session/upload/uploadprovider"
	"github.com/moby/buildkit/util/archiveutil"
	"github.com/tonistiigi/fsutil"
)

// remote says whether a build context is something that the daemon fetches.
func remote(s string) bool {
	for _, p := range []string{"http://", "https://", "git://", "ssh://", "git@"} {
		if strings.HasPrefix(s, p) {
			return true
		}
	}
	return false
}

// mount gives the daemon access to a directory during the build.
func mount(so *client.SolveOpt, name, dir string) error {
	fs, err := fsutil.NewFS(dir)
	if err != nil {
		return fmt.Errorf("open the directory %s: %w", dir, err)
	}
	so.LocalMounts[name] = fs
	return nil
}

// inputs adds the build context and the Dockerfile to a request. The function
// that it returns removes temporary files; it is never nil.
func (o *Options) inputs(so *client.SolveOpt, stdin io.Reader) (cleanup func(), err error) {
	var temporary []string
	cleanup = func() {
		for _, dir := range temporary {
			os.RemoveAll(dir)
		}
	}
	// dockerfile makes a directory that holds only what r has, as Dockerfile.
	dockerfile := func(r io.Reader) error {
		dir, err := os.MkdirTemp("", "nabla-build")
		if err != nil {
			return err
		}
		temporary = append(temporary, dir)
		data, err := io.ReadAll(r)
		if err != nil {
			return fmt.Errorf("read the Dockerfile from standard input: %w", err)
		}
		if err := os.WriteFile(filepath.Join(dir, "Dockerfile"), data, 0o600); err != nil {
			return err
		}
		so.FrontendAttrs["filename"] = "Dockerfile"
		so.FrontendAttrs["dockerfilekey"] = "dockerfile"
		return mount(so, "dockerfile", dir)
	}
	local := func(name string) error {
		dir, base := filepath.Split(name)
		if dir == "" {
			dir = "."
		}
		if _, err := os.Stat(name); err != nil {
			return fmt.Errorf("the Dockerfile: %w; name another with -f", err)
		}
		so.FrontendAttrs["filename"] = base
		return mount(so, "dockerfile", dir)
	}
	switch {
	case o.Context == "-" && o.File == "-":
		return cleanup, usagef("standard input cannot be both the context and the Dockerfile")
	case o.Context == "-":
		r := bufio.NewReaderSize(stdin, 4096)
		head, err := r.Peek(1024)
		if err != nil && !errors.Is(err, io.EOF) {
			return cleanup, fmt.Errorf("read standard input: %w", err)
		}
		if !archiveutil.IsArchive(head) {
			if o.File != "" {
				return cleanup, usagef("standard input is not a tar file; for a Dockerfile on it leave out -f")
			}
			if len(bytes.TrimSpace(head)) == 0 {
				return cleanup, errors.New("standard input is empty: neither a tar file nor a Dockerfile")
			}
			if err := dockerfile(r); err != nil {
				return cleanup, err
			}
			dir, err := os.MkdirTemp("", "nabla-build")
			if err != nil {
				return cleanup, err
			}
			temporary = append(temporary, dir)
			return cleanup, mount(so, "context", dir)
		}
		up := uploadprovider.New()
		so.FrontendAttrs["context"] = up.Add(io.NopCloser(r))
		so.Session = append(so.Session, up)
		if o.File != "" {
			so.FrontendAttrs["filename"] = o.File // inside the tar file
		}
	case remote(o.Context):
		so.FrontendAttrs["context"] = o.Context
		switch {
		case o.File == "-":
			return cleanup, dockerfile(stdin)
		case filepath.IsAbs(o.File):
			so.FrontendAttrs["dockerfilekey"] = "dockerfile"
			return cleanup, local(o.File)
		case o.File != "":
			so.FrontendAttrs["filename"] = o.File // inside the context
		}
	default:
		if err := mount(so, "context", o.Context); err != nil {
			return cleanup, err
		}
		if abs, err := filepath.Abs(o.Context); err == nil {
			so.SharedKey = filepath.Base(abs)
		}
		switch o.File {
		case "-":
			return cleanup, dockerfile(stdin)
		case "":
			return cleanup, local(filepath.Join(o.Context, "Dockerfile"))
		}
		return cleanup, local(o.File)
	}
	return cleanup, nil
}

// contexts adds the named contexts of --build-context.
func (o *Options) contexts(so *client.SolveOpt) error {
	for _, s := range o.Contexts {
		name, value, ok := strings.Cut(s, "=")
		if !ok || name == "" || value == "" {
			return usagef("--build-context %q: not NAME=DIRECTORY, NAME=URL or NAME=docker-image://IMAGE", s)
		}
		name = strings.ToLower(name)
		if remote(value) || strings.HasPrefix(value, "docker-image://") {
			so.FrontendAttrs["context:"+name] = value
			continue
		}
		if strings.HasPrefix(value, "oci-layout://") || strings.HasPrefix(value, "target:") {
			return usagef("--build-context %q: neither oci-layout:// nor target: can be used here; docker buildx build takes them", s)
		}
		key := "_" + name // never that of the context or of the Dockerfile
		if err := mount(so, key, value); err != nil {
			return err
		}
		so.FrontendAttrs["context:"+name] = "local:" + key
	}
	return nil
}
