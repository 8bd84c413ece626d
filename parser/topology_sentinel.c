#include "parser/topology.h"
#include "parser/topology_view.h"

/* A sentinel names each server's own address: here an empty host is nobody's. */
static bool address_copy(struct view_node *node, struct span host)
{
    return host_copy(node->host, host) && node->host[0] != '\0';
}

bool sentinel_master_parse(struct span reply, struct view_node *node)
{
    struct reply *r = reply_parse(reply);

    *node = (struct view_node){ .role = NODE_PRIMARY, .online = true };
    bool known = r != NULL && reply_count(r) >= 2 &&
                 address_copy(node, string_text(reply_at(r, 0))) &&
                 port_copy(&node->port, reply_at(r, 1));
    reply_free(r);
    return known;
}

/* Take the next part of text, which ends at the mark or at its end. */
static struct span part_take(struct span *text, uint8_t mark)
{
    const uint8_t *end =
        text->len == 0 ? NULL : memchr(text->data, mark, text->len);
    struct span part = *text;

    if (end == NULL) {
        *text = (struct span){ 0 };
        return part;
    }
    part.len = (size_t)(end - part.data);
    text->data = end + 1;
    text->len -= part.len + 1;
    return part;
}

/* "slave,s_down,disconnected" */
static void flags_read(struct view_node *n, struct span flags)
{
    while (flags.len > 0) {
        struct span flag = part_take(&flags, ',');
        if (span_is_word(flag, "S_DOWN") || span_is_word(flag, "O_DOWN") ||
            span_is_word(flag, "DISCONNECTED")) {
            n->online = false;
        } else if (span_is_word(flag, "SLAVE") ||
                   span_is_word(flag, "REPLICA")) {
            n->role = NODE_REPLICA;
        } else if (span_is_word(flag, "MASTER") ||
                   span_is_word(flag, "PRIMARY")) {
            n->role = NODE_PRIMARY;
        }
    }
}

/* Read one server. One that cannot be used has port 0 afterwards. */
static struct view_node listed_node(const struct reply *r)
{
    struct view_node n = { .online = true };

    id_copy(n.id, string_text(reply_get(r, "runid")));
    flags_read(&n, string_text(reply_get(r, "flags")));
    if (n.role == NODE_REPLICA) {
        struct span link = string_text(reply_get(r, "master-link-status"));
        n.online = n.online && span_is_word(link, "OK");
        if (!reply_number(reply_get(r, "slave-repl-offset"), &n.offset)) {
            n.offset = 0;
        }
    }
    if (!address_copy(&n, string_text(reply_get(r, "ip"))) ||
        !port_copy(&n.port, reply_get(r, "port"))) {
        n.port = 0;
    }
    return n;
}

static bool listed_read(struct view_builder *b,
                        const struct reply *r,
                        void *context)
{
    uint32_t index = NODE_NONE;

    (void)context;
    if (reply_type(r) != REPLY_ARRAY || reply_count(r) % 2 != 0) {
        return view_fail(b, "a server that is no map");
    }
    struct view_node n = listed_node(r);
    return view_add(b, &n, &index);
}

struct view *sentinel_list_parse(struct span reply, const char **error)
{
    return view_read(reply, listed_read, NULL, error);
}

bool sentinel_switch_parse(struct span payload,
                           struct span *name,
                           struct view_node *from,
                           struct view_node *to)
{
    *from = (struct view_node){ 0 };
    *to = (struct view_node){ .role = NODE_PRIMARY, .online = true };
    *name = part_take(&payload, ' ');
    return name->len > 0 && address_copy(from, part_take(&payload, ' ')) &&
           port_parse(&from->port, part_take(&payload, ' ')) &&
           address_copy(to, part_take(&payload, ' ')) &&
           port_parse(&to->port, payload);
}
