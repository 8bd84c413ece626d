#include "engine_talk.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>

#include <cmocka.h>

#include "parser/resp_command.h"

enum {
    LARGE_BYTES = 100000, /* of the value of a key that begins with "large" */
};

void identity_init(struct identity *i)
{
    *i = (struct identity){ .user = "default", .resp = 2 };
}

/* ---- what a reply must be ----------------------------------------------------- */

/* Both of them are there, and equal. */
static bool is_same(struct span a, struct span b)
{
    return a.data != NULL && b.data != NULL && span_equal(a, b);
}

static bool begins(struct span text, const char *with)
{
    size_t len = strlen(with);
    return text.data != NULL && text.len >= len &&
           memcmp(text.data, with, len) == 0;
}

static bool is_word(struct span word, const char *upper)
{
    return span_is_word(word, upper);
}

void talk_bulk(struct bytes *out, struct span text)
{
    bytes_printf(out, "$%zu\r\n", text.len);
    bytes_add(out, text.data, text.len);
    bytes_add_text(out, "\r\n");
}

/* The value of a key tells who asks for it, where and how. */
static void value_of(struct bytes *out,
                     const struct identity *i,
                     struct span key)
{
    struct bytes value = { 0 };
    bytes_printf(&value, "%s/%u/%u/%.*s", i->user, i->db, i->resp, (int)key.len,
                 (const char *)key.data);
    if (begins(key, "large")) {
        while (value.size < LARGE_BYTES) {
            bytes_printf(&value, "%zu,", value.size);
        }
    }
    talk_bulk(out, bytes_span(&value));
    bytes_fini(&value);
}

static bool is_script(const struct ask *a)
{
    return is_word(a->argv[0], "EVAL") || is_word(a->argv[0], "EVALSHA") ||
           is_word(a->argv[0], "FCALL");
}

/* The reply to a command that is executed now. */
static void execute(struct bytes *out,
                    const struct identity *i,
                    const struct ask *a)
{
    struct span name = a->argv[0];
    if (is_word(name, "GET")) {
        value_of(out, i, a->argv[1]);
    } else if (is_word(name, "ECHO")) {
        talk_bulk(out, a->argv[1]);
    } else if (is_word(name, "INCR")) {
        bytes_add_text(out, ":1\r\n");
    } else if (is_script(a) || is_word(name, "WAIT")) {
        bytes_add_text(out, ":1\r\n");
    } else if (is_word(name, "XREAD")) {
        bytes_add_text(out, i->resp == 3 ? "_\r\n" : "*-1\r\n");
    } else if (is_word(name, "SCRIPT") && is_word(a->argv[1], "LOAD")) {
        talk_bulk(out, span_of("its name"));
    } else if (is_word(name, "RESET")) {
        bytes_add_text(out, "+RESET\r\n");
    } else {
        bytes_add_text(out, "+OK\r\n");
    }
}

static unsigned number_of(struct span text)
{
    unsigned n = 0;
    for (size_t i = 0; i < text.len; i++) {
        n = n * 10 + (unsigned)(text.data[i] - '0');
    }
    return n;
}

static void set_user(struct identity *i, struct span user)
{
    assert_true(user.len < NAME_MAX_BYTES);
    memcpy(i->user, user.data, user.len);
    i->user[user.len] = '\0';
}

/* AUTH, HELLO or SELECT has succeeded. */
static void change_identity(struct identity *i, const struct ask *a)
{
    if (is_word(a->argv[0], "SELECT")) {
        i->db = number_of(a->argv[1]);
    } else if (is_word(a->argv[0], "AUTH") && a->argc == 3) {
        set_user(i, a->argv[1]);
    } else if (is_word(a->argv[0], "HELLO") && a->argc > 1) {
        i->resp = number_of(a->argv[1]);
    }
}

static bool is_session(const struct ask *a)
{
    return is_word(a->argv[0], "SELECT") || is_word(a->argv[0], "AUTH") ||
           is_word(a->argv[0], "HELLO");
}

static bool is_data(const struct ask *a)
{
    return is_word(a->argv[0], "GET") || is_word(a->argv[0], "SET") ||
           is_word(a->argv[0], "INCR") || is_word(a->argv[0], "ECHO") ||
           is_script(a);
}

