// Package overlay makes the Go runtime live behind a handful of system calls:
// it generates the files of a `go build -overlay` from the runtime's own
// sources, edited at anchor texts, so that no copy of Go's sources is kept.
// docs/go-runtime.md says what each edit is for.
package overlay

import (
	"bytes"
	"crypto/sha256"
	_ "embed"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"slices"
)

//go:embed nabla_linux.go.txt
var nablaGo []byte

//go:embed nabla_amd64.s.txt
var nablaAsm []byte

//go:embed netpoll.go.txt
var netpollGo []byte

// Options choose what the runtime is built for.
type Options struct {
	// GoRoot is the Go tree (go env GOROOT); GoVersion its version, for errors.
	GoRoot, GoVersion string
	// Environment keeps the runtime's variables (GODEBUG, GOGC, ...), which are
	// ignored otherwise: in a container they are the guest's. For stress tests.
	Environment bool
}

// AnchorError says that a text to edit is not where it was: the Go version has
// changed and the edit must be looked at again.
type AnchorError struct {
	File, Anchor, GoVersion string
	Found                   int
}

func (e *AnchorError) Error() string {
	return fmt.Sprintf("go runtime overlay: %s of %s: anchor %q found %d times, want one: this Go version is not known, look at the edit again", e.File, e.GoVersion, e.Anchor, e.Found)
}

// edit replaces old, which must occur once (any number of times, but at least
// once, if all).
type edit struct {
	old, new string
	all      bool
}

// edits lists what changes in each file of src/runtime.
var edits = map[string][]edit{
	"proc.go": {
		// One host thread: nobody watches from a second one, and a goroutine
		// cannot be tied to a thread.
		{old: "const haveSysmon = GOARCH != \"wasm\"", new: "const haveSysmon = false"},
		{old: "func dolockOSThread() {\n\tif GOARCH == \"wasm\" {", new: "func dolockOSThread() {\n\tif true {"},
		{old: "func dounlockOSThread() {\n\tif GOARCH == \"wasm\" {", new: "func dounlockOSThread() {\n\tif true {"},
		{old: "func startTemplateThread() {\n\tif GOARCH == \"wasm\" {", new: "func startTemplateThread() {\n\tif true {"},
		{old: "\tif procresize(procs) != nil {\n\t\tthrow(\"unknown runnable goroutine during bootstrap\")", new: "\tprocs = 1\n\tif procresize(procs) != nil {\n\t\tthrow(\"unknown runnable goroutine during bootstrap\")"},
	},
	"runtime1.go": {
		// Nobody would send the signal, and its handler is the crossing's.
		{old: "\tdebug.malloc = (debug.inittrace | debug.sbrk | debug.checkfinalizers) != 0\n", new: "\tdebug.asyncpreemptoff = 1\n\tdebug.malloc = (debug.inittrace | debug.sbrk | debug.checkfinalizers) != 0\n"},
	},
	"os_linux.go": {
		{old: "func newosproc(mp *m) {", new: "func newosproc(mp *m) {\n\tif nablaLocked != 0 {\n\t\tthrow(\"new host thread after lockdown\")\n\t}\n"},
	},
	"mem_linux.go": {
		{old: "mmap(", new: "nablaMmap(", all: true},
		{old: "madvise(", new: "nablaMadvise(", all: true},
		{old: "munmap(", new: "nablaMunmap(", all: true},
		{old: "mprotect(", new: "nablaMprotect(", all: true},
	},
	"malloc.go": {
		{old: "\t\t\tdefault:\n\t\t\t\tp = uintptr(i)<<40 | uintptrMask&(0x00c0<<32)", new: "\t\t\tdefault:\n\t\t\t\tp = nablaHeapBase + uintptr(i)<<40"},
	},
	"set_vma_name_linux.go": {
		{old: "if debug.decoratemappings == 0 || !setVMANameSupported() {", new: "if true {"},
	},
	"sys_linux_amd64.s": {
		// What may still be called after lockdown goes through the gate.
		{old: "\tMOVL\t$SYS_exit_group, AX\n\tSYSCALL\n", new: "\tMOVL\t$SYS_exit_group, AX\n\tCALL\truntime·nablaGate(SB)\n"},
		{old: "\tMOVL\t$SYS_write, AX\n\tSYSCALL\n", new: "\tMOVL\t$SYS_write, AX\n\tCALL\truntime·nablaGate(SB)\n"},
		{old: "\tMOVQ\t$SYS_clock_gettime, AX\n\tSYSCALL\n", new: "\tMOVQ\t$SYS_clock_gettime, AX\n\tCALL\truntime·nablaGate(SB)\n", all: true},
		// There is nobody to wait for: one thread.
		{old: "TEXT runtime·usleep(SB),NOSPLIT,$16\n", new: "TEXT runtime·usleep(SB),NOSPLIT,$16\n\tCMPL\truntime·nablaLocked(SB), $0\n\tJEQ\t2(PC)\n\tRET\n"},
		{old: "TEXT runtime·osyield(SB),NOSPLIT,$0\n", new: "TEXT runtime·osyield(SB),NOSPLIT,$0\n\tCMPL\truntime·nablaLocked(SB), $0\n\tJEQ\t2(PC)\n\tRET\n"},
	},
}

