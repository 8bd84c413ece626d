#include "proxy/core/allow_nodes.h"

const char *allow_nodes_refusal(const struct config *config,
                                const struct cluster *c,
                                const struct address *address)
{
    (void)config;
    (void)c;
    return address->port == 0 ? "its port is 0" : NULL;
}
