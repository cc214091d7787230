//go:build integration

package buildkit

import (
	"crypto/ed25519"
	"crypto/rand"
	"encoding/pem"
	"maps"
	"os"
	"path"
	"path/filepath"
	"reflect"
	"slices"
	"strings"
	"testing"

	v1 "github.com/google/go-containerregistry/pkg/v1"
	"golang.org/x/crypto/ssh"
)

// A feature is a Dockerfile that uses one thing, built with the stock frontend
// and with ours.
type feature struct {
	files map[string]string // of the context; Dockerfile without FROM begins on the base
	args  []string          // of docker buildx build; DIR is the context's directory
	out   string            // attributes of the output
}

const program = "CMD [\"cat\", \"/etc/passwd\"]\n"

var features = map[string]feature{
	"plain":            {files: map[string]string{"Dockerfile": "WORKDIR /srv/app\nCOPY . .\nRUN echo x >made\n", "a": "1", "sub/b": "2"}},
	"nothing":          {files: map[string]string{"Dockerfile": ""}},
	"stages":           {files: map[string]string{"Dockerfile": "RUN mkdir /out && echo built >/out/file && chmod 640 /out/file\nFROM BASE\nCOPY --from=0 /out /out\n"}},
	"from-stage":       {files: map[string]string{"Dockerfile": "AS one\nRUN echo 1 >/one\nFROM one AS two\nRUN echo 2 >/two && rm /one\nFROM two\nRUN echo 3 >/three\n"}},
	"target":           {files: map[string]string{"Dockerfile": "AS wanted\nRUN echo wanted >/which\nCMD [\"cat\", \"/which\"]\nFROM BASE\nRUN echo other >/which\n"}, args: []string{"--target", "wanted"}},
	"build-arg":        {files: map[string]string{"Dockerfile": "ARG WORD=none\nENV WORD=$WORD\nRUN echo $WORD >/word\n"}, args: []string{"--build-arg", "WORD=given"}},
	"heredoc":          {files: map[string]string{"Dockerfile": "RUN <<EOF\nmkdir -p /here/doc\necho one >/here/doc/1\nEOF\nCOPY --chmod=600 <<one <<two /files/\n1\none\n2\ntwo\n"}},
	"secret":           {files: map[string]string{"Dockerfile": "RUN --mount=type=secret,id=token cat /run/secrets/token | busybox md5sum >/sum\nRUN --mount=type=secret,id=token,env=T echo ${#T} >/length\n", "../token": "sesame"}, args: []string{"--secret", "id=token,src=DIR/../token"}},
	"ssh":              {files: map[string]string{"Dockerfile": "RUN --mount=type=ssh test -S $SSH_AUTH_SOCK && echo agent >/agent\n"}, args: []string{"--ssh", "default=DIR/../key"}},
	"cache-mount":      {files: map[string]string{"Dockerfile": "RUN --mount=type=cache,target=/var/cache/x echo 1 >>/var/cache/x/n && echo done >/done\n"}},
	"bind-mount":       {files: map[string]string{"Dockerfile": "RUN --mount=target=/ctx --mount=type=tmpfs,target=/scratch cp /ctx/a /copy && touch /scratch/x\n", "a": "content"}},
	"dockerignore":     {files: map[string]string{"Dockerfile": "COPY . /ctx\n", ".dockerignore": "*.log\n!keep.log\nsub\n", "a.log": "x", "keep.log": "y", "sub/z": "z", "file": "f"}},
	"own-dockerignore": {files: map[string]string{"sub/My.Dockerfile": "COPY . /ctx\n", "sub/My.Dockerfile.dockerignore": "b\n", "a": "1", "b": "2"}, args: []string{"-f", "DIR/sub/My.Dockerfile"}},
	"named-context":    {files: map[string]string{"Dockerfile": "COPY --from=more /file /from-more\nCOPY --from=base2 /etc/passwd /passwd2\n", "../more/file": "more"}, args: []string{"--build-context", "more=DIR/../more", "--build-context", "base2=docker-image://BASE"}},
	"named-base":       {files: map[string]string{"Dockerfile": "FROM nowhere/base:1\nRUN echo x >/x\n"}, args: []string{"--build-context", "nowhere/base:1=docker-image://BASE"}},
	"context-base":     {files: map[string]string{"Dockerfile": "FROM root\nCOPY a /a\n", "a": "1", "../more/file": "more", "../more/sub/x": "y"}, args: []string{"--build-context", "root=DIR/../more", "--build-context", "bb=docker-image://BASE", "--build-arg", "nabla.archives=BASE"}},
	"add-host":         {files: map[string]string{"Dockerfile": "RUN grep made /etc/hosts >/hosts\n"}, args: []string{"--add-host", "made:10.1.2.3"}},
	"platform":         {files: map[string]string{"Dockerfile": "ARG TARGETPLATFORM\nRUN echo $TARGETPLATFORM >/platform\n"}, args: []string{"--platform", "linux/amd64"}},
	"labels":           {files: map[string]string{"Dockerfile": "LABEL a=1 b.c=\"two words\"\n"}, args: []string{"--label", "d=4"}},
	"metadata":         {files: map[string]string{"Dockerfile": "ENV A=1 B=\"two words\"\nEXPOSE 80 53/udp\nVOLUME /data\nSTOPSIGNAL SIGINT\nWORKDIR /w\nENTRYPOINT [\"cat\"]\nCMD [\"/etc/passwd\"]\n"}},
	"user":             {files: map[string]string{"Dockerfile": "RUN echo app:x:123:456::/:/bin/sh >>/etc/passwd && chmod 1777 /tmp\nUSER app\nRUN echo mine >/tmp/mine\n"}},
	"link":             {files: map[string]string{"Dockerfile": "COPY --link a /x/a\nCOPY --link --chown=12:34 --chmod=751 sub /x/sub\nRUN echo y >/x/y\n", "a": "1", "sub/b": "2"}},
	"chown-chmod":      {files: map[string]string{"Dockerfile": "COPY --chown=5:6 --chmod=4755 a /a\nCOPY --chown=7 sub /sub\n", "a": "1", "sub/b": "2"}},
	"add":              {files: map[string]string{"Dockerfile": "ADD a sub /added/\nRUN busybox tar -C /added -cf /t.tar . && busybox gzip /t.tar\n", "a": "1", "sub/b": "2"}},
	"exclude":          {files: map[string]string{"Dockerfile": "COPY --exclude=*.tmp --parents sub/deep /p/\n", "sub/deep/x": "1", "sub/deep/y.tmp": "2"}},
	"delete":           {files: map[string]string{"Dockerfile": "RUN mkdir -p /d/e/f && echo 1 >/d/e/f/g && echo 2 >/d/h\nRUN rm -r /d/e && rm /etc/passwd && rm /bin/sleep && ln -s busybox /bin/sleep\nRUN rm -r /d && mkdir /d && echo new >/d/new\nCMD [\"cat\", \"/d/new\"]\n"}},
	"delete-base":      {files: map[string]string{"Dockerfile": "RUN rm -r /tmp /bin/httpd && echo file >/tmp && mkdir /bin/httpd\nRUN rm /tmp && mkdir /tmp && touch /tmp/again\nCMD [\"ls\", \"/tmp\"]\n"}},
	"hard-links":       {files: map[string]string{"Dockerfile": "RUN echo 1 >/one && ln /one /two\nRUN ln /two /three && ln /etc/passwd /passwd\nRUN echo changed >>/two\nRUN rm /one && echo apart >/etc/passwd.new && busybox mv /etc/passwd.new /etc/passwd\n"}},
	"kinds":            {files: map[string]string{"Dockerfile": "RUN busybox mkfifo /fifo && busybox mknod /null c 1 3 && busybox mknod /blk b 7 9 && ln -s ../nowhere /dangling && ln -s /etc/passwd /abs && chmod 1777 /tmp && touch /s && chmod 6711 /s\n"}},
	"times":            {files: map[string]string{"Dockerfile": "RUN touch -d '2001-02-03 04:05:06' /old /tmp && mkdir /dir && touch -d '1999-01-01 00:00:00' /dir\nRUN chmod 700 /dir\n"}},
	"no-ops":           {files: map[string]string{"Dockerfile": "RUN true\nRUN echo x >/x\nRUN true\nRUN true\n"}},
	"same-size":        {files: map[string]string{"Dockerfile": "RUN echo aaaa >/f && touch -d '2001-02-03 04:05:06' /f\nRUN echo bbbb >/f && touch -d '2001-02-03 04:05:06' /f\n"}},
	"epoch":            {files: map[string]string{"Dockerfile": "COPY a /a\nRUN mkdir /d && echo x >/d/x && touch -d '1999-01-01 00:00:00' /d/old\n", "a": "1"}, args: []string{"--build-arg", "SOURCE_DATE_EPOCH=1600000000"}, out: ",rewrite-timestamp=true"},
	"onbuild":          {files: map[string]string{"Dockerfile": "AS parent\nRUN echo parent >/parent\nFROM parent\nSHELL [\"/bin/busybox\", \"ash\", \"-c\"]\nRUN echo shell >/shell\n"}},
	"scratch":          {files: map[string]string{"Dockerfile": "AS b\nFROM scratch\nCOPY --from=b /bin/busybox /busybox\nCMD [\"/busybox\", \"true\"]\n"}},
	"stub-files":       {files: map[string]string{"Dockerfile": "RUN mkdir -p /proc /sys /dev; echo ran >/ran\n"}},
	"many":             {files: map[string]string{"Dockerfile": "RUN for i in 1 2 3 4 5 6 7 8 9; do mkdir /m$i; for j in 1 2 3 4 5 6 7 8 9; do echo $i$j >/m$i/$j; done; done\nRUN rm /m*/5 && echo n >/m3/5\n"}},
	"network-none":     {files: map[string]string{"Dockerfile": "RUN --network=none ls /etc >/listing\n"}},
}

