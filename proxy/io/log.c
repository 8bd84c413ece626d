#include "proxy/io/log.h"

#include <inttypes.h>
#include <poll.h>
#include <pthread.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

enum {
    LINE_MAX_BYTES = 2048,  /* below PIPE_BUF: a line is never torn */
    VALUE_MAX_BYTES = 320,  /* after escaping */
    PEER_TEXT_MAX = 200,    /* of what a peer has sent; before */
    LIMITS_KNOWN = 32,      /* limits whose last warning is remembered */
    REFUSALS_KNOWN = 64,    /* the same for what servers told */
    REFUSAL_AGAIN_S = 3600, /* then the same one is news again */
    STAMP_BYTES = 32,
};

/* Something servers told that was not believed. */
struct refusal {
    uint32_t hash;
    int64_t second; /* of its last line; 0: none */
};

struct log {
    pthread_mutex_t mutex; /* guards everything below */
    int fd;
    enum log_format format;
    enum log_level level;
    uint32_t rate;
    int64_t second;   /* the second that is being counted */
    uint32_t written; /* lines in it */
    uint64_t unsaid;  /* suppressed since the last summary */
    struct log_counters counters;
    int64_t limit_said[LIMITS_KNOWN]; /* second of a limit's last warning */
    struct refusal refusals[REFUSALS_KNOWN];
    char **events; /* owned ring of owned JSON texts */
    uint32_t n_events, next_event;
};

struct line {
    char text[LINE_MAX_BYTES];
    size_t len;
};

static const char *level_name(enum log_level level)
{
    switch (level) {
    case LOG_DEBUG: return "debug";
    case LOG_INFO: return "info";
    case LOG_WARN: return "warn";
    case LOG_ERROR: return "error";
    }
    return "";
}

struct log *log_new(const struct process_config *process, int fd)
{
    struct log *l = calloc(1, sizeof(*l));
    if (l == NULL) {
        return NULL;
    }
    l->fd = fd;
    l->format = process->log_format;
    l->level = process->log_level;
    l->rate = process->log_rate;
    l->n_events = process->events_kept;
    if (l->n_events > 0) {
        l->events = calloc(l->n_events, sizeof(*l->events));
        if (l->events == NULL) {
            free(l);
            return NULL;
        }
    }
    pthread_mutex_init(&l->mutex, NULL);
    return l;
}

static void line_add(struct line *line, const char *bytes, size_t len)
{
    /* Room for the closing brace and the end of line is kept by the caller. */
    if (line->len + len + 4 <= sizeof(line->text)) {
        memcpy(line->text + line->len, bytes, len);
        line->len += len;
    }
}

/* logfmt needs quotes around anything that is not one plain word. */
static bool is_plain(const char *value, size_t len)
{
    for (size_t i = 0; i < len; i++) {
        unsigned char c = (unsigned char)value[i];
        if (c <= ' ' || c >= 0x7f || strchr("\"=\\", c) != NULL) {
            return false;
        }
    }
    return len > 0;
}

static void line_field(struct line *line,
                       bool json,
                       const char *key,
                       const char *value,
                       size_t len)
{
    /* A field is added whole or not at all, so that JSON stays valid. */
    char escaped[VALUE_MAX_BYTES], piece[VALUE_MAX_BYTES + 64];
    (void)text_escape_bytes(escaped, sizeof(escaped), value, len, json);
    int n = 0;
    if (json) {
        n = snprintf(piece, sizeof(piece), "%s\"%s\":\"%s\"",
                     line->len > 1 ? "," : "", key, escaped);
    } else {
        const char *quote = is_plain(value, len) ? "" : "\"";
        n = snprintf(piece, sizeof(piece), "%s%s=%s%s%s",
                     line->len > 0 ? " " : "", key, quote, escaped, quote);
    }
    if (n > 0 && (size_t)n < sizeof(piece)) {
        line_add(line, piece, (size_t)n);
    }
}

