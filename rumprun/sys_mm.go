package rumprun

import (
	"golang.org/x/sys/unix"

	"github.com/nabla-build/nabla-build/rumprun/mm"
	"github.com/nabla-build/nabla-build/rumprun/vfs"
)

var memoryCalls = []Call{
	{unix.SYS_MMAP, "mmap", sysMmap, Partial, "file mappings are copied at once; no SIGBUS beyond the end of a file; MAP_GROWSDOWN does not grow; MAP_HUGETLB ENOMEM"},
	{unix.SYS_MUNMAP, "munmap", sysMunmap, Full, ""},
	{unix.SYS_MPROTECT, "mprotect", sysMprotect, Partial, "bounds what system calls may touch; guest code itself is not stopped"},
	{unix.SYS_MREMAP, "mremap", sysMremap, Partial, "no MREMAP_DONTUNMAP, no old size 0 (EINVAL)"},
	{unix.SYS_MADVISE, "madvise", sysMadvise, Partial, "no MADV_HWPOISON, MADV_SOFT_OFFLINE, MADV_GUARD_INSTALL and MADV_GUARD_REMOVE (EINVAL)"},
	{unix.SYS_BRK, "brk", sysBrk, Full, ""},
	{unix.SYS_MINCORE, "mincore", sysMincore, Partial, "every mapped page counts as resident"},
	{unix.SYS_MSYNC, "msync", sysMsync, Full, ""},
	{unix.SYS_MLOCK, "mlock", sysMlock, Partial, "accepted: nothing is ever swapped by the library OS"},
	{unix.SYS_MLOCK2, "mlock2", sysMlock2, Partial, "accepted: nothing is ever swapped by the library OS"},
	{unix.SYS_MUNLOCK, "munlock", sysMlock, Partial, "accepted, without effect"},
	{unix.SYS_MLOCKALL, "mlockall", sysMlockall, Partial, "accepted, without effect"},
	{unix.SYS_MUNLOCKALL, "munlockall", sysMunlockall, Full, ""},
	{unix.SYS_MBIND, "mbind", nil, Unsupported, "no NUMA, as a kernel without CONFIG_NUMA"},
	{unix.SYS_SET_MEMPOLICY, "set_mempolicy", nil, Unsupported, "no NUMA, as a kernel without CONFIG_NUMA"},
	{unix.SYS_GET_MEMPOLICY, "get_mempolicy", nil, Unsupported, "no NUMA, as a kernel without CONFIG_NUMA"},
	{unix.SYS_MIGRATE_PAGES, "migrate_pages", nil, Unsupported, "no NUMA, as a kernel without CONFIG_NUMA"},
	{unix.SYS_MOVE_PAGES, "move_pages", nil, Unsupported, "no NUMA, as a kernel without CONFIG_NUMA"},
	{unix.SYS_REMAP_FILE_PAGES, "remap_file_pages", nil, Unsupported, "deprecated; pages are not aliased"},
	{unix.SYS_PKEY_ALLOC, "pkey_alloc", nil, Unsupported, "no protection keys"},
	{unix.SYS_PKEY_FREE, "pkey_free", nil, Unsupported, "no protection keys"},
	{unix.SYS_PKEY_MPROTECT, "pkey_mprotect", sysPkeyMprotect, Partial, "key -1 only"},
}

// sysMmap is mmap(2).
func sysMmap(t *Task, a Args) (uintptr, error) {
	m := mm.Mapping{Addr: a[0], Len: uint64(a[1]), Prot: a.Int(2), Flags: a.Int(3), Off: int64(a[5])}
	const protSem = 8
	m.Prot &^= protSem | unix.PROT_GROWSDOWN | unix.PROT_GROWSUP
	if m.Off&0xfff != 0 {
		return 0, unix.EINVAL
	}
	if m.Flags&unix.MAP_HUGETLB != 0 {
		return 0, unix.ENOMEM // no huge pages are set aside
	}
	if err := t.addressSpaceLeft(m.Len); err != nil {
		return 0, err
	}
	if m.Flags&unix.MAP_ANONYMOUS != 0 {
		return t.p.as.Map(m)
	}
	d, err := t.p.fds.Get(a.Int(4))
	if err != nil {
		return 0, err
	}
	defer d.DecRef()
	f, err := t.mappable(d, &m)
	if err != nil {
		return 0, err
	}
	if f == nil {
		m.Flags |= unix.MAP_ANONYMOUS
		return t.p.as.Map(m)
	}
	defer f.DecRef()
	m.File = f
	return t.p.as.Map(m)
}

// addressSpaceLeft checks n more bytes against RLIMIT_AS.
func (t *Task) addressSpaceLeft(n uint64) error {
	if l := t.p.limits.get(unix.RLIMIT_AS).Cur; l != rlimInfinity && (n > l || t.p.as.Size() > l-n) {
		return unix.ENOMEM
	}
	return nil
}

