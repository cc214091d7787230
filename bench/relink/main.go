// Command relink measures nabla-build relink on an image of the given size,
// made of this machine's own files below /usr: layer content per second of one
// core, and peak memory. It fails where a limit of the project is not kept.
// `make relink-bench` builds what it needs and runs it.
package main

import (
	"archive/tar"
	"compress/gzip"
	"errors"
	"flag"
	"fmt"
	"io"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"syscall"
	"time"

	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/empty"
	"github.com/google/go-containerregistry/pkg/v1/layout"
	"github.com/google/go-containerregistry/pkg/v1/mutate"
	"github.com/google/go-containerregistry/pkg/v1/stream"
)

func main() {
	bin := flag.String("bin", "bin/nabla-build", "the program")
	mib := flag.Int64("size", 1024, "layer content in MiB")
	rate := flag.Float64("rate", 100, "least MB/s of layer content on one core")
	peak := flag.Int64("peak", 256, "most memory in MiB")
	flag.Parse()
	if err := run(*bin, *mib<<20, *rate, *peak); err != nil {
		fmt.Fprintln(os.Stderr, "relink-bench:", err)
		os.Exit(1)
	}
}

// run relinks the same content twice: from layers that are not compressed, which
// is the relinker's own rate, and from gzip'ed ones, where the time to undo that
// comes on top.
func run(bin string, size int64, rate float64, peak int64) error {
	got, rss, err := measure(bin, size, "stored layers", gzip.NoCompression)
	if err != nil {
		return err
	}
	if got < rate {
		err = fmt.Errorf("%.0f MB/s of layer content, at least %.0f are wanted", got, rate)
	}
	_, rss2, err2 := measure(bin, size, "gzip'ed layers", gzip.DefaultCompression)
	if rss = max(rss, rss2); rss > peak {
		err = errors.Join(err, fmt.Errorf("%d MiB of memory, at most %d are wanted", rss, peak))
	}
	return errors.Join(err, err2)
}

// measure relinks an image made for it and returns the MB of layer content in a
// second of one core, and the peak memory in MiB.
func measure(bin string, size int64, what string, level int) (rate float64, rss int64, err error) {
	dir, err := os.MkdirTemp("", "relink-bench")
	if err != nil {
		return 0, 0, err
	}
	defer os.RemoveAll(dir)
	src := filepath.Join(dir, "src")
	n, err := source(src, size, 4, level)
	if err != nil {
		return 0, 0, err
	}
	// One core: the process may run on one only.
	cmd := exec.Command("taskset", "-c", "0", bin, "relink", "-q", "oci:"+src, "oci:"+filepath.Join(dir, "out"), "--entrypoint", "/relink-bench")
	cmd.Env = append(os.Environ(), "TMPDIR="+dir)
	cmd.Stdout, cmd.Stderr = os.Stdout, os.Stderr
	begin := time.Now()
	if err := cmd.Run(); err != nil {
		return 0, 0, err
	}
	wall := time.Since(begin)
	st := cmd.ProcessState
	ru := st.SysUsage().(*syscall.Rusage)
	cpu := st.UserTime() + st.SystemTime()
	rate, rss = float64(n)/1e6/cpu.Seconds(), ru.Maxrss>>10
	fmt.Printf("relink, %s: %.0f MB of content, %.1f s of CPU (%.1f user, %.1f system), %.1f s passed: %.0f MB/s of one core; peak memory %d MiB\n",
		what, float64(n)/1e6, cpu.Seconds(), st.UserTime().Seconds(), st.SystemTime().Seconds(), wall.Seconds(), rate, rss)
	return rate, rss, nil
}

var errFull = errors.New("enough")

