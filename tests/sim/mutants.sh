#!/bin/sh
# Prove the simulator's checks: break a copy of the core in one way each, and
# demand that the simulator fails. Usage: mutants.sh [source-dir] [work-dir]
src=$(cd "${1:-.}" && pwd) || exit 2
work=${2:-/tmp/sim-mutants}
seeds=${SEEDS:-1-1000}
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
for kind in --single --cluster; do
    if ! "$work/build/tests/sim/sim" $kind --seeds "$seeds" --quiet \
        >"$work/out" 2>&1; then
        echo "the simulator fails $kind without any mutant; see $work/out"
        exit 1
    fi
done
kind=--single

# mutant NAME FILE SED-EXPRESSION: must change the file and be found.
mutant() {
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
echo "$missed mutants not found"
exit $((missed > 0))
