#include "config/config.h"

#include <assert.h>
#include <stdlib.h>
#include <string.h>

#include "config/arena.h"
#include "config/check.h"
#include "config/draft.h"
#include "config/expand.h"
#include "config/link.h"
#include "config/nodes.h"
#include "config/option.h"
#include "config/policies.h"
#include "config/problem.h"
#include "config/url.h"
#include "config/value.h"

/* One load. Everything borrowed. */
struct loader {
    const struct config_source *source;
    const struct draft *draft;
    struct config_problems *problems;
};

/* A loader whose problems are told already, or will be. */
static struct loader loader_quiet(const struct loader *l,
                                  struct config_problems *ignored)
{
    struct loader quiet = *l;
    *ignored = (struct config_problems){ 0 };
    quiet.problems = ignored;
    return quiet;
}

static void loader_end(const struct loader *quiet, const struct loader *l)
{
    if (problems_lack_memory(quiet->problems)) {
        problem_no_memory(l->problems);
    }
    config_problems_fini(quiet->problems);
}

/* Defaults --- */

static bool has_own_field(const struct option *o)
{
    return o->size > 0 && o->type != OPTION_REFERENCE;
}

static void set_default(const struct loader *l,
                        const struct option *o,
                        void *base)
{
    char why[VALUE_TEXT_MAX];
    void *field = (char *)base + o->offset;
    enum value_result result = value_parse(o, o->fallback, field, why);
    assert(result != VALUE_BAD);
    if (result == VALUE_NO_MEMORY) {
        problem_no_memory(l->problems);
    }
}

/* Give options of a section their defaults: those that are for this type, or
 * those that are not, for the fields that they have of their own. */
static void set_some_defaults(const struct loader *l,
                              enum section_kind kind,
                              unsigned type,
                              bool is_for_type,
                              void *base)
{
    for (size_t i = 0; i < option_count(); i++) {
        const struct option *o = option_get(i);
        if (o->section == kind && has_own_field(o) && o->fallback != NULL &&
            option_is_for(o, type) == is_for_type &&
            (is_for_type || !option_is_string(o))) {
            set_default(l, o, base);
        }
    }
}

/* Give every option of a section its default. A field that has several rows
 * gets that of the row for this type. (One loop around both would be wrongly
 * compiled by gcc 12 with -flto.) */
