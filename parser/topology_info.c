#include "parser/number.h"
#include "parser/topology.h"
#include "parser/topology_view.h"

/* A number of an INFO text, or another when it is missing or malformed. */
static int64_t info_number(struct span text, const char *key, int64_t otherwise)
{
    int64_t number = 0;

    return number_parse(info_value(text, key), &number) ? number : otherwise;
}

static uint64_t info_count(struct span text, const char *key)
{
    int64_t number = info_number(text, key, 0);

    return number < 0 ? 0 : (uint64_t)number;
}

/* The same for 32 bits: what is larger becomes the largest. */
static uint32_t info_count_u32(struct span text, const char *key)
{
    uint64_t number = info_count(text, key);

    return number > UINT32_MAX ? UINT32_MAX : (uint32_t)number;
}

bool cluster_info_parse(struct span reply, struct cluster_info *info)
{
    struct reply *r = reply_parse(reply);
    struct span text = string_text(r);
    struct span state = info_value(text, "cluster_state");

    *info = (struct cluster_info){
        .ok = span_equal(state, span_of("ok")),
        .current_epoch = info_count(text, "cluster_current_epoch"),
        .my_epoch = info_count(text, "cluster_my_epoch"),
        .slots_assigned = info_count_u32(text, "cluster_slots_assigned"),
        .known_nodes = info_count_u32(text, "cluster_known_nodes"),
        .size = info_count_u32(text, "cluster_size"),
    };
    reply_free(r);
    return state.len > 0;
}

/* The words that ROLE and INFO use. */
static enum node_role role_word(struct span word)
{
    if (span_equal(word, span_of("master"))) {
        return NODE_PRIMARY;
    }
    return span_equal(word, span_of("slave")) ? NODE_REPLICA : NODE_UNKNOWN;
}

enum node_role role_parse(struct span reply, bool *connected)
{
    struct reply *r = reply_parse(reply);
    enum node_role role = NODE_UNKNOWN;

    *connected = false;
    if (r != NULL) {
        role = role_word(string_text(reply_at(r, 0)));
        *connected =
            role == NODE_REPLICA &&
            span_equal(string_text(reply_at(r, 3)), span_of("connected"));
    }
    reply_free(r);
    return role;
}

bool replication_info_parse(struct span reply, struct replication_info *info)
{
    struct reply *r = reply_parse(reply);
    struct span text = string_text(r);
    enum node_role role = role_word(info_value(text, "role"));
    bool replica = role == NODE_REPLICA;

    *info = (struct replication_info){
        .role = role,
        .link_up = replica && span_equal(info_value(text, "master_link_status"),
                                         span_of("up")),
        .last_io_s = -1,
        .offset = info_number(
            text, replica ? "slave_repl_offset" : "master_repl_offset", 0),
    };
    if (replica) {
        info->last_io_s = info_number(text, "master_last_io_seconds_ago", -1);
    }
    zone_copy(info->zone, info_value(text, "availability_zone"));
    reply_free(r);
    return role != NODE_UNKNOWN;
}
