package archive

import (
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"io"
	"iter"
)

var castagnoli = crc32.MakeTable(crc32.Castagnoli)

// ErrCorrupt is wrapped by every error about an archive whose contents
// contradict each other.
var ErrCorrupt = errors.New("corrupt archive")

// Reader gives access to an archive in memory, normally a private mapping of
// the archive file. It holds no lock and changes nothing: any number of
// goroutines may use it and its nodes. The bytes must stay mapped as long as
// anything obtained from the Reader is in use.
//
// Every offset and length is checked when it is used, so that an archive which
// lies yields errors or nothing found, but no panic and no endless walk.
type Reader struct {
	b     []byte
	sec   [numSections][]byte
	index uint64
	fetch func(off, n uint64) error // nil: all is there
}

// Open checks the trailer and the section table of the archive b; it reads
// nothing else. An archive of an unknown version, is cut short or
// is something else is an error. See Check for a full verification.
func Open(b []byte) (*Reader, error) {
	if len(b) < trailerSize+indexHeaderSize {
		return nil, fmt.Errorf("open archive: %d bytes is too short: %w", len(b), ErrCorrupt)
	}
	t := b[len(b)-trailerSize:]
	if string(t[trMagic:trMagic+8]) != trailerMagic {
		return nil, fmt.Errorf("open archive: no nabla archive trailer in the last %d bytes (cut short, or another format): %w", trailerSize, ErrCorrupt)
	}
	if v := u32(t, trVersion); v != formatVersion {
		return nil, fmt.Errorf("open archive: version %d, this program reads version %d: relink the image", v, formatVersion)
	}
	if crc32.Checksum(t[:trCRC], castagnoli) != u32(t, trCRC) {
		return nil, fmt.Errorf("open archive: trailer checksum differs: %w", ErrCorrupt)
	}
	r := &Reader{b: b, index: u64(t, trIndexOff)}
	ix, ok := slice(b[:len(b)-trailerSize], r.index, u64(t, trIndexLen))
	if !ok || len(ix) < indexHeaderSize || string(ix[:8]) != indexMagic {
		return nil, fmt.Errorf("open archive: no index at offset %d: %w", r.index, ErrCorrupt)
	}
	for i := range r.sec {
		at := 8 + 16*i
		if r.sec[i], ok = slice(ix, u64(ix, at), u64(ix, at+8)); !ok {
			return nil, fmt.Errorf("open archive: index section %d lies outside the index: %w", i, ErrCorrupt)
		}
	}
	root, ok := r.entry(0)
	if !ok || !root.IsDir() {
		return nil, fmt.Errorf("open archive: no root directory: %w", ErrCorrupt)
	}
	return r, nil
}

// OpenPartial is Open for memory in which only the trailer and the index are
// there yet. fetch is called, with a range of the archive, before contents of
// files are used; it must bring them in, and may be called for the same range
// again.
func OpenPartial(b []byte, fetch func(off, n uint64) error) (*Reader, error) {
	r, err := Open(b)
	if err != nil {
		return nil, err
	}
	r.fetch = fetch
	return r, nil
}

// IndexRange says, by the trailer, where the index of an archive of the given
// size lies: what OpenPartial needs beside the trailer. tail is the archive's
// end, at least TrailerSize bytes.
func IndexRange(tail []byte, size uint64) (off, n uint64, err error) {
	if len(tail) < TrailerSize || string(tail[len(tail)-TrailerSize:][:8]) != trailerMagic {
		return 0, 0, fmt.Errorf("open archive: no nabla archive trailer: %w", ErrCorrupt)
	}
	t := tail[len(tail)-TrailerSize:]
	off, n = u64(t, trIndexOff), u64(t, trIndexLen)
	if off > size || n > size-off {
		return 0, 0, fmt.Errorf("open archive: no index at offset %d: %w", off, ErrCorrupt)
	}
	return off, n, nil
}

// TrailerSize is the size of what an archive ends with.
const TrailerSize = trailerSize