static void line_word(struct line *line,
                      bool json,
                      const char *key,
                      const char *value)
{
    line_field(line, json, key, value, strlen(value));
}

static void line_number(struct line *line,
                        bool json,
                        const char *key,
                        uint64_t number)
{
    char piece[96];
    int n = snprintf(piece, sizeof(piece),
                     json ? ",\"%s\":%" PRIu64 : " %s=%" PRIu64, key, number);
    if (n > 0 && (size_t)n < sizeof(piece)) {
        line_add(line, piece, (size_t)n);
    }
}

/* What a line says, before it has a format. */
struct message {
    struct timespec at;
    enum log_level level;
    const char *event;
    const struct log_field *fields;
    size_t n;
};

static void stamp(const struct timespec *at, char *out)
{
    struct tm tm;
    gmtime_r(&at->tv_sec, &tm);
    size_t n = strftime(out, STAMP_BYTES, "%Y-%m-%dT%H:%M:%S", &tm);
    (void)snprintf(out + n, STAMP_BYTES - n, ".%06ldZ", at->tv_nsec / 1000);
}

static void line_format(struct line *line, bool json, const struct message *m)
{
    char time_text[STAMP_BYTES];
    stamp(&m->at, time_text);
    line->len = 0;
    if (json) {
        line_add(line, "{", 1);
    }
    line_word(line, json, "time", time_text);
    line_word(line, json, "level", level_name(m->level));
    line_word(line, json, "event", m->event);
    for (size_t i = 0; i < m->n; i++) {
        const struct log_field *f = &m->fields[i];
        if (f->skip) {
            continue;
        }
        if (f->text != NULL) {
            line_field(line, json, f->key, f->text,
                       f->len != 0 ? f->len : strlen(f->text));
        } else {
            line_number(line, json, f->key, f->number);
        }
    }
    if (json) {
        line->text[line->len++] = '}';
    }
    line->text[line->len] = '\0';
}

/* Hand one line to the system, unless that would block. */
static void line_put(struct log *l, struct line *line)
{
    struct pollfd p = { .fd = l->fd, .events = POLLOUT };
    line->text[line->len++] = '\n';
    if (poll(&p, 1, 0) == 1 && (p.revents & POLLOUT) != 0 &&
        write(l->fd, line->text, line->len) == (ssize_t)line->len) {
        l->counters.lines++;
    } else {
        l->counters.failed++;
    }
}

static void say_suppressed(struct log *l, const struct timespec *at)
{
    if (l->unsaid == 0) {
        return;
    }
    struct log_field f = { .key = "suppressed", .number = l->unsaid };
    struct message m = {
        .at = *at, .level = LOG_WARN, .event = "log_rate", .fields = &f, .n = 1
    };
    struct line line;
    line_format(&line, l->format == LOG_JSON, &m);
    line_put(l, &line);
    l->unsaid = 0;
}

/* Whether one more line may be written in this second. */
static bool rate_left(struct log *l, const struct timespec *at)
{
    if (at->tv_sec != l->second) {
        l->second = at->tv_sec;
        l->written = 0;
        say_suppressed(l, at);
    }
    if (l->written >= l->rate) {
        l->unsaid++;
        l->counters.suppressed++;
        return false;
    }
    l->written++;
    return true;
}

static void write_message(struct log *l, const struct message *m)
{
    if (m->level < l->level || !rate_left(l, &m->at)) {
        return;
    }
    struct line line;
    line_format(&line, l->format == LOG_JSON, m);
    line_put(l, &line);
}

/* Keep a message for /events. Without memory it is just not kept. What is only
 * for debugging would push everything else out. */
static void keep_message(struct log *l, const struct message *m)
{
    if (l->n_events == 0 || m->level == LOG_DEBUG) {
        return;
    }
    struct line line;
    line_format(&line, true, m);
    char *copy = malloc(line.len + 1);
    if (copy == NULL) {
        return;
    }
    memcpy(copy, line.text, line.len + 1);
    free(l->events[l->next_event]);
    l->events[l->next_event] = copy;
    l->next_event = (l->next_event + 1) % l->n_events;
}

