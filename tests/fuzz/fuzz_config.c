/* Byte soup as a file, a URL and arguments: the answer is a configuration or a
 * list of problems with words, and what is printed loads to the same. */
#include "config/config.h"
#include "fuzz.h"

enum {
    INPUT_MAX = 8192,
    PRINT_START = 4096
};

/* The four inputs, each as a C string of its own size, so that a read behind
 * it is found. Owned. */
struct inputs {
    char *text;
    size_t text_len;
    char *url;
    char *listen;
    char *set;
};

/* Cut the next piece off data: up to the next 0xff, or all. */
static char *take(const uint8_t **data, size_t *size, size_t *len)
{
    const uint8_t *end = memchr(*data, 0xff, *size);
    *len = end != NULL ? (size_t)(end - *data) : *size;
    char *piece = malloc(*len + 1);
    REQUIRE(piece != NULL);
    memcpy(piece, *data, *len);
    piece[*len] = '\0';
    size_t used = end != NULL ? *len + 1 : *len;
    *data += used;
    *size -= used;
    return piece;
}

static char *copy(const char *text)
{
    size_t size = strlen(text) + 1;
    char *result = malloc(size);
    REQUIRE(result != NULL);
    memcpy(result, text, size);
    return result;
}

/* Names of variables and files are their content: so that anything can come
 * out of a reference. "none" is not there. */
static char *get(void *context, const char *name)
{
    (void)context;
    return strcmp(name, "none") == 0 ? NULL : copy(name);
}

/* Start with { 0 }. */
struct printed {
    char *text; /* owned */
    size_t len;
    size_t size;
};

static void print_piece(void *context, const char *text, size_t len)
{
    struct printed *p = context;
    if (p->size - p->len <= len) {
        p->size = 2 * p->size + len + PRINT_START;
        p->text = realloc(p->text, p->size);
        REQUIRE(p->text != NULL);
    }
    memcpy(p->text + p->len, text, len);
    p->len += len;
    p->text[p->len] = '\0';
}

static struct config *load(const struct config_source *source)
{
    struct config_problems p = { 0 };
    struct config *c = config_load(source, &p);
    REQUIRE((c == NULL) == (p.n > 0));
    for (size_t i = 0; i < p.n; i++) {
        REQUIRE(p.list[i].place[0] != '\0' && p.list[i].text[0] != '\0');
        REQUIRE(strpbrk(p.list[i].place, "\r\n") == NULL);
        REQUIRE(strpbrk(p.list[i].text, "\r\n") == NULL);
    }
    config_problems_fini(&p);
    return c;
}

/* INI has no way to write these: lines too long, and texts where inih sees
 * the start of a comment. */
static bool can_be_a_file(const struct printed *p)
{
    if (strstr(p->text, " ;") != NULL || strstr(p->text, "\t;") != NULL ||
        strstr(p->text, "***") != NULL) {
        return false;
    }
    for (const char *line = p->text; *line != '\0';) {
        size_t len = strcspn(line, "\n");
        if (len > 198 ||
            (len > 0 && (line[len - 1] == ' ' || line[len - 1] == '\t'))) {
            return false;
        }
        line += len + 1;
    }
    return true;
}

static void check_print(const struct config *c)
{
    struct printed first = { 0 };
    struct printed second = { 0 };
    config_print(c, print_piece, &first);
    if (can_be_a_file(&first)) {
        struct config_source source = { .file_name = "printed",
                                        .text = first.text,
                                        .text_len = first.len,
                                        /* the service config is named */
                                        .read_file = get };
        struct config *again = load(&source);
        REQUIRE(again != NULL);
        config_print(again, print_piece, &second);
        REQUIRE(first.len == second.len &&
                memcmp(first.text, second.text, first.len) == 0);
        config_free(again);
    }
    free(first.text);
    free(second.text);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    if (size < 1 || size > INPUT_MAX) {
        return 0;
    }
    uint8_t which = data[0];
    data++;
    size--;

    size_t len = 0;
    struct inputs in = { 0 };
    in.text = take(&data, &size, &in.text_len);
    in.url = take(&data, &size, &len);
    in.listen = take(&data, &size, &len);
    in.set = take(&data, &size, &len);
    const char *set = in.set;
    struct config_source source = {
        .file_name = "f",
        .text = (which & 1) != 0 ? in.text : NULL,
        .text_len = in.text_len,
        .url = (which & 2) != 0 ? in.url : NULL,
        .listen = (which & 4) != 0 ? in.listen : NULL,
        .admin = (which & 8) != 0 ? in.listen : NULL,
        .sets = &set,
        .n_sets = (which & 16) != 0 ? 1 : 0,
        .get_env = get,
        .read_file = get,
    };
    struct config *c = load(&source);
    if (c != NULL) {
        check_print(c);
        config_free(c);
    }
    free(in.text);
    free(in.url);
    free(in.listen);
    free(in.set);
    return 0;
}
