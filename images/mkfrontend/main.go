// Command mkfrontend makes the image of the BuildKit frontend and writes it to
// where nabla-build's references name: a registry, oci:DIR or docker-archive:FILE.
package main

import (
	"context"
	"flag"
	"fmt"
	"os"

	"github.com/nabla-build/nabla-build/frontend/selfimage"
	"github.com/nabla-build/nabla-build/oci"
)

func main() {
	program := flag.String("program", "", "the frontend's program")
	version := flag.String("version", "unknown", "its release")
	insecure := flag.Bool("insecure", false, "permit plain HTTP for the registry")
	flag.Parse()
	if err := run(*program, *version, *insecure, flag.Args()); err != nil {
		fmt.Fprintf(os.Stderr, "mkfrontend: %v\n", err)
		os.Exit(1)
	}
}

func run(program, version string, insecure bool, dest []string) error {
	img, err := selfimage.New(program, version)
	if err != nil {
		return err
	}
	d, err := img.Digest()
	if err != nil {
		return err
	}
	layers, err := img.Layers()
	if err != nil {
		return err
	}
	size, err := layers[0].Size()
	if err != nil {
		return err
	}
	for _, to := range dest {
		ref, err := oci.Parse(to)
		if err != nil {
			return err
		}
		if err := ref.Write(context.Background(), img, oci.Options{Insecure: insecure}, nil); err != nil {
			return err
		}
		fmt.Printf("%s %s, %.1f MB compressed\n", to, d, float64(size)/1e6)
	}
	return nil
}
