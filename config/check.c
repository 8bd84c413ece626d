#include "config/check.h"

#include <assert.h>
#include <stdio.h>
#include <string.h>

#include "config/address.h"
#include "config/link.h"
#include "config/nodes.h"
#include "config/option.h"
#include "config/problem.h"
#include "config/url.h"

static void check_public(const struct address *a,
                         bool bind_public,
                         const struct draft_section *section,
                         const struct draft *d)
{
    if (bind_public || address_is_local(a)) {
        return;
    }
    char text[ADDRESS_TEXT_MAX];
    address_format(a, text);
    const char *kind = section_get(section->kind)->name;
    bool has_name = section->name[0] != '\0';
    problem_add(d->problems, draft_place(section, "address"),
                "other machines can reach %s; if that is meant, say "
                "bind_public = yes in section [%s%s%s] (or --set "
                "%s%s%s.bind_public=yes)",
                text, kind, has_name ? " " : "", section->name, kind,
                has_name ? "." : "", section->name);
}

static void check_announce(const struct listener_config *l,
                           const struct draft_section *section,
                           const struct draft *d)
{
    if (draft_find(section, "announce") == NULL) {
        return;
    }
    const char *place = draft_place(section, "announce");
    if (l->announce.is_unix) {
        problem_add(d->problems, place,
                    "announce is what cluster clients are told: host:port, "
                    "not a Unix socket");
    }
    const struct upstream_config *u = l->upstream;
    if (u != NULL && u->type != UPSTREAM_CLUSTER && u->type != type_unknown) {
        problem_add(d->problems, place,
                    "announce is only for clients of a cluster; [upstream %s] "
                    "has type = %s; take it out",
                    u->name, word_text(words_upstream_type, u->type));
    }
}

/* Keys that clients of another protocol have. Two of them have words of their
 * own. */
static void check_protocol_keys(const struct listener_config *l,
                                const struct draft_section *section,
                                const struct draft *d)
{
    bool is_known = l->upstream != NULL && l->upstream->type != type_unknown;
    if (!is_known && draft_find(section, "protocol") == NULL) {
        return;
    }
    for (const struct draft_entry *e = section->entries; e != NULL;
         e = e->next) {
        const struct option *o = e->option;
        bool for_grpc =
            option_find_for(SECTION_LISTENER, o->key, UPSTREAM_GRPC) != NULL;
        bool for_redis = !option_is_only_grpc(o);
        if ((for_grpc && l->protocol != LISTENER_REDIS) ||
            (for_redis && l->protocol != LISTENER_GRPC) ||
            strcmp(o->key, "announce") == 0 ||
            strcmp(o->key, "grpc_upstream") == 0) {
            continue;
        }
        problem_add(d->problems, e->place,
                    "%s is only for protocol = %s or auto; [listener %s] has "
                    "protocol = %s: take it out",
                    e->key, for_grpc ? "grpc" : "redis", l->name,
                    word_text(words_protocol, l->protocol));
    }
    if (draft_find(section, "clients_max") != NULL &&
        draft_find(section, "max_connections") != NULL) {
        problem_add(d->problems, draft_place(section, "max_connections"),
                    "max_connections and clients_max are one limit; keep one "
                    "of them");
    }
}

static void check_listener(const struct config *c,
                           size_t i,
                           const struct draft *d)
{
    const struct listener_config *l = &c->listeners[i];
    const struct draft_section *section =
        draft_section_of(d, SECTION_LISTENER, l->name);
    char text[ADDRESS_TEXT_MAX];

    check_public(&l->address, l->bind_public, section, d);
    if (l->username != NULL && draft_find(section, "password") == NULL) {
        problem_add(d->problems, draft_place(section, "username"),
                    "a username needs a password");
    }
    if (l->password != NULL && l->auth != AUTH_OWN) {
        problem_add(d->problems, draft_place(section, "auth"),
                    "the password of [listener %s] is checked only with auth = "
                    "own",
                    l->name);
    }
    check_announce(l, section, d);
    check_protocol_keys(l, section, d);
    for (size_t k = 0; k < i; k++) {
        const struct listener_config *other = &c->listeners[k];
        bool chosen_by_kernel = !l->address.is_unix && l->address.port == 0;
        if (address_equal(&l->address, &other->address) && !chosen_by_kernel) {
            address_format(&l->address, text);
            problem_add(d->problems, draft_place(section, "address"),
                        "[listener %s] has the address %s already", other->name,
                        text);
        }
    }
}

/* Where a value of an upstream comes from: its key, or the url. */
static const char *upstream_place(const struct draft_section *section,
                                  const char *key)
{
    return draft_place(section, draft_find(section, key) != NULL ? key : "url");
}

/* "cluster or sentinel": the types that have an option. */
static void list_types(const struct option *o, char text[64])
{
    size_t used = 0;
    text[0] = '\0';
    for (const struct word *w = words_upstream_type; w->text != NULL; w++) {
        if (option_is_for(o, w->value)) {
            int n = snprintf(text + used, 64 - used, "%s%s",
                             used > 0 ? " or " : "", w->text);
            used += (size_t)n;
        }
    }
}

