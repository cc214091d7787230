package manifest

import (
	"bytes"
	"reflect"
	"strings"
	"testing"
)

func good() *Manifest {
	d := "sha256:" + strings.Repeat("0a", 32)
	return &Manifest{
		SchemaVersion: 1, OS: "linux", Architecture: "amd64", Release: "v1",
		Guest:    Guest{Entrypoint: []string{"python3"}, Cmd: []string{"x"}, Env: []string{"A=b"}, WorkingDir: "/app", UID: 5},
		Archives: []Archive{{File: File{Path: "/nabla.d/x.cpio", Digest: d, Size: 10}, Source: d}},
		Ports:    []Port{{80, "tcp"}},
		Report:   &File{Path: "/nabla.d/report.json", Digest: d, Size: 3},
	}
}

func TestRoundTrip(t *testing.T) {
	b, err := good().Encode()
	if err != nil {
		t.Fatal(err)
	}
	m, err := Decode(bytes.NewReader(b))
	if err != nil {
		t.Fatal(err)
	}
	if !reflect.DeepEqual(m, good()) {
		t.Errorf("got %+v", m)
	}
}

func TestRefused(t *testing.T) {
	for name, edit := range map[string]func(*Manifest){
		"architecture": func(m *Manifest) { m.Architecture = "arm64" },
		"version":      func(m *Manifest) { m.SchemaVersion = 2 },
		"relative":     func(m *Manifest) { m.Guest.WorkingDir = "app" },
		"dots":         func(m *Manifest) { m.Archives[0].Path = "/nabla.d/../etc/shadow" },
		"digest":       func(m *Manifest) { m.Archives[0].Digest = "sha256:12" },
		"source":       func(m *Manifest) { m.Archives[0].Source = "" },
		"size":         func(m *Manifest) { m.Archives[0].Size = -1 },
		"offset":       func(m *Manifest) { m.Archives[0].Offset = 5 },
		"env":          func(m *Manifest) { m.Guest.Env = []string{"=x"} },
		"nul":          func(m *Manifest) { m.Guest.Cmd = []string{"a\x00b"} },
		"port":         func(m *Manifest) { m.Ports[0].Port = 0 },
		"protocol":     func(m *Manifest) { m.Ports[0].Protocol = "sctp" },
		"network":      func(m *Manifest) { m.Network = "magic" },
		"stop signal":  func(m *Manifest) { m.StopSignal = "99" },
		"layout":       func(m *Manifest) { m.Layout = []Placement{{Path: "/x", Digest: m.Archives[0].Digest, Address: 1}} },
	} {
		m := good()
		edit(m)
		if _, err := m.Encode(); err == nil || !strings.HasPrefix(err.Error(), "manifest: ") {
			t.Errorf("%s: got %v", name, err)
		}
	}
	for name, text := range map[string]string{
		"not JSON": "{", "unknown field": `{"schemaVersion":1,"x":1}`, "trailing": `{"schemaVersion":1} {}`,
		"newer": `{"schemaVersion":7,"anything":1}`, "empty": "",
	} {
		if _, err := Decode(strings.NewReader(text)); err == nil {
			t.Errorf("%s: accepted", name)
		}
	}
}

// FuzzDecode: whatever Decode accepts encodes to something that decodes to the
// same.
func FuzzDecode(f *testing.F) {
	b, err := good().Encode()
	if err != nil {
		f.Fatal(err)
	}
	f.Add(b)
	f.Add([]byte(`{"schemaVersion":1}`))
	f.Add([]byte(`{"schemaVersion":1,"os":"linux","architecture":"amd64","guest":{"cmd":[],"workingDir":"/"},"ports":[]}`))
	f.Fuzz(func(t *testing.T, b []byte) {
		m, err := Decode(bytes.NewReader(b))
		if err != nil {
			return
		}
		c, err := m.Encode()
		if err != nil {
			t.Fatalf("accepted but does not encode: %v", err)
		}
		n, err := Decode(bytes.NewReader(c))
		if err != nil {
			t.Fatalf("encoded, but refused: %v", err)
		}
		// As bytes: an empty list is left out, and comes back as none.
		if d, err := n.Encode(); err != nil || !bytes.Equal(c, d) {
			t.Fatalf("changed on the way: %v\n%s\n%s", err, c, d)
		}
	})
}
