//go:build integration

package buildkit

import (
	"archive/tar"
	"bytes"
	"encoding/json"
	"net/http"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	v1 "github.com/google/go-containerregistry/pkg/v1"

	"github.com/nabla-build/nabla-build/test/daemons"
	"github.com/nabla-build/nabla-build/test/nablatest"
)

var stockFrontend struct {
	once sync.Once
	name string
	err  error
}

// stock is the stock Dockerfile frontend as an image in the registry.
func stock(t testing.TB) string {
	t.Helper()
	stockFrontend.once.Do(func() {
		stockFrontend.name, stockFrontend.err = func() (string, error) {
			b, err := os.ReadFile(filepath.Join(nablatest.Root(t), "build", "tools", "dockerfile-frontend"))
			if err != nil {
				return "", err
			}
			var buf bytes.Buffer
			w := tar.NewWriter(&buf)
			if err := w.WriteHeader(&tar.Header{Name: "dockerfile-frontend", Mode: 0o755, Size: int64(len(b))}); err != nil {
				return "", err
			}
			if _, err := w.Write(b); err != nil {
				return "", err
			}
			if err := w.Close(); err != nil {
				return "", err
			}
			f := filepath.Join(t.TempDir(), "frontend.tar")
			if err := os.WriteFile(f, buf.Bytes(), 0o600); err != nil {
				return "", err
			}
			return theRegistry(t).PushRoot("stock/dockerfile-frontend:latest", f, func(c *v1.Config) {
				c.Entrypoint = []string{"/dockerfile-frontend"}
				c.Labels = map[string]string{
					"moby.buildkit.frontend.network.none": "true",
					"moby.buildkit.frontend.caps":         "moby.buildkit.frontend.inputs,moby.buildkit.frontend.subrequests,moby.buildkit.frontend.contexts",
				}
			})
		}()
	})
	if stockFrontend.err != nil {
		t.Fatal(stockFrontend.err)
	}
	return stockFrontend.name
}

// busyboxRoot is a small base image: busybox as /bin/sh and friends.
func busyboxBase(t testing.TB) string {
	t.Helper()
	machine.mu.Lock()
	defer machine.mu.Unlock()
	const repository = "busybox-base:latest"
	if full := machine.bases[repository]; full != "" {
		return full
	}
	b, err := os.ReadFile("/bin/busybox") // Debian package busybox-static
	if err != nil {
		t.Fatal(err)
	}
	var buf bytes.Buffer
	w := tar.NewWriter(&buf)
	add := func(h *tar.Header, data []byte) {
		h.Size = int64(len(data))
		if err := w.WriteHeader(h); err != nil {
			t.Fatal(err)
		}
		if _, err := w.Write(data); err != nil {
			t.Fatal(err)
		}
	}
	for _, d := range []string{"bin", "etc", "tmp"} {
		add(&tar.Header{Name: d + "/", Typeflag: tar.TypeDir, Mode: 0o755}, nil)
	}
	add(&tar.Header{Name: "bin/busybox", Mode: 0o755}, b)
	for _, n := range []string{"sh", "cat", "echo", "ls", "mkdir", "rm", "ln", "chmod", "touch", "httpd", "env", "sleep", "test", "cp", "grep"} {
		add(&tar.Header{Name: "bin/" + n, Typeflag: tar.TypeSymlink, Linkname: "busybox", Mode: 0o777}, nil)
	}
	add(&tar.Header{Name: "etc/passwd", Mode: 0o644}, []byte("root:x:0:0:root:/root:/bin/sh\n"))
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	f := filepath.Join(t.TempDir(), "busybox.tar")
	if err := os.WriteFile(f, buf.Bytes(), 0o600); err != nil {
		t.Fatal(err)
	}
	full, err := theRegistry(t).PushRoot(repository, f, nil)
	if err != nil {
		t.Fatal(err)
	}
	if machine.bases == nil {
		machine.bases = map[string]string{}
	}
	machine.bases[repository] = full
	return full
}

