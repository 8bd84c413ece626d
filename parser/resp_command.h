/* What a client sends: a multibulk or inline command as spans (redis.md §2). */
#ifndef PARSER_RESP_COMMAND_H
#define PARSER_RESP_COMMAND_H

#include "parser/resp.h"

enum {
    COMMAND_ARGS_KEPT = 4,          /* arguments whose place is remembered */
    COMMAND_INLINE_MAX = 64 * 1024, /* bytes of an inline command */
};

struct command_limits {
    uint64_t bulk_max; /* proto_max_bulk, 512 MiB by default */
    uint64_t args_max; /* 1,048,576 by default */
};

/* Where an argument's bytes lie, counted from the command's first byte. */
struct command_arg {
    uint64_t offset;
    uint64_t len;
};

/* The state of one client's stream between two calls. Fields are read-only
 * outside resp_command.c. */
struct command_scanner {
    uint64_t bytes;  /* of this command taken so far */
    uint64_t skip;   /* bytes of a bulk body, with its CRLF, still to pass */
    uint64_t number; /* private: the length being read */
    uint32_t argc;   /* arguments announced; 0: nothing to do, no reply due */
    uint32_t seen;   /* arguments whose length line is complete */
    struct command_arg arg[COMMAND_ARGS_KEPT]; /* of the first min(argc, 4) */
    const char *error; /* with SCAN_INVALID: Redis' own words behind "-ERR " */
    char error_text[48]; /* private: storage of an error with a variable part */
    uint32_t line;       /* private: bytes of the line being read */
    uint8_t state;       /* private */
    bool negative;       /* private */
    uint8_t digits;      /* private */
    bool is_inline;      /* the command is one line of text */
};

void command_scanner_init(struct command_scanner *s);

/* Take bytes until the current command ends. Rules as for resp_scan(): data
 * continues what was given before; after SCAN_DONE the facts stay readable
 * until the next call. "*0" and "*-1" and empty lines are SCAN_DONE with argc
 * 0: skip them, they get no reply. An inline command is SCAN_DONE with
 * is_inline and argc 1: give its bytes to command_from_inline(). */
enum scan command_scan(struct command_scanner *s,
                       const struct command_limits *limits,
                       const uint8_t *data,
                       size_t size,
                       size_t *used);

/* Split a whole multibulk command into its arguments. Returns how many it has;
 * args receives the first max of them (borrowed from data). Returns 0 when
 * data is not one whole, valid multibulk command. */
size_t command_split(struct span data, struct span *args, size_t max);

/* Rewrite an inline command (with its line end) as multibulk into out, which
 * has room for out_max bytes; 16 * line.len + 64 always suffices. Quotes and
 * escapes as Redis' sdssplitargs. Returns the bytes written, 0 for a line
 * without words, or -1 for unbalanced quotes
 * ("Protocol error: unbalanced quotes in request"). */
int64_t command_from_inline(struct span line, uint8_t *out, size_t out_max);

#endif
