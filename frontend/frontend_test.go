package frontend

import (
	"context"
	"slices"
	"strings"
	"testing"

	"github.com/moby/buildkit/client/llb"
	"github.com/moby/buildkit/frontend/dockerfile/dockerfile2llb"
	"github.com/moby/buildkit/solver/pb"
	"github.com/opencontainers/go-digest"

	ocispecs "github.com/opencontainers/image-spec/specs-go/v1"
)

func TestOptions(t *testing.T) {
	o, err := parseOptions(map[string]string{
		"build-arg:nabla.entrypoint": `["a","b c"]`, "nabla.memory": "96m", "build-arg:nabla.net": "user", "build-arg:nabla.keep-layers": "0",
		"build-arg:nabla.archives": "one, two", "build-arg:nabla.log": "", "build-arg:OTHER": "nabla.x", "target": "nabla.y",
	})
	if err != nil || !slices.Equal(o.entrypoint, []string{"a", "b c"}) || o.memory != 96<<20 || o.net != "user" || o.keepLayers || !slices.Equal(o.archives, []string{"one", "two"}) || o.log != "" {
		t.Errorf("%+v, %v", o, err)
	}
	if o, err := parseOptions(nil); err != nil || !o.keepLayers {
		t.Errorf("%+v, %v", o, err)
	}
	for k, v := range map[string]string{"nabla.colour": "red", "nabla.memory": "much", "nabla.net": "wifi", "nabla.log": "loud", "nabla.entrypoint": "[1]", "nabla.report": "maybe", "nabla.archives": "a,,b"} {
		if _, err := parseOptions(map[string]string{"build-arg:" + k: v}); err == nil || !strings.Contains(err.Error(), k) {
			t.Errorf("%s=%s: %v", k, v, err)
		}
	}
	if _, err := parseOptions(map[string]string{"nabla.report": "1", "nabla.single-file": "1"}); err == nil {
		t.Error("two results at once")
	}
}

func TestForks(t *testing.T) {
	for script, want := range map[string]string{
		"ls": "", "exec ls | cat": "pipe", "ls | cat": "pipe", "a && b": `"a"`, "cd /x && b": "", "cd /x; export A=1; b": "", "a; b": `"a"`,
		"b &": "background", "(b)": "subshell", "echo $(b)": "substitutes", "echo `b`": "substitutes", "{ cd x; b; }": "", "A=$(b) c": "substitutes",
		"A=1 b": "", "if true; then b; fi": `"b"`, "exec b \"$@\"": "", "b 'a | b'": "", "'": "", "": "", "set -e; b || c": `"b"`, "while true; do b; done": `"b"`,
	} {
		got := shellForks(script)
		if want == "" && got != "" || !strings.Contains(got, want) {
			t.Errorf("%q: %q, want %q", script, got, want)
		}
	}
	for line, want := range map[string]string{
		"python3 app.py": "", "/bin/sh -c a;b": "starts", "sh script": "", "/usr/sbin/nginx -g daemon off;": "worker", "nginx -g daemon off; master_process off;": "", "gunicorn app:app": "gunicorn", "": "",
	} {
		argv := strings.SplitN(line, " ", 3)
		if line == "" {
			argv = nil
		}
		if _, got := forks(argv); want == "" && got != "" || !strings.Contains(got, want) {
			t.Errorf("%q: %q, want %q", line, got, want)
		}
	}
}

// convert makes the graph of a Dockerfile whose images have no configuration.
func convert(t *testing.T, file string) llb.State {
	t.Helper()
	res, err := dockerfile2llb.Dockerfile2LLB(t.Context(), []byte(file), dockerfile2llb.ConvertOpt{
		TargetPlatform: &ocispecs.Platform{OS: "linux", Architecture: "amd64"},
	})
	if err != nil {
		t.Fatal(err)
	}
	return res.State
}

