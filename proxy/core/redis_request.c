/* What arrives from a client: each command is sent to the right lane, or
 * answered here when it concerns the connection only (redis.md §2). */
#include <assert.h>
#include <stdio.h>

#include "parser/number.h"
#include "proxy/core/lane_pool.h"
#include "proxy/core/learn.h"
#include "proxy/core/ledger.h"
#include "proxy/core/redis_blocking.h"
#include "proxy/core/redis_pubsub.h"
#include "proxy/core/redis_tracking.h"
#include "proxy/core/state.h"

static struct cluster *cluster_of(const struct downstream *d)
{
    return d->listener->cluster;
}

void redis_refuse(struct engine *e,
                  struct downstream *d,
                  struct request *r,
                  const char *why)
{
    request_give_up(e, r, cluster_of(d), OUTCOME_NOT_SENT, GIVE_UP_POLICY, why);
}

/* How long the reply may take (redis.md §5 attempt_timeout). */
static uint64_t patience_us(const struct downstream *d, const struct request *r)
{
    uint64_t limit_us = cluster_of(d)->config->attempt_timeout_us;
    return r->blocking != NULL ? blocking_patience_us(r) : limit_us;
}

void redis_submit(struct engine *e, struct downstream *d, struct request *r)
{
    const struct upstream_config *config = cluster_of(d)->config;
    /* What had to wait for a reply of a living server is not late for it: on a
     * direct connection it would have waited too (redis.md §5 "deadline"). */
    uint64_t from_us =
        r->arrived_us > d->served_us ? r->arrived_us : d->served_us;
    r->deadline_us =
        r->blocking == NULL
            ? from_us + config->deadline_us
            : blocking_deadline_us(r, from_us, config->deadline_us);
    if (d->caching != CACHING_NONE) {
        r->caching = d->caching;
        d->caching = CACHING_NONE;
        d->session_unknown = d->session_unknown || r->opens_block;
    }
    r->open = true;
    d->n_open++;
    d->n_replica_open += r->from_replica;
    if (config->attempt_timeout_us > 0) {
        r->patience_us = patience_us(d, r);
    }
    redis_send(e, d, r);
}

bool redis_is_bare(struct engine *e, const struct request *r)
{
    struct request_args args;
    request_args_init(e, &args, r);
    size_t argc = args.argc;
    request_args_fini(e, &args);
    return argc == 1;
}

static enum lane_answer bind_first(struct engine *e,
                                   struct downstream *d,
                                   struct request *r)
{
    const struct cluster *c = cluster_of(d);
    if (c->config->lanes == LANES_PRIVATE && c->slots == NULL) {
        return redis_want_private(e, d, r);
    }
    if (!redis_bind_shared(e, d)) {
        redis_refuse(e, d, r, "out of memory");
        return LANE_REFUSED;
    }
    return LANE_READY;
}

/* ---- connections of their own -------------------------------------------- */

static bool dispatch_private(struct engine *e,
                             struct downstream *d,
                             struct request *r)
{
    enum lane_answer lane = redis_want_private(e, d, r);
    if (lane == LANE_READY) {
        redis_submit(e, d, r);
    }
    return lane != LANE_LATER;
}

/* CLIENT KILL with an id that a client has been told as its own (CLIENT ID): it
 * is meant for that client, which is not to be given another connection. */
static void mark_killed(struct engine *e,
                        const struct downstream *d,
                        const struct request *r)
{
    struct request_args args;
    uint64_t id = 0;
    request_args_init(e, &args, r);
    for (size_t i = 2; i + 1 < args.argc && i + 1 < REQUEST_ARGS_MAX; i += 2) {
        int64_t number = 0;
        if (span_is_word(args.list[i], "ID") &&
            number_parse(args.list[i + 1], &number) && number > 0) {
            id = (uint64_t)number;
        }
    }
    request_args_fini(e, &args);
    const struct endpoint *p = d->lane != NULL ? d->lane->endpoint : NULL;
    if (id == 0 || p == NULL) {
        return;
    }
    LIST_FOR_EACH (node, &p->lanes) {
        struct upstream *u = CONTAINER_OF(node, struct upstream, endpoint_node);
        if (u->owner != NULL && u->client_id == id &&
            u->owner->ledger != NULL && u->owner->ledger->id_told) {
            u->killed_us = e->now_us;
        }
    }
}

