package archive

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"hash/crc32"
	"math"
	"slices"
	"strings"

	"github.com/u-root/u-root/pkg/cpio"
)

// Close writes the cpio trailer and the index. It does not close the
// underlying writer.
func (w *Writer) Close() error {
	if err := w.start(); err != nil {
		return err
	}
	if w.err != nil {
		return w.err
	}
	if err := w.write(cpio.TrailerRecord); err != nil {
		return err
	}
	if err := w.pad(); err != nil {
		return err
	}
	b := builder{names: map[string]uint32{}}
	if err := b.tree(w.root); err != nil {
		return w.fail("index", "make", err)
	}
	ix := b.index(w.pos)
	t := make([]byte, trailerSize)
	copy(t, trailerMagic)
	put32(t, trVersion, formatVersion)
	put64(t, trIndexOff, w.pos)
	put64(t, trIndexLen, uint64(len(ix)))
	put32(t, trIndexCRC, crc32.Checksum(ix, castagnoli))
	put32(t, trCRC, crc32.Checksum(t[:trCRC], castagnoli))
	for _, p := range [][]byte{ix, t} {
		if _, err := w.w.Write(p); err != nil {
			return w.fail("index", "write", err)
		}
	}
	if err := w.w.Flush(); err != nil {
		return w.fail("index", "write", err)
	}
	w.err = fmt.Errorf("archive: closed")
	return nil
}

func (w *Writer) pad() error {
	n := -w.pos & (pageSize - 1)
	if _, err := w.w.Write(make([]byte, n)); err != nil {
		return w.fail("index", "write", err)
	}
	w.pos += n
	return nil
}

func put16(b []byte, at int, v uint16) { binary.LittleEndian.PutUint16(b[at:], v) }
func put32(b []byte, at int, v uint32) { binary.LittleEndian.PutUint32(b[at:], v) }
func put64(b []byte, at int, v uint64) { binary.LittleEndian.PutUint64(b[at:], v) }

// builder lays out the index.
type builder struct {
	sec     [numSections]bytes.Buffer
	names   map[string]uint32 // offset of a string in secStrings
	inodes  []*file
	patched []patchAt
}

// patchAt is a patch record whose stubs' place is not known yet.
type patchAt struct {
	record int // offset in secPatches
	code   uint64
}

// tree emits entries breadth first, so that children are contiguous and come
// after their directory.
func (b *builder) tree(root *dirent) error {
	type job struct {
		d      *dirent
		parent uint32
	}
	queue := []job{{root, 0}}
	next := uint32(1) // entry number of the next child
	for i := 0; i < len(queue); i++ {
		d, parent := queue[i].d, queue[i].parent
		queue[i].d = nil
		self := uint32(i)
		e := make([]byte, entrySize)
		off, err := b.str(d.name)
		if err != nil {
			return err
		}
		put32(e, enNameOff, off)
		put16(e, enNameLen, uint16(len(d.name)))
		put32(e, enParent, parent)
		if d.file == nil {
			put16(e, enFlags, flagWhiteout)
			b.sec[secEntries].Write(e)
			continue
		}
		f := d.file
		if !f.placed {
			f.placed, f.index = true, uint32(len(b.inodes))
			b.inodes = append(b.inodes, f)
			if err := b.inode(f); err != nil {
				return err
			}
		}
		f.nlink++
		put32(e, enInode, f.index)
		b.sec[secEntries].Write(e)
		if !d.isDir() {
			continue
		}
		in := b.sec[secInodes].Bytes()[int(f.index)*inodeSize:]
		f.nlink = 2
		put32(in, inSelf, self)
		names := make([]string, 0, len(d.children))
		for name, c := range d.children {
			if c.isDir() {
				f.nlink++
			}
			names = append(names, name)
		}
		slices.Sort(names)
		if uint64(next)+uint64(len(names)) > math.MaxUint32 {
			return fmt.Errorf("more than %d names", uint32(math.MaxUint32))
		}
		if len(names) > 0 {
			put32(in, inChildFirst, next)
			put32(in, inChildCount, uint32(len(names)))
		}
		for _, name := range names {
			queue = append(queue, job{d.children[name], self})
			next++
		}
		if f.opaque || d.whiteout {
			put32(in, inFlags, u32(in, inFlags)|flagOpaque)
		}
	}
	for i, f := range b.inodes {
		put32(b.sec[secInodes].Bytes(), i*inodeSize+inNlink, f.nlink)
	}
	return nil
}

// limit keeps offsets in 32 bits.
func (b *builder) limit(sec int, n int) (uint32, error) {
	at := b.sec[sec].Len()
	if uint64(at)+uint64(n) > math.MaxUint32 {
		return 0, fmt.Errorf("section %d of the index grows beyond 4 GiB", sec)
	}
	return uint32(at), nil
}

func (b *builder) str(s string) (uint32, error) {
	if off, ok := b.names[s]; ok {
		return off, nil
	}
	off, err := b.limit(secStrings, len(s))
	if err != nil {
		return 0, err
	}
	b.sec[secStrings].WriteString(s)
	b.names[s] = off
	return off, nil
}

