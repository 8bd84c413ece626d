/* Starts and stops the program: arguments, configuration, limits. */
#include <errno.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/resource.h>

#include "config/config.h"
#include "proxy/io/server.h"

/* gcc and clang have different names for it. */
#if defined(__SANITIZE_ADDRESS__)
#define HAS_ADDRESS_SANITIZER 1
#elif defined(__has_feature)
#if __has_feature(address_sanitizer)
#define HAS_ADDRESS_SANITIZER 1
#endif
#endif

enum {
    FILE_MAX_BYTES = 1 << 20,
    EXIT_USAGE = 2,
};

enum mode {
    MODE_RUN,
    MODE_CHECK,
    MODE_PRINT_CONFIG,
    MODE_PRINT_EXAMPLE,
    MODE_PRINT_MARKDOWN,
    MODE_HELP,
    MODE_HELP_CONFIG,
    MODE_VERSION
};

struct arguments {
    enum mode mode;
    const char *file;
    const char *listen;
    const char *admin;
    const char *url;
    const char **sets; /* owned array of borrowed texts */
    size_t n_sets;
};

static const char usage[] =
    "Usage: redial [OPTION]... [URL]\n"
    "Keeps clients of Redis and gRPC connected while the server is away.\n"
    "\n"
    "  URL                      the server: redis://[user:password@]host[:port]"
    "[/db],\n"
    "                           redis+unix:///path; or where to find the "
    "servers:\n"
    "                           redis+cluster://host[:port],host[:port]\n"
    "                           redis+sentinel://host[:port],host[:port]/name\n"
    "                           or servers of gRPC: "
    "grpc://host:port,host:port,\n"
    "                           grpc+unix:///path\n"
    "  -c, --config FILE        read this configuration file\n"
    "      --listen ADDR        where clients connect; if not given, "
    "127.0.0.1:6400\n"
    "                           for Redis and 127.0.0.1:50050 for gRPC\n"
    "      --admin ADDR         serve /live /ready /metrics /topology "
    "/channels\n"
    "                           /config /events\n"
    "      --set SECTION.KEY=VALUE\n"
    "                           set one option, e.g. "
    "upstream.attempt_timeout=500ms\n"
    "      --check              check the configuration and exit\n"
    "      --print-config       print the configuration in effect and exit\n"
    "      --help               print this and exit\n"
    "      --help-config        explain every option and exit\n"
    "      --version            print the version and exit\n"
    "\n"
    "Example: redial --listen 127.0.0.1:6400 redis://127.0.0.1:6379\n";

/* ---- command line ---- */

static int complain(const char *place, const char *text)
{
    (void)fprintf(stderr, "redial: %s: %s\n", place, text);
    return -1;
}

static const struct {
    const char *name;
    enum mode mode;
} modes[] = {
    { "--check", MODE_CHECK },
    { "--print-config", MODE_PRINT_CONFIG },
    { "--print-example", MODE_PRINT_EXAMPLE },
    { "--print-markdown", MODE_PRINT_MARKDOWN },
    { "--help", MODE_HELP },
    { "-h", MODE_HELP },
    { "--help-config", MODE_HELP_CONFIG },
    { "--version", MODE_VERSION },
};

static bool take_mode(struct arguments *a, const char *word)
{
    for (size_t i = 0; i < sizeof(modes) / sizeof(modes[0]); i++) {
        if (strcmp(modes[i].name, word) == 0) {
            a->mode = modes[i].mode;
            return true;
        }
    }
    return false;
}

/* If word is the option, alone or with =value, return its value: what follows
 * "=", or next. *used counts the words. Returns NULL when it is not. */
static const char *value_of(const char *word,
                            const char *option,
                            const char *next,
                            int *used)
{
    size_t len = strlen(option);
    if (strncmp(word, option, len) != 0) {
        return NULL;
    }
    if (word[len] == '=') {
        *used = 1;
        return word + len + 1;
    }
    if (word[len] == '\0') {
        *used = 2;
        return next == NULL ? "" : next;
    }
    return NULL;
}

/* Take one option with a value. Returns the number of words, 0 when word is no
 * such option, or -1. */
static int take_value(struct arguments *a, const char *word, const char *next)
{
    const struct {
        const char *option;
        const char **value;
    } options[] = {
        { "-c", &a->file },         { "--config", &a->file },
        { "--listen", &a->listen }, { "--admin", &a->admin },
        { "--set", NULL },
    };
    for (size_t i = 0; i < sizeof(options) / sizeof(options[0]); i++) {
        int used = 0;
        const char *value = value_of(word, options[i].option, next, &used);
        if (value == NULL) {
            continue;
        }
        if (*value == '\0') {
            return complain(word, "a value must follow");
        }
        if (options[i].value == NULL) {
            a->sets[a->n_sets++] = value;
        } else if (*options[i].value != NULL) {
            return complain(word, "given twice");
        } else {
            *options[i].value = value;
        }
        return used;
    }
    return 0;
}

static int arguments_parse(struct arguments *a, int argc, char **argv)
{
    for (int i = 1; i < argc;) {
        const char *word = argv[i];
        int used = take_mode(a, word) ? 1 : take_value(a, word, argv[i + 1]);
        if (used < 0) {
            return -1;
        }
        if (used == 0 && word[0] == '-') {
            return complain(word, "no such option; see redial --help");
        }
        if (used == 0 && a->url != NULL) {
            return complain("URL", "given twice");
        }
        if (used == 0) {
            a->url = word;
            used = 1;
        }
        i += used;
    }
    return 0;
}

