/* Which addresses learnt from servers may be used (redis.md §9 "Allow set"). */
#ifndef CORE_ALLOW_NODES_H
#define CORE_ALLOW_NODES_H

#include "proxy/core/cluster.h"

/* Whether redial may connect to an address a server has told. Configured nodes
 * always may. Else allow_nodes decides; without it: the configured nodes' hosts
 * and, for those that are or resolve to an IP, its /16 (IPv4) or /48 (IPv6);
 * loopback only if such a node is on it. Never link-local, multicast,
 * unspecified, port 0, or an own listener. NULL, or why not in static words. */
const char *allow_nodes_refusal(const struct config *config,
                                const struct cluster *c,
                                const struct address *address);

#endif
