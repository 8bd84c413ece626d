/* The numbers of stats.def in a trace. */
#include <stddef.h>
#include <stdlib.h>

#include "tests/trace/play.h"

#define ROW(name, help)        { #name, offsetof(struct upstream_stats, name) },
#define ENGINE_ROW(name, help) { #name, offsetof(struct engine_stats, name) },
#define NOTHING(name, help)
struct stat_row {
    const char *name;
    size_t offset;
};

#define COUNTER        ROW
#define GAUGE          ROW
#define ENGINE_COUNTER NOTHING
#define ENGINE_GAUGE   NOTHING
static const struct stat_row upstream_rows[] = {
#include "proxy/core/stats.def"
};
#undef COUNTER
#undef GAUGE
#undef ENGINE_COUNTER
#undef ENGINE_GAUGE
#define COUNTER        NOTHING
#define GAUGE          NOTHING
#define ENGINE_COUNTER ENGINE_ROW
#define ENGINE_GAUGE   ENGINE_ROW
static const struct stat_row engine_rows[] = {
#include "proxy/core/stats.def"
};

static bool stat_find(const struct stat_row *rows,
                      size_t n,
                      const char *name,
                      const void *stats,
                      uint64_t *value)
{
    for (size_t i = 0; i < n; i++) {
        if (strcmp(rows[i].name, name) == 0) {
            memcpy(value, (const char *)stats + rows[i].offset, sizeof *value);
            return true;
        }
    }
    return false;
}

void want_stat(struct play *p, const char *rest)
{
    struct engine_stats engine;
    struct upstream_stats *upstreams =
        must_alloc(p->config->n_upstreams * sizeof *upstreams);
    char name[WORD_MAX];
    char number[WORD_MAX];
    uint64_t value = 0;

    word_next(&rest, name);
    word_next(&rest, number);
    engine_stats(p->stage.engine, &engine, upstreams);
    if (!stat_find(upstream_rows,
                   sizeof upstream_rows / sizeof upstream_rows[0], name,
                   &upstreams[0], &value) &&
        !stat_find(engine_rows, sizeof engine_rows / sizeof engine_rows[0],
                   name, &engine, &value)) {
        complain(p, "no such number");
    } else if (value != strtoull(number, NULL, 10)) {
        complain(p, "another number:");
        bytes_printf(&p->complaint, "    %.60s is %llu\n", name,
                     (unsigned long long)value);
    }
    free(upstreams);
}

void want_asked(struct play *p, const char *rest)
{
    char number[WORD_MAX];
    unsigned asked = servers_asked(&p->servers);
    word_next(&rest, number);
    if (asked != strtoul(number, NULL, 10)) {
        complain(p, "another number:");
        bytes_printf(&p->complaint, "    asked %u times\n", asked);
    }
}
