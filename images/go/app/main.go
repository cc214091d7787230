// Notes is a small notes service, as a person would write it: net/http, a
// SQLite database in pure Go, goroutines, and a program of the system.
//
//	GET  /                 a page with all notes
//	GET  /notes            all notes, JSON
//	POST /notes            {"text": "..."}: adds one
//	GET  /primes?below=N   counts primes, in as many goroutines as there are CPUs
//	GET  /sum?text=T       what sha256sum says of T
//	GET  /fetch?url=U      fetches U and says what came back
//	GET  /healthz          "ok"
package main

import (
	"context"
	"database/sql"
	_ "embed"
	"encoding/json"
	"errors"
	"fmt"
	"html/template"
	"io"
	"log/slog"
	"net/http"
	"os"
	"os/exec"
	"os/signal"
	"runtime"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	_ "modernc.org/sqlite"
)

//go:embed page.html
var pageText string

var page = template.Must(template.New("page").Parse(pageText))

type note struct {
	ID   int64  `json:"id"`
	Text string `json:"text"`
}

type server struct{ db *sql.DB }

func main() {
	if err := run(); err != nil {
		slog.Error("notes", "error", err)
		os.Exit(1)
	}
}

func run() error {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	file := os.Getenv("NOTES_DB")
	if file == "" {
		file = "/tmp/notes.db"
	}
	db, err := sql.Open("sqlite", "file:"+file+"?_pragma=journal_mode(WAL)&_pragma=busy_timeout(5000)")
	if err != nil {
		return err
	}
	defer db.Close()
	if _, err := db.ExecContext(ctx, "create table if not exists notes (id integer primary key, text text not null)"); err != nil {
		return fmt.Errorf("open %s: %w", file, err)
	}
	s := server{db}
	mux := http.NewServeMux()
	mux.HandleFunc("GET /{$}", s.page)
	mux.HandleFunc("GET /notes", s.list)
	mux.HandleFunc("POST /notes", s.add)
	mux.HandleFunc("GET /primes", primes)
	mux.HandleFunc("GET /sum", sum)
	mux.HandleFunc("GET /fetch", fetch)
	mux.HandleFunc("GET /healthz", func(w http.ResponseWriter, r *http.Request) { fmt.Fprintln(w, "ok") })
	srv := &http.Server{Addr: ":8080", Handler: mux, ReadHeaderTimeout: 10 * time.Second}
	go func() {
		<-ctx.Done()
		slog.Info("signal received, ending")
		ctx, cancel := context.WithTimeout(context.Background(), 3*time.Second)
		defer cancel()
		srv.Shutdown(ctx)
	}()
	slog.Info("listening", "address", srv.Addr)
	if err := srv.ListenAndServe(); !errors.Is(err, http.ErrServerClosed) {
		return err
	}
	return nil
}

func answer(w http.ResponseWriter, v any, err error) {
	status := http.StatusOK
	if err != nil {
		status, v = http.StatusInternalServerError, map[string]string{"error": err.Error()}
	}
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(status)
	json.NewEncoder(w).Encode(v)
}

func (s server) notes(ctx context.Context) ([]note, error) {
	rows, err := s.db.QueryContext(ctx, "select id, text from notes order by id")
	if err != nil {
		return nil, err
	}
	defer rows.Close()
	list := []note{}
	for rows.Next() {
		var n note
		if err := rows.Scan(&n.ID, &n.Text); err != nil {
			return nil, err
		}
		list = append(list, n)
	}
	return list, rows.Err()
}

func (s server) page(w http.ResponseWriter, r *http.Request) {
	list, err := s.notes(r.Context())
	if err != nil {
		answer(w, nil, err)
		return
	}
	if err := page.Execute(w, map[string]any{"Notes": list, "Go": runtime.Version()}); err != nil {
		slog.Error("page", "error", err)
	}
}

func (s server) list(w http.ResponseWriter, r *http.Request) {
	list, err := s.notes(r.Context())
	answer(w, list, err)
}

func (s server) add(w http.ResponseWriter, r *http.Request) {
	var n note
	if err := json.NewDecoder(http.MaxBytesReader(w, r.Body, 1<<20)).Decode(&n); err != nil || n.Text == "" {
		http.Error(w, `want {"text": "..."}`, http.StatusBadRequest)
		return
	}
	res, err := s.db.ExecContext(r.Context(), "insert into notes (text) values (?)", n.Text)
	if err == nil {
		n.ID, err = res.LastInsertId()
	}
	answer(w, n, err)
}

func primes(w http.ResponseWriter, r *http.Request) {
	below, err := strconv.Atoi(r.FormValue("below"))
	if err != nil || below < 0 || below > 10_000_000 {
		http.Error(w, "below: a number up to 10000000", http.StatusBadRequest)
		return
	}
	var count atomic.Int64
	var wg sync.WaitGroup
	workers := max(4, runtime.NumCPU())
	for k := range workers {
		wg.Go(func() {
			for n := 2 + k; n < below; n += workers {
				if prime(n) {
					count.Add(1)
				}
			}
		})
	}
	wg.Wait()
	answer(w, map[string]any{"below": below, "primes": count.Load(), "goroutines": workers}, nil)
}

func prime(n int) bool {
	for d := 2; d*d <= n; d++ {
		if n%d == 0 {
			return false
		}
	}
	return true
}

func sum(w http.ResponseWriter, r *http.Request) {
	cmd := exec.CommandContext(r.Context(), "sha256sum")
	cmd.Stdin = strings.NewReader(r.FormValue("text"))
	out, err := cmd.Output()
	digest, _, _ := strings.Cut(string(out), " ")
	answer(w, map[string]string{"sha256": digest}, err)
}

func fetch(w http.ResponseWriter, r *http.Request) {
	ctx, cancel := context.WithTimeout(r.Context(), 10*time.Second)
	defer cancel()
	req, err := http.NewRequestWithContext(ctx, "GET", r.FormValue("url"), nil)
	if err != nil {
		http.Error(w, err.Error(), http.StatusBadRequest)
		return
	}
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		answer(w, nil, err)
		return
	}
	defer resp.Body.Close()
	n, err := io.Copy(io.Discard, resp.Body)
	answer(w, map[string]any{"status": resp.StatusCode, "bytes": n}, err)
}
