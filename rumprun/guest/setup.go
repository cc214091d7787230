package guest

import "time"

// Options of Setup. The zero value is for production.
type Options struct {
	// Variant forces a way of keeping vector registers. One that keeps fewer
	// registers than the processor has loses the others; for tests.
	Variant Variant
	// NoFSGSBase makes the crossing behave as on a processor or kernel
	// without FSGSBASE; for tests.
	NoFSGSBase bool
}

// Setup readies the crossing. It must run once, before lockdown, on the one
// host thread, after whatever else sets signal handlers: it takes over SIGSYS,
// SIGSEGV, SIGBUS, SIGFPE, SIGILL, SIGTRAP and SIGVTALRM and blocks every other
// signal. It fails if the processor has register state that cannot be kept.
func Setup(o Options) error { return setup(o) }

// ArmTimer starts the CPU timer that preempts guest code, ITIMER_VIRTUAL
// (setitimer(2)): it ticks while the process uses the processor in user mode.
// Before lockdown; 4 to 10 ms are usual. 0 stops it.
func ArmTimer(interval time.Duration) error { return armTimer(interval) }

// NeedArchPrctl reports, after Setup, that fs bases are switched by
// arch_prctl(ARCH_SET_FS) through the gate, which the filter must permit then.
func NeedArchPrctl() bool { return needArchPrctl() }

// HostText is the address range of the library OS's code: guest code never
// runs there.
func HostText() (lo, hi uintptr) { return hostText() }

// ChosenVariant is the variant in use after Setup.
func ChosenVariant() Variant { return layout.variant }

// PreemptPending reports that the timer ticked while library OS code ran, so
// that the task loop yields at its next crossing. ClearPreempt forgets it.
func PreemptPending() bool { return preemptPending() }
func ClearPreempt()        { clearPreempt() }
