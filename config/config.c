#include "config/config.h"

#include <assert.h>
#include <stdlib.h>
#include <string.h>

#include "config/arena.h"
#include "config/check.h"
#include "config/draft.h"
#include "config/expand.h"
#include "config/nodes.h"
#include "config/option.h"
#include "config/problem.h"
#include "config/url.h"
#include "config/value.h"

/* One load. Everything borrowed. */
struct loader {
    const struct config_source *source;
    struct config_problems *problems;
};

/* Defaults --- */

static bool has_own_field(const struct option *o)
{
    return o->size > 0 && o->type != OPTION_REFERENCE;
}

/* Give every option of a section its default. */
static void set_defaults(enum section_kind kind, void *base)
{
    char why[VALUE_TEXT_MAX];
    for (size_t i = 0; i < option_count(); i++) {
        const struct option *o = option_get(i);
        if (o->section != kind || !has_own_field(o) || o->fallback == NULL) {
            continue;
        }
        void *field = (char *)base + o->offset;
        /* No string has a default, so this takes no memory. */
        enum value_result result = value_parse(o, o->fallback, field, why);
        assert(result == VALUE_OK);
        (void)result;
    }
}

/* Values --- */

static void report_value(const struct loader *l,
                         const struct draft_entry *e,
                         const char *why)
{
    if (e->option->type == OPTION_SECRET || e->option->type == OPTION_URL) {
        problem_add(l->problems, e->place, "%s: %s", e->key, why);
    } else {
        problem_add(l->problems, e->place, "%s = %.100s: %s", e->key, e->value,
                    why);
    }
}

/* Put text into the field of e's section. */
static void set_value(const struct loader *l,
                      const struct draft_entry *e,
                      const struct option *o,
                      const char *text,
                      void *base)
{
    char why[VALUE_TEXT_MAX];
    void *field = (char *)base + o->offset;
    switch (value_parse(o, text, field, why)) {
    case VALUE_OK: break;
    case VALUE_BAD: report_value(l, e, why); break;
    case VALUE_NO_MEMORY: problem_no_memory(l->problems); break;
    }
}

static void set_list(const struct loader *l,
                     const struct draft_entry *e,
                     const struct option *o,
                     const char *text,
                     struct upstream_config *u)
{
    char why[VALUE_TEXT_MAX];
    switch (nodes_add(o, text, u, why)) {
    case VALUE_OK: break;
    case VALUE_BAD: report_value(l, e, why); break;
    case VALUE_NO_MEMORY: problem_no_memory(l->problems); break;
    }
}

static void set_override(const struct loader *l,
                         const struct draft_entry *e,
                         const char *text,
                         struct upstream_config *u)
{
    char why[VALUE_TEXT_MAX];
    unsigned level = 0;
    if (value_word(e->option, text, &level, why) != VALUE_OK) {
        report_value(l, e, why);
        return;
    }
    struct replay_override *grown =
        realloc(u->overrides, (u->n_overrides + 1) * sizeof(*u->overrides));
    if (grown == NULL) {
        problem_no_memory(l->problems);
        return;
    }
    u->overrides = grown;
    const char *part = e->key + option_key_fixed(e->option);
    struct replay_override *added = &u->overrides[u->n_overrides];
    *added = (struct replay_override){ .level = (enum replay_level)level,
                                       .text = text_copy(part, strlen(part)) };
    if (e->option->type == OPTION_OVERRIDE_BY_PREFIX) {
        added->kind = OVERRIDE_PREFIX;
    } else if (e->option->type == OPTION_OVERRIDE_BY_SCRIPT) {
        added->kind = OVERRIDE_SCRIPT;
    } else {
        added->kind = OVERRIDE_COMMAND;
    }
    if (added->text == NULL) {
        problem_no_memory(l->problems);
        return;
    }
    u->n_overrides++;
}

/* What a URL says counts like a key of its own; the same said twice in one
 * place is a mistake, and a later layer wins. (What earlier layers said is no
 * more in the draft.) */
static bool url_part_wins(const struct loader *l,
                          const struct draft_section *section,
                          const struct draft_entry *url,
                          const char *key)
{
    const struct draft_entry *e = draft_find(section, key);
    if (e == NULL) {
        return true;
    }
    if (e->layer == url->layer) {
        problem_add(l->problems, e->place,
                    "%s is also in the url at %s; keep one of them", key,
                    url->place);
    }
    return false;
}

