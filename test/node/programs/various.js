// Streams, fetch, signals, timers, dns, dgram, zlib, standard input.
const fs = require('node:fs');
const zlib = require('node:zlib');
const http = require('node:http');
const dgram = require('node:dgram');
const dns = require('node:dns/promises');
const { pipeline } = require('node:stream/promises');
(async () => {
  fs.writeFileSync('/tmp/big', Buffer.alloc(3 << 20, 'streams '));
  await pipeline(fs.createReadStream('/tmp/big'), zlib.createGzip(), fs.createWriteStream('/tmp/big.gz'));
  await pipeline(fs.createReadStream('/tmp/big.gz'), zlib.createGunzip(), fs.createWriteStream('/tmp/back'));
  console.log('gzip', fs.readFileSync('/tmp/back').equals(fs.readFileSync('/tmp/big')));
  console.log('brotli', String(zlib.brotliDecompressSync(zlib.brotliCompressSync('text'))));
  await new Promise((resolve) => {
    const s = http.createServer((q, r) => { let n = 0; q.on('data', (d) => { n += d.length; }); q.on('end', () => r.end(String(n))); }).listen(0, async () => {
      const r = await fetch(`http://127.0.0.1:${s.address().port}/`, { method: 'POST', body: 'x'.repeat(200000) });
      console.log('fetch', r.status, await r.text());
      const all = await Promise.all(Array.from({ length: 50 }, (_, i) => fetch(`http://localhost:${s.address().port}/`, { method: 'POST', body: 'y'.repeat(i) }).then((r) => r.text())));
      console.log('50 at once', all.join(' '));
      s.closeAllConnections();
      s.close(resolve);
    });
  });
  console.log('lookup', (await dns.lookup('localhost', { family: 4 })).address);
  await new Promise((resolve) => {
    const a = dgram.createSocket('udp4'), b = dgram.createSocket('udp4');
    b.bind(0, '127.0.0.1', () => a.send('datagram', b.address().port, '127.0.0.1'));
    b.on('message', (m) => { console.log('udp', String(m)); a.close(); b.close(resolve); });
  });
  await new Promise((resolve) => {
    process.once('SIGUSR2', (s, n) => { console.log('signal', s, n); resolve(); });
    const keep = setInterval(() => {}, 1000);
    process.kill(process.pid, 'SIGUSR2');
    setTimeout(() => clearInterval(keep), 100);
  });
  const order = [];
  setTimeout(() => order.push('timeout'), 0);
  await new Promise((r) => setImmediate(() => { order.push('immediate'); r(); }));
  process.nextTick(() => order.push('tick'));
  await new Promise((r) => setTimeout(r, 20));
  console.log(order.sort().join(' '));
  try { fs.readFileSync('/nonexistent'); } catch (e) { console.log(e.code, e.errno); }
  const t = process.hrtime.bigint();
  await new Promise((r) => setTimeout(r, 50));
  const ms = Number(process.hrtime.bigint() - t) / 1e6;
  console.log('50 ms', ms >= 49 && ms < 500);
  console.log('heap', process.memoryUsage().heapUsed > 1e6, typeof process.resourceUsage().userCPUTime, process.report !== undefined);
  let text = '';
  for await (const d of process.stdin) text += d;
  console.log('stdin', JSON.stringify(text));
  process.exitCode = 7;
})();
