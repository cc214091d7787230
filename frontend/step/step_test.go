package step

import (
	"io"
	"strings"
	"testing"

	v1 "github.com/google/go-containerregistry/pkg/v1"
)

// TestRelease has a step of another release than the frontend that asks for it.
func TestRelease(t *testing.T) {
	err := Run(t.Context(), []string{"layer", "-release", "v0.0.1-other"}, io.Discard)
	if err == nil || !strings.Contains(err.Error(), "v0.0.1-other") || !strings.Contains(err.Error(), "by digest") {
		t.Errorf("%v", err)
	}
}

func TestBadCommand(t *testing.T) {
	for _, args := range [][]string{nil, {"dance", "-release", "unknown"}, {"layer", "-colour"}} {
		if err := Run(t.Context(), args, io.Discard); err == nil {
			t.Errorf("%q: no error", args)
		}
	}
}

// TestRequest sends a configuration of several variables' size through the
// environment.
func TestRequest(t *testing.T) {
	want := Request{Config: v1.Config{Labels: map[string]string{"long": strings.Repeat("x", 3*requestChunk)}}}
	env, err := want.Env()
	if err != nil || len(env) != 4 {
		t.Fatalf("%d parts, %v", len(env), err)
	}
	for i, v := range env {
		t.Setenv(RequestVariable(i), v)
	}
	got, err := request()
	if err != nil || got.Config.Labels["long"] != want.Config.Labels["long"] {
		t.Errorf("%v", err)
	}
}