/* ---- subscriptions --------------------------------------------------------------- */

static bool is_subscribe(const struct ask *a)
{
    return is_word(a->argv[0], "SUBSCRIBE") ||
           is_word(a->argv[0], "UNSUBSCRIBE");
}

static size_t channel_find(const struct identity *i, struct span name)
{
    size_t k = 0;
    while (k < i->n_channels && !is_same(span_of(i->channels[k]), name)) {
        k++;
    }
    return k;
}

/* Confirmation k of a. */
static void confirm(struct bytes *out,
                    struct identity *i,
                    const struct ask *a,
                    size_t k)
{
    bool subscribe = is_word(a->argv[0], "SUBSCRIBE");
    struct span name = k + 1 < a->argc ? a->argv[k + 1] : (struct span){ 0 };
    if (a->argc == 1 && i->n_channels > 0) {
        name = span_of(i->channels[0]);
    }
    char kept[NAME_MAX_BYTES] = "";
    assert_true(name.len < NAME_MAX_BYTES);
    memcpy(kept, name.len > 0 ? name.data : (const uint8_t *)"", name.len);
    size_t at = channel_find(i, name);
    if (subscribe && at == i->n_channels) {
        assert_true(at < CHANNELS_MAX);
        memcpy(i->channels[i->n_channels++], kept, sizeof(kept));
    } else if (!subscribe && at < i->n_channels) {
        memmove(i->channels[at], i->channels[at + 1],
                (i->n_channels - at - 1) * sizeof(kept));
        i->n_channels--;
    }
    bytes_add_text(out, i->resp == 3 ? ">3\r\n" : "*3\r\n");
    talk_bulk(out, span_of(subscribe ? "subscribe" : "unsubscribe"));
    if (name.data == NULL) {
        bytes_add_text(out, i->resp == 3 ? "_\r\n" : "$-1\r\n");
    } else {
        talk_bulk(out, span_of(kept));
    }
    bytes_printf(out, ":%zu\r\n", i->n_channels);
}

/* Say it, and after the last SUBSCRIBE that something was published. */
static void serve_subscribe(struct identity *i,
                            const struct ask *a,
                            struct bytes *out)
{
    size_t k = 0;
    do {
        confirm(out, i, a, k++);
    } while (a->argc > 1 ? k + 1 < a->argc : i->n_channels > 0);
    if (is_word(a->argv[0], "SUBSCRIBE")) {
        bytes_add_text(out, i->resp == 3 ? ">3\r\n" : "*3\r\n");
        talk_bulk(out, span_of("message"));
        talk_bulk(out, a->argv[1]);
        talk_bulk(out, span_of("something"));
    }
}

static bool is_message(struct span reply)
{
    static const char word[] = "3\r\n$7\r\nmessage\r\n";
    return (begins(reply, "*") || begins(reply, ">")) &&
           reply.len > sizeof(word) &&
           memcmp(reply.data + 1, word, sizeof(word) - 1) == 0;
}

static bool is_flush(struct span reply)
{
    return begins(reply, ">2\r\n$10\r\ninvalidate\r\n_\r\n");
}

/* It comes only while its channel is subscribed to. */
static void check_message(const struct identity *i, struct span reply)
{
    const uint8_t *name = reply.data + 17;
    assert_true(name[0] == '$' && name[2] == '\r');
    struct span channel = { name + 4, (size_t)(name[1] - '0') };
    assert_true(channel_find(i, channel) < i->n_channels);
    assert_true(begins(reply, i->resp == 3 ? ">" : "*"));
}

/* ---- a client looks at its replies --------------------------------------------- */

static void expect_equal(struct span reply, const struct bytes *expected)
{
    if (!is_same(reply, bytes_span(expected))) {
        fail_msg("the reply is %.*s instead of %.*s",
                 (int)(reply.len < 200 ? reply.len : 200),
                 (const char *)reply.data,
                 (int)(expected->size < 200 ? expected->size : 200),
                 (const char *)bytes_front(expected));
    }
}

