/* What is generated from the table is what lies in the tree. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>

#include <cmocka.h>

#include "config/option.h"
#include "config_loading.h"

static struct loaded_text generated;
static struct loaded_text kept;

static void read_kept(const char *path)
{
    char piece[4096];
    size_t len = 0;
    FILE *file = fopen(path, "r");
    if (file == NULL) {
        fail_msg("cannot open %s", path);
    }
    kept.len = 0;
    while ((len = fread(piece, 1, sizeof(piece), file)) > 0) {
        loaded_write(&kept, piece, len);
    }
    assert_int_equal(fclose(file), 0);
}

static void generate(void (*print)(config_writer *write, void *context))
{
    generated.len = 0;
    print(loaded_write, &generated);
}

static void configuration_md_is_what_the_table_says(void **state)
{
    (void)state;
    generate(config_markdown);
    read_kept(SOURCE_DIR "/docs/configuration.md");
    if (strcmp(kept.text, generated.text) != 0) {
        fail_msg("docs/configuration.md is old: redial --print-markdown");
    }
}

static void the_example_file_is_what_the_table_says(void **state)
{
    (void)state;
    generate(config_example);
    read_kept(SOURCE_DIR "/config/redial.example.ini");
    if (strcmp(kept.text, generated.text) != 0) {
        fail_msg("config/redial.example.ini is old: redial --print-example");
    }
}

static void print_config(const char *text, struct loaded_text *printed)
{
    struct config_source source = loaded_source(text);
    struct config_problems p = { 0 };
    struct config *c = config_load(&source, &p);
    if (c == NULL) {
        fail_msg("%s: %s", p.list[0].place, p.list[0].text);
    }
    printed->len = 0;
    config_print(c, loaded_write, printed);
    config_free(c);
}

static void the_example_file_loads_to_the_defaults(void **state)
{
    (void)state;
    static struct loaded_text from_example;
    static struct loaded_text from_url;
    generate(config_example);
    print_config(generated.text, &from_example);
    print_config("[upstream default]\nurl = redis://127.0.0.1:6379\n",
                 &from_url);
    assert_string_equal(from_example.text, from_url.text);
}

/* The option of a line such as "#key = value" or "key = value", or NULL. */
static const struct option *option_of(enum section_kind section,
                                      const char *line)
{
    char key[64];
    line += line[0] == '#' ? 1 : 0;
    size_t len = strcspn(line, " \n");
    if (len == 0 || len >= sizeof(key) || strncmp(line + len, " = ", 3) != 0) {
        return NULL;
    }
    (void)snprintf(key, sizeof(key), "%.*s", (int)len, line);
    return option_find(section, key);
}

/* Take the "#" from each line that is a commented option of this type of
 * upstream, and put one before the others. Those for gRPC stand in sections of
 * their own, which stay comments. Returns how many are left. */
static size_t uncomment(char *text, unsigned type)
{
    enum section_kind section = SECTION_COUNT;
    size_t options = 0;
    for (char *line = text; *line != '\0'; line += *line == '\n' ? 1 : 0) {
        if (line[0] == '[') {
            section = section_find(line + 1, strcspn(line + 1, " ]"));
        } else if (strncmp(line, "#[", 2) == 0) {
            section = SECTION_COUNT;
        }
        const struct option *o = option_of(section, line);
        /* "url" and the keys it stands for exclude each other; the example has
         * a password for auth = own; and type is the one of this turn. */
        if (o != NULL && option_is_for(o, type) && strcmp(o->key, "url") != 0 &&
            strcmp(o->key, "auth") != 0 && strcmp(o->key, "type") != 0) {
            if (line[0] == '#') {
                line[0] = ' ';
            }
            options++;
        } else if (o != NULL) {
            line[0] = '#';
        }
        line += strcspn(line, "\n");
    }
    return options;
}

/* Whatever the example says fits together for this type, but for the files of
 * secrets, which are not there. */
static void load_uncommented(const struct word *type, size_t secrets)
{
    char set[64];
    const char *const sets[] = { set };
    (void)snprintf(set, sizeof(set), "upstream.type=%s", type->text);
    struct config_source source = loaded_source(generated.text);
    source.sets = sets;
    source.n_sets = 1;
    struct config_problems p = { 0 };
    assert_null(config_load(&source, &p));
    for (size_t i = 0; i < p.n; i++) {
        if (strncmp(p.list[i].text, "cannot read the file '/run/secrets/",
                    35) != 0) {
            fail_msg("%s: %s", p.list[i].place, p.list[i].text);
        }
    }
    assert_int_equal(p.n, secrets);
    config_problems_fini(&p);
}

static void every_line_of_the_example_loads_when_it_is_not_a_comment(
    void **state)
{
    (void)state;
    for (const struct word *w = words_upstream_type; w->text != NULL; w++) {
        size_t expected = 0;
        if (w->value == UPSTREAM_GRPC) {
            continue;
        }
        for (size_t i = 0; i < option_count(); i++) {
            expected += option_is_for(option_get(i), w->value) ? 1 : 0;
        }
        generate(config_example);
        /* without url, auth and type */
        assert_int_equal(uncomment(generated.text, w->value), expected - 3);
        load_uncommented(w, w->value == UPSTREAM_SENTINEL ? 3 : 2);
    }
}

/* The same for the sections of gRPC. */
static size_t uncomment_grpc(char *text)
{
    enum section_kind section = SECTION_COUNT;
    size_t options = 0;
    for (char *line = text; *line != '\0'; line += *line == '\n' ? 1 : 0) {
        if (line[0] == '[') {
            section = SECTION_COUNT;
        } else if (strncmp(line, "#[", 2) == 0) {
            section = section_find(line + 2, strcspn(line + 2, " ]"));
            line[0] = ' ';
        }
        const struct option *o = option_of(section, line);
        /* target and nodes exclude each other; protocol is not auto; and there
         * is no such file. */
        if (o != NULL && strcmp(o->key, "target") != 0 &&
            strcmp(o->key, "grpc_upstream") != 0 &&
            strcmp(o->key, "service_config") != 0) {
            line[0] = ' ';
            options++;
        }
        line += strcspn(line, "\n");
    }
    return options;
}

static void every_line_for_grpc_loads_when_it_is_not_a_comment(void **state)
{
    (void)state;
    size_t expected = 2; /* "upstream = calls", "type = grpc" */
    for (size_t i = 0; i < option_count(); i++) {
        expected += option_is_only_grpc(option_get(i)) ? 1 : 0;
    }
    generate(config_example);
    assert_int_equal(uncomment_grpc(generated.text), expected - 3);
    static struct loaded_text printed;
    print_config(generated.text, &printed);
    assert_non_null(strstr(printed.text, "[upstream calls]\ntype = grpc\n"));
}

static void help_names_every_option(void **state)
{
    (void)state;
    generate(config_help);
    for (size_t i = 0; i < option_count(); i++) {
        char line[128];
        (void)snprintf(line, sizeof(line), "\n  %s", option_get(i)->key);
        assert_non_null(strstr(generated.text, line));
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(configuration_md_is_what_the_table_says),
        cmocka_unit_test(the_example_file_is_what_the_table_says),
        cmocka_unit_test(the_example_file_loads_to_the_defaults),
        cmocka_unit_test(
            every_line_of_the_example_loads_when_it_is_not_a_comment),
        cmocka_unit_test(every_line_for_grpc_loads_when_it_is_not_a_comment),
        cmocka_unit_test(help_names_every_option),
    };
    return cmocka_run_group_tests_name("config documents", tests, NULL, NULL);
}
