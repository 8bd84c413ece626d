/* Endpoints of a gRPC upstream: where they come from, their links, and what
 * grpc_channel.c, grpc_pick.c, grpc_names.c, grpc_endpoint.c and grpc_link.c
 * ask of each other (grpc.md §3.1 to §3.4). */
#ifndef CORE_GRPC_ENDPOINT_H
#define CORE_GRPC_ENDPOINT_H

#include "proxy/core/grpc.h"
#include "proxy/core/grpc_bucket.h"

enum {
    GRPC_ENDPOINTS_MAX = 1024,       /* of one upstream */
    GRPC_NAME_ADDRESSES_MAX = 64,    /* of one name */
    GRPC_PASS_US = 250 * 1000,       /* between attempts of pick_first (Y2) */
    GRPC_SETTINGS_US = 10 * 1000000, /* for the ACK of ours (U6) */
    GRPC_FAREWELL_US = 1000 * 1000,  /* for a GOAWAY to leave */
    GRPC_LOOKUP_US = 20 * 1000000,   /* for an answer of the resolver */
    GRPC_LAST_ID = 1 << 30,          /* a link with higher ids retires (U10) */
};
#define GRPC_IDLE_US          (UINT64_C(30) * 60 * 1000000)  /* U8 */
#define GRPC_KEEPALIVE_MAX_US (UINT64_C(2) * 3600 * 1000000) /* K4 */

/* One configured name and the addresses it is known to have. */
struct grpc_name {
    struct address address; /* as configured */
    char authority[ADDRESS_TEXT_MAX];
    struct address *addresses; /* owned, n_addresses: the last good answer */
    uint32_t n_addresses;
    struct grpc_link *lookup; /* owned: asks for them now; NULL: nobody does */
    uint64_t asked_us;        /* when somebody last asked; 0: never */
    uint64_t due_us;          /* ask again then; UINT64_MAX: not by itself */
    uint32_t failures;        /* of lookups, in a row */
    bool numeric;             /* nothing to ask for */
};

struct grpc_names {
    size_t n;
    struct grpc_name list[];
};

/* One address, and the links to it. */
struct grpc_endpoint {
    struct grpc_channel *channel;  /* borrowed */
    const struct grpc_name *from;  /* borrowed: the first name that gives it */
    struct list_node leaving_node; /* in channel->leaving */
    struct address address;        /* numeric, or a Unix socket */
    char name[ADDRESS_TEXT_MAX];   /* for messages */
    uint32_t number;               /* from 1; never used twice (D2) */
    struct list_node links;        /* those that are not CLOSED */
    uint32_t n_usable;             /* of these, READY and not suspect */
    uint32_t n_fresh;              /* of these, not retiring */
    uint32_t n_connecting;         /* of links: CONNECTING */
    uint32_t n_streams;            /* of all links */
    uint32_t failures;             /* of connecting, since one was READY */
    uint64_t soon_us;              /* the same while calls wait */
    uint64_t retry_us;             /* no attempt before (U7) */
    char last_error[64];           /* words; empty: none yet */
    bool leaving;                  /* no name gives it any more */
    bool resting;                  /* idle: opened when a call comes (U8) */
    bool crowded; /* every link is full: another one is wanted (U9) */
};

/* ---- grpc_names.c ---- */

bool grpc_names_init(struct engine *e, struct grpc_channel *ch);
void grpc_names_fini(struct engine *e, struct grpc_channel *ch);
/* Ask for what is due. Returns when it is to be called again. */
uint64_t grpc_names_drive(struct engine *e, struct grpc_channel *ch);
/* The addresses may have changed: ask again soon (Y3). */
void grpc_names_refresh(struct engine *e, struct grpc_channel *ch);
/* Every name has failed to resolve, and none has ever had an address. */
bool grpc_names_failed(const struct grpc_channel *ch);
/* Events of a link in state RESOLVING. */
void grpc_name_resolved(struct engine *e,
                        struct grpc_link *l,
                        const struct event *event);
void grpc_name_timeout(struct engine *e, struct grpc_link *l);

/* ---- grpc_endpoint.c ---- */

/* Make the addresses of all names the endpoints of ch. */
void grpc_endpoints_adopt(struct engine *e, struct grpc_channel *ch);
void grpc_endpoints_fini(struct engine *e, struct grpc_channel *ch);
/* Free the leaving ones whose links have ended. */
void grpc_endpoints_collect(struct engine *e, struct grpc_channel *ch);
/* A link of p changed: count anew. */
void grpc_endpoint_count(struct grpc_endpoint *p);
/* Remember why a link to it failed or was lost. */
void grpc_endpoint_note(struct grpc_endpoint *p, const char *why);
/* Whether it stays closed until a call comes (U8). */
void grpc_endpoint_rest(struct grpc_endpoint *p, bool resting);
/* Open a link. */
void grpc_endpoint_connect(struct engine *e, struct grpc_endpoint *p);
/* An attempt to open one, begun at started_us, has failed (U7).
 * refused: there was no connection at all. */
