#include "proxy/core/redis_tracking.h"

#include <inttypes.h>
#include <stdio.h>

#include "parser/number.h"
#include "parser/resp_command.h"
#include "proxy/core/ledger.h"
#include "proxy/core/redis_pubsub.h"
#include "proxy/core/state.h"

/* Subscribed to what changes are published on in RESP2. */
static bool hears(const struct ledger *l)
{
    return subscriber_hears(l, span_of("__redis__:invalidate"));
}

/* ---- clients, by the ids they know ------------------------------------------ */

static struct downstream *downstream_at(const struct engine *e, uint32_t i)
{
    struct conn *c = e->conns.entries[i].conn;
    return c != NULL && c->kind == CONN_DOWNSTREAM && !c->dead
               ? CONTAINER_OF(c, struct downstream, conn)
               : NULL;
}

static struct downstream *client_of(const struct engine *e, conn_id id)
{
    struct conn *c = id != 0 ? conn_find(e, id) : NULL;
    return c != NULL && c->kind == CONN_DOWNSTREAM && !c->dead
               ? CONTAINER_OF(c, struct downstream, conn)
               : NULL;
}

/* The server's id of d's own connection; 0: it has none. */
static uint64_t id_now(const struct downstream *d)
{
    return d->lane != NULL ? d->lane->client_id : 0;
}

/* The client of the same upstream whose connection has that id, or had it when it
 * last asked for it; NULL: none of redial's here. */
static struct downstream *find_by_id(const struct engine *e,
                                     const struct cluster *c,
                                     uint64_t id)
{
    struct downstream *knows = NULL;
    for (uint32_t i = 0; i < e->conns.n; i++) {
        struct downstream *d = downstream_at(e, i);
        if (d == NULL || d->ledger == NULL || d->listener->cluster != c ||
            !d->ledger->id_told) {
            continue;
        }
        if (id_now(d) == id) {
            return d;
        }
        knows = d->ledger->told_id == id ? d : knows;
    }
    return knows;
}

/* ---- REDIRECT ------------------------------------------------------------------ */

/* The number of the argument behind REDIRECT; 0: there is none. */
static size_t redirect_arg(const struct span *argv, size_t argc)
{
    for (size_t i = 3; i + 1 < argc; i++) {
        if (span_is_word(argv[i], "PREFIX")) {
            i++;
        } else if (span_is_word(argv[i], "REDIRECT")) {
            return i + 1;
        }
    }
    return 0;
}

/* The id behind REDIRECT in r; 0: there is none. */
static uint64_t redirect_id(struct engine *e, const struct request *r)
{
    struct request_args args;
    request_args_init(e, &args, r);
    size_t argc = args.argc < REQUEST_ARGS_MAX ? args.argc : REQUEST_ARGS_MAX;
    size_t at = redirect_arg(args.list, argc);
    int64_t id = 0;
    if (at == 0 || !number_parse(args.list[at], &id) || id < 0) {
        id = 0;
    }
    request_args_fini(e, &args);
    return (uint64_t)id;
}

/* The id that another connection has by now, instead of the one that r says. */
static bool write_id(struct engine *e, struct request *r, uint64_t id)
{
    struct request_args args;
    request_args_init(e, &args, r);
    bool done = false;
    if (args.argc > 0 && args.argc <= REQUEST_ARGS_MAX) {
        char text[24];
        snprintf(text, sizeof(text), "%" PRIu64, id);
        args.list[redirect_arg(args.list, args.argc)] = span_of(text);
        done = request_write(e, r, args.list, args.argc);
    }
    request_args_fini(e, &args);
    return done;
}

/* Let r, which redirects to `to`, say the id that one has now. False: r has been
 * answered. */
static bool aim_at(struct engine *e,
                   struct downstream *d,
                   struct request *r,
                   const struct downstream *to)
{
    uint64_t now = to != NULL ? id_now(to) : 0;
    if (now == 0) {
        downstream_answer_text(
            e, r, "-ERR The client ID you want redirect to does not exist\r\n");
        return false;
    }
    if (redirect_id(e, r) != now && !write_id(e, r, now)) {
        e->stats.limit_memory++;
        redis_refuse(e, d, r, "out of memory");
        return false;
    }
    return true;
}

