// Package tender is what runs before the guest: it reads the manifest, maps the
// archives, reserves memory, opens the devices, gives up every right but the
// few calls of the filter, and hands over to the library OS. It knows nothing of
// Linux system calls beyond those that it makes itself. It is the trusted part:
// short enough to be read in one sitting, in the order tender.go, settings.go,
// image.go, memory.go, the devices (one file each), lockdown.go, policy.
package tender

import (
	"errors"
	"fmt"
	"os"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"github.com/nabla-build/nabla-build/manifest"
	"github.com/nabla-build/nabla-build/rumprun"
	"github.com/nabla-build/nabla-build/rumprun/guest"
	"github.com/nabla-build/nabla-build/rumprun/hypercall"
	"github.com/nabla-build/nabla-build/rumprun/vfs"
	"github.com/nabla-build/nabla-build/tender/policy"
)

// Exit statuses of a container whose program could not be started, as a shell
// and docker have them.
const (
	statusTender     = 125
	statusCannotRun  = 126
	statusNotFound   = 127
	preemptionPeriod = 8 * time.Millisecond
)

// Main runs the image with the process's arguments and environment. It does
// not return: the process ends with the guest's status, or with 125 and one
// line that says why it could not start.
func Main() {
	status, err := run(os.Args[1:], os.Environ())
	if err != nil {
		fmt.Fprintln(os.Stderr, "nabla:", err)
	}
	os.Exit(status)
}

// run does everything in order. After lockdown only hypercalls are possible.
func run(args, environ []string) (int, error) {
	s, env, err := parseSettings(environ)
	if err != nil {
		return statusTender, err
	}
	im, err := openImage()
	if err != nil {
		return statusTender, err
	}
	m := im.manifest
	if im.single {
		env = defaults(env, m.Guest.Env)
	}
	c := rumprun.Config{
		Argv: append(append([]string{}, m.Guest.Entrypoint...), args...),
		Env:  env, Dir: m.Guest.WorkingDir, Archives: im.archives,
		UID: uint32(os.Getuid()), GID: uint32(os.Getgid()), Groups: groups(),
		Debug: s.log >= LogDebug, Trace: s.trace, Exit: hypercall.ExitGroup,
	}
	if len(args) == 0 {
		c.Argv = append(c.Argv, m.Guest.Cmd...)
	}
	if len(c.Argv) == 0 {
		return statusTender, errors.New("the image names no program to run: give one as argument")
	}
	if c.Memory, err = reserveArena(); err != nil {
		return statusTender, err
	}
	asked := s.memory
	if asked == 0 {
		asked = m.Memory
	}
	c.MemoryLimit = memoryLimit(asked)
	if err := describeHost(&c); err != nil {
		return statusTender, fmt.Errorf("look at the host: %w", err)
	}
	signals, err := openSignals()
	if err != nil {
		return statusTender, err
	}
	c.Signals = signals.out
	rules := append(basicRules(), signals.rules()...)
	keep := []int{signals.fd.Sysfd()}
	var consoles []*console
	log := &logger{}
	c.Log = log
	for fd := range c.Stdio {
		con, err := openConsole(fd)
		if err != nil {
			return statusTender, fmt.Errorf("standard descriptor %d: %w", fd, err)
		}
		if con == nil {
			continue
		}
		c.Stdio[fd] = vfs.File(con)
		consoles = append(consoles, con)
		rules = append(rules, con.rules()...)
		keep = append(keep, fd)
		if fd == 2 {
			log.c = con
		}
	}
	dev, err := openNetwork(im, s)
	if err != nil {
		return statusTender, err
	}
	dev.configure(&c)
	rules = append(rules, dev.rules()...)
	keep = append(keep, dev.descriptors()...)

	k, err := rumprun.Boot(c)
	if err != nil {
		return statusTender, fmt.Errorf("start the library OS: %w", err)
	}
	if err := guest.Setup(guest.Options{}); err != nil {
		return statusTender, err
	}
	if err := guest.ArmTimer(preemptionPeriod); err != nil {
		return statusTender, fmt.Errorf("arm the CPU timer: %w", err)
	}
	if guest.NeedArchPrctl() {
		rules = append(rules, policy.Rule{NR: unix.SYS_ARCH_PRCTL, Name: "arch_prctl", Args: []policy.Arg{{Index: 0, Name: "code", OneOf: []uint64{0x1002}}}})
	}
	p := &policy.Policy{Gate: uint64(hypercall.GateAddress()), Rules: merge(rules)}
	if s.log >= LogInfo {
		fmt.Fprintf(os.Stderr, "nabla: release %s, network %s\nnabla: permitted host calls:\n%s", m.Release, dev.describe(), p)
	}
	if err := lockdown(p, keep); err != nil {
		return statusTender, err
	}
	for _, con := range consoles {
		con.start()
	}
	go signals.run(dev.ownSignal)
	dev.start(func(reason error) {
		fmt.Fprintf(log, "nabla: %v\n", reason)
		hypercall.ExitGroup(statusTender)
	})
	err = k.Run()
	fmt.Fprintf(log, "nabla: %v\n", err)
	switch {
	case errors.Is(err, unix.ENOENT):
		hypercall.ExitGroup(statusNotFound)
	default:
		hypercall.ExitGroup(statusCannotRun)
	}
	panic("unreachable")
}

// defaults adds the image's variables that env lacks: an engine has done that
// for an image in a container, nobody for a self-contained executable.
func defaults(env, image []string) []string {
	have := map[string]bool{}
	for _, e := range env {
		name, _, _ := strings.Cut(e, "=")
		have[name] = true
	}
	for _, e := range image {
		if name, _, _ := strings.Cut(e, "="); !have[name] && !strings.HasPrefix(name, "NABLA_") {
			env = append(env, e)
		}
	}
	return env
}

func groups() []uint32 {
	ids, err := os.Getgroups()
	if err != nil {
		return nil
	}
	var out []uint32
	for _, id := range ids {
		out = append(out, uint32(id))
	}
	return out
}

// networkMode is what to attach: NABLA_NET, the manifest's default, or auto.
func networkMode(m *manifest.Manifest, s settings) string {
	switch {
	case s.network != "":
		return s.network
	case m.Network != "":
		return m.Network
	}
	return "auto"
}
