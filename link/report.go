package link

import (
	"errors"
	"fmt"

	"github.com/nabla-build/nabla-build/archive"
	"github.com/nabla-build/nabla-build/link/object"
	"github.com/nabla-build/nabla-build/link/scan"
)

// Report is the link report of an image: its layers from the bottom up.
type Report struct {
	Layers []LayerReport `json:"layers"`
}

// LayerReport says what was done to one layer. Its JSON form is part of an
// image (report.json) and does not depend on when or where it was made.
type LayerReport struct {
	// BytesIn is the size of the layer's tar stream, BytesOut of the archive.
	BytesIn  int64 `json:"bytesIn"`
	BytesOut int64 `json:"bytesOut"`
	// Entries are all entries of the tar stream, Files the regular files.
	Entries   int `json:"entries"`
	Files     int `json:"files"`
	Whiteouts int `json:"whiteouts,omitempty"`
	// Sites is the sum over Objects.
	Sites Sites `json:"sites"`
	// Objects are the x86-64 objects with the bytes of a syscall instruction
	// somewhere in their code, and those that were left as they are.
	Objects []ObjectReport `json:"objects,omitempty"`
	// Plain counts x86-64 objects without such bytes.
	Plain int `json:"plainObjects"`
	// Warnings are for people.
	Warnings []string `json:"warnings,omitempty"`

	last string // name of the last entry
}

// Sites counts the places with the bytes of a syscall instruction.
type Sites struct {
	Found     int `json:"found"`     // syscall instructions
	Rewritten int `json:"rewritten"` // of those, jumps to stubs now
	Left      int `json:"left"`      // of those, trapped at run time
	// Bogus are such bytes inside other instructions.
	Bogus int `json:"bogus,omitempty"`
}

func (s *Sites) add(t Sites) {
	s.Found += t.Found
	s.Rewritten += t.Rewritten
	s.Left += t.Left
	s.Bogus += t.Bogus
}

// ObjectReport is about one object.
type ObjectReport struct {
	Path string `json:"path"`
	Size int64  `json:"size"`
	Sites
	// ByClass counts rewritten sites by their form: mov7, mov9, pre, post.
	ByClass map[string]int `json:"byClass,omitempty"`
	// Why counts sites that are left, by reason.
	Why map[string]int `json:"why,omitempty"`
	// LeftSites are link-time addresses of sites that are left, the first 64.
	LeftSites []string `json:"leftSites,omitempty"`
	// Unsupported says why the whole object was left as it is.
	Unsupported string `json:"unsupported,omitempty"`
}

// maxNotes bounds lists in a report that a hostile layer could make long.
const (
	maxWarnings  = 100
	maxLeftSites = 64
	maxObjects   = 20000
)

func (l *layer) warn(text string) {
	if len(l.report.Warnings) == maxWarnings {
		l.dropped++
		return
	}
	l.report.Warnings = append(l.report.Warnings, text)
}

func (l *layer) finish() {
	if l.dropped > 0 {
		l.report.Warnings = append(l.report.Warnings, fmt.Sprintf("%d more warnings", l.dropped))
	}
}

func (l *layer) add(o ObjectReport) {
	l.report.Sites.add(o.Sites)
	if len(l.report.Objects) < maxObjects {
		l.report.Objects = append(l.report.Objects, o)
	}
}

// left reports an ELF file that is stored as it is.
func (l *layer) left(a archive.Header, err error) {
	var u *object.UnsupportedError
	why := err.Error()
	if errors.As(err, &u) {
		why = u.Why
	}
	l.add(ObjectReport{Path: a.Name, Size: a.Size, Unsupported: why})
}

// sites reports an object whose code was scanned.
func (l *layer) sites(a archive.Header, sites []scan.Site) {
	o := ObjectReport{Path: a.Name, Size: a.Size}
	for i := range sites {
		s := &sites[i]
		switch {
		case s.Class == scan.Bogus:
			o.Bogus++
		case s.Rewritable():
			o.Found++
			o.Rewritten++
			if o.ByClass == nil {
				o.ByClass = map[string]int{}
			}
			o.ByClass[s.Class.String()]++
		default:
			o.Found++
			o.Left++
			if o.Why == nil {
				o.Why = map[string]int{}
			}
			o.Why[s.Why]++
			if len(o.LeftSites) < maxLeftSites {
				o.LeftSites = append(o.LeftSites, fmt.Sprintf("%#x", s.Addr))
			}
		}
	}
	if len(sites) == 0 { // the bytes are in its data
		l.report.Plain++
		return
	}
	l.add(o)
}
