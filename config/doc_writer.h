/* What is written about one option, for all the documents that are made of
 * them. */
#ifndef CONFIG_DOC_WRITER_H
#define CONFIG_DOC_WRITER_H

#include <stdbool.h>

#include "config/config.h"
#include "config/option.h"

enum {
    DOC_TEXT_MAX = 2048
};

struct writer {
    config_writer *write;
    void *context;
};

void doc_put(const struct writer *w, const char *text);
void doc_putf(const struct writer *w, const char *format, ...)
    __attribute__((format(printf, 2, 3)));
/* Write text in lines, each behind prefix. */
void doc_put_wrapped(const struct writer *w,
                     const char *prefix,
                     const char *text);
/* Write the words of an option as a list; margin begins each line. */
void doc_put_words(const struct writer *w,
                   const char *margin,
                   const struct option *o);
void doc_put_title(const struct writer *w, enum section_kind kind);

/* What the value looks like, for readers: "duration, 1ms to 1h". */
void doc_type(const struct option *o, char text[DOC_TEXT_MAX]);
/* What an option means, and for which types of upstream. */
void doc_meaning(const struct option *o, char text[DOC_TEXT_MAX]);
/* Whether its words need words of their own. */
bool doc_has_words(const struct option *o);

/* The options of a section: first those that are not only for gRPC. */
enum group {
    GROUP_FIRST,
    GROUP_GRPC
};

bool doc_is_in(const struct option *o, enum section_kind kind, unsigned group);
bool doc_has_group(enum section_kind kind, unsigned group);
/* What to say before the second group. */
const char *doc_grpc_intro(enum section_kind kind);

#endif
