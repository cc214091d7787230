package rumprun

import (
	"fmt"
	"path"
	"strings"

	"golang.org/x/sys/unix"

	"gvisor.dev/gvisor/pkg/abi/linux"

	"github.com/nabla-build/nabla-build/rumprun/guest"
	"github.com/nabla-build/nabla-build/rumprun/loader"
	"github.com/nabla-build/nabla-build/rumprun/mm"
	"github.com/nabla-build/nabla-build/rumprun/vfs"
)

var execCalls = []Call{
	{unix.SYS_EXECVE, "execve", sysExecve, Partial, "set-user-ID bits have no effect, as with no_new_privs"},
	{unix.SYS_EXECVEAT, "execveat", sysExecveat, Partial, "set-user-ID bits have no effect, as with no_new_privs"},
}

// maxInterpreters is how many #! files may lead to one another (exec_binprm of
// fs/exec.c).
const maxInterpreters = 5

// sysExecve is execve(2).
func sysExecve(t *Task, a Args) (uintptr, error) {
	name, err := t.pathArg(a[0])
	if err != nil {
		return 0, err
	}
	d, err := t.p.fs.ns.Lookup(t.vfsContext(), nil, name, true, 0)
	if err != nil {
		return 0, err
	}
	return 0, t.execve(d, name, a[1], a[2])
}

// sysExecveat is execveat(2).
func sysExecveat(t *Task, a Args) (uintptr, error) {
	flags := a.Int(4)
	if flags&^(unix.AT_EMPTY_PATH|unix.AT_SYMLINK_NOFOLLOW) != 0 {
		return 0, unix.EINVAL
	}
	name, err := t.pathArg(a[1])
	if err != nil {
		return 0, err
	}
	o, err := t.objectAt(a.Int(0), a[1], flags, true)
	if err != nil {
		return 0, err
	}
	defer o.release()
	if o.entry == nil {
		return 0, unix.EACCES
	}
	if fd := a.Int(0); fd != unix.AT_FDCWD && !strings.HasPrefix(name, "/") {
		// fs/exec.c, alloc_bprm: the path by which a script's interpreter finds it.
		f := fmt.Sprintf("/dev/fd/%d", fd)
		if name != "" {
			f += "/" + name
		}
		name = f
	}
	return 0, t.execve(o.entry, name, a[2], a[3])
}

// execve replaces t's program by d, found by name, with the arguments and the
// environment at the given addresses.
func (t *Task) execve(d *vfs.Dentry, name string, argv, envp uintptr) error {
	args, err := t.stringArray(argv)
	if err != nil {
		return err
	}
	env, err := t.stringArray(envp)
	if err != nil {
		return err
	}
	if len(args) == 0 {
		args = []string{""} // as Linux since 5.18
	}
	x, err := t.prepare(d, name, args, env)
	if err != nil {
		return err
	}
	defer x.release()
	// The point of no return: what fails from here on ends the process.
	t.exitRobustList()
	t.robustList, t.clearTID = 0, 0
	if !t.killOthers() {
		return unix.EINTR
	}
	t.p.fds, t.p.sighand = t.p.fds.Own(), t.p.sighand.copy()
	t.p.ownMemory()
	t.endTurn()
	if err := t.begin(x); err != nil {
		t.k.logf("nabla: execve %s: %v: the old program is gone, the process ends", name, err)
		t.p.exitGroup(int(unix.SIGKILL))
		return err
	}
	t.p.birth.release()
	return nil
}

// stringArray reads the NULL-terminated array of strings at addr; none if addr
// is 0 (execve(2)). E2BIG as soon as it is sure.
func (t *Task) stringArray(addr uintptr) ([]string, error) {
	if addr == 0 {
		return nil, nil
	}
	const maxStringLen, maxTotal = 128 << 10, 8 << 20
	var out []string
	total := 0
	for ; ; addr += 8 {
		p, err := copyIn[uint64](t, addr)
		if err != nil {
			return nil, err
		}
		if p == 0 {
			return out, nil
		}
		s, err := t.CString(uintptr(p), maxStringLen)
		if err == unix.ENAMETOOLONG {
			return nil, unix.E2BIG
		}
		if err != nil {
			return nil, err
		}
		if total += len(s) + 9; total > maxTotal {
			return nil, unix.E2BIG
		}
		out = append(out, s)
	}
}

