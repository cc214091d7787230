package rumprun

import "golang.org/x/sys/unix"

// mountCalls are calls on mounts and file handles, none of which a
// guest may or can use.
var mountCalls = []Call{
	{unix.SYS_MOUNT, "mount", sysNotPermitted, Unsupported, mountNote},
	{unix.SYS_UMOUNT2, "umount2", sysNotPermitted, Unsupported, mountNote},
	{unix.SYS_PIVOT_ROOT, "pivot_root", sysNotPermitted, Unsupported, mountNote},
	{unix.SYS_MOVE_MOUNT, "move_mount", sysNotPermitted, Unsupported, mountNote},
	{unix.SYS_OPEN_TREE, "open_tree", sysNotPermitted, Unsupported, mountNote},
	{unix.SYS_FSOPEN, "fsopen", sysNotPermitted, Unsupported, mountNote},
	{unix.SYS_FSCONFIG, "fsconfig", sysNotPermitted, Unsupported, mountNote},
	{unix.SYS_FSMOUNT, "fsmount", sysNotPermitted, Unsupported, mountNote},
	{unix.SYS_FSPICK, "fspick", sysNotPermitted, Unsupported, mountNote},
	{unix.SYS_MOUNT_SETATTR, "mount_setattr", sysNotPermitted, Unsupported, mountNote},
	{unix.SYS_SWAPON, "swapon", sysNotPermitted, Unsupported, "EPERM: there is no swap space"},
	{unix.SYS_SWAPOFF, "swapoff", sysNotPermitted, Unsupported, "EPERM: there is no swap space"},
	{unix.SYS_ACCT, "acct", sysNotPermitted, Unsupported, "EPERM: no process accounting"},
	{unix.SYS_OPEN_BY_HANDLE_AT, "open_by_handle_at", sysNotPermitted, Unsupported, "EPERM: files have no handles"},
	{unix.SYS_NAME_TO_HANDLE_AT, "name_to_handle_at", sysNoHandle, Unsupported, "EOPNOTSUPP: files have no handles"},
	{unix.SYS_QUOTACTL, "quotactl", nil, Unsupported, "no quotas"},
	{unix.SYS_QUOTACTL_FD, "quotactl_fd", nil, Unsupported, "no quotas"},
	{unix.SYS_FANOTIFY_INIT, "fanotify_init", nil, Unsupported, "file changes are not reported"},
	{unix.SYS_FANOTIFY_MARK, "fanotify_mark", nil, Unsupported, "file changes are not reported"},
	{unix.SYS_LOOKUP_DCOOKIE, "lookup_dcookie", nil, Unsupported, "removed from Linux"},
}

const mountNote = "EPERM: mounts are fixed when the guest starts"

// sysNotPermitted answers calls that need a capability which no guest has.
func sysNotPermitted(*Task, Args) (uintptr, error) { return 0, unix.EPERM }

// sysNoHandle is name_to_handle_at(2) on a file system without handles.
func sysNoHandle(*Task, Args) (uintptr, error) { return 0, unix.EOPNOTSUPP }
