package rumprun

import (
	"sync/atomic"

	"golang.org/x/sys/unix"

	"gvisor.dev/gvisor/pkg/abi/linux"
	"gvisor.dev/gvisor/pkg/waiter"
)

// jobState says whether a process is stopped (signal(7), wait(2)). Process.mu
// protects the fields that are not atomic. The zero value is a process that
// runs.
type jobState struct {
	// stopping is set from the signal that stops the process to the one that
	// continues it: meanwhile its threads do not enter the guest.
	stopping atomic.Bool
	// conts counts SIGCONT: a stop signal that was taken from the queue before
	// one has no effect.
	conts     atomic.Uint32
	signo     int           // what stopped it
	threads   int           // how many of its threads have stopped
	told      bool          // the parent knows of the stop
	resume    chan struct{} // closed by SIGCONT
	stopNews  bool          // a stop that nobody has waited for yet
	contsNews bool          // a SIGCONT after a stop, likewise
}

var (
	stopSignals     = sigBit(int(unix.SIGSTOP)) | sigBit(int(unix.SIGTSTP)) | sigBit(int(unix.SIGTTIN)) | sigBit(int(unix.SIGTTOU))
	continueSignals = sigBit(int(unix.SIGCONT))
)

// prepareSignal is what a signal does when it is sent, whatever its
// disposition: SIGCONT continues the process, and it and the stop signals
// cancel each other.
func (p *Process) prepareSignal(signo int) {
	switch {
	case sigBit(signo)&stopSignals != 0:
		p.discardSignals(continueSignals)
	case unix.Signal(signo) == unix.SIGCONT:
		p.discardSignals(stopSignals)
		p.resume()
	}
}

func (p *Process) discardSignals(set sigSet) {
	p.sigs.discard(set)
	for _, t := range p.threads() {
		t.sigs.discard(set)
	}
}

// stop carries out the default action of a stop signal. conts is the count of
// SIGCONT from before the signal was taken from the queue. Init is not stopped,
// nor is a process of a group that nobody could continue, unless by SIGSTOP.
func (p *Process) stop(signo int, conts uint32) {
	if p.isInit() || unix.Signal(signo) != unix.SIGSTOP && p.inOrphanedGroup() {
		return
	}
	j := &p.job
	p.mu.Lock()
	if !p.dying && !j.stopping.Load() && j.conts.Load() == conts {
		j.signo, j.told, j.contsNews = signo, false, false
		j.resume = make(chan struct{})
		j.stopping.Store(true)
	}
	p.mu.Unlock()
	for _, t := range p.threads() {
		t.kick()
	}
}

// stopped keeps the thread here while its process is stopped.
func (t *Task) stopped() {
	p, j := t.p, &t.p.job
	p.mu.Lock()
	if !j.stopping.Load() {
		p.mu.Unlock()
		return
	}
	resume := j.resume
	j.threads++
	p.mu.Unlock()
	p.stopComplete()
	t.parked()
	for waiting := true; waiting && !t.exiting.Load(); {
		select {
		case <-resume:
			waiting = false
		case <-t.interrupt:
		}
	}
	t.resumed()
	p.mu.Lock()
	j.threads--
	p.mu.Unlock()
}

// stopComplete tells the parent of a stop once all threads have stopped.
func (p *Process) stopComplete() {
	j := &p.job
	p.mu.Lock()
	complete := j.stopping.Load() && !j.told && j.threads > 0 && j.threads == len(p.tasks)
	signo := j.signo
	if complete {
		j.told, j.stopNews = true, true
	}
	p.mu.Unlock()
	if complete {
		p.tellJob(linux.CLD_STOPPED, int32(signo))
	}
}

// resume lets a stopped process go on.
func (p *Process) resume() {
	j := &p.job
	p.mu.Lock()
	j.conts.Add(1)
	was, told := j.stopping.Load(), j.told
	if was {
		j.stopping.Store(false)
		close(j.resume)
		j.stopNews, j.contsNews = false, told
	}
	p.mu.Unlock()
	if was && told {
		p.tellJob(linux.CLD_CONTINUED, int32(unix.SIGCONT))
	}
}

// tellJob sends the parent SIGCHLD for a stop or a continuation, unless it does
// not want to know (SA_NOCLDSTOP), and wakes its waits.
func (p *Process) tellJob(code, status int32) {
	p.k.mu.Lock()
	parent := p.parent
	p.k.mu.Unlock()
	if parent == nil {
		return
	}
	if parent.sighand.get(int(linux.SIGCHLD)).Flags&linux.SA_NOCLDSTOP == 0 {
		info := linux.SignalInfo{Signo: int32(linux.SIGCHLD), Code: code}
		p.describe(&info, status)
		parent.signal(nil, info)
	}
	parent.childEvents.Notify(waiter.ReadableEvents)
}

// jobNews answers a wait for stops or continuations: a wait status (wait(2)) or
// false. Without keep it is told once.
func (p *Process) jobNews(stops, conts, keep bool) (status int, ok bool) {
	p.mu.Lock()
	defer p.mu.Unlock()
	j := &p.job
	switch {
	case stops && j.stopNews:
		j.stopNews = keep
		return j.signo<<8 | 0x7f, true
	case conts && j.contsNews:
		j.contsNews = keep
		return 0xffff, true
	}
	return 0, false
}

// inOrphanedGroup says whether no process of p's group has a parent in another
// group of the session, which could continue it (setpgid(2)).
func (p *Process) inOrphanedGroup() bool {
	p.k.mu.Lock()
	defer p.k.mu.Unlock()
	return p.k.orphanedGroup(p.pgid, p.sid, nil)
}

// orphanedGroup is inOrphanedGroup for a group without process but. k.mu is
// held.
func (k *Kernel) orphanedGroup(pgid, sid int32, but *Process) bool {
	for _, p := range k.procs {
		if p != but && p.pgid == pgid && !p.ended() && p.parent != nil && p.parent.pgid != pgid && p.parent.sid == sid {
			return false
		}
	}
	return true
}

// newlyOrphaned returns the stopped groups that the end of p leaves without
// anybody to continue them; parent is who p's own group may have lost, orphans
// are its children, which have another parent by now. k.mu is held.
func (k *Kernel) newlyOrphaned(p, parent *Process, orphans []*Process) (groups []int32) {
	consider := func(member, link, but *Process) {
		if link == nil || link.pgid == member.pgid || link.sid != member.sid || !k.orphanedGroup(member.pgid, member.sid, but) {
			return
		}
		for _, q := range k.procs {
			if q.pgid == member.pgid && !q.ended() && q.job.stopping.Load() {
				groups = append(groups, member.pgid)
				return
			}
		}
	}
	consider(p, parent, p)
	for _, c := range orphans {
		consider(c, p, nil)
	}
	return groups
}

// hangUpGroup ends what nobody will continue: SIGHUP, and SIGCONT so that it is
// seen (_exit(2)).
func (k *Kernel) hangUpGroup(pgid int32) {
	k.signalGroup(pgid, unix.SIGHUP)
	k.signalGroup(pgid, unix.SIGCONT)
}
