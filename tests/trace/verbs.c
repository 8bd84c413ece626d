/* What connections do in a trace, and what they are expected to get. */
#include <ctype.h>
#include <stdio.h>
#include <stdlib.h>

#include "tests/sim/resp_model.h"
#include "tests/trace/play.h"

/* --- what happens ------------------------------------------------------ */

static void event_of(struct play *p,
                     struct player *who,
                     enum event_type type,
                     int error)
{
    stage_step(&p->stage,
               (struct event){ .type = type, .conn = who->id, .error = error });
}

static bool error_named(const char *rest, int *error)
{
    static const char *const names[IO_ERROR_COUNT] = {
        [IO_END] = "end",
        [IO_RESET] = "reset",
        [IO_REFUSED] = "refused",
        [IO_TIMED_OUT] = "timed_out",
        [IO_UNREACHABLE] = "unreachable",
        [IO_NO_NAME] = "no_name",
        [IO_NO_RESOURCES] = "no_resources",
        [IO_OTHER] = "other",
    };
    char word[WORD_MAX];
    word_next(&rest, word);
    for (int i = 0; i < IO_ERROR_COUNT; i++) {
        if (strcmp(word, names[i]) == 0) {
            *error = 1 + i;
            return true;
        }
    }
    return false;
}

static void do_connected(struct play *p, struct player *who, const char *rest)
{
    (void)rest;
    event_of(p, who, EVENT_CONNECTED, 0);
}

static void do_fails(struct play *p, struct player *who, const char *rest)
{
    int error;
    if (!error_named(rest, &error)) {
        complain(p, "fails: unknown error");
        return;
    }
    who->open = error == 1 + IO_NO_NAME; /* the engine will close it */
    event_of(p, who, error == 1 + IO_NO_NAME ? EVENT_RESOLVED : EVENT_CONNECTED,
             error);
}

static void do_closed(struct play *p, struct player *who, const char *rest)
{
    int error = 1 + IO_END;
    char word[WORD_MAX];
    const char *look = rest;
    if (word_next(&look, word) && !error_named(rest, &error)) {
        complain(p, "closed: unknown error");
        return;
    }
    who->open = false;
    event_of(p, who, EVENT_CLOSED, error);
}

static void do_ended(struct play *p, struct player *who, const char *rest)
{
    (void)rest;
    event_of(p, who, EVENT_ENDED, 0);
}

static void do_left(struct play *p, struct player *who, const char *rest)
{
    (void)rest;
    event_of(p, who, EVENT_LEFT, 0);
}

static void do_resolved(struct play *p, struct player *who, const char *rest)
{
    struct address list[8] = { 0 };
    unsigned n = 0;
    char word[WORD_MAX];
    while (n < 8 && word_next(&rest, word)) {
        char *colon = strrchr(word, ':');
        if (colon == NULL) {
            complain(p, "resolved: host:port expected");
            return;
        }
        *colon = '\0';
        list[n].port = (uint16_t)atoi(colon + 1);
        snprintf(list[n].host, sizeof list[n].host, "%s", word);
        n++;
    }
    stage_step(&p->stage,
               (struct event){ .type = EVENT_RESOLVED,
                               .conn = who->id,
                               .resolved = { .list = list, .n = n } });
}

static void send_bytes(struct play *p,
                       struct player *who,
                       struct bytes *bytes,
                       bool good)
{
    if (!good) {
        complain(p, "cannot read the bytes of this line");
    } else {
        stage_bytes(&p->stage, who, bytes_span(bytes));
    }
    bytes_fini(bytes);
}

static void do_bytes(struct play *p, struct player *who, const char *rest)
{
    struct bytes bytes = { 0 };
    bool good = quoted_read(&rest, &bytes);
    send_bytes(p, who, &bytes, good);
}

static void do_sends(struct play *p, struct player *who, const char *rest)
{
    struct bytes bytes = { 0 };
    bool good = command_read(&rest, &bytes);
    send_bytes(p, who, &bytes, good);
}

static void do_replies(struct play *p, struct player *who, const char *rest)
{
    struct bytes bytes = { 0 };
    bool good = reply_read(&rest, &bytes);
    if (!good || !server_acts(&p->stage, who)) {
        send_bytes(p, who, &bytes, good);
        return;
    }
    if (!server_replies(&p->stage, who, bytes_span(&bytes))) {
        complain(p, "it was not asked so much");
    }
    bytes_fini(&bytes);
}

