#include "config/doc_writer.h"

#include <stdarg.h>
#include <stdbool.h>
#include <stdio.h>
#include <string.h>

#include "config/option.h"
#include "config/value.h"

enum {
    LINE_WIDTH = 78
};

void doc_put(const struct writer *w, const char *text)
{
    w->write(w->context, text, strlen(text));
}

void doc_putf(const struct writer *w, const char *format, ...)
{
    char text[DOC_TEXT_MAX];
    va_list arguments;
    va_start(arguments, format);
    (void)vsnprintf(text, sizeof(text), format, arguments);
    va_end(arguments);
    doc_put(w, text);
}

/* Write text in lines of LINE_WIDTH, the first behind one prefix and the
 * others behind another of the same length. */
static void doc_put_hanging(const struct writer *w,
                            const char *first,
                            const char *prefix,
                            const char *text)
{
    size_t room = LINE_WIDTH - strlen(prefix);
    while (*text != '\0') {
        size_t len = strlen(text);
        if (len > room) {
            len = room;
            while (len > 0 && text[len] != ' ') {
                len--;
            }
            if (len == 0) { /* one word longer than the line */
                len = strcspn(text, " ");
            }
        }
        doc_putf(w, "%s%.*s\n", first, (int)len, text);
        text += len;
        text += strspn(text, " ");
        first = prefix;
    }
}

void doc_put_wrapped(const struct writer *w,
                     const char *prefix,
                     const char *text)
{
    doc_put_hanging(w, prefix, prefix, text);
}

/* What the value looks like, for readers: "duration, 1ms to 1h". */
void doc_type(const struct option *o, char text[DOC_TEXT_MAX])
{
    static const char *const names[] = {
        [OPTION_COUNT32] = "number",
        [OPTION_COUNT64] = "number",
        [OPTION_SIGNED] = "number",
        [OPTION_COUNT_UNSET] = "number",
        [OPTION_BOOL] = NULL,
        [OPTION_SWITCH] = NULL,
        [OPTION_DURATION] = "duration",
        [OPTION_DURATION_OFF] = "duration",
        [OPTION_DURATION_INFINITE] = "duration",
        [OPTION_SIZE] = "size",
        [OPTION_SIZE_INFINITE] = "size",
        [OPTION_PERCENT] = "share",
        [OPTION_MILLI] = "number",
        [OPTION_NUMBER] = "number",
        [OPTION_MODE] = "octal",
        [OPTION_ENUM] = NULL,
        [OPTION_EITHER] = NULL,
        [OPTION_SET] = "none, or a list of",
        [OPTION_CODES] = "list of codes",
        [OPTION_LISTEN_ADDRESS] = "address",
        [OPTION_LISTEN_ADDRESS_OFF] = "address or off",
        [OPTION_CONNECT_ADDRESS] = "address",
        [OPTION_USERNAME] = "text",
        [OPTION_SECRET] = "text, secret",
        [OPTION_NAME] = "name",
        [OPTION_AUTHORITY] = "text",
        [OPTION_FILE_NAME] = "file",
        [OPTION_NODES] = "list of addresses",
        [OPTION_NODE_ZONES] = "list of address=zone",
        [OPTION_ALLOW_NODES] = "list of networks and names",
        [OPTION_TARGET] = "target",
        [OPTION_GLOBS] = "list of methods",
        [OPTION_REFERENCE] = "name",
        [OPTION_URL] = "URL",
        [OPTION_OVERRIDE_BY_PREFIX] = NULL,
        [OPTION_OVERRIDE_BY_SCRIPT] = NULL,
        [OPTION_OVERRIDE_BY_COMMAND] = NULL,
    };
    char range[VALUE_TEXT_MAX];
    const char *name = names[o->type];
    const char *glue = o->type == OPTION_SET ? " " : ", ";
    value_range(o, range);
    (void)snprintf(text, DOC_TEXT_MAX, "%s%s%s", name != NULL ? name : "",
                   name != NULL && range[0] != '\0' ? glue : "", range);
}

/* What an option means, and for which types of upstream. */
void doc_meaning(const struct option *o, char text[DOC_TEXT_MAX])
{
    size_t types = 0;
    size_t used = 0;
    bool for_all = !option_is_only_grpc(o);
    const char *start = o->section == SECTION_UPSTREAM
                            ? "With type = "
                            : "With an upstream of type = ";
    /* What is only for gRPC has a place of its own. */
    for (const struct word *w = words_upstream_type; w->text != NULL; w++) {
        for_all = for_all &&
                  (option_is_for(o, w->value) || w->value == UPSTREAM_GRPC);
    }
    for_all = for_all || option_is_only_grpc(o);
    text[0] = '\0';
    for (const struct word *w = words_upstream_type;
         w->text != NULL && !for_all; w++) {
        if (option_is_for(o, w->value)) {
            int n = snprintf(text + used, DOC_TEXT_MAX - used, "%s%s",
                             types > 0 ? " or " : start, w->text);
            used += (size_t)n;
            types++;
        }
    }
    (void)snprintf(text + used, DOC_TEXT_MAX - used, "%s%s",
                   types > 0 ? ". " : "", o->help);
}

/* The words of an option that need words of their own. Levels of replay are
 * told once, not again for each override. */
bool doc_has_words(const struct option *o)
{
    return o->words != NULL && o->words[0].help != NULL && !option_is_open(o);
}

/* Write the words as a list; margin begins each line. */
void doc_put_words(const struct writer *w,
                   const char *margin,
                   const struct option *o)
{
    if (!doc_has_words(o)) {
        return;
    }
    for (const struct word *word = o->words; word->text != NULL; word++) {
        char first[64];
        char prefix[64];
        char text[DOC_TEXT_MAX];
        (void)snprintf(first, sizeof(first), "%s  - ", margin);
        (void)snprintf(prefix, sizeof(prefix), "%s    ", margin);
        (void)snprintf(text, sizeof(text), "%s: %s", word->text, word->help);
        doc_put_hanging(w, first, prefix, text);
    }
}

void doc_put_title(const struct writer *w, enum section_kind kind)
{
    const struct section *s = section_get(kind);
    doc_putf(w, "[%s%s]", s->name, s->named ? " NAME" : "");
}

bool doc_is_in(const struct option *o, enum section_kind kind, unsigned group)
{
    return o->section == kind &&
           option_is_only_grpc(o) == (group == GROUP_GRPC);
}

bool doc_has_group(enum section_kind kind, unsigned group)
{
    for (size_t i = 0; i < option_count(); i++) {
        if (doc_is_in(option_get(i), kind, group)) {
            return true;
        }
    }
    return false;
}

/* What to say before the second group. */
const char *doc_grpc_intro(enum section_kind kind)
{
    return kind == SECTION_LISTENER
               ? "Clients that speak gRPC: with protocol = grpc a listener has "
                 "these keys besides upstream, protocol, bind_public, "
                 "unix_mode and accept_backlog, with auto all of them."
               : "gRPC: with type = grpc an upstream has type, url and these "
                 "keys.";
}
