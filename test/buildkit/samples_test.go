//go:build integration

package buildkit

import (
	"archive/tar"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"

	"github.com/nabla-build/nabla-build/test/nablatest"
)

// A sample is a build context and what the service it makes answers.
type sample struct {
	context string
	args    []string // NAME=VALUE of build arguments
	named   string   // NAME=DIRECTORY of a named context, or none
	port    string
	path    string // of the page
	want    string // in the page
}

// way is one way of asking for a build with a frontend image. It leaves the
// result in the registry under dest.
type way struct {
	name  string
	build func(t *testing.T, frontend string, s sample, dest string) nablatest.Result
}

// flags are the sample's for docker buildx build and nabla-build build.
func (s sample) flags(more ...string) []string {
	out := append(flags("--build-arg", s.args), flags("--build-arg", more)...)
	if s.named != "" {
		out = append(out, "--build-context", s.named)
	}
	return out
}

func flags(flag string, values []string) (out []string) {
	for _, v := range values {
		out = append(out, flag, v)
	}
	return out
}

// syntax copies a sample's context with a first line that names the frontend.
func syntax(t *testing.T, context, frontend string) string {
	t.Helper()
	dir := t.TempDir()
	if err := os.CopyFS(dir, os.DirFS(context)); err != nil {
		t.Fatal(err)
	}
	name := filepath.Join(dir, "Dockerfile")
	b, err := os.ReadFile(name)
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(name, append([]byte("# syntax="+frontend+"\n"), b...), 0o644); err != nil {
		t.Fatal(err)
	}
	return dir
}

var ways = []way{
	{"syntax-engine", func(t *testing.T, frontend string, s sample, dest string) nablatest.Result {
		args := append([]string{"buildx", "build", "--builder", "default", "-t", dest, "--push"}, s.flags()...)
		return docker(t, append(args, syntax(t, s.context, frontend))...)
	}},
	{"syntax-remote", func(t *testing.T, frontend string, s sample, dest string) nablatest.Result {
		args := append([]string{"buildx", "build", "--builder", "remote", "-t", dest, "--push"}, s.flags()...)
		return docker(t, append(args, syntax(t, s.context, frontend))...)
	}},
	{"build-arg", func(t *testing.T, frontend string, s sample, dest string) nablatest.Result {
		args := append([]string{"buildx", "build", "--builder", "remote", "-t", dest, "--push"}, s.flags("BUILDKIT_SYNTAX="+frontend)...)
		return docker(t, append(args, s.context)...)
	}},
	{"buildctl", func(t *testing.T, frontend string, s sample, dest string) nablatest.Result {
		args := []string{"build", "--frontend", "gateway.v0", "--opt", "source=" + frontend, "--local", "context=" + s.context, "--local", "dockerfile=" + s.context,
			"--output", "type=image,push=true,name=" + dest}
		for _, a := range s.args {
			args = append(args, "--opt", "build-arg:"+a)
		}
		if name, dir, ok := strings.Cut(s.named, "="); ok {
			args = append(args, "--opt", "context:"+name+"=local:"+name, "--local", name+"="+dir)
		}
		return buildctl(t, args...)
	}},
	{"nabla-build-engine", func(t *testing.T, frontend string, s sample, dest string) nablatest.Result {
		args := append([]string{"build", "--builder", "default", "--frontend", frontend, "-t", dest, "--push"}, s.flags()...)
		return nablaBuild(t, append(args, s.context)...)
	}},
	{"nabla-build-remote", func(t *testing.T, frontend string, s sample, dest string) nablatest.Result {
		args := append([]string{"build", "--builder", "remote", "--frontend", frontend, "-t", dest, "--push"}, s.flags()...)
		return nablaBuild(t, append(args, s.context)...)
	}},
}

var node, static struct {
	once sync.Once
	name string // of the base, or the directory of the context
	err  error
}

// samples are the Python and the Go sample, a Node and a static Go program. The
// stage of the Go sample that compiles is replaced by a directory with the
// program, as no image with Go can be had here.
func samples(t *testing.T) map[string]sample {
	t.Helper()
	return map[string]sample{
		"python": {context: filepath.Join(nablatest.Root(t), "images", "python"), args: []string{"BASE=" + base(t, "python")}, port: "8080", path: "/", want: "<h1>Notes</h1>"},
		"service": {context: filepath.Join(nablatest.Root(t), "images", "go"), args: []string{"BASE=" + base(t, "debian")},
			named: "build=" + filepath.Join(nablatest.Root(t), "build", "images", "go-bin"), port: "8080", path: "/sum?text=abc", want: "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"},
		"node": {context: nodeContext(t), args: []string{"BASE=" + nodeBase(t)}, port: "3000", path: "/sum?a=20&b=22", want: "sum 42 by node"},
		"go":   {context: goContext(t), port: "8000", path: "/sum?a=20&b=22", want: "sum 42 by go"},
	}
}