static void do_holds(struct play *p, struct player *who, const char *rest)
{
    (void)p;
    (void)rest;
    who->holds = true;
}

static void do_takes(struct play *p, struct player *who, const char *rest)
{
    char word[WORD_MAX];
    word_next(&rest, word);
    bool all = strcmp(word, "all") == 0;
    uint64_t count = all ? who->untaken : strtoull(word, NULL, 10);
    if (count == 0 || count > who->untaken) {
        complain(p, "takes: so many bytes were not written");
        return;
    }
    who->holds = !all;
    stage_taken(&p->stage, who, count);
}

/* --- what is expected -------------------------------------------------- */

static void expect_action(struct play *p,
                          struct player *who,
                          enum action_type type,
                          const char *rest)
{
    char address[ADDRESS_TEXT_MAX];
    char word[WORD_MAX];
    if (who == NULL || !stage_take(&p->stage, who, type, address)) {
        complain(p, "this did not happen");
    } else if (word_next(&rest, word) && strcmp(word, address) != 0) {
        complain(p, "another address:");
        bytes_printf(&p->complaint, "    got %s\n", address);
    } else if (type == ACTION_CLOSE && who->written.size > 0 &&
               who->peer == NULL) {
        complain(p, "closed, but first it wrote something not expected here");
    }
}

static void want_connect(struct play *p, struct player *who, const char *rest)
{
    expect_action(p, who, ACTION_CONNECT, rest);
}

static void want_resolve(struct play *p, struct player *who, const char *rest)
{
    expect_action(p, who, ACTION_RESOLVE, rest);
}

static void want_close(struct play *p, struct player *who, const char *rest)
{
    expect_action(p, who, ACTION_CLOSE, rest);
}

static void want_pause(struct play *p, struct player *who, const char *rest)
{
    expect_action(p, who, ACTION_PAUSE, rest);
}

static void want_resume(struct play *p, struct player *who, const char *rest)
{
    expect_action(p, who, ACTION_RESUME, rest);
}

static void expect_bytes(struct play *p,
                         struct player *who,
                         struct bytes *pattern,
                         bool good)
{
    size_t size = 0;
    if (!good) {
        complain(p, "cannot read the bytes of this line");
    } else if (who == NULL) {
        complain(p, "there is no such connection yet");
    } else if (pattern_match(bytes_span(pattern), bytes_span(&who->written),
                             &size)) {
        bytes_drop(&who->written, size);
    } else {
        complain(p, "other bytes:");
        bytes_add_text(&p->complaint, "    expected \"");
        text_escape(&p->complaint, bytes_span(pattern));
        bytes_add_text(&p->complaint, "\"\n    got      \"");
        text_escape(&p->complaint, bytes_span(&who->written));
        bytes_add_text(&p->complaint, "\"\n");
    }
    bytes_fini(pattern);
}

static void want_write(struct play *p, struct player *who, const char *rest)
{
    struct bytes pattern = { 0 };
    bool good = quoted_read(&rest, &pattern);
    expect_bytes(p, who, &pattern, good);
}

/* A client gets replies, a server gets commands. */
static void want_gets(struct play *p, struct player *who, const char *rest)
{
    struct bytes pattern = { 0 };
    bool client = who != NULL && who->side == 'c';
    bool good =
        client ? reply_read(&rest, &pattern) : command_read(&rest, &pattern);
    expect_bytes(p, who, &pattern, good);
}

/* Any whole reply, whose first byte may be given. */
static void want_reply(struct play *p, struct player *who, const char *rest)
{
    char word[WORD_MAX];
    size_t size;
    bool typed = word_next(&rest, word);
    const uint8_t *front = who == NULL ? NULL : bytes_front(&who->written);
    if (front == NULL || who->written.size == 0 ||
        model_reply_end(bytes_span(&who->written), &size) != MODEL_DONE) {
        complain(p, "no whole reply");
    } else if (typed && front[0] != (uint8_t)word[0]) {
        complain(p, "a reply of another type");
    } else {
        bytes_drop(&who->written, size);
    }
}

