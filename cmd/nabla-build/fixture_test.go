package main

import (
	"archive/tar"
	"bytes"
	"debug/elf"
	"encoding/binary"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"

	"github.com/google/go-containerregistry/pkg/name"
	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/empty"
	"github.com/google/go-containerregistry/pkg/v1/layout"
	"github.com/google/go-containerregistry/pkg/v1/mutate"
	"github.com/google/go-containerregistry/pkg/v1/remote"
	"github.com/google/go-containerregistry/pkg/v1/tarball"
	"github.com/rogpeppe/go-internal/testscript"
)

// elfFile is a small x86-64 program with a system call site; interp is its
// interpreter, if any, machine its architecture.
func elfFile(machine elf.Machine, class elf.Class, interp string) []byte {
	code := []byte{
		0xb8, 0x3c, 0, 0, 0, // mov $60,%eax
		0x0f, 0x05, // syscall
		0xf4,
	}
	var b bytes.Buffer
	n := uint16(1)
	if interp != "" {
		n = 2
	}
	start := uint64(64 + 56*int(n))
	h := elf.Header64{
		Type: uint16(elf.ET_EXEC), Machine: uint16(machine), Version: 1, Entry: 0x400000 + start, Phoff: 64,
		Ehsize: 64, Phentsize: 56, Phnum: n, Shentsize: 64,
	}
	copy(h.Ident[:], elf.ELFMAG)
	h.Ident[elf.EI_CLASS], h.Ident[elf.EI_DATA], h.Ident[elf.EI_VERSION] = byte(class), byte(elf.ELFDATA2LSB), 1
	size := start + uint64(len(code)+len(interp)+1)
	put := func(v any) { binary.Write(&b, binary.LittleEndian, v) }
	put(h)
	put(elf.Prog64{Type: uint32(elf.PT_LOAD), Flags: uint32(elf.PF_R | elf.PF_X), Vaddr: 0x400000, Paddr: 0x400000, Filesz: size, Memsz: size, Align: 4096})
	if interp != "" {
		off := start + uint64(len(code))
		put(elf.Prog64{Type: uint32(elf.PT_INTERP), Flags: uint32(elf.PF_R), Off: off, Vaddr: 0x400000 + off, Filesz: uint64(len(interp) + 1), Memsz: uint64(len(interp) + 1), Align: 1})
	}
	b.Write(code)
	b.WriteString(interp + "\x00")
	return b.Bytes()
}

type file struct {
	tar.Header
	data []byte
}

func reg(name string, mode int64, data []byte) file {
	return file{tar.Header{Typeflag: tar.TypeReg, Name: name, Mode: mode, Size: int64(len(data))}, data}
}

func text(name, data string) file { return reg(name, 0o644, []byte(data)) }
func dir(name string) file {
	return file{tar.Header{Typeflag: tar.TypeDir, Name: name + "/", Mode: 0o755}, nil}
}
func symlink(name, to string) file {
	return file{tar.Header{Typeflag: tar.TypeSymlink, Name: name, Linkname: to, Mode: 0o777}, nil}
}
func hardlink(name, to string) file {
	return file{tar.Header{Typeflag: tar.TypeLink, Name: name, Linkname: to}, nil}
}

func layerOf(files ...file) v1.Layer {
	var b bytes.Buffer
	tw := tar.NewWriter(&b)
	for _, f := range files {
		if err := tw.WriteHeader(&f.Header); err != nil {
			panic(err)
		}
		tw.Write(f.data)
	}
	tw.Close()
	l, err := tarball.LayerFromOpener(func() (io.ReadCloser, error) { return io.NopCloser(bytes.NewReader(b.Bytes())), nil })
	if err != nil {
		panic(err)
	}
	return l
}

func imageOf(c v1.Config, arch string, layers ...v1.Layer) v1.Image {
	img, err := mutate.ConfigFile(empty.Image, &v1.ConfigFile{OS: "linux", Architecture: arch, Config: c, RootFS: v1.RootFS{Type: "layers"}})
	if err != nil {
		panic(err)
	}
	if img, err = mutate.AppendLayers(img, layers...); err != nil {
		panic(err)
	}
	return img
}

var goHello = sync.OnceValues(func() ([]byte, error) {
	d, err := os.MkdirTemp("", "nabla-hello")
	if err != nil {
		return nil, err
	}
	defer os.RemoveAll(d)
	src := `package main

import (
	"fmt"
	"os"
)

func main() {
	fmt.Println("hello", os.Args[1:], os.Getenv("GREETING"))
	os.Exit(len(os.Args) - 1)
}
`
	if err := os.WriteFile(filepath.Join(d, "main.go"), []byte(src), 0o644); err != nil {
		return nil, err
	}
	cmd := exec.Command("go", "build", "-o", filepath.Join(d, "hello"), filepath.Join(d, "main.go"))
	cmd.Env = append(os.Environ(), "CGO_ENABLED=0", "HOME="+d, "GOFLAGS=")
	if out, err := cmd.CombinedOutput(); err != nil {
		return nil, fmt.Errorf("%v: %s", err, out)
	}
	return os.ReadFile(filepath.Join(d, "hello"))
})

