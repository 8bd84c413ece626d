/* Everything written about the options: --help-config, the example file and
 * docs/configuration.md. */
#include <stdarg.h>
#include <stdbool.h>
#include <stdio.h>
#include <string.h>

#include "config/config.h"
#include "config/option.h"
#include "config/value.h"

enum {
    LINE_WIDTH = 78,
    DOC_TEXT_MAX = 2048
};

struct writer {
    config_writer *write;
    void *context;
};

static void put(const struct writer *w, const char *text)
{
    w->write(w->context, text, strlen(text));
}

static void putf(const struct writer *w, const char *format, ...)
    __attribute__((format(printf, 2, 3)));

static void putf(const struct writer *w, const char *format, ...)
{
    char text[DOC_TEXT_MAX];
    va_list arguments;
    va_start(arguments, format);
    (void)vsnprintf(text, sizeof(text), format, arguments);
    va_end(arguments);
    put(w, text);
}

/* Write text in lines of LINE_WIDTH, the first behind one prefix and the
 * others behind another of the same length. */
static void put_hanging(const struct writer *w,
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
        putf(w, "%s%.*s\n", first, (int)len, text);
        text += len;
        text += strspn(text, " ");
        first = prefix;
    }
}

static void put_wrapped(const struct writer *w,
                        const char *prefix,
                        const char *text)
{
    put_hanging(w, prefix, prefix, text);
}

/* What the value looks like, for readers: "duration, 1ms to 1h". */
static void describe_type(const struct option *o, char text[DOC_TEXT_MAX])
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
static void describe_meaning(const struct option *o, char text[DOC_TEXT_MAX])
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
static bool has_word_help(const struct option *o)
{
    return o->words != NULL && o->words[0].help != NULL && !option_is_open(o);
}

/* Write the words as a list; margin begins each line. */
static void put_words(const struct writer *w,
                      const char *margin,
                      const struct option *o)
{
    if (!has_word_help(o)) {
        return;
    }
    for (const struct word *word = o->words; word->text != NULL; word++) {
        char first[64];
        char prefix[64];
        char text[DOC_TEXT_MAX];
        (void)snprintf(first, sizeof(first), "%s  - ", margin);
        (void)snprintf(prefix, sizeof(prefix), "%s    ", margin);
        (void)snprintf(text, sizeof(text), "%s: %s", word->text, word->help);
        put_hanging(w, first, prefix, text);
    }
}

static void put_title(const struct writer *w, enum section_kind kind)
{
    const struct section *s = section_get(kind);
    putf(w, "[%s%s]", s->name, s->named ? " NAME" : "");
}

/* The options of a section: first those that are not only for gRPC. */
enum group {
    GROUP_FIRST,
    GROUP_GRPC,
    GROUP_COUNT
};

static bool is_in(const struct option *o,
                  enum section_kind kind,
                  unsigned group)
{
    return o->section == kind &&
           option_is_only_grpc(o) == (group == GROUP_GRPC);
}

static bool has_group(enum section_kind kind, unsigned group)
{
    for (size_t i = 0; i < option_count(); i++) {
        if (is_in(option_get(i), kind, group)) {
            return true;
        }
    }
    return false;
}

/* What to say before the second group. */
static const char *grpc_intro(enum section_kind kind)
{
    return kind == SECTION_LISTENER
               ? "Clients that speak gRPC: with protocol = grpc a listener has "
                 "these keys besides upstream, protocol, bind_public, "
                 "unix_mode and accept_backlog, with auto all of them."
               : "gRPC: with type = grpc an upstream has type, url and these "
                 "keys.";
}

/* --help-config --- */

static void help_option(const struct writer *w, const struct option *o)
{
    char type[DOC_TEXT_MAX];
    char meaning[DOC_TEXT_MAX];
    describe_type(o, type);
    describe_meaning(o, meaning);
    if (o->fallback != NULL && strlen(o->fallback) < 40) {
        putf(w, "  %s = %s\n", o->key, o->fallback);
    } else {
        putf(w, "  %s\n", o->key);
    }
    put_wrapped(w, "      ", meaning);
    if (!has_word_help(o)) {
        put_wrapped(w, "      ", type);
    }
    put_words(w, "      ", o);
    if (o->alias != NULL) {
        putf(w, "      (%s)\n", o->alias);
    }
}

