/* A service config of gRPC: JSON, judged whole (grpc.md §2.2). */
#ifndef CONFIG_SERVICE_CONFIG_H
#define CONFIG_SERVICE_CONFIG_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "config/config.h"

enum {
    SERVICE_CONFIG_MAX = 1024 * 1024 /* bytes of a document */
};

/* What one entry of methodConfig says. A group that it does not say comes from
 * elsewhere (grpc.md §2.3). */
struct service_policy {
    bool has_retry;        /* retryPolicy or hedgingPolicy */
    bool hedging;          /* which is not built yet: then nothing is retried */
    uint32_t max_attempts; /* after the cap */
    uint64_t initial_backoff_us, max_backoff_us;
    double multiplier;
    uint32_t codes;      /* a set: 1 << code */
    uint64_t timeout_us; /* GRPC_NO_LIMIT: not said */
    bool has_wait_for_ready;
    bool wait_for_ready;
    uint64_t request_message_max, response_message_max; /* GRPC_NO_LIMIT: not
                                                           said */
};

/* methodConfig[entry].name[name] */
struct service_place {
    size_t entry;
    size_t name;
};

struct service_method {
    char *service; /* owned; NULL: of every method that is not named */
    char *method;  /* owned; NULL: all of the service */
    struct service_place place;
    struct service_policy policy;
};

struct service_config {
    struct service_method *methods; /* owned, n_methods; each name once */
    size_t n_methods;
    bool has_throttle;
    uint32_t throttle_max_millitokens, throttle_ratio_millitokens;
    bool has_lb;
    enum grpc_lb lb;
    bool shuffle_addresses;
    uint32_t lb_choices;                   /* 0: not said */
    uint32_t max_connections_per_endpoint; /* 0: not said */
};

/* How to judge. All borrowed for the call. */
struct service_config_rules {
    const char *file; /* for the places of problems */
    bool gapic;       /* maxAttempts may be missing (J2) */
    uint32_t max_attempts_cap;
    struct config_problems *problems;
    struct config_problems *warnings;
};

/* Read a document into out, which is set to zero before. Returns false, with
 * at least one problem and nothing in out, when anything is wrong: all of it
 * is told, each with its path. Free with service_config_fini(). */
bool service_config_read(const char *text,
                         size_t len,
                         const struct service_config_rules *rules,
                         struct service_config *out);
void service_config_fini(struct service_config *c);

#endif
