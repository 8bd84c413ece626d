/* The configuration: immutable once loaded. Every value comes from a row of
 * options.def, which also gives defaults, help, documentation and the example
 * file. */
#ifndef CONFIG_CONFIG_H
#define CONFIG_CONFIG_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "config/grpc_config.h"

enum {
    ADDRESS_HOST_MAX = 255
};

/* Where to listen or to connect. */
struct address {
    bool is_unix;
    uint16_t port;                   /* 0 for Unix sockets */
    char host[ADDRESS_HOST_MAX + 1]; /* name, IPv4, IPv6 without brackets, or
                                        the path of a Unix socket */
};

enum {
    ADDRESS_TEXT_MAX = ADDRESS_HOST_MAX + 16
};

/* Write "host:port", "[v6]:port" or "unix:/path". text has ADDRESS_TEXT_MAX
 * bytes. */
void address_format(const struct address *a, char *text);

enum upstream_type {
    UPSTREAM_STANDALONE,
    UPSTREAM_CLUSTER,  /* redis.md §9 */
    UPSTREAM_SENTINEL, /* redis.md §10 */
    UPSTREAM_GRPC      /* grpc.md */
};

/* What the clients of a listener speak. */
enum listener_protocol {
    LISTENER_REDIS,
    LISTENER_GRPC,
    LISTENER_AUTO /* told apart by their first bytes */
};

/* Which servers answer read-only commands (redis.md §9). */
enum read_from {
    READ_PRIMARY,
    READ_PREFER_REPLICA, /* a replica; without one, the primary */
    READ_REPLICA,        /* replicas only: without one, the request waits */
    READ_ANY             /* the primary and its replicas alike */
};

/* What a client that asks for the cluster's topology is shown. */
enum cluster_view {
    CLUSTER_VIEW_SINGLE, /* one node that owns all slots: the listener */
    CLUSTER_VIEW_REAL    /* what the servers say */
};

/* One line of allow_nodes: addresses that servers may tell redial to use. */
struct allowed_nodes {
    char *host;      /* owned: a name, or "*.example.net", in lower case; NULL
                        for a network */
    uint8_t net[16]; /* IPv4 as ::ffff:a.b.c.d */
    uint8_t bits;    /* of the mapped form, 0 to 128 */
};

/* One entry of node_zones. */
struct node_zone {
    struct address node; /* port 0: any port of that host */
    char *zone;          /* owned */
};

/* redis.md §5 */
enum backoff_kind {
    BACKOFF_CONSTANT,
    BACKOFF_NONE,
    BACKOFF_EXPONENTIAL,
    BACKOFF_FULL_JITTER,
    BACKOFF_EQUAL_JITTER,
    BACKOFF_DECORRELATED_JITTER,
    BACKOFF_EXPONENTIAL_WITH_JITTER
};

/* redis.md §3: each level includes those before it. */
enum replay_level {
    REPLAY_NONE,
    REPLAY_READ,
    REPLAY_IDEMPOTENT,
    REPLAY_CONVERGENT,
    REPLAY_ALL
};

/* redis.md §3 "retry_on_error": a set of these. */
enum retry_error {
    RETRY_ERROR_CONNECTION = 1 << 0,
    RETRY_ERROR_TIMEOUT = 1 << 1,
    RETRY_ERROR_LOADING = 1 << 2,
    RETRY_ERROR_READONLY = 1 << 3,
    RETRY_ERROR_MASTERDOWN = 1 << 4,
    RETRY_ERROR_CLUSTERDOWN = 1 << 5,
    RETRY_ERROR_TRYAGAIN = 1 << 6,
    RETRY_ERROR_NOREPLICAS = 1 << 7,
    RETRY_ERROR_BUSY = 1 << 8,
    RETRY_ERROR_MAXCLIENTS = 1 << 9
};

enum auth_mode {
    AUTH_PASS,
    AUTH_OWN,
    AUTH_NONE
};
enum lane_mode {
    LANES_SHARED,
    LANES_PRIVATE
};
enum pubsub_gap {
    PUBSUB_GAP_RESUME,
    PUBSUB_GAP_CLOSE
};
enum log_format {
    LOG_LOGFMT,
    LOG_JSON
};
enum log_level {
    LOG_DEBUG,
    LOG_INFO,
    LOG_WARN,
    LOG_ERROR
};