static void help_group(const struct writer *w,
                       enum section_kind kind,
                       unsigned group)
{
    for (size_t i = 0; i < option_count(); i++) {
        if (is_in(option_get(i), kind, group)) {
            put(w, "\n");
            help_option(w, option_get(i));
        }
    }
}

void config_help(config_writer *write, void *context)
{
    struct writer w = { .write = write, .context = context };
    put(&w, "Options of the configuration file, with their defaults. On the "
            "command line:\n"
            "--set section.key=value, such as --set upstream.deadline=5s.\n");
    for (unsigned kind = 0; kind < SECTION_COUNT; kind++) {
        put(&w, "\n");
        put_title(&w, (enum section_kind)kind);
        put(&w, "\n");
        put_wrapped(&w, "  ", section_get((enum section_kind)kind)->help);
        help_group(&w, (enum section_kind)kind, GROUP_FIRST);
        if (has_group((enum section_kind)kind, GROUP_GRPC)) {
            put(&w, "\n");
            put_wrapped(&w, "  ", grpc_intro((enum section_kind)kind));
            help_group(&w, (enum section_kind)kind, GROUP_GRPC);
        }
    }
}

/* The example file --- */

static void example_option(const struct writer *w, const struct option *o)
{
    static const struct {
        const char *key;
        const char *text;
        const char *grpc; /* the same for gRPC, if it is another */
    } samples[] = {
        { "upstream", "default", NULL },
        { "grpc_upstream", "calls", NULL },
        { "target", "dns:///calls.internal:50051", NULL },
        { "idempotent_methods", "/pkg.Svc/Get*, /pkg.Svc/List*", NULL },
        { "no_retry_methods", "/pkg.Svc/Charge", NULL },
        { "service_config", "/etc/redial/service_config.json", NULL },
        { "announce", "redis.example.net:6379", NULL },
        { "address", "127.0.0.1:6379", NULL },
        { "url", "redis://127.0.0.1:6379/0", NULL },
        { "username", "app", NULL },
        { "password", "${file:/run/secrets/redis}", NULL },
        { "nodes", "10.0.0.1:6379, 10.0.0.2:6379, [2001:db8::3]:6379",
          "10.0.0.1:50051, 10.0.0.2:50051, unix:/run/calls.sock" },
        { "master_name", "mymaster", NULL },
        { "sentinel_username", "watcher", NULL },
        { "sentinel_password", "${file:/run/secrets/sentinel}", NULL },
        { "zone", "eu-west-1a", NULL },
        { "node_zones", "10.0.0.1:6379=eu-west-1a, 10.0.0.2=eu-west-1b", NULL },
        { "allow_nodes", "10.0.0.0/8, 2001:db8::/32, *.example.net", NULL },
    };
    char meaning[DOC_TEXT_MAX];
    describe_meaning(o, meaning);
    put(w, "\n");
    put_wrapped(w, "# ", meaning);
    put_words(w, "#", o);
    if (o->type == OPTION_OVERRIDE_BY_PREFIX) {
        put(w, "#replay.prefix.session: = all\n");
    } else if (o->type == OPTION_OVERRIDE_BY_SCRIPT) {
        put(w,
            "#replay.script.e0e1f9fabfc9d4800c877a703b823ac0578ff8db = read\n");
    } else if (o->type == OPTION_OVERRIDE_BY_COMMAND) {
        put(w, "#replay.INCR = all\n");
    } else if (o->fallback != NULL) {
        putf(w, "#%s = %s\n", o->key, o->fallback);
    }
    for (size_t i = 0; i < sizeof(samples) / sizeof(samples[0]); i++) {
        if (o->fallback == NULL && strcmp(samples[i].key, o->key) == 0) {
            bool other = option_is_only_grpc(o) && samples[i].grpc != NULL;
            putf(w, "#%s = %s\n", o->key,
                 other ? samples[i].grpc : samples[i].text);
        }
    }
}

static void example_group(const struct writer *w,
                          enum section_kind kind,
                          unsigned group)
{
    for (size_t i = 0; i < option_count(); i++) {
        if (is_in(option_get(i), kind, group)) {
            example_option(w, option_get(i));
        }
    }
}

