package tender

import (
	"fmt"
	"slices"
	"strconv"
	"strings"

	"github.com/nabla-build/nabla-build/manifest"
)

// LogLevel says what the log holds.
type LogLevel int

const (
	LogError LogLevel = iota
	LogInfo
	LogDebug
)

// settings are what the NABLA_ variables of the environment say. Nothing else
// of the environment reaches the tender; docs/tender.md lists them.
type settings struct {
	log     LogLevel
	trace   bool
	network string    // NABLA_NET
	tap     string    // NABLA_TAP: the device of mode tap
	memory  uint64    // NABLA_MEMORY, bytes
	publish []publish // NABLA_PUBLISH
	chosen  bool      // NABLA_PUBLISH was given, even if empty
}

// publish is a port of the host that leads to a port of the guest.
type publish struct {
	Host, Guest uint16
	Protocol    string
}

// parseSettings reads the NABLA_ variables of env and returns what is left,
// the guest's environment. An unknown variable or a bad value is an error.
func parseSettings(env []string) (s settings, rest []string, err error) {
	for _, e := range env {
		name, value, _ := strings.Cut(e, "=")
		if !strings.HasPrefix(name, "NABLA_") {
			rest = append(rest, e)
			continue
		}
		switch name {
		case "NABLA_LOG":
			levels := []string{"error", "info", "debug"}
			i := slices.Index(levels, value)
			if i < 0 {
				return s, nil, fmt.Errorf("NABLA_LOG=%s: want one of %s", value, strings.Join(levels, ", "))
			}
			s.log = LogLevel(i)
		case "NABLA_TRACE":
			switch value {
			case "1":
				s.trace = true
			case "", "0":
			default:
				return s, nil, fmt.Errorf("NABLA_TRACE=%s: want 0 or 1", value)
			}
		case "NABLA_NET":
			if !slices.Contains(manifest.Networks, value) {
				return s, nil, fmt.Errorf("NABLA_NET=%s: want one of %s", value, strings.Join(manifest.Networks, ", "))
			}
			s.network = value
		case "NABLA_TAP":
			if value == "" || len(value) > 15 || strings.ContainsAny(value, "/ \t\n") {
				return s, nil, fmt.Errorf("NABLA_TAP=%s: not the name of a network device", value)
			}
			s.tap = value
		case "NABLA_MEMORY":
			if s.memory, err = ParseSize(value); err != nil {
				return s, nil, fmt.Errorf("NABLA_MEMORY=%s: %w", value, err)
			}
		case "NABLA_PUBLISH":
			if s.publish, err = parsePublish(value); err != nil {
				return s, nil, fmt.Errorf("NABLA_PUBLISH=%s: %w", value, err)
			}
			s.chosen = true
		default:
			return s, nil, fmt.Errorf("%s: no such variable; see docs/tender.md for those that the tender knows", name)
		}
	}
	return s, rest, nil
}

// ports are the ports to publish in mode user: those of NABLA_PUBLISH, or all
// that the image exposes where it is not set.
func (s *settings) ports(m *manifest.Manifest) []publish {
	if s.chosen {
		return s.publish
	}
	var out []publish
	for _, p := range m.Ports {
		out = append(out, publish{p.Port, p.Port, p.Protocol})
	}
	return out
}

// ParseSize reads a size in bytes with an optional suffix k, m, g or t (powers
// of 1024), as docker's -m does. The least is 16 MiB.
func ParseSize(s string) (uint64, error) {
	text := strings.TrimSuffix(strings.ToLower(s), "b")
	shift := 0
	if n := len(text); n > 0 {
		if i := strings.IndexByte("kmgt", text[n-1]); i >= 0 {
			shift, text = 10*(i+1), text[:n-1]
		}
	}
	n, err := strconv.ParseUint(text, 10, 64)
	if err != nil || n > 1<<62>>shift {
		return 0, fmt.Errorf("want a number of bytes, with k, m, g or t behind it for larger units")
	}
	if n <<= shift; n < 16<<20 {
		return 0, fmt.Errorf("the least is 16m")
	}
	return n, nil
}

// parsePublish reads HOST:GUEST[/PROTOCOL], separated by commas.
func parsePublish(s string) ([]publish, error) {
	var out []publish
	for item := range strings.SplitSeq(s, ",") {
		if item == "" {
			continue
		}
		ports, proto, ok := strings.Cut(item, "/")
		if !ok {
			proto = "tcp"
		}
		h, g, ok := strings.Cut(ports, ":")
		host, err1 := strconv.ParseUint(h, 10, 16)
		guest, err2 := strconv.ParseUint(g, 10, 16)
		if !ok || err1 != nil || err2 != nil || host == 0 || guest == 0 || proto != "tcp" && proto != "udp" {
			return nil, fmt.Errorf("%q is not HOST:GUEST or HOST:GUEST/udp with ports from 1 to 65535", item)
		}
		out = append(out, publish{uint16(host), uint16(guest), proto})
	}
	return out, nil
}
