#include "tests/trace/servers.h"

#include <ctype.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "config/address.h"
#include "tests/sim/resp_model.h"
#include "tests/trace/script.h"
#include "tests/trace/stage.h"

enum {
    CLIENT_ID_FIRST = 100
};

/* ---- who there is ------------------------------------------------------- */

bool servers_declare(struct servers *all,
                     const char *text,
                     bool sentinels,
                     struct bytes *list)
{
    char word[WORD_MAX];
    while (word_next(&text, word)) {
        if (!isupper((unsigned char)word[0]) || word[1] != '=' ||
            address_parse(word + 2, false, &all->map.of[word[0] - 'A']) !=
                NULL) {
            return false;
        }
        all->of[word[0] - 'A'].sentinel = sentinels;
        bytes_printf(list, "%s%s", list->size == 0 ? "" : ",", word + 2);
    }
    return list->size > 0;
}

void servers_fini(struct servers *all)
{
    for (size_t i = 0; i < NODE_NAMES; i++) {
        for (size_t k = 0; k < OWED_COUNT; k++) {
            bytes_fini(&all->of[i].answers[k]);
        }
    }
}

char servers_name(const struct servers *all, const struct address *address)
{
    for (size_t i = 0; i < NODE_NAMES; i++) {
        const struct address *at = &all->map.of[i];
        if (at->port != 0 && !address->is_unix && at->port == address->port &&
            strcmp(at->host, address->host) == 0) {
            return (char)('A' + i);
        }
    }
    return 'u';
}

static struct server *server_of(struct stage *s, char name)
{
    return &s->servers->of[name - 'A'];
}

bool server_acts(const struct stage *s, const struct player *p)
{
    return isupper((unsigned char)p->side) &&
           s->servers->of[p->side - 'A'].mode != SERVER_MANUAL;
}

void server_resolve(char name, struct address *address)
{
    snprintf(address->host, sizeof address->host, "10.9.0.%d", 1 + name - 'A');
}

/* ---- lines of a trace --------------------------------------------------- */

bool servers_say(struct servers *all, const char *text)
{
    struct node_view view;
    if (!view_read_text(text, &view)) {
        return false;
    }
    for (size_t i = 0; i < NODE_NAMES; i++) {
        all->of[i].view = view;
    }
    return true;
}

unsigned servers_asked(const struct servers *all)
{
    unsigned asked = 0;
    for (size_t i = 0; i < NODE_NAMES; i++) {
        asked += all->of[i].asked;
    }
    return asked;
}

static const char *line_says(struct stage *s, char name, const char *rest)
{
    return view_read_text(rest, &server_of(s, name)->view)
               ? NULL
               : "says: cannot be read";
}

/* answers SHARDS REPLIES: to this question from now on, nothing else. */
static const char *line_answers(struct stage *s, char name, const char *rest)
{
    static const struct {
        const char *word;
        enum owed owed;
    } questions[] = { { "MYID", OWED_MYID },
                      { "INFO", OWED_INFO },
                      { "SHARDS", OWED_SHARDS },
                      { "SLOTS", OWED_SLOTS },
                      { "HELLO", OWED_HELLO },
                      { "ROLE", OWED_ROLE },
                      { "REPLICATION", OWED_REPLICATION },
                      { "MASTER", OWED_MASTER },
                      { "ADDRESS", OWED_ADDRESS },
                      { "SENTINELS", OWED_SENTINELS },
                      { "REPLICAS", OWED_REPLICAS },
                      { "SUBSCRIBE", OWED_SUBSCRIBE } };
    char word[WORD_MAX];
    struct server *server = server_of(s, name);
    word_next(&rest, word);
    for (size_t i = 0; i < sizeof questions / sizeof questions[0]; i++) {
        if (strcmp(word, questions[i].word) != 0) {
            continue;
        }
        struct bytes *answer = &server->answers[questions[i].owed];
        bytes_clear(answer);
        server->overrides[questions[i].owed] = true;
        bool quoted = rest[strspn(rest, " ")] == '"';
        bool good =
            quoted ? quoted_read(&rest, answer) : reply_read(&rest, answer);
        return good ? NULL : "answers: cannot be read";
    }
    return "answers: there is no such question";
}

