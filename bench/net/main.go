// Command net compares the network of a nabla guest with that of a native
// process over the same link, one core each: bulk TCP in both directions and
// the round trip of one byte. Modes packet and tap are reached through a veth
// pair between two network namespaces, mode user through loopback. Rounds are
// interleaved; a table of medians and ratios is printed, and with -json the
// single values. It fails where a limit of the project is not kept.
//
// It needs root, and the ip and taskset commands. `make bench-net` runs it.
package main

import (
	"bufio"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"
)

func main() {
	if len(os.Args) > 1 && os.Args[1] == "peer" {
		if err := peer(os.Args[2:]); err != nil {
			fmt.Fprintln(os.Stderr, "peer:", err)
			os.Exit(1)
		}
		return
	}
	b := &bench{results: map[string][]float64{}}
	flag.StringVar(&b.bin, "bin", "bin/nabla-build", "the program")
	flag.IntVar(&b.rounds, "rounds", 5, "rounds of every measurement")
	flag.Int64Var(&b.bytes, "bytes", 1<<30, "bytes of one bulk transfer")
	flag.Int64Var(&b.trips, "trips", 5000, "round trips of one measurement")
	out := flag.String("json", "", "write all values to this file")
	limits := flag.Bool("limits", true, "fail where a limit is not kept")
	only := flag.String("modes", "packet,tap,user", "the modes to measure")
	flag.Parse()
	b.modes = strings.Split(*only, ",")
	err := b.run()
	if err == nil && *out != "" {
		var j []byte
		if j, err = json.MarshalIndent(b.results, "", "\t"); err == nil {
			err = os.WriteFile(*out, append(j, '\n'), 0o644)
		}
	}
	if err == nil {
		err = b.table()
		if !*limits {
			err = nil
		}
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, "bench-net:", err)
		os.Exit(1)
	}
}

type bench struct {
	bin          string
	rounds       int
	bytes, trips int64
	modes        []string
	results      map[string][]float64
}

// Addresses of the two ends of the veth pair, of the guest behind the tap
// device, and the namespaces.
const (
	clientNS, serverNS     = "nabla-bench-c", "nabla-bench-s"
	clientAddr, serverAddr = "10.251.0.1", "10.251.0.2"
	tapHost, tapGuest      = "10.252.0.1", "10.252.0.2"
)

func command(argv ...string) error {
	out, err := exec.Command(argv[0], argv[1:]...).CombinedOutput()
	if err != nil {
		return fmt.Errorf("%s: %w: %s", strings.Join(argv, " "), err, out)
	}
	return nil
}

func (b *bench) run() (err error) {
	dir, err := os.MkdirTemp("", "nabla-bench-net")
	if err != nil {
		return err
	}
	defer os.RemoveAll(dir)
	self, err := os.Executable()
	if err != nil {
		return err
	}
	root := filepath.Join(dir, "root")
	guest := filepath.Join(dir, "guest")
	if err := os.Mkdir(root, 0o755); err != nil {
		return err
	}
	for _, c := range [][]string{
		{"cp", self, filepath.Join(root, "peer")},
		{b.bin, "link", "-q", "-o", guest, "rootfs:" + root, "--entrypoint", "/peer", "--cmd", "peer", "--cmd", "serve"},
	} {
		if err := command(c...); err != nil {
			return err
		}
	}
	for r := range b.rounds {
		for _, m := range append([]string{"native"}, b.modes...) {
			if err := b.round(r, m, self, guest); err != nil {
				return fmt.Errorf("%s: %w", m, err)
			}
		}
	}
	return nil
}

// round makes the namespaces, starts one server and measures it.
func (b *bench) round(r int, mode, self, guest string) (err error) {
	for _, c := range [][]string{
		{"ip", "netns", "add", clientNS}, {"ip", "netns", "add", serverNS},
		{"ip", "link", "add", "nb0", "netns", clientNS, "type", "veth", "peer", "name", "nb1", "netns", serverNS},
		{"ip", "-n", clientNS, "addr", "add", clientAddr + "/24", "dev", "nb0"},
		{"ip", "-n", serverNS, "addr", "add", serverAddr + "/24", "dev", "nb1"},
		{"ip", "-n", clientNS, "link", "set", "nb0", "up"}, {"ip", "-n", serverNS, "link", "set", "nb1", "up"},
		{"ip", "-n", clientNS, "link", "set", "lo", "up"}, {"ip", "-n", serverNS, "link", "set", "lo", "up"},
	} {
		if err := command(c...); err != nil {
			return err
		}
		if c[1] == "netns" {
			defer func() { err = errors.Join(err, command("ip", "netns", "del", c[3])) }()
		}
	}
	env := os.Environ()
	from, addr := clientNS, serverAddr
	server := []string{self, "peer", "serve"}
	switch mode {
	case "packet":
		server, env = []string{guest}, append(env, "NABLA_NET=packet")
	case "tap":
		server, env = []string{guest}, append(env, "NABLA_NET=tap", "NABLA_TAP=nbtap")
		addr = tapGuest
		for _, c := range [][]string{
			{"ip", "-n", serverNS, "tuntap", "add", "nbtap", "mode", "tap", "vnet_hdr"},
			{"ip", "-n", serverNS, "addr", "add", tapHost + "/24", "dev", "nbtap"},
			{"ip", "-n", serverNS, "link", "set", "nbtap", "up"},
			{"ip", "netns", "exec", serverNS, "sysctl", "-q", "-w", "net.ipv4.ip_forward=1"},
			{"ip", "-n", clientNS, "route", "add", tapHost + "/24", "via", serverAddr},
		} {
			if c[2] == clientNS {
				c[5] = "10.252.0.0/24"
			}
			if err := command(c...); err != nil {
				return err
			}
		}
	case "user":
		// The native peer of mode user is measured over loopback too.
		for _, m := range []string{"loopback", "user"} {
			server, env := server, env
			if m == "user" {
				server = []string{guest}
				env = append(slices.Clone(env), "NABLA_NET=user", fmt.Sprintf("NABLA_PUBLISH=%d:%d", port, port))
			}
			if err := b.serverRound(r, m, serverNS, "127.0.0.1", server, env, self); err != nil {
				return err
			}
		}
		return nil
	}
	return b.serverRound(r, mode, from, addr, server, env, self)
}

