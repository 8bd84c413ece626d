#include "config/option.h"

#include <assert.h>
#include <string.h>

#include "config/config.h"

const struct word words_log_format[] = {
    { "logfmt", LOG_LOGFMT },
    { "json", LOG_JSON },
    { NULL, 0 },
};

const struct word words_log_level[] = {
    { "debug", LOG_DEBUG }, { "info", LOG_INFO }, { "warn", LOG_WARN },
    { "error", LOG_ERROR }, { NULL, 0 },
};

const struct word words_auth[] = {
    { "pass", AUTH_PASS },
    { "own", AUTH_OWN },
    { "none", AUTH_NONE },
    { NULL, 0 },
};

const struct word words_upstream_type[] = {
    { "standalone", UPSTREAM_STANDALONE },
    { NULL, 0 },
};

const struct word words_lanes[] = {
    { "shared", LANES_SHARED },
    { "private", LANES_PRIVATE },
    { NULL, 0 },
};

const struct word words_replay[] = {
    { "none", REPLAY_NONE },
    { "read", REPLAY_READ },
    { "idempotent", REPLAY_IDEMPOTENT },
    { "convergent", REPLAY_CONVERGENT },
    { "all", REPLAY_ALL },
    { NULL, 0 },
};

const struct word words_retry_error[] = {
    { "connection", RETRY_ERROR_CONNECTION },
    { "timeout", RETRY_ERROR_TIMEOUT },
    { "loading", RETRY_ERROR_LOADING },
    { "readonly", RETRY_ERROR_READONLY },
    { "masterdown", RETRY_ERROR_MASTERDOWN },
    { "clusterdown", RETRY_ERROR_CLUSTERDOWN },
    { "tryagain", RETRY_ERROR_TRYAGAIN },
    { "noreplicas", RETRY_ERROR_NOREPLICAS },
    { "busy", RETRY_ERROR_BUSY },
    { "maxclients", RETRY_ERROR_MAXCLIENTS },
    { NULL, 0 },
};

const struct word words_backoff[] = {
    { "constant", BACKOFF_CONSTANT },
    { "none", BACKOFF_NONE },
    { "exponential", BACKOFF_EXPONENTIAL },
    { "full_jitter", BACKOFF_FULL_JITTER },
    { "equal_jitter", BACKOFF_EQUAL_JITTER },
    { "decorrelated_jitter", BACKOFF_DECORRELATED_JITTER },
    { "exponential_with_jitter", BACKOFF_EXPONENTIAL_WITH_JITTER },
    { NULL, 0 },
};

#define MICROSECONDS(n) ((int64_t)(n))
#define MILLISECONDS(n) ((int64_t)(n)*1000)
#define SECONDS(n)      ((int64_t)(n)*1000000)
#define MINUTES(n)      ((int64_t)(n)*60 * 1000000)
#define HOURS(n)        ((int64_t)(n)*3600 * 1000000)
#define DAYS(n)         ((int64_t)(n)*86400 * 1000000)
#define KIB(n)          ((int64_t)(n)*1024)
#define GIB(n)          ((int64_t)(n)*1024 * 1024 * 1024)

static const struct section sections[] = {
#define SECTION(id, name, named, help) { name, named, help },
#define OPTION(...)
#include "config/options.def"
#undef OPTION
#undef SECTION
};

#define FIELD(type, member) \
    offsetof(struct type, member), sizeof(((struct type *)0)->member)
#define NO_FIELD 0, 0
/* FIELD is two initializers, so it has to be expanded before the row is. */
#define OPTION(...) ROW(__VA_ARGS__)
#define ROW(in, at, bytes, name, kind, text, low, high, list, other, about) \
    { .section = SECTION_##in,                                              \
      .type = OPTION_##kind,                                                \
      .key = name,                                                          \
      .offset = at,                                                         \
      .size = bytes,                                                        \
      .fallback = text,                                                     \
      .min = low,                                                           \
      .max = high,                                                          \
      .words = list,                                                        \
      .alias = other,                                                       \
      .help = about },

static const struct option options[] = {
#define SECTION(id, name, named, help)
#include "config/options.def"
#undef SECTION
};

const struct section *section_get(enum section_kind kind)
{
    assert(kind < SECTION_COUNT);
    return &sections[kind];
}

enum section_kind section_find(const char *name, size_t len)
{
    unsigned kind = 0;
    while (kind < SECTION_COUNT) {
        if (strlen(sections[kind].name) == len &&
            memcmp(sections[kind].name, name, len) == 0) {
            break;
        }
        kind++;
    }
    return (enum section_kind)kind;
}

size_t option_count(void)
{
    return sizeof(options) / sizeof(options[0]);
}

const struct option *option_get(size_t index)
{
    assert(index < option_count());
    return &options[index];
}

size_t option_key_fixed(const struct option *o)
{
    return strcspn(o->key, "<");
}

bool option_is_open(const struct option *o)
{
    return o->key[option_key_fixed(o)] != '\0';
}

bool option_is_override(const struct option *o)
{
    return o->type == OPTION_OVERRIDE_BY_PREFIX ||
           o->type == OPTION_OVERRIDE_BY_SCRIPT ||
           o->type == OPTION_OVERRIDE_BY_COMMAND;
}

static bool option_takes(const struct option *o, const char *key)
{
    if (!option_is_open(o)) {
        return strcmp(o->key, key) == 0;
    }
    return strncmp(o->key, key, option_key_fixed(o)) == 0;
}

const struct option *option_find(enum section_kind section, const char *key)
{
    for (size_t i = 0; i < option_count(); i++) {
        if (options[i].section == section && option_takes(&options[i], key)) {
            return &options[i];
        }
    }
    return NULL;
}

const char *word_text(const struct word *words, unsigned value)
{
    for (; words->text != NULL; words++) {
        if (words->value == value) {
            return words->text;
        }
    }
    return "?";
}