func u16(b []byte, at int) uint16 { return binary.LittleEndian.Uint16(b[at:]) }
func u32(b []byte, at int) uint32 { return binary.LittleEndian.Uint32(b[at:]) }
func u64(b []byte, at int) uint64 { return binary.LittleEndian.Uint64(b[at:]) }

// slice is b[off:off+n], if that exists.
func slice(b []byte, off, n uint64) ([]byte, bool) {
	if off > uint64(len(b)) || n > uint64(len(b))-off {
		return nil, false
	}
	return b[off : off+n : off+n], true
}

// record is record number i of a section of records of the given size.
func (r *Reader) record(sec int, i uint32, size int) ([]byte, bool) {
	return slice(r.sec[sec], uint64(i)*uint64(size), uint64(size))
}

func (r *Reader) str(off, n uint32) ([]byte, bool) {
	return slice(r.sec[secStrings], uint64(off), uint64(n))
}

// entry is node number i if it can be used: its inode exists, and a directory
// is reached by its own entry only.
func (r *Reader) entry(i uint32) (Node, bool) {
	e, ok := r.record(secEntries, i, entrySize)
	if !ok {
		return Node{}, false
	}
	n := Node{r: r, entry: i}
	if u16(e, enFlags)&flagWhiteout != 0 {
		return n, i != 0
	}
	in, ok := r.record(secInodes, u32(e, enInode), inodeSize)
	if !ok || u32(in, inMode)&typeMask == typeDir && u32(in, inSelf) != i {
		return Node{}, false
	}
	return n, true
}

// Root is the root directory of the layer.
func (r *Reader) Root() Node { return Node{r: r} }

// children is the range of entries of a directory; they all come after it.
func (r *Reader) children(dir Node) (first, n uint32) {
	in := dir.inode()
	if in == nil || u32(in, inMode)&typeMask != typeDir {
		return 0, 0
	}
	first, n = u32(in, inChildFirst), u32(in, inChildCount)
	total := uint64(len(r.sec[secEntries]) / entrySize)
	if n == 0 || first <= dir.entry || uint64(first)+uint64(n) > total {
		return 0, 0
	}
	return first, n
}

// child is entry i if its parent is dir.
func (r *Reader) child(dir Node, i uint32) (Node, bool) {
	n, ok := r.entry(i)
	if !ok || u32(r.sec[secEntries], int(i)*entrySize+enParent) != dir.entry {
		return Node{}, false
	}
	return n, true
}

func (r *Reader) name(i uint32) []byte {
	e, ok := r.record(secEntries, i, entrySize)
	if !ok {
		return nil
	}
	b, _ := r.str(u32(e, enNameOff), uint32(u16(e, enNameLen)))
	return b
}

// Lookup finds name in dir, whiteouts included; one path component, not "." or
// "..". It does not allocate.
func (r *Reader) Lookup(dir Node, name string) (Node, bool) {
	first, n := r.children(dir)
	lo, hi := first, first+n
	for lo < hi {
		mid := lo + (hi-lo)/2
		if string(r.name(mid)) < name {
			lo = mid + 1
		} else {
			hi = mid
		}
	}
	if lo == first+n || string(r.name(lo)) != name {
		return Node{}, false
	}
	return r.child(dir, lo)
}

// ReadDir lists dir, sorted by name, whiteouts included.
func (r *Reader) ReadDir(dir Node) iter.Seq[Node] {
	return func(yield func(Node) bool) {
		first, n := r.children(dir)
		for i := range n {
			if c, ok := r.child(dir, first+i); ok && !yield(c) {
				return
			}
		}
	}
}

// Len is the number of children of dir, whiteouts included.
func (r *Reader) Len(dir Node) int {
	_, n := r.children(dir)
	return int(n)
}

// Child is child number i of dir in the order of ReadDir, 0 <= i < Len(dir);
// not ok if there is none. It lets getdents(2) continue at a position.
func (r *Reader) Child(dir Node, i int) (Node, bool) {
	first, n := r.children(dir)
	if i < 0 || i >= int(n) {
		return Node{}, false
	}
	return r.child(dir, first+uint32(i))
}

