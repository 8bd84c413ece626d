#include "parser/topology.h"

#include "parser/topology_view.h"

/* ---- CLUSTER SHARDS ---- */

static enum node_role role_of(struct span text)
{
    if (span_is_word(text, "MASTER") || span_is_word(text, "PRIMARY")) {
        return NODE_PRIMARY;
    }
    if (span_is_word(text, "REPLICA") || span_is_word(text, "SLAVE")) {
        return NODE_REPLICA;
    }
    return NODE_UNKNOWN;
}

/* A port that may be missing, which leaves 0, but not be wrong. */
static bool port_if_told(uint16_t *port, const struct reply *r)
{
    return r == NULL || port_copy(port, r);
}

/* The host that a node wants to be called by. Where it has no name it says "?",
 * and its address is the next best. */
static bool host_preferred(char host[NODE_HOST_MAX + 1],
                           struct span preferred,
                           struct span ip)
{
    bool unnamed = preferred.len == 1 && preferred.data[0] == '?';

    return host_copy(host, unnamed ? ip : preferred);
}

/* Read one node of a shard. One that cannot be used has port 0 afterwards. */
static struct view_node shard_node(const struct reply *r, bool tls)
{
    struct view_node n = { 0 };
    const struct reply *endpoint = reply_get(r, "endpoint");
    const struct reply *health = reply_get(r, "health");
    struct span ip = string_text(reply_get(r, "ip"));

    id_copy(n.id, string_text(reply_get(r, "id")));
    zone_copy(n.zone, string_text(reply_get(r, "availability-zone")));
    n.role = role_of(string_text(reply_get(r, "role")));
    n.online = health == NULL || span_is_word(string_text(health), "ONLINE");
    if (!reply_number(reply_get(r, "replication-offset"), &n.offset)) {
        n.offset = 0;
    }
    bool usable =
        host_preferred(n.host, endpoint == NULL ? ip : string_text(endpoint),
                       ip) &&
        port_if_told(&n.port, reply_get(r, "port")) &&
        port_if_told(&n.tls_port, reply_get(r, "tls-port"));
    if (tls && n.tls_port != 0) {
        n.port = n.tls_port;
    }
    n.port = usable ? n.port : 0;
    return n;
}

/* How much a node has to say for being the primary of its shard. */
static int primary_rank(const struct view_node *n)
{
    return n->role != NODE_PRIMARY ? 0 : n->online ? 2 : 1;
}

static bool is_map(const struct reply *r)
{
    return r != NULL && reply_type(r) == REPLY_ARRAY && reply_count(r) % 2 == 0;
}

/* Add the nodes of a shard. *primary receives the one that owns its slots. */
static bool shard_nodes(struct view_builder *b,
                        const struct reply *nodes,
                        bool tls,
                        uint32_t shard,
                        uint32_t *primary)
{
    int best = 0;

    *primary = NODE_NONE;
    for (size_t i = 0; i < reply_count(nodes); i++) {
        const struct reply *r = reply_at(nodes, i);
        uint32_t index = NODE_NONE;
        if (!is_map(r)) {
            return view_fail(b, "a node that is no map");
        }
        struct view_node n = shard_node(r, tls);
        n.shard = shard;
        if (!view_add(b, &n, &index)) {
            return false;
        }
        if (primary_rank(&n) > best) {
            best = primary_rank(&n);
            *primary = index;
        }
    }
    return true;
}

struct shards {
    bool tls;
    uint32_t count;
};

static bool shard_read(struct view_builder *b,
                       const struct reply *r,
                       void *context)
{
    struct shards *shards = context;
    uint32_t primary = NODE_NONE;

    if (!is_map(r)) {
        return view_fail(b, "a shard that is no map");
    }
    const struct reply *nodes = reply_get(r, "nodes");
    const struct reply *slots = reply_get(r, "slots");
    if (nodes == NULL || reply_type(nodes) != REPLY_ARRAY || !is_map(slots)) {
        return view_fail(b, "a shard without nodes or slots");
    }
    if (!shard_nodes(b, nodes, shards->tls, shards->count++, &primary)) {
        return false;
    }
    for (size_t i = 0; i < reply_count(slots); i += 2) {
        if (!view_claim(b, reply_at(slots, i), reply_at(slots, i + 1),
                        primary)) {
            return false;
        }
    }
    return true;
}

struct view *view_from_shards(struct span reply, bool tls, const char **error)
{
    struct shards shards = { .tls = tls };

    return view_read(reply, shard_read, &shards, error);
}

/* ---- CLUSTER SLOTS ---- */

/* Read one node: host, port, id, more about it. Old servers end earlier. One
 * that cannot be used has port 0 afterwards. */
static struct view_node slots_node(const struct reply *r)
{
    struct view_node n = { .online = true };
    const struct reply *host = reply_at(r, 0);
    const struct reply *more = reply_at(r, 3);
    struct span ip = { 0 };

    id_copy(n.id, string_text(reply_at(r, 2)));
    if (more != NULL) {
        ip = string_text(reply_get(more, "ip"));
        zone_copy(n.zone, string_text(reply_get(more, "availability-zone")));
    }
    bool known = host != NULL && (reply_type(host) == REPLY_NIL ||
                                  reply_type(host) == REPLY_STRING);
    if (!known || !host_preferred(n.host, string_text(host), ip) ||
        !port_copy(&n.port, reply_at(r, 1))) {
        n.port = 0;
    }
    return n;
}

/* Add the nodes of one range: its primary, then the replicas of that. */
static bool slots_nodes(struct view_builder *b,
                        const struct reply *range,
                        uint32_t *shards,
                        uint32_t *primary)
{
    const size_t first_node = 2;
    uint32_t shard = *shards;

    *primary = NODE_NONE;
    for (size_t i = first_node; i < reply_count(range); i++) {
        const struct reply *r = reply_at(range, i);
        uint32_t index = NODE_NONE;
        if (reply_type(r) != REPLY_ARRAY) {
            return view_fail(b, "a node that is no list");
        }
        struct view_node n = slots_node(r);
        n.role = i == first_node ? NODE_PRIMARY : NODE_REPLICA;
        n.shard = shard;
        if (!view_add(b, &n, &index)) {
            return false;
        }
        if (i == first_node && index != NODE_NONE) {
            *primary = index;
            shard = view_builder_node(b, index)->shard;
        }
    }
    *shards += shard == *shards ? 1 : 0;
    return true;
}

static bool slots_read(struct view_builder *b,
                       const struct reply *r,
                       void *context)
{
    uint32_t *shards = context;
    uint32_t primary = NODE_NONE;

    return slots_nodes(b, r, shards, &primary) &&
           view_claim(b, reply_at(r, 0), reply_at(r, 1), primary);
}

struct view *view_from_slots(struct span reply, const char **error)
{
    uint32_t shards = 0;

    return view_read(reply, slots_read, &shards, error);
}
