'use strict';
// Counts the primes below workerData.
const { parentPort, workerData } = require('node:worker_threads');
const composite = new Uint8Array(workerData);
let count = 0;
for (let n = 2; n < workerData; n++) {
  if (composite[n]) continue;
  count++;
  for (let m = n * n; m < workerData; m += n) composite[m] = 1;
}
parentPort.postMessage(count);
