/* The network between the engine, its clients and the server. */
#include <assert.h>
#include <stdlib.h>

#include "tests/sim/world.h"

enum {
    CHUNK_MAX = 32 * 1024,
    KERNEL_ROOM = 256 * 1024,
    SLICE_MAX = 7,
    USER_TIMEOUT_US = 5000000,
    SOON_US = 1000,
    ADDRESSES_MAX = 8,
};

/* --- links ------------------------------------------------------------- */

/* Send buffers of all sizes, while things may go wrong. */
static uint64_t kernel_room(struct world *w)
{
    if (w->healed) {
        return KERNEL_ROOM;
    }
    return chance(w, 1, 4) ? pick(w, 16, 4096) : pick(w, 8192, KERNEL_ROOM);
}

static struct link *link_new(struct world *w, conn_id id, bool upstream)
{
    struct link *l = must_alloc(sizeof *l);
    *l = (struct link){
        .id = id,
        .upstream = upstream,
        .engine_open = true,
        .kernel_room = kernel_room(w),
        .out = { .cut_at = UINT64_MAX },
        .in = { .cut_at = UINT64_MAX },
    };
    l->number = upstream ? ++w->upstream_links : ++w->client_links;
    if (w->n_links == w->links_cap) {
        w->links_cap = w->links_cap * 2 + 64;
        w->links = must_grow(w->links, w->links_cap * sizeof(struct link *));
    }
    w->links[w->n_links++] = l;
    if (conn_index(id) >= LINKS_INDEX_MAX) {
        world_violate(w, "the index of a connection is %u", conn_index(id));
    } else {
        w->by_index[conn_index(id)] = l;
    }
    return l;
}

void link_free(struct link *l)
{
    bytes_fini(&l->queue);
    bytes_fini(&l->out.data);
    bytes_fini(&l->in.data);
    bytes_fini(&l->said);
    free(l->marks);
    free(l->news);
    free(l);
}

static struct link *link_of(struct world *w, conn_id id)
{
    if (conn_index(id) >= LINKS_INDEX_MAX) {
        return NULL;
    }
    struct link *l = w->by_index[conn_index(id)];
    return l != NULL && l->id == id ? l : NULL;
}

static uint64_t latency(struct world *w)
{
    return pick(w, w->settings.latency_us / 2, w->settings.latency_us * 3 / 2);
}

static void schedule(struct world *w, struct link *l, struct pipe *p)
{
    bool fresh = p->data.size > 0 || p->fin;
    if (p->scheduled || !fresh) {
        return;
    }
    p->scheduled = true;
    world_wake(w, latency(w), p == &l->out ? WAKE_OUT : WAKE_IN, l, 0);
}

/* The connection breaks: what is under way is lost. */
static void link_cut(struct world *w, struct link *l, int error)
{
    bytes_clear(&l->out.data);
    bytes_clear(&l->in.data);
    l->in.fin = false;
    if (l->peer_open) {
        l->peer_open = false;
        w->model->hangup(w, l, true);
    }
    if (l->engine_open && !l->closing) {
        l->closing = true;
        world_wake(w, latency(w), WAKE_CLOSED, l, (uint64_t)error);
    }
}

void link_end(struct world *w, struct link *l, bool reset)
{
    l->peer_open = false;
    if (!l->engine_open) {
        return;
    }
    if (reset) {
        link_cut(w, l, 1 + IO_RESET);
    } else {
        l->in.fin = true;
        schedule(w, l, &l->in);
    }
}

void link_send(struct world *w, struct link *l, const void *data, size_t size)
{
    if (l->engine_open && !l->closing && !l->in.fin) {
        bytes_add(&l->in.data, data, size);
        schedule(w, l, &l->in);
    }
}

static size_t chunk(struct world *w)
{
    if (!strikes(w, FAULT_SLICES)) {
        return pick(w, 1024, CHUNK_MAX);
    }
    /* Tiny ones on a slow network would take for ever. */
    return pick(w, 1, SLICE_MAX * (1 + w->settings.latency_us / 1000));
}

