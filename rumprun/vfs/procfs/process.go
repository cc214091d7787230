package procfs

import (
	"bytes"
	"fmt"
	"math"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"github.com/nabla-build/nabla-build/rumprun/vfs"
	"github.com/nabla-build/nabla-build/rumprun/vfs/pseudo"
)

// process makes /proc/PID.
func (f *fs) process(pid int32) vfs.Inode {
	base := strconv.Itoa(int(pid))
	entries := f.common(base, pid, 0)
	task := &pseudo.Dir{Node: f.owned(base+"/task", 0o555, pid)}
	task.Find = func(_ *vfs.Context, name string) vfs.Inode {
		tid, ok := number(name)
		p := f.src.Process(pid)
		if !ok || p == nil || p.thread(tid) == nil {
			return nil
		}
		path := base + "/task/" + name
		return f.listing(path, 0o555, pid, f.common(path, pid, tid))
	}
	task.List = func(*vfs.Context) ([]string, error) {
		p := f.src.Process(pid)
		if p == nil {
			return nil, unix.ENOENT
		}
		var names []string
		for _, t := range p.Threads {
			names = append(names, strconv.Itoa(int(t.TID)))
		}
		return names, nil
	}
	entries["task"] = task
	return &processDir{f.listing(base, 0o555, pid, entries), pid}
}

// processDir is /proc/PID.
type processDir struct {
	*pseudo.Dir
	pid int32
}

// ProcessOf returns the number of the process whose /proc/PID i is; a
// descriptor of it can stand for a pidfd (pidfd_send_signal(2)).
func ProcessOf(i vfs.Inode) (pid int32, ok bool) {
	d, ok := i.(*processDir)
	if !ok {
		return 0, false
	}
	return d.pid, true
}

// owned is a node of process pid's owner.
func (f *fs) owned(path string, perm uint32, pid int32) pseudo.Node {
	n := f.node(path, perm)
	n.Owner = func() (uint32, uint32) {
		if p := f.src.Process(pid); p != nil && p.Creds != nil {
			return p.Creds.EUID, p.Creds.EGID
		}
		return 0, 0
	}
	return n
}

func (f *fs) listing(path string, perm uint32, pid int32, entries map[string]vfs.Inode) *pseudo.Dir {
	d := &pseudo.Dir{Node: f.owned(path, perm, pid)}
	d.Find, d.List = pseudo.Static(entries)
	return d
}

func (p *Process) thread(tid int32) *Thread {
	for i := range p.Threads {
		if p.Threads[i].TID == tid || tid == 0 {
			return &p.Threads[i]
		}
	}
	return nil
}