/* Sections of their own, as a comment. */
static void example_grpc(const struct writer *w, enum section_kind kind)
{
    put(w, "\n");
    put_wrapped(w, "# ", grpc_intro(kind));
    putf(w, "#[%s calls]\n", section_get(kind)->name);
    put(w, kind == SECTION_LISTENER ? "#upstream = calls\n" : "#type = grpc\n");
    example_group(w, kind, GROUP_GRPC);
}

void config_example(config_writer *write, void *context)
{
    struct writer w = { .write = write, .context = context };
    put(&w, "# redial: every option, at its default. Remove the # of a line to "
            "change it.\n"
            "# Check a file with: redial -c FILE --check\n");
    for (unsigned kind = 0; kind < SECTION_COUNT; kind++) {
        const struct section *s = section_get((enum section_kind)kind);
        put(&w, "\n");
        put_wrapped(&w, "# ", s->help);
        putf(&w, "[%s%s]\n", s->name, s->named ? " default" : "");
        example_group(&w, (enum section_kind)kind, GROUP_FIRST);
        if (kind == SECTION_UPSTREAM) {
            put(&w, "\n# The one thing that has no default.\n"
                    "url = redis://127.0.0.1:6379\n");
        }
        if (has_group((enum section_kind)kind, GROUP_GRPC)) {
            example_grpc(&w, (enum section_kind)kind);
        }
    }
}

/* docs/configuration.md --- */

static const char markdown_start[] =
    "# Configuration\n"
    "\n"
    "<!-- Generated from config/options.def; do not edit. -->\n"
    "\n"
    "Nothing needs to be configured to start:\n"
    "\n"
    "```\n"
    "redial --listen 127.0.0.1:6400 redis://127.0.0.1:6379\n"
    "```\n"
    "\n"
    "For more there is a file, and every option of the file can be set on the\n"
    "command line as well:\n"
    "\n"
    "```\n"
    "redial -c /etc/redial.ini --set upstream.deadline=5s\n"
    "redial --set 'upstream.password=${file:/run/secrets/redis}' "
    "redis://redis.internal\n"
    "```\n"
    "\n"
    "| to see | type |\n"
    "| --- | --- |\n"
    "| whether a configuration is right, and all that is wrong | `redial -c "
    "FILE --check` |\n"
    "| the configuration in effect, secrets hidden | `redial -c FILE "
    "--print-config` |\n"
    "| this list in the terminal | `redial --help-config` |\n"
    "\n"
    "## The file\n"
    "\n"
    "```ini\n"
    "# a listener for each address that clients connect to\n"
    "[listener default]\n"
    "address = 127.0.0.1:6400\n"
    "\n"
    "# an upstream for each server behind\n"
    "[upstream default]\n"
    "url = redis://redis.internal:6379\n"
    "password = ${file:/run/secrets/redis}\n"
    "deadline = 5s\n"
    "replay.INCR = all\n"
    "```\n"
    "\n"
    "- Lines are `[section]`, `[section NAME]`, `key = value`, or a comment "
    "that\n"
    "  begins with `#` or `;`. Behind a value a comment begins with a space "
    "and\n"
    "  `;`. A line has at most 198 bytes.\n"
    "- A name has letters, digits, `-` and `_`. `[listener]` and `[upstream]`\n"
    "  without a name are those named `default`.\n"
    "- A listener without `upstream =` uses the upstream named `default`, or "
    "the\n"
    "  only one.\n"
    "- `${NAME}` is replaced by a variable of the environment, "
    "`${file:/path}` by the\n"
    "  content of a file without its last newline. A plain `${` is written "
    "`$${`.\n"
    "- Unknown sections and keys, values out of range and the same key twice "
    "are\n"
    "  errors. All of them are reported at once, with file and line; nothing "
    "is\n"
    "  half applied.\n"
    "- `nodes`, `node_zones` and `allow_nodes` are lists, with commas between. "
    "A long one\n"
    "  takes several lines, each with the key.\n"
    "\n"
    "## What wins\n"
    "\n"
    "From weak to strong:\n"
    "\n"
    "1. the defaults below,\n"
    "2. the file,\n"
    "3. the URL, `--listen ADDR` and `--admin ADDR`,\n"
    "4. `--set section.key=value`; of the same key twice, the last.\n"
    "\n"
    "The URL, `--listen` and `--set upstream.key=value` mean the section "
    "named\n"
    "`default`; without one, the only section of that kind; without any, a "
    "new one.\n"
    "`--set upstream.NAME.key=value` means a section of the file by name. A "
    "URL\n"
    "replaces type, address, nodes, all credentials, master_name and db of the "
    "file\n"
    "together, so that no password goes to a server it is not for. So does "
    "`--set\n"
    "upstream.url=...`.\n"
    "\n"
    "## Values\n"
    "\n"
    "| kind | written | meaning |\n"
    "| --- | --- | --- |\n"
    "| duration | `500us` `250ms` `1.5s` `1m` `2h` `1d` | always with a unit; "
    "`0` needs none |\n"
    "| size | `512` `64KiB` `8MiB` `1GiB` | bytes; `kB`, `MB` and `GB` are "
    "powers of 1000 |\n"
    "| share | `20%` `0.2` | to a tenth of a percent |\n"
    "| yes or no | `yes` `no` | also `on`, `off`, `true`, `false` |\n"
    "| address | `127.0.0.1:6400` `[::1]:6400` `name:6400` "
    "`unix:/run/redial.sock` | to listen, `:6400` means every address |\n"
    "| URL | `redis://user:password@host:6379/0` | port 6379 and database 0 "
    "may be left out |\n"
    "| | `redis://:password@host` | a password without a user |\n"
    "| | `redis+unix:///run/redis.sock?db=0` | a Unix socket |\n"
    "| | `redis+cluster://user:password@host:6379,host:6379` | some nodes of a "
    "cluster |\n"
    "| | `redis+sentinel://user:password@host:26379,host/mymaster?db=0` | "
    "sentinels and the name of the primary; user and password are for the "
    "primary; `/mymaster/0` will do, and `sentinel://` |\n"
    "| | `...&sentinel_username=u&sentinel_password=p` | behind `?`: what the "
    "sentinels ask for |\n"
    "| list | `a:6379, b, [::1]:6379` | with commas or spaces between |\n"
    "\n"
    "In a URL, `@`, `:`, `/`, `?`, `&` and `%` inside of a user name or "
    "password are written\n"
    "`%40`, `%3A`, `%2F`, `%3F`, `%26` and `%25`. TLS to the server is not "
    "built yet: `rediss://`,\n"
    "`rediss+cluster://` and `rediss+sentinel://` are refused.\n"
    "\n"
    "An address that other machines can reach needs `bind_public = yes` "
    "besides: redial\n"
    "is made to be spoken to from its own machine.\n";

