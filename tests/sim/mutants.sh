#!/bin/sh
# Prove the simulator's checks: break a copy of the core in one way each, and
# demand that the simulator fails. Usage: mutants.sh [source-dir] [work-dir]
src=$(cd "${1:-.}" && pwd) || exit 2
work=${2:-/tmp/sim-mutants}
seeds=${SEEDS:-1-1000}
kinds=${KINDS:---single --cluster --grpc --stateful} # whose mutants
missed=0

rm -rf "$work"
mkdir -p "$work/src" || exit 2
for part in CMakeLists.txt cmake parser config proxy tests; do
    cp -r "$src/$part" "$work/src/" || exit 2
done
cmake -S "$work/src" -B "$work/build" -G Ninja \
    -DCMAKE_BUILD_TYPE=RelWithDebInfo >"$work/log" 2>&1 || exit 2
cmake --build "$work/build" --target sim >>"$work/log" 2>&1 || exit 2

# Unbroken it must pass, or the rest proves nothing.
for kind in $kinds; do
    if ! "$work/build/tests/sim/sim" $kind --seeds "$seeds" --quiet \
        >"$work/out" 2>&1; then
        echo "the simulator fails $kind without any mutant; see $work/out"
        exit 1
    fi
done
kind=--single

# mutant NAME FILE SED-EXPRESSION: must change the file and be found.
mutant() {
    case " $kinds " in
    *" $kind "*) ;;
    *) return ;;
    esac
    file=$work/src/proxy/core/$2
    cp "$file" "$work/original"
    sed "$3" "$work/original" >"$file"
    if cmp -s "$file" "$work/original"; then
        echo "$1: the code it changes is not there any more"
        missed=$((missed + 1))
    elif ! cmake --build "$work/build" --target sim >>"$work/log" 2>&1; then
        echo "$1: does not build"
        missed=$((missed + 1))
    elif timeout 300 "$work/build/tests/sim/sim" $kind --seeds "$seeds" --quiet \
        >"$work/out" 2>"$work/err"; then
        echo "$1: NOT FOUND"
        missed=$((missed + 1))
    else
        echo "$1: $(grep -aE '^(seed|no cluster)' "$work/err" | head -n 1 | cut -c 1-100)"
    fi
    cp "$work/original" "$file"
}

mutant 'replay INCR on EOF' settle.c \
    's/return needed <= (unsigned)level_for(e, config, r);/return true;/'
mutant 'take what was sent for unsent' settle.c \
    's/\.outcome = sent ? OUTCOME_AMBIGUOUS : OUTCOME_NOT_SENT/.outcome = OUTCOME_NOT_SENT/'
mutant 'take what was not sent for lost' settle.c \
    's/\.outcome = sent ? OUTCOME_AMBIGUOUS : OUTCOME_NOT_SENT/.outcome = OUTCOME_AMBIGUOUS/'
mutant 'GET replayed past a later SET' settle.c \
    's/item->replay = items\[j\]\.replay && item->constant;/item->replay = true;/'
mutant 'NA after an ambiguous attempt' redis_give_up.c \
    's/bool unknown = .*;/bool unknown = false;/'
mutant 'a write replayed though the fence was refused' upstream_send.c \
    's/if (r->write_replay && u->fence_needed && !u->fence_done)/if (false)/'
mutant 'no CLIENT KILL' redis_handshake.c \
    's/if (!u->fence_needed || /u->fence_done = true; if (true || /'
mutant 'SELECT forgotten on a new lane' redis_handshake.c \
    's/if (u->session->db != 0)/if (false)/'
mutant 'AUTH forgotten on a new lane' redis_handshake.c \
    's/^    if (s->username.data != NULL.*{$/    if (false) {/'
mutant 'replies out of order' downstream.c \
    's/if (d->requests\.next == &r->arrival) {/if (true) {/'
mutant 'no limit of replays' retry.c \
    's/in->replays_max >= 0 && in->replays >= in->replays_max/false/'
mutant 'deadline ignored' upstream_send.c \
    's/return e->now_us >= r->deadline_us;/return false;/'
mutant 'private_lanes_max ignored' redis_request.c \
    's/if (p->lanes_private >= cluster_of(d)->config->private_lanes_max)/if (false)/'
mutant 'hello reply leaked' upstream.c \
    '0,/chain_clear(e->memory, &u->hello);/s//u->hello = (struct chain){ 0 };/'

# In a cluster.
kind=--cluster
mutant 'INCR replayed after a failover' settle.c \
    's/return needed <= (unsigned)level_for(e, config, r);/return true;/'
mutant 'no ASKING' upstream_send.c \
    's/if ((r->asking \&\& /if ((false \&\& r->asking \&\& /'
mutant 'ASK forgotten: the command stays where it was' redis_redirect.c \
    's/r->node = asking ? (uint16_t)to->index : 0;/r->node = 0;/'
mutant 'the slot patched on ASK' topology_adopt.c \
    's/bool moved = error->kind == REDIS_ERROR_MOVED;/bool moved = true;/'
mutant 'a redirect ends as an answer' redis_reply.c \
    's/case REDIRECT_FOLLOW:.*/case REDIRECT_FOLLOW: return false;/'
mutant 'allow_nodes ignored' allow_nodes.c \
    's/^    if (address->is_unix) {$/    if (true) { return NULL; } if (address->is_unix) {/'
mutant 'values merged in the wrong order' redis_split.c \
    's/g->piece_of_key\[k\] = found->place;/g->piece_of_key[k] = 0;/'
mutant 'what is in front of a refused one is taken back' redis_reply.c \
    's/downstream_recall(e, d, r);/downstream_recall(e, d, NULL);/'
