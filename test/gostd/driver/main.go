// Driver is the entrypoint of the image in which Go's tests run: driver
// DIRECTORY PROGRAM ARGUMENT... runs the program in the directory, as go test
// does.
package main

import (
	"fmt"
	"os"
	"syscall"
)

func main() {
	if err := run(os.Args[1:]); err != nil {
		fmt.Fprintln(os.Stderr, "driver:", err)
		os.Exit(125)
	}
}

func run(args []string) error {
	if len(args) < 2 {
		return fmt.Errorf("want DIRECTORY PROGRAM ARGUMENT..., got %q", args)
	}
	if err := os.Chdir(args[0]); err != nil {
		return err
	}
	if err := os.Setenv("PWD", args[0]); err != nil {
		return err
	}
	if err := syscall.Exec(args[1], args[1:], os.Environ()); err != nil {
		return &os.PathError{Op: "exec", Path: args[1], Err: err}
	}
	return nil
}