/* In a cluster a connection is what it is to one node only: what is set there
 * are hints (CLIENT NO-EVICT), and end with the lane. */
static bool dispatch_hint(struct engine *e,
                          struct downstream *d,
                          struct request *r)
{
    if (r->command->id == COMMAND_CLIENT_LINE) {
        r->task = TASK_LINE; /* once it is said, nobody else gets the lane */
    }
    bool taken = dispatch_private(e, d, r);
    if (!taken) {
        r->task = TASK_FORWARD;
    } else if (r->own_lane && r->command->class == CLASS_C) {
        d->lane->spoilt = true;
    }
    return taken;
}

/* What its connection is to the server from now on. */
static bool dispatch_kept(struct engine *e,
                          struct downstream *d,
                          struct request *r)
{
    enum command_id id = r->command->id;
    if (id == COMMAND_CLIENT_TRACKING && !tracking_aim(e, d, r)) {
        return true;
    }
    if (id == COMMAND_CLIENT_LINE || id == COMMAND_CLIENT_TRACKING) {
        r->task = TASK_LINE;
    } else if (id == COMMAND_CLIENT_ID) {
        r->task = TASK_ID;
    } else if (id == COMMAND_CLIENT_CACHING) {
        r->task = TASK_CACHING;
    } else if (r->command->class == CLASS_C) {
        d->session_unknown = true;
    }
    enum lane_answer lane = redis_want_private(e, d, r);
    if (lane == LANE_LATER) {
        r->task = TASK_FORWARD;
        return false;
    }
    if (lane == LANE_READY && id == COMMAND_CLIENT_CACHING) {
        tracking_caching(e, d, r);
    } else if (lane == LANE_READY) {
        redis_submit(e, d, r);
    }
    if (id == COMMAND_CLIENT_KILL) {
        mark_killed(e, d, r);
    }
    return true;
}

static bool dispatch_watch(struct engine *e,
                           struct downstream *d,
                           struct request *r)
{
    if (d->watch_lost && !redis_is_bare(e, r)) {
        /* The next EXEC is null whatever else is watched, and does not reach
         * the server, which would go on watching for the one after it. */
        cluster_of(d)->stats.local_replies++;
        downstream_answer_text(e, r, "+OK\r\n");
        return true;
    }
    r->watches = true;
    r->first_watch = !d->watching;
    bool taken = dispatch_private(e, d, r);
    d->watching = d->watching || (taken && r->own_lane);
    return taken;
}

/* From here on replies cannot be matched with requests: whatever the server
 * sends goes to the client as it is. */
static bool dispatch_raw(struct engine *e,
                         struct downstream *d,
                         struct request *r)
{
    if (d->n_open > 0) {
        return false;
    }
    enum lane_answer lane = redis_want_private(e, d, r);
    if (lane == LANE_READY) {
        r->task = TASK_RAW;
        d->alone = true;
        redis_submit(e, d, r);
    }
    return lane != LANE_LATER;
}

static bool pass_raw(struct engine *e, struct downstream *d, struct request *r)
{
    if (!upstream_has_room(d->lane)) {
        return false;
    }
    r->task = TASK_RAW;
    r->own_lane = true;
    redis_submit(e, d, r);
    return true;
}

/* Several nodes answer it. */
static bool asks_several(const struct downstream *d, const struct command *c)
{
    return c->route >= ROUTE_SPLIT_VALUES && cluster_of(d)->slots != NULL;
}

/* A script that is debugged is a conversation: its replies answer no requests.
 */
static bool dispatch_script_debug(struct engine *e,
                                  struct downstream *d,
                                  struct request *r)
{
    struct request_args args;
    request_args_init(e, &args, r);
    bool on = args.argc == 3 && (span_is_word(args.list[2], "YES") ||
                                 span_is_word(args.list[2], "SYNC"));
    request_args_fini(e, &args);
    if (on) {
        return dispatch_raw(e, d, r);
    }
    redis_submit(e, d, r);
    return true;
}

