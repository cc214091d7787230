// Stdlib is a conformance program in Go: goroutines, timers, files, network
// and recovered faults of an ordinary static Go binary. It prints the same
// lines on every right system.
package main

import (
	"bytes"
	"crypto/sha256"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/signal"
	"path/filepath"
	"runtime"
	"sort"
	"sync"
	"syscall"
	"time"
)

func main() {
	goroutines()
	garbage()
	faults()
	files()
	web()
	signals()
	fmt.Println("done")
}

func goroutines() {
	var wg sync.WaitGroup
	var mu sync.Mutex
	sum := 0
	for i := range 200 {
		wg.Go(func() {
			time.Sleep(time.Duration(i%10) * time.Millisecond)
			mu.Lock()
			sum += i
			mu.Unlock()
		})
	}
	wg.Wait()
	fmt.Println("sum", sum)
	stop := make(chan bool)
	go func() { // a loop that never yields must not keep others from running
		for {
			select {
			case <-stop:
				return
			default:
			}
		}
	}()
	t := time.NewTimer(20 * time.Millisecond)
	<-t.C
	close(stop)
	fmt.Println("timer fired beside a busy goroutine")
}

func garbage() {
	live := map[int][]byte{}
	for i := range 20000 {
		b := bytes.Repeat([]byte{byte(i)}, 1000)
		live[i%500] = b
	}
	runtime.GC()
	bad := 0
	for i, b := range live {
		for _, c := range b {
			if c != b[0] || int(c) != (19500+i)%256 && int(c) != (19500+i-500)%256 {
				bad++
			}
		}
	}
	fmt.Println("live", len(live), "bad", bad)
}

func faults() {
	defer func() { fmt.Println("recovered:", recover()) }()
	var p *struct{ x [100]int }
	fmt.Println(p.x[3])
}

func files() {
	dir, err := os.MkdirTemp("", "stdlib")
	fmt.Println(err)
	defer os.RemoveAll(dir)
	for i := range 5 {
		os.WriteFile(filepath.Join(dir, fmt.Sprint("f", i)), bytes.Repeat([]byte("x"), i*100), 0o600)
	}
	os.Rename(filepath.Join(dir, "f1"), filepath.Join(dir, "g1"))
	var names []string
	filepath.Walk(dir, func(p string, fi os.FileInfo, err error) error {
		if !fi.IsDir() {
			names = append(names, fmt.Sprintf("%s:%d:%v", fi.Name(), fi.Size(), fi.Mode()))
		}
		return err
	})
	sort.Strings(names)
	fmt.Println(names)
	_, err = os.Open(filepath.Join(dir, "nothing"))
	fmt.Println(os.IsNotExist(err))
}

func web() {
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		fmt.Println(err)
		return
	}
	go http.Serve(ln, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		b, _ := io.ReadAll(r.Body)
		json.NewEncoder(w).Encode(map[string]any{"path": r.URL.Path, "sum": fmt.Sprintf("%x", sha256.Sum256(b))})
	}))
	var wg sync.WaitGroup
	out := make([]string, 20)
	for i := range out {
		wg.Go(func() {
			r, err := http.Post(fmt.Sprintf("http://%s/%d", ln.Addr(), i), "text/plain", bytes.NewReader(make([]byte, i*10000)))
			if err != nil {
				out[i] = err.Error()
				return
			}
			b, _ := io.ReadAll(r.Body)
			r.Body.Close()
			out[i] = string(b)
		})
	}
	wg.Wait()
	for _, s := range out {
		fmt.Print(s)
	}
	_, err = net.Dial("tcp", "127.0.0.1:1")
	fmt.Println(err)
	c, err := net.ListenPacket("udp", "127.0.0.1:0")
	fmt.Println(err)
	c.SetReadDeadline(time.Now().Add(10 * time.Millisecond))
	_, _, err = c.ReadFrom(make([]byte, 10))
	fmt.Println(err.(net.Error).Timeout())
}

func signals() {
	ch := make(chan os.Signal, 1)
	signal.Notify(ch, syscall.SIGUSR1)
	syscall.Kill(os.Getpid(), syscall.SIGUSR1)
	fmt.Println(<-ch)
}