static void set_url_string(const struct loader *l,
                           const struct draft_section *section,
                           const struct draft_entry *e,
                           const char *key,
                           const char *text,
                           struct upstream_config *u)
{
    if (text[0] != '\0' && url_part_wins(l, section, e, key)) {
        set_value(l, e, option_find(SECTION_UPSTREAM, key), text, u);
    }
}

/* Where the servers are. */
static void set_url_place(const struct loader *l,
                          const struct draft_section *section,
                          const struct draft_entry *e,
                          const struct url *url,
                          struct upstream_config *u)
{
    if (url->type == UPSTREAM_STANDALONE) {
        if (url_part_wins(l, section, e, "address")) {
            u->address = url->address;
        }
    } else if (url_part_wins(l, section, e, "nodes")) {
        set_list(l, e, option_find(SECTION_UPSTREAM, "nodes"), url->nodes, u);
    }
}

/* The type that the key says, if there is one, has to be that of the URL. */
static void set_url_type(const struct loader *l,
                         const struct draft_section *section,
                         const struct draft_entry *e,
                         const struct url *url,
                         struct upstream_config *u)
{
    if (draft_find(section, "type") == NULL) {
        u->type = url->type;
    } else if (u->type != url->type && u->type != type_unknown) {
        problem_add(l->problems, draft_place(section, "type"),
                    "type = %s, but the url at %s is one for %s; take the type "
                    "out, or begin the url with %s",
                    word_text(words_upstream_type, u->type), e->place,
                    word_text(words_upstream_type, url->type),
                    url_scheme(u->type));
    }
}

static void set_url(const struct loader *l,
                    const struct draft_section *section,
                    const struct draft_entry *e,
                    const char *text,
                    struct upstream_config *u)
{
    struct url url;
    size_t problems = l->problems->n;
    const char *wrong = url_parse(text, &url);
    if (wrong != NULL) {
        report_value(l, e, wrong);
        u->type = type_unknown;
        return;
    }
    set_url_type(l, section, e, &url, u);
    set_url_place(l, section, e, &url, u);
    if (url.has_db && url_part_wins(l, section, e, "db")) {
        u->db = url.db;
    }
    set_url_string(l, section, e, "username", url.username, u);
    set_url_string(l, section, e, "password", url.password, u);
    set_url_string(l, section, e, "master_name", url.master_name, u);
    set_url_string(l, section, e, "sentinel_username", url.sentinel_username,
                   u);
    set_url_string(l, section, e, "sentinel_password", url.sentinel_password,
                   u);
    if (l->problems->n > problems) {
        u->type = type_unknown;
    }
}

static void apply_entry(const struct loader *l,
                        const struct draft_section *section,
                        const struct draft_entry *e,
                        void *base)
{
    if (e->option->type == OPTION_REFERENCE) {
        return; /* looked up when all sections are there */
    }
    char *text = expand_references(e->value, l->source, e->place, l->problems);
    if (text == NULL) {
        return;
    }
    if (e->option->type == OPTION_URL) {
        set_url(l, section, e, text, base);
    } else if (option_is_override(e->option)) {
        set_override(l, e, text, base);
    } else if (option_is_list(e->option)) {
        set_list(l, e, e->option, text, base);
    } else {
        set_value(l, e, e->option, text, base);
    }
    free(text);
}

static void apply_section(const struct loader *l,
                          const struct draft_section *section,
                          void *base)
{
    const struct draft_entry *url = NULL;
    for (const struct draft_entry *e = section->entries; e != NULL;
         e = e->next) {
        if (e->option->type == OPTION_URL) {
            url = e;
        } else {
            apply_entry(l, section, e, base);
        }
    }
    if (url != NULL) { /* it is held against the type, so that comes first */
        apply_entry(l, section, url, base);
    }
}

/* The order in which overrides are asked. */
static int compare_overrides(const void *left, const void *right)
{
    static const int rank[] = {
        [OVERRIDE_PREFIX] = 0, [OVERRIDE_SCRIPT] = 1, [OVERRIDE_COMMAND] = 2
    };
    const struct replay_override *a = left;
    const struct replay_override *b = right;
    if (a->kind != b->kind) {
        return rank[a->kind] - rank[b->kind];
    }
    size_t a_len = strlen(a->text);
    size_t b_len = strlen(b->text);
    if (a_len != b_len) {
        return a_len > b_len ? -1 : 1;
    }
    return strcmp(a->text, b->text);
}

/* Sections --- */

static char *copy_name(const struct loader *l, const char *name)
{
    char *copy = text_copy(name, strlen(name));
    if (copy == NULL) {
        problem_no_memory(l->problems);
    }
    return copy;
}

