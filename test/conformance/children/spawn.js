// node:child_process with programs that are position-independent, natively and
// inside: argument 2 is the directory of the programs.
const { spawn, spawnSync, exec, execFile, execSync, execFileSync } = require('node:child_process');
const { once } = require('node:events');
const util = require('node:util');
const bin = process.argv[2];
const prog = (n) => `${bin}/${n}`;
const status = (e) => ({ code: e.code, signal: e.signal, killed: e.killed, out: e.stdout });

async function main() {
  let r = spawnSync(prog('echo'), ['one', 'two words'], { encoding: 'utf8' });
  console.log('spawnSync', r.status, r.signal, r.stdout, r.stderr === '');
  r = spawnSync(prog('cat'), [], { input: 'x'.repeat(300000), encoding: 'utf8' });
  console.log('cat', r.status, r.stdout.length);
  r = spawnSync(prog('pwd'), [], { cwd: '/tmp', env: {}, encoding: 'utf8' });
  console.log('cwd', r.stdout);
  r = spawnSync(prog('env'), [], { env: { A: '1', B: 'two' }, encoding: 'utf8' });
  console.log('env', r.stdout);
  r = spawnSync('/nonexistent/program');
  console.log('missing', r.error.code, r.error.syscall);
  r = spawnSync(prog('echo'), [], { cwd: '/nonexistent' });
  console.log('missing directory', r.error.code);
  r = spawnSync(prog('sleep'), ['100'], { timeout: 100 });
  console.log('timeout', r.error.code, r.signal, r.status);

  const c = spawn(prog('cat'));
  let got = '';
  c.stdout.on('data', (d) => { got += d; });
  for (let i = 0; i < 100; i++) c.stdin.write(`line ${i}\n`);
  c.stdin.end();
  console.log('close', await once(c, 'close'), got.split('\n').length, c.exitCode);

  const k = spawn(prog('sleep'), ['100']);
  await once(k, 'spawn');
  console.log('kill', k.kill('SIGTERM'), await once(k, 'exit'), k.killed);
  console.log('again', k.kill('SIGTERM'));
  const m = spawn('/nonexistent/program');
  const [e] = await once(m, 'error');
  console.log('error', e.code, e.path);

  const run = util.promisify(execFile);
  console.log('execFile', await run(prog('echo'), ['hello']));
  console.log('false', await run(prog('false')).catch(status));
  console.log('maxBuffer', await run(prog('cat'), ['/proc/self/environ'], { env: { A: 'y'.repeat(5000) }, maxBuffer: 100 }).catch((e) => e.code));
  console.log('abort', await run(prog('sleep'), ['100'], { signal: AbortSignal.timeout(50) }).catch((e) => e.name));

  // A shell whose commands are its own, or that ends in one.
  const sh = util.promisify(exec);
  console.log('exec', await sh('echo $((6*7)) "$X"', { env: { X: 'from here' } }));
  console.log('exit', await sh('exit 9').catch(status));
  console.log('exec in a shell', await sh(`exec ${prog('echo')} at the end`));
  console.log('command', await sh(`${prog('echo')} one; ${prog('echo')} two; ${prog('false')} || echo three`));
  console.log('killed', await sh('kill -TERM $$; sleep 1').catch(status));
  console.log(execSync('echo sync; exit 0').toString(), execFileSync(prog('echo'), ['sync']).toString());

  // Descriptors.
  const x = spawn(prog('cat'), ['/proc/self/fd/3'], { stdio: ['ignore', 'pipe', 'ignore', 'pipe'] });
  x.stdio[3].on('error', () => {});
  x.stdout.resume();
  x.stdio[3].end('three');
  const [xc] = await once(x, 'close');
  console.log('stdio', xc);
  const d = spawn(prog('sleep'), ['0'], { detached: true, stdio: 'ignore' });
  console.log('detached', await once(d, 'exit'));
  const all = await Promise.all([...Array(8).keys()].map((i) => run(prog('echo'), [String(i)])));
  console.log('many', all.map((o) => o.stdout.trim()).join(' '));
}
main().catch((e) => { console.log(e); process.exit(1); });