static const char *line_dies(struct stage *s, char name, const char *rest)
{
    (void)rest;
    server_of(s, name)->mode = SERVER_REFUSES;
    for (size_t i = 0; i < s->n_players && s->error[0] == '\0'; i++) {
        struct player *p = &s->players[i];
        if (p->side == name && p->open && !p->connecting) {
            p->open = false;
            stage_step(s, (struct event){ .type = EVENT_CLOSED,
                                          .conn = p->id,
                                          .error = 1 + IO_RESET });
        }
    }
    return NULL;
}

static const char *line_lives(struct stage *s, char name, const char *rest)
{
    (void)rest;
    server_of(s, name)->mode = SERVER_SERVES;
    if (s->engine != NULL) {
        stage_serve(s);
    }
    return NULL;
}

static const char *line_hangs(struct stage *s, char name, const char *rest)
{
    (void)rest;
    server_of(s, name)->mode = SERVER_HANGS;
    return NULL;
}

static const char *line_cut(struct stage *s, char name, const char *rest)
{
    (void)rest;
    server_of(s, name)->mode = SERVER_CUT;
    return NULL;
}

static const char *line_manual(struct stage *s, char name, const char *rest)
{
    (void)rest;
    server_of(s, name)->mode = SERVER_MANUAL;
    return NULL;
}

/* announces A B [NAME]: the sentinel pushes +switch-master. */
static const char *line_announces(struct stage *s, char name, const char *rest)
{
    char from[WORD_MAX];
    char to[WORD_MAX];
    char group[WORD_MAX];
    char text[ADDRESS_TEXT_MAX * 2 + WORD_MAX];
    struct player *p = stage_find(s, name, 0);
    word_next(&rest, from);
    word_next(&rest, to);
    if (!isupper((unsigned char)from[0]) || !isupper((unsigned char)to[0]) ||
        p == NULL || !p->open) {
        return "announces: two servers, and an open connection";
    }
    const struct address *before = &s->servers->map.of[from[0] - 'A'];
    const struct address *after = &s->servers->map.of[to[0] - 'A'];
    snprintf(text, sizeof text, "%s %s %u %s %u",
             word_next(&rest, group) ? group : "mymaster", before->host,
             (unsigned)before->port, after->host, (unsigned)after->port);
    struct bytes push = { 0 };
    bytes_printf(&push,
                 ">3\r\n$7\r\nmessage\r\n$14\r\n+switch-master\r\n"
                 "$%zu\r\n%s\r\n",
                 strlen(text), text);
    stage_bytes(s, p, bytes_span(&push));
    bytes_fini(&push);
    return NULL;
}

static unsigned number_of(const char *rest)
{
    char word[WORD_MAX];
    word_next(&rest, word);
    return (unsigned)strtoul(word, NULL, 10);
}

/* asked N: so often for the topology, so far. */
static const char *line_asked(struct stage *s, char name, const char *rest)
{
    static char words[80];
    unsigned asked = server_of(s, name)->asked;
    snprintf(words, sizeof words, "it was asked %u times", asked);
    return asked == number_of(rest) ? NULL : words;
}

/* open N: so many connections are up. */
static const char *line_open(struct stage *s, char name, const char *rest)
{
    static char words[80];
    unsigned n = 0;
    for (size_t i = 0; i < s->n_players; i++) {
        n += s->players[i].side == name && s->players[i].open &&
             s->players[i].up;
    }
    snprintf(words, sizeof words, "%u of its connections are up", n);
    return n == number_of(rest) ? NULL : words;
}

