#include "config/draft.h"

#include <assert.h>
#include <stdio.h>
#include <string.h>

#include "config/ini.h"
#include "config/problem.h"
#include "config/unknown.h"

static const char default_name[] = "default";

enum {
    PLACE_TEXT_MAX = 512,
    FILE_MAX = 1024 * 1024,
    SECTIONS_MAX = 1000,
    KEYS_MAX = 1100 /* every option, and 1000 overrides */
};

const struct draft_section *draft_find_section(const struct draft *d,
                                               enum section_kind kind,
                                               const char *name)
{
    const struct draft_section *s = d->sections;
    while (s != NULL && (s->kind != kind || strcmp(s->name, name) != 0)) {
        s = s->next;
    }
    return s;
}

const struct draft_section *draft_section_of(const struct draft *d,
                                             enum section_kind kind,
                                             const char *name)
{
    const struct draft_section *s = draft_find_section(d, kind, name);
    assert(s != NULL);
    return s;
}

static struct draft_entry *find_entry(const struct draft_section *section,
                                      const char *key)
{
    struct draft_entry *e = section->entries;
    while (e != NULL && strcmp(e->key, key) != 0) {
        e = e->next;
    }
    return e;
}

const struct draft_entry *draft_find(const struct draft_section *section,
                                     const char *key)
{
    return find_entry(section, key);
}

const char *draft_place(const struct draft_section *section, const char *key)
{
    const struct draft_entry *e = find_entry(section, key);
    return e != NULL ? e->place : section->place;
}

static const char *copy(struct draft *d, const char *text)
{
    const char *result = arena_copy(&d->arena, text, strlen(text));
    if (result == NULL) {
        problem_no_memory(d->problems);
    }
    return result;
}

/* Returns NULL when there is no room, which is then a problem already. */
static struct draft_section *add_section(struct draft *d,
                                         enum section_kind kind,
                                         const char *name,
                                         const char *place,
                                         enum layer layer)
{
    size_t count = 0;
    struct draft_section **tail = &d->sections;
    for (; *tail != NULL; tail = &(*tail)->next) {
        count++;
    }
    if (count == SECTIONS_MAX) {
        problem_add(d->problems, place, "there are more than %d sections",
                    (int)SECTIONS_MAX);
        return NULL;
    }
    struct draft_section *s = arena_get(&d->arena, sizeof(*s));
    if (s == NULL) {
        problem_no_memory(d->problems);
        return NULL;
    }
    s->kind = kind;
    s->name = copy(d, name);
    s->place = copy(d, place);
    s->layer = layer;
    if (s->name == NULL || s->place == NULL) {
        return NULL;
    }
    *tail = s;
    return s;
}

static struct draft_section *get_section(struct draft *d,
                                         enum section_kind kind,
                                         const char *name,
                                         const char *place,
                                         enum layer layer)
{
    for (struct draft_section *s = d->sections; s != NULL; s = s->next) {
        if (s->kind == kind && strcmp(s->name, name) == 0) {
            return s;
        }
    }
    return add_section(d, kind, name, place, layer);
}

/* Keys --- */

/* Take a key out as far as earlier layers gave it. */
static void remove_entries(struct draft_section *section,
                           const char *key,
                           enum layer layer)
{
    struct draft_entry **at = &section->entries;
    while (*at != NULL) {
        if ((*at)->layer < layer && strcmp((*at)->key, key) == 0) {
            *at = (*at)->next;
        } else {
            at = &(*at)->next;
        }
    }
}

/* A URL says all of this, or that there is none: another server must not be
 * sent the credentials that the file has for the first one. */
static void make_way_for_url(struct draft_section *section, enum layer layer)
{
    static const char *const keys[] = {
        "type",
        "address",
        "nodes",
        "target",
        "username",
        "password",
        "master_name",
        "db",
        "url",
        "sentinel_username",
        "sentinel_password",
    };
    for (size_t i = 0; i < sizeof(keys) / sizeof(keys[0]); i++) {
        remove_entries(section, keys[i], layer);
    }
}

/* A new entry at the end. Returns NULL when there is no room, which is then a
 * problem already. */
