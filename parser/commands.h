/* What each Redis command is: its class, keys and needs (redis.md §3). */
#ifndef PARSER_COMMANDS_H
#define PARSER_COMMANDS_H

#include "parser/span.h"

/* redis.md §3: what a second execution would do. */
enum command_class {
    CLASS_R,  /* read-only */
    CLASS_RN, /* read-only, tied to node, cursor or connection */
    CLASS_I,  /* idempotent: same state, same reply */
    CLASS_T,  /* as I, but a relative TTL starts again */
    CLASS_S,  /* same state, but the reply is a count that differs */
    CLASS_D,  /* same state, but the reply is a decision or the old value */
    CLASS_N,  /* not idempotent */
    CLASS_BR, /* blocking read */
    CLASS_BN, /* blocking pop */
    CLASS_BW, /* WAIT, WAITAOF */
    CLASS_C,  /* connection state */
    CLASS_X,  /* transaction control */
    CLASS_A,  /* admin */
    CLASS_U,  /* not in the table */
    CLASS_COUNT
};

/* The class as written in the documentation: "R", "RN", ... */
const char *command_class_name(enum command_class class);

/* Commands that the core treats one by one. COMMAND_OTHER is everything else:
 * forward it. */
enum command_id {
    COMMAND_OTHER,
    COMMAND_AUTH,
    COMMAND_HELLO,
    COMMAND_SELECT,
    COMMAND_QUIT,
    COMMAND_RESET,
    COMMAND_MULTI,
    COMMAND_EXEC,
    COMMAND_DISCARD,
    COMMAND_WATCH,
    COMMAND_UNWATCH,
    COMMAND_SUBSCRIBE,   /* and PSUBSCRIBE, SSUBSCRIBE */
    COMMAND_UNSUBSCRIBE, /* and PUNSUBSCRIBE, SUNSUBSCRIBE */
    COMMAND_MONITOR,
    COMMAND_SYNC, /* and PSYNC */
    COMMAND_CLIENT_SETNAME,
    COMMAND_CLIENT_GETNAME,
    COMMAND_CLIENT_SETINFO,
    COMMAND_CLIENT_REPLY,
    COMMAND_CLIENT_TRACKING,
    COMMAND_CLIENT_CACHING,
    COMMAND_CLIENT_ID,
    COMMAND_CLIENT_KILL,
    COMMAND_CLIENT_LINE, /* NO-EVICT, NO-TOUCH and others: the connection stays so
                            until it is told otherwise */
    COMMAND_WAIT,        /* and WAITAOF */
    COMMAND_SCRIPT_DEBUG,
    COMMAND_ASIDE, /* what a server in a long script still takes: SCRIPT KILL,
                      FUNCTION KILL, FUNCTION STATS, SHUTDOWN */
    /* From here on: sent as any other, and taken note of (redis.md §3
     * "Scripts"). */
    COMMAND_SCRIPT_CALL, /* EVAL, EVALSHA, FCALL and their _RO forms */
    COMMAND_SCRIPT_LOAD,
    COMMAND_SCRIPT_FLUSH,
    COMMAND_FUNCTION_CHANGE, /* FUNCTION LOAD, DELETE, FLUSH, RESTORE */
};

enum command_flag {
    COMMAND_PRIVATE = 1 << 0,   /* needs a connection of its own (DESIGN.md §5,
                                  redis.md §2): X, C that the server keeps,
                                  blocking, MONITOR, WAIT, SYNC, CLIENT ID/LIST/
                                  KILL/NO-EVICT/TRACKING..., DEBUG, FAILOVER */
    COMMAND_BLOCKING = 1 << 1,  /* may wait at the server; for XREAD and
                                  XREADGROUP only with BLOCK: see
                                  command_blocks() */
    COMMAND_WRITES = 1 << 2,    /* may write its keys */
    COMMAND_CONTAINER = 1 << 3, /* has subcommands: CLIENT, CONFIG, XGROUP... */
    COMMAND_SECRET = 1 << 4,    /* arguments may hold credentials (S19) */
    COMMAND_LEARNT = 1 << 5,   /* not of our table: a server has told of it, and
                                   the row is part of a struct command_info */
    COMMAND_ASK_KEYS = 1 << 6, /* of our table, which lacks its keys: servers
                                   are believed */
};

/* How a command finds its node in a cluster (redis.md §9). */
enum command_route {
    ROUTE_NODE,       /* that of its first key; without keys, any primary */
    ROUTE_CHANNEL,    /* that of its first argument: SPUBLISH, SSUBSCRIBE */
    ROUTE_SLOT,       /* its argument is a slot: CLUSTER COUNTKEYSINSLOT... */
    ROUTE_LAST,       /* that of the client's last write: WAIT, WAITAOF */
    ROUTE_CONNECTION, /* about the connection alone: ASKING, READONLY,
                         READWRITE */
    ROUTE_VIEW,       /* asks for the topology: CLUSTER SLOTS, SHARDS... */
    ROUTE_REFUSED,    /* changes the node that is asked: CLUSTER RESET... */
    /* Split over slots; the replies are merged. */
    ROUTE_SPLIT_VALUES, /* MGET */
    ROUTE_SPLIT_PAIRS,  /* MSET */
    ROUTE_SPLIT_COUNT,  /* DEL, UNLINK, EXISTS, TOUCH */
    /* To all primaries; the replies are merged. */
    ROUTE_ALL_SUM,  /* DBSIZE */
    ROUTE_ALL_LIST, /* KEYS: arrays one behind the other */
    ROUTE_ALL_ANY,  /* SCRIPT KILL: the first success, or an error */
    ROUTE_ALL_OK,   /* FLUSHALL, SCRIPT FLUSH: the first reply, or an error */
    ROUTE_ALL_AND,  /* SCRIPT EXISTS: 1 where all say 1 */
    ROUTE_SCAN,     /* SCAN: one after the other */
    ROUTE_RANDOM,   /* RANDOMKEY: one by chance, the next when it is empty */
};

