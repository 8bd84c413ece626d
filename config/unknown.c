#include "config/unknown.h"

#include <assert.h>
#include <stdbool.h>
#include <stdio.h>
#include <string.h>

#include "config/problem.h"

/* Keys of grpc.md that are not built yet. */
static bool is_for_later(const char *key)
{
    static const char *const keys[] = {
        "tls",
        "tls_ca",
        "tls_cert",
        "tls_key",
        "tls_client_ca",
        "tls_server_name",
        "tls_insecure_skip_verify",
        "response_buffer",
        "dns_txt",
        "dns_txt_language",
        "remote_allow_hedging",
        "method_table",
        "descriptor_set",
        "http_rules",
        "health_check_service",
        "outlier_detection",
    };
    for (size_t i = 0; i < sizeof(keys) / sizeof(keys[0]); i++) {
        if (strcmp(keys[i], key) == 0) {
            return true;
        }
    }
    return strncmp(key, "outlier_", strlen("outlier_")) == 0;
}

enum {
    SECTIONS_TEXT_MAX = 128
};

/* Whether sections have this key, and which: "[upstream], [grpc]". */
static bool is_elsewhere(const char *key, char text[SECTIONS_TEXT_MAX])
{
    size_t used = 0;
    text[0] = '\0';
    for (unsigned kind = 0; kind < SECTION_COUNT; kind++) {
        const struct option *o = option_find_in((enum section_kind)kind, key);
        if (o != NULL && !option_is_open(o)) {
            int n = snprintf(text + used, SECTIONS_TEXT_MAX - used, "%s[%s]",
                             used > 0 ? ", " : "",
                             section_get((enum section_kind)kind)->name);
            assert(n > 0 && (size_t)n < SECTIONS_TEXT_MAX - used);
            used += (size_t)n;
        }
    }
    return used > 0;
}

void unknown_key(struct config_problems *problems,
                 enum section_kind kind,
                 const char *key,
                 const char *place)
{
    char hint[SUGGESTION_TEXT_MAX];
    char sections[SECTIONS_TEXT_MAX];
    struct suggestion s;
    if (is_for_later(key)) {
        problem_add(problems, place, "%s is not supported by this version",
                    key);
        return;
    }
    if (is_elsewhere(key, sections)) {
        problem_add(problems, place, "%s is allowed only in %s", key, sections);
        return;
    }
    suggestion_init(&s, key, strlen(key));
    for (size_t i = 0; i < option_count(); i++) {
        const struct option *o = option_get(i);
        bool is_here = o->section == kind ||
                       (kind == SECTION_ALL_GRPC && option_is_shared(o));
        if (is_here && !option_is_open(o)) {
            suggestion_offer(&s, o->key);
        }
    }
    suggestion_format(&s, hint);
    problem_add(problems, place, "unknown key '%.100s' in section [%s]%s", key,
                section_get(kind)->name, hint);
}

void unknown_section(struct config_problems *problems,
                     const char *name,
                     size_t len,
                     const char *place)
{
    char hint[SUGGESTION_TEXT_MAX];
    struct suggestion s;
    suggestion_init(&s, name, len);
    for (unsigned kind = 0; kind < SECTION_COUNT; kind++) {
        suggestion_offer(&s, section_get((enum section_kind)kind)->name);
    }
    suggestion_format(&s, hint);
    problem_add(problems, place,
                "unknown section '%.*s'; there are redial, admin, log, tcp, "
                "grpc, listener NAME and upstream NAME%s",
                len < 100 ? (int)len : 100, name, hint);
}
