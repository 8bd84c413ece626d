/* The lists of an upstream: nodes, node_zones, allow_nodes and globs of
 * methods. */
#ifndef CONFIG_NODES_H
#define CONFIG_NODES_H

#include <stdbool.h>
#include <stddef.h>

#include "config/config.h"
#include "config/option.h"
#include "config/value.h"

enum {
    NODES_MAX = 256, /* entries of one list */
    NODES_TEXT_MAX = VALUE_STRING_MAX + ADDRESS_TEXT_MAX
};

/* Add what text lists (between commas, spaces or ends of lines) to the list
 * that o names. Ports that are not given are 0. With VALUE_BAD, why says which
 * entry is wrong, without repeating it, and those before it are added. */
enum value_result nodes_add(const struct option *o,
                            const char *text,
                            struct upstream_config *u,
                            char why[VALUE_TEXT_MAX]);

size_t nodes_count(const struct option *o, const struct upstream_config *u);
/* Write entry i as nodes_add() reads it. */
void nodes_format(const struct option *o,
                  const struct upstream_config *u,
                  size_t i,
                  char text[NODES_TEXT_MAX]);

/* Give nodes without a port that of their kind: 6379 or 26379. */
void nodes_set_ports(struct upstream_config *u);
/* Whether both mean one node: names in any case, IP addresses in any
 * spelling. */
bool node_equal(const struct address *a, const struct address *b);

/* Free the lists. */
void nodes_free(struct upstream_config *u);

#endif
