#include "parser/topology_view.h"

#include <assert.h>
#include <stdlib.h>

#include "parser/keyslot.h"
#include "parser/number.h"

/* ---- fields ---- */

struct span string_text(const struct reply *r)
{
    if (r == NULL || reply_type(r) != REPLY_STRING) {
        return (struct span){ 0 };
    }
    return reply_text(r);
}

bool reply_number(const struct reply *r, int64_t *number)
{
    if (r != NULL && reply_type(r) == REPLY_INTEGER) {
        *number = reply_integer(r);
        return true;
    }
    return number_parse(string_text(r), number);
}

static bool is_alphanumeric(uint8_t byte)
{
    return (byte >= '0' && byte <= '9') || (byte >= 'a' && byte <= 'z') ||
           (byte >= 'A' && byte <= 'Z');
}

/* Whether text has only letters, digits and those others. */
static bool is_plain(struct span text, const char *others)
{
    for (size_t i = 0; i < text.len; i++) {
        uint8_t byte = text.data[i];
        if (!is_alphanumeric(byte) &&
            (byte == '\0' || strchr(others, byte) == NULL)) {
            return false;
        }
    }
    return true;
}

static void text_copy(char *to, struct span text)
{
    if (text.len > 0) {
        memcpy(to, text.data, text.len);
    }
    to[text.len] = '\0';
}

bool host_copy(char host[NODE_HOST_MAX + 1], struct span text)
{
    host[0] = '\0';
    if (text.len == 0 || (text.len == 1 && text.data[0] == '?')) {
        return true;
    }
    if (text.len > 2 && text.data[0] == '[' && text.data[text.len - 1] == ']') {
        text.data++;
        text.len -= 2;
    }
    if (text.len > NODE_HOST_MAX || !is_plain(text, ".-_:")) {
        return false;
    }
    text_copy(host, text);
    return true;
}

static bool port_number(uint16_t *port, int64_t number)
{
    if (number < 1 || number > UINT16_MAX) {
        return false;
    }
    *port = (uint16_t)number;
    return true;
}

bool port_copy(uint16_t *port, const struct reply *r)
{
    int64_t number = 0;

    return reply_number(r, &number) && port_number(port, number);
}

bool port_parse(uint16_t *port, struct span text)
{
    int64_t number = 0;

    return number_parse(text, &number) && port_number(port, number);
}

void id_copy(char id[NODE_ID_MAX + 1], struct span text)
{
    bool fits = text.len <= NODE_ID_MAX && is_plain(text, ".-_:");

    text_copy(id, fits ? text : (struct span){ 0 });
}

void zone_copy(char zone[NODE_ZONE_MAX + 1], struct span text)
{
    bool fits = text.len <= NODE_ZONE_MAX && is_plain(text, ".-_:/");

    text_copy(zone, fits ? text : (struct span){ 0 });
}

struct span info_value(struct span text, const char *key)
{
    const size_t len = strlen(key);

    while (text.len > 0) {
        const uint8_t *end = memchr(text.data, '\n', text.len);
        size_t line = end == NULL ? text.len : (size_t)(end - text.data);
        if (line > len && memcmp(text.data, key, len) == 0 &&
            text.data[len] == ':') {
            struct span value = { text.data + len + 1, line - len - 1 };
            bool cr = value.len > 0 && value.data[value.len - 1] == '\r';
            value.len -= cr ? 1 : 0;
            return value;
        }
        size_t passed = end == NULL ? line : line + 1;
        text.data += passed;
        text.len -= passed;
    }
    return (struct span){ 0 };
}

/* ---- a view while it is being built ---- */

static const char no_memory[] = "out of memory";

enum {
    FOUND_SLOTS = 4096 /* of the hash table; more than twice VIEW_NODES_MAX */
};

struct view_builder {
    struct view *view; /* owned until the end */
    const char *error; /* static; NULL: none */
    uint32_t nodes_room;
    uint32_t claims;
    uint16_t found[FOUND_SLOTS];         /* a node plus one; 0: free */
    uint16_t owner[KEYSLOT_COUNT];       /* a node plus one; 0: nobody */
    uint16_t free_at[KEYSLOT_COUNT + 1]; /* on the way to the next free slot at
                                            or behind this one: itself when it
                                            is free */
};

/* NULL: memory is short. */
static struct view_builder *builder_new(void)
{
    struct view_builder *b = calloc(1, sizeof *b);
    struct view *v = calloc(1, sizeof *v);

    if (b == NULL || v == NULL) {
        free(b);
        free(v);
        return NULL;
    }
    b->view = v;
    for (unsigned slot = 0; slot <= KEYSLOT_COUNT; slot++) {
        b->free_at[slot] = (uint16_t)slot;
    }
    return b;
}

bool view_fail(struct view_builder *b, const char *error)
{
    if (b->error == NULL) {
        b->error = error;
    }
    return false;
}

const struct view_node *view_builder_node(const struct view_builder *b,
                                          uint32_t index)
{
    assert(index < b->view->n_nodes);
    return &b->view->nodes[index];
}

static bool is_same(const struct view_node *a, const struct view_node *b)
{
    if (a->id[0] != '\0' || b->id[0] != '\0') {
        return strcmp(a->id, b->id) == 0;
    }
    return a->port == b->port && strcmp(a->host, b->host) == 0;
}

/* Where the search for a node begins: FNV-1a of what makes it known. */
static uint32_t node_hash(const struct view_node *node)
{
    const char *text = node->id[0] != '\0' ? node->id : node->host;
    uint32_t hash = 2166136261u;

    for (; *text != '\0'; text++) {
        hash = (hash ^ (uint8_t)*text) * 16777619u;
    }
    if (node->id[0] == '\0') {
        hash = (hash ^ node->port) * 16777619u;
    }
    return (hash ^ hash >> 16) % FOUND_SLOTS;
}

