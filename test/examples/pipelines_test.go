package examples

import (
	"os"
	"os/exec"
	"strings"
	"testing"

	"sigs.k8s.io/yaml"
)

// shell has sh read a script without running it.
func shell(t *testing.T, what, script string) {
	t.Helper()
	cmd := exec.Command("sh", "-n")
	cmd.Stdin = strings.NewReader(script)
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Errorf("%s: %v: %s\n%s", what, err, out, script)
	}
}

func read(t *testing.T, name string, into any) {
	t.Helper()
	b, err := os.ReadFile("../../examples/ci/" + name)
	if err != nil {
		t.Fatal(err)
	}
	if err := yaml.Unmarshal(b, into); err != nil {
		t.Fatalf("%s: %v", name, err)
	}
}

func TestGitHub(t *testing.T) {
	var w struct {
		Jobs map[string]struct {
			RunsOn string `json:"runs-on"`
			Steps  []struct {
				Uses, Run string
				With      map[string]any
			}
		}
	}
	read(t, "github-actions.yaml", &w)
	pushes := 0
	for name, j := range w.Jobs {
		if j.RunsOn == "" || len(j.Steps) == 0 {
			t.Errorf("job %s: %+v", name, j)
		}
		for _, s := range j.Steps {
			if (s.Uses == "") == (s.Run == "") {
				t.Errorf("job %s: a step has either uses or run: %+v", name, s)
			}
			if strings.HasPrefix(s.Uses, "docker/build-push-action@") {
				pushes++
				if args, _ := s.With["build-args"].(string); !strings.Contains(args, "BUILDKIT_SYNTAX=${{ vars.NABLA_FRONTEND }}") {
					t.Errorf("build-args: %q", args)
				}
			}
			shell(t, name, s.Run)
		}
	}
	if pushes != 1 {
		t.Errorf("%d steps build the image", pushes)
	}
}

func TestGitLab(t *testing.T) {
	var jobs map[string]struct {
		Image  string
		Script []string
	}
	read(t, "gitlab-ci.yaml", &jobs)
	for name, j := range jobs {
		if j.Image == "" || len(j.Script) == 0 {
			t.Errorf("job %s: %+v", name, j)
		}
		shell(t, name, strings.Join(j.Script, "\n"))
	}
	if len(jobs) != 2 {
		t.Errorf("%d jobs", len(jobs))
	}
}

func TestScripts(t *testing.T) {
	for _, name := range []string{"build.sh", "certificates.sh"} {
		b, err := os.ReadFile("../../examples/ci/" + name)
		if err != nil {
			t.Fatal(err)
		}
		shell(t, name, string(b))
	}
}
