#include "proxy/core/ledger.h"

#include "proxy/core/lane_pool.h"
#include "proxy/core/redis_block.h"
#include "proxy/core/redis_pubsub.h"
#include "proxy/core/redis_tracking.h"
#include "proxy/core/state.h"

struct ledger *ledger_get(struct engine *e, struct downstream *d)
{
    if (d->ledger == NULL) {
        d->ledger = memory_take(e->memory, sizeof(*d->ledger));
        if (d->ledger == NULL) {
            e->stats.limit_memory++;
            return NULL;
        }
        d->ledger->owner = d;
    }
    return d->ledger;
}

/* Forget the lines of a command (NULL: all). */
static void drop_lines(struct engine *e,
                       struct ledger *l,
                       const struct command *command)
{
    struct ledger_line **at = &l->lines;
    while (*at != NULL) {
        struct ledger_line *line = *at;
        if (command != NULL && line->command != command) {
            at = &line->next;
            continue;
        }
        *at = line->next;
        l->lines_bytes -= line->len;
        memory_give(e->memory, line);
    }
}

void ledger_free(struct engine *e, struct downstream *d)
{
    struct ledger *l = d->ledger;
    if (l == NULL) {
        return;
    }
    lane_pool_leave(e, d);
    drop_lines(e, l, NULL);
    block_log_free(e, l);
    subscriber_free(e, l);
    d->held -= l->late.bytes;
    chain_clear(e->memory, &l->late);
    memory_give(e->memory, l);
    d->ledger = NULL;
}

bool ledger_holds_lane(const struct ledger *l)
{
    return l->lines != NULL || l->id_told || l->tracked || l->waits_here ||
           subscriber_holds_lane(l);
}

/* "CLIENT NO-EVICT OFF": nothing of it is left. */
static bool ends_it(struct engine *e, const struct request *r)
{
    struct request_args args;
    request_args_init(e, &args, r);
    bool off = args.argc == 3 && span_is_word(args.list[2], "OFF");
    request_args_fini(e, &args);
    return off;
}

/* Whether what r says adds to what was said before: the prefixes of BCAST. */
static bool adds_up(struct engine *e, const struct request *r)
{
    struct request_args args;
    request_args_init(e, &args, r);
    bool found = args.argc > REQUEST_ARGS_MAX;
    for (size_t i = 3; i < args.argc && !found; i++) {
        found = span_is_word(args.list[i], "BCAST");
    }
    request_args_fini(e, &args);
    return found;
}

bool ledger_note(struct engine *e,
                 struct downstream *d,
                 const struct request *r)
{
    struct ledger *l = ledger_get(e, d);
    if (l == NULL) {
        return false;
    }
    if (ends_it(e, r)) {
        drop_lines(e, l, r->command);
        return true;
    }
    if (r->part.buf == NULL || r->more.head != NULL ||
        r->part.len > LEDGER_LINES_BYTES_MAX - l->lines_bytes) {
        return false;
    }
    struct ledger_line *line =
        memory_take(e->memory, sizeof(*line) + r->part.len);
    if (line == NULL) {
        e->stats.limit_memory++;
        return false;
    }
    /* With CLIENT TRACKING OFF the server forgets none of its keys. */
    l->tracked = l->tracked || r->command->id == COMMAND_CLIENT_TRACKING;
    line->command = r->command;
    line->len = r->part.len;
    memcpy(line->bytes, slice_data(&r->part), r->part.len);
    if (r->command->id != COMMAND_CLIENT_TRACKING || !adds_up(e, r)) {
        drop_lines(e, l, r->command);
    }
    struct ledger_line **at = &l->lines;
    while (*at != NULL) {
        at = &(*at)->next;
    }
    *at = line;
    l->lines_bytes += line->len;
    return true;
}

bool ledger_establish(struct engine *e, struct upstream *u)
{
    const struct ledger *l = u->owner->ledger;
    if (l == NULL) {
        return true;
    }
    if (u->subscribes) {
        return subscriber_establish(e, u);
    }
    for (const struct ledger_line *line = l->lines; line != NULL;
         line = line->next) {
        u->spoilt = true;
        bool tracks = line->command->id == COMMAND_CLIENT_TRACKING;
        struct span bytes = { line->bytes, line->len };
        if (tracks ? !tracking_establish(e, u, line)
                   : !handshake_say_line(e, u, bytes)) {
            return false;
        }
    }
    u->spoilt = u->spoilt || l->id_told;
    return subscriber_establish(e, u) && block_log_establish(e, u);
}
