//go:build integration

package buildkit

import (
	"bufio"
	"encoding/json"
	"fmt"
	"math/rand"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/moby/buildkit/client"

	"github.com/nabla-build/nabla-build/test/daemons"
	"github.com/nabla-build/nabla-build/test/nablatest"
)

// record is what a build said of its steps, and how long it took.
type record struct {
	ran, cached []string // names of vertices
	times       []string // when each began and how long it took
	took        time.Duration
	pushed      int64 // bytes to the registry
	log         string
	warnings    []client.VertexWarning
}

// measured builds a context with buildctl and reads the records of its vertices.
func measured(t testing.TB, frontend, dir, dest string, opts ...string) record {
	t.Helper()
	args := []string{"build", "--progress", "rawjson", "--frontend", "gateway.v0", "--opt", "source=" + frontend,
		"--local", "context=" + dir, "--local", "dockerfile=" + dir, "--output", "type=image,push=true,name=" + dest}
	before, start := theRegistry(t).Pushed(), time.Now()
	r := must(t, buildctl(t, append(args, opts...)...))
	rec := record{took: time.Since(start), pushed: theRegistry(t).Pushed() - before}
	last := map[string]*client.Vertex{}
	s := bufio.NewScanner(strings.NewReader(r.Stderr))
	s.Buffer(nil, 64<<20)
	for s.Scan() {
		var st client.SolveStatus
		if err := json.Unmarshal(s.Bytes(), &st); err != nil {
			t.Fatalf("%v: %s", err, s.Text())
		}
		for _, v := range st.Vertexes {
			if v.Completed != nil {
				last[v.Digest.String()] = v
			}
		}
		for _, l := range st.Logs {
			rec.log += string(l.Data)
		}
		for _, w := range st.Warnings {
			rec.warnings = append(rec.warnings, *w)
		}
	}
	for _, v := range last {
		if v.Started != nil {
			rec.times = append(rec.times, fmt.Sprintf("%6.2f s: %5.2f s %s", v.Started.Sub(start).Seconds(), v.Completed.Sub(*v.Started).Seconds(), v.Name))
		}
		if v.Cached {
			rec.cached = append(rec.cached, v.Name)
		} else {
			rec.ran = append(rec.ran, v.Name)
		}
	}
	slices.Sort(rec.ran)
	slices.Sort(rec.times)
	slices.Sort(rec.cached)
	return rec
}

// work are the steps that did something of the build itself: not those that
// read the context, look images up, or export.
func (r record) work() []string {
	return slices.DeleteFunc(slices.Clone(r.ran), func(name string) bool {
		for _, p := range []string{"[internal]", "exporting", "pushing", "resolve image", "docker-image://"} {
			if strings.HasPrefix(name, p) || strings.Contains(name, "] FROM ") {
				return true
			}
		}
		return false
	})
}

// pythonCopy is a copy of the Python sample whose sources a test may change, with
// a file that no other test has.
func pythonCopy(t testing.TB, salt string) string {
	t.Helper()
	dir := t.TempDir()
	if err := os.CopyFS(dir, os.DirFS(filepath.Join(nablatest.Root(t), "images", "python"))); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(dir, "app", "salt.py"), []byte("SALT = "+fmt.Sprintf("%q", salt)+"\n"), 0o644); err != nil {
		t.Fatal(err)
	}
	return dir
}

// TestCache builds the Python sample, with data beside its code, again, and after
// one source file has changed, and compares with the stock frontend: what is
// done, what is pushed, and how long it takes.
func TestCache(t *testing.T) {
	dir := pythonCopy(t, "cache")
	data := make([]byte, 256<<10)
	rand.New(rand.NewSource(1)).Read(data)
	if err := os.WriteFile(filepath.Join(dir, "app", "data.bin"), data, 0o644); err != nil {
		t.Fatal(err)
	}
	arg := []string{"--opt", "build-arg:BASE=" + base(t, "python")}
	own, other := nabla(t), stock(t)
	dest := theRegistry(t).Name("cache/python:nabla")
	stockDest := theRegistry(t).Name("cache/python:stock")
	plain := measured(t, other, dir, stockDest, arg...)
	t.Logf("first, stock: %v, %d bytes pushed\n%s", plain.took, plain.pushed, strings.Join(plain.times, "\n"))
	first := measured(t, own, dir, dest, arg...)
	t.Logf("first: %v, %d bytes pushed\n%s", first.took, first.pushed, strings.Join(first.times, "\n"))
	if !strings.Contains(first.log, "call sites: ") {
		t.Errorf("no summary in the log: %s", first.log)
	}
	digest := digestOf(t, dest)

	again := measured(t, own, dir, dest, arg...)
	if w := again.work(); len(w) > 0 {
		t.Errorf("an unchanged build did again: %q", w)
	}
	if digestOf(t, dest) != digest {
		t.Error("an unchanged build made another image")
	}

	// Another application on the same base.
	next := buildContext(t, map[string]string{"Dockerfile": "FROM " + base(t, "python") + "\nCOPY main.py /\nCMD [\"python3\", \"/main.py\"]\n", "main.py": "print(1)\n"})
	r := measured(t, own, next, theRegistry(t).Name("cache/next:nabla"))
	for _, w := range r.work() {
		if !strings.Contains(w, "COPY main.py") && w != "[nabla] write the manifest" {
			t.Errorf("another application on the same base had this done again: %q", w)
		}
	}

	var most time.Duration // of the overhead
	least := time.Hour
	for i := range 3 {
		if err := os.WriteFile(filepath.Join(dir, "app", "salt.py"), fmt.Appendf(nil, "changed = %d\n", i), 0o644); err != nil {
			t.Fatal(err)
		}
		plain := measured(t, other, dir, stockDest, arg...)
		changed := measured(t, own, dir, dest, arg...)
		over := changed.took - plain.took
		most, least = max(most, over), min(least, over)
		t.Logf("changed:\n%s", strings.Join(changed.times, "\n"))
		for _, w := range changed.work() {
			if !strings.Contains(w, "COPY app/") && w != "[nabla] write the manifest" {
				t.Errorf("a changed source file had this done again: %q", w)
			}
		}
		ratio := float64(changed.pushed) / float64(plain.pushed)
		t.Logf("stock: %v, %d bytes pushed (%s); nabla: %v, %d bytes pushed (%s): %.3f x the bytes, %.2f x the time", plain.took, plain.pushed, sizes(t, stockDest),
			changed.took, changed.pushed, sizes(t, dest), ratio, changed.took.Seconds()/plain.took.Seconds())
		if ratio > 1.1 {
			t.Errorf("%.3f x the bytes that the stock frontend pushes", ratio)
		}
	}
	t.Logf("overhead of a rebuild: %v to %v", least, most)
	// The short form runs beside other tests, which take their share of the time.
	if least > time.Second && !testing.Short() {
		t.Errorf("a rebuild takes at least %v longer than with the stock frontend", least)
	}
}

