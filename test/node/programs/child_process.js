const cp = require('node:child_process');
if (process.argv[2] === 'echo') {
  process.stdin.on('data', (d) => process.stdout.write('<' + d + '>'));
  process.stdin.on('end', () => process.exit(3));
  return;
}
if (process.argv[2] === 'ipc') {
  process.on('message', (m) => { process.send({ got: m }); process.disconnect(); });
  return;
}
const steps = [
  (next) => cp.execFile('/bin/echo', ['a', 'b'], (e, out) => { console.log('execFile', e, out); next(); }),
  (next) => cp.exec('echo one | tr a-z A-Z; exit 4', (e, out) => { console.log('exec', e.code, out); next(); }),
  (next) => {
    const c = cp.spawn(process.execPath, [__filename, 'echo']);
    let out = '';
    c.stdout.on('data', (d) => { out += d; });
    c.on('close', (code, signal) => { console.log('spawn', out, code, signal); next(); });
    c.stdin.end('through the child');
  },
  (next) => {
    const c = cp.spawn('sleep', ['100']);
    c.on('exit', (code, signal) => { console.log('killed', code, signal); next(); });
    setTimeout(() => console.log('kill', c.kill('SIGTERM')), 50);
  },
  (next) => cp.spawn('/nonexistent').on('error', (e) => { console.log(e.code, e.syscall); next(); }),
  (next) => {
    const c = cp.fork(__filename, ['ipc']);
    c.on('message', (m) => console.log('message', JSON.stringify(m)));
    c.on('exit', (code) => { console.log('fork', code); next(); });
    c.send({ hello: [1, 2] });
  },
  (next) => {
    const r = cp.spawnSync('sh', ['-c', 'pwd; echo $X; cat >&2'], { cwd: '/tmp', env: { X: 'y', PATH: process.env.PATH }, input: 'in' });
    console.log('spawnSync', String(r.stdout), String(r.stderr), r.status);
    console.log('execSync', String(cp.execSync('uname -s')));
    try { cp.execFileSync('sleep', ['10'], { timeout: 100 }); } catch (e) { console.log(e.code, e.signal); }
    next();
  },
  (next) => { const c = cp.spawn('/bin/true', { detached: true, stdio: 'ignore' }); c.unref(); c.on('exit', (x) => { console.log('detached', x); next(); }); },
];
(function run() { const s = steps.shift(); if (s) s(run); else console.log('done'); })();
