// BullMQ for Node, adding and draining jobs on request: see `bench.peer` for the protocol, and `bench/peers/queues.py`
// for the kinds of jobs. Arguments: the server's socket, the prefix. BullMQ is loaded from the directory
// CORRAL_NODE_MODULES.
'use strict';

const { createRequire } = require('node:module');
const path = require('node:path');
const readline = require('node:readline');

const load = createRequire(path.join(path.resolve(process.env.CORRAL_NODE_MODULES), 'node.cjs'));
const { Queue, Worker } = load('bullmq');

const [socket, prefix] = process.argv.slice(2);
const connection = { path: socket };
const queues = {};
let worker;

const NOTE = 'Please leave it with the neighbours if nobody is at home. '.repeat(11);

const payloads = {
  order: (n) => ({
    orderId: `order-${String(n).padStart(8, '0')}`,
    customerId: n,
    email: 'ada@example.com',
    currency: 'EUR',
    totalCents: 12995,
    isExpress: n % 2 === 0,
    placedAt: '2026-01-01T12:30:00Z',
    tags: ['books', 'gift', 'returning-customer'],
    address: { street: '12 Main Street', city: 'Springfield', zip: '12345', country: 'US' },
    note: NOTE,
  }),
};
const numbered = (n) => ({ n });

const processors = {
  short: () => new Promise((resolve) => setTimeout(resolve, 1)),
  flaky: async (job) => {
    if (job.attemptsMade === 0) throw new Error('the other side is away');
  },
};
const doNothing = async () => {};

const options = { flaky: { attempts: 2 } }; // without a backoff: retried at once

function queueOf(kind) {
  queues[kind] ??= new Queue(kind, { connection, prefix });
  return queues[kind];
}

const operations = {
  async about() {
    return { node: process.versions.node, bullmq: load('bullmq/package.json').version };
  },

  async add({ kind, count, callers }) {
    const queue = queueOf(kind);
    const payload = payloads[kind] ?? numbered;
    let next = 0;
    const adders = Array.from({ length: callers }, async () => {
      while (next < count) await queue.add(kind, payload(next++), options[kind]);
    });
    await Promise.all(adders);
  },

  async add_bulk({ kind, count, size }) {
    const queue = queueOf(kind);
    const payload = payloads[kind] ?? numbered;
    for (let first = 0; first < count; first += size) {
      const length = Math.min(size, count - first);
      const jobs = Array.from({ length }, (_, n) => ({ name: kind, data: payload(first + n), opts: options[kind] }));
      await queue.addBulk(jobs);
    }
  },

  async start({ kind, concurrency }) {
    worker = new Worker(kind, processors[kind] ?? doNothing, { connection, prefix, concurrency });
    worker.on('error', (error) => process.stderr.write(`${error.stack}\n`));
    await worker.waitUntilReady();
  },

  async stop() {
    await worker.close();
  },
};

async function main() {
  for await (const line of readline.createInterface({ input: process.stdin })) {
    const request = JSON.parse(line);
    const began = process.hrtime.bigint();
    const answer = await operations[request.do](request);
    process.stdout.write(`${JSON.stringify(answer ?? Number(process.hrtime.bigint() - began) / 1e9)}\n`);
  }
  process.exit(0); // connections would keep the process alive
}

main();
