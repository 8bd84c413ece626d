"""What stands between h2load and the echo server in grpc_bench.py."""

import os

import targets

# Each may hold all clients at once, with a server connection for each stream
# where a proxy has no more than one on a connection.
CONNECTIONS_MAX = 1024

HAPROXY = """\
global
    nbthread 1
    maxconn {connections}
defaults
    mode http
    timeout connect 5s
    timeout client 1h
    timeout server 1h
frontend grpc_in
    bind 127.0.0.1:{port} proto h2
    default_backend grpc_out
backend grpc_out
    server echo 127.0.0.1:{echo_port} proto h2
"""

NGINX = """\
daemon off;
master_process off;
pid {folder}/nginx-{port}.pid;
error_log {folder}/nginx-{port}.log;
worker_rlimit_nofile {files};
events {{ worker_connections {files}; }}
http {{
    access_log off;
    client_body_temp_path {folder}/nginx-{port}.body;
    proxy_temp_path {folder}/nginx-{port}.proxy;
    fastcgi_temp_path {folder}/nginx-{port}.fastcgi;
    uwsgi_temp_path {folder}/nginx-{port}.uwsgi;
    scgi_temp_path {folder}/nginx-{port}.scgi;
    upstream echo {{
        server 127.0.0.1:{echo_port};
        keepalive {connections};
        keepalive_requests 1000000000;
    }}
    server {{
        listen 127.0.0.1:{port} http2 backlog=1024;
        keepalive_requests 1000000000;
        http2_max_concurrent_streams 256;
        location / {{ grpc_pass grpc://echo; }}
    }}
}}
"""


def _haproxy(program, echo_port):
    def command(port, folder):
        text = HAPROXY.format(
            port=port, echo_port=echo_port, connections=CONNECTIONS_MAX
        )
        path = targets.write(folder, f"haproxy-{port}.cfg", text)
        return [program, "-db", "-f", path]

    return targets.Target("haproxy", targets.first_line([program, "-v"]), command)


def _nginx(program, echo_port):
    def command(port, folder):
        text = NGINX.format(
            port=port,
            echo_port=echo_port,
            folder=folder,
            connections=CONNECTIONS_MAX,
            files=2 * CONNECTIONS_MAX,
        )
        path = targets.write(folder, f"nginx-{port}.conf", text)
        return [program, "-p", folder, "-c", path]

    return targets.Target("nginx", targets.first_line([program, "-v"]), command)


def _nghttpx(program, echo_port):
    def command(port, folder):
        # One process, so that all its time is found under one number.
        return [
            program, "--single-process", "--workers=1", "--conf=/dev/null",
            f"--frontend=127.0.0.1,{port};no-tls",
            f"--backend=127.0.0.1,{echo_port};;proto=h2",
            "--errorlog-file=/dev/null", "--accesslog-file=/dev/null",
        ]  # fmt: skip

    version = targets.first_line([program, "--version"])
    return targets.Target("nghttpx", version, command)


def echo(build):
    """The server itself, which also counts as a target: its instructions are
    what one session costs."""
    program = os.path.join(build, "tests/bench/grpc_echo")
    return targets.Target(
        "echo", "tests/bench/grpc_echo.c", lambda port, _: [program, str(port)]
    )


def proxies(build, echo_port, note):
    """Every proxy this machine has, the relay and redial first."""
    relay = os.path.join(build, "tests/bench/relay")
    found = [
        targets.Target(
            "relay",
            "tests/bench/relay.c",
            lambda port, _: [relay, str(port), str(echo_port)],
        ),
        targets.redial(build, f"grpc://127.0.0.1:{echo_port}"),
    ]
    others = {"nghttpx": _nghttpx, "haproxy": _haproxy, "nginx": _nginx}
    for name, make in others.items():
        program = targets.find(name)
        if program is None:
            note(f"{name} is not installed: left out")
        else:
            found.append(make(program, echo_port))
    return found
