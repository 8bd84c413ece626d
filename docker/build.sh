#!/bin/sh
# Build the image of docker/Dockerfile without a container engine, start it in
# front of a private redis-server, and ask it something. Called by `./run image`,
# as root.
#
# Everything lies in build/image/, also the container storage: nothing of the
# machine's own images is touched. The result is build/image/redial.tar.
set -eu

cd "$(dirname "$0")/.."
work=$(pwd)/build/image
suite=bookworm # of the Dockerfile's debian:12-slim
export BUILDAH_ISOLATION=chroot STORAGE_DRIVER=vfs

say() { printf '%s\n' "$*"; }
die() {
    printf 'image: %s\n' "$*" >&2
    exit 1
}
[ "$(id -u)" = 0 ] || die 'needs root: debootstrap and chroot'

builder() {
    buildah --root "$work/storage" --runroot "$work/runroot" "$@"
}

# --- the base image ----------------------------------------------------------

same_debian() {
    grep -q "^VERSION_CODENAME=$suite" /etc/os-release
}

# Where this machine takes its packages from, if it is the same Debian.
mirror() {
    same_debian || return 0
    cat /etc/apt/sources.list.d/*.sources 2>/dev/null |
        sed -n 's/^URIs: *\([^ ]*\).*/\1/p' | head -n 1
    sed -n 's/^deb  *\(\[[^]]*\] *\)*\([^ ]*\).*/\2/p' /etc/apt/sources.list \
        2>/dev/null | head -n 1
}

# Let apt in the build stage reach packages the way this machine does: through
# its mirrors and proxies. The final image has none of it: it starts from
# scratch.
copy_apt_settings() { # BASE
    apt-config dump | grep -E '^Acquire::(http|https|Check|Retries|Force)' \
        >"$1/etc/apt/apt.conf.d/90machine" || true
    same_debian || return 0
    rm -f "$1/etc/apt/sources.list"
    for list in /etc/apt/sources.list /etc/apt/sources.list.d/debian.sources; do
        [ ! -f "$list" ] || cp "$list" "$1$list"
    done
    cp -r /usr/share/keyrings/debian-archive-* "$1/usr/share/keyrings/"
    cp -r /etc/apt/trusted.gpg.d/debian-archive-* "$1/etc/apt/trusted.gpg.d/"
}

make_base() {
    if builder inspect --type image debian:12-slim >/dev/null 2>&1; then
        return 0
    fi
    say 'making debian:12-slim with debootstrap'
    rm -rf "$work/base"
    # shellcheck disable=SC2046 # no mirror, no argument
    debootstrap --variant=minbase "$suite" "$work/base" \
        $(mirror | head -n 1) >"$work/debootstrap.log" 2>&1 || {
        tail -n 20 "$work/debootstrap.log" >&2
        die 'debootstrap failed'
    }
    copy_apt_settings "$work/base"
    container=$(builder from scratch)
    builder add --quiet "$container" "$work/base" / >/dev/null
    builder commit --quiet "$container" debian:12-slim >/dev/null
    builder rm "$container" >/dev/null
    rm -rf "$work/base"
}

# --- trying it ---------------------------------------------------------------

redis_pid=
run_pid=
container=

# The program started by `buildah run`: the last of the chain of children.
last_child() { # PID
    pid=$1
    while child=$(cat "/proc/$pid/task/"*/children 2>/dev/null |
        tr ' ' '\n' | grep . | head -n 1) && [ -n "$child" ]; do
        pid=$child
    done
    printf '%s' "$pid"
}

# shellcheck disable=SC2317 # called by trap
end() {
    trap - EXIT
    [ -z "$run_pid" ] || kill "$(last_child "$run_pid")" 2>/dev/null || true
    [ -z "$run_pid" ] || wait "$run_pid" 2>/dev/null || true
    [ -z "$redis_pid" ] || kill "$redis_pid" 2>/dev/null || true
    [ -z "$redis_pid" ] || wait "$redis_pid" 2>/dev/null || true
    [ -z "$container" ] || builder rm "$container" >/dev/null 2>&1 || true
}

wait_for() { # WHAT COMMAND...
    what=$1
    shift
    tries=0
    until "$@" >/dev/null 2>&1; do
        tries=$((tries + 1))
        if [ $tries -gt 100 ]; then
            cat "$work/run.log" >&2
            die "$what: no answer"
        fi
        sleep 0.1
    done
}

expect() { # WHAT WANTED FOUND
    [ "$2" = "$3" ] || die "$1: expected '$2', got '$3'"
    say "ok: $1"
}

try_image() {
    trap end EXIT
    trap 'exit 130' INT TERM
    redis_port=22379
    port=22400
    admin=22401
    : >"$work/run.log"
    redis-server --port $redis_port --bind 127.0.0.1 --save '' \
        --dir "$work" >>"$work/run.log" 2>&1 &
    redis_pid=$!

    container=$(builder from --pull=never redial)
    builder run "$container" -- /usr/bin/redial \
        --listen 127.0.0.1:$port --admin 127.0.0.1:$admin \
        redis://127.0.0.1:$redis_port >>"$work/run.log" 2>&1 &
    run_pid=$!
    wait_for 'redial in its image' redis-cli -p $port -e dbsize

    expect 'SET through the image' OK "$(redis-cli -p $port set key value)"
    expect 'GET from the server itself' value \
        "$(redis-cli -p $redis_port get key)"
    expect 'ready, says the admin port' 200 "$(curl -s -o /dev/null \
        -w '%{http_code}' http://127.0.0.1:$admin/ready)"
    program=$(last_child "$run_pid")
    expect 'not root' 65532 \
        "$(awk '/^Uid:/ { print $2 }' "/proc/$program/status")"
    kill "$program"
    status=0
    wait "$run_pid" || status=$?
    run_pid=
    expect 'SIGTERM ends it with code 0' 0 $status
}

mkdir -p "$work"
make_base
say 'building redial'
builder build --pull=never --layers=false -q -f docker/Dockerfile -t redial . \
    >"$work/build.log" 2>&1 || {
    tail -n 40 "$work/build.log" >&2
    die 'the build failed'
}
try_image
rm -f "$work/redial.tar"
builder push -q redial "docker-archive:$work/redial.tar:redial:latest"
say "build/image/redial.tar: $(du -k "$work/redial.tar" | cut -f 1) KiB"
say 'load it with: docker load -i build/image/redial.tar'