// Size is the archive's length in bytes.
func (r *Reader) Size() uint64 { return uint64(len(r.b)) }

// Inodes is the number of inodes; Node.Ino is never above it.
func (r *Reader) Inodes() uint64 { return uint64(len(r.sec[secInodes]) / inodeSize) }

// Node is one name in the archive and the file it names. It is a small value;
// two Nodes are equal if they are the same name. The zero Node is not valid.
type Node struct {
	r     *Reader
	entry uint32
}

// inode is the record of the file; nil for a whiteout.
func (n Node) inode() []byte {
	e, ok := n.r.record(secEntries, n.entry, entrySize)
	if !ok || u16(e, enFlags)&flagWhiteout != 0 {
		return nil
	}
	in, _ := n.r.record(secInodes, u32(e, enInode), inodeSize)
	return in
}

func (n Node) field32(at int) uint32 {
	if in := n.inode(); in != nil {
		return u32(in, at)
	}
	return 0
}

func (n Node) field64(at int) uint64 {
	if in := n.inode(); in != nil {
		return u64(in, at)
	}
	return 0
}

// Valid says whether n is a node at all.
func (n Node) Valid() bool { return n.r != nil }

// Name is the last component of the path; "" for the root.
func (n Node) Name() string { return string(n.r.name(n.entry)) }

// Parent is the directory that holds n; the root is its own parent.
func (n Node) Parent() Node {
	e, ok := n.r.record(secEntries, n.entry, entrySize)
	if !ok || u32(e, enParent) >= n.entry {
		return Node{r: n.r}
	}
	return Node{r: n.r, entry: u32(e, enParent)}
}

// Mode is st_mode: type and permission bits. 0 for a whiteout; for a link to a
// lower layer (LowerLink) it is S_IFREG without permissions.
func (n Node) Mode() uint32 { return n.field32(inMode) }

// IsDir, IsRegular and IsSymlink test the type in Mode.
func (n Node) IsDir() bool     { return n.Mode()&typeMask == typeDir }
func (n Node) IsRegular() bool { return n.Mode()&typeMask == typeReg }
func (n Node) IsSymlink() bool { return n.Mode()&typeMask == typeLink }

// UID and GID are the owner.
func (n Node) UID() uint32 { return n.field32(inUID) }
func (n Node) GID() uint32 { return n.field32(inGID) }

// Nlink is the number of names in this layer; for a directory 2 plus the
// number of its subdirectories in this layer.
func (n Node) Nlink() uint32 { return n.field32(inNlink) }

// Mtime is the time of last modification: seconds since 1970 and nanoseconds.
func (n Node) Mtime() (sec int64, nsec uint32) {
	return int64(n.field64(inMtimeSec)), n.field32(inMtimeNsec) % 1e9
}

// Size is the size of a regular file in bytes, the length of the target of a
// symbolic link, otherwise 0.
func (n Node) Size() int64 {
	switch {
	case n.IsRegular():
		// Never more than the archive can hold.
		return int64(min(n.field64(inSize), uint64(len(n.r.b))))
	case n.IsSymlink():
		b, _ := n.r.str(n.field32(inLinkOff), n.field32(inLinkLen))
		return int64(len(b))
	}
	return 0
}

// Ino is a number from 1 to Inodes that all names of one file in this layer
// share and no other file has. 0 for a whiteout.
func (n Node) Ino() uint64 {
	e, ok := n.r.record(secEntries, n.entry, entrySize)
	if !ok || u16(e, enFlags)&flagWhiteout != 0 {
		return 0
	}
	return uint64(u32(e, enInode)) + 1
}

// Rdev is the device number of a device node in the kernel's encoding
// (st_rdev, makedev(3)).
func (n Node) Rdev() uint64 { return n.field64(inRdev) }

// Link is the target of a symbolic link, as it was written; "" otherwise.
func (n Node) Link() string {
	if !n.IsSymlink() {
		return ""
	}
	b, _ := n.r.str(n.field32(inLinkOff), n.field32(inLinkLen))
	return string(b)
}

