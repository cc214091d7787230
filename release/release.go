// Package release is what one build of nabla-build carries: its version and,
// embedded, the executables that go into every image it writes. It imports
// nothing of the project; Asset is the name at its heart.
package release

import (
	"embed"
	"errors"
	"fmt"
	"io"
	"io/fs"
)

// Version is the release, set by the linker (-X); "unknown" in a build
// without make.
var Version = "unknown"

// Frontend is the name of the release's BuildKit frontend image, set by the
// linker (-X); empty where the build named none.
var Frontend string

//go:embed all:assets
var assets embed.FS

// Asset names an embedded executable, which is also its name in the root
// directory of an image.
type Asset string

// The executables of a release.
const (
	Tender Asset = "nabla"      // tender and library OS
	Netd   Asset = "nabla-netd" // helper of the user network
)

// ErrNotBuilt says that this program was built without its executables.
var ErrNotBuilt = errors.New("built without the tender: run make")

// Content is an open asset. Reading it copies nothing beyond the reader's
// buffer, as the bytes are part of the program.
type Content interface {
	io.ReadSeekCloser
	io.ReaderAt
}

// Open opens an asset and tells its size in bytes. The error is ErrNotBuilt
// where the program was built without it.
func Open(a Asset) (Content, int64, error) {
	f, err := assets.Open("assets/" + string(a))
	if errors.Is(err, fs.ErrNotExist) {
		return nil, 0, ErrNotBuilt
	}
	if err != nil {
		return nil, 0, fmt.Errorf("open the embedded %s: %w", a, err)
	}
	fi, err := f.Stat()
	if err != nil {
		return nil, 0, fmt.Errorf("open the embedded %s: %w", a, err)
	}
	c, ok := f.(Content)
	if !ok {
		return nil, 0, fmt.Errorf("open the embedded %s: it is a %T", a, f)
	}
	return c, fi.Size(), nil
}