/* Text in a table: "|" would end the cell. Angle brackets would be HTML. */
static void put_cell(const struct writer *w, const char *text)
{
    for (; *text != '\0'; text++) {
        if (*text == '|') {
            put(w, "\\|");
        } else if (*text == '<') {
            put(w, "&lt;");
        } else {
            w->write(w->context, text, 1);
        }
    }
}

static const char markdown_end[] =
    "\n"
    "## Choosing a level of replay\n"
    "\n"
    "A request that was never sent, or that the server refused to execute, is "
    "sent again at\n"
    "every level. `replay` is about the others: the connection broke after a "
    "request was sent\n"
    "and before its reply came, so nobody knows whether it was executed.\n"
    "\n"
    "- Below the level, the client gets `-UNKNOWNOUTCOME` and decides. Its "
    "connection stays open.\n"
    "- `idempotent` is the default. Its price: when another client wrote the "
    "same key between\n"
    "  the first and the second execution, that write is overwritten. The "
    "`deadline` bounds how\n"
    "  late a second execution can be. With `replay = read` no write is ever "
    "repeated.\n"
    "- `convergent` is for those who ignore the counts in replies. A repeated "
    "`DEL` or `ZREM` says\n"
    "  0 where the lost reply said 1: code such as \"`ZREM` returned 1, so "
    "the job is mine\" then\n"
    "  loses the job.\n"
    "- `all` repeats everything. Use it for single commands or keys where "
    "twice is better than\n"
    "  never: `replay.PUBLISH = all`, `replay.prefix.metrics: = all`.\n"
    "\n"
    "## Examples\n"
    "\n"
    "Two servers, each with an address of its own:\n"
    "\n"
    "```ini\n"
    "[listener sessions]\n"
    "address = 127.0.0.1:6400\n"
    "upstream = sessions\n"
    "\n"
    "[listener cache]\n"
    "address = 127.0.0.1:6401\n"
    "upstream = cache\n"
    "\n"
    "[upstream sessions]\n"
    "address = sessions.internal:6379\n"
    "\n"
    "[upstream cache]\n"
    "address = cache.internal:6379\n"
    "deadline = 500ms\n"
    "replay = read\n"
    "```\n"
    "\n"
    "A cluster; clients see one server that holds all keys:\n"
    "\n"
    "```ini\n"
    "[upstream default]\n"
    "type = cluster\n"
    "nodes = 10.0.0.1:6379, 10.0.0.2:6379, 10.0.0.3:6379\n"
    "password = ${file:/run/secrets/redis}\n"
    "read_from = prefer_replica\n"
    "```\n"
    "\n"
    "A primary that sentinels watch:\n"
    "\n"
    "```ini\n"
    "[upstream default]\n"
    "type = sentinel\n"
    "nodes = sentinel-1.internal, sentinel-2.internal, sentinel-3.internal\n"
    "master_name = mymaster\n"
    "password = ${file:/run/secrets/redis}\n"
    "sentinel_password = ${file:/run/secrets/sentinel}\n"
    "allow_nodes = 10.0.0.0/8\n"
    "```\n"
    "\n"
    "The application knows no password; redial does:\n"
    "\n"
    "```ini\n"
    "[listener default]\n"
    "address = unix:/run/redial/redis.sock\n"
    "unix_mode = 0660\n"
    "\n"
    "[upstream default]\n"
    "address = redis.internal:6379\n"
    "username = app\n"
    "password = ${file:/run/secrets/redis}\n"
    "```\n"
    "\n"
    "Probes and metrics from outside of the machine or container:\n"
    "\n"
    "```ini\n"
    "[admin]\n"
    "address = :6401\n"
    "bind_public = yes\n"
    "```\n";