/* Keys that this type of upstream does not have. */
static void check_type_keys(const struct upstream_config *u,
                            const struct draft_section *section,
                            const struct draft *d)
{
    for (const struct draft_entry *e = section->entries; e != NULL;
         e = e->next) {
        const struct option *o = option_for_type(e->option, u->type);
        if (option_is_for(o, u->type)) {
            continue;
        }
        char types[64];
        const char *cure = "take it out";
        if (strcmp(e->key, "address") == 0) {
            cure = "its servers stand in nodes = host:port, host:port";
        } else if (draft_find(section, "type") == NULL &&
                   draft_find(section, "url") == NULL) {
            cure = "say which type it is";
        }
        list_types(o, types);
        problem_add(d->problems, e->place,
                    "%s is only for type = %s; [upstream %s] has type = %s: %s",
                    e->key, types, u->name,
                    word_text(words_upstream_type, u->type), cure);
    }
}

/* What says where the servers are. A key for another type of upstream is told
 * already, with its cure. */
static void check_place(const struct upstream_config *u,
                        const struct draft_section *section,
                        const struct draft *d)
{
    bool place_given = draft_find(section, "address") != NULL ||
                       draft_find(section, "nodes") != NULL ||
                       draft_find(section, "target") != NULL ||
                       draft_find(section, "url") != NULL;
    if (!place_given && u->type == UPSTREAM_STANDALONE) {
        problem_add(d->problems, section->place,
                    "[upstream %s] has no address; write address = host:port "
                    "or url = redis://host:port, or give a URL on the command "
                    "line",
                    u->name);
    } else if (!place_given) {
        problem_add(d->problems, section->place,
                    "[upstream %s] has no nodes; write nodes = host:port, "
                    "host:port or url = %shost:port,host:port%s",
                    u->name, url_scheme(u->type),
                    u->type == UPSTREAM_SENTINEL ? "/master_name" : "");
    }
    if (draft_find(section, "nodes") != NULL &&
        draft_find(section, "target") != NULL) {
        problem_add(d->problems, draft_place(section, "target"),
                    "target and nodes say the same; keep one of them");
    }
    if (u->type == UPSTREAM_SENTINEL && u->master_name == NULL &&
        draft_find(section, "master_name") == NULL) {
        problem_add(d->problems, upstream_place(section, "type"),
                    "[upstream %s] has no master_name; write master_name = "
                    "mymaster, or whatever the sentinels call it, or end the "
                    "url with /mymaster",
                    u->name);
    }
    if (u->type == UPSTREAM_CLUSTER && u->db != 0) {
        problem_add(d->problems, upstream_place(section, "db"),
                    "a cluster has only database 0; take the db out");
    }
}

static void check_nodes(const struct upstream_config *u,
                        const struct draft_section *section,
                        const struct draft *d)
{
    char text[ADDRESS_TEXT_MAX];
    for (size_t i = 0; i < u->n_nodes; i++) {
        for (size_t k = 0; k < i; k++) {
            if (node_equal(&u->nodes[i], &u->nodes[k])) {
                address_format(&u->nodes[i], text);
                problem_add(d->problems, upstream_place(section, "nodes"),
                            "%s is listed twice in the nodes", text);
                break;
            }
        }
    }
    for (size_t i = 0; i < u->n_node_zones; i++) {
        for (size_t k = 0; k < i; k++) {
            if (node_equal(&u->node_zones[i].node, &u->node_zones[k].node)) {
                problem_add(d->problems, draft_place(section, "node_zones"),
                            "%s is listed twice in node_zones",
                            u->node_zones[i].node.host);
                break;
            }
        }
    }
    if (u->n_node_zones > 0 && u->zone == NULL &&
        draft_find(section, "zone") == NULL) {
        problem_add(d->problems, draft_place(section, "node_zones"),
                    "node_zones need zone, the one that redial runs in");
    }
}

static void check_upstream(const struct upstream_config *u,
                           const struct draft *d)
{
    const struct draft_section *section =
        draft_section_of(d, SECTION_UPSTREAM, u->name);
    if (u->type != type_unknown) {
        check_type_keys(u, section, d);
        check_place(u, section, d);
        check_nodes(u, section, d);
    }
    /* A password that was refused is a problem told already. */
    if (u->username != NULL && u->password == NULL &&
        draft_find(section, "password") == NULL) {
        problem_add(d->problems, draft_place(section, "username"),
                    "a username needs a password");
    }
    if (u->sentinel_username != NULL && u->sentinel_password == NULL &&
        draft_find(section, "sentinel_password") == NULL) {
        problem_add(d->problems, upstream_place(section, "sentinel_username"),
                    "a sentinel_username needs a sentinel_password");
    }
    if (u->type != UPSTREAM_GRPC && u->backoff_base_us > u->backoff_cap_us) {
        problem_add(d->problems, draft_place(section, "backoff_base"),
                    "backoff_base is longer than backoff_cap");
    }
}

static void check_whole_seconds(uint64_t us,
                                const char *key,
                                const struct draft *d)
{
    const struct draft_section *section =
        draft_find_section(d, SECTION_TCP, "");
    if (us % 1000000 != 0 && section != NULL) {
        problem_add(d->problems, draft_place(section, key),
                    "%s must be whole seconds: the kernel knows no less", key);
    }
}

void check_config(const struct config *c, const struct draft *d)
{
    const struct process_config *p = &c->process;
    const struct draft_section *admin =
        draft_find_section(d, SECTION_ADMIN, "");
    if (p->admin) {
        assert(admin != NULL);
        check_public(&p->admin_address, p->admin_bind_public, admin, d);
    }
    check_whole_seconds(p->keepalive_idle_us, "keepalive_idle", d);
    check_whole_seconds(p->keepalive_interval_us, "keepalive_interval", d);
    for (size_t i = 0; i < c->n_listeners; i++) {
        check_listener(c, i, d);
    }
    for (size_t i = 0; i < c->n_upstreams; i++) {
        check_upstream(&c->upstreams[i], d);
    }
}
