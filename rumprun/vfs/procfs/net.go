package procfs

import (
	"bytes"
	"fmt"
	"strconv"

	"golang.org/x/sys/unix"

	"github.com/nabla-build/nabla-build/rumprun/vfs"
	"github.com/nabla-build/nabla-build/rumprun/vfs/pseudo"
)

// netDir makes /proc/PID/net. The tables of sockets have their headings only.
func (f *fs) netDir(path string, pid int32) vfs.Inode {
	fixed := func(name, text string) vfs.Inode {
		return f.file(path+"/"+name, 0o444, func() ([]byte, error) { return []byte(text), nil })
	}
	const sockets = "  sl  local_address rem_address   st tx_queue rx_queue tr tm->when retrnsmt   uid  timeout inode"
	return f.listing(path, 0o555, pid, map[string]vfs.Inode{
		"dev": f.file(path+"/dev", 0o444, func() ([]byte, error) {
			var w bytes.Buffer
			w.WriteString("Inter-|   Receive                                                |  Transmit\n" +
				" face |bytes    packets errs drop fifo frame compressed multicast|bytes    packets errs drop fifo colls carrier compressed\n")
			for _, i := range f.src.System().Interfaces {
				fmt.Fprintf(&w, "%6s: %7d %7d    0    0    0     0          0         0 %8d %7d    0    0    0     0       0          0\n",
					i.Name, i.RxBytes, i.RxPackets, i.TxBytes, i.TxPackets)
			}
			return w.Bytes(), nil
		}),
		"tcp":       fixed("tcp", sockets+fmt.Sprintf("%*s\n", 149-len(sockets), "")),
		"udp":       fixed("udp", " "+sockets+" ref pointer drops            \n"),
		"unix":      fixed("unix", "Num       RefCount Protocol Flags    Type St Inode Path\n"),
		"route":     fixed("route", "Iface\tDestination\tGateway \tFlags\tRefCnt\tUse\tMetric\tMask\t\tMTU\tWindow\tIRTT                                                       \n"),
		"if_inet6":  fixed("if_inet6", ""),
		"protocols": fixed("protocols", "protocol  size sockets  memory press maxhdr  slab module     cl co di ac io in de sh ss gs se re sp bi br ha uh gp em\n"),
	})
}

// nsDir makes /proc/PID/ns: the names of the namespaces, which cannot be
// entered.
func (f *fs) nsDir(path string, pid int32) vfs.Inode {
	entries := make(map[string]vfs.Inode)
	for i, name := range []string{"cgroup", "ipc", "mnt", "net", "pid", "time", "user", "uts"} {
		label := name + ":[" + strconv.Itoa(4026531835+i) + "]"
		entries[name] = &pseudo.Link{
			Node: f.owned(path+"/"+name, 0o777, pid),
			Text: func(*vfs.Context) (string, error) { return label, nil },
			To: func(*vfs.Context) (*vfs.Dentry, error) {
				return vfs.NewDetached(label, &anonymous{open: FD{Stat: func() (unix.Stat_t, error) {
					return unix.Stat_t{Ino: uint64(4026531835 + i), Mode: unix.S_IFREG | 0o444, Nlink: 1, Blksize: 4096}, nil
				}}}), nil
			},
		}
	}
	return f.listing(path, 0o511, pid, entries)
}
