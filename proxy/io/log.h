/* Log lines on stderr, and the last of them for /events. Safe to call from any
 * thread; never blocks on a slow reader, never fails the caller. */
#ifndef IO_LOG_H
#define IO_LOG_H

#include "proxy/core/trace.h"
#include "proxy/io/text.h"

struct log;

/* Returns NULL when out of memory. fd stays the caller's. */
struct log *log_new(const struct process_config *process, int fd);
void log_free(struct log *l);

/* One key and its value: text, or a number when text is NULL. A field with
 * skip set is left out. */
struct log_field {
    const char *key;
    const char *text;
    size_t len; /* of text; 0: up to its NUL */
    uint64_t number;
    bool skip;
};

enum {
    LOG_FIELDS_MAX = 20
};

/* Write a line of the shell's own. event is one word. */
void log_write(struct log *l,
               enum log_level level,
               const char *event,
               const struct log_field *fields,
               size_t n);

/* As log_write() with a single field "text". */
void log_text(struct log *l,
              enum log_level level,
              const char *event,
              const char *format,
              ...) __attribute__((format(printf, 4, 5)));

/* Write what the core reports. client is the peer's address as text, or
 * NULL. */
void log_trace(struct log *l,
               const struct trace_record *record,
               const char *client);

/* The last events as a JSON array, oldest first. */
void log_events(struct log *l, struct text *out);

struct log_counters {
    uint64_t lines;      /* written */
    uint64_t suppressed; /* beyond the rate */
    uint64_t failed;     /* the system did not take them */
};
struct log_counters log_counters(struct log *l);

#endif
