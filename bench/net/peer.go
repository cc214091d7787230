package main

import (
	"encoding/binary"
	"fmt"
	"io"
	"net"
	"os"
	"slices"
	"strconv"
	"time"
)

// The peer is both ends of a measurement. As a server it does what the first
// byte of a connection says.
const (
	sink   = 's' // reads to the end, answers with the number of bytes
	source = 'g' // reads a number of bytes, sends as many
	echo   = 'e' // sends back what it reads, byte for byte
)

const port = 5201

func peer(args []string) error {
	if args[0] == "serve" {
		return serve()
	}
	if len(args) != 4 {
		return fmt.Errorf("peer: %d arguments", len(args))
	}
	n, err := strconv.ParseInt(args[3], 10, 64)
	if err != nil {
		return err
	}
	v, err := client(args[1], args[2][0], n)
	if err != nil {
		return err
	}
	fmt.Println(v)
	return nil
}

func serve() error {
	l, err := net.Listen("tcp", fmt.Sprintf(":%d", port))
	if err != nil {
		return err
	}
	fmt.Println("ready")
	for {
		c, err := l.Accept()
		if err != nil {
			return err
		}
		go func() {
			defer c.Close()
			if err := answer(c); err != nil {
				fmt.Fprintln(os.Stderr, "peer:", err)
			}
		}()
	}
}

// buffer is what one read or write moves.
const buffer = 128 << 10

// answer moves bytes by read and write alone: no splice, which would take the
// measured path away.
func answer(c net.Conn) error {
	var kind [1]byte
	if _, err := io.ReadFull(c, kind[:]); err != nil {
		return err
	}
	b := make([]byte, buffer)
	switch kind[0] {
	case sink:
		var n uint64
		for {
			m, err := c.Read(b)
			n += uint64(m)
			if err == io.EOF {
				return binary.Write(c, binary.LittleEndian, n)
			}
			if err != nil {
				return err
			}
		}
	case source:
		var n uint64
		if err := binary.Read(c, binary.LittleEndian, &n); err != nil {
			return err
		}
		for n > 0 {
			m, err := c.Write(b[:min(n, buffer)])
			if err != nil {
				return err
			}
			n -= uint64(m)
		}
		return nil
	case echo:
		for {
			if _, err := io.ReadFull(c, b[:1]); err != nil {
				if err == io.EOF {
					return nil
				}
				return err
			}
			if _, err := c.Write(b[:1]); err != nil {
				return err
			}
		}
	}
	return fmt.Errorf("unknown request %q", kind[0])
}

// client returns bytes a second for sink and source, n bytes each, and the
// median round trip in microseconds for echo, n of them.
func client(addr string, kind byte, n int64) (float64, error) {
	c, err := net.Dial("tcp", net.JoinHostPort(addr, strconv.Itoa(port)))
	if err != nil {
		return 0, err
	}
	defer c.Close()
	if _, err := c.Write([]byte{kind}); err != nil {
		return 0, err
	}
	b := make([]byte, buffer)
	begin := time.Now()
	switch kind {
	case sink:
		for left := n; left > 0; {
			m, err := c.Write(b[:min(left, buffer)])
			if err != nil {
				return 0, err
			}
			left -= int64(m)
		}
		if err := c.(*net.TCPConn).CloseWrite(); err != nil {
			return 0, err
		}
		var got uint64
		if err := binary.Read(c, binary.LittleEndian, &got); err != nil {
			return 0, err
		}
		if got != uint64(n) {
			return 0, fmt.Errorf("%d bytes arrived of %d", got, n)
		}
	case source:
		if err := binary.Write(c, binary.LittleEndian, uint64(n)); err != nil {
			return 0, err
		}
		for left := n; left > 0; {
			m, err := c.Read(b)
			if left -= int64(m); err != nil && left > 0 {
				return 0, fmt.Errorf("%d bytes are missing of %d: %w", left, n, err)
			}
		}
	case echo:
		var times []time.Duration
		for range n {
			t := time.Now()
			if _, err := c.Write(b[:1]); err != nil {
				return 0, err
			}
			if _, err := io.ReadFull(c, b[:1]); err != nil {
				return 0, err
			}
			times = append(times, time.Since(t))
		}
		slices.Sort(times)
		return float64(times[len(times)/2].Nanoseconds()) / 1e3, nil
	default:
		return 0, fmt.Errorf("unknown measurement %q", kind)
	}
	return float64(n) / time.Since(begin).Seconds(), nil
}