// TestBuildFlags gives nabla-build build each of its flags, with the stock
// frontend, as what they do does not depend on the frontend.
func TestBuildFlags(t *testing.T) {
	dir := buildContext(t, map[string]string{
		"sub/My.Dockerfile": `ARG BASE
FROM ${BASE} AS base
ARG WORD=none
RUN --mount=type=secret,id=token --mount=type=cache,target=/cache echo "$WORD $(cat /run/secrets/token)" >/word; grep made /etc/hosts >/hosts; test -e /run/secrets/token
COPY file /file
COPY --from=more /extra /extra
FROM base AS other
RUN echo other >/other
`,
		"file":       "content\n",
		"token.txt":  "sesame",
		"more/extra": "extra\n",
	})
	for _, builder := range []string{"default", "remote", theBuildkitd(t).Addr} {
		t.Run(strings.SplitN(builder, ":", 2)[0], func(t *testing.T) {
			dest := theRegistry(t).Name("flags:" + strings.SplitN(builder, ":", 2)[0])
			meta, iid := filepath.Join(t.TempDir(), "meta.json"), filepath.Join(t.TempDir(), "iid")
			args := []string{"build", "--builder", builder, "--frontend", stock(t), "-t", dest, "--push",
				"-f", filepath.Join(dir, "sub", "My.Dockerfile"), "--target", "base", "--build-arg", "BASE=" + busyboxBase(t), "--build-arg", "WORD=given",
				"--secret", "id=token,src=" + filepath.Join(dir, "token.txt"), "--platform", "linux/amd64", "--label", "a.b=c", "--add-host", "made:10.1.2.3",
				"--build-context", "more=" + filepath.Join(dir, "more"), "--progress", "plain", "--metadata-file", meta, "--iidfile", iid}
			r := must(t, nablaBuild(t, append(args, dir)...))
			if !strings.Contains(r.Stderr, "exporting to image") {
				t.Errorf("progress: %s", r.Stderr)
			}
			img, err := theRegistry(t).Image(dest)
			if err != nil {
				t.Fatal(err)
			}
			files := extract(t, img)
			for name, want := range map[string]string{"word": "given sesame\n", "file": "content\n", "extra": "extra\n", "hosts": "10.1.2.3\tmade\n"} {
				if files[name] != want {
					t.Errorf("/%s is %q, want %q", name, files[name], want)
				}
			}
			if _, ok := files["other"]; ok {
				t.Error("--target had no effect")
			}
			cf, err := img.ConfigFile()
			if err != nil {
				t.Fatal(err)
			}
			if cf.Config.Labels["a.b"] != "c" {
				t.Errorf("labels: %v", cf.Config.Labels)
			}
			// The digest is that of the registry, on standard output and in the file.
			idx := digestOf(t, dest)
			if want := dest + " " + idx + "\n"; r.Stdout != want {
				t.Errorf("stdout %q, want %q", r.Stdout, want)
			}
			var m map[string]any
			b, err := os.ReadFile(meta)
			if err != nil {
				t.Fatal(err)
			}
			if err := json.Unmarshal(b, &m); err != nil || m["containerimage.digest"] != idx {
				t.Errorf("metadata: %v %s", err, b)
			}
			// As buildx: an Engine's own name for the image; elsewhere, as there is an
			// index with the provenance, its digest.
			id := idx
			if builder == "default" {
				id = strings.TrimSpace(must(t, docker(t, "image", "inspect", "-f", "{{.Id}}", dest)).Stdout)
			}
			if b, err := os.ReadFile(iid); err != nil || string(b) != id {
				t.Errorf("iidfile: %s %v, want %s", b, err, id)
			}
		})
	}
}