void log_write(struct log *l,
               enum log_level level,
               const char *event,
               const struct log_field *fields,
               size_t n)
{
    struct message m = {
        .level = level, .event = event, .fields = fields, .n = n
    };
    pthread_mutex_lock(&l->mutex);
    (void)clock_gettime(CLOCK_REALTIME, &m.at); /* so that lines are in order */
    write_message(l, &m);
    pthread_mutex_unlock(&l->mutex);
}

void log_text(struct log *l,
              enum log_level level,
              const char *event,
              const char *format,
              ...)
{
    char text[VALUE_MAX_BYTES];
    va_list args;
    va_start(args, format);
    (void)vsnprintf(text, sizeof(text), format, args);
    va_end(args);
    log_write(l, level, event,
              &(struct log_field){ .key = "text", .text = text }, 1);
}

static bool is_refusal(const struct trace_record *r)
{
    return r->type == TRACE_TOPOLOGY && r->to != NULL &&
           strcmp(r->to, "refused") == 0;
}

static enum log_level trace_level(const struct trace_record *r)
{
    switch (r->type) {
    case TRACE_GIVE_UP:
    case TRACE_LIMIT:
    case TRACE_CONNECT_FAILED:
    case TRACE_KEEPALIVE_DOUBLED:
    case TRACE_RESOLVE_FAILED:
    case TRACE_THROTTLE_CLOSED:
    case TRACE_ABUSE:
    case TRACE_BAD_PREFACE:
    case TRACE_PUBSUB:
    case TRACE_WRITE_STALLED: return LOG_WARN;
    case TRACE_LANE:
    case TRACE_RETRY:
    case TRACE_CLIENT:
    case TRACE_UPSTREAM:
    case TRACE_DRAIN:
    case TRACE_COMMANDS:
    case TRACE_CONNECTION_READY:
    case TRACE_CONNECTION_LOST:
    case TRACE_GOAWAY_RECEIVED:
    case TRACE_ENDPOINT_REMOVED:
    case TRACE_THROTTLE_OPENED: return LOG_INFO;
    case TRACE_TOPOLOGY: return is_refusal(r) ? LOG_WARN : LOG_INFO;
    case TRACE_CALL_DONE:
    case TRACE_ATTEMPT_DONE:
    case TRACE_CALL_COMMITTED: return r->debug ? LOG_DEBUG : LOG_WARN;
    case TRACE_TYPE_COUNT: break;
    }
    return LOG_INFO;
}

static const uint32_t hash_start = 2166136261u; /* FNV-1a */

static uint32_t hash_add(uint32_t hash, const char *text)
{
    for (; text != NULL && *text != '\0'; text++) {
        hash = (hash ^ (unsigned char)*text) * 16777619u;
    }
    return hash * 16777619u; /* where it ended */
}

/* A limit that is reached a thousand times in a second is one warning; its
 * metric tells how often. Two limits that share a place share the warning. */
static bool limit_is_news(struct log *l, const char *name, int64_t second)
{
    int64_t *said = &l->limit_said[hash_add(hash_start, name) % LIMITS_KNOWN];
    if (*said == second) {
        return false;
    }
    *said = second;
    return true;
}

/* Servers repeat themselves each time they are asked, and to each worker; one
 * line says it, the metrics say how often. */
static bool refusal_is_news(struct log *l,
                            const struct trace_record *r,
                            const char *address,
                            int64_t second)
{
    uint32_t hash = hash_add(hash_start, r->upstream);
    hash = hash_add(hash, address);
    hash = hash_add(hash_add(hash, r->from), r->reason);
    struct refusal *known = &l->refusals[hash % REFUSALS_KNOWN];
    if (known->second != 0 && known->hash == hash &&
        second - known->second < REFUSAL_AGAIN_S) {
        return false;
    }
    *known = (struct refusal){ .hash = hash, .second = second };
    return true;
}