/* Room for one more node. */
static bool nodes_grow(struct view_builder *b)
{
    struct view *v = b->view;

    _Static_assert(VIEW_NODES_MAX == 2000, "the words below say so");
    if (v->n_nodes == VIEW_NODES_MAX) {
        return view_fail(b, "more than 2000 nodes");
    }
    if (v->n_nodes < b->nodes_room) {
        return true;
    }
    uint32_t room = b->nodes_room == 0 ? 8 : 2 * b->nodes_room;
    struct view_node *nodes = realloc(v->nodes, room * sizeof *nodes);
    if (nodes == NULL) {
        return view_fail(b, no_memory);
    }
    v->nodes = nodes;
    b->nodes_room = room;
    return true;
}

bool view_add(struct view_builder *b,
              const struct view_node *node,
              uint32_t *index)
{
    uint32_t at = node_hash(node);

    *index = NODE_NONE;
    if (node->port == 0) {
        b->view->n_left_out++;
        return true;
    }
    for (; b->found[at] != 0; at = (at + 1) % FOUND_SLOTS) {
        uint32_t known = b->found[at] - 1u;
        if (is_same(&b->view->nodes[known], node)) {
            *index = known;
            return true;
        }
    }
    if (!nodes_grow(b)) {
        return false;
    }
    *index = b->view->n_nodes++;
    b->view->nodes[*index] = *node;
    b->found[at] = (uint16_t)(*index + 1);
    return true;
}

/* The next free slot at or behind one; KEYSLOT_COUNT: none. Each search makes
 * the next one shorter, so that a reply full of overlapping ranges costs no
 * more than another. */
static unsigned free_slot(struct view_builder *b, unsigned slot)
{
    while (b->free_at[slot] != slot) {
        b->free_at[slot] = b->free_at[b->free_at[slot]];
        slot = b->free_at[slot];
    }
    return slot;
}

static bool slot_number(const struct reply *r, unsigned *slot)
{
    int64_t number = 0;

    if (!reply_number(r, &number) || number < 0 || number >= KEYSLOT_COUNT) {
        return false;
    }
    *slot = (unsigned)number;
    return true;
}

bool view_claim(struct view_builder *b,
                const struct reply *first,
                const struct reply *last,
                uint32_t node)
{
    unsigned begin = 0;
    unsigned end = 0;

    if (!slot_number(first, &begin) || !slot_number(last, &end) ||
        begin > end) {
        return view_fail(b, "a range of slots that cannot be");
    }
    if (++b->claims > VIEW_RANGES_MAX) {
        return view_fail(b, "more ranges than slots");
    }
    for (unsigned slot = free_slot(b, begin); slot <= end;
         slot = free_slot(b, slot)) {
        b->owner[slot] = node == NODE_NONE ? 0 : (uint16_t)(node + 1);
        b->free_at[slot] = (uint16_t)(slot + 1);
    }
    if (node != NODE_NONE) {
        b->view->nodes[node].role = NODE_PRIMARY; /* though it may have been
                                                     called a replica before */
    }
    return true;
}

/* Write the ranges of slots with one owner; to nowhere while they are only
 * counted. */
static uint32_t ranges_write(const struct view_builder *b,
                             struct view_range *ranges)
{
    uint32_t count = 0;
    unsigned end = 0;

    for (unsigned slot = 0; slot < KEYSLOT_COUNT; slot = end) {
        for (end = slot + 1;
             end < KEYSLOT_COUNT && b->owner[end] == b->owner[slot];) {
            end++;
        }
        if (b->owner[slot] == 0) {
            continue;
        }
        if (ranges != NULL) {
            ranges[count] = (struct view_range){ .first = (uint16_t)slot,
                                                 .last = (uint16_t)(end - 1),
                                                 .node = b->owner[slot] - 1u };
        }
        count++;
    }
    return count;
}

/* The end of the builder: the view, or NULL with *error. */
static struct view *builder_finish(struct view_builder *b, const char **error)
{
    struct view *v = b->view;
    uint32_t count = b->error == NULL ? ranges_write(b, NULL) : 0;

    if (count > 0) {
        v->ranges = malloc(count * sizeof *v->ranges);
        if (v->ranges == NULL) {
            (void)view_fail(b, no_memory);
        } else {
            v->n_ranges = ranges_write(b, v->ranges);
        }
    }
    if (b->error != NULL) {
        *error = b->error;
        view_free(v);
        v = NULL;
    }
    free(b);
    return v;
}

struct view *view_read(struct span reply,
                       bool (*read_one)(struct view_builder *b,
                                        const struct reply *element,
                                        void *context),
                       void *context,
                       const char **error)
{
    struct reply *r = reply_parse(reply);
    struct view_builder *b = NULL;

    *error = NULL;
    if (r == NULL) {
        *error = "malformed, too large, or out of memory";
    } else if (reply_type(r) == REPLY_ERROR) {
        *error = "the server answered an error";
    } else if (reply_type(r) != REPLY_ARRAY) {
        *error = "not a list";
    } else {
        b = builder_new();
        *error = b == NULL ? no_memory : NULL;
    }
    for (size_t i = 0; b != NULL && i < reply_count(r); i++) {
        if (!read_one(b, reply_at(r, i), context)) {
            break;
        }
    }
    reply_free(r);
    return b == NULL ? NULL : builder_finish(b, error);
}

void view_free(struct view *v)
{
    if (v != NULL) {
        free(v->nodes);
        free(v->ranges);
        free(v);
    }
}