static void check_not_executed(const struct identity *i)
{
    for (size_t k = 0; k < i->n_block; k++) {
        assert_int_equal(i->block[k]->executed, 0);
    }
}

static void check_exec(struct identity *i, struct span reply)
{
    if (i->watch_failed && begins(reply, "*-1\r\n")) {
        check_not_executed(i);
        return;
    }
    struct bytes expected = { 0 };
    bytes_printf(&expected, "*%zu\r\n", i->n_block);
    for (size_t k = 0; k < i->n_block; k++) {
        execute(&expected, i, i->block[k]);
        assert_true(i->block[k]->executed == 1);
    }
    assert_false(i->block_failed);
    expect_equal(reply, &expected);
    bytes_fini(&expected);
}

/* redial gives the request up, or the server refuses it. */
static void check_error(struct identity *i, struct ask *a, struct span reply)
{
    bool exec = is_word(a->argv[0], "EXEC");
    if (begins(reply, "-NOTAPPLIED ") || begins(reply, "-LOADING ") ||
        begins(reply, "-READONLY ")) {
        a->denied = true;
        assert_int_equal(a->executed, 0);
    } else if (begins(reply, "-EXECABORT ")) {
        assert_true(exec);
        check_not_executed(i);
    } else if (begins(reply, "-ERR Protocol error")) {
        assert_true(begins(a->argv[0], "\""));
    } else if (begins(reply, "-NOSCRIPT ")) {
        assert_true(is_word(a->argv[0], "EVALSHA"));
        assert_int_equal(a->executed, 0);
    } else if (begins(reply, "-NOAUTH ")) {
        assert_int_equal(a->executed, 0);
    } else if (begins(reply, "-WRONGPASS ")) {
        assert_true(is_session(a));
    } else if (!begins(reply, "-UNKNOWNOUTCOME ")) {
        fail_msg("the reply to %.*s is %.*s", (int)a->argv[0].len,
                 (const char *)a->argv[0].data, (int)reply.len,
                 (const char *)reply.data);
    }
    i->watch_failed = i->watch_failed || is_word(a->argv[0], "WATCH");
    if (exec) {
        i->multi = false;
    } else {
        i->block_failed = true;
    }
}

/* One confirmation. Returns whether it was the last one. */
static bool check_confirmation(struct peer *c, struct ask *a, struct span reply)
{
    struct identity *i = &c->identity;
    struct bytes expected = { 0 };
    confirm(&expected, i, a, a->confirmed++);
    expect_equal(reply, &expected);
    bytes_fini(&expected);
    return a->argc > 1 ? a->confirmed + 1 == a->argc : i->n_channels == 0;
}

static void check_reply(struct peer *c, struct ask *a, struct span reply)
{
    struct identity *i = &c->identity;
    if (begins(reply, "-")) {
        bool begun = i->multi;
        check_error(i, a, reply);
        if (is_word(a->argv[0], "MULTI")) {
            /* Until its EXEC everything is refused. */
            i->multi = true;
            i->n_block = 0;
        }
        assert_true(!is_word(a->argv[0], "MULTI") || !begun);
        return;
    }
    if (is_word(a->argv[0], "EXEC")) {
        check_exec(i, reply);
        i->multi = false;
        return;
    }
    if (i->multi) {
        a->queued = true;
        i->block[i->n_block++] = a;
        assert_true(begins(reply, "+QUEUED\r\n"));
        return;
    }
    if (is_word(a->argv[0], "HELLO")) {
        change_identity(i, a);
        assert_true(begins(reply, i->resp == 3 ? "%" : "*"));
        return;
    }
    if (is_word(a->argv[0], "CLIENT") && is_word(a->argv[1], "ID")) {
        assert_true(begins(reply, ":"));
        return;
    }
    struct bytes expected = { 0 };
    execute(&expected, i, a);
    expect_equal(reply, &expected);
    bytes_fini(&expected);
    if (is_session(a)) {
        change_identity(i, a);
    } else if (is_word(a->argv[0], "RESET")) {
        identity_init(i);
    } else if (is_word(a->argv[0], "MULTI")) {
        i->multi = true;
        i->block_failed = false;
        i->n_block = 0;
    } else if (is_data(a)) {
        assert_true(a->executed >= 1);
    }
}

