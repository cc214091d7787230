//go:build integration

package buildkit

import (
	"encoding/json"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"reflect"
	"slices"
	"strings"
	"testing"

	v1 "github.com/google/go-containerregistry/pkg/v1"

	"github.com/nabla-build/nabla-build/link"
	"github.com/nabla-build/nabla-build/test/nablatest"
)

// buildNabla builds a context with our frontend on the remote builder.
func buildNabla(t testing.TB, dir string, args ...string) nablatest.Result {
	t.Helper()
	all := append([]string{"buildx", "build", "--builder", "remote", "--progress", "plain", "--build-arg", "BUILDKIT_SYNTAX=" + nabla(t)}, args...)
	return docker(t, append(all, dir)...)
}

// TestErrors has one clear message for each mistake, with the lines of the
// Dockerfile where it is about them.
func TestErrors(t *testing.T) {
	bb := busyboxBase(t)
	done := theRegistry(t).Name("errors/done")
	must(t, buildNabla(t, buildContext(t, map[string]string{"Dockerfile": "FROM " + bb + "\nCMD [\"ls\"]\n"}), "-t", done, "--push"))
	for name, c := range map[string]struct {
		file string
		args []string
		want []string
	}{
		"syntax":        {"FROM " + bb + "\nRNU echo\n", nil, []string{"unknown instruction: RNU", ">>> RNU echo"}},
		"no-program":    {"FROM " + bb + "\nENTRYPOINT [\"/nope\", \"x\"]\n", nil, []string{`entrypoint "/nope": /nope does not exist in the image`, `>>> ENTRYPOINT ["/nope", "x"]`}},
		"no-entrypoint": {"FROM " + bb + "\nRUN echo\n", nil, []string{"names neither an entrypoint nor a command: give one with nabla.entrypoint", ">>> FROM"}},
		"not-x86":       {"FROM " + bb + "\nCOPY --chmod=755 <<X /arm\n\x7fELF\x02\x01\x01" + strings.Repeat("\x01", 60) + "\nX\nCMD [\"/arm\"]\n", nil, []string{"nabla images are linux/amd64 only", ">>> CMD"}},
		"user":          {"FROM " + bb + "\nUSER nobody-here\nCMD [\"ls\"]\n", nil, []string{`image user "nobody-here"`, ">>> USER nobody-here"}},
		"platform":      {"FROM " + bb + "\nCMD [\"ls\"]\n", []string{"--platform", "linux/amd64,linux/arm64"}, []string{"platform linux/arm64: nabla images are linux/amd64 only"}},
		"option":        {"FROM " + bb + "\nCMD [\"ls\"]\n", []string{"--build-arg", "nabla.colour=red"}, []string{"option nabla.colour: this frontend, of release", "nabla.memory", "need the frontend of that release"}},
		"value":         {"FROM " + bb + "\nCMD [\"ls\"]\n", []string{"--build-arg", "nabla.net=wifi"}, []string{`option nabla.net="wifi": want one of auto, packet`}},
		"target":        {"FROM " + bb + " AS one\nCMD [\"ls\"]\n", []string{"--target", "two"}, []string{"target stage \"two\" could not be found"}},
		"nabla-base":    {"FROM " + done + "\nCMD [\"ls\"]\n", nil, []string{"the base is a nabla image", ">>> FROM " + done}},
		"archive":       {"FROM " + bb + "\nCMD [\"ls\"]\n", []string{"--build-arg", "nabla.archives=" + theRegistry(t).Name("not/there:1")}, []string{theRegistry(t).Name("not/there:1") + ": not found"}},
		"failing-run":   {"FROM " + bb + "\nRUN exit 3\nCMD [\"ls\"]\n", nil, []string{"exit code: 3", ">>> RUN exit 3"}},
	} {
		t.Run(name, func(t *testing.T) {
			dest := theRegistry(t).Name("errors/" + name)
			r := buildNabla(t, buildContext(t, map[string]string{"Dockerfile": c.file}), append(c.args, "-t", dest, "--push")...)
			if r.Status == 0 {
				t.Error("the build succeeded")
			}
			for _, w := range c.want {
				if !strings.Contains(r.Stderr, w) {
					t.Errorf("no %q in:\n%s", w, r.Stderr)
				}
			}
			if strings.Contains(r.Stderr, "goroutine ") || strings.Contains(r.Stderr, "panic") {
				t.Errorf("a stack trace:\n%s", r.Stderr)
			}
			if ref, err := theRegistry(t).Image("errors/" + name); err == nil {
				t.Errorf("there is an image: %v", ref)
			}
		})
	}
}

