/* Which addresses learnt from servers may be used (redis.md §9 "Allow set"). */
#ifndef CORE_ALLOW_NODES_H
#define CORE_ALLOW_NODES_H

#include "proxy/core/cluster.h"

/* Whether redial may connect to an address a server has told. Configured nodes
 * always may. Else allow_nodes decides; without it: the configured nodes' hosts
 * and, for those that are or resolve to an IP address, its /16 (IPv4) or /48
 * (IPv6).
 *
 * Loopback only if a configured node is on it, or an entry of allow_nodes names
 * it: one that is merely wide enough (0.0.0.0/0) does not. Never link-local,
 * multicast, unspecified, port 0, a Unix socket, a listener of redial's own, or
 * a host that some resolvers would take for an IP address and redial does not
 * (0177.0.0.1, 127.1).
 *
 * NULL, or why not in static words. */
const char *allow_nodes_refusal(const struct config *config,
                                const struct cluster *c,
                                const struct address *address);

#endif