// nodeBase is an image of this machine's node with its libraries.
func nodeBase(t *testing.T) string {
	t.Helper()
	node.once.Do(func() {
		bin, err := exec.LookPath("node")
		if err == nil {
			bin, err = filepath.EvalSymlinks(bin)
		}
		if err != nil {
			node.err = err
			return
		}
		root := nablatest.RootFS(t, bin)
		file := filepath.Join(t.TempDir(), "node.tar")
		f, err := os.Create(file)
		if err != nil {
			t.Fatal(err)
		}
		defer f.Close()
		w := tar.NewWriter(f)
		if err := w.AddFS(os.DirFS(root)); err != nil {
			t.Fatal(err)
		}
		if err := w.Close(); err != nil {
			t.Fatal(err)
		}
		node.name, node.err = theRegistry(t).PushRoot("node-base:latest", file, nil)
	})
	if node.err != nil {
		t.Fatal(node.err)
	}
	return node.name
}

func nodeContext(t *testing.T) string {
	return buildContext(t, map[string]string{
		"Dockerfile": `ARG BASE=node:20-slim
FROM ${BASE}
WORKDIR /srv
COPY server.js sum.js ./
EXPOSE 3000
ENTRYPOINT ["node", "server.js"]
`,
		"sum.js": "module.exports = (a, b) => a + b;\n",
		"server.js": `const http = require("http"), sum = require("./sum");
http.createServer((q, r) => {
  const p = new URL(q.url, "http://x").searchParams;
  r.end("sum " + sum(Number(p.get("a")), Number(p.get("b"))) + " by node " + process.version + "\n");
}).listen(3000, () => console.log("ready"));
process.on("SIGTERM", () => process.exit(0));
`,
	})
}

// goContext holds a static program, built here as no image with Go can be had,
// on scratch.
func goContext(t *testing.T) string {
	t.Helper()
	src := buildContext(t, map[string]string{"main.go": `package main

import (
	"fmt"
	"net/http"
	"strconv"
)

func main() {
	http.HandleFunc("/sum", func(w http.ResponseWriter, r *http.Request) {
		a, _ := strconv.Atoi(r.FormValue("a"))
		b, _ := strconv.Atoi(r.FormValue("b"))
		fmt.Fprintf(w, "sum %d by go\n", a+b)
	})
	panic(http.ListenAndServe(":8000", nil))
}
`})
	dir := buildContext(t, map[string]string{"Dockerfile": "FROM scratch\nCOPY server /server\nEXPOSE 8000\nUSER 1000\nCMD [\"/server\"]\n"})
	cmd := exec.Command("go", "build", "-trimpath", "-buildvcs=false", "-o", filepath.Join(dir, "server"), filepath.Join(src, "main.go"))
	cmd.Env = append(os.Environ(), "CGO_ENABLED=0", "GOFLAGS=")
	must(t, nablatest.Within(t, limit, cmd))
	return dir
}

// brief is what the short form builds with our frontend: each sample and each
// way but one, once.
var brief = map[string]bool{
	"python/syntax-engine": true, "python/nabla-build-remote": true, "node/syntax-remote": true,
	"go/buildctl": true, "go/nabla-build-engine": true,
}

// TestSamples builds every sample in every way, with the stock frontend and with
// ours, pulls the result, runs it and
// fetches a page.
func TestSamples(t *testing.T) {
	for frontend, image := range map[string]string{"stock": stock(t), "nabla": nabla(t)} {
		for name, s := range samples(t) {
			for _, w := range ways {
				if testing.Short() && (frontend == "stock" || !brief[name+"/"+w.name]) {
					continue
				}
				t.Run(strings.Join([]string{frontend, name, w.name}, "/"), func(t *testing.T) {
					dest := theRegistry(t).Name(strings.Join([]string{frontend, name}, "/") + ":" + w.name)
					must(t, w.build(t, image, s, dest))
					accepted(t, dest)
					if frontend == "nabla" {
						relinked(t, dest)
					}
					c := runImage(t, dest, s.port)
					if page := c.get(t, s.path); !strings.Contains(page, s.want) {
						t.Errorf("page: %s", page)
					}
				})
			}
		}
	}
}

// accepted has other people's tools judge an image in the registry.
func accepted(t *testing.T, dest string) {
	t.Helper()
	must(t, docker(t, "buildx", "imagetools", "inspect", dest))
	crane := filepath.Join(nablatest.Root(t), "build", "tools", "crane")
	must(t, nablatest.Within(t, limit, exec.Command(crane, "validate", "--insecure", "--remote", dest)))
	must(t, nablatest.Within(t, limit, exec.Command("skopeo", "inspect", "--tls-verify=false", "--override-os", "linux", "--override-arch", "amd64", "docker://"+dest)))
}
