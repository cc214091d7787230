package image

import (
	"bufio"
	"bytes"
	"debug/elf"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"path"
	"slices"
	"strconv"
	"strings"

	v1 "github.com/google/go-containerregistry/pkg/v1"

	"github.com/nabla-build/nabla-build/link/object"
	"github.com/nabla-build/nabla-build/manifest"
	"github.com/nabla-build/nabla-build/oci/rootview"
)

// defaultPath is where engines look without PATH in the environment.
const defaultPath = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"

// checkProgram says why argv cannot be started in the root file system; nil if
// it can.
func checkProgram(root rootview.View, argv, env []string, dir string) error {
	if len(argv) == 0 {
		return errors.New("the image names neither an entrypoint nor a command: give one with --entrypoint")
	}
	name := argv[0]
	if name == "" {
		return errors.New("the image's entrypoint is an empty string")
	}
	if strings.Contains(name, "/") {
		if !path.IsAbs(name) {
			name = path.Join(dir, name)
		}
		return checkFile(root, argv[0], name, 0)
	}
	search := defaultPath
	for _, e := range env {
		if v, ok := strings.CutPrefix(e, "PATH="); ok {
			search = v
		}
	}
	// As execvp(3): the first that can be executed; if there is none, what was
	// wrong with the first that is there.
	var first error
	for d := range strings.SplitSeq(search, ":") {
		if !path.IsAbs(d) {
			d = path.Join(dir, d)
		}
		p := path.Join(d, name)
		f, err := root.Lookup(p)
		if err != nil {
			continue
		}
		if f.IsRegular() && f.Mode()&0o111 != 0 {
			return checkFile(root, argv[0], p, 0)
		}
		if first == nil {
			first = checkFile(root, argv[0], p, 0)
		}
	}
	if first != nil {
		return first
	}
	return fmt.Errorf("entrypoint %q: not found in PATH (%s)", name, search)
}

// maxScripts is the kernel's limit of scripts that are interpreters of scripts
// (execve(2)).
const maxScripts = 4

// checkFile checks one file that is to be executed. what names it as the user
// knows it.
func checkFile(root rootview.View, what, p string, depth int) error {
	if depth == 0 {
		what = fmt.Sprintf("entrypoint %q", what)
	}
	f, err := root.Lookup(p)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return fmt.Errorf("%s: %s does not exist in the image", what, p)
	case err != nil:
		return fmt.Errorf("%s: %w", what, err)
	case f.IsDir():
		return fmt.Errorf("%s: %s is a directory", what, p)
	case !f.IsRegular():
		return fmt.Errorf("%s: %s is not a regular file", what, p)
	case f.Mode()&0o111 == 0:
		return fmt.Errorf("%s: %s is not executable (mode %04o)", what, p, f.Mode()&0o7777)
	}
	head := make([]byte, min(f.Size(), 256))
	if _, err := f.ReadAt(head, 0); err != nil && err != io.EOF {
		return fmt.Errorf("%s: %w", what, err)
	}
	switch {
	case bytes.HasPrefix(head, []byte("#!")):
		line, _, _ := bytes.Cut(head[2:], []byte("\n"))
		words := strings.Fields(string(line))
		if len(words) == 0 {
			return fmt.Errorf("%s: %s is a script whose first line names no interpreter", what, p)
		}
		if depth == maxScripts {
			return fmt.Errorf("%s: more than %d scripts that are interpreters of scripts", what, maxScripts)
		}
		in := words[0]
		if !path.IsAbs(in) {
			return fmt.Errorf("%s: %s is a script whose interpreter %q is not an absolute path", what, p, in)
		}
		return checkFile(root, fmt.Sprintf("%s: %s is a script, its interpreter", what, p), in, depth+1)
	case object.Magic(head):
		return checkObject(root, what, p, f)
	case f.Size() == 0:
		return fmt.Errorf("%s: %s is empty", what, p)
	}
	return fmt.Errorf("%s: %s is neither an x86-64 ELF executable nor a script that begins with #!", what, p)
}