/* --- a server that comes up -------------------------------------------- */

/* The answer to one command of the handshake; false for any other command. */
static bool handshake_answer(const struct model_command *c,
                             unsigned id,
                             struct bytes *out)
{
    if (model_arg_is(c, 0, "HELLO")) {
        int resp = model_arg_number(c, 1, 2) == 3 ? 3 : 2;
        model_map_add(out, resp, 7);
        bytes_add_text(
            out,
            "$6\r\nserver\r\n$5\r\nredis\r\n$7\r\nversion\r\n$6\r\n7.0.15\r\n");
        bytes_printf(out, "$5\r\nproto\r\n:%d\r\n$2\r\nid\r\n:%u\r\n", resp,
                     id);
        bytes_add_text(out, "$4\r\nmode\r\n$10\r\nstandalone\r\n$4\r\nrole\r\n$"
                            "6\r\nmaster\r\n$7\r\nmodules\r\n*0\r\n");
    } else if (model_arg_is(c, 0, "CLIENT") && model_arg_is(c, 1, "ID")) {
        bytes_printf(out, ":%u\r\n", id);
    } else if (model_arg_is(c, 0, "PING")) {
        bytes_add_text(out, "+PONG\r\n");
    } else if (model_arg_is(c, 0, "RESET")) {
        bytes_add_text(out, "+RESET\r\n");
    } else if (model_arg_is(c, 0, "AUTH") || model_arg_is(c, 0, "SELECT") ||
               model_arg_is(c, 0, "CLIENT")) {
        bytes_add_text(out, "+OK\r\n");
    } else {
        return false;
    }
    return true;
}

/* Answer the whole handshake, up to its PING. The server's id for connection
 * uN is 100 + N. */
static void do_up(struct play *p, struct player *who, const char *rest)
{
    char address[ADDRESS_TEXT_MAX];
    bool pinged = false;
    (void)rest;

    if (who == NULL) {
        complain(p, "the engine did not ask for this connection");
        return;
    }
    (void)stage_take(&p->stage, who, ACTION_CONNECT, address);
    if (who->connecting) {
        event_of(p, who, EVENT_CONNECTED, 0);
    }
    while (!pinged && who->open && who->written.size > 0) {
        struct model_command c;
        struct bytes answer = { 0 };
        while (!pinged &&
               model_command_read(bytes_span(&who->written), &c) ==
                   MODEL_DONE &&
               handshake_answer(&c, 100 + who->number, &answer)) {
            pinged = model_arg_is(&c, 0, "PING");
            bytes_drop(&who->written, c.size);
        }
        if (answer.size == 0) {
            break;
        }
        stage_bytes(&p->stage, who, bytes_span(&answer));
        bytes_fini(&answer);
    }
    if (!pinged) {
        complain(p, "no handshake that ends with PING");
    }
}

/* --- table ------------------------------------------------------------- */

static const struct verb_row verbs[] = {
    { "u", "connected", true, do_connected },
    { "u", "fails", true, do_fails },
    { "u", "resolved", true, do_resolved },
    { "u", "up", false, do_up },
    { "u", "replies", true, do_replies },
    { "cu", "ended", true, do_ended },
    { "c", "left", true, do_left },
    { "cu", "closed", true, do_closed },
    { "cu", "bytes", true, do_bytes },
    { "c", "sends", true, do_sends },
    { "cu", "holds", true, do_holds },
    { "cu", "takes", true, do_takes },
    { "u", "connect", false, want_connect },
    { "u", "resolve", false, want_resolve },
    { "cu", "close", false, want_close },
    { "cu", "pause", false, want_pause },
    { "cu", "resume", false, want_resume },
    { "cu", "write", false, want_write },
    { "cu", "gets", false, want_gets },
    { "c", "reply", false, want_reply },
};

const struct verb_row *verb_find(char side, const char *name)
{
    side = isupper((unsigned char)side) ? 'u' : side; /* a server */
    for (size_t i = 0; i < sizeof verbs / sizeof verbs[0]; i++) {
        if (strchr(verbs[i].sides, side) != NULL &&
            strcmp(verbs[i].name, name) == 0) {
            return &verbs[i];
        }
    }
    return NULL;
}
