// @grpc/grpc-js as an app would use it, against one port.
//
//   node client.js talk|large|many|retry PORT [SERVICE_CONFIG]
//
// talk   one of everything: shapes, sizes, gzip, metadata, errors, cancel,
//        deadline; prints {"ok": true} or the first surprise
// large  64 MiB there and back, and 64 MiB read slowly
// many   1,000 calls at once
// retry  one call to a server that fails, with the client's own retryPolicy
'use strict';
const assert = require('node:assert');
const grpc = require('@grpc/grpc-js');

const [mode, port, config] = process.argv.slice(2);
const same = (data) => data;
const sleep = (ms) => new Promise((done) => setTimeout(done, ms));

function connect(options) {
  return new grpc.Client(`127.0.0.1:${port}`,
    grpc.credentials.createInsecure(), {
      'grpc.max_receive_message_length': -1,
      'grpc.max_send_message_length': -1,
      'grpc.use_local_subchannel_pool': 1, ...options });
}

function metadata(options, pairs = []) {
  const made = new grpc.Metadata();
  if (options) {  // ASCII only, as metadata must be
    made.set('do', JSON.stringify(options).replace(/[^ -~]/g, (char) =>
      `\\u${char.charCodeAt(0).toString(16).padStart(4, '0')}`));
  }
  for (const [key, value] of pairs) made.add(key, value);
  return made;
}

// All shapes as one: what came back, as {parts, initial, trailing}.
function call(client, shape, parts, options, { pairs, deadline, path } = {}) {
  const name = path || `/echo.Echo/${shape}`;
  const args = [name, same, same];
  const rest = [metadata(options, pairs),
    { deadline: deadline || Date.now() + 60000 }];
  return new Promise((resolve, reject) => {
    const seen = { parts: [] };
    const done = (error, value) => {
      if (error) reject(error); else seen.parts.push(value);
    };
    let stream;
    if (shape === 'Unary') {
      stream = client.makeUnaryRequest(...args, parts[0], ...rest, done);
    } else if (shape === 'ClientStream') {
      stream = client.makeClientStreamRequest(...args, ...rest, done);
    } else if (shape === 'ServerStream') {
      stream = client.makeServerStreamRequest(...args, parts[0], ...rest);
    } else {
      stream = client.makeBidiStreamRequest(...args, ...rest);
    }
    if (shape === 'ClientStream' || shape === 'Bidi') {
      for (const part of parts) stream.write(part);
      stream.end();
    }
    if (shape === 'ServerStream' || shape === 'Bidi') {
      stream.on('data', (part) => seen.parts.push(part));
      stream.on('error', reject);
    }
    stream.on('metadata', (initial) => { seen.initial = initial; });
    stream.on('status', (status) => {
      seen.trailing = status.metadata;
      if (status.code === 0) setImmediate(() => resolve(seen));
    });
    seen.stream = stream;
  });
}

const failure = (promise) => promise.then(
  () => assert.fail('no error'), (error) => error);

async function talk() {
  for (const gzip of [0, 2]) {
    const client = connect({ 'grpc.default_compression_algorithm': gzip });
    for (const size of [0, 1, 1 << 20]) {
      const data = Buffer.alloc(size, 'some text ');
      const parts = [data, Buffer.alloc(0), data.subarray(0, 7)];
      for (const shape of ['Unary', 'ClientStream', 'ServerStream', 'Bidi']) {
        const got = await call(client, shape, parts, { gzip: gzip !== 0 });
        const wanted = shape === 'ClientStream' ? [Buffer.concat(parts)]
          : shape === 'Bidi' ? parts : parts.slice(0, 1);
        assert.deepStrictEqual(got.parts, wanted, `${shape} of ${size}`);
      }
    }
    client.close();
  }
  const client = connect();
  const pairs = [['x-a', '1'], ['x-a', '2, 3'],
    ['x-b-bin', Buffer.from([0, 44, 255])]];
  const got = await call(client, 'Unary', [Buffer.from('x')],
    { echo: 'both' }, { pairs });
  for (const place of [got.initial, got.trailing]) {
    assert.deepStrictEqual(place.get('x-a').join(', '), '1, 2, 3');
    assert.deepStrictEqual(place.get('x-b-bin'), [Buffer.from([0, 44, 255])]);
  }
  let error = await failure(call(client, 'Unary', [Buffer.alloc(0)],
    { status: 9, message: 'na\u00efve % \u2603' }));
  assert.deepStrictEqual([error.code, error.details],
    [9, 'na\u00efve % \u2603']);
  error = await failure(call(client, 'Unary', [Buffer.alloc(0)], { sleep: 5 },
    { deadline: Date.now() + 200 }));
  assert.strictEqual(error.code, 4);
  error = await failure(call(client, 'Unary', [Buffer.alloc(0)], {},
    { path: '/echo.Echo/Nothing' }));
  assert.strictEqual(error.code, 12);
  await cancel(client);
  client.close();
}

// After the first message of many.
function cancel(client) {
  return new Promise((resolve, reject) => {
    const stream = client.makeServerStreamRequest('/echo.Echo/ServerStream',
      same, same, Buffer.from('x'), metadata({ count: 1000, between: 0.01 }));
    stream.once('data', () => stream.cancel());
    stream.on('error', (error) => error.code === 1 ? resolve()
      : reject(error));
    stream.on('end', () => {});
  });
}

async function large() {
  const client = connect();
  const size = 64 << 20;
  const data = Buffer.alloc(size, 'all work and no play ');
  for (const shape of ['Unary', 'Bidi']) {
    const got = await call(client, shape, [data]);
    assert.ok(got.parts[0].equals(data), shape);
  }
  let received = 0;
  await new Promise((resolve, reject) => {
    const stream = client.makeServerStreamRequest('/echo.Echo/ServerStream',
      same, same, Buffer.alloc(0), metadata({ size: 1 << 20, count: 64 }));
    stream.on('error', reject);
    stream.on('end', resolve);
    stream.on('data', async (part) => {
      received += part.length;
      stream.pause();
      await sleep(5);
      stream.resume();
    });
  });
  assert.strictEqual(received, size);
  client.close();
}

async function many() {
  const client = connect();
  const calls = [];
  for (let n = 0; n < 1000; n++) {
    calls.push(call(client, 'Unary', [Buffer.from(`${n}`)], { sleep: 0.2 }));
  }
  const got = await Promise.all(calls);
  got.forEach((one, n) => assert.strictEqual(`${one.parts[0]}`, `${n}`));
  client.close();
}

async function retry() {
  const client = connect({ 'grpc.service_config': config,
    'grpc.enable_retries': 1 });
  const error = await failure(call(client, 'Unary', [Buffer.from('x')], null,
    { path: '/test.Svc/Unary' }));
  await sleep(300);  // longer than all backoffs: nothing may follow
  client.close();
  return { code: error.code };
}

({ talk, large, many, retry })[mode]().then(
  (result) => { console.log(JSON.stringify({ ok: true, ...result })); },
  (error) => {
    console.log(JSON.stringify({ error: `${error.stack || error}` }));
    process.exitCode = 1;
  });
