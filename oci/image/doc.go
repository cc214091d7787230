// Package image makes and reads nabla images: it relinks the layers of an
// ordinary image (package link), puts the tender below and the manifest above
// them, and checks that what the image shall run can run. It deals in v1.Image
// values and knows nothing of where they are kept. It may import archive, link,
// manifest, release, selfexe and oci/rootview; the functions at its heart are
// Relink and Open. docs/oci-image.md is the specification.
package image
