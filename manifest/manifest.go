// Package manifest is the contract between the relinker and the tender: what
// to run and from which archives. It is JSON with a schema version; every field
// is checked on both sides. docs/oci-image.md describes it. It imports nothing
// of ours. The type at its heart is Manifest.
package manifest

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"path"
	"regexp"
	"strconv"
	"strings"
)

// SchemaVersion is the only version that this release reads and writes.
const SchemaVersion = 1

// Path is where the manifest stands in an image.
const Path = "/nabla.d/manifest.json"

// MaxSize bounds an encoded manifest, in bytes.
const MaxSize = 4 << 20

// Manifest says what a nabla image runs.
type Manifest struct {
	SchemaVersion int    `json:"schemaVersion"`
	OS            string `json:"os"`           // "linux"
	Architecture  string `json:"architecture"` // "amd64"
	Release       string `json:"release"`      // version of nabla-build that wrote it
	Guest         Guest  `json:"guest"`
	// Archives are the root file system's layers, lowest first.
	Archives []Archive `json:"archives"`
	// Ports are those that the image exposes.
	Ports []Port `json:"ports,omitempty"`
	// Network is the network mode if NABLA_NET does not choose one.
	Network string `json:"network,omitempty"`
	// Memory is the guest's memory limit in bytes; 0: the container's.
	Memory uint64 `json:"memory,omitempty"`
	// StopSignal is the image's, "SIGTERM" or a number; empty: SIGTERM.
	StopSignal string `json:"stopSignal,omitempty"`
	// Layout places objects at fixed addresses; may be empty.
	Layout []Placement `json:"layout,omitempty"`
	// Report is the link report beside the manifest.
	Report *File `json:"report,omitempty"`
}

// Guest is the program as the source image's configuration has it.
type Guest struct {
	// Entrypoint comes before the tender's own arguments, which are Cmd or what
	// replaces it.
	Entrypoint []string `json:"entrypoint,omitempty"`
	Cmd        []string `json:"cmd,omitempty"`
	Env        []string `json:"env,omitempty"`
	WorkingDir string   `json:"workingDir"`
	// UID, GID and Groups are the image's user, made numeric.
	UID    uint32   `json:"uid"`
	GID    uint32   `json:"gid"`
	Groups []uint32 `json:"groups,omitempty"`
}

// File is a file of the image with its SHA-256 digest ("sha256:" and 64 hex
// digits).
type File struct {
	Path   string `json:"path"`
	Digest string `json:"digest"`
	Size   int64  `json:"size"`
}

// Archive is a nabla archive, a file of the image or, with PartSize, several:
// see Part. In the single-file form it lies at Offset of the executable,
// page-aligned, and Path names nothing. Its Digest may also be a BLAKE3 one
// ("blake3:" and 64 hex digits): that takes a fraction of SHA-256's time.
type Archive struct {
	File
	Offset int64 `json:"offset,omitempty"`
	// PartSize is the size in bytes, a multiple of 4096, of each of the files
	// that hold the archive one after the other, but for the last, which may be
	// shorter; 0: one file holds all.
	PartSize int64 `json:"partSize,omitempty"`
	// Source is the digest of the uncompressed source layer (its diff ID).
	Source string `json:"source"`
}

// Parts is the number of files that hold the archive.
func (a Archive) Parts() int {
	if a.PartSize == 0 {
		return 1
	}
	return int((a.Size + a.PartSize - 1) / a.PartSize)
}

// Part is the path of part i, from 0, of an archive at path in parts.
func Part(path string, i int) string { return fmt.Sprintf("%s.%04d", path, i) }

// Port is an exposed port.
type Port struct {
	Port     uint16 `json:"port"`
	Protocol string `json:"protocol"` // tcp, udp
}

// Placement fixes an object's address: the layout plan.
type Placement struct {
	Path    string `json:"path"`
	Digest  string `json:"digest"`
	Address uint64 `json:"address"`
}

// Networks are the network modes.
var Networks = []string{"auto", "packet", "tap", "user", "none"}

// Decode reads and validates a manifest. Unknown fields are errors: the image
// wants something that this release does not know.
func Decode(r io.Reader) (*Manifest, error) {
	b, err := io.ReadAll(io.LimitReader(r, MaxSize+1))
	if err != nil {
		return nil, fmt.Errorf("manifest: %w", err)
	}
	if len(b) > MaxSize {
		return nil, fmt.Errorf("manifest: larger than %d bytes", MaxSize)
	}
	var version struct {
		SchemaVersion int `json:"schemaVersion"`
	}
	if err := json.Unmarshal(b, &version); err != nil {
		return nil, fmt.Errorf("manifest: not JSON: %w", err)
	}
	if version.SchemaVersion != SchemaVersion {
		return nil, fmt.Errorf("manifest: schema version %d, this release knows %d: relink the image with the release that runs it", version.SchemaVersion, SchemaVersion)
	}
	d := json.NewDecoder(bytes.NewReader(b))
	d.DisallowUnknownFields()
	m := new(Manifest)
	if err := d.Decode(m); err != nil {
		return nil, fmt.Errorf("manifest: %w", err)
	}
	if _, err := d.Token(); err != io.EOF {
		return nil, errors.New("manifest: something follows the JSON object")
	}
	if err := m.Validate(); err != nil {
		return nil, err
	}
	return m, nil
}

