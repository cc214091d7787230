package rumprun

// Support says how much of a system call's manual page holds here.
type Support uint8

const (
	// Unsupported calls answer ENOSYS (or the errno that Note names).
	Unsupported Support = iota
	// Partial calls work, but for what Note names.
	Partial
	// Full calls do what the manual page says.
	Full
)

// Call is one row of the system call table: the only source of the dispatch,
// of docs/syscalls.md and of the coverage test.
type Call struct {
	NR      uintptr
	Name    string
	Handler Handler
	Support Support
	// Note says what is missing (Partial) or why (Unsupported); empty if Full.
	Note string
}

// calls lists every system call, by subsystem; each list stands beside its
// handlers. A number that stands twice fails the package's tests.
var calls = [][]Call{
	// Each subsystem adds its list here, one line each:
	memoryCalls,  // memory (sys_mm.go)
	execCalls,    // execve (exec.go)
	taskCalls,    // threads, futexes (sys_task.go)
	prctlCalls,   // attributes of threads (sys_prctl.go)
	schedCalls,   // scheduling (sys_sched.go)
	waitCalls,    // the end of children (sys_wait.go)
	groupCalls,   // process groups, sessions, kill (group.go)
	pidfdCalls,   // processes as files (pidfd.go)
	signalCalls,  // signals (sys_signal.go)
	timeCalls,    // clocks and timers (sys_time.go)
	credCalls,    // users and groups (sys_creds.go)
	systemCalls,  // limits, names, refusals (sys_system.go)
	storageCalls, // size and storage (sys_storage.go)
	fileCalls,    // reading and writing (sys_file.go)
	openCalls,    // opening and closing (sys_open.go)
	pathCalls,    // names (sys_path.go)
	statCalls,    // attributes read (sys_stat.go)
	attrCalls,    // attributes changed (sys_attr.go)
	xattrCalls,   // extended attributes (sys_xattr.go)
	fcntlCalls,   // descriptors and locks (sys_fcntl.go)
	copyCalls,    // from file to file (sys_copy.go)
	mountCalls,   // mounts (sys_mount.go)
	inotifyCalls, // file changes (sys_inotify.go)
	eventCalls,   // eventfd, timerfd, signalfd, pipes (sys_event.go)
	epollCalls,   // epoll (sys_epoll.go)
	pollCalls,    // poll and select (sys_poll.go)
	socketCalls,  // sockets and connections (sys_socket.go)
	messageCalls, // messages on sockets (sys_msg.go)
}
