/* Channels of the model: each belongs to one client, who alone subscribes to
 * it, so that a server's connection tells whose it is. */
#ifndef SIM_PUBSUB_H
#define SIM_PUBSUB_H

#include "tests/sim/server.h"

enum {
    CHANNELS = 4 /* of each kind, for each client */
};

/* "ch7.2", "ch7.2*" (of 0: "ch7.*"), "{s7}.2". */
void channel_name(enum sub_kind kind,
                  uint64_t client,
                  unsigned n,
                  char *text,
                  size_t size);
/* Whose it is, and which; false: it is none of these. */
bool channel_read(struct span name, uint64_t *client, unsigned *n);
/* "message", "subscribe", "unsubscribe" and so on. */
const char *message_word(enum sub_kind kind);

/* A message on its way to the engine: once its last byte is there, its client
 * must get it. */
struct news {
    uint64_t end; /* offset in what the server has sent */
    uint64_t client;
    uint64_t published; /* its number among all publications */
    uint64_t hash;      /* of its bytes */
    uint8_t kind, channel;
};

/* Publish at that server, or everywhere in its cluster. Returns how many got
 * it there. */
unsigned publish(struct world *w,
                 struct server *s,
                 bool shard,
                 struct span channel,
                 struct span payload);
/* A slot has left the server (-1: all of them): it ends the subscriptions to
 * shard channels there, and says so. */
void shards_leave(struct world *w, struct server *s, int slot);

/* The engine has received the bytes of that connection so far. */
void news_arrive(struct world *w, struct link *l);

/* --- the client's side (client_pubsub.c) ---------------------------------- */

struct client;

/* Whether that reply is a message and not the answer to a request. */
bool is_message(const struct client *c, struct span reply);
void client_message(struct world *w, struct client *c, struct span message);
/* One confirmation of a SUBSCRIBE or the like. Returns whether it is the last
 * one of that request. */
bool client_confirmed(struct world *w,
                      struct client *c,
                      uint32_t request,
                      struct span reply);
/* RESET was answered. */
void client_unsubscribed(struct client *c);
/* check_rest.c: at rest everybody has got everything, and the servers know what
 * the clients believe. */
void rest_check(struct world *w);

#endif
