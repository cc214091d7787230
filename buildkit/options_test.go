package buildkit

import (
	"errors"
	"io"
	"maps"
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"testing"

	"github.com/moby/buildkit/client"
)

func TestOutput(t *testing.T) {
	for _, tt := range []struct {
		in, kind string
		attrs    map[string]string
		fails    string
	}{
		{in: "-", kind: "tar", attrs: map[string]string{"dest": "-"}},
		{in: "out", kind: "local", attrs: map[string]string{"dest": "out"}},
		{in: "type=local,dest=a b", kind: "local", attrs: map[string]string{"dest": "a b"}},
		{in: `type=oci,"dest=a,b.tar"`, kind: "oci", attrs: map[string]string{"dest": "a,b.tar"}},
		{in: "type=registry,ref=x", kind: "image", attrs: map[string]string{"push": "true", "ref": "x"}},
		{in: "type=image,Compression=zstd", kind: "image", attrs: map[string]string{"compression": "zstd"}},
		{in: "dest=x", fails: "say which type"},
		{in: "type=floppy", fails: "no such type"},
		{in: "type=oci,dest", fails: "not NAME=VALUE"},
		{in: `type=oci,"dest=`, fails: "--output"},
	} {
		e, err := output(tt.in)
		if tt.fails != "" {
			var usage UsageError
			if !errors.As(err, &usage) || !strings.Contains(err.Error(), tt.fails) {
				t.Errorf("%q: %v, want %q", tt.in, err, tt.fails)
			}
			continue
		}
		if err != nil || e.Type != tt.kind || !maps.Equal(e.Attrs, tt.attrs) {
			t.Errorf("%q: %s %v, %v", tt.in, e.Type, e.Attrs, err)
		}
	}
}

// TestExporters looks at what daemons are asked for, by what they can do.
func TestExporters(t *testing.T) {
	old := &Daemon{engine: true}
	current := &Daemon{engine: true, containerd: true, attests: true}
	plain := &Daemon{attests: true}
	type want struct {
		kinds string
		push  []string // by the Engine
		load  bool
		fails string
	}
	for _, tt := range []struct {
		name string
		o    Options
		d    *Daemon
		want want
	}{
		{"nothing, engine", Options{}, old, want{kinds: "moby"}},
		{"nothing, daemon", Options{}, plain, want{}},
		{"push, old engine", Options{Push: true, Tags: []string{"h:1/a", "h:1/b:2"}}, old, want{kinds: "moby", push: []string{"h:1/a:latest", "h:1/b:2"}}},
		{"push, engine", Options{Push: true, Tags: []string{"h:1/a"}}, current, want{kinds: "moby push"}},
		{"push, daemon", Options{Push: true, Tags: []string{"h:1/a"}}, plain, want{kinds: "image push"}},
		{"push and load", Options{Push: true, Load: true, Tags: []string{"a"}}, plain, want{kinds: "image push+docker", load: true}},
		{"push adds to the output", Options{Push: true, Tags: []string{"a"}, Outputs: []string{"type=image,compression=zstd"}}, plain, want{kinds: "image push"}},
		{"load, engine", Options{Load: true}, old, want{kinds: "moby"}},
		{"oci, old engine", Options{Outputs: []string{"type=oci,dest=x"}}, old, want{fails: "cannot write it"}},
		{"file", Options{Outputs: []string{"type=docker,dest=x"}}, plain, want{kinds: "docker"}},
		{"cache only", Options{Outputs: []string{"type=cacheonly"}}, old, want{}},
		{"no name", Options{Push: true}, plain, want{fails: "name the image with -t"}},
		{"bad name", Options{Tags: []string{"A"}}, plain, want{fails: "--tag"}},
	} {
		out, err := tt.o.outputs(tt.d, io.Discard)
		if tt.want.fails != "" {
			if err == nil || !strings.Contains(err.Error(), tt.want.fails) {
				t.Errorf("%s: %v, want %q", tt.name, err, tt.want.fails)
			}
			continue
		}
		if err != nil {
			t.Errorf("%s: %v", tt.name, err)
			continue
		}
		var kinds []string
		for _, e := range out.entries {
			k := e.Type
			if e.Attrs["push"] == "true" {
				k += " push"
			}
			kinds = append(kinds, k)
		}
		if got := (want{kinds: strings.Join(kinds, "+"), push: out.push, load: out.load != nil}); !reflect.DeepEqual(got, tt.want) {
			t.Errorf("%s: %+v, want %+v", tt.name, got, tt.want)
		}
	}
}

