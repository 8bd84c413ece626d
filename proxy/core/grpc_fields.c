#include "proxy/core/grpc_fields.h"

#include <stdio.h>
#include <string.h>

#include "proxy/core/state.h"

#define TEXT(s)                                \
    (struct span)                              \
    {                                          \
        (const uint8_t *)(s), sizeof(s "") - 1 \
    }

void grpc_fields_init(struct grpc_fields *f)
{
    f->n = 0;
    f->size = 0;
    f->used = 0;
}

static void push(struct grpc_fields *f,
                 enum h2_name id,
                 struct span name,
                 struct span value,
                 unsigned flags)
{
    f->list[f->n++] = (struct h2_field){
        .name = name, .value = value, .id = (uint8_t)id, .flags = (uint8_t)flags
    };
    f->size += name.len + value.len + 32;
}

void grpc_fields_add(struct grpc_fields *f,
                     enum h2_name id,
                     struct span name,
                     struct span value)
{
    push(f, id, name, value, 0);
}

void grpc_fields_add_copy(struct grpc_fields *f,
                          enum h2_name id,
                          struct span name,
                          struct span value)
{
    size_t room = sizeof(f->scratch) - f->used;
    size_t len = value.len < room ? value.len : room;
    uint8_t *at = (uint8_t *)f->scratch + f->used;
    if (len > 0) {
        memcpy(at, value.data, len);
    }
    f->used += len;
    push(f, id, name, (struct span){ at, len },
         H2_FIELD_COPY | H2_FIELD_NO_INDEX);
}

void grpc_fields_add_status(struct grpc_fields *f,
                            enum grpc_status status,
                            const char *text)
{
    char number[GRPC_STATUS_TEXT + 1];
    int n = snprintf(number, sizeof(number), "%u", (unsigned)status);
    push(f, H2_GRPC_STATUS, TEXT("grpc-status"),
         (struct span){ (const uint8_t *)f->scratch + f->used, (size_t)n },
         H2_FIELD_COPY);
    memcpy(f->scratch + f->used, number, (size_t)n);
    f->used += (size_t)n;
    if (text == NULL) {
        return;
    }
    char plain[GRPC_TEXT_MAX + 16];
    char encoded[sizeof(f->scratch) - 128];
    (void)snprintf(plain, sizeof(plain), "redial: %s", text);
    size_t room = sizeof(f->scratch) - f->used;
    size_t len =
        grpc_message_encode(plain, encoded,
                            room < sizeof(encoded) ? room : sizeof(encoded));
    grpc_fields_add_copy(f, H2_GRPC_MESSAGE, TEXT("grpc-message"),
                         (struct span){ (const uint8_t *)encoded, len });
}

void grpc_fields_add_stop(struct grpc_fields *f)
{
    push(f, H2_GRPC_PUSHBACK, TEXT("grpc-retry-pushback-ms"), TEXT("-1"), 0);
}

/* Values that are different in each call: not worth a place in the peer's
 * table. */
static bool is_changing(const struct h2_field *field)
{
    struct span n = field->name;
    if (n.len > 4 && memcmp(n.data + n.len - 4, "-bin", 4) == 0) {
        return true;
    }
    switch (n.len) {
    case 6: return memcmp(n.data, "cookie", 6) == 0;
    case 10: return memcmp(n.data, "tracestate", 10) == 0;
    case 11: return memcmp(n.data, "traceparent", 11) == 0;
    case 12: return memcmp(n.data, "x-request-id", 12) == 0;
    case 13: return memcmp(n.data, "authorization", 13) == 0;
    default: return false;
    }
}

static void copy_others(struct grpc_fields *f, const struct h2_block *b)
{
    for (size_t i = 0; i < b->n; i++) {
        const struct h2_field *field = &b->fields[i];
        if (field->id == H2_OTHER || field->id == H2_GRPC_STATUS ||
            field->id == H2_GRPC_MESSAGE || field->id == H2_GRPC_PUSHBACK) {
            push(f, field->id, field->name, field->value,
                 field->flags |
                     (is_changing(field) ? (unsigned)H2_FIELD_NO_INDEX : 0));
        }
    }
}

/* ---- :authority (X2) ---------------------------------------------------- */

static bool begins(struct span s, const char *text)
{
    size_t n = strlen(text);
    return s.len >= n && memcmp(s.data, text, n) == 0;
}

