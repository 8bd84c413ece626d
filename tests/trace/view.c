#include "tests/trace/view.h"

#include <ctype.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "tests/sim/resp_model.h"
#include "tests/trace/script.h"

enum {
    ID_LENGTH = 40,
    CROWD_PORT = 7000
};

/* ---- reading ------------------------------------------------------------ */

static bool number_word(const char **text, unsigned *number)
{
    char word[WORD_MAX];
    char *end;
    word_next(text, word);
    *number = (unsigned)strtoul(word, &end, 10);
    return end != word && *end == '\0';
}

static bool shard_add(struct node_view *v, const char *word)
{
    if (v->n_shards == SHARDS_MAX) {
        return false;
    }
    v->shards[v->n_shards++] =
        (struct view_shard){ .primary = word[0], .failed = word[1] == '!' };
    return word[1] == '\0' || strcmp(word + 1, "!") == 0;
}

static bool range_add(struct view_shard *s, const char *word)
{
    char *end;
    if (s->n_ranges == RANGES_MAX) {
        return false;
    }
    unsigned first = (unsigned)strtoul(word, &end, 10);
    unsigned last = first;
    if (*end == '-') {
        last = (unsigned)strtoul(end + 1, &end, 10);
    }
    s->ranges[s->n_ranges].first = first;
    s->ranges[s->n_ranges].last = last;
    s->n_ranges++;
    return *end == '\0';
}

static bool replica_add(struct view_shard *s, const char *word)
{
    if (s->n_replicas == REPLICAS_MAX || !isupper((unsigned char)word[1]) ||
        word[2] != '\0') {
        return false;
    }
    s->replica_failed[s->n_replicas] = word[0] == '-';
    s->replicas[s->n_replicas++] = word[1];
    return true;
}

static bool word_read(const char *word, const char **text, struct node_view *v)
{
    struct view_shard *last =
        v->n_shards == 0 ? NULL : &v->shards[v->n_shards - 1];
    if (strcmp(word, "epoch") == 0) {
        bool good = number_word(text, &v->epoch);
        v->my_epoch = v->epoch;
        return good;
    }
    if (strcmp(word, "my") == 0) {
        return number_word(text, &v->my_epoch);
    }
    if (strcmp(word, "crowd") == 0) {
        return number_word(text, &v->crowd);
    }
    if (strcmp(word, "fail") == 0) {
        v->fail = true;
        return true;
    }
    if (isupper((unsigned char)word[0])) {
        return shard_add(v, word);
    }
    if (last == NULL) {
        return false;
    }
    return word[0] == '+' || word[0] == '-'  ? replica_add(last, word)
           : isdigit((unsigned char)word[0]) ? range_add(last, word)
                                             : false;
}

bool view_read_text(const char *text, struct node_view *v)
{
    char word[WORD_MAX];
    bool good = true;
    *v = (struct node_view){ .epoch = 1, .my_epoch = 1 };
    while (good && word_next(&text, word)) {
        good = word_read(word, &text, v);
    }
    return good;
}

/* ---- writing ------------------------------------------------------------ */

static void text_add(struct bytes *out, const char *text)
{
    model_bulk_add(out, (struct span){ .data = (const uint8_t *)text,
                                       .len = strlen(text) });
}

void view_id_add(struct bytes *out, char node)
{
    char id[ID_LENGTH + 1] = { 0 };
    memset(id, tolower((unsigned char)node), ID_LENGTH);
    text_add(out, id);
}

/* One node of a shard, as CLUSTER SHARDS tells it. */
static void shard_node_add(struct bytes *out,
                           const struct address *at,
                           char node,
                           bool primary,
                           bool failed,
                           int resp)
{
    bool named = isalpha((unsigned char)at->host[0]) != 0 &&
                 strchr(at->host, ':') == NULL;
    model_map_add(out, resp, 7);
    text_add(out, "id");
    view_id_add(out, node);
    text_add(out, "port");
    bytes_printf(out, ":%u\r\n", (unsigned)at->port);
    text_add(out, "ip");
    text_add(out, named ? "10.255.255.255" : at->host);
    text_add(out, "endpoint");
    text_add(out, at->host);
    text_add(out, "role");
    text_add(out, primary ? "master" : "replica");
    text_add(out, "replication-offset");
    bytes_add_text(out, ":1000\r\n");
    text_add(out, "health");
    text_add(out, failed ? "fail" : "online");
}