// TestBuildOutputs writes the same small image to each kind of destination.
func TestBuildOutputs(t *testing.T) {
	dir := buildContext(t, map[string]string{"Dockerfile": "ARG BASE\nFROM ${BASE}\nRUN echo built >/built\nCMD [\"cat\",\"/built\"]\n"})
	build := func(t *testing.T, builder string, args ...string) nablatest.Result {
		t.Helper()
		argv := []string{"build", "--builder", builder, "--frontend", stock(t), "--build-arg", "BASE=" + busyboxBase(t)}
		return nablaBuild(t, append(append(argv, args...), dir)...)
	}
	t.Run("local", func(t *testing.T) {
		for _, builder := range []string{"default", "remote"} {
			out := filepath.Join(t.TempDir(), "out")
			must(t, build(t, builder, "-o", out))
			if b, err := os.ReadFile(filepath.Join(out, "built")); err != nil || string(b) != "built\n" {
				t.Errorf("%s: %q %v", builder, b, err)
			}
		}
	})
	t.Run("tar", func(t *testing.T) {
		r := must(t, build(t, "remote", "-o", "-"))
		tr := tar.NewReader(strings.NewReader(r.Stdout))
		for {
			h, err := tr.Next()
			if err != nil {
				t.Fatalf("no /built in it: %v", err)
			}
			if h.Name == "built" {
				break
			}
		}
	})
	t.Run("load", func(t *testing.T) {
		for _, builder := range []string{"default", "remote"} {
			must(t, build(t, builder, "--load", "-t", "loaded:"+builder))
			if r := must(t, docker(t, "run", "--rm", "loaded:"+builder)); r.Stdout != "built\n" {
				t.Errorf("%s: %q", builder, r.Stdout)
			}
		}
	})
	t.Run("engine-keeps", func(t *testing.T) {
		must(t, build(t, "default", "-t", "kept"))
		must(t, docker(t, "image", "inspect", "kept"))
	})
	t.Run("cache-only", func(t *testing.T) {
		if r := must(t, build(t, "remote", "-t", "kept")); !strings.Contains(r.Stderr, "in the build cache of builder remote only") {
			t.Errorf("no warning: %s", r.Stderr)
		}
	})
	t.Run("oci", func(t *testing.T) {
		out := filepath.Join(t.TempDir(), "app.tar")
		must(t, build(t, "remote", "-t", "example.org/app:1", "-o", "type=oci,dest="+out))
		must(t, nablatest.Run(t, t.TempDir(), "skopeo", "inspect", "--raw", "oci-archive:"+out))
	})
	t.Run("cache", func(t *testing.T) {
		ran := regexp.MustCompile(`(?m)^#\d+ \[2/2\] RUN .*\n(?:#\d+ .*\n)*?#\d+ (CACHED|DONE)`)
		state := func(r nablatest.Result) string {
			t.Helper()
			m := ran.FindStringSubmatch(must(t, r).Stderr)
			if m == nil {
				t.Fatalf("no RUN step in\n%s", r.Stderr)
			}
			return m[1]
		}
		cache := t.TempDir()
		must(t, build(t, "remote", "--cache-to", "type=local,mode=max,dest="+cache, "-o", "type=cacheonly"))
		plain := []string{"-o", "type=cacheonly", "--progress", "plain"}
		if s := state(build(t, "remote", plain...)); s != "CACHED" {
			t.Errorf("a second build: %s", s)
		}
		if s := state(build(t, "remote", append(plain, "--no-cache")...)); s != "DONE" {
			t.Errorf("--no-cache: %s", s)
		}
		must(t, buildctl(t, "prune", "--all"))
		if s := state(build(t, "remote", append(plain, "--cache-from", "type=local,src="+cache)...)); s != "CACHED" {
			t.Errorf("--cache-from, the daemon's own cache being empty: %s", s)
		}
	})
	t.Run("attestations", func(t *testing.T) {
		dest := theRegistry(t).Name("attested:1")
		must(t, build(t, "remote", "--push", "-t", dest, "--attest", "type=provenance,mode=max"))
		r := must(t, docker(t, "buildx", "imagetools", "inspect", "--format", "{{json .Provenance}}", dest))
		if !strings.Contains(r.Stdout, "buildDefinition") && !strings.Contains(r.Stdout, "buildType") {
			t.Errorf("provenance: %s", r.Stdout)
		}
		if strings.Contains(docker(t, "info", "-f", "{{.DriverStatus}}").Stdout, "io.containerd.snapshotter") {
			return // an Engine that can
		}
		if r := build(t, "default", "--attest", "type=provenance"); r.Status != 1 || !strings.Contains(r.Stderr, "cannot write attestations") {
			t.Errorf("status %d, stderr %q", r.Status, r.Stderr)
		}
	})
	t.Run("stdin", func(t *testing.T) {
		cmd := nablaBuildCommand(t, "build", "--builder", "remote", "--frontend", stock(t), "-o", "-", "-")
		cmd.Stdin = strings.NewReader("FROM scratch\nCOPY <<E /written\nhello\nE\n")
		if r := must(t, nablatest.Within(t, limit, cmd)); !strings.Contains(r.Stdout, "hello") {
			t.Errorf("out: %q", r.Stdout)
		}
	})
	t.Run("stdin-tar", func(t *testing.T) {
		var buf bytes.Buffer
		w := tar.NewWriter(&buf)
		text := "FROM scratch\nCOPY Dockerfile /copied\n"
		w.WriteHeader(&tar.Header{Name: "Dockerfile", Mode: 0o644, Size: int64(len(text))})
		w.Write([]byte(text))
		w.Close()
		cmd := nablaBuildCommand(t, "build", "--builder", "remote", "--frontend", stock(t), "-o", "-", "-")
		cmd.Stdin = &buf
		if r := must(t, nablatest.Within(t, limit, cmd)); !strings.Contains(r.Stdout, "COPY Dockerfile") {
			t.Errorf("out: %q", r.Stdout)
		}
	})
}

