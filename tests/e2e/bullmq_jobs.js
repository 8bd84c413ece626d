// BullMQ as an app uses it, against one port.
//
//   node bullmq_jobs.js PORT JOBS
//
// Adds JOBS jobs, a third of them with a delay, a fourth of them failing at
// their first try; four workers with five jobs each at a time. Prints
// "running" when the first job is done, and when all are completed, or 60 s
// have passed, one line of JSON: what became of them. again: jobs that were
// processed more often than they failed; overlaps: at the same time.
'use strict';
const net = require('node:net');

const [port, jobs] = process.argv.slice(2).map(Number);
const sleep = (ms) => new Promise((done) => setTimeout(done, ms));
const seen = { errors: {}, drops: 0, why: [] };
let ending = false;

// BullMQ connects again by itself, so its sockets are watched.
const connect = net.createConnection;
net.createConnection = (...args) => {
  const socket = connect(...args);
  socket.on('close', () => { seen.drops += !ending; });
  return socket;
};

const { Queue, QueueEvents, Worker } = require('bullmq');

function note(error) {
  const kind = `${error.message || error}`.split(' ').slice(0, 2).join(' ');
  seen.errors[kind] = (seen.errors[kind] || 0) + 1;
  if (seen.errors[kind] === 1) { seen.why.push(`${error.message || error}`); }
}

const connection = { host: '127.0.0.1', port, maxRetriesPerRequest: null };
const settings = { connection, prefix: 'bull' };

// Each processing of each job, by its times.
const runs = {};

async function work(job) {
  const run = { began: performance.now(), attempt: job.attemptsMade };
  (runs[job.id] ||= Object.assign([], { fails: job.data.fails })).push(run);
  await sleep(job.data.ms);
  run.ended = performance.now();
  if (job.data.fails && run.attempt === 0) {
    throw new Error('the first try fails');
  }
  return job.data.number;
}

// An app that gives its jobs names may add them again when it does not know.
async function add(queue, number) {
  const options = { jobId: `job-${number}`, attempts: 5,
    backoff: { type: 'fixed', delay: 100 },
    delay: number % 3 === 0 ? 500 + number * 20 : 0 };
  const data = { number, ms: 50 + number % 7 * 30, fails: number % 4 === 1 };
  for (;;) {
    try {
      await queue.add('work', data, options);
      return;
    } catch (error) {
      note(error);
    }
  }
}

function overlaps() {
  let found = 0;
  for (const of of Object.values(runs)) {
    of.sort((a, b) => a.began - b.began);
    for (let i = 1; i < of.length; i += 1) {
      found += !(of[i - 1].ended <= of[i].began);
    }
  }
  return found;
}

async function main() {
  const queue = new Queue('q', settings);
  const events = new QueueEvents('q', settings);
  const told = {};
  events.on('completed', ({ jobId }) => {
    told[jobId] = (told[jobId] || 0) + 1;
  });
  const workers = Array.from({ length: 4 }, () => new Worker('q', work, {
    ...settings, concurrency: 5, lockDuration: 5000, stalledInterval: 1500,
    maxStalledCount: 20 }));
  const all = [queue, events, ...workers];
  all.forEach((one) => one.on('error', note));
  await Promise.all(all.map((one) => one.waitUntilReady()));
  const first = new Promise((done) => workers[0].once('completed', done));
  first.then(() => console.log('running'));
  for (let number = 0; number < jobs; number += 1) {
    await add(queue, number);
    await sleep(10);
  }
  const end = performance.now() + 60000;
  let counts = {};
  while (performance.now() < end) {
    try {
      counts = await queue.getJobCounts('completed', 'failed', 'active',
        'waiting', 'delayed');
      if (counts.completed === jobs && Object.keys(told).length === jobs) {
        break;
      }
    } catch (error) {
      note(error);
    }
    await sleep(100);
  }
  ending = true;
  const processed = Object.values(runs);
  console.log(JSON.stringify({ ...counts,
    again: processed.filter((of) => of.length > 1 + of.fails).length,
    overlaps: overlaps(), events: Object.keys(told).length, ...seen }));
  await Promise.all(all.map((one) => one.close()));
}

main().then(() => process.exit(0), (error) => {
  console.error(error);
  process.exit(1);
});
