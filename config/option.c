#include "config/option.h"

#include <assert.h>
#include <string.h>

#include "config/config.h"

const struct word words_log_format[] = {
    { "logfmt", LOG_LOGFMT, "key=value pairs" },
    { "json", LOG_JSON, "one JSON object" },
    { NULL, 0, NULL },
};

const struct word words_log_level[] = {
    { "debug", LOG_DEBUG, NULL },
    { "info", LOG_INFO, NULL },
    { "warn", LOG_WARN, NULL },
    { "error", LOG_ERROR, NULL },
    { NULL, 0, NULL },
};

const struct word words_auth[] = {
    { "pass", AUTH_PASS, "the server verifies a client's AUTH" },
    { "own", AUTH_OWN,
      "redial verifies it against username and password of this section, and "
      "uses the credentials of the upstream" },
    { "none", AUTH_NONE, "AUTH is not taken" },
    { NULL, 0, NULL },
};

const struct word words_upstream_type[] = {
    { "standalone", UPSTREAM_STANDALONE, "one server, at address" },
    { "cluster", UPSTREAM_CLUSTER,
      "a Redis Cluster; nodes are where to begin to ask for the others" },
    { "sentinel", UPSTREAM_SENTINEL,
      "a primary and its replicas; nodes are the sentinels that know which is "
      "which" },
    { "grpc", UPSTREAM_GRPC, "gRPC servers; nodes are all of them" },
    { NULL, 0, NULL },
};

const struct word words_protocol[] = {
    { "redis", LISTENER_REDIS, "RESP" },
    { "grpc", LISTENER_GRPC, "HTTP/2 without TLS (h2c)" },
    { "auto", LISTENER_AUTO,
      "either, told apart by their first bytes; upstream is for those that "
      "speak Redis, grpc_upstream for the others" },
    { NULL, 0, NULL },
};

const struct word words_read_from[] = {
    { "primary", READ_PRIMARY, "the primary: a client sees what was written" },
    { "prefer_replica", READ_PREFER_REPLICA,
      "a replica; without one, the primary" },
    { "replica", READ_REPLICA, "a replica; without one, the request waits" },
    { "any", READ_ANY, "the primary and its replicas alike" },
    { NULL, 0, NULL },
};

const struct word words_cluster_view[] = {
    { "single", CLUSTER_VIEW_SINGLE,
      "one node that owns all slots: the listener" },
    { "real", CLUSTER_VIEW_REAL, "what the servers say" },
    { NULL, 0, NULL },
};

const struct word words_lanes[] = {
    { "shared", LANES_SHARED,
      "clients with the same user, database and protocol version share "
      "connections" },
    { "private", LANES_PRIVATE, "each client has a connection of its own" },
    { NULL, 0, NULL },
};

const struct word words_pubsub_gap[] = {
    { "resume", PUBSUB_GAP_RESUME,
      "it is subscribed again, and does not hear of it" },
    { "close", PUBSUB_GAP_CLOSE, "its connection is closed" },
    { NULL, 0, NULL },
};

const struct word words_replay[] = {
    { "none", REPLAY_NONE, "nothing" },
    { "read", REPLAY_READ, "what only reads (GET)" },
    { "idempotent", REPLAY_IDEMPOTENT,
      "what leaves the same state and gives the same reply (SET, MSET); a "
      "relative time to live starts again" },
    { "convergent", REPLAY_CONVERGENT,
      "what leaves the same state, but may reply another count (DEL, SADD): 0 "
      "where the lost reply said 1" },
    { "all", REPLAY_ALL, "everything (INCR, LPUSH): some will happen twice" },
    { NULL, 0, NULL },
};

const struct word words_retry_error[] = {
    { "connection", RETRY_ERROR_CONNECTION, "lost or unreachable" },
    { "timeout", RETRY_ERROR_TIMEOUT, "no reply in attempt_timeout" },
    { "loading", RETRY_ERROR_LOADING, "-LOADING" },
    { "readonly", RETRY_ERROR_READONLY, "-READONLY" },
    { "masterdown", RETRY_ERROR_MASTERDOWN, "-MASTERDOWN" },
    { "clusterdown", RETRY_ERROR_CLUSTERDOWN, "-CLUSTERDOWN" },
    { "tryagain", RETRY_ERROR_TRYAGAIN, "-TRYAGAIN" },
    { "noreplicas", RETRY_ERROR_NOREPLICAS, "-NOREPLICAS" },
    { "busy", RETRY_ERROR_BUSY, "-BUSY" },
    { "maxclients", RETRY_ERROR_MAXCLIENTS,
      "-ERR max number of clients reached" },
    { NULL, 0, NULL },
};

/* f counts the failures, 1 before the first wait; U(a, b) is even between a
 * and b. */
