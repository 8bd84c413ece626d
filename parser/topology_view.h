/* What the files about topology share: the fields of a node, and a view while
 * it is being built. Private to the parser. */
#ifndef PARSER_TOPOLOGY_VIEW_H
#define PARSER_TOPOLOGY_VIEW_H

#include "parser/reply.h"
#include "parser/topology.h"

/* ---- fields ---- */

/* The text of a string; empty for NULL and for every other type. */
struct span string_text(const struct reply *r);

/* A whole number, as an integer or as decimal text. */
bool reply_number(const struct reply *r, int64_t *number);

/* Copy a host without the brackets of an IPv6 address. "" and "?" give "".
 * Returns false when it is too long or has bytes that no host name has. */
bool host_copy(char host[NODE_HOST_MAX + 1], struct span text);

/* Returns false when it is no number from 1 to 65535. */
bool port_copy(uint16_t *port, const struct reply *r);
bool port_parse(uint16_t *port, struct span text);

/* These two leave "" behind when the text is too long or not plain. */
void id_copy(char id[NODE_ID_MAX + 1], struct span text);
void zone_copy(char zone[NODE_ZONE_MAX + 1], struct span text);

/* The value behind "key:" at the beginning of a line of an INFO text, without
 * its line end; empty when there is no such line. */
struct span info_value(struct span text, const char *key);

/* ---- a view while it is being built ---- */

enum {
    NODE_NONE = 0xffff /* the index of no node */
};

struct view_builder;

/* Stop, with words. Returns false, for the caller to pass on. The first words
 * are kept. */
bool view_fail(struct view_builder *b, const char *error);

/* Add a node that is not there yet: known by its id, or without one by host and
 * port. *index receives its place, or NODE_NONE when the node has no port: it
 * is left out, and counted. False: failed. */
bool view_add(struct view_builder *b,
              const struct view_node *node,
              uint32_t *index);

/* A node that was added. Borrowed until the next one is. */
const struct view_node *view_builder_node(const struct view_builder *b,
                                          uint32_t index);

/* Give the slots of a range that are still free to a node, which is a primary
 * then; to NODE_NONE: to nobody, also later. False: failed. */
bool view_claim(struct view_builder *b,
                const struct reply *first,
                const struct reply *last,
                uint32_t node);

/* Read a reply that must be an array: each of its elements with read_one, which
 * returns false when it failed. Returns the view, or NULL with *error. */
struct view *view_read(struct span reply,
                       bool (*read_one)(struct view_builder *b,
                                        const struct reply *element,
                                        void *context),
                       void *context,
                       const char **error);

#endif