// TestWarnings reads BuildKit's warnings of a build, with their lines.
func TestWarnings(t *testing.T) {
	bb := busyboxBase(t)
	for name, c := range map[string]struct {
		file string
		rule string // in our warning; empty: there is none
		line int32
	}{
		"exec":        {"FROM " + bb + "\nCMD [\"ls\"]\n", "", 0},
		"simple":      {"FROM " + bb + "\nCMD ls /etc\n", "", 0},
		"exec-last":   {"FROM " + bb + "\nCMD cd /etc && export A=1 && exec ls \"$A\"\n", "", 0},
		"pipe":        {"FROM " + bb + "\nRUN echo\nCMD ls | cat\n", "NablaShellForks", 3},
		"background":  {"FROM " + bb + "\nENTRYPOINT ls & cat\n", "NablaShellForks", 2},
		"before":      {"FROM " + bb + " AS one\nCMD ls && ls /etc\nFROM one\nRUN echo\n", "NablaShellForks", 2},
		"substitute":  {"FROM " + bb + "\nCMD echo $(ls)\n", "NablaShellForks", 2},
		"known":       {"FROM " + bb + "\nRUN cp /bin/busybox /bin/supervisord\nCMD [\"supervisord\", \"-n\"]\n", "NablaProgramForks", 3},
		"healthcheck": {"FROM " + bb + "\nHEALTHCHECK CMD ls\nCMD [\"ls\"]\n", "HEALTHCHECK is dropped", 2},
	} {
		t.Run(name, func(t *testing.T) {
			dir := buildContext(t, map[string]string{"Dockerfile": c.file})
			rec := measured(t, nabla(t), dir, theRegistry(t).Name("warnings/"+name))
			var ours []string
			var lines []int32
			for _, w := range rec.warnings {
				s := string(w.Short)
				if strings.Contains(s, "abla") {
					ours = append(ours, s)
					if len(w.Range) == 0 || w.SourceInfo == nil || string(w.SourceInfo.Data) != c.file {
						t.Errorf("%s: without its place", s)
						continue
					}
					lines = append(lines, w.Range[0].Start.Line)
				}
			}
			switch {
			case c.rule == "" && len(ours) > 0:
				t.Errorf("warnings: %q", ours)
			case c.rule != "" && (len(ours) != 1 || !strings.Contains(ours[0], c.rule) || !slices.Equal(lines, []int32{c.line})):
				t.Errorf("warnings %q in lines %d, want %s in line %d", ours, lines, c.rule, c.line)
			}
		})
	}
}

// TestCalls compares the sub-requests behind --call with the stock frontend's.
func TestCalls(t *testing.T) {
	dir := buildContext(t, map[string]string{"Dockerfile": `# check=skip=JSONArgsRecommended
ARG WORD=none
# first is the first stage
from ` + busyboxBase(t) + ` AS first
ARG WORD
RUN --mount=type=secret,id=token echo $WORD
FROM first AS Second
CMD ls | cat
`})
	ask := func(call, frontend string) nablatest.Result {
		args := []string{"buildx", "build", "--builder", "remote", "--progress", "quiet", "--call", call}
		if frontend != "" {
			args = append(args, "--build-arg", "BUILDKIT_SYNTAX="+frontend)
		}
		return docker(t, append(args, dir)...)
	}
	for _, call := range []string{"outline", "targets", "outline,format=json", "targets,format=json"} {
		want, got := must(t, ask(call, "")), must(t, ask(call, nabla(t)))
		if want.Stdout != got.Stdout || len(want.Stdout) < 20 {
			t.Errorf("--call=%s: stock:\n%s\nnabla:\n%s", call, want.Stdout, got.Stdout)
		}
	}
	type result struct {
		Warnings []struct{ RuleName string }
	}
	rules := func(r nablatest.Result) (out []string) {
		var v result
		if err := json.Unmarshal([]byte(r.Stdout), &v); err != nil {
			t.Fatalf("%v: %s%s", err, r.Stdout, r.Stderr)
		}
		for _, w := range v.Warnings {
			out = append(out, w.RuleName)
		}
		slices.Sort(out)
		return out
	}
	want, got := rules(ask("check,format=json", "")), rules(ask("check,format=json", nabla(t)))
	want = append(want, "NablaShellForks")
	slices.Sort(want)
	if !reflect.DeepEqual(want, got) || len(want) < 2 {
		t.Errorf("--call=check: want the rules %q, got %q", want, got)
	}
}