static void set_defaults(const struct loader *l,
                         enum section_kind kind,
                         unsigned type,
                         void *base)
{
    set_some_defaults(l, kind, type, false, base);
    set_some_defaults(l, kind, type, true, base);
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
    } else if (url_part_wins(l, section, e, "nodes") &&
               url_part_wins(l, section, e, "target")) {
        set_list(l, e, option_find_for(SECTION_UPSTREAM, "nodes", url->type),
                 url->nodes, u);
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

/* type is that of the upstream: a key may have a row for Redis and another for
 * gRPC. */
static void apply_entry(const struct loader *l,
                        const struct draft_section *section,
                        const struct draft_entry *e,
                        unsigned type,
                        void *base)
{
    const struct option *o = option_for_type(e->option, type);
    if (o == NULL || o->type == OPTION_REFERENCE) {
        return; /* looked up when all sections are there */
    }
    char *text = expand_references(e->value, l->source, e->place, l->problems);
    if (text == NULL) {
        return;
    }
    if (o->type == OPTION_URL) {
        set_url(l, section, e, text, base);
    } else if (option_is_override(o)) {
        set_override(l, e, text, base);
    } else if (option_is_list(o)) {
        set_list(l, e, o, text, base);
    } else {
        set_value(l, e, o, text, base);
    }
    free(text);
}

static void apply_section(const struct loader *l,
                          const struct draft_section *section,
                          unsigned type,
                          void *base)
{
    const struct draft_entry *url = NULL;
    for (const struct draft_entry *e = section->entries; e != NULL;
         e = e->next) {
        if (e->option->section != section->kind) {
            continue; /* in [grpc], for upstreams */
        }
        if (e->option->type == OPTION_URL) {
            url = e;
        } else {
            apply_entry(l, section, e, type, base);
        }
    }
    if (url != NULL) { /* it is held against the type, so that comes first */
        apply_entry(l, section, url, type, base);
    }
}

/* What [grpc] says for all upstreams, as far as own (NULL: nothing) does not
 * say it. */
static void apply_shared(const struct loader *l,
                         const struct draft_section *own,
                         struct upstream_config *u)
{
    const struct draft_section *section =
        draft_find_section(l->draft, SECTION_ALL_GRPC, "");
    if (section == NULL) {
        return;
    }
    for (const struct draft_entry *e = section->entries; e != NULL;
         e = e->next) {
        if (e->option->section == SECTION_UPSTREAM &&
            (own == NULL || draft_find(own, e->key) == NULL)) {
            apply_entry(l, section, e, UPSTREAM_GRPC, u);
        }
    }
}

/* The type of an upstream, by its type or its url; what is wrong with them is
 * told when they are read for good. */
static unsigned find_type(const struct loader *l,
                          const struct draft_section *section)
{
    char why[VALUE_TEXT_MAX];
    struct url url;
    unsigned type = type_unknown;
    const struct draft_entry *e = draft_find(section, "type");
    bool is_url = e == NULL;
    e = is_url ? draft_find(section, "url") : e;
    if (e == NULL) {
        return UPSTREAM_STANDALONE;
    }
    struct config_problems ignored;
    struct loader quiet = loader_quiet(l, &ignored);
    char *text = expand_references(e->value, l->source, e->place, &ignored);
    if (text != NULL && is_url && url_parse(text, &url) == NULL) {
        type = url.type;
    } else if (text != NULL && !is_url) {
        (void)value_word(e->option, text, &type, why);
    }
    free(text);
    loader_end(&quiet, l);
    return type;
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
    free(u->grpc.authority);
    free(u->grpc.service_config);
    for (size_t i = 0; i < u->grpc.n_methods; i++) {
        free(u->grpc.methods[i].service);
        free(u->grpc.methods[i].method);
        free(u->grpc.methods[i].path);
    }
    free(u->grpc.methods);
}

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
    size_t problems = l->problems->n;
    unsigned type = find_type(l, section);
    set_defaults(l, SECTION_UPSTREAM, type, u);
    if (draft_find(section, "type") != NULL) {
        u->type = type_unknown; /* until its word is read */
    }
    if (type == UPSTREAM_GRPC) {
        struct config_problems ignored;
        struct loader quiet = loader_quiet(l, &ignored);
        apply_shared(&quiet, section, u);
        loader_end(&quiet, l);
    }
    apply_section(l, section, type, u);
    if (l->problems->n == problems && u->type != type) {
        problem_add(l->problems, section->place,
                    "[upstream %s]: its type or url has changed while it was "
                    "read",
                    u->name);
    }
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
    /* Which type its upstream has is seen later, see link_config(). */
    set_defaults(l, SECTION_LISTENER, UPSTREAM_STANDALONE, listener);
    apply_section(l, section, UPSTREAM_STANDALONE, listener);
}

static void load_process(const struct loader *l,
                         const struct draft_section *section,
                         struct process_config *p)
{
    apply_section(l, section, UPSTREAM_STANDALONE, p);
    if (section->kind == SECTION_ALL_GRPC) { /* once, for its problems */
        struct upstream_config u = { 0 };
        apply_shared(l, NULL, &u);
        free_upstream(&u);
    }
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
    static const enum section_kind kinds[] = { SECTION_REDIAL, SECTION_ADMIN,
                                               SECTION_LOG, SECTION_TCP,
                                               SECTION_ALL_GRPC };
    for (size_t i = 0; i < sizeof(kinds) / sizeof(kinds[0]); i++) {
        set_defaults(l, kinds[i], UPSTREAM_STANDALONE, &c->process);
    }
    for (const struct draft_section *s = d->sections; s != NULL; s = s->next) {
        if (s->kind == SECTION_UPSTREAM) {
            load_upstream(l, s, &c->upstreams[c->n_upstreams++]);
        } else if (s->kind == SECTION_LISTENER) {
            load_listener(l, s, &c->listeners[c->n_listeners++]);
        } else {
            load_process(l, s, &c->process);
        }
    }
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
    if (!problems_lack_memory(l->problems)) {
        link_config(c, d);
        check_config(c, d);
        policies_build(c, d);
    }
    if (problems_lack_memory(&c->warnings)) {
        problem_no_memory(l->problems);
    }
    return c;
}

struct config *config_load(const struct config_source *source,
                           struct config_problems *problems)
{
    size_t before = problems->n;
    struct draft d;
    struct loader l = { .source = source, .draft = &d, .problems = problems };
    struct config *c = NULL;

    draft_init(&d, source, problems);
    /* A draft without memory is not whole; all others are worth reading on,
     * so that every problem is told. */
    if (!problems_lack_memory(problems)) {
        c = build(&d, &l);
    }
    draft_fini(&d);
    if (problems->n > before) {
        config_free(c);
        return NULL;
    }
    return c;
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
    config_problems_fini(&c->warnings);
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
