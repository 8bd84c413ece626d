/* Transactions of the model server. */
#include <stdlib.h>

#include "tests/sim/history_block.h"
#include "tests/sim/server_parts.h"

void block_forget(struct session *c)
{
    c->in_multi = false;
    c->multi_failed = false;
    c->n_queued = 0;
    bytes_clear(&c->queued);
    c->n_watched = 0;
}

static bool watched_changed(const struct session *c)
{
    for (unsigned i = 0; i < c->n_watched; i++) {
        if (data_version(c->watched[i].value) != c->watched[i].version) {
            return true;
        }
    }
    return false;
}

static bool watches(const struct session *c, const struct value *v)
{
    for (unsigned i = 0; i < c->n_watched; i++) {
        if (c->watched[i].value == v && c->watched[i].request == NO_REQUEST) {
            return true;
        }
    }
    return false;
}

static void on_watch(struct world *w,
                     struct session *c,
                     const struct model_command *m,
                     uint32_t request,
                     struct bytes *out)
{
    for (size_t i = 1; i < m->argc; i++) {
        struct value *v = data_at(c->server->data, c->ledger.db, m->arg[i]);
        if (watches(c, v)) {
            continue;
        }
        if (c->n_watched == WATCHED_MAX) {
            world_violate(w,
                          "I4: more keys are watched than a client asks for");
            return;
        }
        c->watched[c->n_watched++] = (struct watched){
            .value = v, .version = data_version(v), .request = request
        };
    }
    bytes_add_text(out, "+OK\r\n");
    if (request != NO_REQUEST) {
        history_executed(w, request, c, bytes_span(out));
    }
}

/* The commands of a block that is executed, as requests. */
struct block_log {
    uint32_t request[QUEUED_MAX];
    unsigned n;
};

static void run_queued(struct world *w,
                       struct session *c,
                       struct span words,
                       const struct model_command *m,
                       struct block_log *log,
                       struct bytes *out)
{
    struct bytes reply = { 0 };
    uint32_t request = history_find(w->history, words);
    if (model_arg_is(m, 0, "UNWATCH")) {
        bytes_add_text(&reply, "+OK\r\n");
    } else if (model_arg_is(m, 0, "PING")) {
        bytes_add_text(&reply, "+PONG\r\n");
    } else if (!pubsub_command(w, c, m, request, words, &reply) &&
               !login_command(w, c, m, &reply)) {
        data_command(c->server->data, c->ledger, m, &reply);
        tracking_read(c, m);
        command_executed(w, c, request, words, &reply);
    }
    if (request != NO_REQUEST && log->n < QUEUED_MAX) {
        log->request[log->n++] = request;
    }
    bytes_add(out, bytes_front(&reply), reply.size);
    bytes_fini(&reply);
}

static void exec_queued(struct world *w, struct session *c, struct bytes *out)
{
    struct bytes queued = c->queued;
    struct watched watched[WATCHED_MAX];
    unsigned n_watched = c->n_watched;
    struct block_log log = { .n = 0 };
    size_t at = 0;
    memcpy(watched, c->watched, sizeof watched);
    bytes_printf(out, "*%u\r\n", c->n_queued);
    c->queued = (struct bytes){ 0 };
    block_forget(c);
    while (at < queued.size) {
        struct span rest = { .data = bytes_front(&queued) + at,
                             .len = queued.size - at };
        struct model_command m;
        if (model_command_read(rest, &m) != MODEL_DONE) {
            abort();
        }
        rest.len = m.size;
        run_queued(w, c, rest, &m, &log, out);
        at += m.size;
    }
    bytes_fini(&queued);
    block_ran(w, log.request, log.n, watched, n_watched, bytes_span(out));
}

static bool queued_writes(const struct session *c)
{
    struct span rest = bytes_span(&c->queued);
    struct model_command m;
    while (rest.len > 0 && model_command_read(rest, &m) == MODEL_DONE) {
        if (data_writes(&m)) {
            return true;
        }
        rest.data += m.size;
        rest.len -= m.size;
    }
    return false;
}

static void on_exec(struct world *w, struct session *c, struct bytes *out)
{
    bool readonly = c->server->readonly_until > w->now_us && queued_writes(c);
    if (!c->in_multi) {
        bytes_add_text(out, "-ERR EXEC without MULTI\r\n");
    } else if (c->multi_failed || readonly) {
        bool failed = c->multi_failed;
        block_forget(c);
        bytes_add_text(out, failed ? "-EXECABORT Transaction discarded because "
                                     "of previous errors.\r\n"
                                   : "-EXECABORT Transaction discarded because "
                                     "of: READONLY You can't write against a "
                                     "read only replica.\r\n");
    } else if (watched_changed(c)) {
        block_forget(c);
        model_null_array_add(out, c->ledger.resp);
    } else {
        exec_queued(w, c, out);
    }
}

static void on_multi(struct session *c, struct bytes *out)
{
    bytes_add_text(out, c->in_multi ? "-ERR MULTI calls can not be nested\r\n"
                                    : "+OK\r\n");
    c->in_multi = true;
}

static void on_discard(struct session *c, struct bytes *out)
{
    if (!c->in_multi) {
        bytes_add_text(out, "-ERR DISCARD without MULTI\r\n");
        return;
    }
    block_forget(c);
    bytes_add_text(out, "+OK\r\n");
}

bool block_command(struct world *w,
                   struct session *c,
                   const struct model_command *m,
                   uint32_t request,
                   struct bytes *out)
{
    if (model_arg_is(m, 0, "MULTI")) {
        on_multi(c, out);
    } else if (model_arg_is(m, 0, "EXEC")) {
        on_exec(w, c, out);
    } else if (model_arg_is(m, 0, "DISCARD")) {
        on_discard(c, out);
    } else if (model_arg_is(m, 0, "WATCH") && c->in_multi) {
        bytes_add_text(out, "-ERR WATCH inside MULTI is not allowed\r\n");
        if (request != NO_REQUEST) {
            history_refused(w, request, bytes_span(out));
        }
    } else if (model_arg_is(m, 0, "WATCH")) {
        on_watch(w, c, m, request, out);
    } else if (model_arg_is(m, 0, "UNWATCH") && !c->in_multi) {
        c->n_watched = 0;
        bytes_add_text(out, "+OK\r\n");
    } else {
        return false;
    }
    return true;
}
