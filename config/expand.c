#include "config/expand.h"

#include <assert.h>
#include <stdlib.h>
#include <string.h>

#include "config/arena.h"
#include "config/problem.h"

enum {
    REFERENCE_MAX = 255,
    EXPANDED_MAX = 65536
};

struct expansion {
    const struct config_source *source;
    const char *place;
    struct config_problems *problems;
    char *text; /* owned */
    size_t len;
};

static bool append(struct expansion *e, const char *text, size_t len)
{
    if (len > EXPANDED_MAX - e->len) {
        problem_add(e->problems, e->place, "the value is longer than %d bytes",
                    (int)EXPANDED_MAX);
        return false;
    }
    char *grown = realloc(e->text, e->len + len + 1);
    if (grown == NULL) {
        problem_no_memory(e->problems);
        return false;
    }
    e->text = grown;
    memcpy(e->text + e->len, text, len);
    e->len += len;
    e->text[e->len] = '\0';
    return true;
}

static bool is_env_name(const char *name)
{
    static const char chars[] = "abcdefghijklmnopqrstuvwxyz"
                                "ABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789_";
    size_t len = strlen(name);
    return len > 0 && strspn(name, chars) == len &&
           !(name[0] >= '0' && name[0] <= '9');
}

/* name is what stands between the braces. */
static bool append_reference(struct expansion *e, const char *name)
{
    const struct config_source *s = e->source;
    char *found = NULL;
    if (strncmp(name, "file:", 5) == 0) {
        if (s->read_file != NULL) {
            found = s->read_file(s->context, name + 5);
        }
        if (found == NULL) {
            problem_add(e->problems, e->place, "cannot read the file '%s'",
                        name + 5);
            return false;
        }
        /* Editors end a file with a newline; no secret means to. */
        size_t len = strlen(found);
        if (len > 0 && found[len - 1] == '\n') {
            len--;
            len -= len > 0 && found[len - 1] == '\r' ? 1 : 0;
        }
        found[len] = '\0';
    } else if (!is_env_name(name)) {
        problem_add(e->problems, e->place,
                    "'${%s}' is neither ${NAME} of the environment nor "
                    "${file:/path}; a plain ${ is written $${",
                    name);
        return false;
    } else {
        if (s->get_env != NULL) {
            found = s->get_env(s->context, name);
        }
        if (found == NULL) {
            problem_add(e->problems, e->place,
                        "the environment has no variable '%s'", name);
            return false;
        }
    }
    bool done = append(e, found, strlen(found));
    free(found);
    return done;
}

static bool append_all(struct expansion *e, const char *text)
{
    while (*text != '\0') {
        const char *dollar = strstr(text, "${");
        if (dollar == NULL) {
            return append(e, text, strlen(text));
        }
        bool escaped = dollar > text && dollar[-1] == '$';
        if (escaped) {
            /* "$${": the first dollar falls away. */
            if (!append(e, text, (size_t)(dollar - 1 - text)) ||
                !append(e, "${", 2)) {
                return false;
            }
            text = dollar + 2;
            continue;
        }
        char name[REFERENCE_MAX + 1];
        const char *end = strchr(dollar, '}');
        if (end == NULL || end - (dollar + 2) > REFERENCE_MAX) {
            problem_add(e->problems, e->place,
                        "'${' has no '}'; a plain ${ is written $${");
            return false;
        }
        size_t len = (size_t)(end - (dollar + 2));
        memcpy(name, dollar + 2, len);
        name[len] = '\0';
        if (!append(e, text, (size_t)(dollar - text)) ||
            !append_reference(e, name)) {
            return false;
        }
        text = end + 1;
    }
    return true;
}

char *expand_references(const char *text,
                        const struct config_source *source,
                        const char *place,
                        struct config_problems *problems)
{
    struct expansion e = { .source = source,
                           .place = place,
                           .problems = problems };
    if (!append(&e, "", 0) || !append_all(&e, text)) {
        free(e.text);
        return NULL;
    }
    return e.text;
}
