/* What HTTP demands of the fields of one header block (RFC 9113 §8.2, §8.3).
 * Pure; for h2.c alone. */
#ifndef PARSER_H2_FIELD_H
#define PARSER_H2_FIELD_H

#include <stdbool.h>
#include <stdint.h>

#include "parser/h2.h"
#include "parser/span.h"

/* Behind enum h2_name: names that nobody is to see. */
enum {
    H2_FORBIDDEN = H2_NAME_COUNT, /* connection, upgrade, ... */
    H2_PSEUDO_UNKNOWN
};

/* ":path" for H2_PATH and so on; not for H2_OTHER. Static. */
struct span h2_name_text(uint8_t id);
/* The id of a name, as it is written in HTTP/2. */
uint8_t h2_name_id(struct span name);

enum h2_legality {
    H2_LEGAL,
    H2_ILLEGAL,   /* to be dropped */
    H2_UPPER_CASE /* makes the message malformed */
};
enum h2_legality h2_name_legality(struct span name);
bool h2_value_is_legal(struct span value);
/* Without spaces and tabs at its ends. */
struct span h2_value_trim(struct span value);

/* What has been seen of a block. All zero at its start, but for kind. */
struct h2_rules {
    enum h2_headers kind;
    uint32_t seen; /* bits: ids of the names that may come only once */
    bool regular;  /* a field that is no pseudo-header */
    bool broken;
    uint16_t status; /* of a response */
    int64_t length;  /* of content-length + 1; 0: absent */
};
/* Take the next field, with its value trimmed. value_ok: it is legal. */
void h2_rules_field(struct h2_rules *r,
                    uint8_t id,
                    struct span value,
                    bool value_ok);
/* Whether the block keeps the rules; end: END_STREAM. */
bool h2_rules_end(const struct h2_rules *r, bool end);
/* How many bytes of content must follow; -1: any number. */
int64_t h2_rules_length(const struct h2_rules *r);

#endif