/* A name of this machine, or nothing that can be a name: what a client writes
 * that was pointed at redial. */
static bool is_local_authority(struct span a)
{
    if (a.len == 0 || begins(a, "127.") || begins(a, "[::1]")) {
        return true;
    }
    if (begins(a, "localhost") && (a.len == 9 || a.data[9] == ':')) {
        return true;
    }
    for (size_t i = 0; i < a.len; i++) {
        uint8_t c = a.data[i];
        bool name = (c >= '0' && c <= '9') || (c >= 'a' && c <= 'z') ||
                    (c >= 'A' && c <= 'Z') || c == '-' || c == '.' ||
                    c == '_' || c == ':' || c == '[' || c == ']';
        if (!name) {
            return true;
        }
    }
    return false;
}

static void add_authority(struct grpc_fields *f,
                          const struct grpc_call *call,
                          const struct grpc_link *link)
{
    const struct h2_block *b = call->request;
    struct span asked = h2_block_value(b, H2_AUTHORITY);
    if (asked.data == NULL) {
        asked = h2_block_value(b, H2_HOST); /* V9 */
    }
    const char *rule = call->channel->config->grpc.authority;
    unsigned flags = 0;
    if (rule == NULL || strcmp(rule, "auto") == 0) {
        if (is_local_authority(asked)) {
            asked = grpc_link_authority(link);
            flags = H2_FIELD_COPY; /* the link may be gone before it leaves */
        }
    } else if (strcmp(rule, "pass") != 0) {
        asked = (struct span){ (const uint8_t *)rule, strlen(rule) };
    } else if (asked.len == 0) {
        asked = TEXT("localhost");
    }
    push(f, H2_AUTHORITY, TEXT(":authority"), asked, flags);
}

/* ---- whole blocks -------------------------------------------------------- */

static void add_timeout(struct grpc_fields *f, uint64_t left_us)
{
    char text[GRPC_TIMEOUT_TEXT];
    size_t n = grpc_timeout_format(left_us, text);
    grpc_fields_add_copy(f, H2_GRPC_TIMEOUT, TEXT("grpc-timeout"),
                         (struct span){ (const uint8_t *)text, n });
}

static void add_attempts(struct grpc_fields *f, uint32_t n)
{
    char text[16];
    int len = snprintf(text, sizeof(text), "%u", (unsigned)n);
    grpc_fields_add_copy(f, H2_GRPC_ATTEMPTS,
                         TEXT("grpc-previous-rpc-attempts"),
                         (struct span){ (const uint8_t *)text, (size_t)len });
}

void grpc_fields_request(struct grpc_fields *f,
                         const struct grpc_call *call,
                         const struct grpc_link *link,
                         uint64_t now_us)
{
    const struct h2_block *b = call->request;
    push(f, H2_METHOD, TEXT(":method"), TEXT("POST"), 0);
    push(f, H2_SCHEME, TEXT(":scheme"), TEXT("http"), 0);
    push(f, H2_PATH, TEXT(":path"), h2_block_value(b, H2_PATH), 0);
    add_authority(f, call, link);
    push(f, H2_TE, TEXT("te"), TEXT("trailers"), 0);
    if (call->deadline_us != UINT64_MAX) {
        add_timeout(f, call->deadline_us - now_us);
    }
    push(f, H2_CONTENT_TYPE, TEXT("content-type"),
         h2_block_value(b, H2_CONTENT_TYPE), 0);
    copy_others(f, b);
    uint32_t before = call->attempts.before + call->attempts.configured - 1;
    if (before > 0) {
        add_attempts(f, before);
    }
}

/* What is no status is UNKNOWN to redial, so it must be to the client: some
 * would read "00" as OK (F-f). */
static struct span status_value(struct span value)
{
    return grpc_status_parse(value) == GRPC_UNKNOWN ? TEXT("2") : value;
}

void grpc_fields_reply(struct grpc_fields *f, const struct h2_block *block)
{
    for (size_t i = 0; i < block->n; i++) {
        const struct h2_field *field = &block->fields[i];
        if (field->id == H2_GRPC_STATUS) {
            push(f, field->id, field->name, status_value(field->value), 0);
        } else if (field->id != H2_CONTENT_LENGTH) {
            push(f, field->id, field->name, field->value,
                 field->flags |
                     (is_changing(field) ? (unsigned)H2_FIELD_NO_INDEX : 0));
        }
    }
}
