package image

import (
	"bytes"
	"slices"
	"strings"
	"testing"

	"github.com/nabla-build/nabla-build/archive"
	"github.com/nabla-build/nabla-build/manifest"
	"github.com/nabla-build/nabla-build/oci/rootview"
)

func accountsView(t *testing.T, passwd, group string) rootview.View {
	t.Helper()
	var b bytes.Buffer
	w := archive.NewWriter(&b)
	for name, c := range map[string]string{"etc/passwd": passwd, "etc/group": group} {
		if err := w.Add(archive.Header{Name: name, Mode: 0o100644, Size: int64(len(c))}, strings.NewReader(c)); err != nil {
			t.Fatal(err)
		}
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	r, err := archive.Open(b.Bytes())
	if err != nil {
		t.Fatal(err)
	}
	return rootview.View{r}
}

// TestUser follows what docker run makes of USER.
func TestUser(t *testing.T) {
	root := accountsView(t,
		"root:x:0:0:root:/root:/bin/sh\n# comment:x:5:5\nweb:x:33:34::/:\nbroken\nbad:x:minus:1::\n",
		"root:x:0:\nwww:x:34:\nlog:x:4:other,web\nadm:x:5:web\nsame:x:34:web\nroots:x:9:root\n")
	for _, c := range []struct {
		user     string
		uid, gid uint32
		groups   []uint32
		fails    string
	}{
		{"", 0, 0, []uint32{9}, ""},
		{"web", 33, 34, []uint32{4, 5}, ""},
		{"33", 33, 34, []uint32{4, 5}, ""},
		{"web:log", 33, 4, nil, ""},
		{"web:77", 33, 77, nil, ""},
		{"1000", 1000, 0, nil, ""},
		{"1000:www", 1000, 34, nil, ""},
		{"4294967294", 4294967294, 0, nil, ""},
		{"4294967295", 0, 0, nil, "no user"},
		{"-1", 0, 0, nil, "no user"},
		{"nobody", 0, 0, nil, `no user "nobody"`},
		{"web:nogroup", 0, 0, nil, `no group "nogroup"`},
		{"bad", 0, 0, nil, "no numbers"},
	} {
		var g manifest.Guest
		err := resolveUser(root, c.user, &g)
		if c.fails != "" {
			if err == nil || !strings.Contains(err.Error(), c.fails) {
				t.Errorf("%q: %v, want %q", c.user, err, c.fails)
			}
			continue
		}
		if err != nil || g.UID != c.uid || g.GID != c.gid || !slices.Equal(g.Groups, c.groups) {
			t.Errorf("%q: %d:%d %v, %v; want %d:%d %v", c.user, g.UID, g.GID, g.Groups, err, c.uid, c.gid, c.groups)
		}
	}
}