/* --- what the kernel takes --------------------------------------------- */

void link_pump(struct world *w, struct link *l)
{
    schedule(w, l, &l->out);
    if (!l->paused) {
        schedule(w, l, &l->in);
    }
    if (!l->engine_open || l->queue.size == 0 ||
        l->out.data.size >= l->kernel_room) {
        return;
    }
    size_t n = l->kernel_room - l->out.data.size;
    n = n < l->queue.size ? n : l->queue.size;
    if (strikes(w, FAULT_SHORT_WRITE)) {
        n = pick(w, 1, n);
    }
    if (l->closing) {
        bytes_drop(&l->queue, n); /* the kernel takes it for nobody */
    } else {
        bytes_add(&l->out.data, bytes_front(&l->queue), n);
        bytes_drop(&l->queue, n);
        schedule(w, l, &l->out);
    }
    l->taken_offset += n;
    w->model->taken(w, l);
    world_step(w, (struct event){
                      .type = EVENT_WRITTEN, .conn = l->id, .count = n });
}

void net_offer(struct world *w)
{
    while (w->n_dirty > 0 && !world_broken(w)) {
        struct link *l = w->dirty[--w->n_dirty];
        l->dirty = false;
        link_pump(w, l);
    }
}

static void mark_dirty(struct world *w, struct link *l)
{
    if (l->dirty) {
        return;
    }
    l->dirty = true;
    if (w->n_dirty == w->dirty_cap) {
        w->dirty_cap = w->dirty_cap * 2 + 16;
        w->dirty = must_grow(w->dirty, w->dirty_cap * sizeof(struct link *));
    }
    w->dirty[w->n_dirty++] = l;
}

/* No server of the model has such an address; only liars tell them. */
static void check_allowed(struct world *w, const struct address *address)
{
    if (strncmp(address->host, "169.254.", 8) == 0 ||
        strncmp(address->host, "192.168.", 8) == 0) {
        world_violate(w, "it goes to %s, which allow_nodes does not permit",
                      address->host);
    }
}

/* --- actions of the engine --------------------------------------------- */

static void on_write(struct world *w, struct link *l, struct chain *chain)
{
    size_t before = l->queue.size;
    for (const struct segment *g = chain->head; g != NULL; g = g->next) {
        bytes_add(&l->queue, slice_data(&g->slice), g->slice.len);
    }
    struct span fresh = { .data = bytes_front(&l->queue) + before,
                          .len = l->queue.size - before };
    world_note(w, "write", l, fresh.len, fresh);
    w->model->wrote(w, l, fresh);
    mark_dirty(w, l);
}

static void on_close(struct world *w, struct link *l)
{
    world_note(w, "close", l, 0, (struct span){ 0 });
    l->engine_open = false;
    bytes_clear(&l->queue);
    bytes_clear(&l->in.data);
    if (!l->connected || !l->peer_open) {
        return;
    }
    if (chance(w, 3, 4)) {
        l->out.fin = true; /* what the kernel has still arrives */
        schedule(w, l, &l->out);
    } else {
        link_cut(w, l, 0);
    }
}

static void on_connect(struct world *w,
                       conn_id id,
                       const struct address *address)
{
    struct link *l = link_of(w, id);
    if (l == NULL || !l->engine_open) {
        l = link_new(w, id, true);
    }
    w->model->find(w, l, address);
    check_allowed(w, address);
    world_note(w, "connect", l, address->port, span_of(address->host));
    if (strikes(w, FAULT_SYN_LOST)) {
        l->syn_lost = true; /* net_heal() answers it, or nobody */
        return;
    }
    l->syn_lost = false;
    bool refused = !w->model->listens(l) || strikes(w, FAULT_REFUSE);
    world_wake(w, latency(w), WAKE_CONNECT, l, refused ? 1 + IO_REFUSED : 0);
}

