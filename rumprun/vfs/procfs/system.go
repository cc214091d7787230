package procfs

import (
	"bytes"
	"fmt"
	"time"

	"github.com/nabla-build/nabla-build/rumprun/vfs"
)

// system adds the files that describe the machine.
func (f *fs) system(to map[string]vfs.Inode) {
	add := func(name string, show func(w *bytes.Buffer, s *System)) {
		to[name] = f.file(name, 0o444, func() ([]byte, error) {
			var b bytes.Buffer
			s := f.src.System()
			show(&b, &s)
			return b.Bytes(), nil
		})
	}
	add("cpuinfo", func(w *bytes.Buffer, s *System) { w.Write(s.CPUInfo) })
	add("meminfo", meminfo)
	add("stat", stat)
	add("uptime", func(w *bytes.Buffer, s *System) {
		up := time.Since(s.Boot)
		fmt.Fprintf(w, "%.2f %.2f\n", up.Seconds(), s.IdleTime.Seconds())
	})
	add("loadavg", func(w *bytes.Buffer, s *System) {
		fmt.Fprintf(w, "0.00 0.00 0.00 %d/%d %d\n", max(1, s.Runnable), s.Threads, s.LastPID)
	})
	add("version", func(w *bytes.Buffer, s *System) {
		fmt.Fprintf(w, "Linux version %s (nabla-build) #1 SMP\n", s.Release)
	})
	add("filesystems", func(w *bytes.Buffer, s *System) {
		w.WriteString("nodev\tsysfs\nnodev\ttmpfs\nnodev\tproc\nnodev\tpipefs\nnodev\tsockfs\nnodev\toverlay\n")
	})
	add("cmdline", func(w *bytes.Buffer, s *System) { w.WriteString("\n") })
	add("swaps", func(w *bytes.Buffer, s *System) { w.WriteString("Filename\t\t\t\tType\t\tSize\t\tUsed\t\tPriority\n") })
	add("devices", func(w *bytes.Buffer, s *System) {
		w.WriteString("Character devices:\n  1 mem\n  5 /dev/tty\n\nBlock devices:\n")
	})
	add("modules", func(w *bytes.Buffer, s *System) {})
	add("partitions", func(w *bytes.Buffer, s *System) { w.WriteString("major minor  #blocks  name\n\n") })
	add("diskstats", func(w *bytes.Buffer, s *System) {})
	add("cgroups", func(w *bytes.Buffer, s *System) { w.WriteString("#subsys_name\thierarchy\tnum_cgroups\tenabled\n") })
}

func meminfo(w *bytes.Buffer, s *System) {
	total := s.MemTotal >> 10
	used := min(s.MemUsed>>10, total)
	files := min(s.FileMemory>>10, used)
	for _, l := range []struct {
		name string
		kb   uint64
	}{
		{"MemTotal", total}, {"MemFree", total - used}, {"MemAvailable", total - used},
		{"Buffers", 0}, {"Cached", files}, {"SwapCached", 0},
		{"Active", used}, {"Inactive", 0}, {"Active(anon)", used - files}, {"Inactive(anon)", 0},
		{"Active(file)", files}, {"Inactive(file)", 0}, {"Unevictable", 0}, {"Mlocked", 0},
		{"SwapTotal", 0}, {"SwapFree", 0}, {"Dirty", 0}, {"Writeback", 0},
		{"AnonPages", used - files}, {"Mapped", 0}, {"Shmem", files},
		{"KReclaimable", 0}, {"Slab", 0}, {"SReclaimable", 0}, {"SUnreclaim", 0},
		{"KernelStack", 0}, {"PageTables", 0}, {"CommitLimit", total}, {"Committed_AS", used},
		{"VmallocTotal", 34359738367}, {"VmallocUsed", 0}, {"VmallocChunk", 0},
	} {
		fmt.Fprintf(w, "%-15s %8d kB\n", l.name+":", l.kb)
	}
	w.WriteString("HugePages_Total:       0\nHugePages_Free:        0\nHugePages_Rsvd:        0\nHugePages_Surp:        0\nHugepagesize:       2048 kB\n")
}

func stat(w *bytes.Buffer, s *System) {
	for _, cpu := range []string{"cpu ", "cpu0"} {
		fmt.Fprintf(w, "%s %d 0 %d %d 0 0 0 0 0 0\n", cpu, ticks(s.UserTime), ticks(s.SystemTime), ticks(s.IdleTime))
	}
	fmt.Fprintf(w, "intr 0\nctxt %d\nbtime %d\nprocesses %d\nprocs_running %d\nprocs_blocked 0\nsoftirq 0 0 0 0 0 0 0 0 0 0 0\n",
		s.ContextSwitches, s.Boot.Unix(), s.Forks, max(1, s.Runnable))
}
