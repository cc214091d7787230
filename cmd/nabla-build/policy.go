package main

import (
	"bytes"
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"

	"github.com/nabla-build/nabla-build/oci/image"
)

// policy prints what the tender itself says that it permits: it is started
// with an empty root file system and nothing to run, without a network.
func (a *app) policy(ctx context.Context, n *image.Nabla) error {
	dir, err := os.MkdirTemp("", "nabla-build-")
	if err != nil {
		return err
	}
	defer os.RemoveAll(dir)
	exe := filepath.Join(dir, "nabla")
	f, err := os.OpenFile(exe, os.O_CREATE|os.O_WRONLY, 0o755)
	if err != nil {
		return err
	}
	if err := image.WriteEmpty(ctx, f, n.Manifest); err != nil {
		f.Close()
		return err
	}
	if err := f.Close(); err != nil {
		return err
	}
	cmd := exec.CommandContext(ctx, exe)
	cmd.Env = []string{"NABLA_LOG=info", "NABLA_NET=none"}
	var out bytes.Buffer
	cmd.Stderr = &out
	err = cmd.Run()
	_, list, ok := strings.Cut(out.String(), "permitted host calls:\n")
	if !ok {
		return fmt.Errorf("inspect --policy: the tender does not start here: %v: %s", err, strings.TrimSpace(out.String()))
	}
	for line := range strings.Lines(list) {
		if strings.HasPrefix(line, "nabla:") {
			break
		}
		fmt.Fprint(a.stdout, line)
	}
	return nil
}
