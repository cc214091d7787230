package daemons

import (
	"fmt"
	"io"
	"log"
	"net"
	"net/http"
	"os"
	"strings"
	"sync"
	"sync/atomic"

	"github.com/google/go-containerregistry/pkg/name"
	"github.com/google/go-containerregistry/pkg/registry"
	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/empty"
	"github.com/google/go-containerregistry/pkg/v1/mutate"
	"github.com/google/go-containerregistry/pkg/v1/remote"
	"github.com/google/go-containerregistry/pkg/v1/tarball"
)

// Registry is a registry over plain HTTP on the loopback address, which dockerd
// and buildkitd accept without configuration. Blobs are kept in files.
type Registry struct {
	Host string // address:port, the first part of image names

	dir    string
	server *http.Server
	pushed atomic.Int64

	mu     sync.Mutex
	refuse func(*http.Request) int
	user   string // who may use it, if not everybody
	secret string
}

// StartRegistry starts an empty registry.
func StartRegistry() (*Registry, error) {
	dir, err := os.MkdirTemp("", "nabla-registry")
	if err != nil {
		return nil, err
	}
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		os.RemoveAll(dir)
		return nil, err
	}
	r := &Registry{Host: l.Addr().String(), dir: dir}
	inner := registry.New(registry.WithBlobHandler(registry.NewDiskBlobHandler(dir)), registry.Logger(log.New(io.Discard, "", 0)))
	r.server = &http.Server{Handler: http.HandlerFunc(func(w http.ResponseWriter, req *http.Request) {
		r.mu.Lock()
		refuse, user, secret := r.refuse, r.user, r.secret
		r.mu.Unlock()
		if u, p, _ := req.BasicAuth(); user != "" && (u != user || p != secret) {
			w.Header().Set("WWW-Authenticate", `Basic realm="test"`)
			w.Header().Set("Content-Type", "application/json")
			w.WriteHeader(http.StatusUnauthorized)
			io.WriteString(w, `{"errors":[{"code":"UNAUTHORIZED","message":"log in first"}]}`)
			return
		}
		if refuse != nil {
			if status := refuse(req); status != 0 {
				w.Header().Set("Content-Type", "application/json")
				w.WriteHeader(status)
				fmt.Fprintf(w, `{"errors":[{"code":"DENIED","message":"this registry refuses: %s %s"}]}`, req.Method, req.URL.Path)
				return
			}
		}
		if req.Method == http.MethodPatch || req.Method == http.MethodPut || req.Method == http.MethodPost {
			req.Body = &counted{ReadCloser: req.Body, n: &r.pushed}
		}
		inner.ServeHTTP(w, req)
	})}
	go r.server.Serve(l)
	return r, nil
}

// counted counts what is read.
type counted struct {
	io.ReadCloser
	n *atomic.Int64
}

func (c *counted) Read(p []byte) (int, error) {
	n, err := c.ReadCloser.Read(p)
	c.n.Add(int64(n))
	return n, err
}

// Pushed is the number of bytes that were sent to the registry since it
// started: blobs and manifests.
func (r *Registry) Pushed() int64 { return r.pushed.Load() }

// Refuse answers the requests for which f gives a status that is not 0 with
// this status; nil ends it.
func (r *Registry) Refuse(f func(*http.Request) int) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.refuse = f
}

// Require wants a user name and password from now on.
func (r *Registry) Require(user, password string) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.user, r.secret = user, password
}

// Close stops the registry and removes what it stored.
func (r *Registry) Close() error {
	err := r.server.Close()
	os.RemoveAll(r.dir)
	return err
}

// Name is the full name of an image in the registry.
func (r *Registry) Name(repository string) string { return r.Host + "/" + repository }

// Ref is the name of an image in the registry for the packages of
// go-containerregistry.
func (r *Registry) Ref(repository string) (name.Reference, error) {
	return name.ParseReference(r.Name(repository), name.Insecure)
}

// Push writes an image to the registry and gives its full name.
func (r *Registry) Push(repository string, img v1.Image) (string, error) {
	ref, err := r.Ref(repository)
	if err != nil {
		return "", err
	}
	return r.Name(repository), remote.Write(ref, img)
}

// PushRoot makes an image of a root file system in a tar file, linux/amd64, and
// pushes it; edit, which may be nil, changes its configuration.
func (r *Registry) PushRoot(repository, tar string, edit func(*v1.Config)) (string, error) {
	layer, err := tarball.LayerFromFile(tar, tarball.WithCompressionLevel(1))
	if err != nil {
		return "", fmt.Errorf("read %s: %w", tar, err)
	}
	img, err := mutate.AppendLayers(empty.Image, layer)
	if err != nil {
		return "", err
	}
	cf, err := img.ConfigFile()
	if err != nil {
		return "", err
	}
	cf = cf.DeepCopy()
	cf.OS, cf.Architecture = "linux", "amd64"
	cf.Config.Env = []string{"PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"}
	if edit != nil {
		edit(&cf.Config)
	}
	if img, err = mutate.ConfigFile(img, cf); err != nil {
		return "", err
	}
	return r.Push(repository, img)
}

// Image reads an image of the registry; an index must have exactly one image
// for linux/amd64.
func (r *Registry) Image(repository string) (v1.Image, error) {
	ref, err := r.Ref(strings.TrimPrefix(repository, r.Host+"/"))
	if err != nil {
		return nil, err
	}
	return remote.Image(ref, remote.WithPlatform(v1.Platform{OS: "linux", Architecture: "amd64"}))
}

// Index reads an index of the registry.
func (r *Registry) Index(repository string) (v1.ImageIndex, error) {
	ref, err := r.Ref(strings.TrimPrefix(repository, r.Host+"/"))
	if err != nil {
		return nil, err
	}
	return remote.Index(ref)
}