// TestBuildRefusals are builds that cannot succeed: one clear message each, no
// file written.
func TestBuildRefusals(t *testing.T) {
	good := "FROM scratch\nCOPY Dockerfile /x\n"
	for _, tt := range []struct {
		name, dockerfile string
		args             []string
		want             []string
		excerpt          []string // from daemons that give the place of an error; the Engine's BuildKit of 20.10 does not
	}{
		{name: "syntax", dockerfile: "FROM scratch\nCOPPY a b\nLABEL a=b\n",
			want: []string{"line 2: unknown instruction: COPPY"}, excerpt: []string{"Dockerfile:2", "2 | >>> COPPY a b"}},
		{name: "step", dockerfile: "FROM " + busyboxBase(t) + "\nRUN echo no; false\n",
			want: []string{"exit code: 1"}, excerpt: []string{"2 | >>> RUN echo no; false"}},
		{name: "no-target", dockerfile: good, args: []string{"--target", "nothing"}, want: []string{"nothing"}},
		{name: "no-frontend", dockerfile: good, args: []string{"--frontend", theRegistry(t).Name("nothing:here")}, want: []string{"nothing:here", "not found"}},
	} {
		for _, builder := range []string{"default", "remote"} {
			t.Run(tt.name+"-"+builder, func(t *testing.T) {
				dir := buildContext(t, map[string]string{"Dockerfile": tt.dockerfile})
				out := t.TempDir()
				argv := append([]string{"build", "--builder", builder, "--frontend", stock(t)}, tt.args...)
				r := nablaBuild(t, append(argv, "-o", "type=tar,dest="+filepath.Join(out, "out.tar"), dir)...)
				if r.Status != 1 {
					t.Errorf("status %d", r.Status)
				}
				want := tt.want
				if builder != "default" {
					want = append(want, tt.excerpt...)
				}
				for _, w := range want {
					if !strings.Contains(r.Stderr, w) {
						t.Errorf("stderr lacks %q:\n%s", w, r.Stderr)
					}
				}
				if n := strings.Count(r.Stderr, "nabla-build: "); n != 1 {
					t.Errorf("%d error lines:\n%s", n, r.Stderr)
				}
				if left, _ := os.ReadDir(out); len(left) > 0 {
					t.Errorf("left behind: %v", left)
				}
			})
		}
	}
	for _, builder := range []string{"default", "remote"} {
		t.Run("registry-"+builder, func(t *testing.T) {
			reg, err := daemons.StartRegistry()
			if err != nil {
				t.Fatal(err)
			}
			t.Cleanup(func() { reg.Close() })
			reg.Refuse(func(r *http.Request) int {
				if r.Method == http.MethodPost || r.Method == http.MethodPut {
					return http.StatusForbidden
				}
				return 0
			})
			dir := buildContext(t, map[string]string{"Dockerfile": good})
			r := nablaBuild(t, "build", "--builder", builder, "--frontend", stock(t), "-t", reg.Name("app:1"), "--push", dir)
			if r.Status != 1 || !strings.Contains(r.Stderr, reg.Host) || !strings.Contains(strings.ToLower(r.Stderr), "denied") && !strings.Contains(r.Stderr, "403") {
				t.Errorf("status %d, stderr:\n%s", r.Status, r.Stderr)
			}
			if n := strings.Count(r.Stderr, "nabla-build: "); n != 1 {
				t.Errorf("%d error lines:\n%s", n, r.Stderr)
			}
		})
	}
}

