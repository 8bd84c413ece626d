/* Plays .trace files: conversations between clients, the engine and servers,
 * written as text (README.md). Usage: trace FILE... */
#include <ctype.h>
#include <stdio.h>
#include <stdlib.h>

#include "tests/sim/resp_model.h"
#include "tests/trace/script.h"
#include "tests/trace/stage.h"

enum {
    SETS_MAX = 64,
    SETS_DEFAULT = 3, /* and one place for the URL */
    LINE_MAX_BYTES = 4096,
};

/* One file being played. */
struct play {
    const char *file;
    unsigned line;
    bool split;
    bool whole; /* not to be played byte by byte */
    bool started;
    uint64_t begin_us;
    const char *url;
    char *sets[SETS_MAX]; /* owned */
    size_t n_sets;
    struct bytes ini;
    struct config *config;
    struct servers servers;
    struct stage stage;
    struct bytes complaint; /* what went wrong; empty while nothing did */
};

static void complain(struct play *p, const char *text)
{
    bytes_printf(&p->complaint, "%s:%u: %s\n", p->file, p->line, text);
}

static char *text_copy(const char *text)
{
    size_t size = strlen(text) + 1;
    return memcpy(must_alloc(size), text, size);
}

/* --- starting ---------------------------------------------------------- */

static void config_complain(struct play *p, struct config_problems *problems)
{
    complain(p, "the configuration is refused:");
    for (size_t i = 0; i < problems->n; i++) {
        bytes_printf(&p->complaint, "    %.100s: %.300s\n",
                     problems->list[i].place, problems->list[i].text);
    }
}

/* Unless the trace says otherwise, waits are the same each time. */
static void set_default(struct play *p, const char *setting)
{
    size_t key = strcspn(setting, "=") + 1;
    for (size_t i = 0; i < p->n_sets; i++) {
        if (strncmp(p->sets[i], setting, key) == 0) {
            return;
        }
    }
    p->sets[p->n_sets++] = text_copy(setting);
}

static void start(struct play *p)
{
    set_default(p, "upstream.backoff=constant");
    set_default(p, "upstream.backoff_base=10ms");
    struct config_problems problems = { 0 };
    struct config_source source = {
        .file_name = p->ini.size > 0 ? p->file : NULL,
        .url = p->ini.size > 0  ? NULL
               : p->url == NULL ? "redis://10.0.0.1:6379"
                                : p->url,
        .sets = (const char *const *)p->sets,
        .n_sets = p->n_sets,
    };
    if (p->ini.size > 0) {
        source.text_len = p->ini.size;
        bytes_add(&p->ini, "", 1);
        source.text = (const char *)bytes_front(&p->ini);
    }
    p->config = config_load(&source, &problems);
    if (p->config == NULL) {
        config_complain(p, &problems);
    } else if (!stage_open(&p->stage, p->config, &p->servers, p->split)) {
        complain(p, p->stage.error);
    }
    config_problems_fini(&problems);
    p->begin_us = p->stage.now_us;
    p->started = true;
}

static void set(struct play *p, const char *line)
{
    while (*line == ' ') {
        line++;
    }
    if (p->n_sets + SETS_DEFAULT >= SETS_MAX || p->started) {
        complain(p, "set comes before the first event, at most 64 times");
        return;
    }
    p->sets[p->n_sets++] = text_copy(line);
}

/* --- what happens ------------------------------------------------------ */