// common makes the entries that /proc/PID (tid 0) and /proc/PID/task/TID have.
func (f *fs) common(base string, pid, tid int32) map[string]vfs.Inode {
	to := make(map[string]vfs.Inode)
	// get wraps a function of the process for when it has gone.
	get := func(name string, perm uint32, show func(p *Process) ([]byte, error)) *pseudo.File {
		n := &pseudo.File{Node: f.owned(base+"/"+name, perm, pid), Get: func() ([]byte, error) {
			p := f.src.Process(pid)
			if p == nil || tid != 0 && p.thread(tid) == nil {
				return nil, unix.ESRCH
			}
			return show(p)
		}}
		to[name] = n
		return n
	}
	text := func(name string, perm uint32, show func(w *bytes.Buffer, p *Process)) {
		get(name, perm, func(p *Process) ([]byte, error) {
			var b bytes.Buffer
			show(&b, p)
			return b.Bytes(), nil
		})
	}
	get("cmdline", 0o444, func(p *Process) ([]byte, error) { return p.Cmdline() })
	get("environ", 0o400, func(p *Process) ([]byte, error) { return p.Environ() })
	get("auxv", 0o400, func(p *Process) ([]byte, error) { return p.Auxv() })
	get("maps", 0o444, func(p *Process) ([]byte, error) {
		m, err := p.Maps()
		return formatMaps(m), err
	})
	comm := get("comm", 0o644, func(p *Process) ([]byte, error) {
		name := p.Comm
		if t := p.thread(tid); tid != 0 && t != nil {
			name = t.Comm
		}
		return []byte(name + "\n"), nil
	})
	comm.Set = func(b []byte) error {
		p := f.src.Process(pid)
		if p == nil {
			return unix.ESRCH
		}
		if p.SetComm == nil {
			return unix.EPERM
		}
		name := strings.TrimSuffix(string(b), "\n")
		target := tid
		if tid == 0 {
			target = pid
		}
		return p.SetComm(target, name[:min(len(name), 15)])
	}
	text("stat", 0o444, func(w *bytes.Buffer, p *Process) { formatStat(w, p, tid, f.Boot) })
	text("statm", 0o444, func(w *bytes.Buffer, p *Process) {
		fmt.Fprintf(w, "%d %d 0 0 0 %d 0\n", p.VirtualSize/4096, p.ResidentSize/4096, p.ResidentSize/4096)
	})
	text("status", 0o444, func(w *bytes.Buffer, p *Process) { formatStatus(w, p, tid) })
	text("limits", 0o444, func(w *bytes.Buffer, p *Process) { formatLimits(w, p.Limits[:]) })
	text("cgroup", 0o444, func(w *bytes.Buffer, p *Process) { w.WriteString("0::/\n") })
	text("cpuset", 0o444, func(w *bytes.Buffer, p *Process) { w.WriteString("/\n") })
	text("wchan", 0o444, func(w *bytes.Buffer, p *Process) { w.WriteString("0") })
	text("loginuid", 0o444, func(w *bytes.Buffer, p *Process) { w.WriteString("4294967295") })
	text("sessionid", 0o444, func(w *bytes.Buffer, p *Process) { w.WriteString("4294967295") })
	text("oom_score", 0o444, func(w *bytes.Buffer, p *Process) { w.WriteString("0\n") })
	text("uid_map", 0o444, func(w *bytes.Buffer, p *Process) { w.WriteString("         0          0 4294967295\n") })
	text("gid_map", 0o444, func(w *bytes.Buffer, p *Process) { w.WriteString("         0          0 4294967295\n") })
	text("setgroups", 0o444, func(w *bytes.Buffer, p *Process) { w.WriteString("allow\n") })
	text("io", 0o400, func(w *bytes.Buffer, p *Process) {
		fmt.Fprintf(w, "rchar: %d\nwchar: %d\nsyscr: 0\nsyscw: 0\nread_bytes: 0\nwrite_bytes: 0\ncancelled_write_bytes: 0\n", p.ReadBytes, p.WriteBytes)
	})
	text("mountinfo", 0o444, func(w *bytes.Buffer, p *Process) { formatMountInfo(w, f.src.System().Mounts) })
	text("mounts", 0o444, func(w *bytes.Buffer, p *Process) { formatMounts(w, f.src.System().Mounts) })
	adj := get("oom_score_adj", 0o644, func(p *Process) ([]byte, error) {
		if p.OOMScoreAdj == nil {
			return []byte("0\n"), nil
		}
		return []byte(strconv.Itoa(p.OOMScoreAdj()) + "\n"), nil
	})
	adj.Set = func(b []byte) error {
		n, err := strconv.Atoi(strings.TrimSpace(string(b)))
		if err != nil || n < -1000 || n > 1000 {
			return unix.EINVAL
		}
		p := f.src.Process(pid)
		if p == nil {
			return unix.ESRCH
		}
		if p.SetOOMScoreAdj == nil {
			return unix.EACCES
		}
		return p.SetOOMScoreAdj(n)
	}
	f.links(base, pid, to)
	to["fd"] = f.fdDir(base+"/fd", pid)
	to["fdinfo"] = f.fdInfoDir(base+"/fdinfo", pid)
	to["net"] = f.netDir(base+"/net", pid)
	to["ns"] = f.nsDir(base+"/ns", pid)
	return to
}

// links makes exe, cwd and root.
func (f *fs) links(base string, pid int32, to map[string]vfs.Inode) {
	for name, of := range map[string]func(p *Process) *vfs.Dentry{
		"exe":  func(p *Process) *vfs.Dentry { return p.Exe },
		"cwd":  func(p *Process) *vfs.Dentry { return p.Cwd },
		"root": func(p *Process) *vfs.Dentry { return p.Root },
	} {
		jump := func(*vfs.Context) (*vfs.Dentry, error) {
			p := f.src.Process(pid)
			if p == nil {
				return nil, unix.ESRCH
			}
			d := of(p)
			if d == nil {
				return nil, unix.ENOENT
			}
			return d, nil
		}
		to[name] = &pseudo.Link{
			Node: f.owned(base+"/"+name, 0o777, pid), To: jump,
			Text: func(c *vfs.Context) (string, error) {
				d, err := jump(c)
				if err != nil {
					return "", err
				}
				return f.src.PathOf(c, d), nil
			},
		}
	}
}

func formatMaps(maps []Mapping) []byte {
	var w bytes.Buffer
	for _, m := range maps {
		perm := []byte("---p")
		for i, p := range []int{unix.PROT_READ, unix.PROT_WRITE, unix.PROT_EXEC} {
			if m.Prot&p != 0 {
				perm[i] = "rwx"[i]
			}
		}
		if m.Shared {
			perm[3] = 's'
		}
		n, _ := fmt.Fprintf(&w, "%08x-%08x %s %08x %02x:%02x %d ", m.Start, m.End, perm, m.Offset, unix.Major(m.Dev), unix.Minor(m.Dev), m.Ino)
		if m.Name != "" {
			// The kernel pads to column 73.
			w.WriteString(strings.Repeat(" ", max(0, 73-n)))
			w.WriteString(escape(m.Name, "\n"))
		}
		w.WriteByte('\n')
	}
	return w.Bytes()
}