const struct word words_backoff[] = {
    { "constant", BACKOFF_CONSTANT, "base" },
    { "none", BACKOFF_NONE, "0" },
    { "exponential", BACKOFF_EXPONENTIAL, "min(cap, base*2^f)" },
    { "full_jitter", BACKOFF_FULL_JITTER, "U(0, min(cap, base*2^f))" },
    { "equal_jitter", BACKOFF_EQUAL_JITTER,
      "t + U(0, t), t = min(cap, base*2^f)/2" },
    { "decorrelated_jitter", BACKOFF_DECORRELATED_JITTER,
      "min(cap, U(base, max(base, previous*3)))" },
    { "exponential_with_jitter", BACKOFF_EXPONENTIAL_WITH_JITTER,
      "min(cap, U(0, 1)*base*2^f)" },
    { NULL, 0, NULL },
};

const struct word words_grpc_retries[] = {
    { "full", GRPC_RETRIES_FULL, "whatever the policy of a method says" },
    { "transparent", GRPC_RETRIES_TRANSPARENT,
      "only what is known not to have run" },
    { "off", GRPC_RETRIES_OFF, "nothing" },
    { NULL, 0, NULL },
};

const struct word words_grpc_ambiguous[] = {
    { "auto", GRPC_AMBIGUOUS_AUTO,
      "if it is idempotent, or has a retryPolicy that names its service" },
    { "policy", GRPC_AMBIGUOUS_POLICY,
      "if it has any policy: some calls will run twice" },
    { "idempotent", GRPC_AMBIGUOUS_IDEMPOTENT, "if it is idempotent" },
    { "never", GRPC_AMBIGUOUS_NEVER, "never" },
    { NULL, 0, NULL },
};

const struct word words_grpc_hold[] = {
    { "auto", GRPC_HOLD_AUTO, "where a retry would still be possible" },
    { "off", GRPC_HOLD_OFF, "never" },
    { NULL, 0, NULL },
};

const struct word words_grpc_stop_client[] = {
    { "auto", GRPC_STOP_AUTO, "when a call failed that was retried here" },
    { "always", GRPC_STOP_ALWAYS, "whenever a call failed" },
    { "never", GRPC_STOP_NEVER, "never" },
    { NULL, 0, NULL },
};

const struct word words_grpc_stacked[] = {
    { "share", GRPC_STACKED_SHARE,
      "the client's attempts and redial's are counted together" },
    { "ignore", GRPC_STACKED_IGNORE, "each of the client's has all of ours" },
    { NULL, 0, NULL },
};

const struct word words_grpc_lb[] = {
    { "pick_first", GRPC_PICK_FIRST, "the first that can be reached" },
    { "round_robin", GRPC_ROUND_ROBIN, "all in turn" },
    { "least_request", GRPC_LEAST_REQUEST,
      "of some, the one with the fewest calls" },
    { NULL, 0, NULL },
};

const struct word words_grpc_reconnect[] = {
    { "fast", GRPC_RECONNECT_FAST, "200ms, 5s, 1.6, 0.2 and 5s" },
    { "grpc", GRPC_RECONNECT_GRPC,
      "1s, 120s, 1.6, 0.2 and 20s, as gRPC libraries do" },
    { NULL, 0, NULL },
};

const struct word words_grpc_mode[] = {
    { "strict", false,
      "as gRPC libraries do: one mistake and nothing of the "
      "file is taken" },
    { "gapic", true,
      "a retryPolicy needs no maxAttempts, as in files published for client "
      "generators; it is then max_attempts_cap" },
    { NULL, 0, NULL },
};

/* The codes of gRPC, by number. */
const struct word words_status[] = {
    { "OK", 0, NULL },
    { "CANCELLED", 1, NULL },
    { "UNKNOWN", 2, NULL },
    { "INVALID_ARGUMENT", 3, NULL },
    { "DEADLINE_EXCEEDED", 4, NULL },
    { "NOT_FOUND", 5, NULL },
    { "ALREADY_EXISTS", 6, NULL },
    { "PERMISSION_DENIED", 7, NULL },
    { "RESOURCE_EXHAUSTED", 8, NULL },
    { "FAILED_PRECONDITION", 9, NULL },
    { "ABORTED", 10, NULL },
    { "OUT_OF_RANGE", 11, NULL },
    { "UNIMPLEMENTED", 12, NULL },
    { "INTERNAL", 13, NULL },
    { "UNAVAILABLE", 14, NULL },
    { "DATA_LOSS", 15, NULL },
    { "UNAUTHENTICATED", 16, NULL },
    { NULL, 0, NULL },
};

#define MICROSECONDS(n) ((int64_t)(n))
#define MILLISECONDS(n) ((int64_t)(n)*1000)
#define SECONDS(n)      ((int64_t)(n)*1000000)
#define MINUTES(n)      ((int64_t)(n)*60 * 1000000)
#define HOURS(n)        ((int64_t)(n)*3600 * 1000000)
#define DAYS(n)         ((int64_t)(n)*86400 * 1000000)
#define KIB(n)          ((int64_t)(n)*1024)
#define MIB(n)          ((int64_t)(n)*1024 * 1024)
#define GIB(n)          ((int64_t)(n)*1024 * 1024 * 1024)

static const struct section sections[] = {
#define SECTION(id, name, named, help) { name, named, help },
#define OPTION(...)
#define OPTION_FOR(...)
#include "config/options.def"
#undef OPTION_FOR
#undef OPTION
#undef SECTION
};