// checkObject checks an ELF executable and the interpreter it names (gABI,
// Program Interpreter).
func checkObject(root rootview.View, what, p string, f rootview.File) error {
	head := make([]byte, min(f.Size(), 64))
	if _, err := f.ReadAt(head, 0); err != nil && err != io.EOF {
		return fmt.Errorf("%s: %w", what, err)
	}
	if err := object.Head(head); err != nil {
		return fmt.Errorf("%s: %s: %w; nabla images are linux/amd64 only", what, p, err)
	}
	e, err := elf.NewFile(io.NewSectionReader(f, 0, f.Size()))
	if err != nil {
		return fmt.Errorf("%s: %s: a damaged ELF file: %w", what, p, err)
	}
	load := false
	for _, ph := range e.Progs {
		if ph.Type == elf.PT_LOAD {
			load = true
			if ph.Off+ph.Filesz > uint64(f.Size()) || ph.Off+ph.Filesz < ph.Off {
				return fmt.Errorf("%s: %s: a damaged ELF file: a segment lies beyond its end", what, p)
			}
		}
	}
	if !load {
		return fmt.Errorf("%s: %s: an ELF file without anything to load", what, p)
	}
	for _, ph := range e.Progs {
		if ph.Type != elf.PT_INTERP {
			continue
		}
		b := make([]byte, min(ph.Filesz, 4096))
		if _, err := ph.ReadAt(b, 0); err != nil && err != io.EOF {
			return fmt.Errorf("%s: %s: a damaged ELF file: %w", what, p, err)
		}
		b, _, _ = bytes.Cut(b, []byte{0})
		in, err := root.Lookup(string(b))
		if errors.Is(err, fs.ErrNotExist) {
			return fmt.Errorf("%s: %s needs the ELF interpreter %s, which does not exist in the image", what, p, b)
		}
		if err != nil {
			return fmt.Errorf("%s: the ELF interpreter of %s: %w", what, p, err)
		}
		if !in.IsRegular() || in.Mode()&0o111 == 0 {
			return fmt.Errorf("%s: the ELF interpreter of %s, %s, is not an executable file", what, p, b)
		}
		head := make([]byte, min(in.Size(), 64))
		if _, err := in.ReadAt(head, 0); err != nil && err != io.EOF {
			return fmt.Errorf("%s: %w", what, err)
		}
		if err := object.Head(head); err != nil {
			return fmt.Errorf("%s: the ELF interpreter of %s, %s: %w; nabla images are linux/amd64 only", what, p, b, err)
		}
	}
	return nil
}

// maxAccounts bounds /etc/passwd and /etc/group, in bytes.
const maxAccounts = 8 << 20

// accounts reads /etc/passwd or /etc/group as lines of fields; none if there
// is no such file. Lines with too few fields are passed over, as libc does.
func accounts(root rootview.View, p string, fields int) ([][]string, error) {
	b, err := root.ReadFile(p, maxAccounts)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	var out [][]string
	s := bufio.NewScanner(bytes.NewReader(b))
	s.Buffer(nil, maxAccounts)
	for s.Scan() {
		line := strings.TrimSpace(s.Text())
		if f := strings.Split(line, ":"); len(f) >= fields && !strings.HasPrefix(line, "#") {
			out = append(out, f)
		}
	}
	return out, s.Err()
}

func id(s string) (uint32, bool) {
	n, err := strconv.ParseUint(s, 10, 32)
	return uint32(n), err == nil && n < 1<<32-1
}