static void crowd_add(struct bytes *out, unsigned number, int resp)
{
    char id[ID_LENGTH + 1];
    char host[32];
    snprintf(id, sizeof id, "%040u", number);
    snprintf(host, sizeof host, "10.0.%u.%u", 1 + number / 250, number % 250);
    model_map_add(out, resp, 2);
    text_add(out, "slots");
    bytes_add_text(out, "*0\r\n");
    text_add(out, "nodes");
    bytes_add_text(out, "*1\r\n");
    model_map_add(out, resp, 6);
    text_add(out, "id");
    text_add(out, id);
    text_add(out, "port");
    bytes_printf(out, ":%d\r\n", CROWD_PORT);
    text_add(out, "ip");
    text_add(out, host);
    text_add(out, "endpoint");
    text_add(out, host);
    text_add(out, "role");
    text_add(out, "master");
    text_add(out, "health");
    text_add(out, "online");
}

void view_shards_add(struct bytes *out,
                     const struct node_view *v,
                     const struct node_map *map,
                     int resp)
{
    bytes_printf(out, "*%zu\r\n", v->n_shards + v->crowd);
    for (size_t i = 0; i < v->n_shards; i++) {
        const struct view_shard *s = &v->shards[i];
        model_map_add(out, resp, 2);
        text_add(out, "slots");
        bytes_printf(out, "*%zu\r\n", 2 * s->n_ranges);
        for (size_t k = 0; k < s->n_ranges; k++) {
            bytes_printf(out, ":%u\r\n:%u\r\n", s->ranges[k].first,
                         s->ranges[k].last);
        }
        text_add(out, "nodes");
        bytes_printf(out, "*%zu\r\n", 1 + s->n_replicas);
        shard_node_add(out, &map->of[s->primary - 'A'], s->primary, true,
                       s->failed, resp);
        for (size_t k = 0; k < s->n_replicas; k++) {
            shard_node_add(out, &map->of[s->replicas[k] - 'A'], s->replicas[k],
                           false, s->replica_failed[k], resp);
        }
    }
    for (unsigned i = 0; i < v->crowd; i++) {
        crowd_add(out, i, resp);
    }
}

static void slots_node_add(struct bytes *out,
                           const struct node_map *map,
                           char node)
{
    const struct address *at = &map->of[node - 'A'];
    bytes_add_text(out, "*4\r\n");
    text_add(out, at->host);
    bytes_printf(out, ":%u\r\n", (unsigned)at->port);
    view_id_add(out, node);
    bytes_add_text(out, "*0\r\n");
}

void view_slots_add(struct bytes *out,
                    const struct node_view *v,
                    const struct node_map *map)
{
    size_t n = 0;
    for (size_t i = 0; i < v->n_shards; i++) {
        n += v->shards[i].n_ranges;
    }
    bytes_printf(out, "*%zu\r\n", n);
    for (size_t i = 0; i < v->n_shards; i++) {
        const struct view_shard *s = &v->shards[i];
        for (size_t k = 0; k < s->n_ranges; k++) {
            bytes_printf(out, "*%zu\r\n:%u\r\n:%u\r\n", 3 + s->n_replicas,
                         s->ranges[k].first, s->ranges[k].last);
            slots_node_add(out, map, s->primary);
            for (size_t r = 0; r < s->n_replicas; r++) {
                slots_node_add(out, map, s->replicas[r]);
            }
        }
    }
}

void view_info_add(struct bytes *out, const struct node_view *v)
{
    char text[256];
    snprintf(text, sizeof text,
             "cluster_enabled:1\r\ncluster_state:%s\r\n"
             "cluster_slots_assigned:16384\r\ncluster_known_nodes:%zu\r\n"
             "cluster_size:%zu\r\ncluster_current_epoch:%u\r\n"
             "cluster_my_epoch:%u\r\n",
             v->fail ? "fail" : "ok", v->n_shards, v->n_shards, v->epoch,
             v->my_epoch);
    text_add(out, text);
}