// mappable returns the file of d for the mapping m, with a reference for the
// caller; nil stands for anonymous memory (/dev/zero).
func (t *Task) mappable(d *Description, m *mm.Mapping) (*mm.File, error) {
	if d.StatusFlags()&unix.O_PATH != 0 {
		return nil, unix.EBADF
	}
	st, err := d.Stat()
	if err != nil {
		return nil, err
	}
	mode := d.StatusFlags() & unix.O_ACCMODE
	if mode == unix.O_WRONLY {
		return nil, unix.EACCES
	}
	switch st.Mode & unix.S_IFMT {
	case unix.S_IFREG:
	case unix.S_IFCHR:
		if st.Rdev == unix.Mkdev(1, 5) {
			return nil, nil
		}
		return nil, unix.ENODEV
	default:
		return nil, unix.ENODEV
	}
	writable := mode == unix.O_RDWR
	if s, ok := d.File.(interface{ Seals() (int, error) }); ok && writable && m.Flags&unix.MAP_TYPE != unix.MAP_PRIVATE {
		if seals, err := s.Seals(); err == nil && seals&(unix.F_SEAL_WRITE|unix.F_SEAL_FUTURE_WRITE) != 0 {
			if m.Prot&unix.PROT_WRITE != 0 {
				return nil, unix.EPERM
			}
			writable = false
		}
	}
	return t.k.mappedFile(d, &st, writable), nil
}

// mappedFile makes the mm side of d, which gains a reference.
func (k *Kernel) mappedFile(d *Description, st *unix.Stat_t, writable bool) *mm.File {
	d.IncRef()
	f := &mm.File{Source: d.File, Writable: writable, Dev: st.Dev, Ino: st.Ino}
	if d.entry != nil {
		f.Name = func() string { return procSource{k}.PathOf(&vfs.Context{}, d.entry) }
	}
	return mm.NewFile(f, d.DecRef)
}

// sysMunmap is munmap(2).
func sysMunmap(t *Task, a Args) (uintptr, error) {
	return 0, t.p.as.Unmap(a[0], uint64(a[1]))
}

// sysMprotect is mprotect(2).
func sysMprotect(t *Task, a Args) (uintptr, error) {
	return 0, t.p.as.Protect(a[0], uint64(a[1]), a.Int(2))
}

// sysPkeyMprotect is pkey_mprotect(2) where no key can be had.
func sysPkeyMprotect(t *Task, a Args) (uintptr, error) {
	if a.Int(3) != -1 {
		return 0, unix.EINVAL
	}
	return sysMprotect(t, a)
}

// sysMremap is mremap(2).
func sysMremap(t *Task, a Args) (uintptr, error) {
	if a[2] > a[1] {
		if err := t.addressSpaceLeft(uint64(a[2] - a[1])); err != nil {
			return 0, err
		}
	}
	return t.p.as.Remap(a[0], uint64(a[1]), uint64(a[2]), a.Int(3), a[4])
}

// sysMadvise is madvise(2).
func sysMadvise(t *Task, a Args) (uintptr, error) {
	return 0, t.p.as.Advise(a[0], uint64(a[1]), a.Int(2))
}

// sysBrk is brk(2) as the kernel has it: the result is the end of the heap.
func sysBrk(t *Task, a Args) (uintptr, error) {
	heap := t.p.as.Heap()
	if a[0] > heap.End {
		more := uint64(a[0] - heap.End)
		if t.addressSpaceLeft(more) != nil || uint64(a[0]-heap.Start) > t.p.limits.get(unix.RLIMIT_DATA).Cur {
			return heap.End, nil
		}
	}
	return t.p.as.Brk(a[0]), nil
}

// sysMincore is mincore(2): all that is mapped is resident.
func sysMincore(t *Task, a Args) (uintptr, error) {
	if a[0]&0xfff != 0 {
		return 0, unix.EINVAL
	}
	n := (uint64(a[1]) + 0xfff) >> 12
	if err := t.p.as.Mapped(a[0], uint64(a[1])); err != nil {
		return 0, unix.ENOMEM
	}
	vec, err := t.Bytes(a[2], int(n), true)
	if err != nil {
		return 0, err
	}
	for i := range vec {
		vec[i] = 1
	}
	return 0, nil
}

// sysMsync is msync(2). MS_ASYNC writes back at once, too.
func sysMsync(t *Task, a Args) (uintptr, error) {
	flags := a.Int(2)
	if flags&^(unix.MS_ASYNC|unix.MS_SYNC|unix.MS_INVALIDATE) != 0 || flags&(unix.MS_ASYNC|unix.MS_SYNC) == unix.MS_ASYNC|unix.MS_SYNC {
		return 0, unix.EINVAL
	}
	return 0, t.p.as.Sync(a[0], uint64(a[1]))
}

// lockable checks the range of mlock(2), which need not be aligned.
func (t *Task) lockable(addr uintptr, n uint64) error {
	start := addr &^ 0xfff
	end := uint64(addr) + n
	if end < uint64(addr) {
		return unix.EINVAL
	}
	return t.p.as.Mapped(start, end-uint64(start))
}

func sysMlock(t *Task, a Args) (uintptr, error) { return 0, t.lockable(a[0], uint64(a[1])) }

func sysMlock2(t *Task, a Args) (uintptr, error) {
	if a.Int(2)&^unix.MLOCK_ONFAULT != 0 {
		return 0, unix.EINVAL
	}
	return 0, t.lockable(a[0], uint64(a[1]))
}

func sysMlockall(t *Task, a Args) (uintptr, error) {
	f := a.Int(0)
	if f == 0 || f&^(unix.MCL_CURRENT|unix.MCL_FUTURE|unix.MCL_ONFAULT) != 0 || f == unix.MCL_ONFAULT {
		return 0, unix.EINVAL
	}
	return 0, nil
}

func sysMunlockall(*Task, Args) (uintptr, error) { return 0, nil }
