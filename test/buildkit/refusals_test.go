//go:build integration

package buildkit

import (
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/nabla-build/nabla-build/test/daemons"
	"github.com/nabla-build/nabla-build/test/nablatest"
)

// TestFrontendRefuses gives our frontend what cannot become a nabla image: the
// user sees one message, whichever way the build was asked for, and nothing is
// pushed.
func TestFrontendRefuses(t *testing.T) {
	base := busyboxBase(t)
	// A program for another machine: e_machine of busybox changed to AArch64.
	foreign, err := os.ReadFile("/bin/busybox")
	if err != nil {
		t.Fatal(err)
	}
	foreign[18], foreign[19] = 183, 0
	for _, tt := range []struct {
		name       string
		dockerfile string
		args       []string
		want       []string
		excerpt    string // a line of the Dockerfile as errors show it, where the daemon passes places on
	}{
		{name: "syntax", dockerfile: "FROM scratch\nCOPPY a b\n", want: []string{"unknown instruction: COPPY"}, excerpt: "2 | >>> COPPY a b"},
		{name: "variable", dockerfile: "FROM ${NOTHING}\nCMD [\"x\"]\n", want: []string{"base name (${NOTHING}) should not be blank"}, excerpt: "1 | >>> FROM ${NOTHING}"},
		{name: "stage", dockerfile: "FROM " + base + "\n", args: []string{"--target", "nothing"}, want: []string{"target stage \"nothing\" could not be found"}},
		{name: "platform", dockerfile: "FROM " + base + "\nCMD [\"sh\"]\n", args: []string{"--platform", "linux/arm64"}, want: []string{"linux/arm64", "linux/amd64"}},
		{name: "no-entrypoint", dockerfile: "FROM scratch\nCOPY Dockerfile /x\n", want: []string{"neither an entrypoint nor a command"}},
		{name: "missing-program", dockerfile: "FROM " + base + "\nENTRYPOINT [\"/srv/server\"]\n", want: []string{"/srv/server does not exist"}, excerpt: "2 | >>> ENTRYPOINT [\"/srv/server\"]"},
		{name: "foreign-program", dockerfile: "FROM " + base + "\nCOPY --chmod=755 foreign /srv/foreign\nCMD [\"/srv/foreign\"]\n", want: []string{"/srv/foreign", "linux/amd64 only"}},
		{name: "no-user", dockerfile: "FROM " + base + "\nUSER stranger\nCMD [\"sh\"]\n", want: []string{"stranger", "/etc/passwd"}},
		{name: "version", dockerfile: "FROM " + base + "\nCMD [\"sh\"]\n", args: []string{"--build-arg", "nabla.turbo=1"}, want: []string{"nabla.turbo", "of release", "nabla.memory"}},
		{name: "value", dockerfile: "FROM " + base + "\nCMD [\"sh\"]\n", args: []string{"--build-arg", "nabla.memory=plenty"}, want: []string{`nabla.memory="plenty"`}},
	} {
		dir := buildContext(t, map[string]string{"Dockerfile": tt.dockerfile, "foreign": string(foreign)})
		named := syntax(t, dir, nabla(t))
		for _, way := range []struct {
			name  string
			build func(dest string) nablatest.Result
			error string // what its one line of error begins with
			shows bool
			line  int // lines before the Dockerfile's
		}{
			{"buildx-remote", func(dest string) nablatest.Result {
				return docker(t, append(append([]string{"buildx", "build", "--builder", "remote", "-t", dest, "--push"}, tt.args...), named)...)
			}, "ERROR: failed to build:", true, 1},
			{"buildx-engine", func(dest string) nablatest.Result {
				return docker(t, append(append([]string{"buildx", "build", "--builder", "default", "-t", dest, "--push"}, tt.args...), named)...)
			}, "ERROR: failed to build:", false, 1},
			{"nabla-build", func(dest string) nablatest.Result {
				return nablaBuild(t, append(append([]string{"build", "--builder", "remote", "--frontend", nabla(t), "-t", dest, "--push"}, tt.args...), dir)...)
			}, "nabla-build: build ", true, 0},
		} {
			if testing.Short() && way.name != "nabla-build" {
				continue
			}
			t.Run(tt.name+"/"+way.name, func(t *testing.T) {
				dest := theRegistry(t).Name("refused/" + tt.name + ":" + way.name)
				r := way.build(dest)
				if r.Status == 0 {
					t.Fatalf("it was built:\n%s", r.Stderr)
				}
				var message string
				for line := range strings.Lines(r.Stderr) {
					if strings.HasPrefix(line, way.error) {
						message += line
					}
				}
				if strings.Count(message, "\n") != 1 {
					t.Errorf("%d lines begin with %q:\n%s", strings.Count(message, "\n"), way.error, r.Stderr)
				}
				for _, w := range tt.want {
					if !strings.Contains(message, w) {
						t.Errorf("the message lacks %q:\n%s", w, r.Stderr)
					}
				}
				if strings.Contains(r.Stderr, "panic") || strings.Contains(r.Stderr, "goroutine ") {
					t.Errorf("a crash:\n%s", r.Stderr)
				}
				excerpt := tt.excerpt
				if way.line == 1 {
					excerpt = strings.NewReplacer("1 | ", "2 | ", "2 | ", "3 | ").Replace(excerpt)
				}
				if way.shows && !strings.Contains(r.Stderr, excerpt) {
					t.Errorf("no line %q in\n%s", excerpt, r.Stderr)
				}
				if _, err := theRegistry(t).Image(dest); err == nil {
					t.Error("an image was pushed")
				}
			})
		}
	}
}

// TestRegistryRefuses pushes a nabla image to a registry that does not want it,
// and pulls a base from one.
func TestRegistryRefuses(t *testing.T) {
	reg, err := daemons.StartRegistry()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { reg.Close() })
	reg.Refuse(func(*http.Request) int { return http.StatusForbidden })
	dir := buildContext(t, map[string]string{"Dockerfile": "ARG BASE\nFROM ${BASE}\nCMD [\"sh\"]\n"})
	for _, builder := range []string{"default", "remote"} {
		for what, args := range map[string][]string{
			"push": {"-t", reg.Name("app:1"), "--push", "--build-arg", "BASE=" + busyboxBase(t)},
			"base": {"-o", "type=tar,dest=" + filepath.Join(t.TempDir(), "out.tar"), "--build-arg", "BASE=" + reg.Name("base:1")},
		} {
			r := nablaBuild(t, append(append([]string{"build", "--builder", builder, "--frontend", nabla(t)}, args...), dir)...)
			if r.Status != 1 || strings.Count(r.Stderr, "nabla-build: ") != 1 || !strings.Contains(r.Stderr, reg.Host) {
				t.Errorf("%s, %s: status %d\n%s", builder, what, r.Status, r.Stderr)
			}
		}
	}
}