// TestFirstBuild measures what the first build of the Python sample takes more
// than the stock frontend's, each by a daemon with an empty cache. Nothing is
// exported: compressing layers is the exporter's work.
func TestFirstBuild(t *testing.T) {
	if testing.Short() {
		t.Skip("two daemons; the long form only")
	}
	dir := pythonCopy(t, "first")
	took := map[string]time.Duration{}
	for _, f := range []struct{ name, image string }{{"stock", stock(t)}, {"nabla", nabla(t)}} {
		b, err := daemons.StartBuildkitd(nablatest.Root(t), nil)
		if err != nil {
			t.Fatal(err)
		}
		cmd, err := b.Buildctl("build", "--progress", "plain", "--frontend", "gateway.v0", "--opt", "source="+f.image, "--opt", "build-arg:BASE="+base(t, "python"),
			"--local", "context="+dir, "--local", "dockerfile="+dir)
		if err != nil {
			t.Fatal(err)
		}
		start := time.Now()
		must(t, nablatest.Within(t, limit, cmd))
		took[f.name] = time.Since(start)
		if err := b.Close(); err != nil {
			t.Error(err)
		}
	}
	over := took["nabla"] - took["stock"]
	t.Logf("stock %v, nabla %v: %v more, %.2f x", took["stock"], took["nabla"], over, took["nabla"].Seconds()/took["stock"].Seconds())
	if over > 5*time.Second {
		t.Errorf("a first build takes %v longer than with the stock frontend", over)
	}
}

// TestSharedCache has a second daemon take relinked layers from the registry.
func TestSharedCache(t *testing.T) {
	dir := buildContext(t, map[string]string{"Dockerfile": "FROM " + busyboxBase(t) + "\nRUN echo shared >/shared\nCOPY f /f\nCMD [\"ls\"]\n", "f": "shared"})
	dest, cache := theRegistry(t).Name("shared:1"), theRegistry(t).Name("shared:cache")
	measured(t, nabla(t), dir, dest, "--export-cache", "type=registry,mode=max,ref="+cache)
	digest := digestOf(t, dest)
	b, err := daemons.StartBuildkitd(nablatest.Root(t), nil)
	if err != nil {
		t.Fatal(err)
	}
	defer func() {
		if err := b.Close(); err != nil {
			t.Error(err)
		}
	}()
	cmd, err := b.Buildctl("build", "--progress", "plain", "--frontend", "gateway.v0", "--opt", "source="+nabla(t), "--local", "context="+dir, "--local", "dockerfile="+dir,
		"--import-cache", "type=registry,ref="+cache, "--output", "type=image,push=true,name="+dest)
	if err != nil {
		t.Fatal(err)
	}
	r := must(t, nablatest.Within(t, limit, cmd))
	// A step that runs says what it found.
	if strings.Contains(r.Stderr, "call sites:") || !strings.Contains(r.Stderr, "[nabla] write the manifest") {
		t.Errorf("not all came from the cache:\n%s", r.Stderr)
	}
	if digestOf(t, dest) != digest {
		t.Error("the second daemon made another image")
	}
}

// sizes are those of an image's parts as they are pushed.
func sizes(t testing.TB, name string) string {
	t.Helper()
	img, err := theRegistry(t).Image(name)
	if err != nil {
		t.Fatal(err)
	}
	m, err := img.Manifest()
	if err != nil {
		t.Fatal(err)
	}
	out := fmt.Sprintf("configuration %d", m.Config.Size)
	for _, l := range m.Layers {
		out += fmt.Sprintf(", layer %d", l.Size)
	}
	return out
}