// source writes an OCI layout with about size bytes in some layers, gzip'ed at
// level.
func source(dir string, size int64, layers, level int) (total int64, err error) {
	var paths []string
	var sum int64
	err = filepath.WalkDir("/usr", func(p string, d fs.DirEntry, err error) error {
		if err != nil || !d.Type().IsRegular() {
			return nil
		}
		fi, err := d.Info()
		if err != nil || fi.Size() > 256<<20 {
			return nil
		}
		paths = append(paths, p)
		if sum += fi.Size(); sum > size {
			return errFull
		}
		return nil
	})
	if err != nil && err != errFull {
		return 0, err
	}
	var adds []mutate.Addendum
	per := (len(paths) + layers - 1) / layers
	for i := range layers {
		part := paths[min(i*per, len(paths)):min((i+1)*per, len(paths))]
		pr, pw := io.Pipe()
		go func() { pw.CloseWithError(writeTar(pw, part, i == 0, &total)) }()
		adds = append(adds, mutate.Addendum{Layer: stream.NewLayer(pr, stream.WithCompressionLevel(level))})
	}
	img, err := mutate.ConfigFile(empty.Image, &v1.ConfigFile{OS: "linux", Architecture: "amd64", RootFS: v1.RootFS{Type: "layers"}})
	if err != nil {
		return 0, err
	}
	p, err := layout.Write(dir, empty.Index)
	if err != nil {
		return 0, err
	}
	// One after the other, so that total is counted by one goroutine at a time.
	for _, a := range adds {
		one, err := mutate.Append(empty.Image, a)
		if err != nil {
			return 0, err
		}
		if err := p.WriteImage(one); err != nil {
			return 0, err
		}
	}
	if img, err = mutate.Append(img, adds...); err != nil {
		return 0, err
	}
	return total, appendWritten(p, img)
}

// appendWritten adds an image whose layers are in the layout already.
func appendWritten(p layout.Path, img v1.Image) error {
	for _, f := range []func() ([]byte, v1.Hash, error){
		func() ([]byte, v1.Hash, error) {
			b, err := img.RawConfigFile()
			h, e := img.ConfigName()
			return b, h, errors.Join(err, e)
		},
		func() ([]byte, v1.Hash, error) {
			b, err := img.RawManifest()
			h, e := img.Digest()
			return b, h, errors.Join(err, e)
		},
	} {
		b, h, err := f()
		if err != nil {
			return err
		}
		if err := os.WriteFile(filepath.Join(string(p), "blobs", h.Algorithm, h.Hex), b, 0o644); err != nil {
			return err
		}
	}
	m, err := img.Manifest()
	if err != nil {
		return err
	}
	d, err := img.Digest()
	if err != nil {
		return err
	}
	n, err := img.Size()
	if err != nil {
		return err
	}
	return p.AppendDescriptor(v1.Descriptor{MediaType: m.MediaType, Digest: d, Size: n})
}

func writeTar(w io.Writer, paths []string, first bool, total *int64) error {
	c := &count{w: w, n: total}
	tw := tar.NewWriter(c)
	if first {
		// A program that needs nothing else: the start of this one.
		exe, err := os.Executable()
		if err != nil {
			return err
		}
		if err := add(tw, exe, "relink-bench"); err != nil {
			return err
		}
	}
	for _, p := range paths {
		if err := add(tw, p, p[1:]); err != nil {
			return err
		}
	}
	return tw.Close()
}

func add(tw *tar.Writer, p, name string) error {
	f, err := os.Open(p)
	if err != nil {
		return nil
	}
	defer f.Close()
	fi, err := f.Stat()
	if err != nil {
		return err
	}
	h, err := tar.FileInfoHeader(fi, "")
	if err != nil {
		return err
	}
	h.Name = name
	if err := tw.WriteHeader(h); err != nil {
		return err
	}
	_, err = io.CopyN(tw, f, h.Size)
	return err
}

type count struct {
	w io.Writer
	n *int64
}

func (c *count) Write(p []byte) (int, error) {
	n, err := c.w.Write(p)
	*c.n += int64(n)
	return n, err
}