static struct draft_entry *append_entry(struct draft *d,
                                        struct draft_section *section,
                                        const char *place)
{
    size_t count = 0;
    struct draft_entry **tail = &section->entries;
    for (; *tail != NULL; tail = &(*tail)->next) {
        count++;
    }
    if (count == KEYS_MAX) {
        problem_add(d->problems, place, "section [%s %s] has more than %d keys",
                    section_get(section->kind)->name, section->name,
                    (int)KEYS_MAX);
        return NULL;
    }
    *tail = arena_get(&d->arena, sizeof(**tail));
    if (*tail == NULL) {
        problem_no_memory(d->problems);
        return NULL;
    }
    (*tail)->key = "";
    return *tail;
}

/* Take all lines of a list but the first, which is then to be replaced. */
static struct draft_entry *keep_first(struct draft_section *section,
                                      const char *key)
{
    struct draft_entry *first = find_entry(section, key);
    struct draft_entry **at = first != NULL ? &first->next : NULL;
    while (at != NULL && *at != NULL) {
        if (strcmp((*at)->key, key) == 0) {
            *at = (*at)->next;
        } else {
            at = &(*at)->next;
        }
    }
    return first;
}

/* Put a key into a section; a later layer replaces an earlier one. */
static void add_entry(struct draft *d,
                      struct draft_section *section,
                      const char *key_text,
                      const char *value,
                      const char *place,
                      enum layer layer)
{
    const struct option *o = option_find_in(section->kind, key_text);
    if (o == NULL) {
        unknown_key(d->problems, section->kind, key_text, place);
        return;
    }
    char *key = arena_copy(&d->arena, key_text, strlen(key_text));
    if (key == NULL) {
        problem_no_memory(d->problems);
        return;
    }
    if (option_is_open(o)) {
        option_spell_key(o, key);
        const char *wrong = option_key_wrong(o, key);
        if (wrong != NULL) {
            problem_add(d->problems, place, "key '%.100s': %s", key, wrong);
            return;
        }
    }
    if (o->type == OPTION_URL) {
        make_way_for_url(section, layer);
    } else if (o->type == OPTION_TARGET) {
        remove_entries(section, "nodes", layer); /* the same in other words */
    } else if (o->type == OPTION_NODES) {
        remove_entries(section, "target", layer);
    }
    struct draft_entry *e = find_entry(section, key);
    if (option_is_list(o) && layer == LAYER_FILE) {
        e = NULL; /* one more line of the list */
    } else if (option_is_list(o)) {
        e = keep_first(section, key);
    }
    if (e != NULL && layer == LAYER_FILE) {
        problem_add(d->problems, place, "'%.100s' is already given at %s", key,
                    e->place);
        return;
    }
    if (e == NULL) {
        e = append_entry(d, section, place);
        if (e == NULL) {
            return;
        }
    }
    e->option = o;
    e->key = key;
    e->value = copy(d, value);
    e->place = copy(d, place);
    e->layer = layer;
}

/* Names of sections --- */

/* What is wrong with the name of a section, or NULL. */
static const char *check_name(const char *name)
{
    static const char chars[] = "abcdefghijklmnopqrstuvwxyz"
                                "ABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789_-";
    size_t len = strlen(name);
    if (len == 0 || len > OPTION_NAME_MAX || strspn(name, chars) != len) {
        return "a name has 1 to 63 letters, digits, '-' and '_'";
    }
    if (strcmp(name, "replay") == 0) {
        return "the name 'replay' would be taken for a key in --set";
    }
    return NULL;
}

/* The file --- */

struct file_reader {
    struct draft *draft;
    const char *file_name;
    struct draft_section *current; /* NULL: before the first, or unknown */
    bool any_section;
    char place[PLACE_TEXT_MAX];
};

static const char *set_place(struct file_reader *r, unsigned line)
{
    (void)snprintf(r->place, sizeof(r->place), "%.400s:%u", r->file_name, line);
    return r->place;
}

static void on_file_problem(void *context, unsigned line, const char *text)
{
    struct file_reader *r = context;
    problem_add(r->draft->problems, set_place(r, line), "%s", text);
}

static const char *skip_space(const char *text)
{
    return text + strspn(text, " \t");
}

