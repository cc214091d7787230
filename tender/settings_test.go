package tender

import (
	"reflect"
	"strings"
	"testing"

	"github.com/nabla-build/nabla-build/manifest"
)

func TestParseSettings(t *testing.T) {
	s, rest, err := parseSettings([]string{
		"PATH=/bin", "NABLA_LOG=debug", "NABLA_NET=user", "NABLA_MEMORY=512m", "NABLA_PUBLISH=8080:80,53:5353/udp",
		"NABLA_TRACE=1", "NABLA_TAP=tap7", "EMPTY=", "NABLAX=1",
	})
	if err != nil {
		t.Fatal(err)
	}
	want := settings{log: LogDebug, trace: true, network: "user", tap: "tap7", memory: 512 << 20,
		publish: []publish{{8080, 80, "tcp"}, {53, 5353, "udp"}}, chosen: true}
	if !reflect.DeepEqual(s, want) {
		t.Errorf("got %+v, want %+v", s, want)
	}
	if !reflect.DeepEqual(rest, []string{"PATH=/bin", "EMPTY=", "NABLAX=1"}) {
		t.Errorf("the guest's environment: %q", rest)
	}
	for _, bad := range []string{
		"NABLA_LOG=loud", "NABLA_NET=bridge", "NABLA_MEMORY=1", "NABLA_MEMORY=lots", "NABLA_MEMORY=99999999999t",
		"NABLA_PUBLISH=80", "NABLA_PUBLISH=0:80", "NABLA_PUBLISH=80:70000", "NABLA_PUBLISH=80:80/sctp",
		"NABLA_TRACE=yes", "NABLA_TAP=../x", "NABLA_TAP=averyveryverylongname", "NABLA_SECRET=1",
	} {
		name, _, _ := strings.Cut(bad, "=")
		if _, _, err := parseSettings([]string{bad}); err == nil || !strings.HasPrefix(err.Error(), name) {
			t.Errorf("%s: got %v, want an error that names the variable", bad, err)
		}
	}
}

func TestPorts(t *testing.T) {
	m := &manifest.Manifest{Ports: []manifest.Port{{Port: 80, Protocol: "tcp"}}}
	if got := (&settings{}).ports(m); !reflect.DeepEqual(got, []publish{{80, 80, "tcp"}}) {
		t.Errorf("exposed ports: %v", got)
	}
	if got := (&settings{chosen: true}).ports(m); len(got) != 0 {
		t.Errorf("NABLA_PUBLISH is empty, got %v", got)
	}
}

func TestUserFiles(t *testing.T) {
	got := string(userResolver([]byte("# c\nnameserver 127.0.0.11\nsearch a.example b.example\noptions ndots:5\n")))
	if want := "nameserver 192.168.127.1\nsearch a.example b.example\noptions ndots:5\n"; got != want {
		t.Errorf("resolv.conf: %q, want %q", got, want)
	}
	got = string(withoutOwnName([]byte("127.0.0.1\tlocalhost\n172.17.0.2\tbox\n10.0.0.1 other"), "box"))
	if want := "127.0.0.1\tlocalhost\n10.0.0.1 other\n"; got != want {
		t.Errorf("hosts: %q, want %q", got, want)
	}
}

// FuzzSettings: no value of a variable makes the tender panic.
func FuzzSettings(f *testing.F) {
	f.Add("NABLA_PUBLISH=1:2/udp,3:4", "NABLA_MEMORY=5g")
	f.Fuzz(func(t *testing.T, a, b string) {
		parseSettings([]string{a, b})
	})
}