/* ---- configuration ---- */

/* Read a file, with a final NUL; of one that is larger than FILE_MAX_BYTES, no
 * more than one byte beyond. Returns NULL, and a cause, when it cannot be read.
 * The caller frees. */
static char *read_all(const char *path, size_t *len, const char **cause)
{
    FILE *f = fopen(path, "re");
    char *text = f == NULL ? NULL : malloc(FILE_MAX_BYTES + 2);
    *cause = strerror(errno);
    if (text == NULL) {
        goto close_file;
    }
    *len = fread(text, 1, FILE_MAX_BYTES + 1, f);
    *cause = ferror(f) ? strerror(errno) : NULL;
    if (*cause != NULL) {
        free(text);
        text = NULL;
        goto close_file;
    }
    text[*len] = '\0';

close_file:
    if (f != NULL) {
        (void)fclose(f);
    }
    return text;
}

static char *get_env(void *context, const char *name)
{
    (void)context;
    const char *value = getenv(name);
    return value == NULL ? NULL : strdup(value);
}

/* ${file:PATH}, or a service config; a final end of line is not part of it. Who
 * asked for it says so when it is too long. */
static char *read_file(void *context, const char *path)
{
    (void)context;
    size_t len = 0;
    const char *cause = NULL;
    char *text = read_all(path, &len, &cause);
    if (text == NULL || strlen(text) != len) {
        free(text);
        return NULL;
    }
    while (len > 0 && (text[len - 1] == '\n' || text[len - 1] == '\r')) {
        text[--len] = '\0';
    }
    return text;
}

static struct config *load(const struct arguments *a)
{
    struct config_source source = {
        .file_name = a->file,
        .url = a->url,
        .listen = a->listen,
        .admin = a->admin,
        .sets = a->sets,
        .n_sets = a->n_sets,
        .get_env = get_env,
        .read_file = read_file,
    };
    char *text = NULL;
    if (a->file != NULL) {
        const char *cause = NULL;
        text = read_all(a->file, &source.text_len, &cause);
        if (text != NULL && source.text_len > FILE_MAX_BYTES) {
            cause = "larger than 1 MiB";
            free(text);
            text = NULL;
        }
        if (text == NULL) {
            (void)complain(a->file, cause);
            return NULL;
        }
        source.text = text;
    }
    struct config_problems problems = { 0 };
    struct config *c = config_load(&source, &problems);
    for (size_t i = 0; i < problems.n; i++) {
        (void)fprintf(stderr, "%s: %s\n", problems.list[i].place,
                      problems.list[i].text);
    }
    config_problems_fini(&problems);
    free(text);
    return c;
}

static void print(void *context, const char *text, size_t len)
{
    (void)fwrite(text, 1, len, context);
}

/* ---- the process ---- */

/* What is in memory are other people's passwords: no core files, no
 * debuggers, no way to gain a privilege. */
static void harden(void)
{
    const struct rlimit none = { 0, 0 };
    (void)setrlimit(RLIMIT_CORE, &none);
#ifndef HAS_ADDRESS_SANITIZER /* its search for leaks is a debugger's work */
    (void)prctl(PR_SET_DUMPABLE, 0, 0, 0, 0);
#endif
    (void)prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0);
    (void)signal(SIGPIPE, SIG_IGN);
}

static int run(const struct config *c)
{
    char error[SERVER_ERROR_MAX];
    harden();
    if (server_run(c, REDIAL_VERSION, error) != 0) {
        (void)complain("start", error);
        return EXIT_FAILURE;
    }
    return EXIT_SUCCESS;
}

/* Modes that need no configuration. Returns false for the others. */
static bool explain(enum mode mode)
{
    switch (mode) {
    case MODE_HELP: (void)fputs(usage, stdout); return true;
    case MODE_HELP_CONFIG: config_help(print, stdout); return true;
    case MODE_PRINT_EXAMPLE: config_example(print, stdout); return true;
    case MODE_PRINT_MARKDOWN: config_markdown(print, stdout); return true;
    case MODE_VERSION: (void)puts("redial " REDIAL_VERSION); return true;
    case MODE_RUN:
    case MODE_CHECK:
    case MODE_PRINT_CONFIG: break;
    }
    return false;
}

static int redial(const struct arguments *a)
{
    if (explain(a->mode)) {
        return fflush(stdout) == 0 ? EXIT_SUCCESS : EXIT_FAILURE;
    }
    struct config *c = load(a);
    if (c == NULL) {
        return EXIT_USAGE;
    }
    int status = EXIT_SUCCESS;
    if (a->mode == MODE_CHECK) {
        for (size_t i = 0; i < c->warnings.n; i++) {
            (void)fprintf(stderr, "%s: warning: %s\n",
                          c->warnings.list[i].place, c->warnings.list[i].text);
        }
        (void)puts("configuration ok");
    } else if (a->mode == MODE_PRINT_CONFIG) {
        config_print(c, print, stdout);
    } else {
        status = run(c);
    }
    config_free(c);
    return status;
}

int main(int argc, char **argv)
{
    struct arguments a = { .mode = MODE_RUN };
    a.sets = calloc((size_t)argc + 1, sizeof(*a.sets));
    if (a.sets == NULL) {
        return EXIT_FAILURE;
    }
    int status = arguments_parse(&a, argc, argv) == 0 ? redial(&a) : EXIT_USAGE;
    free(a.sets);
    return status;
}
