// Package archive reads and writes the nabla archive: one source layer as a
// cpio archive (newc) whose file data is page-aligned, followed by an index
// that makes every look-up a binary search in the mapped file, so that opening
// an archive reads nothing but its trailer. docs/image-format.md is the
// specification. It is a format package: it knows records, not policy.
// The types at its heart are Writer and Reader.
package archive
