const { Worker, isMainThread, parentPort, workerData, MessageChannel, threadId } = require('node:worker_threads');
if (!isMainThread) {
  const a = new Int32Array(workerData.shared);
  for (let i = 0; i < 10000; i++) Atomics.add(a, 0, 1);
  parentPort.on('message', (m) => {
    m.port.postMessage({ twice: m.n * 2, id: threadId > 0 });
    m.port.close();
    parentPort.close();
  });
} else {
  const shared = new SharedArrayBuffer(8);
  const workers = [1, 2, 3, 4].map((n) => new Promise((resolve, reject) => {
    const w = new Worker(__filename, { workerData: { shared } });
    const { port1, port2 } = new MessageChannel();
    // The answer and the end come in either order.
    const answered = new Promise((got) => port1.on('message', got));
    w.postMessage({ n, port: port2 }, [port2]);
    w.on('error', reject);
    w.on('exit', async (code) => resolve({ n, code, answer: await answered }));
  }));
  Promise.all(workers).then((all) => {
    console.log(JSON.stringify(all));
    console.log('counted', new Int32Array(shared)[0]);
    const w = new Worker('throw new Error("on purpose")', { eval: true });
    w.on('error', (e) => console.log('error:', e.message));
    w.on('exit', (c) => console.log('exit', c));
  });
}