static void markdown_option(const struct writer *w, const struct option *o)
{
    char type[DOC_TEXT_MAX];
    char meaning[DOC_TEXT_MAX];
    describe_type(o, type);
    describe_meaning(o, meaning);
    putf(w, "| `%s` | ", o->key);
    if (o->type == OPTION_SET) {
        put(w, "all");
    } else if (o->fallback != NULL) {
        putf(w, "`%s`", o->fallback);
    }
    put(w, " | ");
    put_cell(w, type);
    put(w, " | ");
    put_cell(w, meaning);
    if (o->alias != NULL) {
        putf(w, " (%s)", o->alias);
    }
    put(w, " |\n");
}

static void markdown_words(const struct writer *w, const struct option *o)
{
    putf(w, "\n| `%s` | |\n| --- | --- |\n", o->key);
    for (const struct word *word = o->words; word->text != NULL; word++) {
        putf(w, "| `%s` | ", word->text);
        put_cell(w, word->help);
        put(w, " |\n");
    }
}

static void markdown_group(const struct writer *w,
                           enum section_kind kind,
                           unsigned group)
{
    put(w, "\n| key | default | value | meaning |\n"
           "| --- | --- | --- | --- |\n");
    for (size_t i = 0; i < option_count(); i++) {
        if (is_in(option_get(i), kind, group)) {
            markdown_option(w, option_get(i));
        }
    }
    for (size_t i = 0; i < option_count(); i++) {
        if (is_in(option_get(i), kind, group) && has_word_help(option_get(i))) {
            markdown_words(w, option_get(i));
        }
    }
}

void config_markdown(config_writer *write, void *context)
{
    struct writer w = { .write = write, .context = context };
    put(&w, markdown_start);
    for (unsigned kind = 0; kind < SECTION_COUNT; kind++) {
        put(&w, "\n## `");
        put_title(&w, (enum section_kind)kind);
        put(&w, "`\n\n");
        put_wrapped(&w, "", section_get((enum section_kind)kind)->help);
        markdown_group(&w, (enum section_kind)kind, GROUP_FIRST);
        if (has_group((enum section_kind)kind, GROUP_GRPC)) {
            putf(&w, "\n### %s for gRPC\n\n",
                 kind == SECTION_LISTENER ? "Listeners" : "Upstreams");
            put_wrapped(&w, "", grpc_intro((enum section_kind)kind));
            markdown_group(&w, (enum section_kind)kind, GROUP_GRPC);
        }
    }
    put(&w, markdown_end);
}
