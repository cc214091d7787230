// Nabla is the tender with the library OS: the entrypoint of every nabla
// image. Its arguments are the guest's.
package main

import "github.com/nabla-build/nabla-build/tender"

func main() { tender.Main() }
