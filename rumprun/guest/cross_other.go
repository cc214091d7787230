//go:build !nabla

package guest

import "time"

func setup(Options) error          { return ErrNotNabla }
func armTimer(time.Duration) error { return ErrNotNabla }
func needArchPrctl() bool          { return false }
func hostText() (lo, hi uintptr)   { return 0, 0 }
func preemptPending() bool         { return false }
func clearPreempt()                {}
func (c *Context) enter()          { panic(ErrNotNabla) }
func (c *Context) fetchX87()       {}
func (c *Context) dropX87()        {}
