#include "proxy/io/json.h"

#include <inttypes.h>

enum {
    ESCAPED_MAX = 1024
};

void json_string(struct text *out, const char *key, const char *value)
{
    char escaped[ESCAPED_MAX];
    (void)text_escape(escaped, sizeof(escaped), value, true);
    text_addf(out, "\"%s\":\"%s\"", key, escaped);
}

void json_words(struct text *out, const char *key, const char *value)
{
    if (value[0] == '\0') {
        text_addf(out, "\"%s\":null", key);
    } else {
        json_string(out, key, value);
    }
}

void json_seconds(struct text *out, const char *key, bool known, uint64_t us)
{
    if (known) {
        text_addf(out, "\"%s\":%" PRIu64 ".%06u", key, us / 1000000,
                  (unsigned)(us % 1000000));
    } else {
        text_addf(out, "\"%s\":null", key);
    }
}