// escape replaces the bytes of set by octal escapes, as seq_file's mangle_path
// does.
func escape(s, set string) string {
	if !strings.ContainsAny(s, set) {
		return s
	}
	var b strings.Builder
	for i := range len(s) {
		if strings.IndexByte(set, s[i]) >= 0 {
			fmt.Fprintf(&b, "\\%03o", s[i])
		} else {
			b.WriteByte(s[i])
		}
	}
	return b.String()
}

func stateOf(p *Process, tid int32) (id int32, comm string, state byte) {
	id, comm, state = p.PID, p.Comm, p.State
	if t := p.thread(tid); tid != 0 && t != nil {
		id, comm, state = t.TID, t.Comm, t.State
	}
	if state == 0 {
		state = 'S'
	}
	return id, comm, state
}

// formatStat writes the 52 fields of proc_pid_stat(5).
func formatStat(w *bytes.Buffer, p *Process, tid int32, boot time.Time) {
	id, comm, state := stateOf(p, tid)
	fmt.Fprintf(w, "%d (%s) %c %d %d %d 0 -1 4194304 %d 0 0 0 %d %d 0 0 20 0 %d 0 %d %d %d %d",
		id, comm, state, p.PPID, p.PGID, p.SID, p.MinorFaults, ticks(p.UserTime), ticks(p.SystemTime),
		len(p.Threads), max(0, ticks(p.Start.Sub(boot))), p.VirtualSize, p.ResidentSize/4096, rlimit(p.Limits[unix.RLIMIT_RSS].Cur))
	// startcode endcode startstack kstkesp kstkeip signal blocked sigignore
	// sigcatch wchan nswap cnswap exit_signal processor rt_priority policy
	// delayacct guest cguest start_data end_data start_brk arg_start arg_end
	// env_start env_end exit_code
	t := p.thread(tid)
	var blocked uint64
	if t != nil {
		blocked = t.Blocked
	}
	fmt.Fprintf(w, " 0 0 0 0 0 %d %d %d %d 0 0 0 %d 0 0 0 0 0 0 0 0 0 0 0 0 0 0\n",
		p.Signals.Pending&math.MaxInt32, blocked&math.MaxInt32, p.Signals.Ignored&math.MaxInt32, p.Signals.Caught&math.MaxInt32, unix.SIGCHLD)
}

func rlimit(v uint64) uint64 {
	if v == 0 {
		return math.MaxUint64
	}
	return v
}

var stateNames = map[byte]string{'R': "running", 'S': "sleeping", 'D': "disk sleep", 'T': "stopped", 'Z': "zombie", 'X': "dead"}