// environmentEdits make the runtime deaf to the environment.
var environmentEdits = map[string][]edit{
	"proc.go": {
		{old: "\tconst prefix = \"GODEBUG=\"\n", new: "\tconst prefix = \"\\x00\"\n"},
		{old: "strconv.ParseInt(gogetenv(\"GOMAXPROCS\"), 10, 32)", new: "strconv.ParseInt(\"1\", 10, 32)"},
	},
	"mgcpacer.go": {
		{old: "gogetenv(\"GOGC\")", new: "\"\""},
		{old: "gogetenv(\"GOMEMLIMIT\")", new: "\"\""},
	},
	"runtime1.go": {
		{old: "*p = gogetenv(\"GODEBUG\")", new: "*p = \"\""},
		{old: "setTraceback(gogetenv(\"GOTRACEBACK\"))", new: "setTraceback(\"\")"},
	},
}

// added are the files of our own; netpoll_epoll.go is replaced whole.
var added = map[string]*[]byte{
	"nabla_linux.go":   &nablaGo,
	"nabla_amd64.s":    &nablaAsm,
	"netpoll_epoll.go": &netpollGo,
}

// Generate writes the edited files and overlay.json to a directory in dir that
// is named for what they contain, and returns the path of overlay.json for `go
// build -overlay`. The same input gives the same place, which Go's build cache
// relies on; builds of other versions at the same time do not meet there. An
// *AnchorError means that the Go version is not known.
func Generate(dir string, o Options) (string, error) {
	dir, err := filepath.Abs(dir)
	if err != nil {
		return "", fmt.Errorf("go runtime overlay: %w", err)
	}
	src := filepath.Join(o.GoRoot, "src", "runtime")
	files, err := edited(src, o)
	if err != nil {
		return "", err
	}
	for f, text := range added {
		files[f] = *text
	}
	sum := sha256.New()
	fmt.Fprintf(sum, "%q", src)
	for _, f := range slices.Sorted(maps.Keys(files)) {
		fmt.Fprintf(sum, "%q%q", f, files[f])
	}
	dir = filepath.Join(dir, fmt.Sprintf("%x", sum.Sum(nil)[:8]))
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return "", fmt.Errorf("go runtime overlay: %w", err)
	}
	replace := map[string]string{}
	for f, text := range files {
		p := filepath.Join(dir, f)
		if err := write(p, text); err != nil {
			return "", err
		}
		replace[filepath.Join(src, f)] = p
	}
	j, err := json.MarshalIndent(map[string]any{"Replace": replace}, "", "\t")
	if err != nil {
		return "", fmt.Errorf("go runtime overlay: %w", err)
	}
	p := filepath.Join(dir, "overlay.json")
	return p, write(p, j)
}

// edited reads the files of the runtime in src and makes the edits.
func edited(src string, o Options) (map[string][]byte, error) {
	all := map[string][]edit{}
	for f, es := range edits {
		all[f] = append(all[f], es...)
	}
	if !o.Environment {
		for f, es := range environmentEdits {
			all[f] = append(all[f], es...)
		}
	}
	files := map[string][]byte{}
	for f, es := range all {
		text, err := os.ReadFile(filepath.Join(src, f))
		if err != nil {
			return nil, fmt.Errorf("go runtime overlay: %w", err)
		}
		for _, e := range es {
			n := bytes.Count(text, []byte(e.old))
			if n == 0 || n > 1 && !e.all {
				return nil, &AnchorError{File: f, Anchor: e.old, GoVersion: o.GoVersion, Found: n}
			}
			text = bytes.ReplaceAll(text, []byte(e.old), []byte(e.new))
		}
		files[f] = text
	}
	return files, nil
}

// write makes the file at once, unless it is there already: another build may
// be reading it.
func write(p string, text []byte) error {
	if old, err := os.ReadFile(p); err == nil && bytes.Equal(old, text) {
		return nil
	}
	t, err := os.CreateTemp(filepath.Dir(p), ".new-*")
	if err != nil {
		return fmt.Errorf("go runtime overlay: %w", err)
	}
	_, err = t.Write(text)
	err = errors.Join(err, t.Chmod(0o644), t.Close())
	if err == nil {
		err = os.Rename(t.Name(), p)
	}
	if err != nil {
		os.Remove(t.Name())
		return fmt.Errorf("go runtime overlay: %w", err)
	}
	return nil
}
