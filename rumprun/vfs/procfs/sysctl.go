package procfs

import (
	"fmt"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/nabla-build/nabla-build/rumprun/vfs"
)

// sysctl makes /proc/sys. All values can be read only, but for the host name.
func (f *fs) sysctl() vfs.Inode {
	show := func(path string, get func(s *System) string) vfs.Inode {
		return f.file("sys/"+path, 0o444, func() ([]byte, error) {
			s := f.src.System()
			return []byte(get(&s) + "\n"), nil
		})
	}
	fixed := func(path, value string) vfs.Inode {
		return show(path, func(*System) string { return value })
	}
	hostname := f.file("sys/kernel/hostname", 0o644, func() ([]byte, error) {
		return []byte(f.src.System().Hostname + "\n"), nil
	})
	hostname.Set = func(p []byte) error {
		s := f.src.System()
		if s.SetHostname == nil {
			return unix.EPERM
		}
		return s.SetHostname(strings.TrimRight(string(p), "\n"))
	}
	return f.dir("sys", map[string]vfs.Inode{
		"kernel": f.dir("sys/kernel", map[string]vfs.Inode{
			"osrelease":    show("kernel/osrelease", func(s *System) string { return s.Release }),
			"ostype":       fixed("kernel/ostype", "Linux"),
			"version":      fixed("kernel/version", "#1 SMP"),
			"hostname":     hostname,
			"domainname":   fixed("kernel/domainname", "(none)"),
			"pid_max":      fixed("kernel/pid_max", "4194304"),
			"threads-max":  fixed("kernel/threads-max", "1048576"),
			"cap_last_cap": fixed("kernel/cap_last_cap", "40"),
			"ngroups_max":  fixed("kernel/ngroups_max", "65536"),
			"shmmax":       fixed("kernel/shmmax", "18446744073692774399"),
			"shmall":       fixed("kernel/shmall", "18446744073692774399"),
			"shmmni":       fixed("kernel/shmmni", "4096"),
			"sem":          fixed("kernel/sem", "32000\t1024000000\t500\t32000"),
			"msgmax":       fixed("kernel/msgmax", "8192"),
			"msgmni":       fixed("kernel/msgmni", "32000"),
			"yama":         f.dir("sys/kernel/yama", map[string]vfs.Inode{"ptrace_scope": fixed("kernel/yama/ptrace_scope", "1")}),
			"random": f.dir("sys/kernel/random", map[string]vfs.Inode{
				"boot_id":       show("kernel/random/boot_id", func(s *System) string { return s.BootID }),
				"uuid":          show("kernel/random/uuid", func(s *System) string { return s.UUID() }),
				"entropy_avail": fixed("kernel/random/entropy_avail", "256"),
				"poolsize":      fixed("kernel/random/poolsize", "256"),
			}),
			"core_pattern":              fixed("kernel/core_pattern", "core"),
			"perf_event_paranoid":       fixed("kernel/perf_event_paranoid", "3"),
			"randomize_va_space":        fixed("kernel/randomize_va_space", "0"),
			"unprivileged_bpf_disabled": fixed("kernel/unprivileged_bpf_disabled", "2"),
			"sched_child_runs_first":    fixed("kernel/sched_child_runs_first", "0"),
			"sched_rr_timeslice_ms":     fixed("kernel/sched_rr_timeslice_ms", "100"),
		}),
		"vm": f.dir("sys/vm", map[string]vfs.Inode{
			"overcommit_memory": fixed("vm/overcommit_memory", "1"),
			"overcommit_ratio":  fixed("vm/overcommit_ratio", "50"),
			"max_map_count":     fixed("vm/max_map_count", "1048576"),
			"mmap_min_addr":     fixed("vm/mmap_min_addr", "65536"),
			"swappiness":        fixed("vm/swappiness", "60"),
			"nr_hugepages":      fixed("vm/nr_hugepages", "0"),
			"min_free_kbytes":   fixed("vm/min_free_kbytes", "0"),
		}),
		"fs": f.dir("sys/fs", map[string]vfs.Inode{
			"file-max":            show("fs/file-max", func(s *System) string { return fmt.Sprint(s.NoFile) }),
			"file-nr":             show("fs/file-nr", func(s *System) string { return fmt.Sprintf("0\t0\t%d", s.NoFile) }),
			"nr_open":             show("fs/nr_open", func(s *System) string { return fmt.Sprint(max(s.NoFile, 1048576)) }),
			"pipe-max-size":       fixed("fs/pipe-max-size", "1048576"),
			"aio-max-nr":          fixed("fs/aio-max-nr", "0"),
			"protected_hardlinks": fixed("fs/protected_hardlinks", "0"),
			"protected_symlinks":  fixed("fs/protected_symlinks", "0"),
			"suid_dumpable":       fixed("fs/suid_dumpable", "0"),
			"inotify": f.dir("sys/fs/inotify", map[string]vfs.Inode{
				"max_queued_events":  fixed("fs/inotify/max_queued_events", "16384"),
				"max_user_instances": fixed("fs/inotify/max_user_instances", "128"),
				"max_user_watches":   fixed("fs/inotify/max_user_watches", "65536"),
			}),
		}),
		"net": f.dir("sys/net", map[string]vfs.Inode{
			"core": f.dir("sys/net/core", map[string]vfs.Inode{
				"somaxconn":    fixed("net/core/somaxconn", "4096"),
				"rmem_default": fixed("net/core/rmem_default", "212992"),
				"rmem_max":     fixed("net/core/rmem_max", "212992"),
				"wmem_default": fixed("net/core/wmem_default", "212992"),
				"wmem_max":     fixed("net/core/wmem_max", "212992"),
			}),
			"ipv4": f.dir("sys/net/ipv4", map[string]vfs.Inode{
				"ip_local_port_range":        fixed("net/ipv4/ip_local_port_range", "32768\t60999"),
				"ip_unprivileged_port_start": fixed("net/ipv4/ip_unprivileged_port_start", "0"),
				"ip_forward":                 fixed("net/ipv4/ip_forward", "0"),
				"tcp_max_syn_backlog":        fixed("net/ipv4/tcp_max_syn_backlog", "4096"),
				"tcp_fin_timeout":            fixed("net/ipv4/tcp_fin_timeout", "60"),
				"tcp_keepalive_time":         fixed("net/ipv4/tcp_keepalive_time", "7200"),
				"tcp_keepalive_intvl":        fixed("net/ipv4/tcp_keepalive_intvl", "75"),
				"tcp_keepalive_probes":       fixed("net/ipv4/tcp_keepalive_probes", "9"),
			}),
			"ipv6": f.dir("sys/net/ipv6", map[string]vfs.Inode{
				"conf": f.dir("sys/net/ipv6/conf", map[string]vfs.Inode{
					"all": f.dir("sys/net/ipv6/conf/all", map[string]vfs.Inode{"disable_ipv6": fixed("net/ipv6/conf/all/disable_ipv6", "1")}),
				}),
			}),
		}),
	})
}
