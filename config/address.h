/* Reading and judging addresses. */
#ifndef CONFIG_ADDRESS_H
#define CONFIG_ADDRESS_H

#include <stdbool.h>
#include <stddef.h>

#include "config/config.h"

/* Read "host:port", "[v6]:port", "unix:/path" or "/path". With listening,
 * ":port" means all addresses, and port 0 may be meant. Returns NULL, or what
 * is wrong, in words. */
const char *address_parse(const char *text, bool listening, struct address *a);

/* Read the parts; the same answers as address_parse(). */
const char *address_set_host(struct address *a, const char *host, size_t len);
const char *address_set_port(struct address *a,
                             const char *port,
                             size_t len,
                             bool any);
const char *address_set_path(struct address *a, const char *path, size_t len);

/* Whether only this machine can reach it: a Unix socket or a loopback
 * address. Of names, only localhost is known to be. */
bool address_is_local(const struct address *a);
bool address_equal(const struct address *a, const struct address *b);

#endif
