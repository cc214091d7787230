// Package examples checks the files of examples/ci, the manifests with Kubernetes' own
// types and its own evaluation of the pod security standards. It is a module of
// its own for their dependencies.
package examples

import (
	"bytes"
	"errors"
	"io"
	"os"
	"testing"

	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/serializer"
	"k8s.io/apimachinery/pkg/util/yaml"
	"k8s.io/pod-security-admission/api"
	"k8s.io/pod-security-admission/policy"
)

// objects decodes a manifest, refusing fields that Kubernetes does not know.
func objects(t *testing.T, name string) []runtime.Object {
	t.Helper()
	b, err := os.ReadFile("../../examples/ci/" + name)
	if err != nil {
		t.Fatal(err)
	}
	scheme := runtime.NewScheme()
	corev1.AddToScheme(scheme)
	appsv1.AddToScheme(scheme)
	decode := serializer.NewCodecFactory(scheme, serializer.EnableStrict).UniversalDeserializer()
	var out []runtime.Object
	docs := yaml.NewDocumentDecoder(io.NopCloser(bytes.NewReader(b)))
	buf := make([]byte, 1<<20)
	for {
		n, err := docs.Read(buf)
		if errors.Is(err, io.EOF) {
			return out
		}
		if err != nil {
			t.Fatal(err)
		}
		o, _, err := decode.Decode(buf[:n], nil, nil)
		if err != nil {
			t.Fatalf("%s: %v\n%s", name, err, buf[:n])
		}
		out = append(out, o)
	}
}

func deployment(t *testing.T, name string) *appsv1.Deployment {
	t.Helper()
	for _, o := range objects(t, name) {
		if d, ok := o.(*appsv1.Deployment); ok {
			return d
		}
	}
	t.Fatalf("%s: no Deployment", name)
	return nil
}

// problems evaluates a pod at the restricted level.
func problems(t *testing.T, p corev1.PodTemplateSpec) []string {
	t.Helper()
	e, err := policy.NewEvaluator(policy.DefaultChecks(), nil)
	if err != nil {
		t.Fatal(err)
	}
	var out []string
	for _, r := range e.EvaluatePod(api.LevelVersion{Level: api.LevelRestricted, Version: api.LatestVersion()}, &p.ObjectMeta, &p.Spec) {
		if !r.Allowed {
			out = append(out, r.ForbiddenReason+": "+r.ForbiddenDetail)
		}
	}
	return out
}

func TestAppIsRestricted(t *testing.T) {
	d := deployment(t, "kubernetes-app.yaml")
	if p := problems(t, d.Spec.Template); len(p) > 0 {
		t.Errorf("not restricted: %q", p)
	}
	// The check itself: a pod that may be root is refused.
	*d.Spec.Template.Spec.SecurityContext.RunAsNonRoot = false
	if p := problems(t, d.Spec.Template); len(p) == 0 {
		t.Error("a pod that may run as root passes for restricted")
	}
	for _, o := range objects(t, "kubernetes-app.yaml") {
		if s, ok := o.(*corev1.Service); ok {
			for k, v := range s.Spec.Selector {
				if d.Spec.Template.Labels[k] != v {
					t.Errorf("the service selects %s=%s, the pods have %v", k, v, d.Spec.Template.Labels)
				}
			}
		}
	}
}

func TestBuildkitd(t *testing.T) {
	d := deployment(t, "kubernetes-buildkitd.yaml")
	if n := len(d.Spec.Template.Spec.Containers); n != 1 {
		t.Fatalf("%d containers", n)
	}
}