bool tracking_aim(struct engine *e, struct downstream *d, struct request *r)
{
    struct ledger *l = ledger_get(e, d);
    uint64_t id = redirect_id(e, r);
    struct downstream *to =
        id != 0 ? find_by_id(e, d->listener->cluster, id) : NULL;
    if (l == NULL) {
        redis_refuse(e, d, r, "out of memory");
        return false;
    }
    l->aims_at = to != NULL ? to->conn.id : 0;
    return to == NULL || aim_at(e, d, r, to);
}

bool tracking_send(struct engine *e, struct request *r)
{
    struct downstream *d = r->downstream;
    conn_id aims_at = d->ledger != NULL ? d->ledger->aims_at : 0;
    if (r->attempts == 0 || aims_at == 0 || redirect_id(e, r) == 0) {
        return true;
    }
    return aim_at(e, d, r, client_of(e, aims_at));
}

void tracking_accepted(struct engine *e,
                       struct downstream *d,
                       const struct request *r)
{
    struct ledger *l = d->ledger;
    uint64_t id = redirect_id(e, r);
    struct downstream *to =
        id != 0 ? find_by_id(e, d->listener->cluster, id) : NULL;
    if (to == NULL && id != 0) {
        to = client_of(e, l->aims_at); /* it has been lost just now */
    }
    l->aims_at = 0;
    l->redirects = id != 0;
    l->redirect_id = id;
    l->redirect_to = to != NULL ? to->conn.id : 0;
    if (to != NULL && to->ledger != NULL) {
        to->ledger->is_told_for = true;
    }
}

static bool is_tracked(const struct ledger *l)
{
    for (const struct ledger_line *line = l->lines; line != NULL;
         line = line->next) {
        if (line->command->id == COMMAND_CLIENT_TRACKING) {
            return true;
        }
    }
    return false;
}

bool tracking_establish(struct engine *e,
                        struct upstream *u,
                        const struct ledger_line *line)
{
    struct span bytes = { line->bytes, line->len };
    struct span argv[REQUEST_ARGS_MAX];
    size_t argc = command_split(bytes, argv, REQUEST_ARGS_MAX);
    size_t at = argc <= REQUEST_ARGS_MAX ? redirect_arg(argv, argc) : 0;
    struct ledger *l = u->owner->ledger;
    if (at == 0) {
        return handshake_say_line(e, u, bytes);
    }
    struct downstream *to = client_of(e, l->redirect_to);
    if (to == NULL || to->ledger == NULL || to->lane == NULL) {
        /* The ids of a server begin anew when it does: the one it knows may be
         * a stranger's. */
        downstream_close(e, u->owner,
                         "its server connection was lost, and CLIENT TRACKING "
                         "was redirected to one that is not there any more, or "
                         "that redial does not know");
        return true;
    }
    if (id_now(to) == 0) {
        upstream_lost(e, u,
                      &(struct upstream_loss){
                          .why = "the connection that CLIENT TRACKING is "
                                 "redirected to is not there yet",
                          .tell = true });
        return false;
    }
    char text[24];
    l->redirect_id = id_now(to);
    snprintf(text, sizeof(text), "%" PRIu64, l->redirect_id);
    argv[at] = span_of(text);
    return handshake_say_words(e, u, argv, argc);
}

/* ---- forget all ------------------------------------------------------------------ */

/* Behind replies of the old connection that still wait for their turn, too. */
static bool tell_again(struct engine *e, struct downstream *d, struct span text)
{
    for (struct list_node *node = d->requests.prev; node != &d->requests;
         node = node->prev) {
        struct request *r = CONTAINER_OF(node, struct request, arrival);
        if (r->state == REQUEST_DONE && !r->quiet && r->reply.head != NULL) {
            d->held += text.len;
            return chain_push_copy(e->memory, &r->reply, text);
        }
    }
    return true;
}

static void tell(struct engine *e, struct downstream *d, struct span text)
{
    if (!redis_push_own(e, d, text) || !tell_again(e, d, text)) {
        e->stats.limit_memory++;
        downstream_close(e, d, "out of memory for what it has to forget");
    }
}

/* d must not believe any more what it has cached, or what somebody else has who
 * relies on it. */
