package buildkit

import (
	"context"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"io"

	"github.com/distribution/reference"
	"github.com/docker/cli/cli/config"
	"github.com/google/go-containerregistry/pkg/authn"
	"github.com/moby/moby/api/types/jsonstream"
	"github.com/moby/moby/api/types/registry"
	docker "github.com/moby/moby/client"
)

// load passes an image from the daemon to the Docker Engine, as a stream.
type load struct {
	w    *io.PipeWriter
	done chan error
}

// open is called when the daemon begins to send.
func (l *load) open(map[string]string) (io.WriteCloser, error) {
	api, err := engineAPI()
	if err != nil {
		return nil, fmt.Errorf("load the image: %w", err)
	}
	r, w := io.Pipe()
	l.w, l.done = w, make(chan error, 1)
	go func() {
		err := func() error {
			res, err := api.ImageLoad(context.Background(), r)
			if err != nil {
				return err
			}
			defer res.Close()
			return messages(res, nil)
		}()
		r.CloseWithError(errors.Join(err, io.ErrClosedPipe)) // further writes fail
		l.done <- err
	}()
	return w, nil
}

// wait ends the stream and waits for the Engine. failed is why the build did
// not succeed, or nil.
func (l *load) wait(failed error) error {
	if l.w == nil {
		return nil
	}
	if failed != nil {
		l.w.CloseWithError(failed)
		<-l.done
		return nil
	}
	l.w.Close()
	if err := <-l.done; err != nil {
		return fmt.Errorf("load the image into Docker: %w", err)
	}
	return nil
}

// messages reads what the Engine says of its progress until the end, or the
// first error.
func messages(r io.Reader, progress func(jsonstream.Message)) error {
	d := json.NewDecoder(r)
	for {
		var m jsonstream.Message
		switch err := d.Decode(&m); {
		case errors.Is(err, io.EOF):
			return nil
		case err != nil:
			return err
		case m.Error != nil:
			return m.Error
		}
		if progress != nil {
			progress(m)
		}
	}
}

// enginePush makes the Docker Engine push an image that it stores, and gives
// the digest that the registry then has.
func enginePush(ctx context.Context, name string, progress func(jsonstream.Message)) (digest string, err error) {
	api, err := engineAPI()
	if err != nil {
		return "", err
	}
	auth, err := registryAuth(name)
	if err != nil {
		return "", err
	}
	r, err := api.ImagePush(ctx, name, docker.ImagePushOptions{RegistryAuth: auth})
	if err != nil {
		return "", err
	}
	defer r.Close()
	if err := messages(r, func(m jsonstream.Message) {
		var aux struct{ Digest string }
		if m.Aux != nil && json.Unmarshal(*m.Aux, &aux) == nil && aux.Digest != "" {
			digest = aux.Digest
		}
		progress(m)
	}); err != nil {
		return "", err
	}
	return digest, nil
}

// registryAuth is what the user is logged in to an image's registry with, as
// the Engine wants it in a header.
func registryAuth(name string) (string, error) {
	ref, err := reference.ParseNormalizedNamed(name)
	if err != nil {
		return "", err
	}
	host := reference.Domain(ref)
	if plain, err := reference.ParseNormalizedNamed("x"); err == nil && host == reference.Domain(plain) {
		host = authn.DefaultAuthKey // where names without a registry are, in the file
	}
	a, err := config.LoadDefaultConfigFile(io.Discard).GetAuthConfig(host)
	if err != nil {
		return "", fmt.Errorf("credentials for %s: %w", host, err)
	}
	b, err := json.Marshal(registry.AuthConfig{
		Username: a.Username, Password: a.Password, Auth: a.Auth,
		ServerAddress: a.ServerAddress, IdentityToken: a.IdentityToken, RegistryToken: a.RegistryToken,
	})
	return base64.URLEncoding.EncodeToString(b), err
}