// execution is a program that is ready to be loaded.
type execution struct {
	loader.Program
	exe  *vfs.Dentry // /proc/self/exe
	comm string
}

func (x *execution) release() {
	if x.File != nil {
		x.File.DecRef()
	}
	if x.Interp != nil {
		x.Interp.DecRef()
	}
}

// prepare does all of execve that can fail without harm: it follows #! lines,
// opens and checks program and interpreter, and counts the arguments.
func (t *Task) prepare(d *vfs.Dentry, name string, argv, env []string) (*execution, error) {
	x := &execution{comm: path.Base(name)}
	x.ExecFn, x.Env = name, env
	for depth := 0; ; depth++ {
		if depth > maxInterpreters {
			return nil, unix.ELOOP
		}
		f, err := t.openExecutable(d)
		if err != nil {
			return nil, err
		}
		head := make([]byte, loader.HeadSize)
		n, err := f.Source.Pread(head, 0)
		if err != nil {
			f.DecRef()
			return nil, err
		}
		interp, arg, ok := loader.Script(head[:n])
		if !ok {
			x.File, x.exe, x.Argv = f, d, argv
			break
		}
		f.DecRef()
		pre := []string{interp}
		if arg != "" {
			pre = append(pre, arg)
		}
		argv = append(append(pre, name), argv[min(1, len(argv)):]...)
		name = interp
		if d, err = t.p.fs.ns.Lookup(t.vfsContext(), nil, interp, true, 0); err != nil {
			return nil, err
		}
	}
	if err := t.prepareELF(x); err != nil {
		x.release()
		return nil, err
	}
	return x, nil
}

func (t *Task) prepareELF(x *execution) error {
	var err error
	if x.Image, err = loader.Parse(x.File.Source); err != nil {
		return err
	}
	if err := loader.Fits(t.k.arena, x.Image); err != nil {
		return fmt.Errorf("program is linked to addresses %#x-%#x, which are not the guest's: %w", x.Image.Lo(), x.Image.Hi(), err)
	}
	if !x.Image.PIE && !t.p.as.Claimable(uintptr(x.Image.Lo()), uintptr(x.Image.Hi()), t.p.space.users.Load() > 1) {
		t.k.logf("nabla: execve %s: it is linked to the fixed addresses %#x-%#x, of which another program uses a part for something else", x.ExecFn, x.Image.Lo(), x.Image.Hi())
		return unix.ENOMEM
	}
	if x.Image.Interp != "" {
		d, err := t.p.fs.ns.Lookup(t.vfsContext(), nil, x.Image.Interp, true, 0)
		if err != nil {
			return fmt.Errorf("ELF interpreter %s: %w", x.Image.Interp, err)
		}
		if x.Interp, err = t.openExecutable(d); err != nil {
			return fmt.Errorf("ELF interpreter %s: %w", x.Image.Interp, err)
		}
		x.InterpImage, err = loader.Parse(x.Interp.Source)
		if err == unix.ENOEXEC {
			err = unix.ELIBBAD
		}
		if err != nil {
			return fmt.Errorf("ELF interpreter %s: %w", x.Image.Interp, err)
		}
	}
	x.StackSize = t.p.limits.get(unix.RLIMIT_STACK).Cur
	return loader.CheckArgs(x.Argv, x.Env, x.StackSize)
}

// openExecutable opens d for execution: a regular file with execute permission
// (EACCES otherwise). The file need not be readable.
func (t *Task) openExecutable(d *vfs.Dentry) (*mm.File, error) {
	a := d.Inode().Attr()
	if a.IsSymlink() {
		return nil, unix.ELOOP
	}
	if !a.IsRegular() {
		return nil, unix.EACCES
	}
	c := t.vfsContext()
	if err := c.Creds.Check(&a, vfs.MayExec); err != nil {
		return nil, err
	}
	f, err := d.Inode().Open(c, d, unix.O_RDONLY)
	if err != nil {
		return nil, err
	}
	desc := newDescriptionAt(f, d)
	defer desc.DecRef()
	st := a.Stat()
	return t.k.mappedFile(desc, &st, false), nil
}

