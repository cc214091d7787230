// Package sysfs makes the guest's /sys: the few files that programs ask for
// the number of processors, memory pages and control groups. It may import
// vfs and pseudo.
package sysfs

import (
	"sort"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"github.com/nabla-build/nabla-build/rumprun/vfs"
	"github.com/nabla-build/nabla-build/rumprun/vfs/pseudo"
)

// files are the paths and their content; there is one processor and one node.
var files = map[string]string{
	"devices/system/cpu/online":                             "0\n",
	"devices/system/cpu/possible":                           "0\n",
	"devices/system/cpu/present":                            "0\n",
	"devices/system/cpu/kernel_max":                         "0\n",
	"devices/system/cpu/cpu0/topology/core_id":              "0\n",
	"devices/system/cpu/cpu0/topology/physical_package_id":  "0\n",
	"devices/system/cpu/cpu0/topology/thread_siblings":      "1\n",
	"devices/system/cpu/cpu0/topology/thread_siblings_list": "0\n",
	"devices/system/cpu/cpu0/topology/core_siblings":        "1\n",
	"devices/system/cpu/cpu0/topology/core_siblings_list":   "0\n",
	"devices/system/node/online":                            "0\n",
	"devices/system/node/possible":                          "0\n",
	"kernel/mm/transparent_hugepage/enabled":                "always madvise [never]\n",
	"kernel/mm/transparent_hugepage/hpage_pmd_size":         "2097152\n",
}

// dirs are directories that are empty, or hold more than files.
var dirs = []string{"fs/cgroup", "block", "bus", "class/net", "dev", "firmware", "kernel", "module"}

// New makes the file system.
func New(dev uint64, boot time.Time) *vfs.Dentry {
	fs := &pseudo.FS{Dev: dev, Boot: boot, Info: vfs.FSInfo{
		Type: unix.SYSFS_MAGIC, Name: "sysfs", BlockSize: 4096, Source: "sysfs", Options: "ro,nosuid,nodev,noexec,relatime",
	}}
	return vfs.NewDentry(nil, "", build(fs, ""))
}

func build(fs *pseudo.FS, prefix string) vfs.Inode {
	entries := make(map[string]vfs.Inode)
	add := func(path, content string, leaf bool) {
		rest, ok := strings.CutPrefix(path, prefix)
		if !ok || rest == "" {
			return
		}
		name, _, deeper := strings.Cut(rest, "/")
		if entries[name] != nil {
			return
		}
		if leaf && !deeper {
			b := []byte(content)
			entries[name] = &pseudo.File{
				Node: pseudo.Node{FS: fs, Path: path, Perm: 0o444},
				Get:  func() ([]byte, error) { return b, nil },
			}
			return
		}
		entries[name] = build(fs, prefix+name+"/")
	}
	paths := make([]string, 0, len(files))
	for p := range files {
		paths = append(paths, p)
	}
	sort.Strings(paths)
	for _, p := range paths {
		add(p, files[p], true)
	}
	for _, p := range dirs {
		add(p, "", false)
	}
	d := &pseudo.Dir{Node: pseudo.Node{FS: fs, Path: "dir:" + prefix, Perm: 0o555}}
	d.Find, d.List = pseudo.Static(entries)
	return d
}