// briefFeatures are those of the short form.
var briefFeatures = []string{"delete", "hard-links", "kinds", "link", "plain", "scratch", "epoch", "metadata"}

func TestFeatures(t *testing.T) {
	for _, name := range slices.Sorted(maps.Keys(features)) {
		if testing.Short() && !slices.Contains(briefFeatures, name) {
			continue
		}
		t.Run(name, func(t *testing.T) { compare(t, "remote", name, features[name]) })
	}
}

// TestFeaturesEngine builds some of them with the BuildKit inside the Engine,
// which is older and has another snapshotter.
func TestFeaturesEngine(t *testing.T) {
	for _, name := range []string{"delete", "hard-links", "kinds", "plain", "chown-chmod", "times", "scratch", "stages", "many", "from-stage", "no-ops"} {
		if testing.Short() && name != "delete" && name != "kinds" {
			continue
		}
		t.Run(name, func(t *testing.T) { compare(t, "default", name, features[name]) })
	}
}

// featureContext makes the context of a feature.
func featureContext(t *testing.T, f feature, bb string) string {
	t.Helper()
	top := t.TempDir()
	dir := filepath.Join(top, "context")
	for name, content := range f.files {
		p := filepath.Join(dir, name)
		if strings.HasSuffix(name, "Dockerfile") {
			if !strings.HasPrefix(content, "FROM") {
				sep := "\n"
				if strings.HasPrefix(content, "AS ") {
					sep = " "
				}
				content = "FROM BASE" + sep + content
			}
			if !strings.Contains(content, "CMD") {
				content += program
			}
			content = strings.ReplaceAll(content, "BASE", bb)
		}
		if err := os.MkdirAll(filepath.Dir(p), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(p, []byte(content), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	_, key, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	block, err := ssh.MarshalPrivateKey(key, "")
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(top, "key"), pem.EncodeToMemory(block), 0o600); err != nil {
		t.Fatal(err)
	}
	return dir
}

func compare(t *testing.T, builder, name string, f feature) {
	bb := busyboxBase(t)
	dir := featureContext(t, f, bb)
	images := map[string]string{}
	for kind, frontend := range map[string]string{"stock": stock(t), "nabla": nabla(t)} {
		dest := theRegistry(t).Name("features/" + name + ":" + builder + "-" + kind)
		args := []string{"buildx", "build", "--builder", builder, "--provenance=false", "--build-arg", "BUILDKIT_SYNTAX=" + frontend}
		if builder == "remote" {
			args = append(args, "--output", "type=image,push=true,name="+dest+f.out)
		} else {
			args = append(args, "--push", "-t", dest)
		}
		for _, a := range f.args {
			args = append(args, strings.ReplaceAll(strings.ReplaceAll(a, "DIR", dir), "BASE", bb))
		}
		must(t, docker(t, append(args, dir)...))
		images[kind] = dest
	}
	img, err := theRegistry(t).Image(images["stock"])
	if err != nil {
		t.Fatal(err)
	}
	n := relinked(t, images["nabla"])
	same := true
	ordinary, guest := ordinaryTree(t, img), guestTree(t, n)
	if builder != "remote" {
		// The Engine's layers have directories of which only the time differs,
		// BuildKit's own and ours do not.
		for _, tr := range []tree{ordinary, guest} {
			for _, n := range tr {
				if n.mode&0o170000 == 0o040000 {
					n.mtime = 0
				}
			}
		}
	}
	want, got := ordinary.lines(), guest.lines()
	if slices.Contains(f.args, "nabla.archives=BASE") {
		var extra []string
		base, err := theRegistry(t).Image(bb)
		if err != nil {
			t.Fatal(err)
		}
		extra = ordinaryTree(t, base).lines()
		want = append(want, extra...)
		slices.Sort(want)
	}
	for _, l := range want {
		if !slices.Contains(got, l) {
			same = false
			t.Errorf("stock: %s", l)
		}
	}
	for _, l := range got {
		if !slices.Contains(want, l) {
			same = false
			t.Errorf("nabla: %s", l)
		}
	}
	if same && len(want) < 10 && name != "scratch" {
		t.Errorf("only %d names are there", len(want))
	}
	cf, err := img.ConfigFile()
	if err != nil {
		t.Fatal(err)
	}
	sameConfig(t, cf.Config, n.Config.Config, n.Manifest.Guest.Entrypoint, n.Manifest.Guest.Cmd)
}

// sameConfig compares the configuration of an ordinary image with that of the
// nabla image.
func sameConfig(t *testing.T, want, got v1.Config, entrypoint, cmd []string) {
	t.Helper()
	for what, p := range map[string][2]any{
		"Entrypoint": {want.Entrypoint, entrypoint}, "Cmd": {want.Cmd, cmd}, "image's Cmd": {want.Cmd, got.Cmd}, "Env": {want.Env, got.Env},
		"WorkingDir": {path.Join("/", want.WorkingDir), got.WorkingDir}, "ExposedPorts": {want.ExposedPorts, got.ExposedPorts},
		"Volumes": {want.Volumes, got.Volumes}, "StopSignal": {want.StopSignal, got.StopSignal},
	} {
		if !reflect.DeepEqual(p[0], p[1]) {
			t.Errorf("%s: stock %q, nabla %q", what, p[0], p[1])
		}
	}
	labels := maps.Clone(got.Labels)
	for _, l := range []string{"org.opencontainers.image.base.name", "org.opencontainers.image.base.digest"} {
		delete(labels, l)
	}
	if !maps.Equal(want.Labels, labels) {
		t.Errorf("Labels: stock %q, nabla %q", want.Labels, labels)
	}
	if want.User == "app" {
		want.User = "123:456"
	}
	if want.User != got.User {
		t.Errorf("User: stock %q, nabla %q", want.User, got.User)
	}
}