// formatStatus writes proc_pid_status(5).
func formatStatus(w *bytes.Buffer, p *Process, tid int32) {
	id, comm, state := stateOf(p, tid)
	cr := p.Creds
	if cr == nil {
		cr = vfs.NewCreds(0, 0, nil)
	}
	fds := 0
	if p.FDs != nil {
		fds = len(p.FDs())
	}
	fmt.Fprintf(w, "Name:\t%s\nUmask:\t%04o\nState:\t%c (%s)\nTgid:\t%d\nNgid:\t0\nPid:\t%d\nPPid:\t%d\nTracerPid:\t0\n",
		escape(comm, "\n\\"), p.Umask, state, stateNames[state], p.PID, id, p.PPID)
	fmt.Fprintf(w, "Uid:\t%d\t%d\t%d\t%d\nGid:\t%d\t%d\t%d\t%d\nFDSize:\t%d\nGroups:\t",
		cr.UID, cr.EUID, cr.SUID, cr.FSUID, cr.GID, cr.EGID, cr.SGID, cr.FSGID, max(64, fds))
	for _, g := range cr.Groups {
		fmt.Fprintf(w, "%d ", g)
	}
	fmt.Fprintf(w, "\nNStgid:\t%d\nNSpid:\t%d\nNSpgid:\t%d\nNSsid:\t%d\nKthread:\t0\n", p.PID, id, p.PGID, p.SID)
	vm, rss := p.VirtualSize>>10, p.ResidentSize>>10
	fmt.Fprintf(w, "VmPeak:\t%8d kB\nVmSize:\t%8d kB\nVmLck:\t       0 kB\nVmPin:\t       0 kB\nVmHWM:\t%8d kB\nVmRSS:\t%8d kB\n", vm, vm, rss, rss)
	fmt.Fprintf(w, "RssAnon:\t%8d kB\nRssFile:\t       0 kB\nRssShmem:\t       0 kB\nVmData:\t%8d kB\nVmStk:\t     132 kB\nVmExe:\t       0 kB\nVmLib:\t       0 kB\nVmPTE:\t       0 kB\nVmSwap:\t       0 kB\n", rss, vm)
	fmt.Fprintf(w, "Threads:\t%d\nSigQ:\t%d/%d\n", len(p.Threads), p.Signals.Queued, p.Signals.Limit)
	var pending, blocked uint64
	if t := p.thread(tid); t != nil {
		pending, blocked = t.Pending, t.Blocked
	}
	fmt.Fprintf(w, "SigPnd:\t%016x\nShdPnd:\t%016x\nSigBlk:\t%016x\nSigIgn:\t%016x\nSigCgt:\t%016x\n",
		pending, p.Signals.Pending, blocked, p.Signals.Ignored, p.Signals.Caught)
	var caps uint64
	if cr.EUID == 0 {
		caps = 1<<41 - 1
	}
	fmt.Fprintf(w, "CapInh:\t%016x\nCapPrm:\t%016x\nCapEff:\t%016x\nCapBnd:\t%016x\nCapAmb:\t%016x\n", 0, caps, caps, uint64(1<<41-1), 0)
	w.WriteString("NoNewPrivs:\t1\nSeccomp:\t0\nSeccomp_filters:\t0\nSpeculation_Store_Bypass:\tthread vulnerable\nSpeculationIndirectBranch:\tconditional enabled\n")
	w.WriteString("Cpus_allowed:\t1\nCpus_allowed_list:\t0\nMems_allowed:\t1\nMems_allowed_list:\t0\nvoluntary_ctxt_switches:\t0\nnonvoluntary_ctxt_switches:\t0\n")
}

var limitNames = [16][2]string{
	unix.RLIMIT_CPU: {"Max cpu time", "seconds"}, unix.RLIMIT_FSIZE: {"Max file size", "bytes"},
	unix.RLIMIT_DATA: {"Max data size", "bytes"}, unix.RLIMIT_STACK: {"Max stack size", "bytes"},
	unix.RLIMIT_CORE: {"Max core file size", "bytes"}, unix.RLIMIT_RSS: {"Max resident set", "bytes"},
	unix.RLIMIT_NPROC: {"Max processes", "processes"}, unix.RLIMIT_NOFILE: {"Max open files", "files"},
	unix.RLIMIT_MEMLOCK: {"Max locked memory", "bytes"}, unix.RLIMIT_AS: {"Max address space", "bytes"},
	unix.RLIMIT_LOCKS: {"Max file locks", "locks"}, 11: {"Max pending signals", "signals"},
	12: {"Max msgqueue size", "bytes"}, 13: {"Max nice priority", ""},
	14: {"Max realtime priority", ""}, 15: {"Max realtime timeout", "us"},
}

// formatLimits writes proc_pid_limits(5).
func formatLimits(w *bytes.Buffer, l []unix.Rlimit) {
	fmt.Fprintf(w, "%-25s %-20s %-20s %-10s\n", "Limit", "Soft Limit", "Hard Limit", "Units")
	val := func(v uint64) string {
		if v == math.MaxUint64 {
			return "unlimited"
		}
		return strconv.FormatUint(v, 10)
	}
	for i, r := range l {
		n := limitNames[i]
		if n[1] != "" {
			fmt.Fprintf(w, "%-25s %-20s %-20s %-10s\n", n[0], val(r.Cur), val(r.Max), n[1])
		} else {
			fmt.Fprintf(w, "%-25s %-20s %-20s \n", n[0], val(r.Cur), val(r.Max))
		}
	}
}

func formatMountInfo(w *bytes.Buffer, mounts []Mount) {
	for _, m := range mounts {
		i := m.Root.Inode()
		s := i.StatFS()
		dev := i.Attr().Dev
		fmt.Fprintf(w, "%d %d %d:%d / %s %s - %s %s %s\n", m.ID, m.Parent, unix.Major(dev), unix.Minor(dev),
			escape(m.Path, " \t\n\\"), s.Options, s.Name, s.Source, rwOnly(s.Options))
	}
}

func formatMounts(w *bytes.Buffer, mounts []Mount) {
	for _, m := range mounts {
		s := m.Root.Inode().StatFS()
		fmt.Fprintf(w, "%s %s %s %s 0 0\n", s.Source, escape(m.Path, " \t\n\\"), s.Name, s.Options)
	}
}

// rwOnly is the file system's own option: the first of the mount's.
func rwOnly(options string) string {
	o, _, _ := strings.Cut(options, ",")
	return o
}