// resolveUser makes the User of an image configuration numeric, with the rules
// that engines have: NAME or UID, optionally with :GROUP or :GID. Without a
// group it is the one of /etc/passwd, and the supplementary groups are those
// of /etc/group; a UID that /etc/passwd does not have is in group 0.
func resolveUser(root rootview.View, user string, g *manifest.Guest) error {
	name, group, hasGroup := strings.Cut(user, ":")
	if name == "" {
		name = "0"
	}
	passwd, err := accounts(root, "/etc/passwd", 4)
	if err != nil {
		return fmt.Errorf("image user %q: %w", user, err)
	}
	groups, err := accounts(root, "/etc/group", 4)
	if err != nil {
		return fmt.Errorf("image user %q: %w", user, err)
	}
	uid, numeric := id(name)
	login := ""
	i := slices.IndexFunc(passwd, func(f []string) bool { return f[0] == name })
	if i < 0 && numeric {
		i = slices.IndexFunc(passwd, func(f []string) bool { n, ok := id(f[2]); return ok && n == uid })
	}
	switch {
	case i >= 0:
		u, ok1 := id(passwd[i][2])
		gid, ok2 := id(passwd[i][3])
		if !ok1 || !ok2 {
			return fmt.Errorf("image user %q: /etc/passwd of the image has no numbers for %q", user, name)
		}
		g.UID, g.GID, login = u, gid, passwd[i][0]
	case numeric:
		g.UID, g.GID = uid, 0
	default:
		return fmt.Errorf("image user %q: there is no user %q in /etc/passwd of the image", user, name)
	}
	if hasGroup && group != "" {
		i := slices.IndexFunc(groups, func(f []string) bool { return f[0] == group })
		gid, ok := id(group)
		if i >= 0 {
			if gid, ok = id(groups[i][2]); !ok {
				return fmt.Errorf("image user %q: /etc/group of the image has no number for %q", user, group)
			}
		} else if !ok {
			return fmt.Errorf("image user %q: there is no group %q in /etc/group of the image", user, group)
		}
		g.GID = gid
		return nil
	}
	if login == "" {
		return nil
	}
	for _, f := range groups {
		if gid, ok := id(f[2]); ok && slices.Contains(strings.Split(f[3], ","), login) && gid != g.GID {
			g.Groups = append(g.Groups, gid)
		}
	}
	slices.Sort(g.Groups)
	g.Groups = slices.Compact(g.Groups)
	return nil
}

// guest makes the manifest's part that comes from a configuration. warn takes
// what cannot be kept.
func guest(root rootview.View, c v1.Config, warn func(string, ...any)) (manifest.Guest, []manifest.Port, error) {
	g := manifest.Guest{Entrypoint: c.Entrypoint, Cmd: c.Cmd, WorkingDir: path.Join("/", c.WorkingDir)}
	for _, e := range c.Env {
		if strings.IndexByte(e, '=') < 1 {
			warn("the environment entry %q is not NAME=VALUE and is left out", e)
			continue
		}
		g.Env = append(g.Env, e)
	}
	if err := resolveUser(root, c.User, &g); err != nil {
		return g, nil, err
	}
	var ports []manifest.Port
	for p := range c.ExposedPorts {
		num, proto, ok := strings.Cut(p, "/")
		if !ok {
			proto = "tcp"
		}
		lo, hi, isRange := strings.Cut(num, "-")
		if !isRange {
			hi = lo
		}
		a, err1 := strconv.ParseUint(lo, 10, 16)
		b, err2 := strconv.ParseUint(hi, 10, 16)
		if err1 != nil || err2 != nil || a == 0 || b < a || b-a > 1000 || proto != "tcp" && proto != "udp" {
			warn("the exposed port %q is not one of TCP or UDP and is not published", p)
			continue
		}
		for n := a; n <= b; n++ {
			ports = append(ports, manifest.Port{Port: uint16(n), Protocol: proto})
		}
	}
	slices.SortFunc(ports, func(a, b manifest.Port) int {
		if a.Port != b.Port {
			return int(a.Port) - int(b.Port)
		}
		return strings.Compare(a.Protocol, b.Protocol)
	})
	ports = slices.Compact(ports)
	if err := configureNode(root, &g, warn); err != nil {
		return g, nil, err
	}
	return g, ports, checkProgram(root, slices.Concat(g.Entrypoint, g.Cmd), g.Env, g.WorkingDir)
}

// stopSignal writes a signal as the manifest has it.
func stopSignal(s string) string {
	if s == "" || strings.HasPrefix(s, "SIG") {
		return s
	}
	if _, err := strconv.Atoi(s); err == nil {
		return s
	}
	return "SIG" + strings.ToUpper(s)
}
