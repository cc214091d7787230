// Command nabla-build makes nabla images of ordinary container images, and
// runs, pushes, inspects and verifies them. docs/cli.md describes it.
package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/signal"
	"strings"
	"syscall"

	"github.com/spf13/cobra"
)

// Exit statuses; run ends with the guest's.
const (
	statusOK          = 0
	statusError       = 1
	statusUsage       = 2
	statusInterrupted = 130
)

func main() { os.Exit(realMain(os.Args[1:], os.Stdout, os.Stderr)) }

// realMain runs a command line. The first signal ends the work cleanly,
// temporary files removed; a second one ends the process at once.
func realMain(args []string, stdout, stderr io.Writer) int {
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGINT, syscall.SIGTERM, syscall.SIGHUP)
	defer stop()
	context.AfterFunc(ctx, stop)
	cmd := root(stdout, stderr)
	cmd.SetArgs(args)
	err := cmd.ExecuteContext(ctx)
	var usage usageError
	switch {
	case err == nil:
		return statusOK
	case ctx.Err() != nil && errors.Is(err, context.Canceled):
		fmt.Fprintln(stderr, "nabla-build: interrupted")
		return statusInterrupted
	case errors.As(err, &usage):
		fmt.Fprintf(stderr, "nabla-build: %v\n", err)
		return statusUsage
	}
	fmt.Fprintf(stderr, "nabla-build: %s\n", oneLine(err))
	return statusError
}

// oneLine keeps an error on one line, as registries answer with many.
func oneLine(err error) string {
	return strings.Join(strings.FieldsFunc(err.Error(), func(r rune) bool { return r == '\n' || r == '\r' }), " ")
}

// usageError is a mistake in the command line.
type usageError struct{ error }

func (u usageError) Unwrap() error { return u.error }

func usagef(format string, a ...any) error { return usageError{fmt.Errorf(format, a...)} }

// exactly is cobra.ExactArgs with the exit status of a usage error.
func exactly(names ...string) cobra.PositionalArgs {
	return func(cmd *cobra.Command, args []string) error {
		if len(args) != len(names) {
			return usagef("%s: wants %s, got %d arguments; see %s --help", cmd.CommandPath(), strings.Join(names, " and "), len(args), cmd.CommandPath())
		}
		return nil
	}
}
