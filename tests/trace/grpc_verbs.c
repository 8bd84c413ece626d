/* Lines of a trace about gRPC (README.md). */
#include <ctype.h>
#include <stdio.h>
#include <stdlib.h>

#include "tests/trace/grpc_peer.h"
#include "tests/trace/play.h"

enum {
    FRAME_HEAD = 9,
    FRAME_HEADERS = 1,
    FLAG_END_HEADERS = 4,
    MAGIC = 24,
};

/* --- peers at work ----------------------------------------------------- */

/* What the kernel has taken arrives. */
static bool arrive(struct player *p)
{
    size_t size = p->written.size;
    size_t there = p->holds ? size - (size_t)p->untaken : size;
    if (there == 0) {
        return false;
    }
    peer_receive(p->peer, (struct span){ bytes_front(&p->written), there });
    bytes_drop(&p->written, there);
    return true;
}

static bool deliver(struct stage *s, struct player *p)
{
    struct bytes out = p->peer->out;
    if (out.size == 0 || p->peer->mute || !p->open) {
        return false;
    }
    p->peer->out = (struct bytes){ 0 };
    stage_bytes(s, p, bytes_span(&out));
    bytes_fini(&out);
    return true;
}

bool peers_act(struct stage *s)
{
    bool acted = false;
    for (size_t i = 0; i < s->n_players; i++) {
        struct player *p = &s->players[i];
        if (p->peer == NULL) {
            continue;
        }
        bool came = arrive(p);
        peer_flush(p->peer);
        acted = deliver(s, p) || came || acted;
        if (p->peer->wrong != NULL && s->error[0] == '\0') {
            snprintf(s->error, sizeof s->error, "%c%u: %.200s", p->side,
                     p->number, p->peer->wrong);
        }
    }
    return acted;
}

bool peers_unexpected(const struct stage *s, struct bytes *text)
{
    bool any = false;
    for (size_t i = 0; i < s->n_players; i++) {
        const struct player *p = &s->players[i];
        for (size_t k = 0; p->peer != NULL && k < p->peer->n_sights; k++) {
            const struct sight *seen = &p->peer->sights[k];
            any = true;
            if (text == NULL) {
                continue;
            }
            bytes_printf(text, "    %c%u", p->side, p->number);
            if (seen->stream > 0) {
                bytes_printf(text, ".%u", seen->stream);
            }
            bytes_add_text(text, " gets ");
            sight_print(seen, text);
        }
    }
    return any;
}

/* --- connections ------------------------------------------------------- */

static bool give_peer(struct play *p,
                      struct player *who,
                      bool is_client,
                      const char *words)
{
    struct peer_options o = { .is_client = is_client };
    if (!peer_options_read(words, &o)) {
        complain(p, "cannot read what this connection is like");
        return false;
    }
    if (p->stage.h2_memory == NULL) {
        p->stage.h2_memory = h2_memory_new(NULL);
    }
    who->peer = peer_new(&o, p->stage.h2_memory);
    return true;
}

void grpc_connects(struct play *p, struct player *who, const char *words)
{
    if (give_peer(p, who, true, words)) {
        stage_serve(&p->stage);
    }
}

/* "accepts": TCP only; it says nothing. "serves": its SETTINGS come. */
static void server_comes(struct play *p,
                         struct player *who,
                         const char *words,
                         bool serves)
{
    settle(p);
    if (who == NULL || !who->open) {
        complain(p, "redial has not asked for this connection");
        return;
    }
    if (who->peer == NULL && !give_peer(p, who, false, words)) {
        return;
    }
    who->peer->mute = !serves;
    if (who->connecting) {
        stage_step(&p->stage,
                   (struct event){ .type = EVENT_CONNECTED, .conn = who->id });
    }
    stage_serve(&p->stage);
}

/* "takes headers", "takes headers but 1": up to the end of the next header
 * block. */
