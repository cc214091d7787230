package rumprun

import (
	"bytes"
	"strings"
	"testing"

	"gvisor.dev/gvisor/pkg/log"

	"github.com/nabla-build/nabla-build/rumprun/entropy"
)

// TestStackLog: what netstack has to say goes to the library OS's log, and only
// with debug on. Its own emitter makes host calls, which ended a container now
// and then, when a connection came that the stack had no route back for.
func TestStackLog(t *testing.T) {
	for _, debug := range []bool{false, true} {
		var b bytes.Buffer
		k := &Kernel{cfg: Config{Log: &b, Debug: debug}}
		k.files.entropy = entropy.New([64]byte{1})
		if err := k.bootNetwork(); err != nil {
			t.Fatal(err)
		}
		log.Warningf("a warning about %d", 5)
		if got := strings.Contains(b.String(), "network stack: a warning about 5\n"); got != debug {
			t.Errorf("debug %v: log %q", debug, b.String())
		}
	}
}