static const struct resp_limits no_limits = { .bulk_max = UINT32_MAX,
                                              .elements_max = UINT32_MAX };

/* Look at the replies that are complete. */
void client_reads(struct peer *c)
{
    while (c->unread.size > 0) {
        struct resp_scanner s;
        size_t used = 0;
        resp_scanner_init(&s);
        enum scan scan = resp_scan(&s, &no_limits, bytes_front(&c->unread),
                                   c->unread.size, &used);
        assert_true(scan != SCAN_INVALID);
        if (scan == SCAN_MORE) {
            return;
        }
        struct span reply = { bytes_front(&c->unread), used };
        if (is_flush(reply)) {
            assert_int_equal(c->identity.resp, 3);
            bytes_drop(&c->unread, used);
            continue;
        }
        if (is_message(reply)) {
            check_message(&c->identity, reply);
            c->n_messages++;
            bytes_drop(&c->unread, used);
            continue;
        }
        assert_true(c->n_answers < c->n_asks);
        struct ask *a = &c->asks[c->n_answers];
        if (begins(reply, "-") || !is_subscribe(a) || c->identity.multi) {
            c->n_answers++;
            check_reply(c, a, reply);
        } else {
            c->n_answers += check_confirmation(c, a, reply);
        }
        bytes_drop(&c->unread, used);
    }
}

/* ---- the server ------------------------------------------------------------------ */

static struct ask *ask_find(struct driver *d, struct span raw)
{
    for (size_t p = 0; p < d->n_peers; p++) {
        for (size_t k = 0; k < d->peers[p]->n_asks; k++) {
            struct ask *a = &d->peers[p]->asks[k];
            if (is_same(bytes_span(&a->raw), raw)) {
                return a;
            }
        }
    }
    return NULL;
}

static void executed(struct ask *a)
{
    a->executed++;
    assert_false(a->denied);
    assert_true(a->executed == 1 ||
                (!is_word(a->argv[0], "INCR") && !is_script(a)));
}

static void hello(struct bytes *out, const struct identity *i)
{
    bytes_add_text(out, i->resp == 3 ? "%2\r\n" : "*4\r\n");
    talk_bulk(out, span_of("server"));
    talk_bulk(out, span_of("redis"));
    talk_bulk(out, span_of("version"));
    talk_bulk(out, span_of("7.2.0"));
}

static void talk_words(struct bytes *out, const char *const *words, size_t n)
{
    bytes_printf(out, "*%zu\r\n", n);
    for (size_t i = 0; i < n; i++) {
        talk_bulk(out, span_of(words[i]));
    }
}

/* A sentinel of a group of 10.0.0.1 and 10.0.0.2. */
static void serve_sentinel(struct driver *d,
                           const struct ask *a,
                           struct bytes *out)
{
    static const char *const master[] = { "name", "mymaster", "config-epoch",
                                          "3" };
    static const char *const sentinel[] = { "ip",    "10.0.0.13", "port",
                                            "26379", "flags",     "sentinel" };
    const char *other = d->switched ? "10.0.0.1" : "10.0.0.2";
    const char *address[] = { d->switched ? "10.0.0.2" : "10.0.0.1", "6379" };
    const char *replica[] = {
        "ip", other, "port", "6379", "flags", "slave", "master-link-status",
        "ok"
    };
    if (is_word(a->argv[1], "MASTER")) {
        talk_words(out, master, sizeof master / sizeof *master);
    } else if (is_word(a->argv[1], "GET-MASTER-ADDR-BY-NAME")) {
        talk_words(out, address, 2);
    } else if (is_word(a->argv[1], "SENTINELS")) {
        bytes_add_text(out, "*1\r\n");
        talk_words(out, sentinel, sizeof sentinel / sizeof *sentinel);
    } else {
        bytes_add_text(out, "*1\r\n");
        talk_words(out, replica, sizeof replica / sizeof *replica);
        if (d->push) {
            d->push = false;
            bytes_add_text(out, ">3\r\n");
            talk_bulk(out, span_of("message"));
            talk_bulk(out, span_of("+failover-state-send-slaveof-noone"));
            talk_bulk(out, span_of("slave x 10.0.0.2 6379 @ mymaster "
                                   "10.0.0.1 6379"));
        }
    }
}

