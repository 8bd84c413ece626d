/* Which functions of a server write nothing: what FUNCTION LIST says of them
 * (redis.md §3 "Scripts"). Known for a while only, and forgotten as soon as a
 * client changes the functions: in doubt a function writes. */
#ifndef CORE_FUNCTIONS_H
#define CORE_FUNCTIONS_H

#include "parser/span.h"

struct memory;

enum {
    FUNCTIONS_ASK_US = 30 * 1000 * 1000,      /* between two questions */
    FUNCTIONS_BELIEVED_US = 60 * 1000 * 1000, /* how long an answer counts */
    FUNCTION_NAMES_MAX = 16 * 1024,           /* bytes of names that are kept */
};

/* Of a cluster: what its clients have done to the functions. */
struct function_changes {
    uint32_t version;       /* rises with each change */
    uint64_t sent_us;       /* arrival of the last one that was sent */
    uint64_t open_until_us; /* until then it may not have been executed yet */
};

/* Of an endpoint. */
struct functions {
    uint64_t asked_us;  /* last question; 0: none */
    uint64_t learnt_us; /* when the answer was asked for; 0: nothing known */
    uint32_t version;   /* of the changes, when it was last asked */
    uint32_t known;     /* the same, of what is known */
    uint8_t mark;       /* of the last question */
    uint32_t names_len; /* of the functions that write nothing, one behind the
                            other: a byte with its length, the name */
    uint8_t *names;     /* owned */
};

/* Whether to ask the server. up_us: since when it is connected. */
bool functions_are_due(const struct functions *f,
                       const struct function_changes *changes,
                       uint64_t now_us,
                       uint64_t up_us);

/* The question is being sent; the mark tells its answer from those to others. */
void functions_asked(struct functions *f,
                     const struct function_changes *changes,
                     uint64_t now_us,
                     uint8_t mark);

/* The whole reply to the question with that mark, to be believed or not: only
 * one to the last question counts, others may be from before a change. An
 * error, or no memory: nothing is known. */
void functions_answered(struct memory *m,
                        struct functions *f,
                        uint8_t mark,
                        struct span reply);

/* Whether the function writes nothing, as far as that is known. */
bool functions_read_only(const struct functions *f,
                         const struct function_changes *changes,
                         struct span name,
                         uint64_t now_us);

/* A command that changes functions is sent to a server. */
void functions_changing(struct function_changes *changes,
                        uint64_t arrived_us,
                        uint64_t now_us);
/* It is answered; queued: it is only executed with its transaction. */
void functions_changed(struct function_changes *changes,
                       uint64_t arrived_us,
                       bool queued);

/* Free what f has, and f. NULL is permitted. */
void functions_free(struct memory *m, struct functions *f);

#endif
