// Command nabla-frontend is the program of the BuildKit frontend's image. A
// BuildKit daemon runs it without arguments as a gateway frontend; the build
// that it asks for runs it again, with arguments, as a step (frontend/step).
// docs/frontend.md describes it.
package main

import (
	"context"
	"fmt"
	"os"
	"os/signal"
	"syscall"

	"github.com/moby/buildkit/frontend/gateway/grpcclient"

	"github.com/nabla-build/nabla-build/frontend"
	"github.com/nabla-build/nabla-build/frontend/step"
	"github.com/nabla-build/nabla-build/release"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGINT, syscall.SIGTERM)
	defer stop()
	if err := run(ctx, os.Args[1:]); err != nil {
		fmt.Fprintf(os.Stderr, "nabla-frontend: %v\n", err)
		os.Exit(1)
	}
}

func run(ctx context.Context, args []string) error {
	switch {
	case len(args) == 1 && args[0] == "--version":
		fmt.Println(release.Version)
		return nil
	case len(args) > 0:
		return step.Run(ctx, args, os.Stdout)
	}
	return grpcclient.RunFromEnvironment(ctx, frontend.Build)
}
