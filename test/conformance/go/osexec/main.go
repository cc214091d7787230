// Command osexec uses os/exec and os.Process: the program is parent and
// child, by its first argument.
package main

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"time"
)

func child(argv []string) {
	switch argv[0] {
	case "exit":
		n, _ := strconv.Atoi(argv[1])
		os.Exit(n)
	case "cat":
		n, err := io.Copy(os.Stdout, os.Stdin)
		fmt.Fprintln(os.Stderr, "copied", n, err)
	case "show":
		dir, _ := os.Getwd()
		fmt.Println("args", argv[1:], "dir", dir, "X", os.Getenv("X"), "HOME", os.Getenv("HOME") == "")
	case "extra":
		f := os.NewFile(3, "three")
		b, err := io.ReadAll(f)
		fmt.Println("extra:", string(b), err)
		_, err = os.NewFile(4, "four").Write([]byte("x"))
		fmt.Println("descriptor 4:", err)
	case "sleep":
		fmt.Println("ready")
		time.Sleep(time.Hour)
	case "term":
		c := make(chan os.Signal, 1)
		signal.Notify(c, syscall.SIGTERM)
		fmt.Println("ready")
		<-c
		fmt.Println("terminated")
		os.Exit(7)
	case "lines":
		s := bufio.NewScanner(os.Stdin)
		for s.Scan() {
			fmt.Println(strings.ToUpper(s.Text()))
		}
	case "goroutines":
		var wg sync.WaitGroup
		var mu sync.Mutex
		sum := 0
		for i := range 50 {
			wg.Go(func() {
				for j := range 1000 {
					mu.Lock()
					sum += i * j
					mu.Unlock()
				}
			})
		}
		wg.Wait()
		fmt.Println("sum", sum)
	case "panic":
		panic("on purpose")
	case "nest":
		out, err := exec.Command("/proc/self/exe", "exit", "3").CombinedOutput()
		fmt.Printf("nested: %s %v\n", strings.TrimSpace(string(out)), err)
	case "ids":
		fmt.Println("group", syscall.Getpgrp() == os.Getpid())
		_, _, e := syscall.RawSyscall(syscall.SYS_GETSID, 0, 0, 0)
		fmt.Println("session", e, os.Getppid() > 0)
	case "exec":
		err := syscall.Exec("/proc/self/exe", []string{"x", "exit", "17"}, nil)
		fmt.Println(err)
	}
	os.Exit(0)
}

func self(argv ...string) *exec.Cmd {
	exe, err := os.Executable()
	if err != nil {
		panic(err)
	}
	return exec.Command(exe, argv...)
}

