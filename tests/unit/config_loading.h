/* Loading configurations in tests: files and environment are made up. */
#ifndef UNIT_CONFIG_LOADING_H
#define UNIT_CONFIG_LOADING_H

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "config/config.h"

enum {
    LOADED_TEXT_MAX = 64 * 1024
};

/* Text that a config_writer fills. */
struct loaded_text {
    char text[LOADED_TEXT_MAX];
    size_t len;
};

static inline void loaded_write(void *context, const char *text, size_t len)
{
    struct loaded_text *t = context;
    if (len > sizeof(t->text) - 1 - t->len) {
        abort();
    }
    memcpy(t->text + t->len, text, len);
    t->len += len;
    t->text[t->len] = '\0';
}

static inline char *loaded_copy(const char *text)
{
    size_t size = strlen(text) + 1;
    char *copy = malloc(size);
    if (copy != NULL) {
        memcpy(copy, text, size);
    }
    return copy;
}

/* The environment has HOST, PASSWORD and EMPTY. */
static inline char *loaded_env(void *context, const char *name)
{
    (void)context;
    if (strcmp(name, "HOST") == 0) {
        return loaded_copy("redis.internal");
    }
    if (strcmp(name, "PASSWORD") == 0) {
        return loaded_copy("p${HOST}");
    }
    return strcmp(name, "EMPTY") == 0 ? loaded_copy("") : NULL;
}

/* There are the files /secret, /crlf, /blank and /empty.json. */
static inline char *loaded_file(void *context, const char *path)
{
    (void)context;
    if (strcmp(path, "/secret") == 0) {
        return loaded_copy("hunter2\n\n");
    }
    if (strcmp(path, "/crlf") == 0) {
        return loaded_copy("hunter2\r\n");
    }
    if (strcmp(path, "/empty.json") == 0) {
        return loaded_copy("{}");
    }
    return strcmp(path, "/blank") == 0 ? loaded_copy("\n") : NULL;
}

/* A source with the file "f" holding text (NULL: no file). */
static inline struct config_source loaded_source(const char *text)
{
    return (struct config_source){
        .file_name = text != NULL ? "f" : NULL,
        .text = text,
        .text_len = text != NULL ? strlen(text) : 0,
        .get_env = loaded_env,
        .read_file = loaded_file,
    };
}

#endif