// fixtures are the source images of the scripts.
var fixtures = map[string]func() (v1.Image, error){
	"hello": func() (v1.Image, error) { return hello("v1") },
	// hello with another top layer
	"hello2": func() (v1.Image, error) { return hello("v2") },
}

func hello(version string) (v1.Image, error) {
	b, err := goHello()
	if err != nil {
		return nil, err
	}
	return imageOf(v1.Config{
		Entrypoint: []string{"hello"}, Env: []string{"PATH=/usr/bin:/bin", "GREETING=there"}, WorkingDir: "/work/dir",
		User: "app", ExposedPorts: map[string]struct{}{"8080/tcp": {}, "53/udp": {}}, Labels: map[string]string{"team": "a"},
		StopSignal: "SIGINT", Healthcheck: &v1.HealthConfig{Test: []string{"CMD", "true"}},
	}, "amd64",
		layerOf(dir("bin"), reg("bin/hello", 0o755, b), dir("etc"),
			text("etc/passwd", "root:x:0:0::/root:/bin/sh\napp:x:1000:1001::/:/bin/false\n"),
			text("etc/group", "root:x:0:\napp:x:1001:\nextra:x:44:app,other\n")),
		layerOf(dir("app"), text("app/version", version))), nil
}

// with makes a fixture of a static program and more files.
func with(c v1.Config, arch string, layers ...[]file) func() (v1.Image, error) {
	return func() (v1.Image, error) {
		all := []v1.Layer{layerOf(dir("bin"), reg("bin/prog", 0o755, elfFile(elf.EM_X86_64, elf.ELFCLASS64, "")))}
		for _, l := range layers {
			all = append(all, layerOf(l...))
		}
		return imageOf(c, arch, all...), nil
	}
}

func init() {
	prog := v1.Config{Entrypoint: []string{"/bin/prog"}}
	run := func(argv ...string) v1.Config { return v1.Config{Entrypoint: argv} }
	user := func(u string) v1.Config { return v1.Config{Entrypoint: []string{"/bin/prog"}, User: u} }
	good := elfFile(elf.EM_X86_64, elf.ELFCLASS64, "")
	for name, f := range map[string]func() (v1.Image, error){
		"plain":       with(prog, "amd64"),
		"arm64":       with(prog, "arm64"),
		"i386":        with(prog, "386"),
		"dotdot":      with(prog, "amd64", []file{text("a/../../etc/passwd", "x")}),
		"dotdot-link": with(prog, "amd64", []file{hardlink("a", "../../etc/passwd")}),
		"abslink":     with(run("/bin/link"), "amd64", []file{symlink("bin/link", "/../../bin/prog"), symlink("out", "/etc/../../../etc/shadow")}),
		"duplicate":   with(run("/bin/x"), "amd64", []file{reg("bin/x", 0o644, []byte("old")), reg("bin/x", 0o755, good)}),
		"device":      with(prog, "amd64", []file{{tar.Header{Typeflag: tar.TypeBlock, Name: "sda", Devmajor: 8, Mode: 0o600}, nil}}),
		"whiteout":    with(prog, "amd64", []file{text("bin/.wh.prog", "")}),
		"opaque":      with(prog, "amd64", []file{text("bin/.wh..wh..opq", ""), reg("bin/other", 0o755, good)}),
		"replaced":    with(prog, "amd64", []file{text("bin/.wh.prog", "")}, []file{reg("bin/prog", 0o755, good)}),
		"bad-elf": with(prog, "amd64", []file{
			reg("lib/cut", 0o755, good[:70]), reg("lib/lies", 0o755, lying(good)),
			reg("lib/arm", 0o755, elfFile(elf.EM_AARCH64, elf.ELFCLASS64, "")),
		}),
		"entry-none":    with(v1.Config{}, "amd64"),
		"entry-missing": with(run("/bin/nothing"), "amd64"),
		"entry-path":    with(run("nothing"), "amd64"),
		"entry-dir":     with(run("/bin"), "amd64"),
		"entry-mode":    with(run("/bin/x"), "amd64", []file{reg("bin/x", 0o644, good)}),
		"entry-text":    with(run("/bin/x"), "amd64", []file{reg("bin/x", 0o755, []byte("just text\n"))}),
		"entry-cut":     with(run("/bin/x"), "amd64", []file{reg("bin/x", 0o755, good[:100])}),
		"entry-arm":     with(run("/bin/x"), "amd64", []file{reg("bin/x", 0o755, elfFile(elf.EM_AARCH64, elf.ELFCLASS64, ""))}),
		"entry-386":     with(run("/bin/x"), "amd64", []file{reg("bin/x", 0o755, elfFile(elf.EM_386, elf.ELFCLASS32, ""))}),
		"entry-loop":    with(run("/a"), "amd64", []file{symlink("a", "b"), symlink("b", "a")}),
		"script":        with(run("/bin/s", "arg"), "amd64", []file{reg("bin/s", 0o755, []byte("#! /bin/prog -x\n"))}),
		"script-none":   with(run("/bin/s"), "amd64", []file{reg("bin/s", 0o755, []byte("#!/bin/zsh\n"))}),
		"script-empty":  with(run("/bin/s"), "amd64", []file{reg("bin/s", 0o755, []byte("#!\n"))}),
		"no-interp":     with(run("/bin/x"), "amd64", []file{reg("bin/x", 0o755, elfFile(elf.EM_X86_64, elf.ELFCLASS64, "/lib64/ld-linux-x86-64.so.2"))}),
		"interp": with(run("/bin/x"), "amd64", []file{
			reg("bin/x", 0o755, elfFile(elf.EM_X86_64, elf.ELFCLASS64, "/lib64/ld.so")), symlink("lib64", "usr/lib"), reg("usr/lib/ld.so", 0o755, good)}),
		"user-unknown":  with(user("nobody"), "amd64"),
		"group-unknown": with(user("1:staff"), "amd64"),
		"user-number":   with(user("1234"), "amd64"),
		"no-layers":     func() (v1.Image, error) { return imageOf(prog, "amd64"), nil },
	} {
		fixtures[name] = f
	}
}