static void load_upstream(const struct loader *l,
                          const struct draft_section *section,
                          struct upstream_config *u)
{
    u->name = copy_name(l, section->name);
    if (u->name == NULL) {
        return;
    }
    set_defaults(SECTION_UPSTREAM, u);
    if (draft_find(section, "type") != NULL) {
        u->type = type_unknown; /* until its word is read */
    }
    apply_section(l, section, u);
    if (u->n_overrides > 1) {
        qsort(u->overrides, u->n_overrides, sizeof(*u->overrides),
              compare_overrides);
    }
}

static void load_listener(const struct loader *l,
                          const struct draft_section *section,
                          struct listener_config *listener)
{
    listener->name = copy_name(l, section->name);
    if (listener->name == NULL) {
        return;
    }
    set_defaults(SECTION_LISTENER, listener);
    apply_section(l, section, listener);
}

/* Make room for all sections at once: listeners keep pointers to upstreams. */
static bool make_room(struct config *c, const struct draft *d)
{
    size_t listeners = 0;
    size_t upstreams = 0;
    for (const struct draft_section *s = d->sections; s != NULL; s = s->next) {
        listeners += s->kind == SECTION_LISTENER ? 1 : 0;
        upstreams += s->kind == SECTION_UPSTREAM ? 1 : 0;
    }
    c->listeners = calloc(listeners + 1, sizeof(*c->listeners));
    c->upstreams = calloc(upstreams + 1, sizeof(*c->upstreams));
    return c->listeners != NULL && c->upstreams != NULL;
}

static void load_sections(struct config *c,
                          const struct draft *d,
                          const struct loader *l)
{
    set_defaults(SECTION_REDIAL, &c->process);
    set_defaults(SECTION_ADMIN, &c->process);
    set_defaults(SECTION_LOG, &c->process);
    set_defaults(SECTION_TCP, &c->process);
    for (const struct draft_section *s = d->sections; s != NULL; s = s->next) {
        if (s->kind == SECTION_UPSTREAM) {
            load_upstream(l, s, &c->upstreams[c->n_upstreams++]);
        } else if (s->kind == SECTION_LISTENER) {
            load_listener(l, s, &c->listeners[c->n_listeners++]);
        } else {
            apply_section(l, s, &c->process);
        }
    }
}

static bool out_of_memory(const struct config_problems *p)
{
    for (size_t i = 0; i < p->n; i++) {
        if (p->list[i].memory == NULL) {
            return true;
        }
    }
    return false;
}

/* Returns NULL without memory. */
static struct config *build(const struct draft *d, const struct loader *l)
{
    struct config *c = calloc(1, sizeof(*c));
    if (c == NULL || !make_room(c, d)) {
        problem_no_memory(l->problems);
        config_free(c);
        return NULL;
    }
    load_sections(c, d, l);
    if (!out_of_memory(l->problems)) {
        check_link(c, d);
        check_config(c, d);
    }
    return c;
}

struct config *config_load(const struct config_source *source,
                           struct config_problems *problems)
{
    size_t before = problems->n;
    struct loader l = { .source = source, .problems = problems };
    struct draft d;
    struct config *c = NULL;

    draft_init(&d, source, problems);
    /* A draft without memory is not whole; all others are worth reading on,
     * so that every problem is told. */
    if (!out_of_memory(problems)) {
        c = build(&d, &l);
    }
    draft_fini(&d);
    if (problems->n > before) {
        config_free(c);
        return NULL;
    }
    return c;
}

static void free_upstream(struct upstream_config *u)
{
    for (size_t i = 0; i < u->n_overrides; i++) {
        free(u->overrides[i].text);
    }
    free(u->overrides);
    free(u->name);
    free(u->username);
    free(u->password);
    free(u->master_name);
    free(u->sentinel_username);
    free(u->sentinel_password);
    free(u->zone);
    nodes_free(u);
}

void config_free(struct config *c)
{
    if (c == NULL) {
        return;
    }
    for (size_t i = 0; i < c->n_listeners; i++) {
        free(c->listeners[i].name);
        free(c->listeners[i].username);
        free(c->listeners[i].password);
    }
    for (size_t i = 0; i < c->n_upstreams; i++) {
        free_upstream(&c->upstreams[i]);
    }
    free(c->listeners);
    free(c->upstreams);
    free(c);
}

const char *backoff_kind_name(enum backoff_kind kind)
{
    return word_text(words_backoff, kind);
}

const char *replay_level_name(enum replay_level level)
{
    return word_text(words_replay, level);
}
