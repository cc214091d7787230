// Package step is what the frontend's image does when a build runs it as a
// step: it relinks directories that are mounted beside it. The frontend writes
// the command lines (Tender, Layer, Manifest, Executable) and Run carries them
// out, in the same release of the program. It may import oci/image; the type at
// its heart is Layer.
package step

import (
	"context"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"time"

	v1 "github.com/google/go-containerregistry/pkg/v1"

	"github.com/nabla-build/nabla-build/link"
	"github.com/nabla-build/nabla-build/oci/image"
	"github.com/nabla-build/nabla-build/oci/rootfs"
	"github.com/nabla-build/nabla-build/release"
)

// Program is where the program is in the frontend's image.
const Program = "/nabla-frontend"

// Where a step's mounts are.
const (
	Out   = "/out"   // the nabla image's root so far; becomes its next layer
	Upper = "/upper" // the root file system after a step of the Dockerfile
	Lower = "/lower" // and before it
	Note  = "/note"  // what the step says of its result
	Notes = "/notes" // directories 0, 1, ...: the notes of earlier steps
	Image = "/image" // the whole image
	Temp  = "/tmp"
)

// Names of files.
const (
	noteFile = "piece.json"
	// ReplyFile is the Reply beside the manifest, where there is something to say.
	ReplyFile = "build.json"
	// ReportFile is the link report in the note of the manifest step.
	ReportFile = "report.json"
	// ExecutableFile is the self-contained executable in the last step's result.
	ExecutableFile = "nabla"
)

// Request is what the manifest step gets, in its environment.
type Request struct {
	Config   v1.Config      `json:"config"`
	Settings image.Settings `json:"settings"`
}

// requestChunk is how much of a request one variable of the environment holds, in
// bytes: execve(2) takes 128 KiB in one string.
const requestChunk = 96 << 10

// RequestVariable is the name of the variable for part i of a request.
func RequestVariable(i int) string { return "NABLA_REQUEST_" + strconv.Itoa(i) }

// Env is the request as the values of environment variables.
func (r Request) Env() ([]string, error) {
	b, err := json.Marshal(r)
	if err != nil {
		return nil, err
	}
	var out []string
	for c := range slices.Chunk(b, requestChunk) {
		out = append(out, string(c))
	}
	return out, nil
}

// request reads it from the environment.
func request() (r Request, err error) {
	var b []byte
	for i := 0; ; i++ {
		v, ok := os.LookupEnv(RequestVariable(i))
		if !ok {
			break
		}
		b = append(b, v...)
	}
	if err := json.Unmarshal(b, &r); err != nil {
		return r, fmt.Errorf("the request in the environment: %w", err)
	}
	return r, nil
}

// Reply is what the manifest step says. It is part of the image, as BuildKit
// keeps what an image is made of in exported caches but nothing else. With
// Problem there is no manifest.
type Reply struct {
	// Problem says why the image cannot be run, for the one who wrote the
	// Dockerfile; the step itself succeeds then.
	Problem  string   `json:"problem,omitempty"`
	Warnings []string `json:"warnings,omitempty"`
}

// Layer is a step that relinks what one step of a Dockerfile changed.
type Layer struct {
	Lower bool       // Lower is mounted
	Clamp *time.Time // SOURCE_DATE_EPOCH
}

// Command lines. The release is in them so that another one, pulled
// meanwhile, is told apart.

func (l Layer) Args() []string {
	args := []string{Program, "layer", "-release", release.Version}
	if l.Lower {
		args = append(args, "-lower")
	}
	if l.Clamp != nil {
		args = append(args, "-clamp", strconv.FormatInt(l.Clamp.Unix(), 10))
	}
	return args
}

// TenderArgs is the step that makes the first layer, in Out.
func TenderArgs() []string { return []string{Program, "tender", "-release", release.Version} }

// ManifestArgs is the step that makes the last layer of n archives, in Out.
func ManifestArgs(n int) []string {
	return []string{Program, "manifest", "-release", release.Version, "-archives", strconv.Itoa(n)}
}

// ExecutableArgs is the step that writes the self-contained executable of Image
// to Out.
func ExecutableArgs() []string { return []string{Program, "executable", "-release", release.Version} }