// TestChain follows roots through all kinds of instructions.
func TestChain(t *testing.T) {
	for name, c := range map[string]struct {
		file  string
		image bool
		steps []string
	}{
		"scratch": {"FROM scratch\n", false, nil},
		"copies":  {"FROM scratch AS a\nCOPY x /x\nFROM scratch\nCOPY --from=a /x /y\nCOPY y z /\n", false, []string{"COPY --from=a /x /y", "COPY y z /"}},
		"heredoc": {"FROM scratch\nCOPY <<A <<B /f/\na\nA\nb\nB\nWORKDIR /w\n", false, []string{"COPY <<A <<B /f/", "WORKDIR /w"}},
	} {
		t.Run(name, func(t *testing.T) {
			got, err := chain(t.Context(), convert(t, c.file))
			if err != nil {
				t.Fatal(err)
			}
			var names []string
			for _, l := range got {
				names = append(names, l.name)
			}
			if !slices.Equal(names, c.steps) {
				t.Errorf("%q, want %q", names, c.steps)
			}
		})
	}
	// As RUN, COPY and COPY --link make them.
	base := llb.Image("registry.test/base:1@sha256:" + strings.Repeat("a", 64))
	other := llb.Image("registry.test/other:1")
	st := base.Run(llb.Args([]string{"x"}), llb.AddMount("/m", other), llb.WithCustomName("[2/4] RUN x")).Root()
	st = st.File(llb.Copy(other, "/a", "/b").Copy(other, "/c", "/d"), llb.WithCustomName("[3/4] COPY"))
	st = llb.Merge([]llb.State{st, llb.Scratch().File(llb.Copy(other, "/e", "/f"))}, llb.WithCustomName("[4/4] LINK"))
	got, err := chain(t.Context(), st)
	if err != nil {
		t.Fatal(err)
	}
	want := []string{"", "RUN x", "COPY", "LINK"}
	for i, l := range got {
		if i >= len(want) || l.name != want[i] {
			t.Errorf("link %d is %q, want %q", i, l.name, want)
		}
	}
	if len(got) != 4 || !strings.HasPrefix(got[0].image, "registry.test/base:1@") || got[1].image != "" {
		t.Fatalf("%+v", got)
	}
	// The states are the same vertices as in the whole graph.
	if a, b := head(t, got[0].state), head(t, base); a != b {
		t.Errorf("base: %s, %s", a, b)
	}
	if a, b := head(t, got[3].state), head(t, st); a != b {
		t.Errorf("result: %s, %s", a, b)
	}
	if b := labels(got); b["org.opencontainers.image.base.name"] != "registry.test/base:1" || b["org.opencontainers.image.base.digest"] != "sha256:"+strings.Repeat("a", 64) {
		t.Errorf("%q", b)
	}
}

func head(t *testing.T, st llb.State) digest.Digest {
	t.Helper()
	def, err := st.Marshal(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	d, err := def.Head()
	if err != nil {
		t.Fatal(err)
	}
	return d
}

// vertices are the exec operations of a graph by their command.
func vertices(t *testing.T, st llb.State) map[string]digest.Digest {
	t.Helper()
	def, err := st.Marshal(context.Background(), llb.LinuxAmd64)
	if err != nil {
		t.Fatal(err)
	}
	out := map[string]digest.Digest{}
	for _, b := range def.Def {
		var op pb.Op
		if err := op.Unmarshal(b); err != nil {
			t.Fatal(err)
		}
		if e := op.GetExec(); e != nil {
			d := digest.FromBytes(b)
			out[string(def.Metadata[d].Description["llb.customname"])] = d
			if e.Network != pb.NetMode_NONE {
				t.Errorf("%q has a network", e.Meta.Args)
			}
			for _, m := range e.Mounts {
				if (m.Dest == "/" || m.Dest == "/upper" || m.Dest == "/lower") && !m.Readonly {
					t.Errorf("%q can write to %s", e.Meta.Args, m.Dest)
				}
			}
		}
	}
	return out
}

// TestSteps looks at which steps stay the same vertex, and so are cached, when
// something changes.
func TestSteps(t *testing.T) {
	tool, base := llb.Image("frontend:1"), llb.Image("base:1")
	make := func(content string, keep bool) map[string]digest.Digest {
		a := base.File(llb.Mkdir("/app", 0o755), llb.WithCustomName("[2/3] WORKDIR /app"))
		b := a.File(llb.Mkfile("/app/main", 0o644, []byte(content)), llb.WithCustomName("[3/3] COPY main"))
		c, err := chain(t.Context(), b, llb.LinuxAmd64)
		if err != nil {
			t.Fatal(err)
		}
		r := begin(tool, pb.Caps.CapSet(pb.Caps.All()), nil)
		r.links(t.Context(), c, keep)
		return vertices(t, r.out)
	}
	one, two := make("1", true), make("2", true)
	if len(one) != 4 || len(two) != 4 {
		t.Fatalf("%q", one)
	}
	for name, d := range one {
		if same := two[name] == d; same == strings.Contains(name, "COPY main") {
			t.Errorf("%s: the same vertex: %v", name, same)
		}
	}
	joined := make("1", false)
	if len(joined) != 3 || joined["[nabla] relink 2 steps"] == "" {
		t.Errorf("%q", joined)
	}
}

func TestWhere(t *testing.T) {
	d := parse([]byte("FROM a AS one\nENTRYPOINT [\"x\"]\nFROM b AS two\nCMD y\nFROM one AS three\nCMD z\nFROM 0\n"))
	for _, c := range []struct {
		target, kind string
		line         int
	}{{"", "ENTRYPOINT", 2}, {"", "FROM", 7}, {"three", "CMD", 6}, {"three", "ENTRYPOINT", 2}, {"TWO", "CMD", 4}, {"two", "ENTRYPOINT", 0}, {"nothing", "FROM", 0}} {
		line := 0
		if w := d.where(c.target, c.kind); w != nil {
			line = w[0].Start.Line
		}
		if line != c.line {
			t.Errorf("%s of %q: line %d, want %d", c.kind, c.target, line, c.line)
		}
	}
	if !d.has("two") || d.has("four") || (*dockerfile)(nil).has("x") {
		t.Error("has")
	}
}
