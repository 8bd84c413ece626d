// One Node.js client library against one port, as an app would use it.
//
//   node node_client.js LIBRARY talk|load PORT [REQUESTS]
//
// LIBRARY is ioredis, node-redis or glide, or one of them with -cluster: its
// client for clusters.
//
// talk  one of everything common; prints {"ok": true} or the first surprise
// load  REQUESTS of SET, GET, INCR from ten connections that never retry or
//       reconnect; prints "running", and at the end what they saw, as JSON
'use strict';
const assert = require('node:assert');

const [library, mode, port, requests] = process.argv.slice(2);
const sleep = (ms) => new Promise((done) => setTimeout(done, ms));

// Both libraries behind one small face, so that the scenarios are written
// once: call(), pipeline(), multi(), subscribe(), close().
function ioredis(options, inCluster) {
  const Redis = require('ioredis');
  const plain = { port, host: '127.0.0.1', retryStrategy: null,
    maxRetriesPerRequest: null, autoResendUnfulfilledCommands: false };
  const client = inCluster
    ? new Redis.Cluster([{ port: Number(port), host: '127.0.0.1' }],
      { clusterRetryStrategy: () => null, redisOptions: options })
    : new Redis({ ...plain, ...options });
  const face = { drops: 0 };
  client.on('error', () => {});
  client.on('close', () => { face.drops += 1; });
  return Object.assign(face, {
    ready: () => new Promise((done) => client.once('ready', done)),
    call: (...args) => client.call(...args.map(String)),
    pipeline: async (commands) =>
      (await client.pipeline(commands).exec()).map(([e, v]) => e || v),
    multi: async (commands) =>
      (await client.multi(commands).exec()).map(([e, v]) => e || v),
    subscribe: async (channel, onMessage) => {
      client.on('message', (_, text) => onMessage(text));
      await client.subscribe(channel);
    },
    close: async () => { face.drops = 0; await client.quit(); face.drops = 0; },
  });
}

function nodeRedis(options) {
  const { createClient } = require('redis');
  const client = createClient({ ...options,
    socket: { port: Number(port), host: '127.0.0.1',
      reconnectStrategy: false } });
  const face = { drops: 0 };
  client.on('error', () => { face.drops += 1; });
  const connected = client.connect();
  const fill = (multi, commands) => {
    for (const [name, ...args] of commands) {
      multi.addCommand([name, ...args.map(String)]);
    }
    return multi;
  };
  return Object.assign(face, {
    ready: () => connected,
    call: (...args) => client.sendCommand(args.map(String)),
    pipeline: (commands) => fill(client.multi(), commands).execAsPipeline(),
    multi: (commands) => fill(client.multi(), commands).exec(),
    subscribe: (channel, onMessage) => client.subscribe(channel, onMessage),
    close: () => client.close(),
  });
}

function nodeRedisCluster(options) {
  const { createCluster } = require('redis');
  const client = createCluster({ defaults: options,
    rootNodes: [{ socket: { port: Number(port), host: '127.0.0.1' } }] });
  const face = { drops: 0 };
  client.on('error', () => { face.drops += 1; });
  const connected = client.connect();
  const keyOf = ([name, ...args]) => (/^(EVAL|ECHO)$/i.test(name)
    ? undefined : String(args[0]));
  const fill = (multi, commands) => {
    for (const command of commands) {
      multi.addCommand(keyOf(command), false, command.map(String));
    }
    return multi;
  };
  return Object.assign(face, {
    ready: () => connected,
    call: (...args) =>
      client.sendCommand(keyOf(args), false, args.map(String)),
    pipeline: (commands) => fill(client.multi(), commands).execAsPipeline(),
    multi: (commands) => fill(client.multi(), commands).exec(),
    subscribe: (channel, onMessage) => client.subscribe(channel, onMessage),
    close: () => client.close(),
  });
}

// Its subscriptions belong to the connection from the start.
function glide(options, inCluster) {
  const { GlideClient, GlideClusterClient, Batch, ClusterBatch,
    GlideClientConfiguration, GlideClusterClientConfiguration,
  } = require('@valkey/valkey-glide');
  const Client = inCluster ? GlideClusterClient : GlideClient;
  const { PubSubChannelModes } = inCluster
    ? GlideClusterClientConfiguration : GlideClientConfiguration;
  const face = { drops: 0 };
  const listeners = [];
  let client = null;
  const create = (channels) => Client.createClient({
    addresses: [{ host: '127.0.0.1', port: Number(port) }],
    requestTimeout: 10000,
    ...options,
    ...(channels && { pubsubSubscriptions: {
      channelsAndPatterns: { [PubSubChannelModes.Exact]: new Set(channels) },
      callback: ({ message }) => listeners.forEach((hear) => hear(message)),
    } }),
  });
  const run = (atomic, commands) => {
    const batch = inCluster ? new ClusterBatch(atomic) : new Batch(atomic);
    for (const command of commands) batch.customCommand(command.map(String));
    return client.exec(batch, true);
  };
  return Object.assign(face, {
    ready: async () => { client = await create(null); },
    call: (...args) => client.customCommand(args.map(String)),
    pipeline: (commands) => run(false, commands),
    multi: (commands) => run(true, commands),
    subscribe: async (channel, onMessage) => {
      client.close();
      listeners.push(onMessage);
      client = await create([channel]);
    },
    close: () => client.close(),
  });
}