enum override_kind {
    OVERRIDE_COMMAND, /* replay.INCR = all */
    OVERRIDE_PREFIX,  /* replay.prefix.session: = all */
    OVERRIDE_SCRIPT   /* replay.script.<sha1> = read */
};

/* A replay level for one command, key prefix or script. The key prefix is
 * asked first, then the script, then the command; the first that matches
 * wins. */
struct replay_override {
    enum override_kind kind;
    enum replay_level level;
    char *text; /* owned: command in upper case, prefix, or lower-case SHA1 */
};

/* A section [upstream NAME]. Strings are owned. */
struct upstream_config {
    char *name;
    enum upstream_type type;
    struct address address; /* standalone: the server */
    struct address *nodes;  /* owned, n_nodes; cluster: where to begin;
                               sentinel: the sentinels */
    size_t n_nodes;
    char *master_name; /* sentinel: what it calls the group */
    char *username;    /* NULL: none */
    char *password;    /* NULL: none */
    char *sentinel_username;
    char *sentinel_password;
    uint32_t db;
    enum lane_mode lanes;
    uint32_t shared_lanes; /* connections per (endpoint, RESP, user, db) */

    bool retry; /* false: a plain proxy */
    int64_t
        retries; /* replays of one request that was sent and lost; -1: no limit */
    uint64_t deadline_us;
    uint64_t attempt_timeout_us; /* 0: off */
    enum replay_level replay;
    struct replay_override *overrides; /* owned, n_overrides; in the order in
                                          which they are asked: prefixes (the
                                          longest first), scripts, commands */
    size_t n_overrides;
    uint32_t retry_on_error; /* set of enum retry_error; without TIMEOUT when
                                retry_on_timeout = no */
    bool retry_on_timeout;   /* already applied to retry_on_error */
    enum backoff_kind backoff;
    uint64_t backoff_base_us;
    uint64_t backoff_cap_us;
    uint32_t budget_ratio_permille;
    uint32_t budget_min_per_s;
    uint32_t budget_burst;       /* retries that may be saved up */
    uint64_t fail_fast_after_us; /* 0: never */

    uint64_t connect_timeout_us;
    uint64_t handshake_timeout_us;
    uint64_t ping_idle_us; /* 0: never */
    uint64_t ping_timeout_us;
    uint64_t block_bytes_max;  /* of a transaction that can be begun again */
    uint64_t replay_bytes_max; /* larger requests are streamed, not replayed */
    uint64_t script_cache_bytes; /* bodies of scripts; 0: none */
    uint64_t reply_hold_max;     /* larger replies are streamed */
    uint64_t lane_buffer_max;    /* unsent bytes of one lane */
    uint64_t reply_elements_max;
    uint64_t reply_bulk_max;
    uint32_t private_lanes_max;
    uint32_t private_lanes_idle;
    uint32_t held_requests_max; /* waiting for a connection, per upstream */
    bool learn_commands;        /* ask servers what they have */
    uint32_t learnt_commands_max;

    /* Several servers (redis.md §9, §10). */
    enum read_from read_from;
    uint64_t replica_max_lag_us;  /* 0: any */
    char *zone;                   /* redial's own; NULL: not known */
    struct node_zone *node_zones; /* owned, n_node_zones */
    size_t n_node_zones;
    enum cluster_view cluster_view;
    struct allowed_nodes *allow_nodes; /* owned, n_allow_nodes; none: derived
                                          from nodes */
    size_t n_allow_nodes;
    uint64_t topology_refresh_us; /* at least so often */
    uint64_t
        topology_min_interval_us; /* at most so often; grows with failures */
    uint64_t silence_probe_us; /* requests in flight and not a byte for so long:
                                  the other nodes are asked; 0: never */
    uint32_t redirects_max;
    uint32_t node_retries; /* failed connects after which a round ends */
    int64_t cluster_error_retry_attempts; /* rounds; -1: until the deadline */

    struct grpc_config grpc; /* type = grpc */
};

