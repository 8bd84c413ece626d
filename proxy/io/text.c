#include "proxy/io/text.h"

#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static bool text_grow(struct text *t, size_t more)
{
    if (t->failed || more > SIZE_MAX / 4 - t->len) {
        t->failed = true;
        return false;
    }
    size_t need = t->len + more + 1;
    if (need <= t->cap) {
        return true;
    }
    size_t cap = t->cap < 256 ? 256 : t->cap;
    while (cap < need) {
        cap *= 2;
    }
    char *data = realloc(t->data, cap);
    if (data == NULL) {
        t->failed = true;
        return false;
    }
    t->data = data;
    t->cap = cap;
    return true;
}

void text_add(struct text *t, const char *bytes, size_t len)
{
    if (!text_grow(t, len)) {
        return;
    }
    memcpy(t->data + t->len, bytes, len);
    t->len += len;
    t->data[t->len] = '\0';
}

void text_addf(struct text *t, const char *format, ...)
{
    va_list args;
    va_start(args, format);
    int n = vsnprintf(NULL, 0, format, args);
    va_end(args);
    if (n < 0 || !text_grow(t, (size_t)n)) {
        t->failed = true;
        return;
    }
    va_start(args, format);
    (void)vsnprintf(t->data + t->len, t->cap - t->len, format, args);
    va_end(args);
    t->len += (size_t)n;
}

void text_fini(struct text *t)
{
    free(t->data);
    *t = (struct text){ .data = NULL };
}

void text_write(void *context, const char *bytes, size_t len)
{
    text_add(context, bytes, len);
}

/* Write one character's escape, or the character itself; returns the length,
 * at most 6. */
static size_t escape_one(char *out, unsigned char c, bool json)
{
    static const char hex[] = "0123456789abcdef";
    static const char plain[] = "\"\\\n\r\t";
    static const char letter[] = "\"\\nrt";
    const char *known = c == '\0' ? NULL : strchr(plain, c);
    size_t n = 0;
    if (known != NULL) {
        out[n++] = '\\';
        out[n++] = letter[known - plain];
    } else if (c >= 0x20 && c < 0x7f) {
        out[n++] = (char)c;
    } else {
        out[n++] = '\\';
        out[n++] = json ? 'u' : 'x';
        if (json) {
            out[n++] = '0';
            out[n++] = '0';
        }
        out[n++] = hex[c >> 4];
        out[n++] = hex[c & 15];
    }
    return n;
}

size_t text_escape_bytes(char *out,
                         size_t size,
                         const void *in,
                         size_t len,
                         bool json)
{
    const unsigned char *bytes = in;
    size_t n_out = 0;
    for (size_t i = 0; i < len; i++) {
        char piece[6];
        size_t n = escape_one(piece, bytes[i], json);
        if (n_out + n + 1 > size) {
            break;
        }
        memcpy(out + n_out, piece, n);
        n_out += n;
    }
    if (size > 0) {
        out[n_out] = '\0';
    }
    return n_out;
}

size_t text_escape(char *out, size_t size, const char *in, bool json)
{
    return text_escape_bytes(out, size, in, strlen(in), json);
}
