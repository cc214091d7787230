package memfs

// Node is an object of a read-only layer: what the lower part of a file system
// is made of. Its methods only look at mapped memory and may be called at any
// time.
type Node interface {
	// ID is different for different objects of one layer, the same for the
	// hard links of one object, and below 1<<32.
	ID() uint64
	// Mode is the type and permissions; Rdev a device node's number.
	Mode() uint32
	Rdev() uint64
	UID() uint32
	GID() uint32
	Nlink() uint32
	// Mtime is in nanoseconds since the epoch.
	Mtime() int64
	Size() int64
	// Data is the content of a regular file, or the text of a symbolic link.
	// It stays valid and unchanged for the life of the process.
	Data() []byte
	// Xattrs are the extended attributes; nil if there are none.
	Xattrs() map[string][]byte
	// Lookup finds an entry of a directory.
	Lookup(name string) (Node, bool)
	// ReadDir calls f for each entry of a directory, until it answers false.
	ReadDir(f func(name string, n Node) bool)
	// Whiteout says that the entry hides one of a lower layer and is nothing
	// itself; Opaque that a directory hides all entries of lower layers.
	Whiteout() bool
	Opaque() bool
}