// lying is an object whose headers point outside the file.
func lying(b []byte) []byte {
	b = bytes.Clone(b)
	binary.LittleEndian.PutUint64(b[64+32:], 1<<40) // p_filesz
	binary.LittleEndian.PutUint64(b[40:], 1<<50)    // e_shoff
	binary.LittleEndian.PutUint16(b[60:], 1000)     // e_shnum
	return b
}

// fixtureCommand writes source images as OCI layouts: fixture DIR NAME..., the
// tag of each being its name; fixture -tar FILE NAME writes a docker archive;
// fixture -index DIR NAME... an index with all of them; fixture -push REF NAME
// pushes one.
func fixtureCommand(ts *testscript.TestScript, neg bool, args []string) {
	kind := ""
	if strings.HasPrefix(args[0], "-") {
		kind, args = args[0], args[1:]
	}
	to := ts.MkAbs(args[0])
	var imgs []v1.Image
	for _, n := range args[1:] {
		f, ok := fixtures[n]
		if !ok {
			ts.Fatalf("no fixture %q", n)
		}
		img, err := f()
		ts.Check(err)
		imgs = append(imgs, img)
	}
	switch kind {
	case "-push":
		ref, err := name.ParseReference(args[0])
		ts.Check(err)
		ts.Check(remote.Write(ref, imgs[0]))
		return
	case "-tar":
		ts.Check(writeArchive(to, args[1], imgs[0]))
		return
	case "-index":
		ii := v1.ImageIndex(empty.Index)
		for _, img := range imgs {
			c, err := img.ConfigFile()
			ts.Check(err)
			ii = mutate.AppendManifests(ii, mutate.IndexAddendum{Add: img, Descriptor: v1.Descriptor{Platform: c.Platform()}})
		}
		p, err := layout.Write(to, empty.Index)
		ts.Check(err)
		ts.Check(p.AppendIndex(ii))
		return
	}
	p, err := layout.FromPath(to)
	if err != nil {
		p, err = layout.Write(to, empty.Index)
	}
	ts.Check(err)
	for i, img := range imgs {
		ts.Check(p.AppendImage(img, layout.WithAnnotations(map[string]string{"org.opencontainers.image.ref.name": args[1+i]})))
	}
}

// writeArchive writes what docker save writes: layers uncompressed.
func writeArchive(to, name string, img v1.Image) error {
	f, err := os.Create(to)
	if err != nil {
		return err
	}
	defer f.Close()
	tw := tar.NewWriter(f)
	add := func(name string, b []byte) error {
		if err := tw.WriteHeader(&tar.Header{Typeflag: tar.TypeReg, Name: name, Mode: 0o644, Size: int64(len(b))}); err != nil {
			return err
		}
		_, err := tw.Write(b)
		return err
	}
	layers, err := img.Layers()
	if err != nil {
		return err
	}
	var names []string
	for i, l := range layers {
		rc, err := l.Uncompressed()
		if err != nil {
			return err
		}
		b, err := io.ReadAll(rc)
		if err != nil {
			return err
		}
		n := fmt.Sprintf("%d/layer.tar", i)
		names = append(names, fmt.Sprintf("%q", n))
		if err := add(n, b); err != nil {
			return err
		}
	}
	c, err := img.RawConfigFile()
	if err != nil {
		return err
	}
	if err := add("config.json", c); err != nil {
		return err
	}
	if err := add("manifest.json", []byte(fmt.Sprintf(`[{"Config":"config.json","RepoTags":["localhost/%s:latest"],"Layers":[%s]}]`, name, strings.Join(names, ",")))); err != nil {
		return err
	}
	if err := tw.Close(); err != nil {
		return err
	}
	return f.Close()
}
