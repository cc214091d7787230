const fs = require('node:fs');
const path = require('node:path');
const dir = fs.mkdtempSync('/tmp/watch-');
const seen = new Set();
const w = fs.watch(dir, (event, name) => seen.add(event + ' ' + name));
const file = path.join(dir, 'a');
setTimeout(() => fs.writeFileSync(file, '1'), 50);
setTimeout(() => fs.appendFileSync(file, '2'), 100);
setTimeout(() => fs.renameSync(file, path.join(dir, 'b')), 150);
setTimeout(() => fs.unlinkSync(path.join(dir, 'b')), 200);
setTimeout(() => {
  w.close();
  console.log([...seen].sort().join('\n'));
  fs.rmdirSync(dir);
  fs.writeFileSync('/tmp/polled', 'x');
  let n = 0;
  fs.watchFile('/tmp/polled', { interval: 20 }, (now, was) => {
    console.log('size', was.size, '->', now.size);
    fs.unwatchFile('/tmp/polled');
  });
  setTimeout(() => fs.writeFileSync('/tmp/polled', 'xyz'), 60);
}, 300);
