/* MOVED, ASK and what else a node says when a request belongs elsewhere
 * (redis.md §9). */
#include "proxy/core/redis_block.h"
#include "proxy/core/state.h"

const char redis_crossslot[] =
    "-CROSSSLOT Keys in request don't hash to the same slot\r\n";

bool redis_is_redirect(enum redis_error_kind kind)
{
    return kind == REDIS_ERROR_MOVED || kind == REDIS_ERROR_ASK ||
           kind == REDIS_ERROR_TRYAGAIN || kind == REDIS_ERROR_CLUSTERDOWN;
}

/* By the map again, after a while. */
static void start_anew(struct request *r)
{
    r->node = 0;
    r->asking = false;
    r->hops = 0;
    r->avoid_replica = true;
}

/* The node cannot do it now: count, and find out whether another one can. */
static void note_refusal(struct engine *e,
                         struct cluster *c,
                         struct request *r,
                         enum redis_error_kind kind)
{
    start_anew(r);
    c->stats.redirects_tryagain += kind == REDIS_ERROR_TRYAGAIN;
    c->stats.redirects_clusterdown += kind == REDIS_ERROR_CLUSTERDOWN;
    c->stats.redirects_readonly += kind == REDIS_ERROR_READONLY;
    if (kind == REDIS_ERROR_CLUSTERDOWN) {
        topology_want(e, c, "a server answered CLUSTERDOWN");
    } else if (kind == REDIS_ERROR_READONLY) {
        topology_want(e, c, "a server answered READONLY");
    } else if (kind == REDIS_ERROR_UNBLOCKED) {
        topology_want(e, c, "a server has become a replica");
    } else if (kind == REDIS_ERROR_MASTERDOWN) {
        topology_want(e, c, "a server answered MASTERDOWN");
    }
}

static enum redirect follow(struct engine *e,
                            struct upstream *u,
                            struct request *r,
                            const struct redis_error *error,
                            const char **why)
{
    struct cluster *c = u->endpoint->cluster;
    bool asking = error->kind == REDIS_ERROR_ASK;
    struct endpoint *to = topology_redirect(e, u, error, why);
    if (to == NULL) {
        c->stats.redirects_refused++;
        return REDIRECT_REFUSE;
    }
    if (r->streaming) {
        *why = "it is larger than replay_bytes_max, and its slot has moved";
        return REDIRECT_REFUSE;
    }
    c->stats.redirects_ask += asking;
    c->stats.redirects_moved += !asking;
    r->hops++;
    if (r->hops > c->config->redirects_max) {
        c->stats.limit_redirects_max++;
        engine_trace_limit(e, c, "redirects_max");
        topology_want(e, c, "a request was redirected too often");
        start_anew(r);
        return REDIRECT_FOLLOW;
    }
    r->avoid_replica = true;
    r->downstream->asked = r->downstream->asked || asking;
    r->asking = asking;
    r->node = asking ? (uint16_t)to->index : 0;
    if (!asking && r->slot != slot_plus(error->slot)) {
        r->slot = slot_plus(error->slot); /* the server knows better */
    }
    return REDIRECT_FOLLOW;
}

static bool begins_with_word(struct span text, const char *word)
{
    size_t len = strlen(word);
    return text.len > len && memcmp(text.data, word, len) == 0 &&
           text.data[len] <= ' ';
}

/* MOVED or ASK with a slot or port that cannot be. A script may say so itself,
 * after it has written. */
static bool is_malformed(const struct request *r, struct span head)
{
    bool script = r->command != NULL && r->command->id == COMMAND_SCRIPT_CALL;
    return !script &&
           (begins_with_word(head, "-MOVED") || begins_with_word(head, "-ASK"));
}

enum redirect redis_redirect(struct engine *e,
                             struct upstream *u,
                             struct request *r,
                             const struct redis_error *error,
                             struct span head,
                             const char **why)
{
    struct cluster *c = u->endpoint->cluster;
    bool moved =
        error->kind == REDIS_ERROR_MOVED || error->kind == REDIS_ERROR_ASK;
    if (c->slots == NULL ||
        (r->task != TASK_FORWARD && r->task != TASK_SUBSCRIBE)) {
        note_refusal(e, c, r, error->kind);
        return REDIRECT_NONE;
    }
    if (r->in_block && redis_is_redirect(error->kind)) {
        /* Another slot than that of the block, or by the map it was no business
         * of this node before: the block spans several slots. */
        uint16_t slot = block_log_slot(r->downstream);
        bool crosses =
            moved &&
            (slot == SLOT_NONE ? c->slots[error->slot] != u->endpoint->index
                               : slot != slot_plus(error->slot));
        if (error->kind == REDIS_ERROR_MOVED) {
            topology_redirect(e, u, error, why);
        }
        if (crosses && r->command->id != COMMAND_EXEC) {
            return REDIRECT_CROSSSLOT;
        }
        *why = "its slot is moving to another node";
        return REDIRECT_REFUSE;
    }
    if (error->kind == REDIS_ERROR_OTHER && is_malformed(r, head)) {
        c->stats.redirects_refused++;
        topology_want(e, c, "a server sent a redirect that makes no sense");
        *why = "the server sent a redirect that makes no sense";
        return REDIRECT_REFUSE;
    }
    if (!moved) {
        note_refusal(e, c, r, error->kind);
        return REDIRECT_NONE;
    }
    bool alone = r->first_watch && r->downstream->n_open == 1;
    if (r->own_lane && r->downstream->watching && !alone) {
        /* What is watched lives here, and this does not. */
        if (error->kind == REDIS_ERROR_MOVED) {
            topology_redirect(e, u, error, why);
        }
        return REDIRECT_CROSSSLOT;
    }
    return follow(e, u, r, error, why);
}
