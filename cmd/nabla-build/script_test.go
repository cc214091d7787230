package main

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"log"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/go-containerregistry/pkg/registry"
	"github.com/rogpeppe/go-internal/testscript"
	"golang.org/x/sys/unix"

	"github.com/nabla-build/nabla-build/release"
)

func TestMain(m *testing.M) {
	testscript.Main(m, map[string]func(){"nabla-build": main})
}

// TestScript runs testdata/script: the command line as a user types it.
func TestScript(t *testing.T) {
	if _, _, err := release.Open(release.Tender); errors.Is(err, release.ErrNotBuilt) {
		t.Skip("built without the tender: make test builds it first")
	}
	testscript.Run(t, testscript.Params{
		Dir:                 "testdata/script",
		RequireExplicitExec: true,
		Setup: func(e *testscript.Env) error {
			r := newFaulty()
			srv := httptest.NewServer(r)
			e.Defer(srv.Close)
			e.Defer(r.release)
			e.Values["registry"] = r
			e.Setenv("REGISTRY", strings.TrimPrefix(srv.URL, "http://"))
			e.Setenv("HOME", e.WorkDir)
			e.Setenv("XDG_CACHE_HOME", filepath.Join(e.WorkDir, ".cache"))
			e.Setenv("TMPDIR", filepath.Join(e.WorkDir, ".tmp"))
			return os.MkdirAll(filepath.Join(e.WorkDir, ".tmp"), 0o755)
		},
		Condition: func(c string) (bool, error) {
			if c == "root" {
				return os.Geteuid() == 0, nil
			}
			return false, fmt.Errorf("unknown condition %q", c)
		},
		Cmds: map[string]func(*testscript.TestScript, bool, []string){
			"fixture": fixtureCommand,
			"registry": func(ts *testscript.TestScript, neg bool, args []string) {
				ts.Value("registry").(*faulty).set(args[0])
			},
			"status":  statusCommand,
			"empty":   emptyCommand,
			"tmpfs":   tmpfsCommand,
			"corrupt": corruptCommand,
		},
	})
}

// faulty is a registry that can fail.
type faulty struct {
	http.Handler
	mu      sync.Mutex
	mode    string
	uploads int
	stalled chan struct{} // closed when a request is held
	free    chan struct{}
}

func newFaulty() *faulty {
	return &faulty{
		Handler: registry.New(registry.Logger(log.New(io.Discard, "", 0))),
		stalled: make(chan struct{}), free: make(chan struct{}),
	}
}

func (f *faulty) release() {
	f.mu.Lock()
	defer f.mu.Unlock()
	select {
	case <-f.free:
	default:
		close(f.free)
	}
}

// set changes the mode: ok; fail: every second upload of a blob is cut off;
// stall: blobs are not answered; stalled: wait until that happens.
func (f *faulty) set(mode string) {
	if mode == "stalled" {
		select {
		case <-f.stalled:
		case <-time.After(20 * time.Second):
			panic("no request was held")
		}
		return
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	f.mode, f.uploads = mode, 0
}

func (f *faulty) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	f.mu.Lock()
	mode := f.mode
	blob := strings.Contains(r.URL.Path, "/blobs/")
	if mode == "fail" && r.Method == "PATCH" {
		f.uploads++
		if f.uploads > 1 {
			f.mu.Unlock()
			panic(http.ErrAbortHandler)
		}
	}
	if mode == "stall" && blob && r.Method == "GET" {
		select {
		case <-f.stalled:
		default:
			close(f.stalled)
		}
		f.mu.Unlock()
		<-f.free
		return
	}
	f.mu.Unlock()
	f.Handler.ServeHTTP(w, r)
}

// statusCommand runs a command and compares its exit status: status N cmd...
func statusCommand(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) < 2 {
		ts.Fatalf("usage: status N command...")
	}
	err := ts.Exec(args[1], args[2:]...)
	got := 0
	if err != nil {
		got = -1
		var ee interface{ ExitCode() int }
		if errors.As(err, &ee) {
			got = ee.ExitCode()
		}
	}
	if fmt.Sprint(got) != args[0] {
		ts.Fatalf("status %d (%v), want %s", got, err, args[0])
	}
}

// emptyCommand checks that directories have no entries, hidden ones included.
func emptyCommand(ts *testscript.TestScript, neg bool, args []string) {
	for _, a := range args {
		es, err := os.ReadDir(ts.MkAbs(a))
		ts.Check(err)
		var names []string
		for _, e := range es {
			names = append(names, e.Name())
		}
		if (len(names) == 0) == neg {
			ts.Fatalf("%s holds %q", a, names)
		}
	}
}

// tmpfsCommand mounts a small file system: tmpfs DIR SIZE.
func tmpfsCommand(ts *testscript.TestScript, neg bool, args []string) {
	dir := ts.MkAbs(args[0])
	ts.Check(os.MkdirAll(dir, 0o755))
	ts.Check(unix.Mount("tmpfs", dir, "tmpfs", 0, "size="+args[1]))
	ts.Defer(func() { unix.Unmount(dir, unix.MNT_DETACH) })
}

// corruptCommand changes a byte in the middle of the largest file below a
// directory, or of a file; with "cut", cuts it off there.
func corruptCommand(ts *testscript.TestScript, neg bool, args []string) {
	path := ""
	largest := int64(-1)
	ts.Check(filepath.Walk(ts.MkAbs(args[0]), func(p string, fi os.FileInfo, err error) error {
		if err == nil && fi.Mode().IsRegular() && fi.Size() > largest {
			path, largest = p, fi.Size()
		}
		return err
	}))
	if len(args) > 1 && args[1] == "cut" {
		ts.Check(os.Truncate(path, largest/2))
		return
	}
	b, err := os.ReadFile(path)
	ts.Check(err)
	at := len(b) / 2
	if len(args) > 1 { // the byte before the last occurrence of a text
		at = bytes.LastIndex(b, []byte(args[1])) - 1
		if at < 0 {
			ts.Fatalf("%s holds no %q", path, args[1])
		}
	}
	b[at] ^= 0xff
	ts.Check(os.Chmod(path, 0o644))
	ts.Check(os.WriteFile(path, b, 0o644))
}
