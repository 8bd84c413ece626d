#include "parser/sha1.h"

#include <nettle/sha1.h>
#include <nettle/version.h>

struct sha1 sha1_of(struct span data)
{
    struct sha1_ctx context;
    struct sha1 sha1;

    sha1_init(&context);
    if (data.len > 0) {
        sha1_update(&context, data.len, data.data);
    }
#if NETTLE_VERSION_MAJOR >= 4
    sha1_digest(&context, sha1.byte);
#else
    sha1_digest(&context, SHA1_BYTES, sha1.byte);
#endif
    return sha1;
}

/* The value of a digit, or 16. */
static unsigned digit_of(uint8_t c)
{
    if (c >= '0' && c <= '9') {
        return (unsigned)c - '0';
    }
    c |= 0x20;
    return c >= 'a' && c <= 'f' ? (unsigned)c - 'a' + 10 : 16;
}

bool sha1_parse(struct span text, struct sha1 *sha1)
{
    if (text.len != SHA1_HEX) {
        return false;
    }
    for (size_t i = 0; i < SHA1_BYTES; i++) {
        unsigned high = digit_of(text.data[2 * i]);
        unsigned low = digit_of(text.data[2 * i + 1]);
        if (high > 15 || low > 15) {
            return false;
        }
        sha1->byte[i] = (uint8_t)(high << 4 | low);
    }
    return true;
}