static const struct line_row {
    const char *verb;
    const char *(*run)(struct stage *s, char name, const char *rest);
} lines[] = { { "says", line_says },     { "answers", line_answers },
              { "dies", line_dies },     { "lives", line_lives },
              { "hangs", line_hangs },   { "cut", line_cut },
              { "manual", line_manual }, { "asked", line_asked },
              { "open", line_open },     { "announces", line_announces } };

static const struct line_row *line_find(const char *verb)
{
    for (size_t i = 0; i < sizeof lines / sizeof lines[0]; i++) {
        if (strcmp(verb, lines[i].verb) == 0) {
            return &lines[i];
        }
    }
    return NULL;
}

bool server_has_line(const char *verb)
{
    return line_find(verb) != NULL;
}

const char *server_line(struct stage *s,
                        char name,
                        const char *verb,
                        const char *rest)
{
    return s->servers->map.of[name - 'A'].port == 0
               ? "there is no such server"
               : line_find(verb)->run(s, name, rest);
}

/* ---- answers ------------------------------------------------------------ */

static void hello_add(struct bytes *out,
                      const struct servers *all,
                      const struct player *p)
{
    const char *version = all->version[0] == '\0' ? "7.0.15" : all->version;
    model_map_add(out, p->resp, 7);
    bytes_printf(
        out, "$6\r\nserver\r\n$5\r\nredis\r\n$7\r\nversion\r\n$%zu\r\n%s\r\n",
        strlen(version), version);
    bytes_printf(out, "$5\r\nproto\r\n:%d\r\n$2\r\nid\r\n:%u\r\n", p->resp,
                 CLIENT_ID_FIRST + p->number);
    bytes_add_text(out, "$4\r\nmode\r\n$7\r\ncluster\r\n$4\r\nrole\r\n$6\r\n"
                        "master\r\n$7\r\nmodules\r\n*0\r\n");
}

/* All the other sentinels. */
static void sentinels_add(struct bytes *out,
                          const struct servers *all,
                          const struct player *p)
{
    struct bytes list = { 0 };
    unsigned n = 0;
    for (size_t i = 0; i < NODE_NAMES; i++) {
        if (all->of[i].sentinel && p->side != (char)('A' + i)) {
            view_sentinel_add(&list, &all->map.of[i], p->resp);
            n++;
        }
    }
    bytes_printf(out, "*%u\r\n", n);
    bytes_add(out, bytes_front(&list), list.size);
    bytes_fini(&list);
}

static void answer_add(struct bytes *out,
                       const struct stage *s,
                       const struct player *p,
                       enum owed what)
{
    const struct servers *all = s->servers;
    const struct server *server = &all->of[p->side - 'A'];
    if (server->overrides[what]) {
        const struct bytes *answer = &server->answers[what];
        bytes_add(out, bytes_front(answer), answer->size);
        return;
    }
    switch (what) {
    case OWED_HELLO: hello_add(out, all, p); break;
    case OWED_CLIENT_ID:
        bytes_printf(out, ":%u\r\n", CLIENT_ID_FIRST + p->number);
        break;
    case OWED_OK: bytes_add_text(out, "+OK\r\n"); break;
    case OWED_RESET: bytes_add_text(out, "+RESET\r\n"); break;
    case OWED_NO_SELECT:
        bytes_add_text(out, "-ERR SELECT is not allowed in cluster mode\r\n");
        break;
    case OWED_PONG: bytes_add_text(out, "+PONG\r\n"); break;
    case OWED_MYID: view_id_add(out, p->side); break;
    case OWED_INFO: view_info_add(out, &server->view); break;
    case OWED_SHARDS:
        view_shards_add(out, &server->view, &all->map, p->resp);
        break;
    case OWED_SLOTS: view_slots_add(out, &server->view, &all->map); break;
    case OWED_ROLE:
        view_role_add(out, &server->view, &all->map, p->side);
        break;
    case OWED_REPLICATION:
        view_replication_add(out, &server->view, p->side);
        break;
    case OWED_MASTER:
        view_master_add(out, &server->view, &all->map, p->resp);
        break;
    case OWED_ADDRESS:
        view_master_address_add(out, &server->view, &all->map, p->resp);
        break;
    case OWED_SENTINELS: sentinels_add(out, all, p); break;
    case OWED_REPLICAS:
        view_replicas_add(out, &server->view, &all->map, p->resp);
        break;
    case OWED_SUBSCRIBE:
        bytes_add_text(out, ">3\r\n$9\r\nsubscribe\r\n$14\r\n"
                            "+switch-master\r\n:1\r\n");
        break;
    case OWED_DATA:
    case OWED_COUNT: break;
    }
}

