#include "proxy/core/grpc_endpoint.h"

#include <assert.h>
#include <stdio.h>

#include "config/address.h"
#include "config/ip.h"
#include "proxy/core/grpc_trace.h"
#include "proxy/core/state.h"

enum {
    REFUSED_US = 100 * 1000, /* a connection that fails sooner was refused */
};

void grpc_endpoint_count(struct grpc_endpoint *p)
{
    p->n_usable = 0;
    p->n_fresh = 0;
    p->n_connecting = 0;
    LIST_FOR_EACH (node, &p->links) {
        const struct grpc_link *l = CONTAINER_OF(node, struct grpc_link, node);
        bool usable = l->state == GRPC_LINK_READY && !l->suspect;
        p->n_usable += usable;
        p->n_fresh += usable && !l->retiring;
        p->n_connecting += l->state == GRPC_LINK_CONNECTING;
    }
}

void grpc_endpoint_note(struct grpc_endpoint *p, const char *why)
{
    snprintf(p->last_error, sizeof(p->last_error), "%s", why);
    grpc_channel_note(p->channel, p->name, why);
}

void grpc_endpoint_rest(struct grpc_endpoint *p, bool resting)
{
    if (p->resting != resting) {
        p->resting = resting;
        p->channel->n_resting += resting ? 1 : -1u;
    }
}

/* ---- when a link is opened ---------------------------------------------------- */

bool grpc_endpoint_wants_link(const struct grpc_endpoint *p)
{
    const struct grpc_config *config = &p->channel->config->grpc;
    if (p->leaving || p->n_connecting > 0) {
        return false;
    }
    if (p->n_usable > 0) {
        bool full =
            p->crowded && p->n_fresh < config->max_connections_per_endpoint;
        return full || p->n_fresh == 0;
    }
    return config->lb != GRPC_PICK_FIRST && !p->resting;
}

uint64_t grpc_endpoint_due_us(const struct grpc_endpoint *p)
{
    bool soon = p->channel->n_waiting > 0 && p->soon_us < p->retry_us;
    return soon ? p->soon_us : p->retry_us;
}

bool grpc_endpoint_may_connect(const struct engine *e,
                               const struct grpc_endpoint *p)
{
    bool one_more = p->n_usable > 0 && p->failures == 0; /* U9, U10 */
    return p->n_connecting == 0 &&
           (one_more || e->now_us >= grpc_endpoint_due_us(p));
}

void grpc_endpoint_connect(struct engine *e, struct grpc_endpoint *p)
{
    p->crowded = false;
    if (!grpc_link_open(e, p)) {
        grpc_endpoint_failed(e, p, e->now_us, false, "out of memory");
    }
}

/* The next attempt follows the one begun at started_us by the delay for that
 * many failures, or comes at once if that is past (U7). */
static void pace(struct engine *e,
                 struct grpc_endpoint *p,
                 uint64_t started_us,
                 bool refused)
{
    const struct grpc_config *config = &p->channel->config->grpc;
    uint32_t i = p->failures == 0 ? 1 : p->failures;
    p->retry_us = started_us + grpc_reconnect_delay(config, i, &e->rng);
    bool soon = refused && e->now_us - started_us < REFUSED_US &&
                config->reconnect_profile == GRPC_RECONNECT_FAST;
    p->soon_us = soon ? started_us + grpc_reconnect_delay(config, 1, &e->rng)
                      : UINT64_MAX;
}

void grpc_endpoint_failed(struct engine *e,
                          struct grpc_endpoint *p,
                          uint64_t started_us,
                          bool refused,
                          const char *why)
{
    struct grpc_channel *ch = p->channel;
    p->failures++;
    pace(e, p, started_us, refused);
    ch->stats.connections_failed++;
    ch->pass_us = e->now_us; /* pick_first tries the next one */
    grpc_endpoint_note(p, why);
    grpc_trace_connect_failed(e, ch, &p->address, why, p->failures,
                              p->retry_us > e->now_us ? p->retry_us - e->now_us
                                                      : 0);
    if (++ch->n_failures >= ch->n_endpoints) {
        ch->n_failures = 0;
        grpc_names_refresh(e, ch);
    }
}

void grpc_endpoint_reached(struct engine *e,
                           struct grpc_endpoint *p,
                           uint64_t started_us)
{
    p->failures = 0;
    p->crowded = false;
    pace(e, p, started_us, false);
    grpc_endpoint_rest(p, false);
}

/* ---- the list of endpoints ---------------------------------------------------- */

