/* CLIENT TRACKING of the model server, in its default mode. */
#include "tests/sim/cluster_model.h"
#include "tests/sim/server_parts.h"

static void remember(struct session *c, struct value *v)
{
    for (size_t i = 0; i < c->n_tracked; i++) {
        if (c->tracked[i].value == v) {
            return; /* it is told of the first change since it was read first */
        }
    }
    if (c->n_tracked == c->tracked_cap) {
        c->tracked_cap = c->tracked_cap * 2 + 16;
        c->tracked =
            must_grow(c->tracked, c->tracked_cap * sizeof c->tracked[0]);
    }
    c->tracked[c->n_tracked++] =
        (struct tracked_key){ .value = v, .version = data_version(v) };
}

void tracking_read(struct session *c, const struct model_command *m)
{
    uint8_t index[MODEL_ARGS_MAX];
    if (!c->ledger.tracking || data_writes(m)) {
        return;
    }
    unsigned n = model_keys(m, index);
    for (unsigned i = 0; i < n; i++) {
        remember(c, data_at(c->server->data, c->ledger.db, m->arg[index[i]]));
    }
}

static void tell(struct world *w, struct session *c, struct span key)
{
    struct bytes push = { 0 };
    if (c->ledger.resp == 3) {
        bytes_add_text(&push, ">2\r\n$10\r\ninvalidate\r\n*1\r\n");
        model_bulk_add(&push, key);
        session_send(w, c, &push);
    }
    bytes_fini(&push);
}

void tracking_tell(struct world *w, struct server *s)
{
    for (struct session *c = s->sessions; c != NULL; c = c->next) {
        size_t kept = 0;
        for (size_t i = 0; i < c->n_tracked && !c->dead; i++) {
            struct tracked_key t = c->tracked[i];
            if (data_version(t.value) == t.version) {
                c->tracked[kept++] = t;
            } else {
                tell(w, c, data_key(t.value));
            }
        }
        c->n_tracked = kept;
    }
}