typedef void verb(struct play *p, struct player *who, const char *rest);

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
    } else if (type == ACTION_CLOSE && who->written.size > 0) {
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

/* --- numbers ----------------------------------------------------------- */

#define ROW(name, help)        { #name, offsetof(struct upstream_stats, name) },
#define ENGINE_ROW(name, help) { #name, offsetof(struct engine_stats, name) },
#define NOTHING(name, help)
struct stat_row {
    const char *name;
    size_t offset;
};

#define COUNTER        ROW
#define GAUGE          ROW
#define ENGINE_COUNTER NOTHING
#define ENGINE_GAUGE   NOTHING
static const struct stat_row upstream_rows[] = {
#include "proxy/core/stats.def"
};
#undef COUNTER
#undef GAUGE
#undef ENGINE_COUNTER
#undef ENGINE_GAUGE
#define COUNTER        NOTHING
#define GAUGE          NOTHING
#define ENGINE_COUNTER ENGINE_ROW
#define ENGINE_GAUGE   ENGINE_ROW
static const struct stat_row engine_rows[] = {
#include "proxy/core/stats.def"
};

static bool stat_find(const struct stat_row *rows,
                      size_t n,
                      const char *name,
                      const void *stats,
                      uint64_t *value)
{
    for (size_t i = 0; i < n; i++) {
        if (strcmp(rows[i].name, name) == 0) {
            memcpy(value, (const char *)stats + rows[i].offset, sizeof *value);
            return true;
        }
    }
    return false;
}

/* stat NAME N: of the first upstream, or of the engine. */
static void want_stat(struct play *p, const char *rest)
{
    struct engine_stats engine;
    struct upstream_stats *upstreams =
        must_alloc(p->config->n_upstreams * sizeof *upstreams);
    char name[WORD_MAX];
    char number[WORD_MAX];
    uint64_t value = 0;

    word_next(&rest, name);
    word_next(&rest, number);
    engine_stats(p->stage.engine, &engine, upstreams);
    if (!stat_find(upstream_rows,
                   sizeof upstream_rows / sizeof upstream_rows[0], name,
                   &upstreams[0], &value) &&
        !stat_find(engine_rows, sizeof engine_rows / sizeof engine_rows[0],
                   name, &engine, &value)) {
        complain(p, "no such number");
    } else if (value != strtoull(number, NULL, 10)) {
        complain(p, "another number:");
        bytes_printf(&p->complaint, "    %.60s is %llu\n", name,
                     (unsigned long long)value);
    }
    free(upstreams);
}

/* --- lines ------------------------------------------------------------- */

static const struct verb_row {
    const char *sides;
    const char *name;
    bool event;
    verb *run;
} verbs[] = {
    { "u", "connected", true, do_connected },
    { "u", "fails", true, do_fails },
    { "u", "resolved", true, do_resolved },
    { "u", "up", false, do_up },
    { "u", "replies", true, do_replies },
    { "cu", "ended", true, do_ended },
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

static const struct verb_row *verb_find(char side, const char *name)
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

/* Nothing may be left over from before. */
static void settle(struct play *p)
{
    struct bytes text = { 0 };
    if (stage_unexpected(&p->stage, &text)) {
        complain(p, "before this line, and not expected:");
        bytes_add(&p->complaint, bytes_front(&text), text.size);
    }
    bytes_fini(&text);
}

/* A line about a scripted server. */
static void play_server(struct play *p,
                        char name,
                        const char *line,
                        const char *rest)
{
    if (p->started) {
        settle(p);
    }
    const char *wrong = server_line(&p->stage, name, line, rest);
    if (wrong != NULL) {
        complain(p, wrong);
    }
}

static void play_player(struct play *p,
                        const char *subject,
                        const char *rest,
                        bool timed)
{
    char name[WORD_MAX];
    unsigned number = (unsigned)strtoul(subject + 1, NULL, 10);
    struct player *who = stage_find(&p->stage, subject[0], number);

    word_next(&rest, name);
    if (isupper((unsigned char)subject[0]) && server_has_line(name)) {
        play_server(p, subject[0], name, rest);
        return;
    }
    if (subject[0] == 'c' && strcmp(name, "connects") == 0) {
        settle(p);
        if (stage_connect(&p->stage, number, 0) == NULL) {
            complain(p, p->stage.error);
        }
        return;
    }
    const struct verb_row *row = verb_find(subject[0], name);
    bool numbered = number > 0 || isupper((unsigned char)subject[0]);
    if (row == NULL || !numbered) {
        complain(p, "unknown verb");
        return;
    }
    if (row->event) {
        settle(p);
        if (who == NULL || !who->open) {
            complain(p, "there is no such open connection");
        }
    }
    (void)timed;
    if (p->complaint.size == 0) {
        row->run(p, who, rest);
    }
}

/* Let time pass to the moment of an "at" or "by" line. For an expectation the
 * engine must act at that moment, or up to it. */
static void pass_time(struct play *p,
                      const char *how,
                      const char *when,
                      bool expects)
{
    uint64_t us;
    if (!time_read(when, &us)) {
        complain(p, "a time such as 12ms expected");
        return;
    }
    uint64_t at_us = p->begin_us + us;
    if (at_us < p->stage.now_us) {
        complain(p, "time does not go back");
        return;
    }
    bool acted = stage_advance(&p->stage, at_us);
    bool late = strcmp(how, "at") == 0 && p->stage.now_us != at_us;
    if (acted && expects && late) {
        settle(p);
        bytes_printf(&p->complaint, "    it happened at %lluus\n",
                     (unsigned long long)(p->stage.now_us - p->begin_us));
    }
}

static bool is_expectation(const char *rest)
{
    char subject[WORD_MAX];
    char name[WORD_MAX];
    word_next(&rest, subject);
    word_next(&rest, name);
    const struct verb_row *row = verb_find(subject[0], name);
    return row != NULL && !row->event && strcmp(name, "connects") != 0;
}

/* c1, u12, A, B2 */
static bool is_subject(const char *word)
{
    bool server = isupper((unsigned char)word[0]) != 0;
    bool numbered = isdigit((unsigned char)word[1]) != 0;
    return (server && (numbered || word[1] == '\0')) || word[0] == 'c' ||
           word[0] == 'u';
}

/* All servers say this from now on. */
static void say(struct play *p, const char *rest)
{
    if (!servers_say(&p->servers, rest)) {
        complain(p, "topology: cannot be read");
    }
}

static void play_line(struct play *p, const char *rest)
{
    char word[WORD_MAX];
    char when[WORD_MAX];
    bool timed = false;

    const char *after_word = rest;
    word_next(&after_word, word);
    if (strcmp(word, "at") == 0 || strcmp(word, "by") == 0) {
        word_next(&after_word, when);
        pass_time(p, word, when, is_expectation(after_word));
        rest = after_word;
        timed = true;
        if (p->complaint.size > 0 || !word_next(&after_word, word)) {
            return;
        }
    }
    if (strcmp(word, "nothing") == 0) {
        settle(p);
    } else if (strcmp(word, "drain") == 0) {
        settle(p);
        stage_step(&p->stage, (struct event){ .type = EVENT_DRAIN });
    } else if (strcmp(word, "drained") == 0) {
        if (!engine_drained(p->stage.engine)) {
            complain(p, "the engine is not drained");
        }
    } else if (strcmp(word, "ready") == 0 || strcmp(word, "unready") == 0) {
        if (engine_upstream_ready(p->stage.engine, 0) != (word[0] == 'r')) {
            complain(p, "the upstream's readiness is otherwise");
        }
    } else if (strcmp(word, "stat") == 0) {
        want_stat(p, after_word);
    } else if (strcmp(word, "topology") == 0) {
        say(p, after_word);
    } else if (is_subject(word)) {
        play_player(p, word, after_word, timed);
    } else {
        complain(p, "unknown line");
    }
}

static void prepare_url(struct play *p, const char *url)
{
    p->sets[SETS_MAX - 1] = text_copy(url);
    p->url = p->sets[SETS_MAX - 1];
}

/* "cluster A=10.0.0.1:6379 ..." and "sentinels ...": the upstream, with these
 * nodes; "node ..." and "sentinel ...": servers that are there as well. False:
 * no such line. */
static bool prepare_servers(struct play *p, const char *rest)
{
    static const struct {
        const char *word, *scheme, *end;
        bool sentinels;
    } lines[] = { { "cluster", "redis+cluster://", "", false },
                  { "sentinels", "redis+sentinel://", "/mymaster", true },
                  { "node", NULL, NULL, false },
                  { "sentinel", NULL, NULL, true } };
    char word[WORD_MAX];
    word_next(&rest, word);
    for (size_t i = 0; i < sizeof lines / sizeof lines[0]; i++) {
        if (strcmp(word, lines[i].word) != 0) {
            continue;
        }
        struct bytes list = { 0 };
        struct bytes url = { 0 };
        p->servers.cluster = p->servers.cluster || i == 0;
        if (!servers_declare(&p->servers, rest, lines[i].sentinels, &list)) {
            complain(p, "A=host:port expected");
        } else if (lines[i].scheme != NULL) {
            bytes_add_text(&url, lines[i].scheme);
            bytes_add(&url, bytes_front(&list), list.size);
            bytes_add(&url, lines[i].end, strlen(lines[i].end) + 1);
            prepare_url(p, (const char *)bytes_front(&url));
        }
        bytes_fini(&list);
        bytes_fini(&url);
        return true;
    }
    return false;
}

/* What the servers are like before the first event; false: no such line. */
static bool prepare_server_line(struct play *p, const char *rest)
{
    char name[WORD_MAX];
    char line[WORD_MAX];
    word_next(&rest, name);
    if (strcmp(name, "topology") == 0) {
        say(p, rest);
        return true;
    }
    word_next(&rest, line);
    if (!isupper((unsigned char)name[0]) || name[1] != '\0' ||
        !server_has_line(line)) {
        return false;
    }
    play_server(p, name[0], line, rest);
    return true;
}

/* A line of the part before the first event; false when that part is over. */
static bool prepare_line(struct play *p, const char *line)
{
    if (strncmp(line, "set ", 4) == 0) {
        set(p, line + 4);
        return true;
    }
    if (strcmp(line, "whole") == 0) {
        p->whole = true;
        return true;
    }
    if (strncmp(line, "url ", 4) == 0) {
        prepare_url(p, line + 4);
        return true;
    }
    if (strncmp(line, "version ", 8) == 0) {
        snprintf(p->servers.version, VERSION_MAX, "%.15s", line + 8);
        return true;
    }
    if (line[0] == '|') {
        bytes_add_text(&p->ini, line + 1);
        bytes_add_text(&p->ini, "\n");
        return true;
    }
    return prepare_servers(p, line) || prepare_server_line(p, line);
}

static void play_text_line(struct play *p, char *line)
{
    line[strcspn(line, "\r\n")] = '\0';
    if (p->line == 1 && line[0] != '#') {
        complain(p, "a trace begins with a comment that says what it proves");
        return;
    }
    const char *first = line + strspn(line, " \t");
    if (*first == '\0' || *first == '#' ||
        (!p->started && prepare_line(p, line))) {
        return;
    }
    if (!p->started) {
        start(p);
    }
    if (p->complaint.size == 0 && !(p->whole && p->split)) {
        play_line(p, first);
    }
    if (p->complaint.size == 0 && p->stage.error[0] != '\0') {
        complain(p, p->stage.error);
    }
}

static void play_end(struct play *p)
{
    if (p->complaint.size == 0 && p->started && !(p->whole && p->split)) {
        settle(p);
    }
    if (p->started && !stage_close(&p->stage) && p->complaint.size == 0) {
        complain(p, p->stage.error);
    }
    config_free(p->config);
    for (size_t i = 0; i < SETS_MAX; i++) {
        free(p->sets[i]);
    }
    bytes_fini(&p->ini);
    servers_fini(&p->servers);
}

static bool play_file(const char *file, bool split)
{
    static struct play p; /* large */
    char line[LINE_MAX_BYTES];
    FILE *f = fopen(file, "r");

    if (f == NULL) {
        fprintf(stderr, "%s: cannot be read\n", file);
        return false;
    }
    p = (struct play){ .file = file, .split = split };
    p.stage.servers = &p.servers;
    while (p.complaint.size == 0 && fgets(line, sizeof line, f) != NULL) {
        p.line++;
        play_text_line(&p, line);
    }
    fclose(f);
    play_end(&p);
    bool good = p.complaint.size == 0;
    if (!good) {
        fprintf(stderr, "%s%.*s", split ? "played byte by byte:\n" : "",
                (int)p.complaint.size, (const char *)bytes_front(&p.complaint));
    }
    bytes_fini(&p.complaint);
    return good;
}

/* Each file is played twice: as it stands, and with every byte arriving on its
 * own, which must change nothing. */
int main(int argc, char **argv)
{
    int failed = 0;
    for (int i = 1; i < argc; i++) {
        failed += !(play_file(argv[i], false) && play_file(argv[i], true));
    }
    if (argc < 2) {
        fprintf(stderr, "usage: trace FILE...\n");
        return 2;
    }
    return failed > 0;
}
