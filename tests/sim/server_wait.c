/* Commands that wait at the model server: whoever has waited longest is served
 * first. */
#include "tests/sim/cluster_model.h"
#include "tests/sim/server_parts.h"

bool wait_begins(struct world *w,
                 struct session *c,
                 const struct model_command *m,
                 uint32_t request)
{
    struct server *s = c->server;
    uint64_t timeout_us;
    if (!model_blocks(m, &timeout_us) || !data_waits(s->data, c->ledger, m)) {
        return false;
    }
    c->blocked = true;
    s->n_blocked++;
    c->blocked_request = request;
    c->blocked_turn = ++s->waits;
    w->state.waits++;
    bytes_clear(&c->blocked_words);
    data_freeze(s->data, c->ledger, m, &c->blocked_words);
    if (request != NO_REQUEST) {
        history_waits(w, request);
    }
    if (timeout_us > 0) {
        world_wake(w, timeout_us, WAKE_UNBLOCK, c, c->blocked_turn);
    }
    return true;
}

void wait_forget(struct session *c)
{
    c->server->n_blocked -= c->blocked;
    c->blocked = false;
}

/* Nothing may be taken for a client that redial knows to be gone: its
 * connection must be on its way out. */
static void check_taker(struct world *w, const struct session *c)
{
    const struct link *l = c->link;
    bool gone = c->blocked_request != NO_REQUEST &&
                history_taker_gone(w, c->blocked_request);
    w->state.gone += gone;
    if (gone && l != NULL && l->engine_open) {
        world_violate(w, "I25: an element was taken for a client that is gone");
    }
}

/* Its command ends with what it finds now. */
static void finish(struct world *w, struct session *c)
{
    struct bytes reply = { 0 };
    struct model_command m;
    struct span words = bytes_span(&c->blocked_words);
    wait_forget(c);
    if (model_command_read(words, &m) == MODEL_DONE) {
        bool served = !data_waits(c->server->data, c->ledger, &m);
        w->state.served += served;
        if (served && data_writes(&m)) {
            check_taker(w, c);
        }
        data_command(c->server->data, c->ledger, &m, &reply);
        tracking_read(c, &m);
        command_executed(w, c, c->blocked_request, words, &reply);
    }
    session_send(w, c, &reply);
    bytes_fini(&reply);
    world_wake(w, 0, WAKE_UNBLOCK, c, 0); /* go on with what came behind */
}

static bool is_served(struct session *c)
{
    struct model_command m;
    struct span words = bytes_span(&c->blocked_words);
    return model_command_read(words, &m) == MODEL_DONE &&
           !data_waits(c->server->data, c->ledger, &m);
}

void wait_serve(struct world *w, struct server *s)
{
    bool again = s->n_blocked > 0;
    while (again && !world_broken(w)) {
        struct session *first = NULL;
        for (struct session *c = s->sessions; c != NULL; c = c->next) {
            if (c->blocked && is_served(c) &&
                (first == NULL || c->blocked_turn < first->blocked_turn)) {
                first = c;
            }
        }
        again = first != NULL;
        if (first != NULL) {
            finish(w, first);
        }
    }
}

void server_changed(struct world *w, struct server *s)
{
    wait_serve(w, s);
    tracking_tell(w, s);
}

static bool waits_in_slot(const struct session *c, int slot)
{
    struct model_command m;
    uint8_t index[MODEL_ARGS_MAX];
    struct span words = bytes_span(&c->blocked_words);
    return model_command_read(words, &m) == MODEL_DONE &&
           model_keys(&m, index) > 0 && model_slot(m.arg[index[0]]) == slot;
}

void server_force_unblock(struct world *w,
                          struct server *s,
                          int slot,
                          const char *error)
{
    for (struct session *c = s->sessions; c != NULL; c = c->next) {
        struct bytes reply = { 0 };
        if (!c->blocked || (slot >= 0 && !waits_in_slot(c, slot))) {
            continue;
        }
        bytes_add_text(&reply, error);
        wait_forget(c);
        if (c->blocked_request != NO_REQUEST) {
            history_refused(w, c->blocked_request, bytes_span(&reply));
        }
        session_send(w, c, &reply);
        bytes_fini(&reply);
        if (strncmp(error, "-UNBLOCKED", 10) == 0) {
            session_end(w, c, false); /* behind the error */
        } else {
            world_wake(w, 0, WAKE_UNBLOCK, c, 0);
        }
    }
}

void server_unblock(struct world *w, struct session *c, uint64_t turn)
{
    if (c->dead) {
        return;
    }
    if (c->server->stopped) {
        world_wake(w, 10000, WAKE_UNBLOCK, c, turn); /* it is asleep, too */
    } else if (turn == 0) {
        session_serve(w, c);
    } else if (c->blocked && c->blocked_turn == turn) {
        finish(w, c);
    }
}
