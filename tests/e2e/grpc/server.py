#!/usr/bin/python3
"""A gRPC echo server on grpcio, without generated code.

    server.py --port PORT [--log FILE] [--name NAME]

/echo.Echo/Unary, ClientStream, ServerStream, Bidi, each with any suffix. What
a call does is said by its metadata, one JSON object under "do":

    sleep      seconds before the answer
    between    seconds between the messages of an answer
    size       bytes of each answer message (else what was sent comes back)
    count      messages of a ServerStream (1)
    status     the status code to end with, after all messages
    message    its text
    first      send the headers before anything else
    echo       "initial", "trailing" or "both": send all metadata back there
    gzip       compress the answer

Each execution writes one line to the log before it does anything: call id
(metadata "call-id"), method, pid, monotonic time, "run". "end" or "cancelled"
follow. O_APPEND and one write() each: executions can be counted over kill -9
and over several servers with one file.

SIGTERM ends it gracefully: GOAWAY, and calls may finish.
"""

import argparse
import asyncio
import json
import os
import signal
import sys
import time

import grpc
from grpc import aio

METHODS = ("Unary", "ClientStream", "ServerStream", "Bidi")


class Log:
    def __init__(self, path, name):
        self.name = name
        self.file = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT,
                            0o644) if path else None

    def write(self, call, method, what):
        if self.file is not None:
            os.write(self.file, f"{call} {method} {os.getpid()} "
                                f"{time.monotonic():.6f} {what} "
                                f"{self.name}\n".encode())


class Call:
    """What the metadata of one call ask for."""

    def __init__(self, log, method, context):
        self.log, self.method, self.context = log, method, context
        self.metadata = [(key, value) for key, value
                         in context.invocation_metadata()]
        options = dict(self.metadata)
        self.id = options.get("call-id", "-")
        self.do = json.loads(options.get("do", "{}"))

    async def __aenter__(self):
        self.log.write(self.id, self.method, "run")
        if self.do.get("gzip"):
            self.context.set_compression(grpc.Compression.Gzip)
        echo = self.do.get("echo")
        back = [pair for pair in self.metadata
                if pair[0] not in ("do", "call-id", "user-agent")]
        if echo in ("trailing", "both"):
            self.context.set_trailing_metadata(back)
        if echo in ("initial", "both"):
            await self.context.send_initial_metadata(back)
        elif self.do.get("first"):
            await self.context.send_initial_metadata(())
        return self

    async def __aexit__(self, kind, *_):
        self.log.write(self.id, self.method,
                       "end" if kind is None or kind is grpc.aio.AbortError
                       else "cancelled")

    async def sleep(self):
        if self.do.get("sleep"):
            await asyncio.sleep(self.do["sleep"])

    async def between(self):
        if self.do.get("between"):
            await asyncio.sleep(self.do["between"])

    def payload(self, data):
        return bytes(self.do["size"]) if "size" in self.do else data

    async def finish(self):
        if self.do.get("status"):
            for code in grpc.StatusCode:
                if code.value[0] == self.do["status"]:
                    await self.context.abort(
                        code, self.do.get("message", ""))


def handlers(log):
    async def unary(request, context):
        async with Call(log, "Unary", context) as call:
            await call.sleep()
            await call.finish()
            return call.payload(request)

    async def client_stream(requests, context):
        async with Call(log, "ClientStream", context) as call:
            parts = [part async for part in requests]
            await call.sleep()
            await call.finish()
            return call.payload(b"".join(parts))

    async def server_stream(request, context):
        async with Call(log, "ServerStream", context) as call:
            await call.sleep()
            payload = call.payload(request)
            for _ in range(call.do.get("count", 1)):
                await context.write(payload)
                await call.between()
            await call.finish()

    async def bidi(requests, context):
        async with Call(log, "Bidi", context) as call:
            await call.sleep()
            async for request in requests:
                await context.write(call.payload(request))
                await call.between()
            await call.finish()
    return {
        "Unary": grpc.unary_unary_rpc_method_handler(unary),
        "ClientStream": grpc.stream_unary_rpc_method_handler(client_stream),
        "ServerStream": grpc.unary_stream_rpc_method_handler(server_stream),
        "Bidi": grpc.stream_stream_rpc_method_handler(bidi),
    }


class Echo(grpc.GenericRpcHandler):
    def __init__(self, log):
        self.handlers = handlers(log)

    def service(self, details):
        method = details.method.rsplit("/", 1)[1]
        for name in METHODS:
            if method.startswith(name):
                return self.handlers[name]
        return None


def channel_options(pairs):
    found = [("grpc.so_reuseport", 0),
             ("grpc.max_receive_message_length", -1),
             ("grpc.max_send_message_length", -1),
             ("grpc.max_metadata_size", 64 * 1024)]
    for pair in pairs:
        key, value = pair.split("=", 1)
        found.append((key, int(value)))
    return found


async def serve(options):
    # Started early, so that the time of Python's start does not count.
    if options.at:
        await asyncio.sleep(options.at - time.monotonic())
    server = aio.server(options=channel_options(options.option))
    server.add_generic_rpc_handlers(
        [Echo(Log(options.log, options.name))])
    port = server.add_insecure_port(f"127.0.0.1:{options.port}")
    assert port == options.port, f"no port: {port}"
    await server.start()
    ended = asyncio.Event()
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, ended.set)
    print("ready", flush=True)
    await ended.wait()
    await server.stop(options.grace)


def main():
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--port", type=int, required=True)
    parser.add_argument("--log")
    parser.add_argument("--name", default="-")
    parser.add_argument("--grace", type=float, default=10)
    parser.add_argument("--at", type=float,
                        help="listen when the monotonic clock says so")
    parser.add_argument("--option", action="append", default=[],
                        help="of the channel: grpc.max_connection_age_ms=1000")
    asyncio.run(serve(parser.parse_args()))


if __name__ == "__main__":
    sys.exit(main())
