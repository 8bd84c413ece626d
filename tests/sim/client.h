/* A model of an application's Redis client. */
#ifndef SIM_CLIENT_H
#define SIM_CLIENT_H

#include "tests/sim/history_block.h"
#include "tests/sim/pubsub.h"

enum {
    CLIENT_KEYS = 6,
    CLIENT_WINDOW = 256,
    CACHED_MAX = 3, /* shared keys whose values are cached */
    SHARED_KEY = 1 << 30,
};

/* What a client likes to do. */
enum habit {
    HABIT_TRANSACTS = 1,
    HABIT_SUBSCRIBES = 2,
    HABIT_WAITS = 4,
    HABIT_CACHES = 8,
    HABIT_RESETS = 16,
    HABIT_NAMES = 32,
    HABITS_ALL = 63
};
enum {
    HABITS = 6
};
const char *habit_name(unsigned i);

struct cached {
    bool known;
    uint8_t slot; /* of a shared key */
    uint8_t db;
    uint64_t hash; /* of the reply that has the value */
};

enum key_kind {
    KEY_STRING,
    KEY_COUNTER,
    KEY_LIST,
    KEY_KINDS
};

struct client {
    uint64_t id;                     /* never used twice */
    unsigned place;                  /* in world->clients */
    struct link *link;               /* borrowed */
    struct bytes in;                 /* replies, not yet a whole one */
    struct bytes unread;             /* of a slow reader */
    struct bytes out;                /* not yet given to the network */
    uint64_t sent_bytes;             /* of its stream so far */
    uint64_t arrived_bytes;          /* at the engine */
    uint32_t waiting[CLIENT_WINDOW]; /* requests, oldest first, a ring */
    uint32_t first, n_waiting;
    uint32_t n_arrived; /* how many of waiting have arrived */
    uint32_t n_counted; /* how many of those are within pipeline_max */
    uint32_t made;
    struct ledger session; /* as its answered requests say */
    struct ledger future;  /* as its sent requests say, if all succeed */
    uint32_t epoch[CLIENT_KEYS];
    uint32_t uses[CLIENT_KEYS];
    uint32_t block;                /* the open transaction, or 0 */
    uint32_t block_left;           /* commands until EXEC */
    uint32_t blocks_made;          /* so far; names the keys of each */
    uint32_t watches[WATCHES_MAX]; /* sent, and not used up by an EXEC */
    unsigned n_watches;
    bool may_watch; /* what ended its WATCH is not answered, or was in vain */
    uint8_t habits; /* set of enum habit */
    bool steps;     /* waits for each reply */
    bool login_due; /* RESET has made it a stranger */
    uint8_t will_subs[SUB_KINDS]; /* as its sent requests say */
    uint8_t subs[SUB_KINDS];      /* as confirmed: sets of channels */
    uint64_t last_heard[SUB_KINDS][CHANNELS];
    unsigned confirmed; /* channels of the request that is being confirmed */
    struct news *due;   /* owned: messages that must come, in their order */
    size_t n_due, due_cap, due_at;
    bool was_reset; /* what came meanwhile may be lost */
    struct cached cached[CACHED_MAX];
    uint64_t served_us;        /* when its server last served it */
    bool scanning, scan_waits; /* a walk with SCAN; a reply is under way */
    uint32_t scan_seen;
    uint64_t scan_upheavals;
    char scan_cursor[24];
    bool slow, never_reads, quitting, gone;
    bool engine_closed; /* the engine ended the connection */
    bool reading;       /* a slow read is under way */
};

struct client *client_new(struct world *w, unsigned place);
void client_free(struct client *c);
void client_act(struct world *w, struct client *c);
void client_read(struct world *w, struct client *c);
void client_receive(struct world *w, struct client *c, struct span bytes);
/* So many bytes of its stream have reached the engine. */
void client_arrived(struct world *w, struct client *c, uint64_t count);
/* Any of them may have got a reply just now. */
void client_served_all(struct world *w);
/* The run ends: what it waits for is lost. */
void client_give_up(struct world *w, struct client *c);
/* Whether it has every reply it waits for. */
static inline bool client_idle(const struct client *c)
{
    return c->n_waiting == 0;
}
/* client_pubsub.c: remember what a read of a whole value said. */
void client_caches(struct client *c,
                   const struct request_record *r,
                   struct span reply);
/* It ends with the connection that has its subscriptions. */
bool client_gap_ends(const struct world *w, uint64_t id);
/* The connection ended from the other side. */
void client_closed(struct world *w, struct client *c);

#endif