/* It has a command that redial does not know. */
static void tell_commands(const struct ask *a, struct bytes *out)
{
    if (is_word(a->argv[1], "LIST")) {
        bytes_add_text(out, "*2\r\n$3\r\nget\r\n$7\r\nbox.get\r\n");
    } else {
        assert_true(is_word(a->argv[1], "INFO") && a->argc == 3);
        bytes_add_text(out, "*1\r\n*6\r\n$7\r\nbox.get\r\n:2\r\n*1\r\n"
                            "+readonly\r\n:1\r\n:1\r\n:1\r\n");
    }
}

/* What the lane itself says. False: it is a client's command. */
static bool serve_lane(struct driver *d,
                       struct peer *p,
                       const struct ask *a,
                       struct bytes *out)
{
    struct identity *i = &p->identity;
    if (d->refuse_session > 0 && a->argc > 1 &&
        (is_word(a->argv[0], "SELECT") || is_word(a->argv[0], "AUTH") ||
         a->argc > 2) &&
        is_session(a)) {
        d->refuse_session--;
        bytes_add_text(out, "-WRONGPASS no\r\n");
        return true;
    }
    if (is_word(a->argv[0], "HELLO")) {
        change_identity(i, a);
        if (a->argc == 5) {
            set_user(i, a->argv[3]);
        }
        hello(out, i);
    } else if (is_session(a)) {
        change_identity(i, a);
        bytes_add_text(out, "+OK\r\n");
    } else if (is_word(a->argv[0], "DISCARD")) {
        i->multi = false; /* redial leaves a block that it has broken */
        i->n_block = 0;
        bytes_add_text(out, "+OK\r\n");
    } else if (is_word(a->argv[0], "RESET")) {
        identity_init(i); /* a lane on its way to the next client */
        bytes_add_text(out, "+RESET\r\n");
    } else if (is_word(a->argv[0], "PING")) {
        bool array = i->resp == 2 && i->n_channels > 0;
        bytes_add_text(out,
                       array ? "*2\r\n$4\r\npong\r\n$0\r\n\r\n" : "+PONG\r\n");
    } else if (is_word(a->argv[0], "ROLE")) {
        bytes_add_text(out, "*3\r\n$6\r\nmaster\r\n:0\r\n*0\r\n");
    } else if (is_word(a->argv[0], "COMMAND")) {
        tell_commands(a, out);
    } else if (is_word(a->argv[0], "INFO")) {
        talk_bulk(out, span_of("role:slave\r\nmaster_link_status:up\r\n"));
    } else if (is_word(a->argv[0], "SENTINEL")) {
        serve_sentinel(d, a, out);
    } else if (is_word(a->argv[0], "SUBSCRIBE") && begins(a->argv[1], "+")) {
        bytes_add_text(out, ">3\r\n");
        talk_bulk(out, span_of("subscribe"));
        talk_bulk(out, a->argv[1]);
        bytes_add_text(out, ":1\r\n");
    } else if (is_word(a->argv[0], "CLIENT") && is_word(a->argv[1], "ID")) {
        bytes_printf(out, ":%u\r\n", (unsigned)++d->clients_id);
    } else if (is_word(a->argv[0], "XINFO")) {
        bytes_add_text(out, "*2\r\n");
        talk_bulk(out, span_of("last-generated-id"));
        talk_bulk(out, span_of("5-1"));
    } else if (is_word(a->argv[0], "XREAD")) {
        if (!d->waits) { /* with other ids, and another timeout */
            execute(out, i, a);
        }
    } else if (is_word(a->argv[0], "PUBLISH")) {
        bytes_add_text(out, ":0\r\n");
    } else if (is_word(a->argv[0], "FUNCTION")) {
        bytes_add_text(out, "*1\r\n*2\r\n");
        talk_bulk(out, span_of("functions"));
        bytes_add_text(out, "*1\r\n*4\r\n");
        talk_bulk(out, span_of("name"));
        talk_bulk(out, span_of("reads"));
        talk_bulk(out, span_of("flags"));
        bytes_add_text(out, "*1\r\n");
        talk_bulk(out, span_of("no-writes"));
    } else if (is_word(a->argv[0], "CLIENT") && is_word(a->argv[1], "KILL")) {
        bytes_add_text(out, ":1\r\n");
    } else if (is_word(a->argv[0], "CLIENT")) {
        bytes_add_text(out, "+OK\r\n");
    } else {
        return false;
    }
    return true;
}

