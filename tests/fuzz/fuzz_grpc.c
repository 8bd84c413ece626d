/* Byte soup to the words of gRPC: timeouts, statuses, pushback, paths, and the
 * prefixes of messages however they are cut. The first byte chooses. */
#include "fuzz.h"
#include "parser/grpc.h"

static bool is_digit(uint8_t c)
{
    return c >= '0' && c <= '9';
}

static size_t digits(struct span text)
{
    size_t n = 0;
    while (n < text.len && is_digit(text.data[n])) {
        n++;
    }
    return n;
}

/* What is read again is never less, and written the same. */
static void timeout(struct span value)
{
    uint64_t us = 0;
    uint64_t again = 0;
    char text[GRPC_TIMEOUT_TEXT];
    char same[GRPC_TIMEOUT_TEXT];

    if (!grpc_timeout_parse(value, &us)) {
        return;
    }
    REQUIRE(value.len >= 2 && value.len <= 9);
    REQUIRE(digits(value) == value.len - 1);
    if (us == 0) {
        return;
    }
    size_t n = grpc_timeout_format(us, text);
    struct span written = { (const uint8_t *)text, n };
    REQUIRE(n >= 2 && n <= 9);
    REQUIRE(grpc_timeout_parse(written, &again) && again >= us);
    REQUIRE(again - us <= us / 1000);
    REQUIRE(grpc_timeout_format(again, same) == n);
    REQUIRE(memcmp(text, same, n) == 0);
}

static void number(struct span value)
{
    uint32_t ms = 0;
    bool plain = value.len > 0 && digits(value) == value.len &&
                 (value.len == 1 || value.data[0] != '0');
    enum grpc_status status = grpc_status_parse(value);
    enum grpc_pushback pushback = grpc_pushback_parse(value, &ms);
    uint32_t attempts = grpc_attempts_parse(value);
    enum grpc_status named = GRPC_OK;

    REQUIRE(status == GRPC_UNKNOWN || plain);
    REQUIRE(status < GRPC_STATUS_COUNT);
    REQUIRE(pushback != GRPC_PUSHBACK_MS || (plain && ms <= INT32_MAX));
    REQUIRE((pushback == GRPC_PUSHBACK_NONE) == (value.data == NULL));
    REQUIRE(attempts <= 999999999);
    REQUIRE(attempts == 0 || digits(value) == value.len);
    if (grpc_status_find(value, &named)) {
        REQUIRE(strlen(grpc_status_name(named)) == value.len);
    }
}

static void word(struct span value)
{
    if (grpc_path_is_valid(value)) {
        REQUIRE(value.len >= 4);
        REQUIRE(value.data[0] == '/' && value.data[value.len - 1] != '/');
    }
    if (grpc_content_type_is_valid(value)) {
        REQUIRE(value.len >= 16);
    }
}

/* However little room there is, what is written is plain and whole. */
static void message(struct span value)
{
    char out[256];
    char *text = malloc(value.len + 1);
    REQUIRE(text != NULL);
    memcpy(text, value.data, value.len);
    text[value.len] = '\0';

    size_t room = value.len > 0 ? value.data[0] : 0;
    size_t n = grpc_message_encode(text, out, room);
    REQUIRE(n <= room);
    for (size_t i = 0; i < n; i++) {
        REQUIRE(out[i] >= 0x20 && out[i] <= 0x7e);
        REQUIRE(out[i] != '%' || n - i >= 3);
    }
    free(text);
}

static bool scan(struct grpc_messages *m, const uint8_t *data, size_t len)
{
    uint64_t size = 0;
    uint8_t *copy = malloc(len + 1); /* read within bounds */
    REQUIRE(copy != NULL);
    memcpy(copy, data, len);
    bool fits =
        grpc_messages_scan(m, (struct span){ copy, len }, 1 << 16, &size);
    REQUIRE(fits == (size == 0) && (fits || size > 1 << 16));
    free(copy);
    return fits;
}

static void messages(struct span bytes)
{
    struct grpc_messages whole = { 0 };
    struct grpc_messages pieces = { 0 };
    uint32_t seed = bytes.len > 0 ? bytes.data[0] : 0;
    bool pieces_fit = true;

    bool whole_fits = scan(&whole, bytes.data, bytes.len);
    for (size_t i = 0; i < bytes.len && pieces_fit;) {
        seed = seed * 1664525u + 1013904223u;
        size_t n = 1 + (seed >> 24) % 7;
        n = n < bytes.len - i ? n : bytes.len - i;
        pieces_fit = scan(&pieces, bytes.data + i, n);
        i += n;
    }
    REQUIRE(whole_fits == pieces_fit);
    REQUIRE(whole.count == pieces.count && whole.whole == pieces.whole);
    REQUIRE(whole.left == pieces.left && whole.n_prefix == pieces.n_prefix);
    REQUIRE(whole.whole <= whole.count && whole.count - whole.whole <= 1);
    REQUIRE((whole.left > 0) == (whole.count > whole.whole));
    REQUIRE(whole.n_prefix < 5 && (whole.n_prefix == 0 || whole.left == 0));
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    if (size < 2) {
        return 0;
    }
    struct span value = { data + 1, size - 1 };
    switch (data[0] % 5) {
    case 0: timeout(value); break;
    case 1: number(value); break;
    case 2: word(value); break;
    case 3: message(value); break;
    default: messages(value); break;
    }
    return 0;
}