func (b *builder) inode(f *file) error {
	in := make([]byte, inodeSize)
	put32(in, inMode, f.Mode)
	put32(in, inUID, f.UID)
	put32(in, inGID, f.GID)
	put64(in, inMtimeSec, uint64(f.MtimeSec))
	put32(in, inMtimeNsec, f.MtimeNsec)
	put64(in, inSize, uint64(f.Size))
	put64(in, inDataOff, f.dataOff)
	put64(in, inRdev, f.Rdev)
	flags, link := uint32(0), f.Link
	if f.implied {
		flags |= flagImplied
	}
	if f.isLower {
		flags |= flagLowerLink
		link = f.lower
	}
	put32(in, inFlags, flags)
	if f.isLower || f.Mode&typeMask == typeLink {
		off, err := b.str(link)
		if err != nil {
			return err
		}
		put32(in, inLinkOff, off)
		put32(in, inLinkLen, uint32(len(link)))
	}
	if err := b.xattrs(in, f.Xattrs); err != nil {
		return err
	}
	if f.Patch != nil {
		if err := b.patch(f.Patch); err != nil {
			return err
		}
		put32(in, inPatch, uint32(len(b.patched)))
	}
	b.sec[secInodes].Write(in)
	return nil
}

func (b *builder) xattrs(in []byte, xs []Xattr) error {
	xs = slices.Clone(xs)
	slices.SortStableFunc(xs, func(x, y Xattr) int { return strings.Compare(x.Name, y.Name) })
	put32(in, inXattrFirst, uint32(b.sec[secXattrs].Len()/xattrSize))
	put32(in, inXattrCount, uint32(len(xs)))
	for _, x := range xs {
		name, err := b.str(x.Name)
		if err != nil {
			return err
		}
		val, err := b.limit(secBlob, len(x.Value))
		if err != nil {
			return err
		}
		b.sec[secBlob].Write(x.Value)
		e := make([]byte, xattrSize)
		put32(e, xaNameOff, name)
		put32(e, xaNameLen, uint32(len(x.Name)))
		put32(e, xaValOff, val)
		put32(e, xaValLen, uint32(len(x.Value)))
		b.sec[secXattrs].Write(e)
	}
	return nil
}

func (b *builder) patch(p *Patch) error {
	rec := make([]byte, patchSize)
	b.patched = append(b.patched, patchAt{b.sec[secPatches].Len(), uint64(b.sec[secCode].Len())})
	b.sec[secCode].Write(p.Stubs)
	b.sec[secCode].Write(make([]byte, -b.sec[secCode].Len()&(pageSize-1)))
	put64(rec, paStubLen, uint64(len(p.Stubs)))
	put64(rec, paStubVaddr, p.StubVaddr)
	put64(rec, paLo, p.Lo)
	put64(rec, paHi, p.Hi)
	put32(rec, paSegFirst, uint32(b.sec[secSegments].Len()/segmentSize))
	put32(rec, paSegCount, uint32(len(p.Segments)))
	for _, s := range p.Segments {
		e := make([]byte, segmentSize)
		put64(e, sgOff, s.Off)
		put64(e, sgVaddr, s.Vaddr)
		put64(e, sgFilesz, s.Filesz)
		b.sec[secSegments].Write(e)
	}
	put32(rec, paUndoFirst, uint32(b.sec[secUndos].Len()/undoSize))
	put32(rec, paUndoCount, uint32(len(p.Undo)))
	for _, u := range p.Undo {
		off, err := b.limit(secBlob, len(u.Orig))
		if err != nil {
			return err
		}
		b.sec[secBlob].Write(u.Orig)
		e := make([]byte, undoSize)
		put64(e, unFileOff, u.Off)
		put32(e, unDataOff, off)
		put32(e, unLen, uint32(len(u.Orig)))
		b.sec[secUndos].Write(e)
	}
	b.sec[secPatches].Write(rec)
	return nil
}

// index puts the sections together; at is the place of the index in the
// archive, a multiple of the page size.
func (b *builder) index(at uint64) []byte {
	offs := [numSections]uint64{}
	pos := uint64(indexHeaderSize)
	for i := range b.sec {
		pos = (pos + 15) &^ 15
		if i == secCode {
			pos = (pos + pageSize - 1) &^ (pageSize - 1)
		}
		offs[i] = pos
		pos += uint64(b.sec[i].Len())
	}
	for _, p := range b.patched {
		put64(b.sec[secPatches].Bytes(), p.record+paStubOff, at+offs[secCode]+p.code)
	}
	out := make([]byte, pos)
	copy(out, indexMagic)
	for i := range b.sec {
		put64(out, 8+16*i, offs[i])
		put64(out, 8+16*i+8, uint64(b.sec[i].Len()))
		copy(out[offs[i]:], b.sec[i].Bytes())
	}
	return out
}
