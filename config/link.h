/* What follows from values of several sections. */
#ifndef CONFIG_LINK_H
#define CONFIG_LINK_H

#include "config/config.h"
#include "config/draft.h"

/* Find the upstreams of each listener, and derive the defaults that depend on
 * other values. */
void link_config(struct config *c, const struct draft *d);

/* The types of upstream behind a listener, as a set: 1 << enum
 * upstream_type. */
unsigned listener_types(const struct listener_config *l);

#endif
