#include "parser/keyslot.h"

/* CRC16 of every byte value; polynomial x^16 + x^12 + x^5 + 1. One row per
 * high nibble keeps the table small: a byte is two steps. */
static const uint16_t nibble[16] = {
    0x0000, 0x1021, 0x2042, 0x3063, 0x4084, 0x50a5, 0x60c6, 0x70e7,
    0x8108, 0x9129, 0xa14a, 0xb16b, 0xc18c, 0xd1ad, 0xe1ce, 0xf1ef,
};

uint16_t crc16(const uint8_t *data, size_t len)
{
    unsigned crc = 0;

    for (size_t i = 0; i < len; i++) {
        crc = (crc << 4) ^ nibble[((crc >> 12) ^ (data[i] >> 4)) & 0xf];
        crc = (crc << 4) ^ nibble[((crc >> 12) ^ data[i]) & 0xf];
    }
    return (uint16_t)crc;
}

uint16_t keyslot(struct span key)
{
    const uint8_t *open = key.len == 0 ? NULL : memchr(key.data, '{', key.len);

    if (open != NULL) {
        const uint8_t *tag = open + 1;
        size_t rest = key.len - (size_t)(tag - key.data);
        const uint8_t *close = rest == 0 ? NULL : memchr(tag, '}', rest);
        if (close != NULL && close != tag) {
            return crc16(tag, (size_t)(close - tag)) % KEYSLOT_COUNT;
        }
    }
    return crc16(key.data, key.len) % KEYSLOT_COUNT;
}
