// BullMQ for Node beside Corral, used through its documented API only.
//
// Reads one JSON request per line and answers each with one line: `{"ok": …}`, `{"error": text}`, or, for what this
// BullMQ has no API for, `{"no_api": text}`. Its workers do what a job's data says, as the processors of
// tests/chaos/acme_chaos.py do, and write the same journal. The module that CORRAL_BULLMQ names (`bullmq` is version 6,
// `bullmq5` version 5) is loaded from the directory named by CORRAL_NODE_MODULES. With ACME_TRACED set, BullMQ is given
// bullmq-otel, and OpenTelemetry's SDK keeps the spans.
import { appendFileSync } from 'node:fs';
import { createRequire } from 'node:module';
import path from 'node:path';
import readline from 'node:readline';
import { setTimeout as sleep } from 'node:timers/promises';

const require = createRequire(path.join(path.resolve(process.env.CORRAL_NODE_MODULES), 'driver.mjs'));
const { DelayedError, FlowProducer, Queue, QueueEvents, UnrecoverableError, Worker } =
  require(process.env.CORRAL_BULLMQ || 'bullmq');

const finished = []; // spans
const telemetry = process.env.ACME_TRACED ? traced() : undefined;
let side; // what one test has made

function traced() {
  const { NodeTracerProvider, SimpleSpanProcessor } = require('@opentelemetry/sdk-trace-node');
  const exporter = { export: (spans, done) => { finished.push(...spans); done({ code: 0 }); }, shutdown: async () => {} };
  new NodeTracerProvider({ spanProcessors: [new SimpleSpanProcessor(exporter)] }).register();
  return new (require('bullmq-otel').BullMQOtel)('acme');
}

function watched(made) {
  const { errors } = side;
  made.on('error', (error) => errors.push(String(error)));
  return made;
}

function queue(name) {
  if (!side.queues.has(name)) side.queues.set(name, watched(new Queue(name, side.client)));
  return side.queues.get(name);
}

async function stored(name, id) {
  const job = await queue(name).getJob(id);
  if (!job) throw new Error(`there is no job ${id}`);
  return job;
}

function write(journal, event, job) {
  const line = { at: Date.now() / 1000, pid: process.pid, event, id: job.id, attempt: job.attemptsMade + 1 };
  appendFileSync(journal, `${JSON.stringify(line)}\n`);
}

async function process_(job, token, { journal, then }) {
  write(journal, 'start', job);
  const { ms = 0, fails = 0, value = null, says = [], snoozeMs = 0, fatal = false } = job.data;
  for (const line of says) await job.log(line);
  if (says.length) await job.updateProgress({ said: says.length });
  await sleep(ms);
  if (snoozeMs && job.attemptsStarted === 1) {
    await job.moveToDelayed(Date.now() + snoozeMs, token);
    throw new DelayedError();
  }
  if (fatal) throw new UnrecoverableError('fatal, as the data says');
  if (job.attemptsMade < fails) throw new Error(`attempt ${job.attemptsMade + 1} fails, as the data says`);
  if (then) await queue(then).add('work', job.data);
  const children = Object.values(await job.getChildrenValues());
  write(journal, 'end', job);
  return children.length ? children : value;
}