static void serve_exec(struct identity *i, struct bytes *out)
{
    assert_true(i->multi);
    if (i->block_failed) {
        bytes_add_text(out, "-EXECABORT Transaction discarded because of "
                            "previous errors.\r\n");
        i->multi = false;
        i->n_block = 0;
        return;
    }
    bytes_printf(out, "*%zu\r\n", i->n_block);
    for (size_t k = 0; k < i->n_block; k++) {
        executed(i->block[k]);
        execute(out, i, i->block[k]);
    }
    i->multi = false;
    i->n_block = 0;
}

static void serve_client(struct driver *d,
                         struct peer *p,
                         struct ask *a,
                         struct bytes *out)
{
    struct identity *i = &p->identity;
    bool multi = is_word(a->argv[0], "MULTI");
    if (i->multi && d->refuse > 0 && !is_word(a->argv[0], "EXEC")) {
        d->refuse--;
        i->block_failed = true;
        bytes_add_text(out, "-LOADING Redis is loading\r\n");
    } else if (i->multi && !is_word(a->argv[0], "EXEC")) {
        i->block[i->n_block++] = a;
        bytes_add_text(out, "+QUEUED\r\n");
    } else if (is_word(a->argv[0], "EXEC")) {
        serve_exec(i, out);
    } else if (is_word(a->argv[0], "EVALSHA") && !d->knows_script) {
        bytes_add_text(out,
                       "-NOSCRIPT No matching script. Please use EVAL.\r\n");
    } else if (d->refuse_writes > 0) {
        d->refuse_writes--;
        bytes_add_text(out, "-READONLY You can't write here\r\n");
    } else if (d->refuse > 0 && !multi) {
        d->refuse--;
        bytes_add_text(out, "-LOADING Redis is loading\r\n");
    } else {
        i->multi = multi;
        i->block_failed = false;
        d->knows_script = d->knows_script || is_word(a->argv[0], "EVAL") ||
                          is_word(a->argv[0], "SCRIPT");
        executed(a);
        execute(out, i, a);
    }
}

void server_reads(struct driver *d, struct peer *p)
{
    static const struct command_limits limits = { .bulk_max = UINT32_MAX,
                                                  .args_max = 100 };
    while (p->unread.size > 0) {
        struct command_scanner s;
        size_t used = 0;
        command_scanner_init(&s);
        enum scan scan = command_scan(&s, &limits, bytes_front(&p->unread),
                                      p->unread.size, &used);
        assert_true(scan != SCAN_INVALID);
        if (scan == SCAN_MORE) {
            return;
        }
        struct span raw = { bytes_front(&p->unread), used };
        struct ask own = { 0 };
        own.argc = command_split(raw, own.argv, ASK_ARGS_MAX);
        struct bytes reply = { 0 };
        if (is_subscribe(&own) && !begins(own.argv[1], "+") &&
            !p->identity.multi) {
            serve_subscribe(&p->identity, &own, &reply);
        } else if (!serve_lane(d, p, &own, &reply)) {
            struct ask *a = ask_find(d, raw);
            assert_non_null(a); /* nobody has said this */
            serve_client(d, p, a, &reply);
        }
        if (!d->mute) {
            bool cut = d->brief && reply.size > d->reply_bytes;
            size_t n = cut ? d->reply_bytes : reply.size;
            bytes_add(&p->arriving, bytes_front(&reply), n);
            d->reply_bytes -= d->brief ? n : 0;
        }
        bytes_fini(&reply);
        bytes_drop(&p->unread, used);
    }
}