// TestOptions builds with the options and looks at what they did.
func TestOptions(t *testing.T) {
	bb := busyboxBase(t)
	dir := buildContext(t, map[string]string{"Dockerfile": "FROM " + bb + " AS extra\nRUN mkdir /more && echo extra >/more/extra\nFROM " + bb + "\nRUN echo 1 >/one\nRUN echo 2 >/two && rm /one\nCMD [\"ls\"]\n"})
	image := func(t *testing.T, name string, args ...string) string {
		dest := theRegistry(t).Name("options/" + name)
		all := []string{"-t", dest, "--push"}
		for _, a := range args {
			all = append(all, "--build-arg", "nabla."+a)
		}
		must(t, buildNabla(t, dir, all...))
		return dest
	}
	t.Run("settings", func(t *testing.T) {
		dest := image(t, "settings", `entrypoint=["cat","/two"]`, "memory=96m", "net=user", "log=info")
		m := relinked(t, dest).Manifest
		if !slices.Equal(m.Guest.Entrypoint, []string{"cat", "/two"}) || m.Guest.Cmd != nil || m.Memory != 96<<20 || m.Network != "user" {
			t.Errorf("%+v", m)
		}
		r := must(t, docker(t, "run", "--rm", dest))
		if r.Stdout != "2\n" || !strings.Contains(r.Stderr, "network") {
			t.Errorf("%q, %q", r.Stdout, r.Stderr)
		}
	})
	t.Run("layers", func(t *testing.T) {
		kept, joined := relinked(t, image(t, "kept")), relinked(t, image(t, "joined", "keep-layers=0"))
		if len(kept.Manifest.Archives) != 3 || len(joined.Manifest.Archives) != 2 {
			t.Errorf("%d and %d archives", len(kept.Manifest.Archives), len(joined.Manifest.Archives))
		}
		if a, b := guestTree(t, kept).lines(), guestTree(t, joined).lines(); !slices.Equal(a, b) {
			t.Errorf("the trees differ:\n%q\n%q", a, b)
		}
	})
	t.Run("archives", func(t *testing.T) {
		dest := image(t, "archives", "archives=extra", "entrypoint=cat /more/extra /two")
		if r := must(t, docker(t, "run", "--rm", dest)); r.Stdout != "extra\n2\n" {
			t.Errorf("%q", r.Stdout)
		}
	})
	t.Run("report", func(t *testing.T) {
		for _, args := range [][]string{{"--target", "report"}, {"--build-arg", "nabla.report=1"}} {
			out := t.TempDir()
			must(t, buildNabla(t, dir, append(args, "--output", "type=local,dest="+out)...))
			b, err := os.ReadFile(filepath.Join(out, "report.json"))
			if err != nil {
				t.Fatal(err)
			}
			var rep link.Report
			if err := json.Unmarshal(b, &rep); err != nil || len(rep.Layers) != 3 || rep.Layers[0].Sites.Rewritten == 0 {
				t.Errorf("%v: %s", err, b)
			}
		}
	})
	t.Run("single-file", func(t *testing.T) {
		out := t.TempDir()
		must(t, buildNabla(t, dir, "--build-arg", "nabla.single-file=1", "--build-arg", "nabla.entrypoint=cat /two", "--output", "type=local,dest="+out))
		es, err := os.ReadDir(out)
		if err != nil || len(es) != 1 || es[0].Name() != "nabla" {
			t.Fatalf("%v, %v", es, err)
		}
		cmd := exec.Command(filepath.Join(out, "nabla"))
		cmd.Env = append(os.Environ(), "NABLA_NET=none")
		if r := must(t, nablatest.Within(t, limit, cmd)); r.Stdout != "2\n" {
			t.Errorf("%q", r.Stdout)
		}
		dest := image(t, "single", "single-file=1", "entrypoint=cat /two")
		if r := must(t, docker(t, "run", "--rm", dest)); r.Stdout != "2\n" {
			t.Errorf("%q", r.Stdout)
		}
	})
	t.Run("stubs", func(t *testing.T) {
		dest := image(t, "stubs", `entrypoint=["cat","/proc/self/comm","/proc/version"]`)
		if r := must(t, docker(t, "run", "--rm", dest)); !strings.HasPrefix(r.Stdout, "cat\n") || !strings.Contains(r.Stdout, "Linux version") {
			t.Errorf("%q", r.Stdout)
		}
	})
}

