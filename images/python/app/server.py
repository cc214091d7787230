"""A small notes service, as a person would write it: only Python's standard library.

GET  /             a page (read from page.html beside this file)
GET  /notes        all notes, JSON
POST /notes        {"text": "..."}: adds one
GET  /hash?text=T  SHA-256 of T
GET  /fetch?url=U  fetches U and says what came back
GET  /healthz      "ok"
"""

import hashlib
import json
import os
import platform
import signal
import socket
import sqlite3
import sys
import threading
import time
import urllib.error
import urllib.parse
import urllib.request
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

HERE = Path(__file__).resolve().parent
DATABASE = os.environ.get("NOTES_DB", "/tmp/notes.db")
STARTED = time.time()

local = threading.local()


def database():
    """One connection per thread, as sqlite3 wants it."""
    if not hasattr(local, "db"):
        local.db = sqlite3.connect(DATABASE, timeout=10)
        local.db.execute("create table if not exists notes (id integer primary key, text text not null, at real)")
    return local.db


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server_version = "notes/1"

    def answer(self, body, status=200, kind="application/json"):
        if not isinstance(body, bytes):
            body = (json.dumps(body) + "\n").encode()
        self.send_response(status)
        self.send_header("Content-Type", kind)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def do_GET(self):
        url = urllib.parse.urlparse(self.path)
        query = urllib.parse.parse_qs(url.query)
        if url.path == "/":
            page = (HERE / "page.html").read_text()
            self.answer(
                page.format(
                    python=platform.python_version(),
                    system=f"{platform.system()} {platform.machine()}",
                    host=socket.gethostname(),
                    pid=os.getpid(),
                    up=f"{time.time() - STARTED:.1f}",
                ).encode(),
                kind="text/html; charset=utf-8",
            )
        elif url.path == "/healthz":
            self.answer(b"ok\n", kind="text/plain")
        elif url.path == "/notes":
            rows = database().execute("select id, text, at from notes order by id").fetchall()
            self.answer([{"id": i, "text": t, "at": at} for i, t, at in rows])
        elif url.path == "/hash":
            text = query.get("text", [""])[0]
            self.answer({"text": text, "sha256": hashlib.sha256(text.encode()).hexdigest()})
        elif url.path == "/fetch":
            self.fetch(query.get("url", [""])[0])
        else:
            self.answer({"error": "no such page"}, 404)

    def do_POST(self):
        body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
        if self.path != "/notes":
            return self.answer({"error": "no such page"}, 404)
        try:
            text = json.loads(body)["text"]
        except (ValueError, KeyError, TypeError):
            return self.answer({"error": 'want {"text": "..."}'}, 400)
        db = database()
        with db:
            cursor = db.execute("insert into notes (text, at) values (?, ?)", (str(text), time.time()))
        self.answer({"id": cursor.lastrowid}, 201)

    def fetch(self, url):
        if not url.startswith(("http://", "https://")):
            return self.answer({"error": "want an http or https URL"}, 400)
        try:
            with urllib.request.urlopen(url, timeout=10) as response:
                body = response.read(1 << 20)
            self.answer({"url": url, "status": response.status, "bytes": len(body), "sha256": hashlib.sha256(body).hexdigest()})
        except (urllib.error.URLError, OSError) as e:
            self.answer({"url": url, "error": str(e)}, 502)

    def log_message(self, format, *args):
        if os.environ.get("NOTES_LOG"):
            super().log_message(format, *args)


class Server(ThreadingHTTPServer):
    daemon_threads = True
    request_queue_size = 1024


def main():
    port = int(os.environ.get("PORT", sys.argv[1] if len(sys.argv) > 1 else "8080"))
    server = Server(("", port), Handler)
    # As process 1 of a container it must ask for SIGTERM to be told of it.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))
    print(f"notes: serving on port {port}", flush=True)
    server.serve_forever()


if __name__ == "__main__":
    main()
