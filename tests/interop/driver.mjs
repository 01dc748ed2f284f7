// BullMQ for Node beside Corral, used through its documented API only.
//
// Reads one JSON request per line and answers each with one line, `{"ok": …}` or `{"error": text}`. Its workers do
// what a job's data says, as the processors of tests/chaos/acme_chaos.py do, and write the same journal. BullMQ is
// loaded from the directory named by CORRAL_NODE_MODULES, under the name in CORRAL_BULLMQ (`bullmq5` is version 5);
// the arguments are the store's socket and the journal. With ACME_TRACED set, BullMQ is given bullmq-otel, and
// OpenTelemetry's SDK keeps the spans.
import { appendFileSync } from 'node:fs';
import { createRequire } from 'node:module';
import path from 'node:path';
import readline from 'node:readline';
import { setTimeout as sleep } from 'node:timers/promises';

const require = createRequire(path.join(path.resolve(process.env.CORRAL_NODE_MODULES), 'driver.mjs'));
const { FlowProducer, Queue, QueueEvents, Worker } = require(process.env.CORRAL_BULLMQ ?? 'bullmq');

const [, , socket, journal] = process.argv;
const connection = { path: socket };
const finished = [];
const client = process.env.ACME_TRACED ? { connection, telemetry: traced() } : { connection };
const queues = new Map();
const listeners = new Map();
const heard = []; // of all listeners, in order: {queue, event, …}
const errors = []; // whatever BullMQ complains about

function traced() {
  const { NodeTracerProvider, SimpleSpanProcessor } = require('@opentelemetry/sdk-trace-node');
  const exporter = { export: (spans, done) => { finished.push(...spans); done({ code: 0 }); }, shutdown: async () => {} };
  new NodeTracerProvider({ spanProcessors: [new SimpleSpanProcessor(exporter)] }).register();
  return new (require('bullmq-otel').BullMQOtel)('acme');
}

function watched(made) {
  made.on('error', (error) => errors.push(String(error)));
  return made;
}

function queue(name) {
  if (!queues.has(name)) queues.set(name, watched(new Queue(name, client)));
  return queues.get(name);
}

function write(event, job) {
  const line = { at: Date.now() / 1000, pid: process.pid, event, id: job.id, attempt: job.attemptsMade + 1 };
  appendFileSync(journal, `${JSON.stringify(line)}\n`);
}

async function process_(job, then) {
  write('start', job);
  const { ms = 0, fails = 0, value = null } = job.data;
  await sleep(ms);
  if (job.attemptsMade < fails) throw new Error(`attempt ${job.attemptsMade + 1} fails, as the data says`);
  if (then) await queue(then).add('work', job.data);
  const children = Object.values(await job.getChildrenValues());
  write('end', job);
  return children.length ? children : value;
}

const operations = {
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
    const flow = watched(new FlowProducer({ connection }));
    const { job, children } = await flow.add(tree);
    return { id: job.id, children: (children ?? []).map((child) => child.job.id) };
  },

  async schedule({ queue: name, id, repeat, template = {} }) {
    await queue(name).upsertJobScheduler(id, repeat, template);
  },

  async unschedule({ queue: name, id }) {
    return await queue(name).removeJobScheduler(id);
  },

  async drain({ queue: name }) {
    await queue(name).drain();
  },

  async scheduler({ queue: name, id }) {
    return await queue(name).getJobScheduler(id);
  },

  async pause({ queue: name }) {
    await queue(name).pause();
  },

  async obliterate({ queue: name }) {
    await queue(name).obliterate();
  },

  async resume({ queue: name }) {
    await queue(name).resume();
  },

  async work({ queue: name, concurrency, minutes, then, options = {} }) {
    const metrics = minutes && { maxDataPoints: minutes };
    const worker = watched(new Worker(name, (job) => process_(job, then), {
      ...client,
      ...options,
      concurrency,
      metrics,
    }));
    await worker.waitUntilReady();
    return process.pid;
  },

  async listen({ queue: name }) {
    const listener = watched(new QueueEvents(name, { connection }));
    for (const event of ['completed', 'failed', 'progress']) {
      listener.on(event, (told) => heard.push({ queue: name, event, ...told }));
    }
    await listener.waitUntilReady();
    listeners.set(name, listener);
  },

  heard: async () => heard,
  errors: async () => errors,

  async finished({ queue: name, id }) {
    const job = await queue(name).getJob(id);
    try {
      return { value: await job.waitUntilFinished(listeners.get(name), 15000) };
    } catch (error) {
      return { failure: error.message };
    }
  },

  async job({ queue: name, id }) {
    const job = await queue(name).getJob(id);
    if (!job) return null;
    return { state: await job.getState(), attempts: job.attemptsMade, starts: job.attemptsStarted, ...job.toJSON() };
  },

  async counted({ queue: name, ending }) {
    return await queue(name).getMetrics(ending);
  },

  async clean({ queue: name, ending }) {
    return (await queue(name).clean(0, 1000, ending)).length;
  },

  async call({ queue: name, method, args = [] }) {
    return await queue(name)[method](...args);
  },

  async workers({ queue: name }) {
    const listed = await queue(name).getWorkers();
    return { count: await queue(name).getWorkersCount(), names: listed.map((each) => each.name) };
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