static void takes_headers(struct play *p, struct player *who, const char *rest)
{
    char word[WORD_MAX];
    const uint8_t *at = bytes_front(&who->written);
    size_t size = who->written.size;
    size_t end = who->peer->frame_left;
    bool found = false;
    bool last = false;
    if (size > MAGIC && memcmp(at, "PRI * ", 6) == 0) {
        end = MAGIC;
    }
    while (!last && end + FRAME_HEAD <= size) {
        size_t length = (size_t)at[end] << 16 | (size_t)at[end + 1] << 8 |
                        (size_t)at[end + 2];
        found = found || at[end + 3] == FRAME_HEADERS;
        last = found && (at[end + 4] & FLAG_END_HEADERS) != 0;
        end += FRAME_HEAD + length;
    }
    size_t but = 0;
    word_next(&rest, word); /* headers */
    if (word_next(&rest, word) && word_next(&rest, word)) {
        but = strtoul(word, NULL, 10);
    }
    if (!last || end > size || but >= end || !who->holds) {
        complain(p, "there are no such headers that the kernel has not taken");
        return;
    }
    who->peer->frame_left = but;
    stage_taken(&p->stage, who, end - but);
}

/* --- what is expected -------------------------------------------------- */

static void show_instead(struct play *p,
                         const char *why,
                         const struct sight *seen)
{
    complain(p, why);
    bytes_add_text(&p->complaint, "    got ");
    if (seen == NULL) {
        bytes_add_text(&p->complaint, "nothing\n");
    } else {
        sight_print(seen, &p->complaint);
    }
}

/* "..." at the end stands for anything. */
static bool value_fits(struct span want, struct span value)
{
    if (want.len >= 3 && memcmp(want.data + want.len - 3, "...", 3) == 0) {
        return value.len >= want.len - 3 &&
               memcmp(value.data, want.data, want.len - 3) == 0;
    }
    return span_equal(want, value);
}

/* The n-th field of that name. */
static bool value_find(const struct h2_block *b,
                       struct span name,
                       size_t n,
                       struct span *value)
{
    for (uint16_t i = 0; i < b->n; i++) {
        if (span_equal(b->fields[i].name, name) && n-- == 0) {
            *value = b->fields[i].value;
            return true;
        }
    }
    return false;
}

static size_t said_before(const struct piece *want, size_t field)
{
    size_t n = 0;
    for (size_t i = 0; i < field; i++) {
        n += span_equal(bytes_span(&want->fields[i].name),
                        bytes_span(&want->fields[field].name));
    }
    return n;
}

/* These may not be there without being mentioned. */
static bool is_telling(struct span name)
{
    static const char *const names[] = { "grpc-status", "grpc-message",
                                         "grpc-timeout",
                                         "grpc-previous-rpc-attempts",
                                         "grpc-retry-pushback-ms" };
    for (size_t i = 0; i < sizeof names / sizeof names[0]; i++) {
        if (span_equal(name, (struct span){ (const uint8_t *)names[i],
                                            strlen(names[i]) })) {
            return true;
        }
    }
    return false;
}

static bool is_mentioned(const struct piece *want, struct span name)
{
    for (size_t i = 0; i < want->n_fields; i++) {
        if (span_equal(bytes_span(&want->fields[i].name), name)) {
            return true;
        }
    }
    return false;
}

static bool block_fits(const struct piece *want, const struct h2_block *b)
{
    for (size_t i = 0; i < want->n_fields; i++) {
        const struct field_text *f = &want->fields[i];
        struct span value;
        bool there =
            value_find(b, bytes_span(&f->name), said_before(want, i), &value);
        if (there == f->absent ||
            (there && !value_fits(bytes_span(&f->value), value))) {
            return false;
        }
    }
    for (uint16_t i = 0; i < b->n; i++) {
        if (is_telling(b->fields[i].name) &&
            !is_mentioned(want, b->fields[i].name)) {
            return false;
        }
    }
    return true;
}

/* The last stream of a GOAWAY need not be said. */
static bool goaway_fits(const struct piece *want, const struct sight *seen)
{
    return (want->last < 0 || want->last == seen->last) &&
           want->code == seen->code &&
           span_equal(bytes_span(&want->data), bytes_span(&seen->data));
}

