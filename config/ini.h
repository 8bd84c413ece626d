/* Reading INI text, line by line. */
#ifndef CONFIG_INI_H
#define CONFIG_INI_H

#include <stddef.h>

/* Who hears of what was read. The strings are borrowed for the call. */
struct ini_sink {
    void (*on_section)(void *context, unsigned line, const char *name);
    void (*on_entry)(void *context,
                     unsigned line,
                     const char *key,
                     const char *value);
    void (*on_problem)(void *context, unsigned line, const char *text);
    void *context;
};

/* Read all lines of text and go on after problems. */
void ini_read(const char *text, size_t len, const struct ini_sink *sink);

#endif
