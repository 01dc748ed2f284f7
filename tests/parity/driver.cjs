// The other side of the parity tests: BullMQ for Node, used through its documented API only, on a clock of our own.
//
// Reads one JSON request per line and answers each with one line, `{"ok": …}` or `{"error": text}`. Every request
// carries `now`, which is what `Date.now` says while it runs. What a job may be asked for is in `endings` below.
// BullMQ is loaded from the directory named by CORRAL_NODE_MODULES; the server's socket is the first argument.
'use strict';

const { createRequire } = require('node:module');
const path = require('node:path');
const readline = require('node:readline');

const { FlowProducer, Job, Queue, UnrecoverableError, Worker } = createRequire(
  path.join(path.resolve(process.env.CORRAL_NODE_MODULES), 'driver.cjs'),
)('bullmq');

const connection = { path: process.argv[2] };
const METRICS_MINUTES = 20160; // what Corral keeps: two weeks

let now = Date.now();
Date.now = () => now;

const queues = new Map();
const flows = new Map();
let workers = []; // of the program that runs: the last one fetches, the others own the jobs they have fetched
let workerOptions;
let stale; // the worker remembers a rate limit that may be over: it would not even ask
let handles = []; // every start, by number: {job, token}

const failed = (error) => process.stderr.write(`${error.stack}\n`);

function queue({ prefix, queue: name }) {
  const key = `${prefix}:${name}`;
  if (!queues.has(key)) {
    const made = new Queue(name, { connection, prefix, skipMetasUpdate: true });
    made.on('error', failed);
    queues.set(key, made);
  }
  return queues.get(key);
}

function flow(prefix) {
  if (!flows.has(prefix)) {
    const made = new FlowProducer({ connection, prefix });
    made.on('error', failed);
    flows.set(prefix, made);
  }
  return flows.get(prefix);
}

async function hire() {
  stale = false;
  const { queue: name, prefix, worker: workerName, ...retention } = workerOptions;
  const worker = new Worker(name, null, {
    connection,
    prefix,
    name: workerName,
    autorun: false,
    skipLockRenewal: true,
    maxStalledCount: 1,
    metrics: { maxDataPoints: METRICS_MINUTES },
    settings: { backoffStrategy: (_attempts, _type, error) => error.delay },
    ...retention,
  });
  worker.on('error', failed);
  await worker.waitUntilReady();
  workers.push(worker);
}

const fetcher = () => workers[workers.length - 1];

function taken(job, token) {
  handles.push({ job, token });
  return {
    handle: handles.length - 1,
    id: job.id,
    name: job.name,
    data: JSON.stringify(job.data),
    token,
    attempts_made: job.attemptsMade,
    attempts_started: job.attemptsStarted,
    deferred_failure: job.deferredFailure ?? null,
  };
}

function failure({ reason, traceback, final, delay_ms: delay }) {
  const error = final ? new UnrecoverableError(reason) : new Error(reason);
  error.stack = traceback;
  error.delay = delay;
  return error;
}

// One entry per way in which a run of a job ends. The first two can fetch the next job in the same step.
const endings = {
  complete: (job, token, { value }, fetchNext) => job.moveToCompleted(value, token, fetchNext),
  fail: (job, token, outcome, fetchNext) => job.moveToFailed(failure(outcome), token, fetchNext),
  snooze: (job, token, { delay_ms: delay }) => job.moveToDelayed(now + delay, token),
  hand_back: (job, token) => job.moveToWait(token),
  rate_limit: async (job, token, { delay_ms: delay }) => {
    await job.moveToWait(token);
    await fetcher().rateLimit(delay);
  },
};

// Runs an operation that BullMQ may refuse with one of its negative codes.
async function refusable(operation) {
  try {
    return { code: 0, result: await operation() };
  } catch (error) {
    if (!(error.code < 0)) throw error;
    return { code: error.code };
  }
}

const operations = {
  async open(options) {
    workerOptions = options;
    handles = [];
    await hire();
  },

  async close() {
    await Promise.all(workers.map((worker) => worker.close(true)));
    workers = [];
  },

  async add(request) {
    const made = await queue(request).addBulk(request.jobs);
    return made.map((job) => job.id);
  },

  async flow({ prefix, tree }) {
    await flow(prefix).add(tree);
  },

  async advance(request) {
    if (stale) await hire();
    const codes = [];
    const jobs = [];
    for (const [i, { handle, outcome }] of request.endings.entries()) {
      const { job, token } = handles[handle];
      const fetchNext = i === request.endings.length - 1 && request.want > 0;
      const { code, result } = await refusable(() => endings[outcome.kind](job, token, outcome, fetchNext));
      codes.push(code);
      if (Array.isArray(result) && result[0]) jobs.push(taken(Job.fromJSON(fetcher(), result[0], result[1]), token));
    }
    while (jobs.length < request.want) {
      const token = `token-${handles.length}`;
      const job = await fetcher().getNextJob(token, { block: false });
      if (!job) break;
      jobs.push(taken(job, token));
    }
    if (jobs.length < request.want) stale = (await queue(workerOptions).getRateLimitTtl()) > 0;
    return { codes, jobs };
  },

  async extend({ handles: held, lock_ms: lock }) {
    const ids = held.map((handle) => handles[handle].job.id);
    const tokens = held.map((handle) => handles[handle].token);
    return fetcher().extendJobLocks(ids, tokens, lock);
  },

  async stalled() {
    await fetcher().startStalledCheckTimer(); // its first check is at once; the caller sees its key
  },

  async pause(request) {
    await queue(request).pause();
  },

  async resume(request) {
    await queue(request).resume();
  },

  async concurrency(request) {
    if (request.value === null) await queue(request).removeGlobalConcurrency();
    else await queue(request).setGlobalConcurrency(request.value);
  },

  async rate_limit(request) {
    if (request.max === null) await queue(request).removeGlobalRateLimit();
    else await queue(request).setGlobalRateLimit(request.max, request.duration_ms);
    stale = true;
  },

  async window_ends() {
    stale = true;
  },

  // What an operator does: single jobs answer with a code, 0 for done.
  async remove(request) {
    return queue(request).remove(request.id);
  },

  async retry(request) {
    const job = await queue(request).getJob(request.id);
    return (await refusable(() => job.retry(request.state))).code;
  },

  async promote(request) {
    const job = await queue(request).getJob(request.id);
    return (await refusable(() => job.promote())).code;
  },

  async retry_all(request) {
    await queue(request).retryJobs({ state: 'failed' });
  },

  async promote_all(request) {
    await queue(request).promoteJobs();
  },

  async drain(request) {
    await queue(request).drain(request.delayed);
  },

  async clean(request) {
    return queue(request).clean(request.age_ms, request.limit, request.state);
  },

  async schedule(request) {
    await queue(request).upsertJobScheduler(request.id, { every: request.every_ms }, { name: 'tick', data: {} });
  },

  async progress(request) {
    return (await refusable(() => queue(request).updateJobProgress(request.id, request.value))).code;
  },

  async log(request) {
    for (const line of request.lines) {
      const { code } = await refusable(() => queue(request).addJobLog(request.id, line, request.keep));
      if (code) return code;
    }
    return 0;
  },
};

async function main() {
  for await (const line of readline.createInterface({ input: process.stdin })) {
    const request = JSON.parse(line);
    now = request.now;
    let answer;
    try {
      answer = { ok: (await operations[request.do](request)) ?? null };
    } catch (error) {
      answer = { error: `${request.do}: ${error.stack}` };
    }
    process.stdout.write(`${JSON.stringify(answer)}\n`);
  }
  process.exit(0); // connections would keep the process alive
}

main();
