/* Text that grows while it is written. */
#ifndef IO_TEXT_H
#define IO_TEXT_H

#include <stdbool.h>
#include <stddef.h>

/* Start with { 0 }. Once memory is short, failed stays set and what is added
 * afterwards is dropped: ask at the end. */
struct text {
    char *data; /* owned; ends with a NUL unless NULL */
    size_t len;
    size_t cap;
    bool failed;
};

void text_add(struct text *t, const char *bytes, size_t len);
void text_addf(struct text *t, const char *format, ...)
    __attribute__((format(printf, 2, 3)));
void text_fini(struct text *t);

/* A config_writer; context is a struct text. */
void text_write(void *context, const char *bytes, size_t len);

/* Replace what is not printable ASCII, and " and \, by escapes: \" \\ \n \r
 * \t, and \u00XX in JSON or \xXX elsewhere. Writes at most size bytes,
 * including a final NUL; what does not fit is cut, never in the middle of an
 * escape. Returns the length. */
size_t text_escape(char *out, size_t size, const char *in, bool json);
/* The same for bytes that may be anything, a NUL included. */
size_t text_escape_bytes(char *out,
                         size_t size,
                         const void *in,
                         size_t len,
                         bool json);

#endif