/* A section [listener NAME]. */
struct listener_config {
    char *name;
    struct address address;
    struct address announce; /* what cluster clients are told; an empty host:
                                the address itself */
    enum listener_protocol protocol;
    const struct upstream_config *upstream; /* borrowed from the same config */
    const struct upstream_config
        *grpc_upstream; /* with auto: of clients that speak HTTP/2; with grpc
                           the same as upstream; else NULL */
    bool bind_public;   /* an address beyond loopback is meant */
    uint32_t unix_mode; /* permission bits of a Unix socket */
    enum auth_mode auth;
    char *username; /* with auth = own; NULL: any */
    char *password; /* with auth = own; NULL: none asked */
    uint32_t clients_max;
    uint32_t pipeline_max;
    uint64_t client_buffer_max;
    uint64_t client_overflow_max; /* while others wait on a shared lane */
    uint64_t proto_max_bulk;
    uint64_t proto_max_args;
    uint32_t subscriptions_max; /* of one client, kept for the next lane */
    enum pubsub_gap on_pubsub_gap;
    uint64_t idle_timeout_us;  /* 0: never */
    uint64_t stall_timeout_us; /* a client that takes no byte of its replies */
    uint32_t accept_backlog;
    struct grpc_listener_config grpc; /* protocol = grpc or auto */
};

/* Sections [redial], [admin], [log] and [tcp]. */
struct process_config {
    uint32_t workers;
    uint64_t drain_timeout_us;
    uint32_t fd_reserve;
    bool admin; /* an admin address is given */
    struct address admin_address;
    bool admin_bind_public; /* an address beyond loopback is meant */
    enum log_format log_format;
    enum log_level log_level;
    uint32_t log_rate; /* lines per second; more are counted, not written */
    uint32_t events_kept;
    uint64_t keepalive_idle_us, keepalive_interval_us;
    uint32_t keepalive_probes;
    uint64_t user_timeout_us; /* TCP_USER_TIMEOUT */
    struct grpc_process_config grpc;
};

/* One problem, with its place and its cure. */
struct config_problem {
    const char *place; /* "redial.ini:12", "--set upstream.retries",
                          "command line" */
    const char *text;  /* one line */
    char *memory;      /* owned, holds both; NULL when both are static */
};

enum {
    CONFIG_PROBLEMS_MAX = 100
};

/* All problems of one load; when there are more, the last one says so. Start
 * with { 0 }. The list is no allocation, so that "out of memory" can always be
 * told. */
struct config_problems {
    struct config_problem list[CONFIG_PROBLEMS_MAX];
    size_t n;
};
void config_problems_fini(struct config_problems *p);

/* What a process was told. Shared and never changed after loading. */
struct config {
    struct process_config process;
    struct listener_config *listeners; /* owned, n_listeners */
    size_t n_listeners;
    struct upstream_config *upstreams; /* owned, n_upstreams */
    size_t n_upstreams;
    struct config_problems warnings; /* what is taken but is hardly meant */
};

/* Where the configuration comes from; everything borrowed for the call. */
struct config_source {
    const char *file_name; /* for error texts; NULL: no file */
    const char *text;      /* the file's content, with a final NUL */
    size_t text_len;
    const char *url;         /* upstream URL of the command line, or NULL */
    const char *listen;      /* --listen, or NULL */
    const char *admin;       /* --admin, or NULL */
    const char *const *sets; /* --set section.key=value */
    size_t n_sets;
    /* ${NAME} and ${file:PATH}: returns malloc'd text (the caller frees) or
     * NULL. Both may be NULL: then such references are errors. */
    char *(*get_env)(void *context, const char *name);
    char *(*read_file)(void *context, const char *path);
    void *context;
};

/* Load a configuration. Returns NULL, and at least one problem, when anything
 * is wrong: nothing is half applied; all problems are listed, not only the
 * first. Free with config_free(). */
struct config *config_load(const struct config_source *source,
                           struct config_problems *problems);
void config_free(struct config *c);

/* Write text piece by piece. */
typedef void config_writer(void *context, const char *text, size_t len);

/* The configuration in effect, as INI; secrets are shown as "***". */
void config_print(const struct config *c, config_writer *write, void *context);
/* --help-config: every option with unit, default and meaning. */
void config_help(config_writer *write, void *context);
/* The example file: every option, commented out at its default. */
void config_example(config_writer *write, void *context);
/* docs/configuration.md. */
void config_markdown(config_writer *write, void *context);

/* The words of an enum value, as the file spells them. */
const char *backoff_kind_name(enum backoff_kind kind);
const char *replay_level_name(enum replay_level level);

#endif
