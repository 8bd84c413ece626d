/* What a trace says before its first event, and of its scripted servers at any
 * time. */
#include <ctype.h>
#include <stdio.h>
#include <stdlib.h>

#include "tests/trace/play.h"

enum {
    SETS_DEFAULT = 5, /* and one place for the URL */
};

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

/* Unless the trace says otherwise, waits are the same each time, and servers
 * are not asked for their commands. */
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

/* Whether --set is about an upstream of gRPC. */
static bool is_grpc(struct play *p)
{
    bytes_add(&p->ini, "", 1);
    p->ini.size--;
    return p->ini.size > 0
               ? strstr((const char *)bytes_front(&p->ini), "grpc") != NULL
               : p->url != NULL && strncmp(p->url, "grpc", 4) == 0;
}

/* The only file there is. */
static char *read_service(void *context, const char *path)
{
    struct play *p = context;
    (void)path;
    bytes_add(&p->service, "", 1);
    return text_copy((const char *)bytes_front(&p->service));
}

void play_start(struct play *p)
{
    if (!is_grpc(p)) {
        set_default(p, "upstream.backoff=constant");
        set_default(p, "upstream.backoff_base=10ms");
        set_default(p, "upstream.learn_commands=no");
    }
    if (p->service.size > 0) {
        set_default(p, "upstream.service_config=of the trace");
    }
    struct config_problems problems = { 0 };
    struct config_source source = {
        .file_name = p->ini.size > 0 ? p->file : NULL,
        .url = p->ini.size > 0  ? NULL
               : p->url == NULL ? "redis://10.0.0.1:6379"
                                : p->url,
        .sets = (const char *const *)p->sets,
        .n_sets = p->n_sets,
        .read_file = read_service,
        .context = p,
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

/* --- servers ----------------------------------------------------------- */

void play_topology(struct play *p, const char *rest)
{
    if (!servers_say(&p->servers, rest)) {
        complain(p, "topology: cannot be read");
    }
}

void play_server(struct play *p, char name, const char *line, const char *rest)
{
    if (p->started) {
        settle(p);
    }
    const char *wrong = server_line(&p->stage, name, line, rest);
    if (wrong != NULL) {
        complain(p, wrong);
    }
}

/* --- lines ------------------------------------------------------------- */

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
        play_topology(p, rest);
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

bool prepare_line(struct play *p, const char *line)
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
    if (strncmp(line, "service ", 8) == 0) {
        bytes_add_text(&p->service, line + 8);
        return true;
    }
    if (line[0] == '|') {
        bytes_add_text(&p->ini, line + 1);
        bytes_add_text(&p->ini, "\n");
        return true;
    }
    return prepare_servers(p, line) || prepare_server_line(p, line);
}