// TestBuildLogin pushes to a registry that wants a password, with what docker
// login has stored, and without.
func TestBuildLogin(t *testing.T) {
	reg, err := daemons.StartRegistry()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { reg.Close() })
	reg.Require("somebody", "s3same")
	dir := buildContext(t, map[string]string{"Dockerfile": "FROM scratch\nCOPY Dockerfile /x\n"})
	push := func(builder string) nablatest.Result {
		return nablaBuild(t, "build", "--builder", builder, "--frontend", stock(t), "-t", reg.Name("app:"+builder), "--push", dir)
	}
	for _, builder := range []string{"default", "remote"} {
		if r := push(builder); r.Status != 1 || strings.Count(r.Stderr, "nabla-build: ") != 1 || !regexp.MustCompile("(?i)auth|log in").MatchString(r.Stderr) {
			t.Errorf("%s, not logged in: status %d\n%s", builder, r.Status, r.Stderr)
		}
	}
	must(t, docker(t, "login", "-u", "somebody", "-p", "s3same", reg.Host))
	t.Cleanup(func() { docker(t, "logout", reg.Host) })
	for _, builder := range []string{"default", "remote"} {
		must(t, push(builder))
	}
}

// TestBuildMTLS reaches a daemon over TCP that wants a certificate, with
// nabla-build and with buildx.
func TestBuildMTLS(t *testing.T) {
	// The certificates are those that docs/ci.md tells how to make.
	d := t.TempDir()
	must(t, nablatest.Run(t, d, filepath.Join(nablatest.Root(t), "examples", "ci", "certificates.sh"), d, "127.0.0.1", "localhost"))
	file := func(name string) string { return filepath.Join(d, name) }
	certs := &daemons.Certificates{CA: file("ca.pem"), Server: daemons.Pair{Cert: file("server.pem"), Key: file("server-key.pem")},
		Client: daemons.Pair{Cert: file("client.pem"), Key: file("client-key.pem")}}
	b, err := daemons.StartBuildkitd(nablatest.Root(t), certs)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := b.Close(); err != nil {
			t.Error(err)
		}
	})
	dir := buildContext(t, map[string]string{"Dockerfile": "FROM " + busyboxBase(t) + "\nRUN echo over TCP >/x\nCMD [\"cat\",\"/x\"]\n"})
	build := func(args ...string) nablatest.Result {
		argv := append([]string{"build", "--builder", b.Addr, "--frontend", nabla(t)}, args...)
		return nablaBuild(t, append(argv, "-o", "type=cacheonly", dir)...)
	}
	must(t, build("--tlscacert", certs.CA, "--tlscert", certs.Client.Cert, "--tlskey", certs.Client.Key))
	if err := theBuildx(t).Remote("mtls", b); err != nil {
		t.Fatal(err)
	}
	dest := theRegistry(t).Name("mtls:1")
	must(t, docker(t, "buildx", "build", "--builder", "mtls", "--push", "-t", dest, syntax(t, dir, nabla(t))))
	relinked(t, dest)
	must(t, docker(t, "pull", dest))
	if r := must(t, docker(t, "run", "--rm", dest)); r.Stdout != "over TCP\n" {
		t.Errorf("the image says %q", r.Stdout)
	}
	must(t, nablaBuild(t, "build", "--builder", "mtls", "--frontend", nabla(t), "-o", "type=cacheonly", dir))
	// Who shows no certificate, or another authority's, does not get in.
	must(t, nablatest.Run(t, d, "openssl", "verify", "-CAfile", certs.CA, certs.Server.Cert, certs.Client.Cert))
	other, err := daemons.NewCertificates(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	for name, args := range map[string][]string{
		"no TLS":                  nil,
		"no certificate":          {"--tlscacert", certs.CA},
		"a stranger's":            {"--tlscacert", certs.CA, "--tlscert", other.Client.Cert, "--tlskey", other.Client.Key},
		"another server expected": {"--tlscacert", other.CA, "--tlscert", certs.Client.Cert, "--tlskey", certs.Client.Key},
		"another name expected":   {"--tlscacert", certs.CA, "--tlscert", certs.Client.Cert, "--tlskey", certs.Client.Key, "--tlsservername", "example.org"},
	} {
		r := build(args...)
		if r.Status != 1 || !strings.Contains(r.Stderr, "connect to "+b.Addr) {
			t.Errorf("%s: status %d, stderr %q", name, r.Status, r.Stderr)
		}
	}
}