func (b *bench) serverRound(r int, mode, from, addr string, server, env []string, self string) (err error) {
	cmd := exec.Command("ip", append([]string{"netns", "exec", serverNS, "taskset", "-c", "0"}, server...)...)
	cmd.Env, cmd.Stderr = env, os.Stderr
	out, err := cmd.StdoutPipe()
	if err != nil {
		return err
	}
	if err := cmd.Start(); err != nil {
		return err
	}
	defer func() {
		cmd.Process.Kill()
		cmd.Wait() // says that it was killed
	}()
	if line, err := bufio.NewReader(out).ReadString('\n'); err != nil {
		return fmt.Errorf("the server said %q: %w", line, err)
	}
	measure := func(what string, kind byte, n int64) error {
		c := exec.Command("ip", "netns", "exec", from, "taskset", "-c", "1", self, "peer", "client", addr, string(kind), strconv.FormatInt(n, 10))
		c.Stderr = os.Stderr
		o, err := c.Output()
		if err != nil {
			return fmt.Errorf("%s: %w", what, err)
		}
		v, err := strconv.ParseFloat(strings.TrimSpace(string(o)), 64)
		if err != nil {
			return err
		}
		fmt.Printf("round %d: %-8s %-12s %10.1f %s\n", r+1, mode, what, v/map[bool]float64{true: 1, false: 125e6}[kind == echo], unit(kind))
		b.results[mode+" "+what] = append(b.results[mode+" "+what], v)
		return nil
	}
	time.Sleep(100 * time.Millisecond) // ports of mode user are published by the helper
	n := b.bytes
	if mode == "user" {
		n /= 4
	}
	return errors.Join(measure("in", sink, n), measure("out", source, n), measure("round trip", echo, b.trips))
}

func unit(kind byte) string {
	if kind == echo {
		return "µs"
	}
	return "Gbit/s"
}

// limit is what is wanted: a ratio of at least (or at most) want to native, or
// a value of at least enough.
type limit struct {
	mode, what, peer string
	want             float64
	most             bool
	enough           float64
}

var limits = []limit{
	{mode: "packet", what: "in", peer: "native", want: 0.8},
	{mode: "packet", what: "out", peer: "native", want: 0.8},
	{mode: "packet", what: "round trip", peer: "native", want: 1.3, most: true},
	{mode: "tap", what: "in", peer: "native", want: 0.8},
	{mode: "tap", what: "out", peer: "native", want: 0.8},
	{mode: "tap", what: "round trip", peer: "native", want: 1.3, most: true},
	{mode: "user", what: "in", peer: "loopback", want: 0.25, enough: 125e6},
	{mode: "user", what: "out", peer: "loopback", want: 0.25, enough: 125e6},
}

// table prints medians and ratios and checks the limits.
func (b *bench) table() error {
	var bad error
	fmt.Printf("\n%-8s %-12s %12s %12s %8s %15s\n", "mode", "what", "median", "native", "ratio", "spread")
	for _, l := range limits {
		v, p := b.results[l.mode+" "+l.what], b.results[l.peer+" "+l.what]
		if len(v) == 0 {
			continue
		}
		kind := byte(sink)
		scale := 125e6
		if l.what == "round trip" {
			kind, scale = echo, 1
		}
		m, n := median(v), median(p)
		ratio := m / n
		fmt.Printf("%-8s %-12s %5.2f %-6s %5.2f %-6s %8.2f %6.2f to %5.2f\n", l.mode, l.what, m/scale, unit(kind), n/scale, unit(kind), ratio,
			slices.Min(v)/n, slices.Max(v)/n)
		switch {
		case l.enough > 0 && m >= l.enough:
		case l.most && ratio > l.want:
			bad = errors.Join(bad, fmt.Errorf("%s, %s: %.2f of native, at most %.2f is wanted", l.mode, l.what, ratio, l.want))
		case !l.most && ratio < l.want:
			bad = errors.Join(bad, fmt.Errorf("%s, %s: %.2f of native, at least %.2f is wanted", l.mode, l.what, ratio, l.want))
		}
	}
	return bad
}

func median(v []float64) float64 {
	s := slices.Sorted(slices.Values(v))
	return s[len(s)/2]
}