void grpc_endpoint_failed(struct engine *e,
                          struct grpc_endpoint *p,
                          uint64_t started_us,
                          bool refused,
                          const char *why);
void grpc_endpoint_reached(struct engine *e,
                           struct grpc_endpoint *p,
                           uint64_t started_us);
/* Whether one more link is wanted now or when the backoff ends (at retry_us),
 * apart from what pick_first wants of its own. */
bool grpc_endpoint_wants_link(const struct grpc_endpoint *p);
/* When the next attempt may begin. While calls wait, one that was refused at
 * once is repeated after the first delay, not after the grown one: it costs
 * nothing, and the calls go on as soon as the endpoint is back. */
uint64_t grpc_endpoint_due_us(const struct grpc_endpoint *p);
/* An attempt may begin now. */
bool grpc_endpoint_may_connect(const struct engine *e,
                               const struct grpc_endpoint *p);

/* ---- grpc_pick.c ---- */

/* The link that call goes out on now, or NULL (Y2). Sends the PINGs that K2 and
 * K5 want before. */
struct grpc_link *grpc_pick(struct engine *e,
                            struct grpc_channel *ch,
                            struct grpc_call *call);

/* ---- grpc_channel.c ---- */

/* A link or the list of endpoints has changed: who is READY? */
void grpc_channel_changed(struct engine *e, struct grpc_channel *ch);
/* Remember why a name or an endpoint cannot be used. */
void grpc_channel_note(struct grpc_channel *ch,
                       const char *where,
                       const char *why);
/* "30s", "1500ms": for messages. */
enum {
    GRPC_DURATION_TEXT = 32
};
void grpc_duration_format(uint64_t us, char text[GRPC_DURATION_TEXT]);

/* ---- grpc_link.c ---- */

/* A link that connects to p. False: no memory. */
bool grpc_link_open(struct engine *e, struct grpc_endpoint *p);
/* A link that only asks for the addresses of name; NULL: no memory. */
struct grpc_link *grpc_link_lookup(struct engine *e,
                                   struct grpc_channel *ch,
                                   struct grpc_name *name);
/* End l at once. Only outside of a session's events. tell as conn_close(). */
void grpc_link_end(struct engine *e,
                   struct grpc_link *l,
                   const char *why,
                   bool tell);
/* The same behind a GOAWAY. */
void grpc_link_leave(struct engine *e,
                     struct grpc_link *l,
                     enum h2_code code,
                     const char *why);
/* It has failed, or was lost: end it, and count that. */
void grpc_link_lost(struct engine *e,
                    struct grpc_link *l,
                    enum grpc_disconnect kind,
                    const char *why,
                    bool tell);
/* The same, behind what its session has to say. */
void grpc_link_give_up(struct engine *e,
                       struct grpc_link *l,
                       enum grpc_disconnect kind,
                       const char *why);
/* Why it will not live on; the first one counts. */
void grpc_link_blame(struct grpc_link *l, enum grpc_disconnect what);
/* Give it up as soon as no session's event is being handled. why is static. */
void grpc_link_doom(struct engine *e, struct grpc_link *l, const char *why);
/* The peer's first SETTINGS have arrived. */
void grpc_link_ready(struct engine *e, struct grpc_link *l);

/* ---- grpc_link_session.c ---- */

extern const struct h2_handler grpc_link_handler;
/* Bytes have arrived. */
void grpc_link_heard(struct engine *e, struct grpc_link *l);
/* How many more streams it may have (U9). */
uint32_t grpc_link_room(const struct grpc_link *l);

/* ---- grpc_link_time.c ---- */

/* Let the timer fire at that time at the latest. */
void grpc_link_wake_at(struct engine *e, struct grpc_link *l, uint64_t at_us);
/* The same, when something of l is due. */
void grpc_link_schedule(struct engine *e, struct grpc_link *l);
/* Open another link in its place, then drain it. */
void grpc_link_retire(struct engine *e, struct grpc_link *l);
/* A call wants to go out on l: do what K2 and K5 demand first. Returns whether
 * it need not wait for the answer. */
bool grpc_link_admits(struct engine *e,
                      struct grpc_link *l,
                      const struct grpc_call *call);

#endif
