/* The part of an upstream's configuration that only gRPC has, and what follows
 * from it for one method (grpc.md §2). */
#ifndef CONFIG_GRPC_CONFIG_H
#define CONFIG_GRPC_CONFIG_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "parser/span.h"

enum grpc_retries {
    GRPC_RETRIES_FULL,
    GRPC_RETRIES_TRANSPARENT,
    GRPC_RETRIES_OFF
};

/* What may be replayed although it may have run (grpc.md §1.7). */
enum grpc_ambiguous {
    GRPC_AMBIGUOUS_AUTO,
    GRPC_AMBIGUOUS_POLICY,
    GRPC_AMBIGUOUS_IDEMPOTENT,
    GRPC_AMBIGUOUS_NEVER
};

enum grpc_stop_client {
    GRPC_STOP_AUTO,
    GRPC_STOP_ALWAYS,
    GRPC_STOP_NEVER
};

enum grpc_stacked {
    GRPC_STACKED_SHARE,
    GRPC_STACKED_IGNORE
};

enum grpc_lb {
    GRPC_PICK_FIRST,
    GRPC_ROUND_ROBIN,
    GRPC_LEAST_REQUEST
};

enum grpc_hold {
    GRPC_HOLD_AUTO,
    GRPC_HOLD_OFF
};

/* Defaults of the waits between attempts to connect. */
enum grpc_reconnect {
    GRPC_RECONNECT_FAST,
    GRPC_RECONNECT_GRPC
};

#define GRPC_NO_LIMIT UINT64_MAX

/* What holds for one method: merged from all sources by their precedence
 * (grpc.md §2.3). That max_retry_attempts = 0 switches policies off is in it;
 * what retries and no_retry_methods say is not: whoever decides has to look,
 * and names them as the reason. */
struct grpc_policy {
    bool retry;            /* a policy is in force; else the next five are 0 */
    bool is_explicit;      /* it names this service: the owner's statement */
    uint32_t max_attempts; /* the first included; after the cap */
    uint64_t initial_backoff_us, max_backoff_us;
    double multiplier;
    uint32_t codes;      /* a set: 1 << status code */
    uint64_t timeout_us; /* GRPC_NO_LIMIT: none */
    bool wait_for_ready;
    uint64_t request_message_max, response_message_max; /* GRPC_NO_LIMIT */
};

/* One name of a service config. Strings are owned. */
struct grpc_method {
    char *service;      /* "pkg.Svc" */
    char *method;       /* NULL: all of the service */
    char *path;         /* "/pkg.Svc/Method" or "/pkg.Svc/": label of metrics */
    uint32_t path_hash; /* see grpc_method_hash() */
    struct grpc_policy policy;
};

/* "/pkg.Svc/Get*": '*' matches any bytes but '/'. */
struct grpc_glob {
    char *text; /* owned */
};

