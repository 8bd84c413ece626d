/* The configuration in effect, as text that can be loaded again. */
#include <stdio.h>
#include <string.h>

#include "config/config.h"
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

static void print_entry(const struct printer *p,
                        const char *key,
                        const char *value)
{
    print(p, key);
    print(p, " = ");
    /* A plain "${" must not become a reference. */
    for (const char *plain = strstr(value, "${"); plain != NULL;
         plain = strstr(value, "${")) {
        p->write(p->context, value, (size_t)(plain - value));
        print(p, "$${");
        value = plain + 2;
    }
    print(p, value);
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

static void print_option(const struct printer *p,
                         const struct option *o,
                         const void *base)
{
    char text[VALUE_TEXT_MAX];
    const void *field = (const char *)base + o->offset;
    if (o->type == OPTION_URL) {
        return; /* its parts have keys of their own */
    }
    if (option_is_override(o)) {
        print_overrides(p, o, base);
    } else if (o->type == OPTION_REFERENCE) {
        const struct upstream_config *const *upstream = field;
        print_entry(p, o->key, (*upstream)->name);
    } else if (o->type == OPTION_USERNAME || o->type == OPTION_SECRET) {
        print_string(p, o, field);
    } else {
        value_format(o, field, text);
        print_entry(p, o->key, text);
    }
}

static void print_section(const struct printer *p,
                          enum section_kind kind,
                          const char *name,
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
        if (option_get(i)->section == kind) {
            print_option(p, option_get(i), base);
        }
    }
}

void config_print(const struct config *c, config_writer *write, void *context)
{
    struct printer p = { .write = write, .context = context };
    print_section(&p, SECTION_REDIAL, NULL, &c->process);
    print(&p, "\n");
    print_section(&p, SECTION_ADMIN, NULL, &c->process);
    print(&p, "\n");
    print_section(&p, SECTION_LOG, NULL, &c->process);
    print(&p, "\n");
    print_section(&p, SECTION_TCP, NULL, &c->process);
    for (size_t i = 0; i < c->n_listeners; i++) {
        print(&p, "\n");
        print_section(&p, SECTION_LISTENER, c->listeners[i].name,
                      &c->listeners[i]);
    }
    for (size_t i = 0; i < c->n_upstreams; i++) {
        print(&p, "\n");
        print_section(&p, SECTION_UPSTREAM, c->upstreams[i].name,
                      &c->upstreams[i]);
    }
}
