package tender

import (
	"reflect"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/nabla-build/nabla-build/tender/policy"
)

func TestMerge(t *testing.T) {
	rule := func(nr uint32, fd, length uint64) policy.Rule {
		return policy.Rule{NR: nr, Name: "x", Args: []policy.Arg{{Index: 0, OneOf: []uint64{fd}}, {Index: 2, Max: length}}}
	}
	in := []policy.Rule{rule(unix.SYS_READ, 3, 10), rule(unix.SYS_WRITE, 4, 5), rule(unix.SYS_READ, 7, 20), rule(unix.SYS_READ, 3, 1)}
	got := merge(in)
	want := []policy.Rule{rule(unix.SYS_READ, 3, 20), rule(unix.SYS_WRITE, 4, 5)}
	want[0].Args[0].OneOf = []uint64{3, 7}
	if !reflect.DeepEqual(got, want) {
		t.Errorf("got %+v, want %+v", got, want)
	}
	if in[0].Args[0].OneOf[0] != 3 || len(in[0].Args[0].OneOf) != 1 || in[0].Args[1].Max != 10 {
		t.Error("merge changed its input")
	}
}