/* One row: static, of commands.def, or learnt (command_info.h). */
struct command {
    const char *name; /* upper case, "CLIENT SETNAME" */
    uint8_t class;    /* enum command_class before argument rules */
    uint8_t rule;     /* private: which argument rule applies */
    uint8_t id;       /* enum command_id */
    uint8_t flags;    /* enum command_flag */
    int8_t arity;     /* as COMMAND INFO: n exact, -n at least n; 0
                                  not known */
    int8_t key_first; /* argument index; 0: no keys */
    int8_t key_last;  /* from the end when negative */
    int8_t key_step;
    uint8_t key_rule;      /* private: how to find keys otherwise */
    uint8_t first_key_arg; /* the argument that is the first key in every call
                              that the server accepts; 0: it depends on the
                              call, or there is none. Callers check argc */
    uint8_t route;         /* enum command_route */
};

/* Find the row of a command. sub is the second argument, or empty; it matters
 * for containers only. A container with an unknown subcommand gives the
 * container's own row (class U or A). Returns NULL for a command that is not
 * in the table. Case does not matter. */
const struct command *command_find(struct span name, struct span sub);

/* The class of one concrete command, with every argument rule of redis.md §3.
 * c may be NULL (U). wall_ms is the wall clock, needed to tell EXPIREAT in the
 * past; a timestamp nearer than one minute counts as past. Malformed arguments
 * give the careful answer N (the server will refuse them anyway). */
enum command_class command_class(const struct command *c,
                                 const struct span *argv,
                                 size_t argc,
                                 int64_t wall_ms);

/* How a COMMAND_SCRIPT_CALL says what is to be executed. */
enum script_call {
    SCRIPT_BODY,     /* EVAL, EVAL_RO */
    SCRIPT_SHA1,     /* EVALSHA, EVALSHA_RO */
    SCRIPT_FUNCTION, /* FCALL, FCALL_RO */
};

enum script_call command_script_call(const struct command *c);

/* Whether the server lets a script with this body write nothing: its first line
 * is "#!lua flags=no-writes", or has that flag among others. */
bool command_script_reads(struct span body);

/* Whether this call would wait at the server: blocking commands; XREAD and
 * XREADGROUP with BLOCK. */
bool command_blocks(const struct command *c,
                    const struct span *argv,
                    size_t argc);

/* How long this call may wait at the server, in microseconds; 0: for ever, or
 * that cannot be told. Only for commands that block. */
uint64_t command_block_us(const struct command *c,
                          const struct span *argv,
                          size_t argc);

/* The number of the argument that says so; 0: it does not block, or that is not
 * known of this command. */
uint32_t command_block_arg(const struct command *c,
                           const struct span *argv,
                           size_t argc);
/* Whether it is written in whole milliseconds; else in seconds, which servers
 * from 6.0 on take with decimals. */
bool command_block_in_ms(const struct command *c);

/* XREAD: the number of the argument that is the id of the first stream. The
 * stream of the id at i is argument i - (argc - first). 0: another command, or
 * a malformed one. */
uint32_t command_stream_ids(const struct command *c,
                            const struct span *argv,
                            size_t argc);

enum {
    COMMAND_KEYS_UNKNOWN = -1
};

/* Find the arguments that are keys. index receives the first max of their
 * argument numbers. Returns how many keys there are, or COMMAND_KEYS_UNKNOWN
 * when that cannot be told: such a command must be taken to touch every key. */
int command_keys(const struct command *c,
                 const struct span *argv,
                 size_t argc,
                 uint32_t *index,
                 size_t max);

/* The number of the argument that is the first key; 0: there is none, or it
 * cannot be told. argv may end early: a key beyond argc is not found. Of a call
 * that the server will refuse it may be any argument. */
uint32_t command_first_key(const struct command *c,
                           const struct span *argv,
                           size_t argc);

/* Whether the command may write, given its class after argument rules. */
bool command_writes(const struct command *c, enum command_class class);

/* The reply of a replay is the same whatever ran in between: SET without GET,
 * NX, XX or a comparison, MSET, SETEX, PSETEX (redis.md §4 rule 3). Not HMSET:
 * behind a later SET of the same key it would meet the wrong type. */
bool command_reply_constant(const struct command *c,
                            const struct span *argv,
                            size_t argc);

#endif