/* Something of d goes round a script, and is not answered. */
static bool has_aside_open(const struct downstream *d)
{
    LIST_FOR_EACH (node, &d->requests) {
        const struct request *q = CONTAINER_OF(node, struct request, arrival);
        if (q->open && q->aside) {
            return true;
        }
    }
    return false;
}

/* A server in a long script does not read the connection that the script came
 * over, so what ends it goes over another one. It overtakes what its client has
 * in flight (on a connection of its own the server would have refused that with
 * BUSY by now), but not a script of that client itself: nor would it directly.
 * What asks about functions does not overtake what changes them either. */
static bool dispatch_aside(struct engine *e,
                           struct downstream *d,
                           struct request *r)
{
    bool asks = r->command->class != CLASS_A; /* FUNCTION STATS */
    LIST_FOR_EACH (node, &d->requests) {
        const struct request *q = CONTAINER_OF(node, struct request, arrival);
        unsigned id = q->open && q->command != NULL ? q->command->id : 0;
        if (id == COMMAND_SCRIPT_CALL ||
            (asks && id == COMMAND_FUNCTION_CHANGE)) {
            return false;
        }
    }
    r->aside = true;
    if (asks_several(d, r->command)) {
        return redis_gather(e, d, r);
    }
    redis_submit(e, d, r);
    return true;
}

/* ---- answered here -------------------------------------------------------- */

static bool dispatch_quit(struct engine *e,
                          struct downstream *d,
                          struct request *r)
{
    cluster_of(d)->stats.local_replies++;
    downstream_answer_text(e, r, "+OK\r\n");
    downstream_drop_new(e, d);
    downstream_finish(e, d);
    return true;
}

static bool dispatch_reset(struct engine *e,
                           struct downstream *d,
                           struct request *r)
{
    if (d->n_open > 0) {
        return false;
    }
    if (!redis_is_bare(e, r)) {
        redis_submit(e, d, r); /* refused by the server */
        return true;
    }
    /* The lane is left while it is known what is on it; the next command finds
     * the right one. */
    downstream_unbind(e, d);
    ledger_free(e, d);
    session_free(e, d->session);
    d->session = NULL;
    d->block = BLOCK_NONE;
    d->multi_owed = false;
    d->watching = false;
    d->watch_held = false;
    d->watch_lost = false;
    r->quiet = r->quiet && !d->reply_off; /* SKIP is meant for this one */
    d->reply_off = false;
    d->subscribed = false;
    d->session_unknown = false;
    d->caching = CACHING_NONE;
    cluster_of(d)->stats.local_replies++;
    downstream_answer_text(e, r, "+RESET\r\n");
    return true;
}

static bool dispatch_reply_mode(struct engine *e,
                                struct downstream *d,
                                struct request *r)
{
    struct request_args args;
    request_args_init(e, &args, r);
    struct span mode = args.argc == 3 ? args.list[2] : (struct span){ 0 };
    bool on = span_is_word(mode, "ON");
    bool off = span_is_word(mode, "OFF");
    bool skip = span_is_word(mode, "SKIP");
    request_args_fini(e, &args);
    if (args.argc != 3 || !(on || off || skip) || redis_unauthenticated(d)) {
        redis_submit(e, d, r); /* the server knows the words for this */
        return true;
    }
    cluster_of(d)->stats.local_replies++;
    if (on) {
        d->reply_off = false;
        r->quiet = false;
    } else {
        d->reply_off = d->reply_off || off;
        d->reply_skip = skip && !d->reply_off;
        r->quiet = true;
    }
    downstream_answer_text(e, r, "+OK\r\n");
    return true;
}

static bool needs_password(const struct engine *e, const struct downstream *d)
{
    const struct listener_config *config = d->listener->config;
    return config->auth == AUTH_OWN && config->password != NULL &&
           !downstream_session(e, d)->authenticated;
}

/* ASKING, READONLY, READWRITE of a client that knows clusters: which node
 * answers is redial's business. */
static bool answer_ok(struct engine *e, struct downstream *d, struct request *r)
{
    cluster_of(d)->stats.local_replies++;
    downstream_answer_text(e, r, "+OK\r\n");
    return true;
}

