// Mkimage puts an OCI image together from a root file system tarball and a
// directory, without a container engine: the sample images for the demo and
// the tests, where no registry can be reached.
//
//	mkimage -base base.tar -add images/python/app:/app -workdir /app \
//	        -env K=V -expose 8080 -entrypoint '["python3","/app/server.py"]' OUT
//
// OUT is an OCI image layout (a directory); it is replaced whole. The same
// input gives the same digest.
package main

import (
	"archive/tar"
	"bytes"
	"encoding/json"
	"flag"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"strings"
	"time"

	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/empty"
	"github.com/google/go-containerregistry/pkg/v1/layout"
	"github.com/google/go-containerregistry/pkg/v1/mutate"
	"github.com/google/go-containerregistry/pkg/v1/tarball"
	"github.com/google/go-containerregistry/pkg/v1/types"
)

// epoch is the time of everything in the images: mkbase.sh's default.
var epoch = time.Unix(1700000000, 0).UTC()

type list []string

func (l *list) String() string     { return strings.Join(*l, " ") }
func (l *list) Set(s string) error { *l = append(*l, s); return nil }

func main() {
	if err := run(); err != nil {
		fmt.Fprintln(os.Stderr, "mkimage:", err)
		os.Exit(1)
	}
}

func run() error {
	var base, workdir, user, entrypoint, cmd string
	var add, env, expose list
	flag.StringVar(&base, "base", "", "root file system, a tar file")
	flag.Var(&add, "add", "DIR:PATH, a directory to add as a layer (repeatable)")
	flag.Var(&env, "env", "K=V (repeatable)")
	flag.Var(&expose, "expose", "port (repeatable)")
	flag.StringVar(&workdir, "workdir", "", "working directory")
	flag.StringVar(&user, "user", "", "user")
	flag.StringVar(&entrypoint, "entrypoint", "", "entrypoint, a JSON list")
	flag.StringVar(&cmd, "cmd", "", "command, a JSON list")
	flag.Parse()
	if flag.NArg() != 1 || base == "" {
		flag.Usage()
		os.Exit(2)
	}
	cfg := v1.Config{
		Env:          append([]string{"PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"}, env...),
		WorkingDir:   workdir,
		User:         user,
		ExposedPorts: map[string]struct{}{},
	}
	for _, p := range expose {
		cfg.ExposedPorts[p+"/tcp"] = struct{}{}
	}
	for text, to := range map[string]*[]string{entrypoint: &cfg.Entrypoint, cmd: &cfg.Cmd} {
		if text != "" {
			if err := json.Unmarshal([]byte(text), to); err != nil {
				return fmt.Errorf("%q is not a JSON list of strings: %w", text, err)
			}
		}
	}
	layers := []v1.Layer{}
	l, err := tarball.LayerFromFile(base, tarball.WithMediaType(types.OCILayer))
	if err != nil {
		return fmt.Errorf("base %s: %w", base, err)
	}
	layers = append(layers, l)
	for _, a := range add {
		dir, at, ok := strings.Cut(a, ":")
		if !ok {
			return fmt.Errorf("-add %s: want DIR:PATH", a)
		}
		l, err := dirLayer(dir, at)
		if err != nil {
			return fmt.Errorf("-add %s: %w", a, err)
		}
		layers = append(layers, l)
	}
	img := mutate.MediaType(mutate.ConfigMediaType(empty.Image, types.OCIConfigJSON), types.OCIManifestSchema1)
	for _, l := range layers {
		if img, err = mutate.Append(img, mutate.Addendum{Layer: l, History: v1.History{Created: v1.Time{Time: epoch}, CreatedBy: "mkimage"}}); err != nil {
			return err
		}
	}
	cf, err := img.ConfigFile()
	if err != nil {
		return err
	}
	cf = cf.DeepCopy()
	cf.OS, cf.Architecture, cf.Config, cf.Created = "linux", "amd64", cfg, v1.Time{Time: epoch}
	if img, err = mutate.ConfigFile(img, cf); err != nil {
		return err
	}
	out := flag.Arg(0)
	tmp := out + ".tmp"
	if err := os.RemoveAll(tmp); err != nil {
		return err
	}
	p, err := layout.Write(tmp, empty.Index)
	if err != nil {
		return err
	}
	if err := p.AppendImage(img); err != nil {
		return err
	}
	if err := os.RemoveAll(out); err != nil {
		return err
	}
	return os.Rename(tmp, out)
}

// dirLayer is a layer with the content of dir at path at, owned by root.
func dirLayer(dir, at string) (v1.Layer, error) {
	var buf bytes.Buffer
	w := tar.NewWriter(&buf)
	at = strings.Trim(path.Clean(at), "/")
	err := filepath.WalkDir(dir, func(name string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		rel, err := filepath.Rel(dir, name)
		if err != nil {
			return err
		}
		if d.Name() == "__pycache__" {
			return filepath.SkipDir
		}
		fi, err := d.Info()
		if err != nil {
			return err
		}
		h := &tar.Header{Name: path.Join(at, filepath.ToSlash(rel)), ModTime: epoch, Format: tar.FormatPAX}
		switch {
		case d.IsDir():
			h.Typeflag, h.Mode, h.Name = tar.TypeDir, 0o755, h.Name+"/"
		case fi.Mode().IsRegular():
			h.Typeflag, h.Mode, h.Size = tar.TypeReg, 0o644|int64(fi.Mode().Perm()&0o111), fi.Size()
		default:
			return fmt.Errorf("%s: neither a file nor a directory", name)
		}
		if err := w.WriteHeader(h); err != nil || d.IsDir() {
			return err
		}
		f, err := os.Open(name)
		if err != nil {
			return err
		}
		defer f.Close()
		_, err = io.Copy(w, f)
		return err
	})
	if err != nil {
		return nil, err
	}
	if err := w.Close(); err != nil {
		return nil, err
	}
	return tarball.LayerFromOpener(func() (io.ReadCloser, error) {
		return io.NopCloser(bytes.NewReader(buf.Bytes())), nil
	}, tarball.WithMediaType(types.OCILayer))
}
