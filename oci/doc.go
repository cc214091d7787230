// Package oci reads and writes container images where people keep them:
// registries, OCI layouts, docker archives; and makes an image of a plain
// directory. It knows nothing of nabla images. It may import
// go-containerregistry and the standard library; the type at its heart is
// Reference, images are v1.Image values that read lazily.
package oci
