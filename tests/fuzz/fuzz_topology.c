/* Byte soup as what servers say of who serves what. The first byte chooses the
 * question that it answers. Whatever comes out is within its bounds. */
#include "fuzz.h"
#include "parser/keyslot.h"
#include "parser/topology.h"

static bool ends_within(const char *text, size_t size)
{
    return memchr(text, '\0', size) != NULL;
}

static void require_node(const struct view_node *n)
{
    REQUIRE(n->port != 0);
    REQUIRE(ends_within(n->id, sizeof n->id));
    REQUIRE(ends_within(n->host, sizeof n->host));
    REQUIRE(ends_within(n->zone, sizeof n->zone));
    REQUIRE(strpbrk(n->host, " \r\n\t[]/@?%") == NULL);
    REQUIRE(n->role == NODE_UNKNOWN || n->role == NODE_PRIMARY ||
            n->role == NODE_REPLICA);
}

static bool is_same(const struct view_node *a, const struct view_node *b)
{
    return strcmp(a->id, b->id) == 0 &&
           (a->id[0] != '\0' ||
            (a->port == b->port && strcmp(a->host, b->host) == 0));
}

/* The node at index is no other one under the same name. */
static void require_new(const struct view *v, uint32_t index)
{
    for (uint32_t other = 0; other < index; other++) {
        REQUIRE(!is_same(&v->nodes[index], &v->nodes[other]));
    }
}

static void require_view(struct view *v, const char *error)
{
    int end = -1;

    REQUIRE((v == NULL) == (error != NULL));
    if (v == NULL) {
        return;
    }
    REQUIRE(v->n_nodes <= VIEW_NODES_MAX && v->n_ranges <= VIEW_RANGES_MAX);
    for (uint32_t i = 0; i < v->n_nodes; i++) {
        require_node(&v->nodes[i]);
        require_new(v, i);
    }
    for (uint32_t i = 0; i < v->n_ranges; i++) {
        const struct view_range *r = &v->ranges[i];
        REQUIRE(r->first > end && r->first <= r->last);
        REQUIRE(r->last < KEYSLOT_COUNT && r->node < v->n_nodes);
        REQUIRE(v->nodes[r->node].role == NODE_PRIMARY);
        end = r->last;
    }
    view_free(v);
}

static void read_role(struct span reply)
{
    bool connected = true;
    enum node_role role = role_parse(reply, &connected);

    REQUIRE(!connected || role == NODE_REPLICA);
}

static void read_replication(struct span reply)
{
    struct replication_info info;
    bool told = replication_info_parse(reply, &info);

    REQUIRE(told == (info.role != NODE_UNKNOWN));
    REQUIRE(!info.link_up || info.role == NODE_REPLICA);
    REQUIRE(ends_within(info.zone, sizeof info.zone));
}

static void read_master(struct span reply)
{
    struct view_node node;

    if (sentinel_master_parse(reply, &node)) {
        require_node(&node);
        REQUIRE(node.host[0] != '\0');
    }
}

static void read_switch(struct span payload)
{
    struct span name;
    struct view_node from;
    struct view_node to;

    if (sentinel_switch_parse(payload, &name, &from, &to)) {
        require_node(&from);
        require_node(&to);
        REQUIRE(name.len > 0 && name.data == payload.data);
        REQUIRE(from.host[0] != '\0' && to.host[0] != '\0');
    }
}

static void read_view(uint8_t question, struct span reply)
{
    const char *error = NULL;
    struct view *v = question == 's' ? view_from_slots(reply, &error)
                     : question == 'l'
                         ? sentinel_list_parse(reply, &error)
                         : view_from_shards(reply, question == 'T', &error);

    require_view(v, error);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct cluster_info info;

    if (size < 1) {
        return 0;
    }
    const struct span reply = { .data = data + 1, .len = size - 1 };
    switch (data[0]) {
    case 'S':
    case 'T':
    case 's':
    case 'l': read_view(data[0], reply); break;
    case 'i': (void)cluster_info_parse(reply, &info); break;
    case 'r': read_role(reply); break;
    case 'R': read_replication(reply); break;
    case 'a': read_master(reply); break;
    case 'w': read_switch(reply); break;
    default: break;
    }
    return 0;
}