static bool dispatch_by_id(struct engine *e,
                           struct downstream *d,
                           struct request *r)
{
    if (r->command->route == ROUTE_CONNECTION && cluster_of(d)->slots != NULL &&
        redis_is_bare(e, r)) {
        return answer_ok(e, d, r);
    }
    if (redis_cluster_view(e, d, r)) {
        return true;
    }
    switch ((enum command_id)r->command->id) {
    case COMMAND_AUTH: return redis_auth(e, d, r);
    case COMMAND_HELLO: return redis_hello(e, d, r);
    case COMMAND_SELECT: return redis_select(e, d, r);
    case COMMAND_CLIENT_SETNAME: return redis_setname(e, d, r);
    case COMMAND_CLIENT_GETNAME: return redis_getname(e, d, r);
    case COMMAND_CLIENT_SETINFO: return redis_setinfo(e, d, r);
    case COMMAND_CLIENT_REPLY: return dispatch_reply_mode(e, d, r);
    case COMMAND_RESET: return dispatch_reset(e, d, r);
    case COMMAND_QUIT: return dispatch_quit(e, d, r);
    case COMMAND_MULTI: return redis_multi(e, d, r);
    case COMMAND_SUBSCRIBE:
    case COMMAND_UNSUBSCRIBE:
    case COMMAND_MONITOR: return redis_subscribe(e, d, r);
    case COMMAND_SYNC: return dispatch_raw(e, d, r);
    case COMMAND_WATCH: return dispatch_watch(e, d, r);
    case COMMAND_UNWATCH:
    case COMMAND_DISCARD:
    case COMMAND_EXEC: /* outside of a block: harmless on any lane */
        if (r->command->id == COMMAND_UNWATCH && redis_is_bare(e, r)) {
            r->own_lane = d->lane != NULL; /* where the watch is */
            d->watching = false;
            d->watch_lost = false;
        }
        redis_submit(e, d, r);
        return true;
    case COMMAND_CLIENT_TRACKING:
    case COMMAND_CLIENT_LINE:
    case COMMAND_CLIENT_CACHING:
    case COMMAND_CLIENT_ID:
    case COMMAND_CLIENT_KILL:
    case COMMAND_WAIT: break;
    case COMMAND_SCRIPT_DEBUG: return dispatch_script_debug(e, d, r);
    case COMMAND_ASIDE: return dispatch_aside(e, d, r);
    case COMMAND_FUNCTION_CHANGE:
        if (has_aside_open(d)) {
            return false; /* FUNCTION STATS tells of what was before */
        }
        break;
    case COMMAND_SCRIPT_CALL:
    case COMMAND_SCRIPT_LOAD:
    case COMMAND_SCRIPT_FLUSH:
    case COMMAND_OTHER: break;
    }
    bool cluster = cluster_of(d)->slots != NULL;
    if (cluster && r->command->id == COMMAND_CLIENT_TRACKING) {
        /* One node would tell of its own keys only, and a cache that is not
         * told of a change is wrong for good. */
        redis_refuse(e, d, r, "not possible in a cluster through redial");
        return true;
    }
    if (r->command->flags & COMMAND_BLOCKING) {
        return redis_blocking(e, d, r);
    }
    if (r->command->flags & COMMAND_PRIVATE) {
        return cluster ? dispatch_hint(e, d, r) : dispatch_kept(e, d, r);
    }
    if (asks_several(d, r->command)) {
        return redis_gather(e, d, r);
    }
    redis_submit(e, d, r);
    return true;
}

/* A request larger than replay_bytes_max, most of which has not arrived. */
static bool dispatch_large(struct engine *e,
                           struct downstream *d,
                           struct request *r)
{
    enum command_id id = r->command != NULL ? r->command->id : COMMAND_OTHER;
    bool lost = cluster_of(d)->slots != NULL && r->command != NULL &&
                r->command->key_rule != 0 && r->slot == SLOT_NOT_LOOKED_FOR;
    if (lost || (id != COMMAND_OTHER && id < COMMAND_SCRIPT_CALL) ||
        (r->command != NULL && asks_several(d, r->command))) {
        redis_refuse(e, d, r, "it is larger than replay_bytes_max");
        return true;
    }
    return dispatch_private(e, d, r);
}

static bool is_connection_command(const struct request *r)
{
    enum command_id id = r->command != NULL ? r->command->id : COMMAND_OTHER;
    return id == COMMAND_AUTH || id == COMMAND_HELLO || id == COMMAND_QUIT ||
           id == COMMAND_RESET;
}