func main() {
	if len(os.Args) > 1 {
		child(os.Args[1:])
	}
	for _, n := range []string{"0", "1", "255"} {
		err := self("exit", n).Run()
		var ee *exec.ExitError
		fmt.Println("exit", n, err, errors.As(err, &ee))
	}
	c := self("cat")
	c.Stdin = strings.NewReader(strings.Repeat("0123456789", 50000))
	var out, errs bytes.Buffer
	c.Stdout, c.Stderr = &out, &errs
	fmt.Println("cat", c.Run(), out.Len(), strings.TrimSpace(errs.String()))

	c = self("show", "a", "b c")
	c.Dir, c.Env = "/", []string{"X=1"}
	b, err := c.Output()
	fmt.Printf("%s%v\n", b, err)

	r, w, _ := os.Pipe()
	c = self("extra")
	c.ExtraFiles = []*os.File{r}
	go func() { w.WriteString("through three"); w.Close() }()
	b, err = c.CombinedOutput()
	fmt.Printf("%s%v\n", b, err)

	_, err = exec.Command("/nonexistent/program").Output()
	fmt.Println(err)
	err = exec.Command("no-such-program").Run()
	fmt.Println(err, errors.Is(err, exec.ErrNotFound))
	plain := filepath.Join(os.TempDir(), "plain"+strconv.Itoa(os.Getpid()))
	os.WriteFile(plain, []byte("text"), 0o644)
	err = exec.Command(plain).Run()
	fmt.Println(errors.Is(err, os.ErrPermission))
	os.Chmod(plain, 0o755)
	err = exec.Command(plain).Run()
	fmt.Println(errors.Is(err, syscall.ENOEXEC))
	exe, _ := os.Executable()
	if link, err := os.Readlink("/proc/self/exe"); err == nil {
		exe = link
	}
	os.Remove(plain)
	os.WriteFile(plain, []byte("#!"+exe+" show\n"), 0o755)
	c = exec.Command(plain, "from a script")
	c.Dir, c.Env = "/", []string{"X=2"}
	b, err = c.Output()
	fmt.Println(strings.ReplaceAll(string(b), plain, "SCRIPT"), err)
	os.Remove(plain)
	c = self("exit", "0")
	c.Dir = "/nonexistent"
	fmt.Println(strings.Contains(fmt.Sprint(c.Run()), "no such file"))

	// Signals, timeouts.
	ctx, cancel := context.WithTimeout(context.Background(), 100*time.Millisecond)
	c = exec.CommandContext(ctx, exe, "sleep")
	fmt.Println(c.Run(), ctx.Err())
	cancel()
	c = self("term")
	p, _ := c.StdoutPipe()
	fmt.Println("start", c.Start())
	s := bufio.NewScanner(p)
	s.Scan()
	fmt.Println(s.Text(), c.Process.Signal(syscall.SIGTERM))
	s.Scan()
	fmt.Println(s.Text(), c.Wait(), c.ProcessState.ExitCode())
	fmt.Println(c.Process.Signal(syscall.SIGTERM))
	c = self("sleep")
	c.Start()
	c.Process.Kill()
	st, err := c.Process.Wait()
	ws := st.Sys().(syscall.WaitStatus)
	fmt.Println(st, err, ws.Signaled(), ws.Signal())
	fmt.Println(syscall.Kill(c.Process.Pid, 0))
	c = self("panic")
	c.Stderr = &errs
	fmt.Println(c.Run(), strings.Contains(errs.String(), "panic: on purpose"))

	// A conversation; many at once.
	c = self("lines")
	in, _ := c.StdinPipe()
	p, _ = c.StdoutPipe()
	c.Start()
	s = bufio.NewScanner(p)
	n := 0
	for i := range 200 {
		fmt.Fprintf(in, "line %d\n", i)
		if s.Scan() && s.Text() == fmt.Sprintf("LINE %d", i) {
			n++
		}
	}
	in.Close()
	fmt.Println("lines", n, c.Wait())
	var wg sync.WaitGroup
	answers := make([]string, 6)
	for i := range answers {
		wg.Go(func() {
			b, err := self("goroutines").Output()
			answers[i] = strings.TrimSpace(string(b)) + fmt.Sprint(err)
		})
	}
	wg.Wait()
	fmt.Println(answers)
	b, err = self("nest").CombinedOutput()
	fmt.Printf("%s%v\n", b, err)
	fmt.Println(self("exec").Run())

	// Attributes.
	for _, a := range []*syscall.SysProcAttr{{}, {Setpgid: true}, {Setsid: true}, {Pdeathsig: syscall.SIGTERM}} {
		fd := -1
		a.PidFD = &fd
		c = self("ids")
		c.SysProcAttr = a
		b, err = c.CombinedOutput()
		fmt.Printf("%s%v pidfd %v\n", b, err, fd >= 0)
		syscall.Close(fd)
	}
	// Two that are connected.
	a1, a2 := self("show", "piped"), self("lines")
	a2.Stdin, _ = a1.StdoutPipe()
	a2.Start()
	a1.Dir = "/"
	fmt.Println(a1.Start())
	b = nil
	fmt.Println(a1.Wait(), a2.Wait())
	var u syscall.Rusage
	fmt.Println(syscall.Getrusage(syscall.RUSAGE_CHILDREN, &u))
	var ws2 syscall.WaitStatus
	_, err = syscall.Wait4(-1, &ws2, syscall.WNOHANG, nil)
	fmt.Println(err)
}
