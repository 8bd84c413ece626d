/* Byte soup to the framer. The first byte chooses how the rest is cut into
 * pieces; however it is cut, the answer is the same as for the whole. What
 * hiredis' reader understands, the framer understands alike. */
#include <hiredis/hiredis.h>

#include "fuzz.h"
#include "parser/resp.h"

static const struct resp_limits limits = { .bulk_max = 1 << 20,
                                           .elements_max = 1 << 16 };

struct answer {
    enum scan scan;
    size_t used;
    uint8_t type;
    bool attribute;
};

static struct answer scan_whole(const uint8_t *data, size_t size)
{
    struct resp_scanner s;
    struct answer a = { 0 };

    resp_scanner_init(&s);
    a.scan = resp_scan(&s, &limits, data, size, &a.used);
    REQUIRE(a.used <= size);
    REQUIRE(a.scan != SCAN_MORE || a.used == size);
    REQUIRE(a.scan != SCAN_DONE || (s.bytes == a.used && a.used > 0));
    REQUIRE((a.scan == SCAN_INVALID) == (s.error != NULL));
    a.type = s.type;
    a.attribute = s.attribute;
    return a;
}

/* The same in pieces, each in memory of exactly its size. */
static struct answer scan_pieces(const uint8_t *data,
                                 size_t size,
                                 uint32_t seed)
{
    struct resp_scanner s;
    struct answer a = { .scan = SCAN_MORE };

    resp_scanner_init(&s);
    while (a.used < size && a.scan == SCAN_MORE) {
        seed = seed * 1664525u + 1013904223u;
        size_t piece = 1 + (seed >> 24) % ((seed >> 16) % 8 == 0 ? 64 : 5);
        if (piece > size - a.used) {
            piece = size - a.used;
        }
        uint8_t *copy = malloc(piece);
        REQUIRE(copy != NULL);
        memcpy(copy, data + a.used, piece);
        size_t used = 0;
        a.scan = resp_scan(&s, &limits, copy, piece, &used);
        REQUIRE(used <= piece);
        REQUIRE(a.scan != SCAN_MORE || used == piece);
        a.used += used;
        free(copy);
    }
    a.type = s.type;
    a.attribute = s.attribute;
    return a;
}

/* Whether only types of RESP2 begin a value; a sloppy look is enough. */
static bool looks_resp2(const uint8_t *data, size_t size)
{
    return size > 0 && memchr("+-:$*", data[0], 5) != NULL;
}

static void compare_with_hiredis(const uint8_t *data, size_t size)
{
    struct answer a = scan_whole(data, size);
    void *reply = NULL;

    if (a.scan == SCAN_INVALID) {
        return; /* hiredis takes a bare CR in a line, and no limit */
    }
    redisReader *reader = redisReaderCreate();
    REQUIRE(reader != NULL);
    REQUIRE(redisReaderFeed(reader, (const char *)data, size) == REDIS_OK);
    if (redisReaderGetReply(reader, &reply) == REDIS_OK && reply != NULL) {
        REQUIRE(a.scan == SCAN_DONE &&
                size - a.used == reader->len - reader->pos);
        freeReplyObject(reply);
    }
    redisReaderFree(reader);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    if (size < 1) {
        return 0;
    }
    uint32_t seed = data[0];
    data++;
    size--;
    struct answer whole = scan_whole(data, size);
    struct answer pieces = scan_pieces(data, size, seed);
    if (size > 0) {
        REQUIRE(whole.scan == pieces.scan && whole.used == pieces.used &&
                whole.type == pieces.type &&
                whole.attribute == pieces.attribute);
    }
    if (looks_resp2(data, size)) {
        compare_with_hiredis(data, size);
    }
    return 0;
}