static void on_resolve(struct world *w,
                       conn_id id,
                       const struct address *address)
{
    struct link *l = link_new(w, id, true);
    w->model->find(w, l, address);
    check_allowed(w, address);
    world_note(w, "resolve", l, address->port, span_of(address->host));
    world_wake(w, latency(w) * 3, WAKE_RESOLVE, l,
               strikes(w, FAULT_DNS) ? 1 + IO_NO_NAME : 0);
}

void net_action(struct world *w, struct action *action)
{
    struct link *l;
    if (action->type == ACTION_CONNECT) {
        on_connect(w, action->conn, action->address);
        return;
    }
    if (action->type == ACTION_RESOLVE) {
        on_resolve(w, action->conn, action->address);
        return;
    }
    l = link_of(w, action->conn);
    bool open = l != NULL && l->engine_open;
    bool late =
        l != NULL && l->closed_turn == w->turn + 1; /* it could not know yet */
    if (!open && late) {
        world_note(w, "late", l, (uint64_t)action->type, (struct span){ 0 });
    } else if (!open) {
        world_violate(w,
                      "border: action %d for connection %c%u, which is closed",
                      (int)action->type,
                      l == NULL     ? '?'
                      : l->upstream ? 'u'
                                    : 'c',
                      l == NULL ? 0 : l->number);
    } else if (action->type == ACTION_WRITE && !l->connected) {
        world_violate(w, "border: a write to a connection that is not up");
    } else {
        switch (action->type) {
        case ACTION_WRITE: on_write(w, l, &action->bytes); break;
        case ACTION_PAUSE:
            world_note(w, "pause", l, 0, (struct span){ 0 });
            l->paused = true;
            break;
        case ACTION_RESUME:
            world_note(w, "resume", l, 0, (struct span){ 0 });
            l->paused = false;
            schedule(w, l, &l->in);
            break;
        case ACTION_CLOSE:
            on_close(w, l);
            w->model->dropped(l);
            break;
        case ACTION_CONNECT:
        case ACTION_RESOLVE: break;
        }
    }
    if (action->type == ACTION_WRITE) {
        chain_clear(engine_memory(w->engine), &action->bytes);
    }
}

/* --- things that arrive ------------------------------------------------ */

/* What the engine wanted of it before may still come out of it. */
static void engine_hears_end(struct world *w, struct link *l)
{
    l->engine_open = false;
    l->closed_turn = w->turn + 1;
    l->heard_turn = l->heard_turn > 0 ? l->heard_turn : l->closed_turn;
}

static void draw_cuts(struct world *w, struct link *l)
{
    uint64_t reach = chance(w, 1, 2) ? 400 : 20000;
    if (strikes(w, FAULT_RESET_OUT)) {
        l->out.cut_at = pick(w, 1, reach);
    }
    if (strikes(w, FAULT_RESET_IN)) {
        l->in.cut_at = pick(w, 0, reach);
    }
}

static void connected(struct world *w, struct link *l, int error)
{
    if (!l->engine_open || l->connected) {
        return;
    }
    if (error == 0 && !w->model->listens(l)) {
        error = 1 + IO_REFUSED;
    }
    world_note(w, "connected", l, (uint64_t)error, (struct span){ 0 });
    if (error != 0) {
        engine_hears_end(w, l);
    } else {
        l->connected = true;
        l->peer_open = true;
        draw_cuts(w, l);
        w->model->accept(w, l);
    }
    world_step(w, (struct event){
                      .type = EVENT_CONNECTED, .conn = l->id, .error = error });
}

static void resolved(struct world *w, struct link *l, int error)
{
    struct address list[ADDRESSES_MAX];
    size_t n = 0;
    if (!l->engine_open) {
        return;
    }
    if (error == 0) {
        n = w->model->addresses(w, l, list, ADDRESSES_MAX);
        error = n == 0 ? 1 + IO_NO_NAME : 0;
    }
    world_note(w, "resolved", l, (uint64_t)error, (struct span){ 0 });
    struct event event = { .type = EVENT_RESOLVED,
                           .conn = l->id,
                           .error = error };
    if (error == 0) {
        event.resolved.list = list;
        event.resolved.n = (unsigned)n;
    }
    world_step(w, event);
}