func TestRequest(t *testing.T) {
	t.Setenv("FROM_HERE", "here")
	o := Options{
		Frontend: "f", Target: "t", BuildArgs: []string{"A=1=2", "FROM_HERE", "NOT_SET_AT_ALL", "EMPTY="}, Labels: []string{"l=m", "alone"},
		Platforms: []string{"linux/amd64"}, AddHosts: []string{"a:1.2.3.4", "b=[::1]", "c:::2"}, NoCache: true, Pull: true,
		Attests:   []string{"type=sbom", "type=provenance,mode=max", "type=provenance,disabled=true"},
		CacheFrom: []string{"h:1/cache", "type=local,src=d"},
	}
	so, err := (&Daemon{attests: true}).request(&o)
	if err != nil {
		t.Fatal(err)
	}
	want := map[string]string{
		"source": "f", "target": "t", "build-arg:A": "1=2", "build-arg:FROM_HERE": "here", "build-arg:EMPTY": "", "label:l": "m", "label:alone": "",
		"platform": "linux/amd64", "add-hosts": "a=1.2.3.4,b=::1,c=::2", "no-cache": "", "image-resolve-mode": "pull", "attest:sbom": "",
	}
	if !maps.Equal(so.FrontendAttrs, want) {
		t.Errorf("attributes\n%v, want\n%v", so.FrontendAttrs, want)
	}
	if so.Frontend != "gateway.v0" {
		t.Errorf("frontend %q", so.Frontend)
	}
	if c := so.CacheImports; len(c) != 2 || !reflect.DeepEqual(c[0], client.CacheOptionsEntry{Type: "registry", Attrs: map[string]string{"ref": "h:1/cache"}}) {
		t.Errorf("cache imports %+v", c)
	}
	// As buildx: provenance where the daemon can, unless it was turned off.
	so, err = (&Daemon{attests: true}).request(&Options{Frontend: "f"})
	if err != nil || so.FrontendAttrs["attest:provenance"] != "mode=min,inline-only=true" {
		t.Errorf("%v %v", so, err)
	}
	if so, err = (&Daemon{engine: true}).request(&Options{Frontend: "f"}); err != nil || so.FrontendAttrs["attest:provenance"] != "" || so.FrontendAttrs["image-resolve-mode"] != "local" {
		t.Errorf("%v %v", so, err)
	}
	if _, err := (&Daemon{Name: "it"}).request(&Options{Frontend: "f", Attests: []string{"type=sbom"}}); err == nil || !strings.Contains(err.Error(), "it cannot write attestations") {
		t.Errorf("%v", err)
	}
}

// TestInputs looks at which directories and names a daemon is given.
func TestInputs(t *testing.T) {
	dir := t.TempDir()
	for _, name := range []string{"Dockerfile", "sub/Other"} {
		p := filepath.Join(dir, name)
		os.MkdirAll(filepath.Dir(p), 0o755)
		if err := os.WriteFile(p, []byte("FROM scratch\n"), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	for _, tt := range []struct {
		o      Options
		stdin  string
		attrs  map[string]string
		mounts string
		fails  string
	}{
		{o: Options{Context: dir}, attrs: map[string]string{"filename": "Dockerfile"}, mounts: "context dockerfile"},
		{o: Options{Context: dir, File: filepath.Join(dir, "sub/Other")}, attrs: map[string]string{"filename": "Other"}, mounts: "context dockerfile"},
		{o: Options{Context: dir, File: "-"}, stdin: "FROM x", attrs: map[string]string{"filename": "Dockerfile", "dockerfilekey": "dockerfile"}, mounts: "context dockerfile"},
		{o: Options{Context: "https://example.org/x.git#main", File: "a/Dockerfile"}, attrs: map[string]string{"context": "https://example.org/x.git#main", "filename": "a/Dockerfile"}},
		{o: Options{Context: "-"}, stdin: "FROM x", attrs: map[string]string{"filename": "Dockerfile", "dockerfilekey": "dockerfile"}, mounts: "context dockerfile"},
		{o: Options{Context: filepath.Join(dir, "nowhere")}, fails: "nowhere"},
		{o: Options{Context: filepath.Join(dir, "sub")}, fails: "name another with -f"},
		{o: Options{Context: "-", File: "-"}, fails: "both the context and the Dockerfile"},
		{o: Options{Context: "-", File: "x"}, stdin: "FROM x", fails: "not a tar file"},
		{o: Options{Context: "-"}, stdin: "", fails: "empty"},
	} {
		so, err := (&Daemon{}).request(&tt.o)
		if err != nil {
			t.Fatal(err)
		}
		delete(so.FrontendAttrs, "source")
		cleanup, err := tt.o.inputs(so, strings.NewReader(tt.stdin))
		cleanup()
		if tt.fails != "" {
			if err == nil || !strings.Contains(err.Error(), tt.fails) {
				t.Errorf("%+v: %v, want %q", tt.o, err, tt.fails)
			}
			continue
		}
		var mounts []string
		for _, m := range []string{"context", "dockerfile"} {
			if so.LocalMounts[m] != nil {
				mounts = append(mounts, m)
			}
		}
		if err != nil || !maps.Equal(so.FrontendAttrs, tt.attrs) || strings.Join(mounts, " ") != tt.mounts {
			t.Errorf("%+v: %v, %v, %v", tt.o, so.FrontendAttrs, mounts, err)
		}
	}
}