static void on_file_section(void *context, unsigned line, const char *text)
{
    struct file_reader *r = context;
    struct draft *d = r->draft;
    const char *place = set_place(r, line);
    char name[128];

    r->any_section = true;
    r->current = NULL;
    text = skip_space(text);
    size_t kind_len = strcspn(text, " \t");
    enum section_kind kind = section_find(text, kind_len);
    if (kind == SECTION_COUNT) {
        unknown_section(d->problems, text, kind_len, place);
        return;
    }
    (void)snprintf(name, sizeof(name), "%s", skip_space(text + kind_len));
    for (size_t n = strlen(name);
         n > 0 && (name[n - 1] == ' ' || name[n - 1] == '\t'); n--) {
        name[n - 1] = '\0';
    }
    if (!section_get(kind)->named && name[0] != '\0') {
        problem_add(d->problems, place, "section [%s] has no name: write [%s]",
                    section_get(kind)->name, section_get(kind)->name);
        return;
    }
    if (section_get(kind)->named && name[0] == '\0') {
        (void)snprintf(name, sizeof(name), "%s", default_name);
    }
    const char *wrong = name[0] != '\0' ? check_name(name) : NULL;
    if (wrong != NULL) {
        problem_add(d->problems, place, "section [%s]: %s", text, wrong);
        return;
    }
    const struct draft_section *first = draft_find_section(d, kind, name);
    if (first != NULL) {
        problem_add(d->problems, place,
                    "section [%s] is already at %s; put its keys there", text,
                    first->place);
    }
    r->current = get_section(d, kind, name, place, LAYER_FILE);
}

static void on_file_entry(void *context,
                          unsigned line,
                          const char *key,
                          const char *value)
{
    struct file_reader *r = context;
    const char *place = set_place(r, line);
    if (!r->any_section) {
        problem_add(r->draft->problems, place,
                    "'%.100s' stands before the first section; begin with one "
                    "such as [upstream default]",
                    key);
    } else if (r->current != NULL) {
        add_entry(r->draft, r->current, key, value, place, LAYER_FILE);
    }
}

static void read_file(struct draft *d, const struct config_source *source)
{
    struct file_reader r = {
        .draft = d,
        .file_name = source->file_name != NULL ? source->file_name : "file",
    };
    struct ini_sink sink = { .on_section = on_file_section,
                             .on_entry = on_file_entry,
                             .on_problem = on_file_problem,
                             .context = &r };
    if (source->text_len > FILE_MAX) {
        problem_add(d->problems, r.file_name, "the file is larger than 1 MiB");
        return;
    }
    ini_read(source->text, source->text_len, &sink);
}

/* The command line --- */

/* The section that is meant without a name: "default", or the only one, or a
 * new one. NULL: there are several, which is then a problem already. */
static struct draft_section *unnamed_section(struct draft *d,
                                             enum section_kind kind,
                                             const char *place)
{
    if (!section_get(kind)->named) {
        return get_section(d, kind, "", place, LAYER_ARGUMENT);
    }
    struct draft_section *only = NULL;
    size_t count = 0;
    for (struct draft_section *s = d->sections; s != NULL; s = s->next) {
        if (s->kind == kind) {
            count++;
            only = s;
            if (strcmp(s->name, default_name) == 0) {
                return s;
            }
        }
    }
    if (count > 1) {
        problem_add(d->problems, place,
                    "which %s? There are several and none is named 'default'; "
                    "write --set %s.NAME.key=value",
                    section_get(kind)->name, section_get(kind)->name);
        return NULL;
    }
    return count == 1
               ? only
               : add_section(d, kind, default_name, place, LAYER_ARGUMENT);
}

static void read_arguments(struct draft *d, const struct config_source *source)
{
    struct draft_section *s = NULL;
    if (source->url != NULL) {
        s = unnamed_section(d, SECTION_UPSTREAM, "command line");
        if (s != NULL) {
            add_entry(d, s, "url", source->url, "command line", LAYER_ARGUMENT);
        }
    }
    if (source->listen != NULL) {
        s = unnamed_section(d, SECTION_LISTENER, "--listen");
        if (s != NULL) {
            add_entry(d, s, "address", source->listen, "--listen",
                      LAYER_ARGUMENT);
        }
    }
    if (source->admin != NULL) {
        s = unnamed_section(d, SECTION_ADMIN, "--admin");
        if (s != NULL) {
            add_entry(d, s, "address", source->admin, "--admin",
                      LAYER_ARGUMENT);
        }
    }
}