static enum owed cluster_owes(struct server *server,
                              const struct model_command *c)
{
    bool shards = model_arg_is(c, 1, "SHARDS");
    bool slots = model_arg_is(c, 1, "SLOTS");
    server->asked += shards || slots;
    return shards                       ? OWED_SHARDS
           : slots                      ? OWED_SLOTS
           : model_arg_is(c, 1, "MYID") ? OWED_MYID
           : model_arg_is(c, 1, "INFO") ? OWED_INFO
                                        : OWED_DATA;
}

static enum owed sentinel_owes(struct server *server,
                               const struct model_command *c)
{
    bool address = model_arg_is(c, 1, "GET-MASTER-ADDR-BY-NAME");
    server->asked += address;
    return address                           ? OWED_ADDRESS
           : model_arg_is(c, 1, "MASTER")    ? OWED_MASTER
           : model_arg_is(c, 1, "SENTINELS") ? OWED_SENTINELS
           : model_arg_is(c, 1, "REPLICAS")  ? OWED_REPLICAS
                                             : OWED_DATA;
}

/* Until its PING has come, all belongs to the handshake; where what ends a
 * script comes first, that connection needs no more. */
static enum owed handshake_owes(const struct servers *all,
                                struct player *p,
                                const struct model_command *c)
{
    if (model_arg_is(c, 0, "SELECT") && all->cluster &&
        model_arg_number(c, 1, 0) != 0) {
        return OWED_NO_SELECT;
    }
    if (model_arg_is(c, 0, "HELLO")) {
        p->resp = model_arg_number(c, 1, 2) == 3 ? 3 : 2;
        return OWED_HELLO;
    }
    if (model_arg_is(c, 0, "PING")) {
        p->greeted = true;
        return OWED_PONG;
    }
    if (model_arg_is(c, 0, "SCRIPT") || model_arg_is(c, 0, "FUNCTION")) {
        p->greeted = true;
        return OWED_DATA;
    }
    return model_arg_is(c, 0, "ROLE") ? OWED_ROLE
           : model_arg_is(c, 1, "ID") ? OWED_CLIENT_ID
                                      : OWED_OK;
}

static enum owed command_owes(const struct servers *all,
                              struct server *server,
                              struct player *p,
                              const struct model_command *c)
{
    if (model_arg_is(c, 0, "CLUSTER") && c->argc == 2) {
        return cluster_owes(server, c);
    }
    if (server->sentinel && model_arg_is(c, 0, "SENTINEL")) {
        return sentinel_owes(server, c);
    }
    if (server->sentinel && model_arg_is(c, 0, "SUBSCRIBE")) {
        return OWED_SUBSCRIBE;
    }
    if (model_arg_is(c, 0, "INFO") && model_arg_is(c, 1, "REPLICATION")) {
        return OWED_REPLICATION;
    }
    if (model_arg_is(c, 0, "RESET") && c->argc == 1) {
        p->greeted = p->in_multi = false; /* another handshake follows */
        return OWED_RESET;
    }
    bool ends = model_arg_is(c, 0, "EXEC") || model_arg_is(c, 0, "DISCARD");
    p->in_multi = model_arg_is(c, 0, "MULTI") || (p->in_multi && !ends);
    if (model_arg_is(c, 0, "READONLY") && !p->in_multi) {
        return OWED_OK; /* to a replica; the client's own ends at redial */
    }
    return p->greeted ? OWED_DATA : handshake_owes(all, p, c);
}