mutant 'SCAN forgets that slots have moved and come back' redis_everywhere.c \
    's/g->layout = LAYOUT_HAS_CHANGED;/;/'
mutant 'reads of replicas behind unanswered writes' redis_replica.c \
    's/d->n_open == d->n_replica_open;/true;/'

# gRPC.
kind=--grpc
mutant 'what was sent is taken for unsent' grpc_attempt.c \
    's/attempt_failed(e, call, sent ? GRPC_F3_AMBIGUOUS : GRPC_F1_UNSENT,/attempt_failed(e, call, GRPC_F1_UNSENT,/'
mutant 'what may have run is always retried' grpc_retry.c \
    's/case GRPC_F8_NOT_GRPC: return may_run_twice(q);/case GRPC_F8_NOT_GRPC: return true;/'
mutant 'a blanket policy retries streams' grpc_retry.c \
    's/               q->ended->single;/               true;/'
mutant 'no_retry_methods ignored' grpc_retry.c \
    's/return method->policy->retry \&\& !method->no_retry;/return method->policy->retry;/'
mutant 'no limit of attempts' grpc_retry.c \
    's/return max > before ? max - before : 1;/return max + before + 100;/'
mutant 'attempts of the client are not shared' grpc_retry.c \
    's/return max > before ? max - before : 1;/return max + (before \&\& 0);/'
mutant 'pushback NO ignored' grpc_retry.c \
    's/if (ended->pushback == GRPC_PUSHBACK_NO) {$/if (false) {/'
mutant 'retried after the commit' grpc_retry.c \
    's/= !ended->committed \&\& ended->log_intact \&\&/=/;s/ended->class != GRPC_F6_COMMITTED;/true;/'
mutant 'the deadline of a call forgotten' grpc_call.c \
    's/grpc_call_wake_at(e, call, call->deadline_us);/(void)0;/'
mutant 'grpc-timeout not reduced' grpc_fields.c \
    's/add_timeout(f, call->deadline_us - now_us);/add_timeout(f, call->deadline_us - call->begun_us);/'
mutant 'attempts header forgotten' grpc_fields.c \
    's/^    if (before > 0) {/    if (before > 1000000) {/'
mutant 'a replay that begins at 1' grpc_log.c \
    's/^    log->sent = 0;/    log->sent = log->sent > 0 ? 1 : 0;/'
mutant 'the last byte of a reply is missing' grpc_reply.c \
    's/size_t n = call->reply.bytes < max ? call->reply.bytes : max;/&\n    n -= call->state == GRPC_CALL_DONE \&\& n > 0;/'
mutant 'connection credit forgotten for clients' grpc_client.c \
    's/h2_credit_connection(h, bytes.len); .*/(void)bytes;/'
mutant 'connection credit of reset streams forgotten' ../../parser/h2_receive.c \
    's/^        h2_credit_connection(h, len);/        (void)len;/'
mutant 'stream credit of replies forgotten' grpc_reply.c \
    's/^    grpc_attempt_credit(e, call, n);/    (void)n;/'
mutant 'log bytes not given back' grpc_log.c \
    's/e->grpc.log_bytes -= log->replayable;/(void)e;/'
mutant 'reply bytes not given back' grpc_reply.c \
    's/e->grpc.bytes -= call->reply.bytes;/(void)e;/'
mutant 'the unit of a retry kept' grpc_retry.c 's/^        b->retries--;/        (void)b;/'
mutant 'clients not told to stop' grpc_call.c \
    's/call->stop = call->stop || grpc_reply_stops_client(call);/(void)0;/'
mutant 'a cancelled attempt goes on' grpc_attempt.c \
    's/^        h2_reset(link->h2, call->up, code);/        (void)code;/'
mutant 'max_queued_calls ignored' grpc_channel.c \
    's/if (ch->n_waiting >= config->max_queued_calls) {/if (false) {/'
mutant 'max_calls ignored' grpc_request.c 's/if (e->grpc.calls >= max || /if (/'
mutant 'trailers of our own wait for a window' grpc_reply.c \
    's/} else if (call->forwarded) {/} else if (call->forwarded) {\n        grpc_reply_more(e, call);\n    } else if (false) {/'
# What lives in a connection.
kind=--stateful
mutant 'a wait begins anew elsewhere' redis_blocking.c \
    's/uint64_t end_us = b->since_us + b->timeout_us;/uint64_t end_us = e->now_us + b->timeout_us;/'
mutant 'who leaves while it waits keeps its lane' downstream.c \
    's/ || is_blocked(d)) {/) {/'
mutant 'a lost WATCH forgotten' redis_transaction.c \
    's/bool null = d->watch_lost;/bool null = false;/;s/if (is_exec \&\& d->watch_lost \&\& !redis_block_abort(e, r)) {/if (false) {/'
mutant 'a lane given on as it is' lane_pool.c 's/^    if (u->dirty) {/    if (false) {/'
mutant 'a block begun again without its first command' redis_block.c \
    's/for (uint32_t i = 0; kept \&\& i < log->n; i++) {/for (uint32_t i = 1; kept \&\& i < log->n; i++) {/'
mutant 'not subscribed again' redis_pubsub.c \
    's/^    if (!carries(s, u)) {/    if (true) {/'
mutant 'pushes dropped' redis_reply.c \
    's/^        on_push(e, u, m);/        chain_clear(e->memory, \&u->partial);/'
mutant 'caches not flushed' redis_tracking.c \
    's/^            flush(e, d);/            (void)d;/'
echo "$missed mutants not found"
exit $((missed > 0))