static struct grpc_endpoint *endpoint_new(struct engine *e,
                                          struct grpc_channel *ch,
                                          const struct grpc_name *from,
                                          const struct address *address)
{
    struct grpc_endpoint *p = memory_take(e->memory, sizeof(*p));
    if (p == NULL) {
        return NULL;
    }
    p->channel = ch;
    p->from = from;
    p->address = *address;
    p->number = ++ch->n_numbers;
    address_format(address, p->name);
    list_init(&p->links);
    return p;
}

static void endpoint_free(struct engine *e, struct grpc_endpoint *p)
{
    assert(list_empty(&p->links));
    grpc_endpoint_rest(p, false);
    memory_give(e->memory, p);
}

static struct grpc_endpoint *find(struct grpc_endpoint **list,
                                  uint32_t n,
                                  const struct address *address)
{
    for (uint32_t i = 0; i < n; i++) {
        if (address_equal(&list[i]->address, address)) {
            return list[i];
        }
    }
    return NULL;
}

static struct grpc_endpoint *find_leaving(struct grpc_channel *ch,
                                          const struct address *address)
{
    LIST_FOR_EACH (node, &ch->leaving) {
        struct grpc_endpoint *p =
            CONTAINER_OF(node, struct grpc_endpoint, leaving_node);
        if (address_equal(&p->address, address)) {
            return p;
        }
    }
    return NULL;
}

/* A list in the making: what is new in it is not in the channel yet. */
struct draft {
    struct grpc_endpoint **list; /* owned */
    uint32_t n;
    bool changed; /* has what the channel has not */
};

static bool draft_add(struct engine *e,
                      struct grpc_channel *ch,
                      struct draft *d,
                      const struct grpc_name *from,
                      const struct address *address)
{
    if (find(d->list, d->n, address) != NULL) {
        return true;
    }
    struct grpc_endpoint *p = find(ch->endpoints, ch->n_endpoints, address);
    if (p == NULL) {
        d->changed = true;
        p = find_leaving(ch, address);
    }
    if (p == NULL) {
        p = endpoint_new(e, ch, from, address);
    }
    if (p == NULL) {
        return false;
    }
    d->list[d->n++] = p;
    return true;
}

static bool is_new(struct grpc_channel *ch, const struct grpc_endpoint *p)
{
    return find(ch->endpoints, ch->n_endpoints, &p->address) == NULL &&
           !p->leaving;
}

static bool draft_make(struct engine *e,
                       struct grpc_channel *ch,
                       struct draft *d)
{
    size_t max = 0;
    for (size_t i = 0; i < ch->names->n; i++) {
        max += ch->names->list[i].n_addresses;
    }
    if (max > GRPC_ENDPOINTS_MAX) {
        max = GRPC_ENDPOINTS_MAX;
        engine_trace(e, &(struct trace_record){ .type = TRACE_LIMIT,
                                                .upstream = ch->config->name,
                                                .reason = "endpoints" });
    }
    d->list =
        memory_take(e->memory, (max + 1) * sizeof(struct grpc_endpoint *));
    if (d->list == NULL) {
        return false;
    }
    for (size_t i = 0; i < ch->names->n; i++) {
        const struct grpc_name *name = &ch->names->list[i];
        for (uint32_t k = 0; k < name->n_addresses && d->n < max; k++) {
            if (!draft_add(e, ch, d, name, &name->addresses[k])) {
                return false;
            }
        }
    }
    d->changed = d->changed || d->n != ch->n_endpoints;
    return true;
}

static void draft_drop(struct engine *e,
                       struct grpc_channel *ch,
                       struct draft *d)
{
    for (uint32_t i = 0; i < d->n; i++) {
        if (is_new(ch, d->list[i])) {
            endpoint_free(e, d->list[i]);
        }
    }
    memory_give(e->memory, d->list);
}

static bool is_v4(const struct grpc_endpoint *p)
{
    uint8_t ip[IP_BYTES];
    return !p->address.is_unix &&
           ip_parse(p->address.host, strlen(p->address.host), ip) &&
           ip_is_v4(ip);
}

static void shuffle(struct engine *e, struct draft *d)
{
    for (uint32_t i = d->n; i > 1; i--) {
        uint32_t k = (uint32_t)rng_upto(&e->rng, i - 1);
        struct grpc_endpoint *p = d->list[i - 1];
        d->list[i - 1] = d->list[k];
        d->list[k] = p;
    }
}

/* IPv4 and IPv6 take turns, beginning with the family of the first (Y2): one
 * that does not work here is not waited for many times in a row. */
