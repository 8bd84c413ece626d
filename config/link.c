#include "config/link.h"

#include <assert.h>
#include <stdlib.h>
#include <string.h>

#include "config/address.h"
#include "config/check.h"
#include "config/expand.h"
#include "config/nodes.h"
#include "config/option.h"
#include "config/problem.h"
#include "config/value.h"

unsigned listener_types(const struct listener_config *l)
{
    unsigned types = 0;
    types |= l->upstream != NULL ? 1u << l->upstream->type : 0;
    types |= l->grpc_upstream != NULL ? 1u << l->grpc_upstream->type : 0;
    return types;
}

static const struct upstream_config *find_upstream(const struct config *c,
                                                   const char *name)
{
    for (size_t i = 0; i < c->n_upstreams; i++) {
        if (strcmp(c->upstreams[i].name, name) == 0) {
            return &c->upstreams[i];
        }
    }
    return NULL;
}

static void report_no_upstream(const struct config *c,
                               const struct draft *d,
                               const char *place,
                               const char *name)
{
    char hint[SUGGESTION_TEXT_MAX];
    struct suggestion s;
    suggestion_init(&s, name, strlen(name));
    for (size_t i = 0; i < c->n_upstreams; i++) {
        suggestion_offer(&s, c->upstreams[i].name);
    }
    suggestion_format(&s, hint);
    problem_add(d->problems, place, "there is no section [upstream %.63s]%s",
                name, hint);
}

/* NULL: there is none, which is then a problem already. */
static const struct upstream_config *find_by_name(
    const struct config *c,
    const struct draft *d,
    const struct draft_entry *reference)
{
    char *name = expand_references(reference->value, d->source,
                                   reference->place, d->problems);
    if (name == NULL) {
        return NULL;
    }
    const struct upstream_config *u = find_upstream(c, name);
    if (u == NULL) {
        report_no_upstream(c, d, reference->place, name);
    }
    free(name);
    return u;
}

/* Which upstreams a listener may be for. */
enum wanted {
    WANTED_ANY,
    WANTED_REDIS,
    WANTED_GRPC
};

static bool is_wanted(const struct upstream_config *u, enum wanted wanted)
{
    return wanted == WANTED_ANY || u->type == type_unknown ||
           (u->type == UPSTREAM_GRPC) == (wanted == WANTED_GRPC);
}

/* The upstream that is meant without a name: default, or the only one. n says
 * how many there are. */
static const struct upstream_config *find_unnamed(const struct config *c,
                                                  enum wanted wanted,
                                                  size_t *n)
{
    const struct upstream_config *found = NULL;
    *n = 0;
    for (size_t i = 0; i < c->n_upstreams; i++) {
        const struct upstream_config *u = &c->upstreams[i];
        if (!is_wanted(u, wanted)) {
            continue;
        }
        if (strcmp(u->name, "default") == 0) {
            *n = 1;
            return u;
        }
        found = u;
        (*n)++;
    }
    return *n == 1 ? found : NULL;
}

static const char *type_words(enum wanted wanted)
{
    return wanted == WANTED_GRPC ? "grpc" : "standalone, cluster or sentinel";
}

static const struct upstream_config *find_for(const struct config *c,
                                              const struct draft *d,
                                              const struct listener_config *l,
                                              const char *key,
                                              enum wanted wanted)
{
    const struct draft_section *section =
        draft_section_of(d, SECTION_LISTENER, l->name);
    const struct draft_entry *reference = draft_find(section, key);
    const struct upstream_config *u = NULL;
    size_t n = 0;
    if (reference != NULL) {
        u = find_by_name(c, d, reference);
        if (u != NULL && !is_wanted(u, wanted)) {
            problem_add(d->problems, reference->place,
                        "with protocol = %s, %s must be one of type %s; "
                        "[upstream %s] has type = %s",
                        word_text(words_protocol, l->protocol), key,
                        type_words(wanted), u->name,
                        word_text(words_upstream_type, u->type));
        }
        return u;
    }
    u = find_unnamed(c, wanted, &n);
    if (u == NULL && n > 1) {
        problem_add(d->problems, section->place,
                    "[listener %s] must say which of the upstreams it means: "
                    "%s = %s",
                    l->name, key, c->upstreams[0].name);
    } else if (u == NULL && wanted != WANTED_ANY && c->n_upstreams > 0) {
        problem_add(d->problems, draft_place(section, "protocol"),
                    "with protocol = %s, [listener %s] needs an upstream of "
                    "type %s, and there is none",
                    word_text(words_protocol, l->protocol), l->name,
                    type_words(wanted));
    }
    return u;
}