/* The section [kind name] that --set changes; it must be there already. */
static struct draft_section *named_section(struct draft *d,
                                           enum section_kind kind,
                                           const char *name,
                                           const char *place)
{
    char hint[SUGGESTION_TEXT_MAX];
    struct suggestion suggestion;
    suggestion_init(&suggestion, name, strlen(name));
    for (struct draft_section *s = d->sections; s != NULL; s = s->next) {
        if (s->kind == kind) {
            if (strcmp(s->name, name) == 0) {
                return s;
            }
            suggestion_offer(&suggestion, s->name);
        }
    }
    if (strcmp(name, default_name) == 0) {
        return add_section(d, kind, name, place, LAYER_SET);
    }
    suggestion_format(&suggestion, hint);
    problem_add(d->problems, place,
                "there is no section [%s %.63s] to change%s",
                section_get(kind)->name, name, hint);
    return NULL;
}

enum {
    SET_KEY_MAX = 400
};

/* rest is what stands between "upstream." and "=": KEY or NAME.KEY. A key may
 * hold dots; no name is the beginning of such a key. */
static void read_set_named(struct draft *d,
                           enum section_kind kind,
                           const char *rest,
                           const char *value,
                           const char *place)
{
    const char *dot = strchr(rest, '.');
    const char *key = rest;
    struct draft_section *s = NULL;
    if (option_find(kind, rest) != NULL || dot == NULL) {
        s = unnamed_section(d, kind, place);
    } else {
        char name[SET_KEY_MAX];
        (void)snprintf(name, sizeof(name), "%.*s", (int)(dot - rest), rest);
        key = dot + 1;
        s = named_section(d, kind, name, place);
    }
    if (s != NULL) {
        add_entry(d, s, key, value, place, LAYER_SET);
    }
}

static void read_set(struct draft *d, const char *text)
{
    static const char form[] =
        "write --set section.key=value, such as --set upstream.deadline=5s";
    char target[SET_KEY_MAX];
    char place[SET_KEY_MAX + 8];
    const char *equals = strchr(text, '=');
    if (equals == NULL || equals == text ||
        (size_t)(equals - text) >= sizeof(target)) {
        /* The text is not shown: it may be a password gone astray. */
        problem_add(d->problems, "--set", "%s", form);
        return;
    }
    size_t len = (size_t)(equals - text);
    memcpy(target, text, len);
    while (len > 0 && (target[len - 1] == ' ' || target[len - 1] == '\t')) {
        len--;
    }
    target[len] = '\0';
    (void)snprintf(place, sizeof(place), "--set %s", target);
    const char *value = skip_space(equals + 1);

    size_t kind_len = strcspn(target, ".");
    if (target[kind_len] == '\0' || target[kind_len + 1] == '\0') {
        problem_add(d->problems, place, "%s", form);
        return;
    }
    enum section_kind kind = section_find(target, kind_len);
    const char *rest = target + kind_len + 1;
    if (kind == SECTION_COUNT) {
        unknown_section(d->problems, target, kind_len, place);
    } else if (section_get(kind)->named) {
        read_set_named(d, kind, rest, value, place);
    } else {
        struct draft_section *s = unnamed_section(d, kind, place);
        if (s != NULL) {
            add_entry(d, s, rest, value, place, LAYER_SET);
        }
    }
}

static size_t count_sections(const struct draft *d, enum section_kind kind)
{
    size_t count = 0;
    for (const struct draft_section *s = d->sections; s != NULL; s = s->next) {
        count += s->kind == kind ? 1 : 0;
    }
    return count;
}

void draft_init(struct draft *d,
                const struct config_source *source,
                struct config_problems *problems)
{
    size_t before = problems->n;
    const char *origin =
        source->file_name != NULL ? source->file_name : "command line";
    *d = (struct draft){ .source = source, .problems = problems };
    if (source->text != NULL) {
        read_file(d, source);
    }
    read_arguments(d, source);
    for (size_t i = 0; i < source->n_sets; i++) {
        read_set(d, source->sets[i]);
    }
    /* With other problems, this one may only follow from them. */
    if (count_sections(d, SECTION_UPSTREAM) == 0 && problems->n == before) {
        problem_add(problems, origin,
                    "no server to speak to: type 'redial "
                    "redis://127.0.0.1:6379', or name a file with -c that has "
                    "a section [upstream default]");
    }
    if (count_sections(d, SECTION_LISTENER) == 0) {
        (void)add_section(d, SECTION_LISTENER, default_name, origin,
                          LAYER_FILE);
    }
}

void draft_fini(struct draft *d)
{
    arena_fini(&d->arena);
    *d = (struct draft){ 0 };
}