// Run carries out a command line of the above without the program's name.
func Run(ctx context.Context, args []string, stdout io.Writer) error {
	if len(args) == 0 {
		return errors.New("no step is named")
	}
	f := flag.NewFlagSet(args[0], flag.ContinueOnError)
	f.SetOutput(io.Discard)
	version := f.String("release", "", "release of the frontend")
	lower := f.Bool("lower", false, "something is mounted on "+Lower)
	clamp := f.String("clamp", "", "latest time, in seconds")
	archives := f.Int("archives", 0, "number of archives")
	if err := f.Parse(args[1:]); err != nil {
		return fmt.Errorf("step %s: %w", args[0], err)
	}
	if *version != release.Version {
		return fmt.Errorf("the frontend is of release %s but its image, run as a step of the build, of release %s: the tag has moved; name the frontend by digest", *version, release.Version)
	}
	out := image.Root{Dir: Out}
	switch args[0] {
	case "tender":
		return out.AddTender()
	case "layer":
		o := rootfs.Options{Seconds: true, NoStubs: true}
		if *lower {
			o.Lower = Lower
		}
		if *clamp != "" {
			n, err := strconv.ParseInt(*clamp, 10, 64)
			if err != nil {
				return fmt.Errorf("-clamp: %w", err)
			}
			t := time.Unix(n, 0).UTC()
			o.Clamp = &t
		}
		return layer(ctx, out, o, stdout)
	case "manifest":
		return last(out, *archives, stdout)
	case "executable":
		return executable(ctx)
	}
	return fmt.Errorf("no such step: %s", args[0])
}

func layer(ctx context.Context, out image.Root, o rootfs.Options, stdout io.Writer) error {
	p, err := out.AddArchive(ctx, func(w io.Writer) error { return rootfs.Write(ctx, w, Upper, o) }, link.Options{TempDir: Temp})
	if err != nil {
		return err
	}
	s := p.Report.Sites
	fmt.Fprintf(stdout, "%d entries, %.1f MB; call sites: %d found, %d rewritten, %d left to the trap\n",
		p.Report.Entries, float64(p.Archive.Size)/1e6, s.Found, s.Rewritten, s.Left)
	return writeJSON(filepath.Join(Note, noteFile), p)
}

func last(out image.Root, n int, stdout io.Writer) error {
	req, err := request()
	if err != nil {
		return err
	}
	pieces := make([]image.Piece, n)
	for i := range pieces {
		if err := readJSON(filepath.Join(Notes, strconv.Itoa(i), noteFile), &pieces[i]); err != nil {
			return err
		}
	}
	m, rep, warnings, err := out.AddManifest(pieces, req.Config, req.Settings)
	var wrong image.ConfigError
	if errors.As(err, &wrong) {
		return reply(out, Reply{Problem: wrong.Error()})
	}
	if err != nil {
		return err
	}
	var sum link.Sites
	var size int64
	for i, l := range rep.Layers {
		sum.Found += l.Sites.Found
		sum.Rewritten += l.Sites.Rewritten
		sum.Left += l.Sites.Left
		size += m.Archives[i].Size
		for _, w := range l.Warnings {
			warnings = append(warnings, fmt.Sprintf("archive %d: %s", i+1, w))
		}
	}
	fmt.Fprintf(stdout, "call sites: %d found, %d rewritten, %d left to the trap; %d archives, %.1f MB\n", sum.Found, sum.Rewritten, sum.Left, len(pieces), float64(size)/1e6)
	if len(warnings) > 0 {
		if err := reply(out, Reply{Warnings: warnings}); err != nil {
			return err
		}
	}
	return writeJSON(filepath.Join(Note, ReportFile), rep)
}

func reply(out image.Root, r Reply) error {
	b, err := json.Marshal(r)
	if err != nil {
		return err
	}
	return out.AddNote(ReplyFile, append(b, '\n'))
}

func executable(ctx context.Context) error {
	f, err := os.OpenFile(filepath.Join(Out, ExecutableFile), os.O_CREATE|os.O_WRONLY|os.O_TRUNC, 0o755)
	if err != nil {
		return err
	}
	defer f.Close()
	if err := (image.Root{Dir: Image}).WriteExecutable(ctx, f); err != nil {
		return err
	}
	if err := errors.Join(f.Chmod(0o755), f.Close()); err != nil {
		return err
	}
	return os.Chtimes(f.Name(), time.Unix(0, 0), time.Unix(0, 0))
}

func readJSON(name string, v any) error {
	b, err := os.ReadFile(name)
	if err != nil {
		return err
	}
	if err := json.Unmarshal(b, v); err != nil {
		return fmt.Errorf("%s: %w", name, err)
	}
	return nil
}

func writeJSON(name string, v any) error {
	b, err := json.MarshalIndent(v, "", "  ")
	if err != nil {
		return err
	}
	return os.WriteFile(name, append(b, '\n'), 0o644)
}