/* Lives in struct upstream_config. */
struct grpc_config {
    enum grpc_retries retries;
    int64_t max_retry_attempts; /* -1: not set */
    uint64_t initial_backoff_us, max_backoff_us;
    double backoff_multiplier;
    uint32_t retryable_status_codes; /* a set: 1 << code */
    uint64_t per_attempt_timeout_us; /* 0: off */
    enum grpc_ambiguous ambiguous;
    struct grpc_glob *idempotent_methods; /* owned, n_... */
    size_t n_idempotent_methods;
    struct grpc_glob *no_retry_methods; /* owned, n_... */
    size_t n_no_retry_methods;
    enum grpc_hold hold_headers;
    uint64_t hold_headers_max_us;
    uint32_t refused_transparent_max;
    uint32_t max_attempts_cap;
    uint64_t max_pushback_us;
    enum grpc_stop_client stop_client_retries;
    enum grpc_stacked stacked_attempts;
    uint32_t throttle_max_millitokens; /* 0: no throttle */
    uint32_t throttle_ratio_millitokens;
    uint32_t max_concurrent_retries;
    uint32_t max_concurrent_retry_percent;
    uint64_t retry_buffer_per_call; /* also the window of a client's stream */
    uint64_t max_call_duration_us;  /* 0: none */
    bool wait_for_ready;
    uint64_t max_wait_for_ready_us;
    uint32_t max_queued_calls;
    uint64_t max_request_message_bytes;  /* GRPC_NO_LIMIT */
    uint64_t max_response_message_bytes; /* GRPC_NO_LIMIT */
    enum grpc_lb lb;
    bool shuffle_addresses;
    uint32_t lb_choices;
    char *authority; /* owned: "auto", "pass" or a fixed text */
    enum grpc_reconnect reconnect_profile;
    uint64_t reconnect_initial_backoff_us, reconnect_max_backoff_us;
    double reconnect_multiplier, reconnect_jitter;
    uint64_t dns_refresh_us; /* 0: never */
    uint64_t dns_min_interval_us;
    uint32_t max_connections_per_endpoint;
    uint32_t max_streams_per_connection;
    uint64_t keepalive_time_us; /* GRPC_NO_LIMIT: off */
    uint64_t keepalive_timeout_us;
    bool keepalive_permit_without_calls;
    uint64_t idle_probe_us; /* 0: off */
    uint64_t idle_probe_timeout_us;
    uint64_t upstream_max_connection_age_us; /* GRPC_NO_LIMIT: none */
    uint64_t drain_timeout_us;
    uint64_t upstream_stream_window, upstream_connection_window;
    uint64_t max_header_list_size; /* of responses */

    char *service_config; /* owned: the file's name; NULL: none. What it says of
                             lb, throttle and connections is in the fields
                             above. */
    bool gapic;           /* service_config_mode */

    /* What follows. */
    struct grpc_method *methods; /* owned, n_methods; by path_hash */
    size_t n_methods;
    struct grpc_policy others; /* of every method that is not named */
};

/* Part of [listener NAME]: clients that speak gRPC. */
struct grpc_listener_config {
    uint64_t max_header_list_size; /* of requests */
    uint32_t max_concurrent_streams;
    uint64_t min_recv_ping_interval_us;
    bool permit_ping_without_calls;
    uint32_t max_ping_strikes;
    uint64_t max_connection_idle_us;      /* GRPC_NO_LIMIT: never */
    uint64_t max_connection_age_us;       /* GRPC_NO_LIMIT: never */
    uint64_t max_connection_age_grace_us; /* GRPC_NO_LIMIT: for ever */
    uint64_t server_keepalive_time_us;    /* GRPC_NO_LIMIT: never */
    uint64_t server_keepalive_timeout_us;
    uint32_t early_close_burst, early_close_rate; /* grpc.md §5.5 */
};

/* Section [grpc]: limits of the process. */
struct grpc_process_config {
    uint64_t retry_buffer_total;
    uint32_t max_calls;
    uint64_t memory_high;
};

enum {
    GRPC_LABEL_OTHER = 0 /* of methods that are not named; methods[i] has the
                            label i + 1 */
};

struct grpc_method_view {
    const struct grpc_policy *policy; /* borrowed from the config */
    bool safe;                        /* matched by idempotent_methods */
    bool no_retry;                    /* matched by no_retry_methods */
    uint32_t label;
};

uint32_t grpc_method_hash(struct span path);

/* What holds for the method of a valid path, "/service/method". Cheap when
 * nothing is configured for single methods (grpc.md J1: the most specific
 * entry, whole). */
void grpc_method_find(const struct grpc_config *c,
                      struct span path,
                      struct grpc_method_view *out);

/* Whether text is of the form /service/method. */
bool grpc_glob_is_valid(struct span text);
/* Whether path is of the form of a glob. */
bool grpc_glob_matches(const char *glob, struct span path);

#endif
