package main

import (
	"fmt"
	"io"
	"os"
	"sync"
	"syscall"

	"github.com/vbauerster/mpb/v8"
	"github.com/vbauerster/mpb/v8/decor"
	"golang.org/x/term"

	"github.com/nabla-build/nabla-build/oci"
	"github.com/nabla-build/nabla-build/oci/image"
)

// ui tells the user what goes on: bars on a terminal, lines otherwise, nothing
// with --quiet. It is for one goroutine, but for progress functions.
type ui struct {
	mu   sync.Mutex
	w    io.Writer
	bars *mpb.Progress
	all  []*mpb.Bar
	bar  *mpb.Bar // of the layer that is being relinked
	at   int      // its number
}

func (a *app) ui() *ui {
	u := &ui{w: a.stderr}
	if a.quiet {
		u.w = io.Discard
	} else if f, ok := a.stderr.(*os.File); ok && term.IsTerminal(int(f.Fd())) {
		u.bars = mpb.New(mpb.WithOutput(f), mpb.WithWidth(64))
	}
	return u
}

// done draws the last state of the bars; those that did not come to their end
// stay as they are.
func (u *ui) done() {
	if u.bars == nil {
		return
	}
	u.mu.Lock()
	for _, b := range u.all {
		b.Abort(false) // nothing happens to a bar that is complete
	}
	u.mu.Unlock()
	u.bars.Wait()
	u.bars = nil // what is said now follows the bars
}

// add keeps a bar for done.
func (u *ui) add(b *mpb.Bar) *mpb.Bar {
	u.mu.Lock()
	defer u.mu.Unlock()
	u.all = append(u.all, b)
	return b
}

// line prints a line, above the bars if there are any.
func (u *ui) line(format string, a ...any) {
	u.mu.Lock()
	defer u.mu.Unlock()
	text := fmt.Sprintf(format, a...) + "\n"
	if u.bars != nil {
		u.bars.Write([]byte(text))
		return
	}
	io.WriteString(u.w, text)
}

// layer follows the relinking of layers.
func (u *ui) layer(e image.Event) {
	if u.bars == nil {
		if !e.Done {
			return
		}
		what := "relinked"
		if e.Cached {
			what = "cached"
		}
		u.line("layer %d/%d: %s, %s", e.Layer, e.Layers, size(e.Total), what)
		return
	}
	if u.bar == nil || u.at != e.Layer {
		u.at = e.Layer
		u.bar = u.add(u.bars.New(0, mpb.SpinnerStyle(),
			mpb.PrependDecorators(decor.Name(fmt.Sprintf("relink layer %d/%d ", e.Layer, e.Layers)), decor.CurrentKibiByte("% .1f")),
			mpb.AppendDecorators(decor.AverageSpeed(decor.SizeB1024(0), "% .1f"))))
	}
	u.bar.SetCurrent(e.Read)
	if e.Done {
		u.bar.SetTotal(e.Total, true)
	}
}

// transfer follows the writing of an image.
func (u *ui) transfer(name string) oci.Progress {
	if u.bars == nil {
		return nil
	}
	var bar *mpb.Bar
	return func(done, total int64) {
		if bar == nil {
			bar = u.add(u.bars.AddBar(total,
				mpb.PrependDecorators(decor.Name("write "+name+" "), decor.CountersKibiByte("% .1f / % .1f")),
				mpb.AppendDecorators(decor.Percentage())))
		}
		bar.SetTotal(total, false)
		bar.SetCurrent(done)
		if done >= total && total > 0 {
			bar.SetTotal(total, true)
		}
	}
}

// size writes a number of bytes for people.
func size(n int64) string {
	switch {
	case n < 1<<10:
		return fmt.Sprintf("%d B", n)
	case n < 1<<20:
		return fmt.Sprintf("%.1f KiB", float64(n)/(1<<10))
	case n < 1<<30:
		return fmt.Sprintf("%.1f MiB", float64(n)/(1<<20))
	}
	return fmt.Sprintf("%.2f GiB", float64(n)/(1<<30))
}

func ownerOf(fi os.FileInfo) int { return int(fi.Sys().(*syscall.Stat_t).Uid) }
