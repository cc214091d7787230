// Demo shows nabla-build on the Python sample: it relinks the image, starts
// it, fetches a page and counts, from outside, the host system calls that the
// running image makes. `make demo` builds what it needs and runs it.
package main

import (
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"time"

	"github.com/nabla-build/nabla-build/test/hostcalls"
)

const (
	nabla  = "bin/nabla-build"
	source = "oci:build/images/python"
	image  = "oci:build/demo/python"
)

func main() {
	if err := run(); err != nil {
		fmt.Fprintln(os.Stderr, "demo:", err)
		os.Exit(1)
	}
}

func run() error {
	if err := os.MkdirAll("build/demo", 0o755); err != nil {
		return err
	}
	head("Relink: an ordinary image in, a nabla image out")
	begin := time.Now()
	if err := show(nabla, "relink", source, image); err != nil {
		return err
	}
	fmt.Printf("took %.1f s\n", time.Since(begin).Seconds())

	head("The image: layers, sizes, call sites")
	if err := show(nabla, "inspect", image); err != nil {
		return err
	}

	head("Start it and fetch a page")
	page, took, _, err := serve(nil)
	if err != nil {
		return err
	}
	fmt.Print(page)
	fmt.Printf("start to first answer: %.0f ms, the first time, when the image is unpacked to the cache\n", took.Seconds()*1000)
	if _, took, _, err = serve(nil); err != nil {
		return err
	}
	fmt.Printf("start to first answer: %.0f ms from then on\n", took.Seconds()*1000)

	head("Host system calls after lockdown, counted from outside by strace")
	log := filepath.Join("build", "demo", "strace")
	if _, _, _, err := serve([]string{"strace", "-D", "-f", "-o", log}); err != nil {
		return err
	}
	f, err := os.Open(log)
	if err != nil {
		return err
	}
	defer f.Close()
	c, err := hostcalls.Parse(f, hostcalls.Tender(log))
	if err != nil {
		return err
	}
	if !c.Locked {
		return errors.New("strace saw no filter being installed")
	}
	for _, n := range c.Names() {
		fmt.Printf("%8d  %s\n", c.Calls[n], n)
	}
	fmt.Printf("%8d  system call instructions of the guest were turned away by the filter and handled inside\n", c.Trapped)
	return nil
}

func head(s string) { fmt.Printf("\n== %s\n", s) }

func show(argv ...string) error {
	fmt.Println("$", strings.Join(argv, " "))
	cmd := exec.Command(argv[0], argv[1:]...)
	cmd.Stdout, cmd.Stderr = os.Stdout, os.Stderr
	if err := cmd.Run(); err != nil {
		return fmt.Errorf("%s: %w", strings.Join(argv, " "), err)
	}
	return nil
}

// serve starts the image under prefix, fetches its page, and ends it. took is
// the time from the start to the first answer.
func serve(prefix []string) (page string, took time.Duration, status int, err error) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return "", 0, 0, err
	}
	port := l.Addr().(*net.TCPAddr).Port
	l.Close()
	argv := append(prefix, nabla, "run", "-p", fmt.Sprintf("%d:8080", port), image)
	fmt.Println("$", strings.Join(argv, " "))
	cmd := exec.Command(argv[0], argv[1:]...)
	var out strings.Builder
	cmd.Stdout, cmd.Stderr = &out, &out
	cmd.WaitDelay = 2 * time.Second
	begin := time.Now()
	if err := cmd.Start(); err != nil {
		return "", 0, 0, err
	}
	done := make(chan error, 1)
	go func() { done <- cmd.Wait() }()
	url := fmt.Sprintf("http://127.0.0.1:%d/", port)
	client := http.Client{Timeout: 10 * time.Second, Transport: &http.Transport{DisableKeepAlives: true}}
	for page == "" && err == nil {
		r, e := client.Get(url)
		if e == nil {
			var b []byte
			if b, e = io.ReadAll(r.Body); e == nil {
				page, took = string(b), time.Since(begin)
			}
			r.Body.Close()
		}
		select {
		case <-done:
			return "", 0, 0, fmt.Errorf("the image ended before it answered:\n%s", out.String())
		case <-time.After(5 * time.Millisecond):
			if time.Since(begin) > time.Minute {
				err = fmt.Errorf("no answer from %s within a minute: %v", url, e)
			}
		}
	}
	cmd.Process.Signal(syscall.SIGTERM)
	select {
	case <-done:
	case <-time.After(10 * time.Second):
		cmd.Process.Kill()
		<-done
		err = errors.Join(err, errors.New("the image did not end within 10 s of SIGTERM"))
	}
	return page, took, cmd.ProcessState.ExitCode(), err
}