static void flush(struct engine *e, struct downstream *d)
{
    static const char push[] = ">2\r\n$10\r\ninvalidate\r\n_\r\n";
    static const char message[] =
        "*3\r\n$7\r\nmessage\r\n$20\r\n__redis__:invalidate\r\n$-1\r\n";
    bool resp3 = downstream_session(e, d)->resp == 3;
    if (downstream_gone(d) || (!resp3 && !hears(d->ledger))) {
        return; /* it has nothing to be told by */
    }
    d->listener->cluster->stats.cache_flushes++;
    tell(e, d, span_of(resp3 ? push : message));
}

/* What d has cached may be wrong. */
static void flush_cache_of(struct engine *e, struct downstream *d)
{
    const struct ledger *l = d->ledger;
    if (!is_tracked(l)) {
        return;
    }
    if (!l->redirects) {
        if (downstream_session(e, d)->resp == 3) {
            flush(e, d);
        }
        return;
    }
    struct downstream *to = client_of(e, l->redirect_to);
    if (to != NULL && to->ledger != NULL) {
        flush(e, to);
    }
}

void tracking_lost(struct engine *e, struct upstream *u)
{
    struct downstream *d = u->owner;
    struct ledger *l = d->ledger;
    if (l == NULL || downstream_gone(d)) {
        return;
    }
    if (l->id_told && e->workers > 1 && hears(l)) {
        downstream_close(e, d,
                         "its server connection was lost, and clients of other "
                         "workers may have redirected CLIENT TRACKING to it");
        return;
    }
    flush_cache_of(e, d);
    if (l->is_told_for && !downstream_gone(d)) {
        flush(e, d);
    }
}

/* d's server connection has another id. Those who had redirected to the old one
 * must redirect to this one. */
static void aim_again(struct engine *e, const struct downstream *d)
{
    for (uint32_t i = 0; i < e->conns.n; i++) {
        struct downstream *from = downstream_at(e, i);
        const struct ledger *l = from != NULL ? from->ledger : NULL;
        struct upstream *u = from != NULL ? from->lane : NULL;
        if (l == NULL || u == NULL || from == d || !l->redirects ||
            l->redirect_to != d->conn.id || l->redirect_id == id_now(d) ||
            u->state != UPSTREAM_UP || !is_tracked(l)) {
            continue;
        }
        if (from->block != BLOCK_NONE || from->watching ||
            from->session_unknown) {
            upstream_lost(e, u,
                          &(struct upstream_loss){
                              .why = "CLIENT TRACKING was redirected to a "
                                     "connection that was lost",
                              .tell = true });
            continue;
        }
        u->renew = true;
        if (list_empty(&u->in_flight)) {
            upstream_renew(e, u);
        }
    }
}

void tracking_up(struct engine *e, struct upstream *u)
{
    struct downstream *d = u->owner;
    if (d->ledger == NULL || downstream_gone(d)) {
        return;
    }
    flush_cache_of(e, d);
    if (d->ledger->is_told_for) {
        flush(e, d);
        aim_again(e, d);
    }
}

/* ---- CLIENT CACHING ---------------------------------------------------------------- */

void tracking_caching(struct engine *e, struct downstream *d, struct request *r)
{
    struct request_args args;
    request_args_init(e, &args, r);
    bool known = args.argc == 3;
    bool yes = known && span_is_word(args.list[2], "YES");
    bool no = known && span_is_word(args.list[2], "NO");
    request_args_fini(e, &args);
    if ((yes || no) && ledger_get(e, d) == NULL) {
        redis_refuse(e, d, r, "out of memory");
        return;
    }
    d->caching = CACHING_NONE; /* of one before it */
    redis_submit(e, d, r);
    d->caching = yes ? CACHING_YES : no ? CACHING_NO : CACHING_NONE;
}

bool tracking_prepare(struct engine *e, struct upstream *u, struct request *r)
{
    static const char yes[] =
        "*3\r\n$6\r\nCLIENT\r\n$7\r\nCACHING\r\n$3\r\nYES\r\n";
    static const char no[] =
        "*3\r\n$6\r\nCLIENT\r\n$7\r\nCACHING\r\n$2\r\nNO\r\n";
    struct ledger *l = r->downstream->ledger;
    if (l == NULL) {
        return true;
    }
    if (r->task == TASK_CACHING) {
        l->caching_conn = u->link->conn.id;
        return true;
    }
    if (l->caching_conn == u->link->conn.id) {
        return true;
    }
    return upstream_send_own(e, u, TASK_ASIDE, 0,
                             span_of(r->caching == CACHING_YES ? yes : no));
}
