/* Names become addresses: asked for at the start, now and then, and when
 * connections fail (grpc.md Y3). */
#include <assert.h>
#include <stdio.h>

#include "config/ip.h"
#include "proxy/core/grpc_endpoint.h"
#include "proxy/core/grpc_trace.h"
#include "proxy/core/state.h"

static bool is_numeric(const struct address *a)
{
    uint8_t ip[IP_BYTES];
    return a->is_unix || ip_parse(a->host, strlen(a->host), ip);
}

/* What requests to this name say as :authority (X2). */
static void write_authority(struct grpc_name *name)
{
    enum {
        HTTP = 80,
        HTTPS = 443
    };
    if (name->address.is_unix) {
        snprintf(name->authority, sizeof(name->authority), "localhost");
        return;
    }
    address_format(&name->address, name->authority);
    if (name->address.port == HTTP || name->address.port == HTTPS) {
        *strrchr(name->authority, ':') = '\0';
    }
}

/* Keep an answer. False, and the old one is kept, without memory. */
static bool keep(struct engine *e,
                 struct grpc_name *name,
                 const struct address *list,
                 unsigned n)
{
    if (n > GRPC_NAME_ADDRESSES_MAX) {
        n = GRPC_NAME_ADDRESSES_MAX;
    }
    struct address *copy = memory_take_raw(e->memory, n * sizeof(*copy));
    if (copy == NULL) {
        return false;
    }
    memcpy(copy, list, n * sizeof(*copy));
    memory_give(e->memory, name->addresses);
    name->addresses = copy;
    name->n_addresses = n;
    return true;
}

bool grpc_names_init(struct engine *e, struct grpc_channel *ch)
{
    const struct upstream_config *config = ch->config;
    bool listed = config->n_nodes > 0;
    size_t n = listed ? config->n_nodes : 1;
    struct grpc_names *names =
        memory_take(e->memory, sizeof(*names) + n * sizeof(names->list[0]));
    if (names == NULL) {
        return false;
    }
    ch->names = names;
    names->n = n;
    for (size_t i = 0; i < n; i++) {
        struct grpc_name *name = &names->list[i];
        name->address = listed ? config->nodes[i] : config->address;
        name->numeric = is_numeric(&name->address);
        name->due_us = name->numeric ? UINT64_MAX : e->now_us;
        write_authority(name);
        if (name->numeric && !keep(e, name, &name->address, 1)) {
            return false;
        }
    }
    return true;
}

static void end_lookup(struct engine *e, struct grpc_name *name)
{
    if (name->lookup != NULL) {
        grpc_link_end(e, name->lookup, NULL, true);
        name->lookup = NULL;
    }
}

void grpc_names_fini(struct engine *e, struct grpc_channel *ch)
{
    if (ch->names == NULL) {
        return;
    }
    for (size_t i = 0; i < ch->names->n; i++) {
        end_lookup(e, &ch->names->list[i]);
        memory_give(e->memory, ch->names->list[i].addresses);
    }
    memory_give(e->memory, ch->names);
    ch->names = NULL;
}

bool grpc_names_failed(const struct grpc_channel *ch)
{
    for (size_t i = 0; i < ch->names->n; i++) {
        const struct grpc_name *name = &ch->names->list[i];
        if (name->n_addresses > 0 || name->failures == 0) {
            return false;
        }
    }
    return true;
}

/* 1 s, then 1.6 times as long each time, at most 30 s. */
static uint64_t failure_delay(uint32_t failures)
{
    const uint64_t max_us = UINT64_C(30) * 1000000;
    uint64_t us = 1000000;
    for (uint32_t i = 1; i < failures && us < max_us; i++) {
        us = us * 8 / 5;
    }
    return us < max_us ? us : max_us;
}

static uint64_t not_before(const struct grpc_channel *ch,
                           const struct grpc_name *name,
                           uint64_t at_us)
{
    uint64_t soonest_us = name->asked_us + ch->config->grpc.dns_min_interval_us;
    return name->asked_us != 0 && at_us < soonest_us ? soonest_us : at_us;
}

static void lookup_failed(struct engine *e,
                          struct grpc_channel *ch,
                          struct grpc_name *name,
                          const char *why)
{
    name->failures++;
    name->due_us =
        not_before(ch, name, e->now_us + failure_delay(name->failures));
    char where[ADDRESS_TEXT_MAX];
    address_format(&name->address, where);
    grpc_channel_note(ch, where, why);
    grpc_trace_resolve_failed(e, ch, &name->address, why);
    grpc_channel_changed(e, ch);
}

static void ask(struct engine *e,
                struct grpc_channel *ch,
                struct grpc_name *name)
{
    name->asked_us = e->now_us == 0 ? 1 : e->now_us;
    name->due_us = UINT64_MAX; /* until there is an answer */
    name->lookup = grpc_link_lookup(e, ch, name);
    if (name->lookup == NULL) {
        lookup_failed(e, ch, name, "out of memory");
    }
}

uint64_t grpc_names_drive(struct engine *e, struct grpc_channel *ch)
{
    uint64_t next_us = UINT64_MAX;
    for (size_t i = 0; i < ch->names->n; i++) {
        struct grpc_name *name = &ch->names->list[i];
        if (e->now_us >= name->due_us && name->lookup == NULL) {
            ask(e, ch, name);
        }
        next_us = name->due_us < next_us ? name->due_us : next_us;
    }
    return next_us;
}

void grpc_names_refresh(struct engine *e, struct grpc_channel *ch)
{
    for (size_t i = 0; i < ch->names->n; i++) {
        struct grpc_name *name = &ch->names->list[i];
        if (name->numeric || name->lookup != NULL) {
            continue;
        }
        uint64_t at_us = not_before(ch, name, e->now_us);
        if (at_us < name->due_us) {
            name->due_us = at_us;
            grpc_channel_pump_later(e, ch);
        }
    }
}

void grpc_name_resolved(struct engine *e,
                        struct grpc_link *l,
                        const struct event *event)
{
    struct grpc_channel *ch = l->channel;
    struct grpc_name *name = l->name;
    assert(name->lookup == l);
    end_lookup(e, name);
    if (event->error != 0 || event->resolved.n == 0) {
        enum io_error why =
            event->error != 0 ? (enum io_error)(event->error - 1) : IO_NO_NAME;
        lookup_failed(e, ch, name, io_error_text(why));
        return;
    }
    uint64_t refresh_us = ch->config->grpc.dns_refresh_us;
    name->failures = 0;
    name->due_us = refresh_us == 0
                       ? UINT64_MAX
                       : not_before(ch, name, name->asked_us + refresh_us);
    if (!keep(e, name, event->resolved.list, event->resolved.n)) {
        ch->stats.limit_memory++;
    }
    grpc_endpoints_adopt(e, ch);
    grpc_channel_pump_later(e, ch);
}

void grpc_name_timeout(struct engine *e, struct grpc_link *l)
{
    struct grpc_name *name = l->name;
    struct grpc_channel *ch = l->channel;
    end_lookup(e, name);
    lookup_failed(e, ch, name, "name lookup timed out");
}