/* Read what the engine wrote: commands for the trace become p->written. */
static bool read_commands(struct stage *s, struct player *p)
{
    struct model_command c;
    bool any = false;
    while (model_command_read(bytes_span(&p->unread), &c) == MODEL_DONE) {
        enum owed owed = command_owes(s->servers, server_of(s, p->side), p, &c);
        if (p->n_owed == OWED_MAX) {
            snprintf(s->error, sizeof s->error, "%c%u waits for %d replies",
                     p->side, p->number, OWED_MAX);
            return false;
        }
        p->owed[p->n_owed++] = (uint8_t)owed;
        if (owed == OWED_DATA) {
            bytes_add(&p->written, bytes_front(&p->unread), c.size);
        }
        bytes_drop(&p->unread, c.size);
        any = true;
    }
    return any;
}

static void owed_drop_first(struct player *p)
{
    p->n_owed--;
    memmove(&p->owed[0], &p->owed[1], p->n_owed);
}

/* Say what does not wait for the trace. */
static bool answer(struct stage *s, struct player *p)
{
    struct bytes out = { 0 };
    while (p->n_owed > 0 && p->owed[0] != OWED_DATA) {
        bool pong = p->owed[0] == OWED_PONG;
        if (pong && out.size > 0) {
            break; /* first see whether the rest of the handshake pleases */
        }
        p->up = p->up || pong;
        answer_add(&out, s, p, (enum owed)p->owed[0]);
        owed_drop_first(p);
    }
    bool any = out.size > 0;
    if (any) {
        stage_bytes(s, p, bytes_span(&out));
    }
    bytes_fini(&out);
    return any;
}

bool server_replies(struct stage *s, struct player *p, struct span replies)
{
    size_t size;
    s->serving = true; /* nobody says anything in the middle of a reply */
    while (replies.len > 0 && p->open && s->error[0] == '\0' &&
           model_reply_end(replies, &size) == MODEL_DONE) {
        bool push = replies.data[0] == '>';
        if (!push) {
            if (p->n_owed == 0 || p->owed[0] != OWED_DATA) {
                break;
            }
            owed_drop_first(p);
        }
        stage_bytes(s, p, (struct span){ replies.data, size });
        s->serving = false;
        stage_serve(s);
        s->serving = true;
        replies.data += size;
        replies.len -= size;
    }
    s->serving = false;
    return replies.len == 0;
}

/* A connection is asked for. */
static bool accept_or_refuse(struct stage *s, struct player *p)
{
    enum server_mode mode = server_of(s, p->side)->mode;
    if (mode == SERVER_CUT) {
        return false;
    }
    bool refuses = mode == SERVER_REFUSES;
    p->open = !refuses;
    p->connecting = false;
    stage_step(s, (struct event){ .type = EVENT_CONNECTED,
                                  .conn = p->id,
                                  .error = refuses ? 1 + IO_REFUSED : 0 });
    if (refuses) {
        *p = (struct player){ 0 }; /* nobody will speak of it again */
    }
    return true;
}

bool servers_act(struct stage *s)
{
    bool any = false;
    for (size_t i = 0; i < s->n_players && s->error[0] == '\0'; i++) {
        struct player *p = &s->players[i];
        if (!p->open || !server_acts(s, p)) {
            continue;
        }
        if (p->connecting) {
            any = accept_or_refuse(s, p) || any;
        }
        if (!p->holds) {
            any = read_commands(s, p) || any;
        }
        if (p->open && server_of(s, p->side)->mode == SERVER_SERVES) {
            any = answer(s, p) || any;
        }
    }
    return any;
}
