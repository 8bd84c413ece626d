// The echo server of server.py on @grpc/grpc-js: same arguments, same
// metadata, same log. Its SIGTERM is what HTTP/2 asks for: a GOAWAY that names
// the last stream it has taken. (grpcio's core cancels calls that arrive
// between its shutdown and its GOAWAY; no proxy can tell such a cancel from one
// in the middle of a call.)
'use strict';
const fs = require('node:fs');
const grpc = require('@grpc/grpc-js');

const args = Object.fromEntries(process.argv.slice(2).join(' ').split('--')
  .filter(Boolean).map((pair) => pair.trim().split(' ')));
const now = () => Number(process.hrtime.bigint()) / 1e9;
const sleep = (seconds) =>
  new Promise((done) => setTimeout(done, (seconds || 0) * 1000));
const log = args.log === undefined ? null : fs.openSync(args.log, 'a');

function write(id, method, what) {
  if (log !== null) {
    fs.writeSync(log, `${id} ${method} ${process.pid} ${now().toFixed(6)} ` +
      `${what} ${args.name || '-'}\n`);
  }
}

// What the metadata of a call ask for.
function begin(method, call) {
  const first = (key) => call.metadata.get(key)[0];
  const id = first('call-id') || '-';
  const options = JSON.parse(first('do') || '{}');
  write(id, method, 'run');
  const back = new grpc.Metadata();
  for (const key of Object.keys(call.metadata.getMap())) {
    if (!['do', 'call-id', 'user-agent'].includes(key)) {
      for (const value of call.metadata.get(key)) back.add(key, value);
    }
  }
  const echo = options.echo;
  if (echo === 'initial' || echo === 'both') call.sendMetadata(back);
  else if (options.first) call.sendMetadata(new grpc.Metadata());
  let ended = false;
  call.on('cancelled', () => { if (!ended) write(id, method, 'cancelled'); });
  return { ...options,
    payload: (data) => options.size === undefined ? data
      : Buffer.alloc(options.size),
    trailers: echo === 'trailing' || echo === 'both' ? back : undefined,
    error: () => options.status
      ? { code: options.status, details: options.message || '' } : null,
    end: () => {
      ended = true;
      if (!call.cancelled) write(id, method, 'end');
    },
  };
}

async function unary(call, callback) {
  const options = begin('Unary', call);
  await sleep(options.sleep);
  options.end();
  callback(options.error(), options.payload(call.request), options.trailers);
}

async function clientStream(call, callback) {
  const options = begin('ClientStream', call);
  const parts = [];
  for await (const part of call) parts.push(part);
  await sleep(options.sleep);
  options.end();
  callback(options.error(), options.payload(Buffer.concat(parts)),
    options.trailers);
}

const send = (call, data) => call.write(data) ? null
  : new Promise((done) => call.once('drain', done));

function finish(call, options) {
  options.end();
  const error = options.error();
  if (error) call.emit('error', error);
  else call.end(options.trailers);
}

async function serverStream(call) {
  const options = begin('ServerStream', call);
  await sleep(options.sleep);
  for (let n = 0; n < (options.count ?? 1); n++) {
    await send(call, options.payload(call.request));
    await sleep(options.between);
  }
  finish(call, options);
}

// Not with `for await`: that destroys the stream, both ways, at its end.
async function bidi(call) {
  const options = begin('Bidi', call);
  await sleep(options.sleep);
  call.on('data', async (part) => {
    call.pause();
    await send(call, options.payload(part));
    call.resume();
  });
  call.on('end', () => finish(call, options));
}

const same = (data) => data;
const method = (name, requestStream, responseStream) => ({
  path: `/echo.Echo/${name}`, requestStream, responseStream,
  requestSerialize: same, requestDeserialize: same,
  responseSerialize: same, responseDeserialize: same,
});

const server = new grpc.Server({
  'grpc.max_receive_message_length': -1, 'grpc.max_send_message_length': -1,
});
server.addService({
  Unary: method('Unary', false, false),
  ClientStream: method('ClientStream', true, false),
  ServerStream: method('ServerStream', false, true),
  Bidi: method('Bidi', true, true),
}, { Unary: unary, ClientStream: clientStream, ServerStream: serverStream,
  Bidi: bidi });

async function main() {
  if (args.at !== undefined) await sleep(args.at - now());
  server.bindAsync(`127.0.0.1:${args.port}`,
    grpc.ServerCredentials.createInsecure(), (error) => {
      if (error) throw error;
      console.log('ready');
    });
  process.on('SIGTERM', () => {
    server.tryShutdown(() => process.exit(0));
    setTimeout(() => process.exit(0), (args.grace || 10) * 1000).unref();
  });
}
main();