static bool dispatch_special(struct engine *e,
                             struct downstream *d,
                             struct request *r)
{
    if (needs_password(e, d) && !is_connection_command(r)) {
        cluster_of(d)->stats.local_replies++;
        downstream_answer_text(e, r, "-NOAUTH Authentication required.\r\n");
        return true;
    }
    if (d->block == BLOCK_BROKEN && r->arrived_us >= d->block_until_us) {
        d->block = BLOCK_NONE;
    }
    if (d->block != BLOCK_NONE && r->command != NULL &&
        (r->command->id == COMMAND_QUIT || r->command->id == COMMAND_RESET)) {
        return dispatch_by_id(e, d, r);
    }
    if (d->block != BLOCK_NONE) {
        return redis_in_block(e, d, r);
    }
    if (r->streaming) {
        return dispatch_large(e, d, r);
    }
    if (d->large_replies && d->lane == NULL && d->n_open == 0 &&
        cluster_of(d)->topology == NULL && lane_pool_has_room(cluster_of(d))) {
        /* Its large replies would keep others waiting on a shared lane. */
        if (redis_want_private(e, d, r) == LANE_REFUSED) {
            return true;
        }
    }
    if (r->command == NULL) {
        redis_submit(e, d, r);
        return true;
    }
    return dispatch_by_id(e, d, r);
}

/* A cluster: where the command would go nobody knows of the subscriptions. */
static bool refuse_subscriber(struct engine *e, struct request *r)
{
    char name[64];
    char text[192];
    size_t i = 0;
    for (const char *c = r->command->name; *c != '\0' && i < 63; c++) {
        bool upper = *c >= 'A' && *c <= 'Z';
        name[i++] = *c == ' ' ? '|' : upper ? (char)(*c - 'A' + 'a') : *c;
    }
    name[i] = '\0';
    snprintf(text, sizeof(text),
             "-ERR Can't execute '%s': only (P|S)SUBSCRIBE / (P|S)UNSUBSCRIBE "
             "/ PING / QUIT / RESET are allowed in this context\r\n",
             name);
    cluster_of(r->downstream)->stats.local_replies++;
    downstream_answer_text(e, r, text);
    return true;
}

/* RESP2 with subscriptions: besides these the server takes PING, and has the
 * words for all others. */
static bool dispatch_subscribed(struct engine *e,
                                struct downstream *d,
                                struct request *r)
{
    switch (r->command != NULL ? r->command->id : COMMAND_OTHER) {
    case COMMAND_SUBSCRIBE:
    case COMMAND_UNSUBSCRIBE: return redis_subscribe(e, d, r);
    case COMMAND_QUIT: return dispatch_quit(e, d, r);
    case COMMAND_RESET: return dispatch_reset(e, d, r);
    default: break;
    }
    if (cluster_of(d)->slots == NULL) {
        r->own_lane = true;
        redis_submit(e, d, r);
        return true;
    }
    if (r->command == NULL || strcmp(r->command->name, "PING") == 0) {
        r->by_subscriber = true;
        redis_submit(e, d, r);
        return true;
    }
    return refuse_subscriber(e, r);
}

/* Nothing about it concerns the connection: the common case. */
static bool is_plain(const struct downstream *d, const struct request *r)
{
    const struct command *c = r->command;
    if (d->block != BLOCK_NONE || r->streaming || d->large_replies ||
        d->listener->config->auth == AUTH_OWN) {
        return false;
    }
    return c == NULL ||
           ((c->id == COMMAND_OTHER || (c->id >= COMMAND_SCRIPT_CALL &&
                                        c->id != COMMAND_FUNCTION_CHANGE)) &&
            !(c->flags & (COMMAND_PRIVATE | COMMAND_BLOCKING)) &&
            (c->route < ROUTE_CONNECTION || cluster_of(d)->slots == NULL));
}

/* The server drops a connection that says so (it takes it for an attack by way
 * of a browser); on a shared lane that would drop everybody. */