static void interleave(struct draft *d)
{
    bool turn = d->n > 0 && is_v4(d->list[0]);
    for (uint32_t i = 0; i < d->n; i++, turn = !turn) {
        uint32_t k = i;
        while (k < d->n && is_v4(d->list[k]) != turn) {
            k++;
        }
        if (k == d->n) {
            return; /* the rest is of one family */
        }
        struct grpc_endpoint *p = d->list[k];
        for (; k > i; k--) {
            d->list[k] = d->list[k - 1];
        }
        d->list[i] = p;
    }
}

/* No name gives p any more: its calls go on, and its links drain. */
static void retire(struct engine *e,
                   struct grpc_channel *ch,
                   struct grpc_endpoint *p)
{
    p->leaving = true;
    grpc_endpoint_rest(p, false);
    list_append(&ch->leaving, &p->leaving_node);
    grpc_trace_endpoint_removed(e, ch, &p->address);
    for (struct list_node *node = p->links.next, *next; node != &p->links;
         node = next) {
        next = node->next;
        struct grpc_link *l = CONTAINER_OF(node, struct grpc_link, node);
        if (l->state == GRPC_LINK_CONNECTING) {
            grpc_link_end(e, l, "its address was removed", true);
        } else {
            grpc_link_drain(e, l, "its address was removed");
        }
    }
}

static void replace_list(struct engine *e,
                         struct grpc_channel *ch,
                         struct draft *d)
{
    struct grpc_endpoint **old = ch->endpoints;
    uint32_t n_old = ch->n_endpoints;
    for (uint32_t i = 0; i < d->n; i++) {
        struct grpc_endpoint *p = d->list[i];
        if (p->leaving) {
            p->leaving = false;
            list_remove(&p->leaving_node);
        }
        if (d->changed) {
            p->retry_us = 0; /* a changed list ends the wait (U7) */
        }
    }
    ch->endpoints = d->list;
    ch->n_endpoints = d->n;
    for (uint32_t i = 0; i < n_old; i++) {
        if (find(d->list, d->n, &old[i]->address) == NULL) {
            ch->wanted = ch->wanted || old[i] == ch->chosen;
            retire(e, ch, old[i]);
        }
    }
    memory_give(e->memory, old);
    ch->passing = false; /* from the first one again */
    grpc_channel_changed(e, ch);
}

void grpc_endpoints_adopt(struct engine *e, struct grpc_channel *ch)
{
    struct draft d = { 0 };
    if (!draft_make(e, ch, &d)) {
        ch->stats.limit_memory++;
        draft_drop(e, ch, &d);
        return;
    }
    bool first = ch->config->grpc.lb == GRPC_PICK_FIRST;
    bool shuffled = first && ch->config->grpc.shuffle_addresses;
    struct grpc_endpoint **ready =
        memory_take(e->memory, (d.n + 1) * sizeof(struct grpc_endpoint *));
    if (ready == NULL || d.n == 0 || (shuffled && !d.changed)) {
        ch->stats.limit_memory += ready == NULL;
        memory_give(e->memory, ready);
        draft_drop(e, ch, &d);
        return;
    }
    if (shuffled) {
        shuffle(e, &d);
    }
    if (first) {
        interleave(&d);
    }
    memory_give(e->memory, ch->ready);
    ch->ready = ready;
    ch->n_ready = 0; /* counted again below */
    replace_list(e, ch, &d);
}

void grpc_endpoints_collect(struct engine *e, struct grpc_channel *ch)
{
    for (struct list_node *node = ch->leaving.next, *next; node != &ch->leaving;
         node = next) {
        next = node->next;
        struct grpc_endpoint *p =
            CONTAINER_OF(node, struct grpc_endpoint, leaving_node);
        if (list_empty(&p->links)) {
            list_remove(&p->leaving_node);
            endpoint_free(e, p);
        }
    }
}

static void end_links(struct engine *e, struct grpc_endpoint *p)
{
    while (!list_empty(&p->links)) {
        grpc_link_end(e, CONTAINER_OF(p->links.next, struct grpc_link, node),
                      "the engine ends", true);
    }
}

void grpc_endpoints_fini(struct engine *e, struct grpc_channel *ch)
{
    LIST_FOR_EACH (node, &ch->leaving) {
        end_links(e, CONTAINER_OF(node, struct grpc_endpoint, leaving_node));
    }
    grpc_endpoints_collect(e, ch);
    for (uint32_t i = 0; i < ch->n_endpoints; i++) {
        end_links(e, ch->endpoints[i]);
    }
    ch->n_ready = 0;
    ch->chosen = NULL;
    while (ch->n_endpoints > 0) {
        endpoint_free(e, ch->endpoints[--ch->n_endpoints]);
    }
    memory_give(e->memory, ch->endpoints);
    memory_give(e->memory, ch->ready);
    ch->endpoints = NULL;
    ch->ready = NULL;
}
