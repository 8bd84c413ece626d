/* URLs of servers. */
#ifndef CONFIG_URL_H
#define CONFIG_URL_H

#include <stdbool.h>
#include <stddef.h>

#include "config/config.h"

enum {
    URL_PART_MAX = 1024
};

/* redis://user:password@host:port/db or redis+unix:///path?db=N */
struct url {
    struct address address;
    bool has_db;
    uint32_t db;
    char username[URL_PART_MAX + 1]; /* empty: none */
    char password[URL_PART_MAX + 1]; /* empty: none */
};

/* Read a URL. Returns NULL, or what is wrong in words; they never repeat the
 * URL, which may hold a password. */
const char *url_parse(const char *text, struct url *url);

#endif
