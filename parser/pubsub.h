/* What Redis sends to those who have subscribed, or said MONITOR: messages and
 * confirmations (redis.md §7). */
#ifndef PARSER_PUBSUB_H
#define PARSER_PUBSUB_H

#include "parser/span.h"

/* What one may subscribe to. */
enum subscription_kind {
    SUBSCRIPTION_CHANNEL,
    SUBSCRIPTION_PATTERN,
    SUBSCRIPTION_SHARD,
    SUBSCRIPTION_KINDS
};

enum pubsub_type {
    PUBSUB_OTHER, /* a reply, or a push about something else */
    PUBSUB_MESSAGE,
    PUBSUB_SUBSCRIBED,
    PUBSUB_UNSUBSCRIBED
};

enum {
    PUBSUB_HEAD_MAX = 32 /* bytes that tell what it is */
};

struct pubsub_word {
    enum pubsub_type type;
    enum subscription_kind kind;
};

/* What a message of the protocol is, by its first bytes: PUBSUB_HEAD_MAX of
 * them, or all. */
struct pubsub_word pubsub_look(struct span head);

struct pubsub_confirmation {
    struct span name; /* borrowed; data NULL: nil, there is nothing to leave */
    uint64_t count;   /* subscriptions that are left */
};

/* Take a whole confirmation apart: SUBSCRIBED or UNSUBSCRIBED. False: it is
 * none. */
bool pubsub_confirmation_parse(struct span whole,
                               struct pubsub_confirmation *out);

/* Whether a simple string is a line that MONITOR makes:
 * "+1339518083.107412 [0 127.0.0.1:60866] ...". */
bool pubsub_is_monitor_line(struct span head);

#endif
