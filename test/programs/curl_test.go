//go:build integration

package programs

import (
	"compress/gzip"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"os/exec"
	"testing"
)

// backend is the server that curl talks to, on an address of the loopback
// interface that the guest reaches through its network.
func backend(t *testing.T, tls bool) string {
	t.Helper()
	const addr = "198.51.100.2"
	if out, err := exec.Command("ip", "addr", "replace", addr+"/32", "dev", "lo").CombinedOutput(); err != nil {
		t.Fatalf("ip addr: %v: %s", err, out)
	}
	t.Cleanup(func() { exec.Command("ip", "addr", "del", addr+"/32", "dev", "lo").Run() })
	mux := http.NewServeMux()
	mux.HandleFunc("/page", func(w http.ResponseWriter, r *http.Request) {
		fmt.Fprintf(w, "%s %s %s\n", r.Method, r.Proto, r.UserAgent())
	})
	mux.HandleFunc("/large", func(w http.ResponseWriter, r *http.Request) {
		for i := range 200000 {
			fmt.Fprintln(w, i)
		}
	})
	mux.HandleFunc("/gzip", func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Content-Encoding", "gzip")
		z := gzip.NewWriter(w)
		defer z.Close()
		fmt.Fprintln(z, "compressed")
	})
	mux.HandleFunc("/redirect", func(w http.ResponseWriter, r *http.Request) { http.Redirect(w, r, "/page", http.StatusFound) })
	mux.HandleFunc("/echo", func(w http.ResponseWriter, r *http.Request) { io.Copy(w, r.Body) })
	s := httptest.NewUnstartedServer(mux)
	l, err := net.Listen("tcp", addr+":0")
	if err != nil {
		t.Fatal(err)
	}
	s.Listener.Close()
	s.Listener = l
	s.EnableHTTP2 = tls
	if tls {
		s.StartTLS()
	} else {
		s.Start()
	}
	t.Cleanup(s.Close)
	return s.URL
}

func TestCurl(t *testing.T) {
	plain, secure := backend(t, false), backend(t, true)
	for name, argv := range map[string][]string{
		"get":       {plain + "/page"},
		"large":     {plain + "/large"},
		"gzip":      {"--compressed", plain + "/gzip"},
		"redirect":  {"-L", "-w", "%{http_code} %{num_redirects}\n", plain + "/redirect"},
		"post":      {"--data-binary", "@/srv/www/docs/numbers.txt", plain + "/echo"},
		"upload":    {"-T", "/srv/words.txt", plain + "/echo"},
		"several":   {"--parallel", "--no-progress-meter", "-o", "/tmp/a", "-o", "/tmp/b", "-w", "%{size_download}\n", plain + "/large", plain + "/large"},
		"missing":   {"-f", plain + "/missing"},
		"refused":   {"http://198.51.100.2:1/"},
		"tls":       {"-k", secure + "/page"},
		"http1-tls": {"-k", "--http1.1", secure + "/large"},
		"untrusted": {secure + "/page"},
		"no-name":   {"--connect-timeout", "5", "http://no.such.name.invalid/"},
		"file":      {"file:///srv/words.txt"},
	} {
		t.Run(name, func(t *testing.T) {
			argv = append([]string{"curl", "-s"}, argv...)
			want := result(t, native(t, argv...), "")
			got := result(t, inside(t, nil, argv...), "")
			same(t, got, want)
		})
	}
}