/* How many bytes arrive now; 0 when it is not the time. */
static size_t arriving(struct world *w, struct link *l, struct pipe *p)
{
    p->scheduled = false;
    if (p->stuck_until > w->now_us) {
        p->scheduled = true;
        world_wake(w, p->stuck_until - w->now_us,
                   p == &l->out ? WAKE_OUT : WAKE_IN, l, 0);
        return 0;
    }
    size_t n = chunk(w);
    n = n < p->data.size ? n : p->data.size;
    if (p->delivered + n > p->cut_at) {
        n = p->cut_at - p->delivered;
    }
    return n;
}

static void arrive_out(struct world *w, struct link *l)
{
    struct pipe *p = &l->out;
    if (w->model->full(l)) {
        p->scheduled = false; /* link_pump() goes on when it reads again */
        return;
    }
    size_t n = arriving(w, l, p);
    if (p->scheduled) {
        return;
    }
    struct bytes piece = { 0 };
    bytes_add(&piece, bytes_front(&p->data), n);
    bytes_drop(&p->data, n);
    p->delivered += n;
    if (n > 0 && l->peer_open) {
        w->model->receive(w, l, bytes_span(&piece));
    }
    bytes_fini(&piece);
    if (p->delivered >= p->cut_at && l->peer_open) {
        link_cut(w, l, 1 + (chance(w, 1, 2) ? IO_RESET : IO_END));
        return;
    }
    if (p->data.size == 0 && p->fin) {
        p->fin = false;
        if (l->peer_open) {
            l->peer_open = l->upstream;
            w->model->hangup(w, l, false);
        }
    }
    link_pump(w, l);
}

/* Bytes as the shell would hand them over: packed into a common block. */
static bool read_into_block(struct world *w,
                            const uint8_t *data,
                            size_t n,
                            struct slice *slice)
{
    struct memory *m = engine_memory(w->engine);
    if (w->block != NULL && w->block->cap - w->block->len < n) {
        buf_unref(m, w->block);
        w->block = NULL;
    }
    if (w->block == NULL) {
        w->block = buf_new(m, 0);
        if (w->block == NULL) {
            return false;
        }
    }
    memcpy(w->block->data + w->block->len, data, n);
    *slice = (struct slice){ .buf = w->block,
                             .offset = w->block->len,
                             .len = (uint32_t)n };
    w->block->len += (uint32_t)n;
    buf_ref(w->block);
    return true;
}

static void arrive_in(struct world *w, struct link *l)
{
    struct pipe *p = &l->in;
    if (!l->engine_open || l->paused) {
        p->scheduled = false;
        return;
    }
    size_t n = arriving(w, l, p);
    if (p->scheduled) {
        return;
    }
    if (n > 0) {
        struct event event = { .type = EVENT_BYTES, .conn = l->id };
        if (!read_into_block(w, bytes_front(&p->data), n, &event.bytes)) {
            p->scheduled = true;
            world_wake(w, SOON_US, WAKE_IN, l, 0);
            return;
        }
        w->model->arriving(w, l);
        world_note(w, "bytes", l, n,
                   (struct span){ .data = bytes_front(&p->data), .len = n });
        bytes_drop(&p->data, n);
        p->delivered += n;
        w->model->arrives(w, l, n);
        world_step(w, event);
    }
    if (p->delivered >= p->cut_at && l->peer_open) {
        link_cut(w, l, 1 + (chance(w, 1, 2) ? IO_RESET : IO_END));
        return;
    }
    if (p->data.size > 0) {
        schedule(w, l, p);
    } else if (p->fin && l->engine_open && !l->closing) {
        p->fin = false;
        world_note(w, "ended", l, 0, (struct span){ 0 });
        l->heard_turn = w->turn + 1;
        world_step(w, (struct event){ .type = EVENT_ENDED, .conn = l->id });
    }
}