// Encode validates and writes a manifest; the same manifest gives the same
// bytes.
func (m *Manifest) Encode() ([]byte, error) {
	if err := m.Validate(); err != nil {
		return nil, err
	}
	b, err := json.MarshalIndent(m, "", "  ")
	if err != nil {
		return nil, fmt.Errorf("manifest: %w", err)
	}
	if b = append(b, '\n'); len(b) > MaxSize {
		return nil, fmt.Errorf("manifest: %d bytes, more than %d", len(b), MaxSize)
	}
	return b, nil
}

var archiveDigest = regexp.MustCompile(`^(sha256|blake3):[0-9a-f]{64}$`)
var digest = regexp.MustCompile(`^sha256:[0-9a-f]{64}$`)

// Bounds on what a manifest may hold.
const (
	maxStrings  = 65536
	maxString   = 1 << 20
	maxParts    = 1 << 16 // of one archive
	maxArchives = 1024
	maxPorts    = 1024
	maxLayout   = 65536
)

// Validate checks every field.
func (m *Manifest) Validate() error {
	var err error
	bad := func(format string, a ...any) {
		if err == nil {
			err = fmt.Errorf("manifest: "+format, a...)
		}
	}
	if m.SchemaVersion != SchemaVersion {
		bad("schema version %d, want %d", m.SchemaVersion, SchemaVersion)
	}
	if m.OS != "linux" || m.Architecture != "amd64" {
		bad("for %s/%s; nabla images are linux/amd64 only", m.OS, m.Architecture)
	}
	texts := func(what string, list []string) {
		if len(list) > maxStrings {
			bad("%s: %d entries, more than %d", what, len(list), maxStrings)
		}
		for _, s := range list {
			if len(s) > maxString || strings.IndexByte(s, 0) >= 0 {
				bad("%s: an entry is too long or holds a NUL byte", what)
			}
		}
	}
	texts("release", []string{m.Release})
	texts("entrypoint", m.Guest.Entrypoint)
	texts("cmd", m.Guest.Cmd)
	texts("env", m.Guest.Env)
	for _, e := range m.Guest.Env {
		if i := strings.IndexByte(e, '='); i <= 0 {
			bad("env: %.80q is not NAME=VALUE", e)
		}
	}
	cleanPath := func(what, p string) {
		if len(p) > 4096 || !path.IsAbs(p) || path.Clean(p) != p || strings.IndexByte(p, 0) >= 0 {
			bad("%s: %.80q is not a clean absolute path", what, p)
		}
	}
	cleanPath("workingDir", m.Guest.WorkingDir)
	if len(m.Guest.Groups) > 65536 {
		bad("groups: %d, more than Linux allows", len(m.Guest.Groups))
	}
	if len(m.Archives) > maxArchives {
		bad("%d archives, more than %d", len(m.Archives), maxArchives)
	}
	for i, a := range m.Archives {
		what := fmt.Sprintf("archive %d", i)
		cleanPath(what, a.Path)
		if !archiveDigest.MatchString(a.Digest) || !digest.MatchString(a.Source) {
			bad("%s: digest %.80q is not a blake3 or sha256 digest, or source %.80q not a sha256 digest", what, a.Digest, a.Source)
		}
		if a.PartSize < 0 || a.PartSize%4096 != 0 || a.PartSize != 0 && (a.Size-1)/a.PartSize >= maxParts {
			bad("%s: %d bytes in parts of %d are not possible", what, a.Size, a.PartSize)
		}
		if a.Size <= 0 || a.Offset < 0 || a.Offset%4096 != 0 || a.Offset > 1<<62-a.Size {
			bad("%s: size %d at offset %d is not possible", what, a.Size, a.Offset)
		}
	}
	if len(m.Ports) > maxPorts {
		bad("%d ports, more than %d", len(m.Ports), maxPorts)
	}
	for _, p := range m.Ports {
		if p.Port == 0 || p.Protocol != "tcp" && p.Protocol != "udp" {
			bad("port %d/%.20s: want 1 to 65535 and tcp or udp", p.Port, p.Protocol)
		}
	}
	if m.Network != "" {
		ok := false
		for _, n := range Networks {
			ok = ok || n == m.Network
		}
		if !ok {
			bad("network %.20q: want one of %s", m.Network, strings.Join(Networks, ", "))
		}
	}
	if s := m.StopSignal; s != "" && !strings.HasPrefix(s, "SIG") {
		if n, e := strconv.Atoi(s); e != nil || n < 1 || n > 64 {
			bad("stopSignal %.20q: want a name or a number from 1 to 64", s)
		}
	}
	if len(m.Layout) > maxLayout {
		bad("layout: %d objects, more than %d", len(m.Layout), maxLayout)
	}
	for _, l := range m.Layout {
		cleanPath("layout", l.Path)
		if !digest.MatchString(l.Digest) || l.Address%4096 != 0 || l.Address >= 1<<47 {
			bad("layout: %.80s: bad digest or address", l.Path)
		}
	}
	if r := m.Report; r != nil {
		cleanPath("report", r.Path)
		if !digest.MatchString(r.Digest) || r.Size <= 0 {
			bad("report: bad digest or size")
		}
	}
	return err
}