static void link_listener(const struct config *c,
                          struct listener_config *l,
                          const struct draft *d)
{
    const struct draft_section *section =
        draft_section_of(d, SECTION_LISTENER, l->name);
    const struct draft_entry *protocol = draft_find(section, "protocol");
    enum wanted wanted = WANTED_ANY;
    if (protocol != NULL) {
        wanted = l->protocol == LISTENER_GRPC ? WANTED_GRPC : WANTED_REDIS;
    }
    l->upstream = find_for(c, d, l, "upstream", wanted);
    if (protocol == NULL && l->upstream != NULL &&
        l->upstream->type == UPSTREAM_GRPC) {
        l->protocol = LISTENER_GRPC;
    }
    if (l->protocol == LISTENER_GRPC) {
        l->grpc_upstream = l->upstream;
    } else if (l->protocol == LISTENER_AUTO) {
        l->grpc_upstream = find_for(c, d, l, "grpc_upstream", WANTED_GRPC);
    }
    if (l->protocol != LISTENER_AUTO &&
        draft_find(section, "grpc_upstream") != NULL) {
        problem_add(d->problems, draft_place(section, "grpc_upstream"),
                    "grpc_upstream is only for protocol = auto; [listener %s] "
                    "has protocol = %s",
                    l->name, word_text(words_protocol, l->protocol));
    }
}

/* Whether a key of this section sets the field. */
static bool is_set(const struct draft_section *section, const struct option *o)
{
    for (const struct draft_entry *e = section->entries; e != NULL;
         e = e->next) {
        if (e->option->offset == o->offset && e->option->size == o->size) {
            return true;
        }
    }
    return false;
}

/* Defaults that a listener has only for gRPC. */
static void set_grpc_defaults(struct listener_config *l,
                              const struct draft_section *section)
{
    char why[VALUE_TEXT_MAX];
    for (size_t i = 0; i < option_count(); i++) {
        const struct option *o = option_get(i);
        if (o->section == SECTION_LISTENER && option_is_only_grpc(o) &&
            o->fallback != NULL && !is_set(section, o)) {
            void *field = (char *)l + o->offset;
            enum value_result result = value_parse(o, o->fallback, field, why);
            assert(result == VALUE_OK); /* none is a string */
            (void)result;
        }
    }
}

/* Clients on other machines are trusted less (grpc.md §2.1). */
static void limit_early_closes(struct listener_config *l,
                               const struct draft_section *section)
{
    if (address_is_local(&l->address)) {
        return;
    }
    if (draft_find(section, "early_close_burst") == NULL) {
        l->grpc.early_close_burst = 1000;
    }
    if (draft_find(section, "early_close_rate") == NULL) {
        l->grpc.early_close_rate = 100;
    }
}

static void complete_listener(struct listener_config *l, const struct draft *d)
{
    const struct draft_section *section =
        draft_section_of(d, SECTION_LISTENER, l->name);
    if (l->protocol == LISTENER_GRPC) {
        set_grpc_defaults(l, section);
    }
    limit_early_closes(l, section);
    bool upstream_has_password =
        l->upstream != NULL && l->upstream->password != NULL;
    if (draft_find(section, "auth") == NULL &&
        (l->password != NULL || upstream_has_password)) {
        l->auth = AUTH_OWN;
    }
}

void link_config(struct config *c, const struct draft *d)
{
    for (size_t i = 0; i < c->n_listeners; i++) {
        link_listener(c, &c->listeners[i], d);
        complete_listener(&c->listeners[i], d);
    }
    for (size_t i = 0; i < c->n_upstreams; i++) {
        struct upstream_config *u = &c->upstreams[i];
        if (!u->retry_on_timeout) {
            u->retry_on_error &= ~(uint32_t)RETRY_ERROR_TIMEOUT;
        }
        nodes_set_ports(u);
    }
    c->process.admin = c->process.admin_address.host[0] != '\0';
}
