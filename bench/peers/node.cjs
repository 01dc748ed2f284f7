// BullMQ for Node, adding and draining no-op jobs on request: see `bench.measure.Peer` for the protocol.
// Arguments: the server's socket, the prefix, the queue. BullMQ is loaded from the directory CORRAL_NODE_MODULES.
'use strict';

const { createRequire } = require('node:module');
const path = require('node:path');
const readline = require('node:readline');

const { Queue, Worker } = createRequire(path.join(path.resolve(process.env.CORRAL_NODE_MODULES), 'node.cjs'))('bullmq');

const [socket, prefix, name] = process.argv.slice(2);
const connection = { path: socket };
const queue = new Queue(name, { connection, prefix });
let worker;

const operations = {
  async add({ count, concurrency }) {
    let next = 0;
    const adders = Array.from({ length: concurrency }, async () => {
      while (next < count) await queue.add(name, { n: next++ });
    });
    await Promise.all(adders);
  },

  async start({ concurrency }) {
    worker = new Worker(name, async () => {}, { connection, prefix, concurrency });
    worker.on('error', (error) => process.stderr.write(`${error.stack}\n`));
    await worker.waitUntilReady();
  },

  async stop() {
    await worker.close();
  },
};

async function main() {
  await queue.waitUntilReady();
  for await (const line of readline.createInterface({ input: process.stdin })) {
    const request = JSON.parse(line);
    const began = process.hrtime.bigint();
    await operations[request.do](request);
    process.stdout.write(`${Number(process.hrtime.bigint() - began) / 1e9}\n`);
  }
  process.exit(0); // connections would keep the process alive
}

main();
