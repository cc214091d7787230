const http2 = require('node:http2');
const server = http2.createServer();
server.on('stream', (stream, headers) => {
  stream.respond({ ':status': 200, 'content-type': 'text/plain', path: headers[':path'] });
  if (headers[':method'] === 'POST') stream.pipe(stream);
  else stream.end('x'.repeat(Number(headers[':path'].slice(1))));
});
server.listen(0, () => {
  const client = http2.connect(`http://localhost:${server.address().port}`);
  const get = (n) => new Promise((resolve) => {
    const r = client.request({ ':path': '/' + n });
    let size = 0, status;
    r.on('response', (h) => { status = h[':status']; });
    r.on('data', (d) => { size += d.length; });
    r.on('end', () => resolve(`${n}: ${status} ${size}`));
  });
  const echo = new Promise((resolve) => {
    const r = client.request({ ':path': '/echo', ':method': 'POST' });
    let got = '';
    r.on('data', (d) => { got += d; });
    r.on('end', () => resolve(got));
    r.write('first ');
    setTimeout(() => r.end('second'), 20);
  });
  Promise.all([0, 1, 70000, 1000000].map(get).concat(echo)).then((all) => {
    console.log(all.join('\n'));
    client.ping((err, ms, payload) => {
      console.log('ping', err, payload.length);
      client.close(() => server.close(() => console.log('closed')));
    });
  });
});
