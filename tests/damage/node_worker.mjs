// BullMQ for Node as the worker of a trial, used through its documented API only.
//
// Reads one JSON request per line, `{"n": …, "do": …}`, and answers each with a line `{"n": …, "ok": …}` or
// `{"n": …, "error": text}`, in any order. What BullMQ complains about comes as `{"queue": …, "complaint": text}`. BullMQ
// is loaded from the directory named by CORRAL_NODE_MODULES; the argument is the store's socket.
import { createRequire } from 'node:module';
import path from 'node:path';
import readline from 'node:readline';

const require = createRequire(path.join(path.resolve(process.env.CORRAL_NODE_MODULES), 'node_worker.mjs'));
const { DelayedError, Queue, UnrecoverableError, Worker } = require('bullmq');

const connection = { path: process.argv[2] };
const CLOSE_MS = 3000; // a worker that cannot write an ending may never close
const AS_ASKED = 'as the data says';
const trials = new Map(); // by queue: {worker, inside, victim, slots, closed, ran}

function say(line) {
  process.stdout.write(`${JSON.stringify(line)}\n`);
}

function watched(name, made) {
  made.on('error', (error) => say({ queue: name, complaint: String(error?.message ?? error).slice(0, 500) }));
  return made;
}

// What BullMQ throws past its own handlers must not end the other trials.
for (const event of ['unhandledRejection', 'uncaughtException']) {
  process.on(event, (error) => say({ queue: '', complaint: String(error?.message ?? error).slice(0, 500) }));
}

// As `Gate` of trial.py; resolves to whether the job left before the gate was opened.
function enter(trial, id) {
  if (!trial.closed) return Promise.resolve(false);
  return new Promise((resolve) => {
    trial.inside.set(id, () => {
      trial.inside.delete(id);
      resolve(trial.closed);
    });
    if (trial.inside.size >= trial.slots && !trial.inside.has(trial.victim)) trial.inside.values().next().value();
  });
}

async function process_(trial, job, token) {
  const first = !trial.ran.has(job.id);
  trial.ran.add(job.id);
  const does = job.data?.does;
  if ((await enter(trial, job.id)) || does === 'complete') return;
  if (does === 'fail') throw new UnrecoverableError(AS_ASKED);
  if ((does === 'retry' || does === 'later') && first) throw new Error(AS_ASKED);
  if (does === 'snooze' && first) {
    await job.moveToDelayed(Date.now() + 5, token);
    throw new DelayedError();
  }
  if (does === 'talk') {
    await job.log('a line');
    await job.updateProgress(50);
  }
}

const operations = {
  async work({ queue: name, slots, victim, closed }) {
    const trial = { inside: new Map(), victim, slots, closed, ran: new Set() };
    trials.set(name, trial);
    const settings = { lockDuration: 1500, stalledInterval: 500, maxStalledCount: 1000, drainDelay: 1 };
    const options = { connection, concurrency: slots, ...settings };
    trial.worker = watched(name, new Worker(name, (job, token) => process_(trial, job, token), options));
  },

  async holds({ queue: name }) {
    return [...trials.get(name).inside.keys()];
  },

  async open({ queue: name }) {
    const trial = trials.get(name);
    trial.closed = false;
    for (const leave of [...trial.inside.values()]) leave();
  },

  async stop({ queue: name }) {
    await operations.open({ queue: name });
    const { worker } = trials.get(name);
    trials.delete(name);
    const late = new Promise((resolve) => setTimeout(resolve, CLOSE_MS, 'late'));
    const ended = await Promise.race([worker.close().then(() => 'closed'), late]);
    if (ended === 'late') await Promise.race([worker.close(true), new Promise((resolve) => setTimeout(resolve, 100))]);
    return ended;
  },

  async add({ queue: name, id }) {
    const queue = watched(name, new Queue(name, { connection }));
    try {
      await queue.add('x', {}, { jobId: id });
    } finally {
      await queue.close();
    }
  },

  async remove_orphans({ queue: name }) {
    const queue = watched(name, new Queue(name, { connection }));
    try {
      return await queue.removeOrphanedJobs();
    } finally {
      await queue.close();
    }
  },

  async schedule({ queue: name, id, every }) {
    const queue = watched(name, new Queue(name, { connection }));
    try {
      await queue.upsertJobScheduler(id, { every }, {});
    } finally {
      await queue.close();
    }
  },
};

async function answer({ n, do: operation, ...request }) {
  try {
    say({ n, ok: (await operations[operation](request)) ?? null });
  } catch (error) {
    say({ n, error: `${operation}: ${error?.message ?? error}` });
  }
}

for await (const line of readline.createInterface({ input: process.stdin })) answer(JSON.parse(line));
process.exit(0); // connections would keep the process alive
