package tender

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"os"
	"unsafe"

	"golang.org/x/sys/unix"

	"github.com/nabla-build/nabla-build/manifest"
	"github.com/nabla-build/nabla-build/selfexe"
)

// image is what the tender was started to run: the manifest, the archives,
// mapped, and the helper of the user network.
type image struct {
	manifest *manifest.Manifest
	archives [][]byte
	single   bool                     // behind the tender's own executable
	netd     func() (*os.File, error) // opens the helper's executable
}

// openImage finds the image: behind the tender's own executable, or beside it
// in the container's file system.
func openImage() (*image, error) {
	exe, err := os.Open("/proc/self/exe")
	if err != nil {
		return nil, fmt.Errorf("open the tender's own executable: %w (is /proc mounted?)", err)
	}
	defer exe.Close()
	fi, err := exe.Stat()
	if err != nil {
		return nil, err
	}
	sections, err := selfexe.Read(exe, fi.Size())
	switch {
	case errors.Is(err, selfexe.ErrNone):
		return openContainerImage()
	case err != nil:
		return nil, fmt.Errorf("read what is behind the tender's executable: %w", err)
	}
	im := &image{single: true}
	var archives []selfexe.Section
	for _, s := range sections {
		switch s.Kind {
		case selfexe.Manifest:
			if s.Size > manifest.MaxSize {
				return nil, fmt.Errorf("manifest: %d bytes, more than %d", s.Size, manifest.MaxSize)
			}
			if im.manifest, err = manifest.Decode(s.Reader(exe)); err != nil {
				return nil, err
			}
		case selfexe.Archive:
			archives = append(archives, s)
		case selfexe.Netd:
			im.netd = func() (*os.File, error) { return extract(s) }
		}
	}
	if im.manifest == nil {
		return nil, errors.New("the self-contained executable holds no manifest: make it again with nabla-build link")
	}
	if len(archives) != len(im.manifest.Archives) {
		return nil, fmt.Errorf("the self-contained executable holds %d archives, its manifest names %d: make it again with nabla-build link", len(archives), len(im.manifest.Archives))
	}
	for i, s := range archives {
		if s.Size != im.manifest.Archives[i].Size {
			return nil, fmt.Errorf("archive %d has %d bytes, the manifest says %d", i, s.Size, im.manifest.Archives[i].Size)
		}
		b, err := mapFile(exe, s.Offset, s.Size)
		if err != nil {
			return nil, fmt.Errorf("map archive %d: %w", i, err)
		}
		im.archives = append(im.archives, b)
	}
	return im, nil
}

func openContainerImage() (*image, error) {
	b, err := os.ReadFile(manifest.Path)
	if err != nil {
		return nil, fmt.Errorf("read the manifest: %w (the tender runs in an image that nabla-build wrote, or with one behind it: nabla-build link)", err)
	}
	im := &image{netd: func() (*os.File, error) { return os.Open("/nabla-netd") }}
	if im.manifest, err = manifest.Decode(bytes.NewReader(b)); err != nil {
		return nil, err
	}
	for _, a := range im.manifest.Archives {
		b, err := mapArchive(a)
		if err != nil {
			return nil, fmt.Errorf("map archive %s: %w", a.Path, err)
		}
		im.archives = append(im.archives, b)
	}
	return im, nil
}

// mapArchive maps the file, or the files one behind the other, of an archive.
func mapArchive(a manifest.Archive) ([]byte, error) {
	if a.PartSize == 0 {
		f, err := openPart(a.Path, a.Size)
		if err != nil {
			return nil, err
		}
		defer f.Close()
		return mapFile(f, 0, a.Size)
	}
	if a.Size != int64(int(a.Size)) {
		return nil, unix.EINVAL
	}
	whole, err := unix.Mmap(-1, 0, int(a.Size), unix.PROT_NONE, unix.MAP_PRIVATE|unix.MAP_ANONYMOUS|unix.MAP_NORESERVE)
	if err != nil {
		return nil, err
	}
	for i := range a.Parts() {
		at := int64(i) * a.PartSize
		n := min(a.PartSize, a.Size-at)
		f, err := openPart(manifest.Part(a.Path, i), n)
		if err != nil {
			return nil, err
		}
		_, err = unix.MmapPtr(int(f.Fd()), 0, unsafe.Pointer(&whole[at]), uintptr(n), unix.PROT_READ, unix.MAP_PRIVATE|unix.MAP_FIXED)
		f.Close()
		if err != nil {
			return nil, err
		}
	}
	return whole, nil
}

// openPart opens a file that must have the given size.
func openPart(path string, size int64) (*os.File, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	fi, err := f.Stat()
	if err == nil && (!fi.Mode().IsRegular() || fi.Size() != size) {
		err = fmt.Errorf("%s has %d bytes, the manifest says %d: the image is damaged", path, fi.Size(), size)
	}
	if err != nil {
		f.Close()
		return nil, err
	}
	return f, nil
}

// mapFile maps part of a file read-only. The pages are the page cache's own,
// shared by every instance.
func mapFile(f *os.File, off, size int64) ([]byte, error) {
	if size <= 0 || size != int64(int(size)) {
		return nil, unix.EINVAL
	}
	return unix.Mmap(int(f.Fd()), off, int(size), unix.PROT_READ, unix.MAP_PRIVATE)
}

// extract copies a section of the tender's executable to a file in memory, to
// be executed.
func extract(s selfexe.Section) (*os.File, error) {
	exe, err := os.Open("/proc/self/exe")
	if err != nil {
		return nil, err
	}
	defer exe.Close()
	// MFD_EXEC is needed where vm.memfd_noexec is 1, and unknown before Linux 6.3.
	fd, err := unix.MemfdCreate("nabla-netd", unix.MFD_CLOEXEC|unix.MFD_EXEC)
	if err == unix.EINVAL {
		fd, err = unix.MemfdCreate("nabla-netd", unix.MFD_CLOEXEC)
	}
	if err != nil {
		return nil, fmt.Errorf("make a file in memory: %w", err)
	}
	f := os.NewFile(uintptr(fd), "nabla-netd")
	if _, err := io.Copy(f, s.Reader(exe)); err != nil {
		f.Close()
		return nil, err
	}
	return f, nil
}