// TestBuildInterrupted sends SIGINT to a build that would take long: it ends
// soon, with the status of an interrupt, and has written nothing. The daemon
// ends its step too.
func TestBuildInterrupted(t *testing.T) {
	dir := buildContext(t, map[string]string{"Dockerfile": "FROM " + busyboxBase(t) + "\nRUN echo begun; exec sleep 4321\n"})
	builders := []string{"default", "remote", theBuildkitd(t).Addr}
	if testing.Short() {
		builders = builders[2:] // the others take ten seconds to end a step
	}
	for _, builder := range builders {
		out := t.TempDir()
		cmd := nablaBuildCommand(t, "build", "--builder", builder, "--frontend", stock(t), "--no-cache", "--progress", "plain", "-o", "type=tar,dest="+filepath.Join(out, "out.tar"), dir)
		// What SIGINT of a terminal reaches: the command, not the whole test.
		cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
		begun := make(chan bool, 1)
		cmd.Stderr = &signaller{text: "begun\n", f: func() { begun <- true }}
		var late atomic.Bool
		go func() {
			<-begun
			cmd.Process.Signal(syscall.SIGINT)
			time.Sleep(15 * time.Second)
			late.Store(true)
		}()
		r := nablatest.Within(t, time.Minute, cmd)
		if late.Load() {
			t.Errorf("%s: more than 15 s to end", builder)
		}
		if log := cmd.Stderr.(*signaller).seen.String(); r.Status != 130 || !strings.Contains(log, "nabla-build: interrupted") {
			t.Errorf("%s: status %d\n%s", builder, r.Status, log)
		}
		if left, _ := os.ReadDir(out); len(left) > 0 {
			t.Errorf("%s: left behind: %v", builder, left)
		}
		deadline := time.Now().Add(15 * time.Second)
		for running("sleep", "4321") {
			if time.Now().After(deadline) {
				t.Fatalf("%s: the step still runs", builder)
			}
			time.Sleep(50 * time.Millisecond)
		}
	}
}

// signaller calls f once when a text has been written.
type signaller struct {
	seen bytes.Buffer
	text string
	f    func()
}

func (s *signaller) Write(p []byte) (int, error) {
	before := strings.Contains(s.seen.String(), s.text)
	s.seen.Write(p)
	if !before && strings.Contains(s.seen.String(), s.text) {
		s.f()
	}
	return len(p), nil
}

// running says whether a process with these arguments exists.
func running(argv ...string) bool {
	want := strings.Join(argv, "\x00") + "\x00"
	all, _ := filepath.Glob("/proc/[0-9]*/cmdline")
	for _, name := range all {
		if b, err := os.ReadFile(name); err == nil && string(b) == want {
			return true
		}
	}
	return false
}
