//go:build !nabla

// Crosstest runs small guests over the crossing; it must be built by
// cmd/nabla-go, which its test does.
package main

import (
	"fmt"
	"os"
)

func main() {
	fmt.Fprintln(os.Stderr, "crosstest: build it with cmd/nabla-go")
	os.Exit(2)
}