static bool speaks_http(struct engine *e, const struct request *r)
{
    struct request_args args;
    request_args_init(e, &args, r);
    bool http = args.argc > 0 && (span_is_word(args.list[0], "POST") ||
                                  span_is_word(args.list[0], "HOST:"));
    request_args_fini(e, &args);
    return http;
}

/* Whether what its client has in flight lets r go, when there are several
 * servers. */
static bool may_go(const struct cluster *c,
                   struct downstream *d,
                   struct request *r)
{
    if (d->map_version != c->version || d->asked) {
        /* What is open went by another map: it comes first, or two requests
         * for one key could meet in the wrong order (redis.md §4 rule 7). */
        if (d->n_open > 0) {
            return false;
        }
        d->map_version = c->version;
        d->asked = false;
    }
    return c->config->read_from == READ_PRIMARY || redis_choose_side(d, r);
}

/* See that r is answered. judged: it waited for the lane before. */
static bool dispatch(struct engine *e,
                     struct downstream *d,
                     struct request *r,
                     bool judged)
{
    if (d->lane == NULL && d->shared == NULL) {
        enum lane_answer lane = bind_first(e, d, r);
        if (lane != LANE_READY) {
            return lane == LANE_REFUSED;
        }
    }
    if (d->alone && !r->judged) {
        return false;
    }
    const struct cluster *c = cluster_of(d);
    if (c->topology != NULL && !may_go(c, d, r)) {
        return false;
    }
    if (judged && r->own_lane && d->lane == NULL && d->n_open > 0) {
        return false; /* it will have another lane, and overtakes nothing */
    }
    if (judged) {
        bool whole = !r->in_block && !r->fragment && r->gather == NULL &&
                     r->command != NULL && asks_several(d, r->command);
        if (whole) {
            return redis_gather(e, d, r); /* it can be taken apart now */
        }
        if (redis_follow(e, d, r)) { /* the map may have changed since */
            redis_submit(e, d, r);
        }
        return true;
    }
    bool again = r->judged; /* its command was learnt since */
    bool skip = d->reply_skip;
    if (!again) {
        r->quiet = d->reply_off || skip;
        d->reply_skip = false;
    }
    r->judged = true;
    bool taken = true;
    if (d->lane != NULL && d->lane->raw) {
        taken = pass_raw(e, d, r);
    } else if (d->subscribed) {
        taken = dispatch_subscribed(e, d, r);
    } else if (is_plain(d, r)) {
        redis_submit(e, d, r);
    } else {
        taken = dispatch_special(e, d, r);
    }
    if (!taken && !again) {
        r->judged = false;
        d->reply_skip = skip;
    }
    return taken;
}

/* r has no row in any table. A server may have told of it since it arrived;
 * then it was not judged right. But behind it a block may have begun, to which
 * it does not belong. */
static bool is_known_now(struct engine *e,
                         const struct downstream *d,
                         struct request *r)
{
    struct cluster *c = cluster_of(d);
    bool settled = r->judged && (r->in_block || d->block != BLOCK_NONE);
    if (!settled && learn_look_again(e, c, r)) {
        return true;
    }
    learn_unknown(e, c);
    return false;
}

/* A command about keys, of a client of one server about which there is nothing
 * to be minded: nearly all are. */
static bool is_common(const struct downstream *d, const struct request *r)
{
    const struct command *c = r->command;
    return c != NULL && c->id == COMMAND_OTHER &&
           !(c->flags & (COMMAND_PRIVATE | COMMAND_BLOCKING)) &&
           d->uncommon == 0 && d->lane == NULL && d->shared != NULL &&
           !r->judged && r->uncommon == 0 && cluster_of(d)->topology == NULL &&
           d->listener->config->auth != AUTH_OWN;
}

bool redis_dispatch(struct engine *e, struct downstream *d, struct request *r)
{
    if (is_common(d, r)) {
        r->judged = true;
        redis_submit(e, d, r);
        return true;
    }
    if (r->command != NULL) {
        return dispatch(e, d, r, r->judged);
    }
    if (speaks_http(e, r)) {
        downstream_close(e, d, "it speaks HTTP");
        return true;
    }
    bool known = is_known_now(e, d, r);
    bool taken = dispatch(e, d, r, r->judged && !known);
    if (!taken && known) {
        r->command = NULL; /* as it comes again, it is found again */
    }
    return taken;
}