// Whiteout says that the name does not exist any more in the layers below; a
// whiteout is no file and has no other attribute than its name (OCI image
// layer specification, Whiteouts).
func (n Node) Whiteout() bool {
	e, ok := n.r.record(secEntries, n.entry, entrySize)
	return ok && u16(e, enFlags)&flagWhiteout != 0
}

// Opaque says that what lower layers have in this directory is hidden.
func (n Node) Opaque() bool { return n.field32(inFlags)&flagOpaque != 0 }

// Implied says that the layer holds something below this directory but does
// not describe the directory itself. If a lower layer has a directory of that
// name its owner, mode, time and attributes are the ones that count (a
// symbolic link to a directory there is followed, as unpacking the layer over
// the lower ones would); if none has, it is root's with mode 0755.
func (n Node) Implied() bool { return n.field32(inFlags)&flagImplied != 0 }

// LowerLink is the path, relative to the root, of the file in the layers below
// this one to which n is a hard link. The layer itself does not have that file:
// it must be looked up, in the layers below, when layers are put together.
func (n Node) LowerLink() (path string, ok bool) {
	if n.field32(inFlags)&flagLowerLink == 0 {
		return "", false
	}
	b, ok := n.r.str(n.field32(inLinkOff), n.field32(inLinkLen))
	return string(b), ok
}

// Data is the stored content of a regular file: for an object with a Patch the
// rewritten bytes, otherwise the original ones. It begins at a page of the
// archive, is part of the Reader's memory and must not be changed.
func (n Node) Data() ([]byte, error) {
	b, err := n.content()
	if err == nil && n.r.fetch != nil && len(b) > 0 {
		err = n.r.fetch(n.field64(inDataOff), uint64(len(b)))
	}
	return b, err
}

// content is Data, of which nothing need be there yet.
func (n Node) content() ([]byte, error) {
	if !n.IsRegular() {
		return nil, nil
	}
	off, size := n.field64(inDataOff), n.field64(inSize)
	if size == 0 {
		return nil, nil
	}
	b, ok := slice(n.r.b, off, size)
	if !ok || off%pageSize != 0 {
		return nil, fmt.Errorf("data of %q: [%d, +%d) is no page-aligned part of the archive: %w", n.Name(), off, size, ErrCorrupt)
	}
	return b, nil
}

// ReadAt reads the ORIGINAL content of a regular file, the undo list of its
// patch applied: what read(2) gives. It returns io.EOF at and beyond the end
// with fewer bytes than len(p), as io.ReaderAt does.
func (n Node) ReadAt(p []byte, off int64) (int, error) {
	b, err := n.content()
	if err != nil {
		return 0, err
	}
	if off < 0 {
		return 0, fmt.Errorf("read %q at %d: negative offset", n.Name(), off)
	}
	if off >= int64(len(b)) {
		return 0, io.EOF
	}
	if n.r.fetch != nil {
		if err := n.r.fetch(n.field64(inDataOff)+uint64(off), uint64(min(len(p), len(b[off:])))); err != nil {
			return 0, err
		}
	}
	c := copy(p, b[off:])
	if pa := n.patch(); pa != nil {
		n.r.undo(pa, p[:c], uint64(off))
	}
	if c < len(p) {
		return c, io.EOF
	}
	return c, nil
}

func (n Node) patch() []byte {
	i := n.field32(inPatch)
	if i == 0 {
		return nil
	}
	pa, _ := n.r.record(secPatches, i-1, patchSize)
	return pa
}