static bool sight_fits(const struct piece *want, const struct sight *seen)
{
    if (want->kind != seen->kind) {
        return false;
    }
    switch (want->kind) {
    case PIECE_REQUEST:
    case PIECE_HEADERS:
    case PIECE_TRAILERS_ONLY:
    case PIECE_TRAILERS: return block_fits(want, seen->block);
    case PIECE_DATA:
        return want->data.size <= seen->data.size &&
               memcmp(bytes_front(&want->data), bytes_front(&seen->data),
                      want->data.size) == 0;
    case PIECE_RESET: return want->code == seen->code;
    case PIECE_GOAWAY: return goaway_fits(want, seen);
    case PIECE_END:
    case PIECE_PING:
    case PIECE_PONG: break;
    }
    return true;
}

static void want_pieces(struct play *p,
                        struct player *who,
                        unsigned stream,
                        const struct pieces *want)
{
    for (size_t i = 0; i < want->n; i++) {
        struct sight *seen = peer_sight(who->peer, stream);
        if (seen == NULL || !sight_fits(&want->of[i], seen)) {
            show_instead(p, "this is not what came:", seen);
            bytes_printf(&p->complaint,
                         "    where piece %zu of the line was "
                         "expected\n",
                         i + 1);
            return;
        }
        bytes_drop(&seen->data, want->of[i].kind == PIECE_DATA
                                    ? want->of[i].data.size
                                    : seen->data.size);
        if (seen->data.size == 0) {
            peer_sight_drop(who->peer, seen);
        }
    }
}

/* --- lines ------------------------------------------------------------- */

static void say_or_want(struct play *p,
                        struct player *who,
                        unsigned stream,
                        bool says,
                        const char *rest)
{
    struct pieces pieces;
    const char *wrong = NULL;
    if (says) {
        settle(p);
    }
    if (!pieces_read(rest, &pieces)) {
        wrong = "cannot read the pieces of this line";
    } else if (who == NULL || who->peer == NULL) {
        wrong = "there is no such gRPC connection";
    } else if (!says) {
        want_pieces(p, who, stream, &pieces);
    } else if (p->complaint.size == 0) {
        wrong = peer_say(who->peer, stream, &pieces);
        stage_serve(&p->stage);
    }
    pieces_fini(&pieces);
    if (wrong != NULL) {
        complain(p, wrong);
    }
}

static void play_event(struct play *p,
                       struct player *who,
                       unsigned stream,
                       const char *name,
                       const char *rest)
{
    const char *wrong = NULL;
    settle(p);
    if (who == NULL || who->peer == NULL || !who->open) {
        complain(p, "there is no such open gRPC connection");
    } else if (strcmp(name, "takes") == 0) {
        takes_headers(p, who, rest);
    } else if (strcmp(name, "credits") == 0) {
        wrong = peer_credit(who->peer, stream);
    } else {
        who->peer->mute = strcmp(name, "mute") == 0;
    }
    if (wrong != NULL) {
        complain(p, wrong);
    }
    stage_serve(&p->stage);
}

bool grpc_line(struct play *p,
               const char *subject,
               struct player *who,
               const char *name,
               const char *rest)
{
    const char *dot = strchr(subject, '.');
    unsigned stream = dot == NULL ? 0 : (unsigned)strtoul(dot + 1, NULL, 10);
    bool is_grpc = dot != NULL || (who != NULL && who->peer != NULL);
    bool says = strcmp(name, "sends") == 0 || strcmp(name, "calls") == 0;
    if (subject[0] == 'u' &&
        (strcmp(name, "accepts") == 0 || strcmp(name, "serves") == 0)) {
        server_comes(p, who, rest, name[0] == 's');
        return true;
    }
    if (!is_grpc) {
        return false;
    }
    if (says || strcmp(name, "gets") == 0) {
        say_or_want(p, who, stream, says, rest);
        return true;
    }
    bool headers = strcmp(name, "takes") == 0 &&
                   strncmp(rest + strspn(rest, " "), "headers", 7) == 0;
    if (headers || strcmp(name, "mute") == 0 || strcmp(name, "heard") == 0 ||
        strcmp(name, "credits") == 0) {
        play_event(p, who, stream, name, rest);
        return true;
    }
    return false;
}