const open = {
  ioredis,
  'node-redis': nodeRedis,
  glide,
  'ioredis-cluster': (options) => ioredis(options, true),
  'node-redis-cluster': nodeRedisCluster,
  'glide-cluster': (options) => glide(options, true),
}[library];

async function talk(options = {}) {
  const client = open(options);
  await client.ready();
  assert.equal(await client.call('SET', 'n:k', 'v'), 'OK');
  assert.equal(await client.call('GET', 'n:k'), 'v');
  assert.equal(await client.call('GET', 'n:none'), null);
  assert.equal(Number(await client.call('INCR', 'n:c')), 1);
  await client.call('HSET', 'n:h', 'a', 1, 'b', 2);
  assert.equal(await client.call('HGET', 'n:h', 'b'), '2');
  await assert.rejects(client.call('LPUSH', 'n:k', 'x'), /WRONGTYPE/);
  assert.deepEqual((await client.pipeline([['set', 'n:p', '1'],
    ['incr', 'n:p'], ['get', 'n:p']])).map(String), ['OK', '2', '2']);
  assert.deepEqual((await client.multi([['incr', 'n:m'], ['incr', 'n:m']]))
    .map(Number), [1, 2]);
  assert.equal(await client.call('EVAL', 'return ARGV[1]', 0, 'lua'), 'lua');
  assert.equal(await client.call('BLPOP', 'n:empty', '0.05'), null);
  const big = 'x'.repeat(3000000);
  await client.call('SET', 'n:big', big);
  assert.equal(await client.call('GET', 'n:big'), big);

  const listener = open(options);
  await listener.ready();
  const got = [];
  await listener.subscribe('n:ch', (text) => got.push(text));
  for (let i = 0; i < 100; i++) await client.call('PUBLISH', 'n:ch', i);
  for (let i = 0; i < 500 && got.length < 100; i++) await sleep(10);
  assert.deepEqual(got, [...Array(100).keys()].map(String));
  const drops = client.drops + listener.drops;
  assert.equal(drops, 0);
  await client.call('DEL', 'n:k', 'n:c', 'n:h', 'n:p', 'n:m', 'n:big');
  await Promise.all([client.close(), listener.close()]);
}

async function load() {
  const clients = [...Array(10).keys()].map(() => open({}));
  await Promise.all(clients.map((c) => c.ready()));
  console.log('running');
  const seen = { requests: 0, errors: {}, incrOk: 0, incrUnknown: 0,
    wrong: 0, drops: 0 };
  await Promise.all(clients.map(async (client, number) => {
    let written = null;
    for (let i = 0; i < requests / clients.length; i++) {
      const command = ['SET', 'GET', 'INCR'][i % 3];
      seen.requests += 1;
      try {
        if (command === 'SET') {
          await client.call('SET', `n:${number}`, `${i}`);
          written = `${i}`;
        } else if (command === 'GET') {
          const value = await client.call('GET', `n:${number}`);
          if (value !== written) seen.wrong += 1;
        } else {
          await client.call('INCR', 'n:count');
          seen.incrOk += 1;
        }
      } catch (error) {
        const kind = `${command} ${String(error.message).split(' ')[0]}`;
        seen.errors[kind] = (seen.errors[kind] || 0) + 1;
        if (command === 'INCR' && !/NOTAPPLIED/.test(kind)) {
          seen.incrUnknown += 1;
        }
      }
      await sleep(2);
    }
  }));
  seen.drops = clients.reduce((sum, client) => sum + client.drops, 0);
  console.log(JSON.stringify(seen));
}

async function main() {
  if (mode === 'load') {
    await load();
  } else {
    await talk();
    if (library.startsWith('node-redis')) await talk({ RESP: 3 });
    console.log(JSON.stringify({ ok: true }));
  }
  process.exit(0);
}

main().catch((error) => { console.error(error); process.exit(1); });
