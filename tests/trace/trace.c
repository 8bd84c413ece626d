/* Plays .trace files: conversations between clients, the engine and servers,
 * written as text (README.md). Usage: trace FILE... */
#include <ctype.h>
#include <stdio.h>
#include <stdlib.h>

#include "tests/trace/play.h"

enum {
    LINE_MAX_BYTES = 4096,
};

void complain(struct play *p, const char *text)
{
    bytes_printf(&p->complaint, "%s:%u: %s\n", p->file, p->line, text);
}

/* --- lines ------------------------------------------------------------- */

void settle(struct play *p)
{
    struct bytes text = { 0 };
    if (stage_unexpected(&p->stage, &text)) {
        complain(p, "before this line, and not expected:");
        bytes_add(&p->complaint, bytes_front(&text), text.size);
    }
    bytes_fini(&text);
}

static bool has_grpc(const struct config *c)
{
    size_t i = 0;
    while (i < c->n_upstreams && c->upstreams[i].type != UPSTREAM_GRPC) {
        i++;
    }
    return i < c->n_upstreams;
}

/* "connects", "connects plain", and of gRPC what the client is like. */
static void play_connects(struct play *p, unsigned number, const char *rest)
{
    struct player *who = stage_connect(&p->stage, number, 0);
    if (who == NULL) {
        complain(p, p->stage.error);
    } else if (strcmp(rest, " plain") != 0 && has_grpc(p->config)) {
        grpc_connects(p, who, rest);
    }
}

static void play_player(struct play *p, const char *subject, const char *rest)
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
        play_connects(p, number, rest);
        return;
    }
    if (grpc_line(p, subject, who, name, rest)) {
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
    if (p->complaint.size == 0) {
        row->run(p, who, rest);
    }
}

/* "12ms" from the beginning, or "+12ms" from now. */
static bool moment_read(const struct play *p, const char *when, uint64_t *at_us)
{
    bool later = when[0] == '+';
    bool good = time_read(when + later, at_us);
    *at_us += later ? p->stage.now_us : p->begin_us;
    return good;
}

/* "between 80ms 120ms": nothing happens before the first moment. */
static void pass_quietly(struct play *p, const char *when)
{
    uint64_t us;
    if (!moment_read(p, when, &us)) {
        complain(p, "a time such as 12ms expected");
    } else if (stage_advance(&p->stage, us)) {
        settle(p);
        bytes_printf(&p->complaint, "    it happened at %lluus\n",
                     (unsigned long long)(p->stage.now_us - p->begin_us));
    }
}

/* Let time pass to the moment of an "at" or "by" line. For an expectation the
 * engine must act at that moment, or up to it. */
static void pass_time(struct play *p,
                      const char *how,
                      const char *when,
                      bool expects)
{
    uint64_t at_us;
    if (!moment_read(p, when, &at_us)) {
        complain(p, "a time such as 12ms expected");
        return;
    }
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

/* Take the words that say when off the line, if it has any. */
static void play_moment(struct play *p, const char **rest)
{
    char how[WORD_MAX];
    char when[WORD_MAX];
    const char *after = *rest;
    word_next(&after, how);
    bool range = strcmp(how, "between") == 0;
    if (!range && strcmp(how, "at") != 0 && strcmp(how, "by") != 0) {
        return;
    }
    word_next(&after, when);
    if (range) {
        pass_quietly(p, when);
        word_next(&after, when);
    }
    if (p->complaint.size == 0) {
        pass_time(p, how, when, is_expectation(after));
    }
    *rest = after;
}

/* c1, u12, A, B2 */
static bool is_subject(const char *word)
{
    bool server = isupper((unsigned char)word[0]) != 0;
    bool numbered = isdigit((unsigned char)word[1]) != 0;
    return (server && (numbered || word[1] == '\0')) || word[0] == 'c' ||
           word[0] == 'u';
}

static void play_line(struct play *p, const char *rest)
{
    char word[WORD_MAX];
    play_moment(p, &rest);
    const char *after_word = rest;
    if (!word_next(&after_word, word) || p->complaint.size > 0) {
        return;
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
    } else if (strcmp(word, "asked") == 0) {
        want_asked(p, after_word);
    } else if (strcmp(word, "count") == 0) {
        grpc_want_count(p, after_word);
    } else if (strcmp(word, "stat") == 0) {
        want_stat(p, after_word);
    } else if (strcmp(word, "topology") == 0) {
        play_topology(p, after_word);
    } else if (is_subject(word)) {
        play_player(p, word, after_word);
    } else {
        complain(p, "unknown line");
    }
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
        play_start(p);
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
    bytes_fini(&p->service);
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
