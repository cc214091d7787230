'use strict';
// A notebook: notes are kept in a file, one JSON object a line. Besides that,
// what a service is made of: hashing, a worker thread, a child process, fetch,
// streams.
const crypto = require('node:crypto');
const fs = require('node:fs');
const os = require('node:os');
const path = require('node:path');
const readline = require('node:readline');
const zlib = require('node:zlib');
const { execFile } = require('node:child_process');
const { pipeline } = require('node:stream/promises');
const { Worker } = require('node:worker_threads');
const express = require('express');

const port = Number(process.env.PORT || 3000);
const file = path.join(process.env.DATA || os.tmpdir(), 'notes.jsonl');
const app = express();
app.use(express.json({ limit: '1mb' }));

app.get('/', (req, res) => {
  res.type('html').send(`<!doctype html><title>Notebook</title><h1>Notebook</h1>
<p>Node.js ${process.version}, ${os.cpus().length} processor, ${(os.totalmem() / 2 ** 20).toFixed(0)} MiB</p>\n`);
});

app.post('/notes', async (req, res) => {
  const note = { id: crypto.randomUUID(), text: String(req.body.text), at: new Date().toISOString() };
  await fs.promises.appendFile(file, JSON.stringify(note) + '\n');
  res.status(201).json(note);
});

app.get('/notes', async (req, res) => {
  const notes = [];
  if (fs.existsSync(file)) {
    for await (const line of readline.createInterface({ input: fs.createReadStream(file) })) notes.push(JSON.parse(line));
  }
  res.json(notes);
});

// All notes, compressed as they are read.
app.get('/notes.gz', async (req, res) => {
  res.type('application/gzip');
  await pipeline(fs.createReadStream(file), zlib.createGzip(), res);
});

app.get('/hash', (req, res) => {
  const text = String(req.query.text || '');
  res.json({ sha256: crypto.createHash('sha256').update(text).digest('hex'),
    scrypt: crypto.scryptSync(text, 'salt', 16).toString('hex') });
});

// Work that would block the event loop is a worker's.
app.get('/primes', (req, res, next) => {
  const worker = new Worker(path.join(__dirname, 'primes.js'), { workerData: Math.min(Number(req.query.below) || 100, 1e6) });
  worker.once('message', (count) => res.json({ count }));
  worker.once('error', next);
});

app.get('/uname', (req, res, next) => {
  execFile('uname', ['-s'], (err, out) => (err ? next(err) : res.json({ system: out.trim() })));
});

// The service asks itself: a request out and one in.
app.get('/self', async (req, res) => {
  const answer = await fetch(`http://127.0.0.1:${port}/hash?text=self`);
  res.json({ status: answer.status, ...(await answer.json()) });
});

const server = app.listen(port, () => console.log(`listening on ${port}`));
for (const signal of ['SIGTERM', 'SIGINT']) {
  process.on(signal, () => server.close(() => process.exit(0)));
}
