/* The cluster slot of a key: CRC16 of the key or of its hash tag. */
#ifndef PARSER_KEYSLOT_H
#define PARSER_KEYSLOT_H

#include "parser/span.h"

enum {
    KEYSLOT_COUNT = 16384
};

/* CRC16-CCITT (XMODEM), as Redis Cluster uses it. */
uint16_t crc16(const uint8_t *data, size_t len);

/* The slot, 0 to 16383. A non-empty {tag} stands for the key. */
uint16_t keyslot(struct span key);

#endif
