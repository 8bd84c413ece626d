/* The options as text: --help-config and the example file. */
#include <string.h>

#include "config/config.h"
#include "config/doc_writer.h"
#include "config/option.h"

/* --help-config --- */

static void help_option(const struct writer *w, const struct option *o)
{
    char type[DOC_TEXT_MAX];
    char meaning[DOC_TEXT_MAX];
    doc_type(o, type);
    doc_meaning(o, meaning);
    if (o->fallback != NULL && strlen(o->fallback) < 40) {
        doc_putf(w, "  %s = %s\n", o->key, o->fallback);
    } else {
        doc_putf(w, "  %s\n", o->key);
    }
    doc_put_wrapped(w, "      ", meaning);
    if (!doc_has_words(o)) {
        doc_put_wrapped(w, "      ", type);
    }
    doc_put_words(w, "      ", o);
    if (o->alias != NULL) {
        doc_putf(w, "      (%s)\n", o->alias);
    }
}

static void help_group(const struct writer *w,
                       enum section_kind kind,
                       unsigned group)
{
    for (size_t i = 0; i < option_count(); i++) {
        if (doc_is_in(option_get(i), kind, group)) {
            doc_put(w, "\n");
            help_option(w, option_get(i));
        }
    }
}

void config_help(config_writer *write, void *context)
{
    struct writer w = { .write = write, .context = context };
    doc_put(&w,
            "Options of the configuration file, with their defaults. On the "
            "command line:\n"
            "--set section.key=value, such as --set upstream.deadline=5s.\n");
    for (unsigned kind = 0; kind < SECTION_COUNT; kind++) {
        doc_put(&w, "\n");
        doc_put_title(&w, (enum section_kind)kind);
        doc_put(&w, "\n");
        doc_put_wrapped(&w, "  ", section_get((enum section_kind)kind)->help);
        help_group(&w, (enum section_kind)kind, GROUP_FIRST);
        if (doc_has_group((enum section_kind)kind, GROUP_GRPC)) {
            doc_put(&w, "\n");
            doc_put_wrapped(&w, "  ", doc_grpc_intro((enum section_kind)kind));
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
    doc_meaning(o, meaning);
    doc_put(w, "\n");
    doc_put_wrapped(w, "# ", meaning);
    doc_put_words(w, "#", o);
    if (o->type == OPTION_OVERRIDE_BY_PREFIX) {
        doc_put(w, "#replay.prefix.session: = all\n");
    } else if (o->type == OPTION_OVERRIDE_BY_SCRIPT) {
        doc_put(
            w,
            "#replay.script.e0e1f9fabfc9d4800c877a703b823ac0578ff8db = read\n");
    } else if (o->type == OPTION_OVERRIDE_BY_COMMAND) {
        doc_put(w, "#replay.INCR = all\n");
    } else if (o->fallback != NULL) {
        doc_putf(w, "#%s = %s\n", o->key, o->fallback);
    }
    for (size_t i = 0; i < sizeof(samples) / sizeof(samples[0]); i++) {
        if (o->fallback == NULL && strcmp(samples[i].key, o->key) == 0) {
            bool other = option_is_only_grpc(o) && samples[i].grpc != NULL;
            doc_putf(w, "#%s = %s\n", o->key,
                     other ? samples[i].grpc : samples[i].text);
        }
    }
}

static void example_group(const struct writer *w,
                          enum section_kind kind,
                          unsigned group)
{
    for (size_t i = 0; i < option_count(); i++) {
        if (doc_is_in(option_get(i), kind, group)) {
            example_option(w, option_get(i));
        }
    }
}

/* Sections of their own, as a comment. */
static void example_grpc(const struct writer *w, enum section_kind kind)
{
    doc_put(w, "\n");
    doc_put_wrapped(w, "# ", doc_grpc_intro(kind));
    doc_putf(w, "#[%s calls]\n", section_get(kind)->name);
    doc_put(w, kind == SECTION_LISTENER ? "#upstream = calls\n"
                                        : "#type = grpc\n");
    example_group(w, kind, GROUP_GRPC);
}

void config_example(config_writer *write, void *context)
{
    struct writer w = { .write = write, .context = context };
    doc_put(&w,
            "# redial: every option, at its default. Remove the # of a line to "
            "change it.\n"
            "# Check a file with: redial -c FILE --check\n");
    for (unsigned kind = 0; kind < SECTION_COUNT; kind++) {
        const struct section *s = section_get((enum section_kind)kind);
        doc_put(&w, "\n");
        doc_put_wrapped(&w, "# ", s->help);
        doc_putf(&w, "[%s%s]\n", s->name, s->named ? " default" : "");
        example_group(&w, (enum section_kind)kind, GROUP_FIRST);
        if (kind == SECTION_UPSTREAM) {
            doc_put(&w, "\n# The one thing that has no default.\n"
                        "url = redis://127.0.0.1:6379\n");
        }
        if (doc_has_group((enum section_kind)kind, GROUP_GRPC)) {
            example_grpc(&w, (enum section_kind)kind);
        }
    }
}