static bool is_news(struct log *l,
                    const struct trace_record *r,
                    const char *address,
                    int64_t second)
{
    if (is_refusal(r)) {
        return refusal_is_news(l, r, address, second);
    }
    return r->type != TRACE_LIMIT || limit_is_news(l, r->reason, second);
}

static struct log_field word(const char *key, const char *text)
{
    bool says_nothing = text == NULL || *text == '\0';
    return (struct log_field){ .key = key, .text = text, .skip = says_nothing };
}

static struct log_field number(const char *key, uint64_t value)
{
    return (
        struct log_field){ .key = key, .number = value, .skip = value == 0 };
}

/* What a peer has sent. */
static struct log_field bytes(const char *key, struct span said)
{
    return (struct log_field){
        .key = key,
        .text = (const char *)said.data,
        .len = said.len < PEER_TEXT_MAX ? said.len : PEER_TEXT_MAX,
        .skip = said.len == 0,
    };
}

static struct log_field connection(const char *key, conn_id id)
{
    return (struct log_field){ .key = key,
                               .number = conn_index(id),
                               .skip = id == 0 };
}

void log_trace(struct log *l, const struct trace_record *r, const char *client)
{
    char address[ADDRESS_TEXT_MAX] = "";
    if (r->address != NULL) {
        address_format(r->address, address);
    }
    const struct log_field fields[] = {
        word("upstream", r->upstream),
        word("listener", r->listener),
        word("address", r->address == NULL ? NULL : address),
        word("client", client),
        connection("client_id", r->client),
        connection("lane_id", r->lane),
        number("stream", r->stream),
        word("command", r->command),
        bytes("method", r->method),
        word("class", r->class),
        word("status", r->status),
        word("h2_error", r->h2_error),
        word("outcome", r->outcome),
        word("verdict", r->verdict),
        word("from", r->from),
        word("to", r->to),
        word("reason", r->reason),
        word("last_stream", r->last_stream),
        bytes("said", r->said),
        word("pushback_ms", r->pushback),
        number("attempt", r->attempt),
        number("unsent", r->unsent),
        number("refused", r->refused),
        number("delay_us", r->delay_us),
        number("elapsed_us", r->elapsed_us),
    };
    struct message m = { .level = trace_level(r),
                         .event = trace_type_name(r->type),
                         .fields = fields,
                         .n = sizeof(fields) / sizeof(fields[0]) };
    pthread_mutex_lock(&l->mutex);
    (void)clock_gettime(CLOCK_REALTIME, &m.at); /* so that lines are in order */
    if (is_news(l, r, address, m.at.tv_sec)) {
        write_message(l, &m);
        keep_message(l, &m);
    }
    pthread_mutex_unlock(&l->mutex);
}

void log_events(struct log *l, struct text *out)
{
    text_add(out, "[", 1);
    pthread_mutex_lock(&l->mutex);
    bool first = true;
    for (uint32_t i = 0; i < l->n_events; i++) {
        const char *event = l->events[(l->next_event + i) % l->n_events];
        if (event != NULL) {
            text_addf(out, "%s\n%s", first ? "" : ",", event);
            first = false;
        }
    }
    pthread_mutex_unlock(&l->mutex);
    text_add(out, "\n]\n", 3);
}

struct log_counters log_counters(struct log *l)
{
    pthread_mutex_lock(&l->mutex);
    struct log_counters c = l->counters;
    pthread_mutex_unlock(&l->mutex);
    return c;
}

void log_free(struct log *l)
{
    if (l == NULL) {
        return;
    }
    struct timespec at;
    (void)clock_gettime(CLOCK_REALTIME, &at);
    say_suppressed(l, &at);
    for (uint32_t i = 0; i < l->n_events; i++) {
        free(l->events[i]);
    }
    free(l->events);
    pthread_mutex_destroy(&l->mutex);
    free(l);
}