const operations = {
  // One test's store: everything below is about it.
  async open({ socket, journal, prefix }) {
    const client = { connection: { path: socket }, prefix, telemetry };
    side = { client, journal, queues: new Map(), listeners: new Map(), workers: [], heard: [], errors: [], others: [] };
  },

  async close() {
    await Promise.all(side.workers.map((worker) => worker.close(true)));
    await Promise.all([...side.queues.values(), ...side.listeners.values(), ...side.others].map((made) => made.close()));
    side = undefined;
  },

  async stop_workers() {
    await Promise.all(side.workers.splice(0).map((worker) => worker.close()));
  },

  async add({ queue: name, jobs }) {
    const made = await queue(name).addBulk(jobs.map(({ data, opts }) => ({ name: 'work', data, opts })));
    return made.map((job) => job.id);
  },

  async add_one({ queue: name, data, opts }) {
    return (await queue(name).add('work', data, opts)).id;
  },

  async spans() {
    return finished.map((span) => ({
      name: span.name,
      kind: ['INTERNAL', 'SERVER', 'CLIENT', 'PRODUCER', 'CONSUMER'][span.kind],
      trace: span.spanContext().traceId,
      id: span.spanContext().spanId,
      parent: span.parentSpanContext?.spanId ?? null,
    }));
  },

  async flow({ tree }) {
    const flow = watched(new FlowProducer(side.client));
    side.others.push(flow);
    const { job, children } = await flow.add(tree);
    return { id: job.id, children: (children ?? []).map((child) => child.job.id) };
  },

  async schedule({ queue: name, id, repeat, template = {} }) {
    await queue(name).upsertJobScheduler(id, repeat, template);
  },

  async unschedule({ queue: name, id }) {
    return await queue(name).removeJobScheduler(id);
  },

  async drain({ queue: name, delayed = false }) {
    await queue(name).drain(delayed);
  },

  async scheduler({ queue: name, id }) {
    return await queue(name).getJobScheduler(id);
  },

  // `minutes`: how many minutes of metrics; `more`: options of BullMQ's own.
  async work({ queue: name, concurrency, minutes, then, more = {} }) {
    const metrics = minutes && { maxDataPoints: minutes };
    const { journal } = side;
    const options = { ...side.client, concurrency, metrics, ...more };
    const worker = watched(new Worker(name, (job, token) => process_(job, token, { journal, then }), options));
    side.workers.push(worker);
    await worker.waitUntilReady();
    return process.pid;
  },

  async listen({ queue: name }) {
    const { heard } = side;
    const listener = watched(new QueueEvents(name, side.client));
    for (const event of ['added', 'completed', 'failed', 'progress']) {
      listener.on(event, (fields) => heard.push({ queue: name, event, ...fields }));
    }
    await listener.waitUntilReady();
    side.listeners.set(name, listener);
  },

  heard: async () => side.heard,
  errors: async () => side?.errors ?? [],
  take_errors: async () => side.errors.splice(0),
  lacks: async () => null, // what the tests ask for, it has

  async finished({ queue: name, id }) {
    const job = await queue(name).getJob(id);
    try {
      return { value: await job.waitUntilFinished(side.listeners.get(name), 15000) };
    } catch (error) {
      return { failure: error.message };
    }
  },

  async job({ queue: name, id }) {
    const job = await queue(name).getJob(id);
    if (!job) return null;
    return { state: await job.getState(), attempts: job.attemptsMade, starts: job.attemptsStarted, ...job.toJSON() };
  },

  logs: async ({ queue: name, id }) => await queue(name).getJobLogs(id),
  counted: async ({ queue: name, ending }) => await queue(name).getMetrics(ending),
  clean: async ({ queue: name, ending }) => (await queue(name).clean(0, 1000, ending)).length,
  counts: async ({ queue: name }) => await queue(name).getJobCounts(),

  async workers({ queue: name }) {
    const listed = await queue(name).getWorkers();
    return { count: await queue(name).getWorkersCount(), names: listed.map((each) => each.name) };
  },

  pause: async ({ queue: name }) => await queue(name).pause(),
  resume: async ({ queue: name }) => await queue(name).resume(),
  paused: async ({ queue: name }) => await queue(name).isPaused(),
  limit_concurrency: async ({ queue: name, count }) => await queue(name).setGlobalConcurrency(count),
  limit_rate: async ({ queue: name, count, ms }) => await queue(name).setGlobalRateLimit(count, ms),
  async limits({ queue: name }) {
    return { concurrency: await queue(name).getGlobalConcurrency(), rate: await queue(name).getGlobalRateLimit() };
  },

  retry: async ({ queue: name, id, state = 'failed' }) => await (await stored(name, id)).retry(state),
  retry_all: async ({ queue: name }) => await queue(name).retryJobs(),
  promote: async ({ queue: name, id }) => await (await stored(name, id)).promote(),
  promote_all: async ({ queue: name }) => await queue(name).promoteJobs(),
  change_delay: async ({ queue: name, id, ms }) => await (await stored(name, id)).changeDelay(ms),
  change_priority: async ({ queue: name, id, priority }) => await (await stored(name, id)).changePriority({ priority }),
  change_data: async ({ queue: name, id, data }) => await (await stored(name, id)).updateData(data),
  remove: async ({ queue: name, id }) => await queue(name).remove(id),
  obliterate: async ({ queue: name }) => await queue(name).obliterate({ force: true }),

  async call({ queue: name, method, args = [] }) {
    return await queue(name)[method](...args);
  },

  // Bull Board on this BullMQ's queues; answers the port on which it listens.
  async board({ queues }) {
    const { createBullBoard } = require('@bull-board/api');
    const { BullMQAdapter } = require('@bull-board/api/bullMQAdapter');
    const { ExpressAdapter } = require('@bull-board/express');
    const serverAdapter = new ExpressAdapter();
    serverAdapter.setBasePath('/board');
    createBullBoard({ queues: queues.map((name) => new BullMQAdapter(queue(name))), serverAdapter });
    const app = require('express')().use('/board', serverAdapter.getRouter());
    const listening = app.listen(0, '127.0.0.1');
    await new Promise((resolve) => listening.once('listening', resolve));
    side.others.push({ close: async () => { listening.closeAllConnections(); listening.close(); } });
    return listening.address().port;
  },
};

for await (const line of readline.createInterface({ input: process.stdin })) {
  const { do: operation, ...request } = JSON.parse(line);
  let answer;
  try {
    answer = { ok: (await operations[operation](request)) ?? null };
  } catch (error) {
    answer = { error: `${operation}: ${error.stack}` };
  }
  process.stdout.write(`${JSON.stringify(answer)}\n`);
}
process.exit(0); // connections would keep the process alive