// undo restores the original bytes in p, which holds the stored bytes at off.
func (r *Reader) undo(pa, p []byte, off uint64) {
	us, ok := slice(r.sec[secUndos], uint64(u32(pa, paUndoFirst))*undoSize, uint64(u32(pa, paUndoCount))*undoSize)
	if !ok {
		return
	}
	end := off + uint64(len(p))
	// The first record that ends after off.
	lo, hi := 0, len(us)/undoSize
	for lo < hi {
		mid := int(uint(lo+hi) / 2)
		u := us[mid*undoSize:]
		if s := u64(u, unFileOff); s < end && s+uint64(u32(u, unLen)) <= off {
			lo = mid + 1
		} else {
			hi = mid
		}
	}
	for ; lo < len(us)/undoSize; lo++ {
		u := us[lo*undoSize:]
		s := u64(u, unFileOff)
		if s >= end {
			return
		}
		o, ok := slice(r.sec[secBlob], uint64(u32(u, unDataOff)), uint64(u32(u, unLen)))
		if !ok {
			return
		}
		if s < off {
			o = o[min(off-s, uint64(len(o))):]
			s = off
		}
		copy(p[s-off:], o)
	}
}

// Patched says whether the stored bytes are rewritten ones.
func (n Node) Patched() bool { return n.field32(inPatch) != 0 }

// Patch returns the patch record of an object whose call sites are rewritten;
// not ok if there is none, or if what it says cannot be true (then only the
// original bytes, from ReadAt, may be used). The slices belong to the archive.
func (n Node) Patch() (Patch, bool) {
	pa := n.patch()
	if pa == nil {
		return Patch{}, false
	}
	r := n.r
	size := uint64(n.Size())
	p := Patch{StubVaddr: u64(pa, paStubVaddr), Lo: u64(pa, paLo), Hi: u64(pa, paHi)}
	var ok bool
	if p.Stubs, ok = slice(r.b, u64(pa, paStubOff), u64(pa, paStubLen)); !ok {
		return Patch{}, false
	}
	if u64(pa, paStubOff)%pageSize != 0 || p.StubVaddr%pageSize != 0 || p.Lo >= p.Hi || p.StubVaddr < p.Hi ||
		p.StubVaddr-p.Hi >= pageSize || p.StubVaddr+uint64(len(p.Stubs)) < p.StubVaddr {
		return Patch{}, false
	}
	sg, ok := slice(r.sec[secSegments], uint64(u32(pa, paSegFirst))*segmentSize, uint64(u32(pa, paSegCount))*segmentSize)
	if !ok {
		return Patch{}, false
	}
	for ; len(sg) > 0; sg = sg[segmentSize:] {
		s := Segment{u64(sg, sgOff), u64(sg, sgVaddr), u64(sg, sgFilesz)}
		if s.Off > size || s.Filesz > size-s.Off || s.Vaddr < p.Lo || s.Vaddr > p.Hi || s.Filesz > p.Hi-s.Vaddr {
			return Patch{}, false
		}
		p.Segments = append(p.Segments, s)
	}
	us, ok := slice(r.sec[secUndos], uint64(u32(pa, paUndoFirst))*undoSize, uint64(u32(pa, paUndoCount))*undoSize)
	if !ok {
		return Patch{}, false
	}
	end := uint64(0)
	for ; len(us) > 0; us = us[undoSize:] {
		o, ok := slice(r.sec[secBlob], uint64(u32(us, unDataOff)), uint64(u32(us, unLen)))
		at := u64(us, unFileOff)
		if !ok || at < end || at > size || uint64(len(o)) > size-at {
			return Patch{}, false
		}
		end = at + uint64(len(o))
		p.Undo = append(p.Undo, Undo{at, o})
	}
	return p, true
}

// Xattrs lists the extended attributes, sorted by name. The values belong to
// the archive.
func (n Node) Xattrs() iter.Seq2[string, []byte] {
	return func(yield func(string, []byte) bool) {
		first, c := n.field32(inXattrFirst), n.field32(inXattrCount)
		for i := range c {
			x, ok := n.r.record(secXattrs, first+i, xattrSize)
			if !ok {
				return
			}
			name, ok1 := n.r.str(u32(x, xaNameOff), u32(x, xaNameLen))
			val, ok2 := slice(n.r.sec[secBlob], uint64(u32(x, xaValOff)), uint64(u32(x, xaValLen)))
			if !ok1 || !ok2 || !yield(string(name), val) {
				return
			}
		}
	}
}