// TestAttestations has a scanner list what it sees of the source's files.
func TestAttestations(t *testing.T) {
	bb := busyboxBase(t)
	// The protocol of BuildKit's scanners: docs/attestations/sbom-protocol.md.
	scanner := theRegistry(t).Name("scanner:1")
	must(t, docker(t, "buildx", "build", "--builder", "remote", "--provenance=false", "-t", scanner, "--push", buildContext(t, map[string]string{
		"Dockerfile": "FROM " + bb + "\nCOPY --chmod=755 scan /scan\nENTRYPOINT [\"/scan\"]\n",
		"scan": `#!/bin/sh
set -e
names=
for f in $(busybox find $BUILDKIT_SCAN_SOURCE -name '*.pkg'); do names="$names{\"name\":\"$(cat $f)\"},"; done
echo "{\"_type\":\"https://in-toto.io/Statement/v0.1\",\"predicateType\":\"https://spdx.dev/Document\",\"predicate\":{\"packages\":[${names}{\"name\":\"end\"}]}}" >$BUILDKIT_SCAN_DESTINATION/sbom.spdx.json
`})))
	dest := theRegistry(t).Name("attest:1")
	must(t, buildNabla(t, buildContext(t, map[string]string{"Dockerfile": "FROM " + bb + "\nRUN mkdir /db && echo openssl-3 >/db/a.pkg && echo zlib-1 >/db/b.pkg\nCMD [\"ls\"]\n"}),
		"--attest", "type=sbom,generator="+scanner, "--attest", "type=provenance,mode=max", "-t", dest, "--push"))
	idx, err := theRegistry(t).Index(dest)
	if err != nil {
		t.Fatal(err)
	}
	im, err := idx.IndexManifest()
	if err != nil {
		t.Fatal(err)
	}
	found := map[string]string{}
	for _, d := range im.Manifests {
		if d.Annotations["vnd.docker.reference.type"] != "attestation-manifest" {
			continue
		}
		img, err := idx.Image(d.Digest)
		if err != nil {
			t.Fatal(err)
		}
		m, err := img.Manifest()
		if err != nil {
			t.Fatal(err)
		}
		for _, l := range m.Layers {
			found[l.Annotations["in-toto.io/predicate-type"]] = blob(t, img, l.Digest)
		}
	}
	if s := found["https://spdx.dev/Document"]; !strings.Contains(s, "openssl-3") || !strings.Contains(s, "zlib-1") {
		t.Errorf("SBOM: %q", s)
	}
	provenance := false
	for kind, s := range found {
		if strings.HasPrefix(kind, "https://slsa.dev/provenance/") && strings.Contains(s, "/nabla-frontend") {
			provenance = true
		}
	}
	if !provenance {
		t.Errorf("no provenance with the relinking steps in %q", found)
	}
	img, err := theRegistry(t).Image(dest)
	if err != nil {
		t.Fatal(err)
	}
	m, err := img.Manifest()
	if err != nil {
		t.Fatal(err)
	}
	if m.Annotations["org.opencontainers.image.base.name"] != bb || m.Annotations["org.opencontainers.image.base.digest"] != digestOf(t, bb) {
		t.Errorf("annotations %q", m.Annotations)
	}
}

func blob(t testing.TB, img v1.Image, h v1.Hash) string {
	t.Helper()
	l, err := img.LayerByDigest(h)
	if err != nil {
		t.Fatal(err)
	}
	rc, err := l.Compressed()
	if err != nil {
		t.Fatal(err)
	}
	defer rc.Close()
	b, err := io.ReadAll(rc)
	if err != nil {
		t.Fatal(err)
	}
	return string(b)
}
