package archive

// The layout of the index, byte by byte; docs/image-format.md is the same in
// prose. All integers are little-endian. Offsets of records below are offsets
// inside the record.

// pageSize is the alignment of file data, of stubs and of the index.
const pageSize = 4096

// MaxFileSize is the largest file an archive can hold: newc has 32 bits for
// the size of a file.
const MaxFileSize = 1<<32 - 1

// MaxNameLen and MaxPathLen are Linux's NAME_MAX and PATH_MAX (limits.h).
const (
	MaxNameLen = 255
	MaxPathLen = 4095
)

const (
	trailerMagic  = "NABLAARC"
	trailerSize   = 64
	formatVersion = 1

	indexMagic = "NABLAIDX"
	// The index starts with its magic and one {offset, size} pair of 64-bit
	// words for each section, offsets counted from the start of the index.
	indexHeaderSize = 8 + 16*numSections
)

// Trailer, the last 64 bytes of an archive.
const (
	trMagic    = 0  // 8 bytes
	trVersion  = 8  // u32
	trFlags    = 12 // u32, 0
	trIndexOff = 16 // u64, from the start of the archive
	trIndexLen = 24 // u64
	trIndexCRC = 32 // u32, CRC-32C of the index
	trCRC      = 60 // u32, CRC-32C of bytes 0..59 of the trailer
)

// Sections of the index.
const (
	secInodes   = iota // inodeSize each
	secEntries         // entrySize each
	secStrings         // bytes
	secXattrs          // xattrSize each
	secPatches         // patchSize each
	secSegments        // segmentSize each
	secUndos           // undoSize each
	secBlob            // bytes: xattr values, original bytes of undo records
	secCode            // bytes: stubs, each starting at a page of the archive
	numSections
)

// An inode: what all names of one file share.
const (
	inMode       = 0  // u32, st_mode
	inUID        = 4  // u32
	inGID        = 8  // u32
	inNlink      = 12 // u32
	inMtimeSec   = 16 // i64, seconds since 1970
	inMtimeNsec  = 24 // u32
	inFlags      = 28 // u32, inode flags
	inSize       = 32 // u64, bytes of file data
	inDataOff    = 40 // u64, from the start of the archive
	inRdev       = 48 // u64, dev_t as stat(2) has it
	inLinkOff    = 56 // u32, in strings: symlink target or path in lower layers
	inLinkLen    = 60 // u32
	inChildFirst = 64 // u32, first entry of a directory
	inChildCount = 68 // u32
	inXattrFirst = 72 // u32
	inXattrCount = 76 // u32
	inPatch      = 80 // u32, number of the patch record plus one; 0: none
	inSelf       = 84 // u32, a directory's own entry
	inodeSize    = 96
)

// Inode flags.
const (
	flagOpaque    = 1 << iota // directory hides what lower layers have in it
	flagImplied               // directory made for its children; the layer does not describe it
	flagLowerLink             // hard link to a file of a lower layer
)

// An entry: one name in one directory. Entry 0 is the root. The entries of a
// directory are contiguous, sorted by name, and come after the directory's
// own, so that no chain of entries can be a circle.
const (
	enNameOff = 0  // u32, in strings
	enNameLen = 4  // u16
	enFlags   = 6  // u16
	enInode   = 8  // u32
	enParent  = 12 // u32, entry of the directory
	entrySize = 16
)

// Entry flags.
const flagWhiteout = 1 // hides the name in lower layers; no inode

const (
	xaNameOff = 0  // u32, in strings
	xaNameLen = 4  // u32
	xaValOff  = 8  // u32, in blob
	xaValLen  = 12 // u32
	xattrSize = 16
)

const (
	paStubOff   = 0  // u64, from the start of the archive; a multiple of 4096
	paStubLen   = 8  // u64
	paStubVaddr = 16 // u64
	paLo        = 24 // u64, lowest virtual address of the object
	paHi        = 32 // u64, its end
	paSegFirst  = 40 // u32
	paSegCount  = 44 // u32
	paUndoFirst = 48 // u32
	paUndoCount = 52 // u32
	patchSize   = 56
)

const (
	sgOff       = 0  // u64, file offset
	sgVaddr     = 8  // u64
	sgFilesz    = 16 // u64
	segmentSize = 24
)

const (
	unFileOff = 0  // u64, file offset
	unDataOff = 8  // u32, in blob
	unLen     = 12 // u32
	undoSize  = 16
)

// File types of st_mode (inode(7)).
const (
	typeMask  = 0o170000
	typeSock  = 0o140000
	typeLink  = 0o120000
	typeReg   = 0o100000
	typeBlock = 0o060000
	typeDir   = 0o040000
	typeChar  = 0o020000
	typeFIFO  = 0o010000
)

// Patch says how the stored bytes of an ELF object differ from the original
// and what belongs beside the object for them to work. Virtual addresses are
// link-time addresses; the load bias is added by whoever maps the object.
type Patch struct {
	// Stubs is position-independent code that must lie at StubVaddr (plus the
	// load bias) before any rewritten byte is executed. It belongs to the
	// archive and is not to be changed.
	Stubs []byte
	// StubVaddr is page-aligned and just past the object's highest address.
	StubVaddr uint64
	// Lo and Hi are the object's span: lowest p_vaddr, highest p_vaddr+p_memsz.
	Lo, Hi uint64
	// Segments are the executable PT_LOAD segments.
	Segments []Segment
	// Undo restores the original: sorted by offset, without overlap.
	Undo []Undo
}

// Segment is one executable PT_LOAD program header (gABI, program header).
type Segment struct {
	Off, Vaddr, Filesz uint64
}

// Undo is one run of bytes that was rewritten.
type Undo struct {
	Off  uint64 // file offset
	Orig []byte // what the source file has there
}

// Xattr is one extended attribute (xattr(7)).
type Xattr struct {
	Name  string
	Value []byte
}