// begin loads x into the empty address space and sets the thread to its entry,
// with everything else as execve(2) leaves it.
func (t *Task) begin(x *execution) error {
	p, k := t.p, t.k
	creds := p.fs.creds.Load()
	x.UID, x.EUID, x.GID, x.EGID = creds.UID, creds.EUID, creds.GID, creds.EGID
	x.Host = loader.HostAux{VDSO: k.cfg.VDSO, HWCap: k.cfg.HWCap, HWCap2: k.cfg.HWCap2, ClockTick: k.cfg.ClockTick, MinSigStack: k.cfg.MinSigStack}
	k.files.entropy.Read(x.Random[:])
	if !x.Image.PIE {
		if err := t.claimFixed(&x.Program); err != nil {
			return fmt.Errorf("its addresses %#x-%#x: %w", x.Image.Lo(), x.Image.Hi(), err)
		}
	}
	st, err := loader.Load(p.as, &x.Program)
	if err != nil {
		return err
	}
	p.fds.CloseIf(func(_ int, cloexec bool) bool { return cloexec })
	p.sighand.exec()
	p.posix.clear()
	t.altstack = linux.SignalStack{}
	t.setName(x.comm)
	t.attr.keepCaps = false
	t.ctx.CopyFrom(guest.NewContext())
	t.ctx.Rip, t.ctx.Rsp = uint64(st.Entry), uint64(st.SP)
	p.mu.Lock()
	defer p.mu.Unlock()
	p.dumpable = true
	p.program = programInfo{
		exe:      x.exe,
		argStart: st.ArgStart, argEnd: st.ArgEnd,
		envStart: st.EnvStart, envEnd: st.EnvEnd,
		auxvStart: st.AuxvStart, auxvEnd: st.AuxvEnd,
	}
	return nil
}

// loadFirst loads the container's program into its first thread. A name
// without a slash is looked up in PATH as execvp(3) does; a #! file needs its
// line (no shell is tried). An error names the program and what is wrong.
func (t *Task) loadFirst(argv, env []string) error {
	if len(argv) == 0 || argv[0] == "" {
		return fmt.Errorf("no program to run: the image has neither Entrypoint nor Cmd, and no arguments were given: %w", unix.ENOENT)
	}
	d, name, err := t.findProgram(argv[0], env)
	if err == nil {
		var x *execution
		if x, err = t.prepare(d, name, argv, env); err == nil {
			defer x.release()
			err = t.begin(x)
		}
	}
	if err != nil {
		return fmt.Errorf("start %s: %w", argv[0], err)
	}
	return nil
}

// defaultPath is what execvp(3) uses where PATH is not set, with the sbin
// directories that container engines add.
const defaultPath = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"

// findProgram looks name up as execvp(3): EACCES from one directory counts only
// if no other has the program.
func (t *Task) findProgram(name string, env []string) (*vfs.Dentry, string, error) {
	c := t.vfsContext()
	if strings.Contains(name, "/") {
		d, err := t.p.fs.ns.Lookup(c, nil, name, true, 0)
		return d, name, err
	}
	dirs := defaultPath
	for _, e := range env {
		if v, ok := strings.CutPrefix(e, "PATH="); ok {
			dirs = v
			break
		}
	}
	denied := false
	for dir := range strings.SplitSeq(dirs, ":") {
		if dir == "" {
			dir = "."
		}
		full := dir + "/" + name
		d, err := t.p.fs.ns.Lookup(c, nil, full, true, 0)
		if err == nil {
			a := d.Inode().Attr()
			if a.IsRegular() && c.Creds.Check(&a, vfs.MayExec) == nil {
				return d, full, nil
			}
			err = unix.EACCES
		}
		denied = denied || err == unix.EACCES
	}
	if denied {
		return nil, "", fmt.Errorf("not executable in any directory of PATH=%s: %w", dirs, unix.EACCES)
	}
	return nil, "", fmt.Errorf("not found in PATH=%s: %w", dirs, unix.ENOENT)
}
