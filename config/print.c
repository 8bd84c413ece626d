/* The configuration in effect, as text that can be loaded again. */
#include <stdio.h>
#include <string.h>

#include "config/config.h"
#include "config/link.h"
#include "config/nodes.h"
#include "config/option.h"
#include "config/value.h"

struct printer {
    config_writer *write;
    void *context;
};

static void print(const struct printer *p, const char *text)
{
    p->write(p->context, text, strlen(text));
}

/* A plain "${" must not become a reference. */
static void print_value(const struct printer *p, const char *value)
{
    for (const char *plain = strstr(value, "${"); plain != NULL;
         plain = strstr(value, "${")) {
        p->write(p->context, value, (size_t)(plain - value));
        print(p, "$${");
        value = plain + 2;
    }
    print(p, value);
}

static void print_entry(const struct printer *p,
                        const char *key,
                        const char *value)
{
    print(p, key);
    print(p, " = ");
    print_value(p, value);
    print(p, "\n");
}

static void print_overrides(const struct printer *p,
                            const struct option *o,
                            const struct upstream_config *u)
{
    for (size_t i = 0; i < u->n_overrides; i++) {
        const struct replay_override *r = &u->overrides[i];
        enum option_type type = OPTION_OVERRIDE_BY_COMMAND;
        if (r->kind == OVERRIDE_PREFIX) {
            type = OPTION_OVERRIDE_BY_PREFIX;
        } else if (r->kind == OVERRIDE_SCRIPT) {
            type = OPTION_OVERRIDE_BY_SCRIPT;
        }
        if (o->type == type) {
            p->write(p->context, o->key, option_key_fixed(o));
            print_entry(p, r->text, replay_level_name(r->level));
        }
    }
}

static void print_string(const struct printer *p,
                         const struct option *o,
                         char *const *field)
{
    if (*field != NULL) {
        print_entry(p, o->key, o->type == OPTION_SECRET ? "***" : *field);
    }
}

enum {
    LIST_LINE_MAX = 160 /* a line of the file has at most 198 bytes */
};

/* A long list takes several lines. */
static void print_list(const struct printer *p,
                       const struct option *o,
                       const struct upstream_config *u)
{
    char text[NODES_TEXT_MAX];
    size_t used = 0;
    for (size_t i = 0; i < nodes_count(o, u); i++) {
        nodes_format(o, u, i, text);
        if (used > 0 && used + strlen(text) > LIST_LINE_MAX) {
            print(p, "\n");
            used = 0;
        }
        print(p, used == 0 ? o->key : ", ");
        print(p, used == 0 ? " = " : "");
        print_value(p, text);
        used += strlen(text) + 2;
    }
    print(p, used > 0 ? "\n" : "");
}

static bool is_empty_address(const struct option *o, const void *field)
{
    const struct address *a = field;
    return o->type == OPTION_CONNECT_ADDRESS && a->host[0] == '\0';
}

static void print_reference(const struct printer *p,
                            const struct option *o,
                            const struct listener_config *l)
{
    if (strcmp(o->key, "upstream") == 0) {
        print_entry(p, o->key, l->upstream->name);
    } else if (l->protocol == LISTENER_AUTO) {
        print_entry(p, o->key, l->grpc_upstream->name);
    }
}

static void print_option(const struct printer *p,
                         const struct option *o,
                         const void *base)
{
    char text[VALUE_TEXT_MAX];
    const void *field = (const char *)base + o->offset;
    if (o->type == OPTION_URL /* its parts have keys of their own */ ||
        o->type == OPTION_TARGET || is_empty_address(o, field)) {
        return;
    }
    if (option_is_override(o)) {
        print_overrides(p, o, base);
    } else if (option_is_list(o)) {
        print_list(p, o, base);
    } else if (o->type == OPTION_REFERENCE) {
        print_reference(p, o, base);
    } else if (option_is_string(o)) {
        print_string(p, o, field);
    } else {
        value_format(o, field, text);
        print_entry(p, o->key, text);
    }
}

/* Whether an earlier key of the section, for one of these types, has the same
 * field: with protocol = auto there is one limit with two names. */
static bool is_printed(size_t row, unsigned types)
{
    const struct option *o = option_get(row);
    for (size_t i = 0; i < row && o->size > 0; i++) {
        const struct option *other = option_get(i);
        if (other->section == o->section && other->size > 0 &&
            other->offset == o->offset &&
            (other->upstream_types & types) != 0) {
            return true;
        }
    }
    return false;
}

/* types is a set: 1 << enum upstream_type. */
static void print_section(const struct printer *p,
                          enum section_kind kind,
                          const char *name,
                          unsigned types,
                          const void *base)
{
    print(p, "[");
    print(p, section_get(kind)->name);
    if (name != NULL) {
        print(p, " ");
        print(p, name);
    }
    print(p, "]\n");
    for (size_t i = 0; i < option_count(); i++) {
        const struct option *o = option_get(i);
        if (o->section == kind && (o->upstream_types & types) != 0 &&
            !is_printed(i, types)) {
            print_option(p, o, base);
        }
    }
}

static void print_process(const struct printer *p,
                          enum section_kind kind,
                          const struct config *c)
{
    print_section(p, kind, NULL, 1u << UPSTREAM_STANDALONE, &c->process);
}

static bool has_grpc(const struct config *c)
{
    for (size_t i = 0; i < c->n_upstreams; i++) {
        if (c->upstreams[i].type == UPSTREAM_GRPC) {
            return true;
        }
    }
    return false;
}

void config_print(const struct config *c, config_writer *write, void *context)
{
    struct printer p = { .write = write, .context = context };
    print_process(&p, SECTION_REDIAL, c);
    print(&p, "\n");
    print_process(&p, SECTION_ADMIN, c);
    print(&p, "\n");
    print_process(&p, SECTION_LOG, c);
    print(&p, "\n");
    print_process(&p, SECTION_TCP, c);
    if (has_grpc(c)) {
        print(&p, "\n");
        print_process(&p, SECTION_ALL_GRPC, c);
    }
    for (size_t i = 0; i < c->n_listeners; i++) {
        print(&p, "\n");
        print_section(&p, SECTION_LISTENER, c->listeners[i].name,
                      listener_types(&c->listeners[i]), &c->listeners[i]);
    }
    for (size_t i = 0; i < c->n_upstreams; i++) {
        print(&p, "\n");
        print_section(&p, SECTION_UPSTREAM, c->upstreams[i].name,
                      1u << c->upstreams[i].type, &c->upstreams[i]);
    }
}
