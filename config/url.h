/* URLs of servers. */
#ifndef CONFIG_URL_H
#define CONFIG_URL_H

#include <stdbool.h>
#include <stddef.h>

#include "config/config.h"

enum {
    URL_PART_MAX = 1024,
    URL_NODES_MAX = 16 * 1024
};

/* redis://user:password@host:port/db or redis+unix:///path?db=N, or
 * redis+cluster://user:password@host:port,host:port or
 * redis+sentinel://user:password@host:port,host:port/master_name/db
 * ?sentinel_username=U&sentinel_password=P, or
 * grpc://host:port,host:port or grpc+unix:///path */
struct url {
    enum upstream_type type;
    struct address address;        /* standalone */
    char nodes[URL_NODES_MAX + 1]; /* else; between commas, none empty, but not
                                      yet understood */
    char master_name[URL_PART_MAX + 1];       /* empty: none */
    char sentinel_username[URL_PART_MAX + 1]; /* empty: none */
    char sentinel_password[URL_PART_MAX + 1]; /* empty: none */
    bool has_db;
    uint32_t db;
    char username[URL_PART_MAX + 1]; /* empty: none */
    char password[URL_PART_MAX + 1]; /* empty: none */
};

/* Read a URL. Returns NULL, or what is wrong in words; they never repeat the
 * URL, which may hold a password. */
const char *url_parse(const char *text, struct url *url);

/* How a URL for this type of upstream begins. */
const char *url_scheme(enum upstream_type type);

#endif