/* ---- sentinels ---------------------------------------------------------- */

static void port_text_add(struct bytes *out, const struct address *at)
{
    char port[8];
    snprintf(port, sizeof port, "%u", (unsigned)at->port);
    text_add(out, port);
}

static void pair_add(struct bytes *out, const char *key, const char *value)
{
    text_add(out, key);
    text_add(out, value);
}

static void listed_add(struct bytes *out,
                       const struct address *at,
                       const char *flags)
{
    pair_add(out, "ip", at->host);
    text_add(out, "port");
    port_text_add(out, at);
    pair_add(out, "flags", flags);
}

void view_master_add(struct bytes *out,
                     const struct node_view *v,
                     const struct node_map *map,
                     int resp)
{
    char epoch[16];
    if (v->n_shards == 0) {
        bytes_add_text(out, "-ERR No such master with that name\r\n");
        return;
    }
    snprintf(epoch, sizeof epoch, "%u", v->epoch);
    model_map_add(out, resp, 5);
    pair_add(out, "name", "mymaster");
    listed_add(out, &map->of[v->shards[0].primary - 'A'], "master");
    pair_add(out, "config-epoch", epoch);
}

void view_master_address_add(struct bytes *out,
                             const struct node_view *v,
                             const struct node_map *map,
                             int resp)
{
    if (v->n_shards == 0) {
        model_null_array_add(out, resp);
        return;
    }
    const struct address *at = &map->of[v->shards[0].primary - 'A'];
    bytes_add_text(out, "*2\r\n");
    text_add(out, at->host);
    port_text_add(out, at);
}

void view_replicas_add(struct bytes *out,
                       const struct node_view *v,
                       const struct node_map *map,
                       int resp)
{
    if (v->n_shards == 0) {
        bytes_add_text(out, "-ERR No such master with that name\r\n");
        return;
    }
    const struct view_shard *s = &v->shards[0];
    bytes_printf(out, "*%zu\r\n", s->n_replicas);
    for (size_t i = 0; i < s->n_replicas; i++) {
        bool failed = s->replica_failed[i];
        model_map_add(out, resp, 5);
        text_add(out, "runid");
        view_id_add(out, s->replicas[i]);
        listed_add(out, &map->of[s->replicas[i] - 'A'],
                   failed ? "s_down,slave,disconnected" : "slave");
        pair_add(out, "master-link-status", failed ? "err" : "ok");
    }
}

void view_sentinel_add(struct bytes *out, const struct address *at, int resp)
{
    model_map_add(out, resp, 3);
    listed_add(out, at, "sentinel");
}

static bool is_primary(const struct node_view *v, char node)
{
    for (size_t i = 0; i < v->n_shards; i++) {
        if (v->shards[i].primary == node) {
            return true;
        }
    }
    return false;
}

void view_role_add(struct bytes *out,
                   const struct node_view *v,
                   const struct node_map *map,
                   char node)
{
    if (is_primary(v, node) || v->n_shards == 0) {
        bytes_add_text(out, "*3\r\n$6\r\nmaster\r\n:1000\r\n*0\r\n");
        return;
    }
    const struct address *at = &map->of[v->shards[0].primary - 'A'];
    bytes_add_text(out, "*5\r\n$5\r\nslave\r\n");
    text_add(out, at->host);
    bytes_printf(out, ":%u\r\n$9\r\nconnected\r\n:1000\r\n",
                 (unsigned)at->port);
}

void view_replication_add(struct bytes *out,
                          const struct node_view *v,
                          char node)
{
    text_add(out, is_primary(v, node) ? "# Replication\r\nrole:master\r\n"
                                        "master_repl_offset:1000\r\n"
                                      : "# Replication\r\nrole:slave\r\n"
                                        "master_link_status:up\r\n"
                                        "master_last_io_seconds_ago:0\r\n"
                                        "slave_repl_offset:1000\r\n");
}