static void closed(struct world *w, struct link *l, int error)
{
    if (!l->engine_open || error == 0) {
        return;
    }
    if (error == 1 + IO_TIMED_OUT) {
        bool stuck =
            l->out.stuck_until > w->now_us || l->in.stuck_until > w->now_us;
        if (!stuck || l->closing) {
            return;
        }
        if (chance(w, 1, 2)) {
            bytes_clear(&l->out.data); /* else it arrives when nobody waits */
        }
        l->out.fin = true;
    }
    engine_hears_end(w, l);
    world_note(w, "closed", l, (uint64_t)error, (struct span){ 0 });
    world_step(w, (struct event){
                      .type = EVENT_CLOSED, .conn = l->id, .error = error });
}

void net_wake(struct world *w, const struct sleeper *s)
{
    struct link *l = s->who;
    switch (s->why) {
    case WAKE_CONNECT: connected(w, l, (int)s->number); break;
    case WAKE_RESOLVE: resolved(w, l, (int)s->number); break;
    case WAKE_OUT: arrive_out(w, l); break;
    case WAKE_IN: arrive_in(w, l); break;
    case WAKE_CLOSED: closed(w, l, (int)s->number); break;
    default: assert(false);
    }
}

struct link *net_accept(struct world *w, struct client *client)
{
    conn_id id = engine_reserve(w->engine, 0);
    if (id == 0) {
        return NULL;
    }
    struct link *l = link_new(w, id, false);
    l->client = client;
    l->connected = true;
    l->peer_open = true;
    world_note(w, "accepted", l, 0, (struct span){ 0 });
    world_step(w, (struct event){
                      .type = EVENT_ACCEPTED, .conn = id, .listener = 0 });
    return l;
}

/* --- faults on the wire ------------------------------------------------ */

static void get_stuck(struct world *w,
                      struct link *l,
                      struct pipe *p,
                      uint64_t us)
{
    p->stuck_since = w->now_us;
    p->stuck_until = w->now_us + us;
    if (us > USER_TIMEOUT_US) {
        world_wake(w, USER_TIMEOUT_US, WAKE_CLOSED, l, 1 + IO_TIMED_OUT);
    }
}

void net_strike(struct world *w)
{
    struct link *l =
        w->n_links == 0
            ? NULL
            : w->links[pick(w, w->n_links > 12 ? w->n_links - 12 : 0,
                            w->n_links - 1)];
    if (l == NULL || !l->upstream || !l->engine_open || !l->peer_open ||
        l->closing) {
        return;
    }
    uint64_t us =
        chance(w, 1, 8) ? pick(w, 1000000, 9000000) : pick(w, 1000, 400000);
    if (strikes(w, FAULT_HOLE_OUT)) {
        get_stuck(w, l, &l->out, us);
    } else if (strikes(w, FAULT_HOLE_IN)) {
        get_stuck(w, l, &l->in, us);
    } else if (strikes(w, FAULT_HOLE_BOTH)) {
        get_stuck(w, l, &l->out, us);
        get_stuck(w, l, &l->in, us);
    } else if (strikes(w, FAULT_HALF_CLOSE)) {
        bytes_clear(&l->out.data);
        w->model->hangup(w, l, true);
        link_end(w, l, false);
    }
}

void net_heal(struct world *w)
{
    for (size_t i = 0; i < w->n_links; i++) {
        struct link *l = w->links[i];
        l->kernel_room = KERNEL_ROOM;
        l->out.cut_at = UINT64_MAX;
        l->in.cut_at = UINT64_MAX;
        l->out.stuck_until = 0;
        l->in.stuck_until = l->in.stuck_until > 0; /* 1: it was */
        l->out.scheduled = false;
        l->in.scheduled = false;
        schedule(w, l, &l->out);
        schedule(w, l, &l->in);
        if (l->syn_lost && l->engine_open && !l->connected) {
            world_wake(w, latency(w), WAKE_CONNECT, l, 0);
        }
    }
}
