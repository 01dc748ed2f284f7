// BullMQ for Node in the place of Corral, through its documented API: a worker or a producer of the runs.
//
// `node peer.mjs work|produce '{…}'`: the wish has the store's `socket` and the `journal`; of a worker also `serves`,
// `concurrency`, `lock_ms`, `stalled_ms`, `max_stalled` and `every_ms`; of a producer `plan`. It writes the journal of
// chaos/acme_chaos.py and chaos/producing.py. BullMQ is loaded from the directory named by CORRAL_NODE_MODULES.
import { appendFileSync, existsSync, readFileSync } from 'node:fs';
import { createRequire } from 'node:module';
import path from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';

const require = createRequire(path.join(path.resolve(process.env.CORRAL_NODE_MODULES), 'peer.mjs'));
const { Queue, Worker } = require('bullmq');

const [, , role, text] = process.argv;
const wish = JSON.parse(text);
const connection = { path: wish.socket };
const EVENTS = 1000; // where the event stream is cut, as in runs.py
const HOLD_SECONDS = 15;
const TICK_MS = 700;
const STEP_MS = 50;

function write(event, id, more = {}) {
  const at = Number(process.env.CORRAL_CHAOS_EPOCH) + Number(process.hrtime.bigint()) / 1e9;
  appendFileSync(wish.journal, `${JSON.stringify({ at, pid: process.pid, event, id, ...more })}\n`);
}

function writeJob(event, job, more = {}) {
  write(event, job.id, { attempt: job.attemptsMade + 1, fence: [job.timestamp, job.attemptsStarted], ...more });
}

function hold(where, job) {
  if (job.data.holds !== where) return;
  const lines = existsSync(wish.journal) ? readFileSync(wish.journal, 'utf8').trimEnd().split('\n').map(JSON.parse) : [];
  if (lines.some((line) => line.event === 'hold' && line.id === job.id)) return;
  writeJob('hold', job, { where });
  Atomics.wait(new Int32Array(new SharedArrayBuffer(4)), 0, 0, HOLD_SECONDS * 1000); // holds the event loop
  throw new Error(`job ${job.id} has held its process, and nobody has killed it`);
}

async function process_(job) {
  hold('fetched', job);
  writeJob('start', job);
  const ms = job.data.ms ?? TICK_MS;
  for (let step = 0; step < Math.floor(ms / STEP_MS); step += 1) await sleep(STEP_MS);
  await sleep(ms % STEP_MS);
  if (job.attemptsMade < (job.data.fails ?? 0)) {
    writeJob('raise', job);
    throw new Error(`attempt ${job.attemptsMade + 1} fails, as the data says`);
  }
  writeJob('effect', job);
  hold('effect', job);
  writeJob('end', job);
  return job.attemptsStarted;
}

function watched(made) {
  made.on('error', () => {}); // the runs tell what became of jobs
  return made;
}

function backoffStrategy(attempts, type, error, job) {
  hold('failing', job); // asked between the failure and its ending
  return 100;
}

const queues = [];

function queue(name) {
  queues.push(watched(new Queue(name, { connection, streams: { events: { maxLen: EVENTS } } })));
  return queues.at(-1);
}

async function work() {
  const workers = wish.serves.map((name) => watched(new Worker(name, process_, {
    connection,
    concurrency: wish.concurrency,
    lockDuration: wish.lock_ms,
    stalledInterval: wish.stalled_ms,
    maxStalledCount: wish.max_stalled,
    metrics: { maxDataPoints: 60 },
    settings: { backoffStrategy },
  })));
  await Promise.all(workers.map((worker) => worker.waitUntilReady()));
  if (wish.every_ms) await queue('chaos-ticks').upsertJobScheduler('chaos-ticks', { every: wish.every_ms });
  return () => Promise.all(workers.map((worker) => worker.close()));
}

async function produce() {
  const target = queue('chaos');
  const calls = new Set();
  let stopped = false;
  const plan = readFileSync(wish.plan, 'utf8').trimEnd().split('\n').map(JSON.parse);
  const add = async ({ id, data, delay_ms: delay, attempts }) => {
    const backoff = { type: data.holds === 'failing' ? 'custom' : 'fixed', delay: 100 };
    write('enq.invoke', id);
    try {
      await target.add('work', data, { jobId: id, delay, attempts, backoff });
      write('enq.ok', id);
    } catch {
      write('enq.unknown', id); // no error of BullMQ's says that nothing was written
    }
  };
  const running = (async () => {
    const began = performance.now();
    for (const each of plan) {
      const wait = began + each.at * 1000 - performance.now();
      if (wait > 0) await sleep(wait);
      if (stopped) break;
      const call = add(each).finally(() => calls.delete(call));
      calls.add(call);
    }
  })();
  return async () => {
    stopped = true;
    await running;
    await Promise.race([Promise.all(calls), sleep(5000)]); // where the store is lost to it, its calls wait for ever
  };
}

const stop = await { work, produce }[role]();
process.once('SIGTERM', async () => {
  await Promise.race([stop(), sleep(10000)]);
  process.exit(0);
});
process.stderr.write('ready\n');
