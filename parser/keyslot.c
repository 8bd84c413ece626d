#include "parser/keyslot.h"

#include "parser/load.h"

/* crc_of[][] */
#include "keyslot_table.inc"

enum {
    WORD = 8 /* bytes that are taken at once */
};

static const uint64_t ones = 0x0101010101010101u;

/* Among the highest bits of eight bytes one is set when a byte is '{', and none
 * when no byte is. The other bits mean nothing. */
static inline uint64_t open_braces(uint64_t word)
{
    uint64_t other = word ^ '{' * ones; /* 0 where it is one */

    return (other - ones) & ~other;
}

/* The CRC of all before and more bytes at p, of which these are the first: there
 * are n until the next step. The one so far counts as if it had been added to
 * the first two; then each byte adds its own. */
static inline uint16_t crc_add2(uint16_t crc, const uint8_t *p, size_t n)
{
    return crc_of[n - 1][p[0] ^ crc >> 8] ^ crc_of[n - 2][p[1] ^ (crc & 0xff)];
}

static inline uint16_t crc_add4(uint16_t crc, const uint8_t *p, size_t n)
{
    return crc_add2(crc, p, n) ^ crc_of[n - 3][p[2]] ^ crc_of[n - 4][p[3]];
}

static inline uint16_t crc_add8(uint16_t crc, const uint8_t *p)
{
    return crc_add4(crc, p, WORD) ^ crc_of[3][p[4]] ^ crc_of[2][p[5]] ^
           crc_of[1][p[6]] ^ crc_of[0][p[7]];
}

/* The CRC of all bytes. In line, as keyslot() would otherwise save registers for
 * the call. */
__attribute__((always_inline)) static inline uint16_t crc_all(const uint8_t *p,
                                                              size_t len)
{
    uint16_t crc = 0;

    for (size_t words = len / WORD; words > 0; words--, p += WORD) {
        crc = crc_add8(crc, p);
    }
    if ((len & 4) != 0) {
        crc = crc_add4(crc, p, 4);
        p += 4;
    }
    if ((len & 2) != 0) {
        crc = crc_add2(crc, p, 2);
        p += 2;
    }
    if ((len & 1) != 0) {
        crc = (uint16_t)(crc << 8) ^ crc_of[0][*p ^ crc >> 8];
    }
    return crc;
}

uint16_t crc16(const uint8_t *data, size_t len)
{
    return crc_all(data, len);
}

static inline bool has_brace(const uint8_t *p, size_t len)
{
    uint64_t found = 0;

    if (len < WORD) {
        found = open_braces(load_part(p, len));
    } else { /* the last word reaches back into the one before */
        found = open_braces(load_u64(p + len - WORD));
        for (size_t words = (len - 1) / WORD; words > 0; words--, p += WORD) {
            found |= open_braces(load_u64(p));
        }
    }
    return (found & 0x80 * ones) != 0;
}

/* The slot of a key with a '{' in it. Out of line, as few have one. */
__attribute__((noinline)) static uint16_t keyslot_of_tag(struct span key)
{
    const uint8_t *open = memchr(key.data, '{', key.len);
    const uint8_t *tag = open + 1;
    size_t rest = key.len - (size_t)(tag - key.data);
    const uint8_t *close = rest == 0 ? NULL : memchr(tag, '}', rest);

    if (close == NULL || close == tag) {
        return crc16(key.data, key.len) % KEYSLOT_COUNT;
    }
    return crc16(tag, (size_t)(close - tag)) % KEYSLOT_COUNT;
}

uint16_t keyslot(struct span key)
{
    if (has_brace(key.data, key.len)) {
        return keyslot_of_tag(key);
    }
    return crc_all(key.data, key.len) % KEYSLOT_COUNT;
}
