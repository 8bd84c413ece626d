#include "proxy/core/grpc_request.h"

#include <inttypes.h>
#include <stdio.h>

#include "proxy/core/state.h"

static bool refuse(struct grpc_refusal *r,
                   enum grpc_status status,
                   const char *text)
{
    r->http = r->http == NULL ? "200" : r->http;
    r->status = status;
    (void)snprintf(r->text, sizeof(r->text), "%s", text);
    return false;
}

/* V6: what is too large was not kept, so it is asked first. */
static bool size_is_right(const struct grpc_client *c,
                          const struct h2_block *b,
                          struct grpc_refusal *r)
{
    if (b->too_many) {
        return refuse(r, GRPC_RESOURCE_EXHAUSTED,
                      "request headers exceed 256 fields");
    }
    if (b->too_large) {
        char text[64];
        (void)snprintf(text, sizeof(text),
                       "request headers exceed %" PRIu64 " bytes",
                       c->listener->config->grpc.max_header_list_size);
        return refuse(r, GRPC_RESOURCE_EXHAUSTED, text);
    }
    return true;
}

/* V1 to V3, V9. */
static bool is_grpc(const struct h2_block *b, struct grpc_refusal *r)
{
    struct span path = h2_block_value(b, H2_PATH);
    bool has_authority = b->first[H2_AUTHORITY] != 0 ||
                         (b->first[H2_HOST] != 0 && b->twice[H2_HOST] == 0);
    if (!has_authority || path.len == 0 || path.data[0] != '/') {
        r->reset = true; /* V10: not even HTTP */
        return false;
    }
    if (!span_equal(h2_block_value(b, H2_METHOD), span_of("POST"))) {
        r->http = "405";
        return refuse(r, GRPC_INTERNAL, "method must be POST");
    }
    if (!grpc_content_type_is_valid(h2_block_value(b, H2_CONTENT_TYPE))) {
        r->http = "415";
        return refuse(r, GRPC_INTERNAL, "unsupported content-type");
    }
    if (!grpc_path_is_valid(path)) {
        return refuse(r, GRPC_UNIMPLEMENTED, "malformed method path");
    }
    return true;
}

/* V4, V5. */
static bool timeout_is_right(const struct h2_block *b,
                             uint64_t *timeout_us,
                             struct grpc_refusal *r)
{
    *timeout_us = GRPC_NO_LIMIT;
    if (b->first[H2_GRPC_TIMEOUT] == 0) {
        return true;
    }
    if (b->twice[H2_GRPC_TIMEOUT] > 0 ||
        !grpc_timeout_parse(h2_block_value(b, H2_GRPC_TIMEOUT), timeout_us)) {
        return refuse(r, GRPC_INTERNAL, "malformed grpc-timeout");
    }
    if (*timeout_us == 0) {
        return refuse(r, GRPC_DEADLINE_EXCEEDED,
                      "deadline exceeded before the call began");
    }
    return true;
}

/* V7: this engine's share of the limits of the process. */
static bool there_is_room(const struct engine *e, struct grpc_refusal *r)
{
    const struct grpc_process_config *p = &e->config->process.grpc;
    uint32_t max = (p->max_calls + e->workers - 1) / e->workers;
    if (e->grpc.calls >= max || e->grpc.bytes > p->memory_high / e->workers) {
        r->stop = true;
        return refuse(r, GRPC_UNAVAILABLE, "too many calls");
    }
    return true;
}

bool grpc_request_check(const struct engine *e,
                        const struct grpc_client *c,
                        const struct h2_block *block,
                        uint64_t *timeout_us,
                        struct grpc_refusal *refusal)
{
    *refusal = (struct grpc_refusal){ 0 };
    return size_is_right(c, block, refusal) && is_grpc(block, refusal) &&
           timeout_is_right(block, timeout_us, refusal) &&
           there_is_room(e, refusal);
}