#define FIELD(type, member) \
    offsetof(struct type, member), sizeof(((struct type *)0)->member)
#define NO_FIELD   0, 0
#define STANDALONE (1u << UPSTREAM_STANDALONE)
#define CLUSTER    (1u << UPSTREAM_CLUSTER)
#define SENTINEL   (1u << UPSTREAM_SENTINEL)
#define GRPC       (1u << UPSTREAM_GRPC)
#define REDIS      (STANDALONE | CLUSTER | SENTINEL)
#define EVERY      (REDIS | GRPC)
/* FIELD is two initializers, so it has to be expanded before the row is. */
#define OPTION(...)     ROW(REDIS, __VA_ARGS__)
#define OPTION_FOR(...) ROW(__VA_ARGS__)
#define ROW(types, in, at, bytes, name, kind, text, low, high, list, other, \
            about)                                                          \
    { .section = SECTION_##in,                                              \
      .type = OPTION_##kind,                                                \
      .upstream_types = (types),                                            \
      .key = (name),                                                        \
      .offset = (at),                                                       \
      .size = (bytes),                                                      \
      .fallback = (text),                                                   \
      .min = (low),                                                         \
      .max = (high),                                                        \
      .words = (list),                                                      \
      .alias = (other),                                                     \
      .help = (about) },

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

void option_spell_key(const struct option *o, char *key)
{
    for (char *c = key + option_key_fixed(o); *c != '\0'; c++) {
        if (o->type == OPTION_OVERRIDE_BY_COMMAND) {
            if (*c >= 'a' && *c <= 'z') {
                *c = (char)(*c - 'a' + 'A');
            } else if (*c == '|') {
                *c = ' ';
            }
        } else if (o->type == OPTION_OVERRIDE_BY_SCRIPT) {
            if (*c >= 'A' && *c <= 'F') {
                *c = (char)(*c - 'A' + 'a');
            }
        }
    }
}

const char *option_key_wrong(const struct option *o, const char *key)
{
    static const char command_chars[] =
        "ABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789_-. ";
    const char *part = key + option_key_fixed(o);
    size_t len = strlen(part);
    if (o->type == OPTION_OVERRIDE_BY_SCRIPT &&
        (len != 40 || strspn(part, "0123456789abcdef") != len)) {
        return "a script is named by its SHA1: 40 hexadecimal digits";
    }
    if (o->type == OPTION_OVERRIDE_BY_COMMAND &&
        (len == 0 || len > OPTION_NAME_MAX ||
         strspn(part, command_chars) != len)) {
        return "behind 'replay.' stands a command, such as replay.INCR";
    }
    if (o->type == OPTION_OVERRIDE_BY_PREFIX && len == 0) {
        return "behind 'replay.prefix.' stands how keys begin, such as "
               "replay.prefix.session:";
    }
    return NULL;
}

bool option_is_list(const struct option *o)
{
    return o->type == OPTION_NODES || o->type == OPTION_NODE_ZONES ||
           o->type == OPTION_ALLOW_NODES || o->type == OPTION_TARGET ||
           o->type == OPTION_GLOBS;
}

bool option_is_shared(const struct option *o)
{
    return o->section == SECTION_UPSTREAM && option_is_only_grpc(o) &&
           o->type != OPTION_NODES && o->type != OPTION_TARGET;
}

bool option_is_for(const struct option *o, unsigned upstream_type)
{
    return (o->upstream_types & 1u << upstream_type) != 0;
}

bool option_is_string(const struct option *o)
{
    return o->type == OPTION_USERNAME || o->type == OPTION_SECRET ||
           o->type == OPTION_NAME || o->type == OPTION_AUTHORITY ||
           o->type == OPTION_FILE_NAME;
}

bool option_is_only_grpc(const struct option *o)
{
    return o->upstream_types == 1u << UPSTREAM_GRPC;
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

const struct option *option_find_for(enum section_kind section,
                                     const char *key,
                                     unsigned upstream_type)
{
    for (size_t i = 0; i < option_count(); i++) {
        if (options[i].section == section &&
            option_is_for(&options[i], upstream_type) &&
            option_takes(&options[i], key)) {
            return &options[i];
        }
    }
    return NULL;
}

const struct option *option_find_in(enum section_kind section, const char *key)
{
    const struct option *o = option_find(section, key);
    if (o == NULL && section == SECTION_ALL_GRPC) {
        o = option_find_for(SECTION_UPSTREAM, key, UPSTREAM_GRPC);
        o = o != NULL && option_is_shared(o) ? o : NULL;
    }
    return o;
}

const struct option *option_for_type(const struct option *o,
                                     unsigned upstream_type)
{
    bool is_known = upstream_type <= UPSTREAM_GRPC;
    if (option_is_open(o) || option_is_for(o, upstream_type)) {
        return o;
    }
    for (size_t i = 0; i < option_count(); i++) {
        const struct option *other = &options[i];
        if (other == o || other->section != o->section ||
            strcmp(other->key, o->key) != 0) {
            continue;
        }
        if (!is_known || option_is_for(other, upstream_type)) {
            return is_known ? other : NULL;
        }
    }
    return o;
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
