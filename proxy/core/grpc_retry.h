/* Whether a gRPC call is tried again (grpc.md §1.6 to §1.12). Pure but for the
 * budget it is given: no clock, no allocation. Built on the same pieces as the
 * rules for Redis: outcome and retry_decide() of retry.h. */
#ifndef CORE_GRPC_RETRY_H
#define CORE_GRPC_RETRY_H

#include "config/grpc_config.h"
#include "parser/grpc.h"
#include "proxy/core/retry.h"
#include "proxy/core/rng.h"

/* How an attempt ended (§1.6). */
enum grpc_class {
    GRPC_F0_NO_CONNECTION,
    GRPC_F1_UNSENT,
    GRPC_F2_UNPROCESSED,
    GRPC_F3_AMBIGUOUS,
    GRPC_F4_TRAILERS_ONLY,
    GRPC_F5_LATE_STATUS,
    GRPC_F6_COMMITTED,
    GRPC_F7_LOCAL,
    GRPC_F8_NOT_GRPC,
    GRPC_CLASS_COUNT
};

/* Why a call is not tried again (§6.3); exactly one for each finished call. */
enum grpc_reason {
    GRPC_REASON_OK,
    GRPC_REASON_LOCAL,
    GRPC_REASON_NO_CONNECTION,
    GRPC_REASON_COMMITTED,
    GRPC_REASON_NO_POLICY,
    GRPC_REASON_DISABLED,
    GRPC_REASON_PUSHBACK,
    GRPC_REASON_CODE,
    GRPC_REASON_UNSAFE,
    GRPC_REASON_ATTEMPTS,
    GRPC_REASON_THROTTLED,
    GRPC_REASON_RETRY_OVERFLOW,
    GRPC_REASON_PUSHBACK_TOO_LONG,
    GRPC_REASON_DEADLINE,
    GRPC_REASON_COUNT
};

const char *grpc_class_name(enum grpc_class c);   /* "F3" */
const char *grpc_reason_name(enum grpc_reason r); /* "retry_overflow" */

/* The retry budget of one channel (§1.12). */
struct grpc_budget {
    uint64_t tokens, max, ratio; /* thousandths; max 0: no throttle */
    uint32_t retries;            /* units held: waiting or running (Q7) */
    uint32_t calls;              /* active calls of the channel */
};

void grpc_budget_init(struct grpc_budget *b,
                      uint32_t max_millitokens,
                      uint32_t ratio_millitokens);
/* New parameters; as full as before (Q5). */
void grpc_budget_change(struct grpc_budget *b,
                        uint32_t max_millitokens,
                        uint32_t ratio_millitokens);
void grpc_budget_success(struct grpc_budget *b);
/* Charge one failure; returns whether a retry is still allowed (Q2). */
bool grpc_budget_failure(struct grpc_budget *b);

/* Counters of one call (T4). All zero but configured at its start. */
struct grpc_attempts {
    uint32_t configured; /* of the policy, the first included: starts at 1 */
    uint32_t unsent, refused, processed;
    uint32_t k;      /* backoff exponent since the last pushback */
    uint32_t before; /* grpc-previous-rpc-attempts of the client */
    bool holds_unit; /* of budget->retries */
};

struct grpc_ended {
    enum grpc_class class;
    enum grpc_status status;
    enum grpc_pushback pushback;
    uint32_t pushback_ms;
    bool committed;
    bool log_intact;
    bool single; /* the client has half-closed and sent one message */
    bool forced; /* it waited max_wait_for_ready in vain: no retry follows */
    uint64_t now_us;
    uint64_t deadline_us; /* of the call; UINT64_MAX: none */
};

enum grpc_step {
    GRPC_FINISH,
    GRPC_AGAIN_NOW,
    GRPC_AGAIN_AFTER
};

struct grpc_decision {
    enum grpc_step step;
    enum grpc_reason reason; /* of FINISH */
    uint64_t delay_us;       /* of AGAIN_AFTER */
};

/* The decision function of §1.8, with the table of §1.7. Gives the unit of
 * Q7 back, and takes one for AGAIN_AFTER; counts in attempts and charges the
 * budget. Called once for each attempt that has ended, and for F0. */
struct grpc_decision grpc_decide(const struct grpc_config *config,
                                 const struct grpc_method_view *method,
                                 const struct grpc_ended *ended,
                                 struct grpc_attempts *attempts,
                                 struct grpc_budget *budget,
                                 struct rng *rng);

/* Whether another attempt would still be possible as far as the policy and the
 * counters tell: response headers are only held then (C3). */
bool grpc_may_retry(const struct grpc_config *config,
                    const struct grpc_method_view *method,
                    const struct grpc_attempts *attempts);

/* Give the unit back: the attempt has ended or is committed (Q7). */
void grpc_release_unit(struct grpc_attempts *a, struct grpc_budget *b);

/* The delay before the n-th retry since the last pushback, k = n - 1 (B1). */
uint64_t grpc_backoff(const struct grpc_policy *policy,
                      uint32_t k,
                      struct rng *rng);

/* Connect backoff (U7): of the i-th failed attempt in a row, i >= 1, from its
 * start. */
uint64_t grpc_reconnect_delay(const struct grpc_config *config,
                              uint32_t i,
                              struct rng *rng);

#endif
