/* Loading: what files and arguments say, and what is said of mistakes. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include <cmocka.h>

#include "config_loading.h"

/* Load, or fail the test with the problems. The caller frees. */
static struct config *load(const struct config_source *source)
{
    struct config_problems p = { 0 };
    struct config *c = config_load(source, &p);
    if (c == NULL) {
        print_message("%s: %s\n", p.list[0].place, p.list[0].text);
    }
    config_problems_fini(&p);
    assert_non_null(c);
    return c;
}

static struct config *load_file(const char *text)
{
    struct config_source source = loaded_source(text);
    return load(&source);
}

/* The source is refused with exactly these problems, one a line. */
static void refuse(const struct config_source *source, const char *expected)
{
    static struct loaded_text told;
    told.len = 0;
    struct config_problems p = { 0 };
    struct config *c = config_load(source, &p);
    assert_null(c);
    for (size_t i = 0; i < p.n; i++) {
        loaded_write(&told, p.list[i].place, strlen(p.list[i].place));
        loaded_write(&told, ": ", 2);
        loaded_write(&told, p.list[i].text, strlen(p.list[i].text));
        loaded_write(&told, "\n", 1);
    }
    config_problems_fini(&p);
    assert_int_equal(p.n, 0);
    assert_string_equal(told.text, expected);
}

static void refuse_file(const char *text, const char *expected)
{
    struct config_source source = loaded_source(text);
    refuse(&source, expected);
}

static void refuse_set(const char *set, const char *expected)
{
    struct config_source source = loaded_source(NULL);
    source.url = "redis://h";
    source.sets = &set;
    source.n_sets = 1;
    refuse(&source, expected);
}

/* Arguments --- */

static void a_url_alone_is_enough(void **state)
{
    (void)state;
    struct config_source source = { .url = "redis://u:p@10.0.0.1:6380/2" };
    struct config *c = load(&source);
    assert_int_equal(c->n_listeners, 1);
    assert_int_equal(c->n_upstreams, 1);
    const struct listener_config *l = &c->listeners[0];
    const struct upstream_config *u = &c->upstreams[0];
    assert_string_equal(l->name, "default");
    assert_string_equal(l->address.host, "127.0.0.1");
    assert_int_equal(l->address.port, 6400);
    assert_ptr_equal(l->upstream, u);
    assert_string_equal(u->name, "default");
    assert_string_equal(u->address.host, "10.0.0.1");
    assert_int_equal(u->address.port, 6380);
    assert_string_equal(u->username, "u");
    assert_string_equal(u->password, "p");
    assert_int_equal(u->db, 2);
    assert_false(c->process.admin);
    config_free(c);
}

static void defaults_are_those_of_the_table(void **state)
{
    (void)state;
    struct config_source source = { .url = "redis://h" };
    struct config *c = load(&source);
    const struct process_config *p = &c->process;
    const struct listener_config *l = &c->listeners[0];
    const struct upstream_config *u = &c->upstreams[0];
    assert_int_equal(p->workers, 1);
    assert_int_equal(p->drain_timeout_us, 10000000);
    assert_int_equal(p->log_format, LOG_LOGFMT);
    assert_int_equal(p->log_level, LOG_INFO);
    assert_int_equal(p->keepalive_idle_us, 10000000);
    assert_int_equal(p->keepalive_probes, 3);
    assert_int_equal(p->user_timeout_us, 5000000);
    assert_int_equal(l->unix_mode, 0660);
    assert_int_equal(l->auth, AUTH_PASS);
    assert_int_equal(l->client_buffer_max, 8 << 20);
    assert_int_equal(l->proto_max_bulk, 512 << 20);
    assert_int_equal(l->proto_max_args, 1048576);
    assert_int_equal(l->idle_timeout_us, 0);
    assert_int_equal(u->type, UPSTREAM_STANDALONE);
    assert_int_equal(u->lanes, LANES_SHARED);
    assert_true(u->retry);
    assert_int_equal(u->retries, 3);
    assert_int_equal(u->deadline_us, 10000000);
    assert_int_equal(u->attempt_timeout_us, 0);
    assert_int_equal(u->replay, REPLAY_IDEMPOTENT);
    assert_int_equal(u->n_overrides, 0);
    assert_int_equal(u->retry_on_error, (1 << 10) - 1);
    assert_int_equal(u->backoff, BACKOFF_EXPONENTIAL_WITH_JITTER);
    assert_int_equal(u->backoff_base_us, 8000);
    assert_int_equal(u->backoff_cap_us, 512000);
    assert_int_equal(u->budget_ratio_permille, 200);
    assert_null(u->username);
    assert_null(u->password);
    config_free(c);
}

static void nothing_at_all_says_what_to_type(void **state)
{
    (void)state;
    struct config_source source = { 0 };
    refuse(&source,
           "command line: no server to speak to: type 'redial "
           "redis://127.0.0.1:6379', or name a file with -c that has a "
           "section [upstream default]\n");
    refuse_file("",
                "f: no server to speak to: type 'redial "
                "redis://127.0.0.1:6379', or name a file with -c that has a "
                "section [upstream default]\n");
}

static void arguments_win_over_the_file_and_set_over_both(void **state)
{
    (void)state;
    static const char *const sets[] = {
        "listener.clients_max=7",
        "upstream.db = 9",
        "upstream.deadline=1s",
        "upstream.deadline=2s",
        "log.level=debug",
        "upstream.replay.incr=all",
        "upstream.replay.prefix.a.b=none",
    };
    struct config_source source = loaded_source("[listener default]\n"
                                                "address = 127.0.0.1:1\n"
                                                "clients_max = 5\n"
                                                "pipeline_max = 6\n"
                                                "[upstream default]\n"
                                                "address = old:1\n"
                                                "username = old\n"
                                                "password = old\n"
                                                "db = 3\n"
                                                "retries = 8\n"
                                                "deadline = 9s\n"
                                                "replay.INCR = read\n"
                                                "[admin]\n"
                                                "address = 127.0.0.1:2\n");
    source.url = "redis://new:6379/5";
    source.listen = "127.0.0.1:11";
    source.admin = "127.0.0.1:12";
    source.sets = sets;
    source.n_sets = sizeof(sets) / sizeof(sets[0]);
    struct config *c = load(&source);
    const struct upstream_config *u = &c->upstreams[0];
    assert_int_equal(c->n_listeners, 1);
    assert_int_equal(c->n_upstreams, 1);
    assert_int_equal(c->listeners[0].address.port, 11);
    assert_int_equal(c->listeners[0].clients_max, 7);
    assert_int_equal(c->listeners[0].pipeline_max, 6);
    assert_int_equal(c->process.admin_address.port, 12);
    assert_true(c->process.admin);
    assert_int_equal(c->process.log_level, LOG_DEBUG);
    assert_string_equal(u->address.host, "new");
    assert_null(u->username); /* not for the new server */
    assert_null(u->password);
    assert_int_equal(u->db, 9);
    assert_int_equal(u->retries, 8);
    assert_int_equal(u->deadline_us, 2000000);
    assert_int_equal(u->n_overrides, 2);
    assert_int_equal(u->overrides[0].kind, OVERRIDE_PREFIX);
    assert_string_equal(u->overrides[0].text, "a.b");
    assert_string_equal(u->overrides[1].text, "INCR");
    assert_int_equal(u->overrides[1].level, REPLAY_ALL);
    config_free(c);
}

static void set_finds_sections_by_name(void **state)
{
    (void)state;
    static const char *const sets[] = { "upstream.b.deadline=3s",
                                        "upstream.a.replay.INCR=all" };
    struct config_source source =
        loaded_source("[listener x]\nupstream = b\n[upstream a]\n"
                      "address = a:1\n[upstream b]\naddress = b:1\n");
    source.sets = sets;
    source.n_sets = 2;
    struct config *c = load(&source);
    assert_int_equal(c->upstreams[0].deadline_us, 10000000);
    assert_int_equal(c->upstreams[0].n_overrides, 1);
    assert_int_equal(c->upstreams[1].deadline_us, 3000000);
    assert_ptr_equal(c->listeners[0].upstream, &c->upstreams[1]);
    config_free(c);
}

static void the_only_section_is_the_default_one(void **state)
{
    (void)state;
    static const char *const sets[] = { "upstream.retries=0" };
    struct config_source source =
        loaded_source("[listener x]\n[upstream a]\naddress = a:1\n");
    source.listen = "127.0.0.1:77";
    source.sets = sets;
    source.n_sets = 1;
    struct config *c = load(&source);
    assert_int_equal(c->n_listeners, 1);
    assert_int_equal(c->listeners[0].address.port, 77);
    assert_int_equal(c->n_upstreams, 1);
    assert_int_equal(c->upstreams[0].retries, 0);
    config_free(c);
}

static void wrong_sets_are_told_with_a_suggestion(void **state)
{
    (void)state;
    refuse_set("upstream.dedline=5s",
               "--set upstream.dedline: unknown key 'dedline' in section "
               "[upstream]; did you mean 'deadline'?\n");
    refuse_set(
        "upstraem.deadline=5s",
        "--set upstraem.deadline: unknown section 'upstraem'; there are "
        "redial, admin, log, tcp, grpc, listener NAME and upstream NAME; did "
        "you mean 'upstream'?\n");
    refuse_set("upstream.defalt.deadline=5s",
               "--set upstream.defalt.deadline: there is no section [upstream "
               "defalt] to change; did you mean 'default'?\n");
    refuse_set("log.level=inf",
               "--set log.level: level = inf: allowed is debug, info, warn or "
               "error; did you mean 'info'?\n");
    refuse_set("upstream.replay.=all",
               "--set upstream.replay.: key 'replay.': behind 'replay.' stands "
               "a command, such as replay.INCR\n");
    refuse_set("s3cret", "--set: write --set section.key=value, such as --set "
                         "upstream.deadline=5s\n");
    refuse_set("deadline=5s",
               "--set deadline: write --set section.key=value, such as --set "
               "upstream.deadline=5s\n");
    refuse_set("redial.x.workers=5",
               "--set redial.x.workers: unknown key 'x.workers' in section "
               "[redial]; did you mean 'workers'?\n");
}

static void several_sections_need_a_name(void **state)
{
    (void)state;
    static const char *const sets[] = { "upstream.retries=0" };
    struct config_source source = loaded_source(
        "[upstream a]\naddress = a:1\n[upstream b]\naddress = b:1\n");
    source.sets = sets;
    source.n_sets = 1;
    refuse(&source,
           "--set upstream.retries: which upstream? There are several and none "
           "is named 'default'; write --set upstream.NAME.key=value\n"
           "f: [listener default] must say which of the upstreams it "
           "means: upstream = a\n");
}

static void set_alone_is_enough(void **state)
{
    (void)state;
    static const char *const sets[] = { "upstream.default.address=h:1" };
    struct config_source source = { .sets = sets, .n_sets = 1 };
    struct config *c = load(&source);
    assert_string_equal(c->upstreams[0].address.host, "h");
    config_free(c);
}

static void problems_stay_on_one_line(void **state)
{
    (void)state;
    refuse_set("log.a\nb=1",
               "--set log.a?b: unknown key 'a?b' in section [log]\n");
}

/* Files --- */

static void every_way_to_write_a_line_is_read(void **state)
{
    (void)state;
    struct config *c = load_file("\xef\xbb\xbf; a comment\r\n"
                                 "# another\r\n"
                                 "\r\n"
                                 "  [ upstream\tdefault ] ; behind it\r\n"
                                 "  address=h:1\r\n"
                                 "\tdb\t=\t4 ; a comment\r\n"
                                 "password = a;b#c # d\r\n"
                                 "retries = 5");
    const struct upstream_config *u = &c->upstreams[0];
    assert_string_equal(u->address.host, "h");
    assert_int_equal(u->db, 4);
    assert_string_equal(u->password, "a;b#c # d");
    assert_int_equal(u->retries, 5);
    config_free(c);
}

static void a_name_may_be_left_out_for_the_default(void **state)
{
    (void)state;
    struct config *c =
        load_file("[listener]\naddress=/l\n[upstream]\naddress=/u\n");
    assert_string_equal(c->listeners[0].name, "default");
    assert_string_equal(c->upstreams[0].name, "default");
    assert_true(c->upstreams[0].address.is_unix);
    config_free(c);
}

static void all_problems_of_a_file_are_told(void **state)
{
    (void)state;
    refuse_file(
        "early = 1\n"
        "[redail]\n"
        "skipped = 1\n"
        "[upstream default]\n"
        "address = h:1\n"
        "dead_line = 1s\n"
        "retries = many\n"
        "retries = 4\n"
        "no equals sign\n"
        "= no key\n"
        "[upstream default]\n"
        "db = 1\n"
        "[log x]\n"
        "[listener a b]\n"
        "[tcp\n"
        "[admin] x\n"
        "[upstream replay]\n"
        "c\001 = 1\n"
        "[listener l]\n"
        "upstream = defautl\n",
        "f:1: 'early' stands before the first section; begin with one such as "
        "[upstream default]\n"
        "f:2: unknown section 'redail'; there are redial, admin, log, tcp, "
        "grpc, listener NAME and upstream NAME; did you mean 'redial'?\n"
        "f:6: unknown key 'dead_line' in section [upstream]; did you mean "
        "'deadline'?\n"
        "f:8: 'retries' is already given at f:7\n"
        "f:9: this is no line such as key = value, [section] or # note\n"
        "f:10: there is no key before '='\n"
        "f:11: section [upstream default] is already at f:4; put its keys "
        "there\n"
        "f:13: section [log] has no name: write [log]\n"
        "f:14: section [listener a b]: a name has 1 to 63 letters, digits, '-' "
        "and '_'\n"
        "f:15: the section has no ']'\n"
        "f:16: there is text behind the section's ']'\n"
        "f:17: section [upstream replay]: the name 'replay' would be taken for "
        "a key in --set\n"
        "f:18: there is a control character in this line\n"
        "f:7: retries = many: not a whole number\n"
        "f:20: there is no section [upstream defautl]; did you mean "
        "'default'?\n");
}

static void a_zero_byte_is_a_problem(void **state)
{
    (void)state;
    static const char text[] = "[upstream default]\naddress = h:1\0x\n";
    struct config_source source = loaded_source(text);
    source.text_len = sizeof(text) - 1;
    refuse(&source,
           "f:2: there is a control character in this line\n"
           "f:1: [upstream default] has no address; write address = host:port "
           "or url = redis://host:port, or give a URL on the command line\n");
}

static void a_section_name_that_is_too_long_is_refused(void **state)
{
    (void)state;
    char text[256] = "[";
    memset(text + 1, 'x', 150);
    memcpy(text + 151, "]\n", 3);
    refuse_file(text, "f:1: the section's name is too long\n");
}

static void lines_of_198_bytes_are_read_and_longer_ones_refused(void **state)
{
    (void)state;
    char text[512] = "[upstream default]\naddress = h:1\npassword = ";
    size_t head = strlen(text);
    size_t key = strlen("password = ");
    memset(text + head, 'x', 198 - key);
    struct config *c = load_file(text);
    assert_int_equal(strlen(c->upstreams[0].password), 198 - key);
    config_free(c);

    text[head + 198 - key] = 'x';
    refuse_file(text,
                "f:3: the line is longer than 198 bytes; long values fit into "
                "a file: ${file:/path}\n");

    char comment[512];
    memset(comment, '#', sizeof(comment));
    memcpy(comment + 300, "\n[upstream default]\naddress=h:1", 32);
    config_free(load_file(comment));
}

static void more_problems_than_the_list_holds_are_cut(void **state)
{
    (void)state;
    char text[4096] = "[redial]\n";
    for (char *end = strchr(text, '\0'); end < text + 9 + (size_t)200 * 6;
         end += 6) {
        memcpy(end, "x = 1\n", 7);
    }
    struct config_source source = loaded_source(text);
    struct config_problems p = { 0 };
    assert_null(config_load(&source, &p));
    assert_int_equal(p.n, CONFIG_PROBLEMS_MAX);
    assert_string_equal(p.list[CONFIG_PROBLEMS_MAX - 1].place, "f:101");
    assert_string_equal(
        p.list[CONFIG_PROBLEMS_MAX - 1].text,
        "here and behind are more problems; solve those above first");
    config_problems_fini(&p);
}

/* A file with count lines such as "before 7 behind" is refused. */
static void refuse_many(const char *head,
                        const char *before,
                        const char *behind,
                        size_t count,
                        const char *expected)
{
    size_t room = 1024 * 1024 + 100 * 1024;
    char *text = malloc(room);
    assert_non_null(text);
    size_t len = strlen(head);
    memcpy(text, head, len + 1);
    for (size_t i = 0; i < count; i++) {
        int n =
            snprintf(text + len, room - len, "%s%zu%s\n", before, i, behind);
        assert_in_range(n, 1, room - len - 1);
        len += (size_t)n;
    }
    refuse_file(text, expected);
    free(text);
}

static void too_many_sections_or_keys_are_refused(void **state)
{
    (void)state;
    refuse_many("[upstream u]\naddress = h:1\n", "replay.C", " = all", 1100,
                "f:1102: section [upstream u] has more than 1100 keys\n");
    refuse_many("[upstream u]\naddress = h:1\n[listener l]\nupstream = u\n",
                "[upstream v", "]\naddress=h:1", 999,
                "f:2001: there are more than 1000 sections\n");
    refuse_many("[upstream u]\naddress = h:1\n", "# no more than a comment ",
                " of many", 28000, "f: the file is larger than 1 MiB\n");
}

/* References --- */

static void a_reference_may_name_the_upstream(void **state)
{
    (void)state;
    struct config *c = load_file("[upstream a]\naddress = a:1\n"
                                 "[upstream EMPTYx]\naddress = b:1\n"
                                 "[listener l]\nupstream = EMPTY${EMPTY}x\n");
    assert_ptr_equal(c->listeners[0].upstream, &c->upstreams[1]);
    config_free(c);
}

static void references_are_replaced(void **state)
{
    (void)state;
    struct config *c = load_file("[upstream a]\n"
                                 "address = ${HOST}:6379\n"
                                 "password = ${PASSWORD}\n"
                                 "[upstream b]\n"
                                 "url = redis://${HOST}\n"
                                 "password = a${file:/crlf}b$${HOST}$c\n"
                                 "[listener l]\n"
                                 "upstream = a\n"
                                 "password = ${file:/secret}\n");
    assert_string_equal(c->upstreams[0].address.host, "redis.internal");
    assert_string_equal(c->upstreams[0].password, "p${HOST}");
    assert_string_equal(c->upstreams[1].address.host, "redis.internal");
    assert_string_equal(c->upstreams[1].password, "ahunter2b${HOST}$c");
    assert_string_equal(c->listeners[0].password, "hunter2\n");
    config_free(c);
}

static void bad_references_are_told(void **state)
{
    (void)state;
    refuse_file("[upstream default]\n"
                "address = ${NO_HOST}:6379\n"
                "password = ${file:/none}\n"
                "username = ${EMPTY}\n"
                "deadline = ${5s\n"
                "db = ${}\n"
                "retries = ${1}\n",
                "f:2: the environment has no variable 'NO_HOST'\n"
                "f:3: cannot read the file '/none'\n"
                "f:4: username = ${EMPTY}: empty; leave it out, or give a "
                "value\n"
                "f:5: '${' has no '}'; a plain ${ is written $${\n"
                "f:6: '${}' is neither ${NAME} of the environment nor "
                "${file:/path}; a plain ${ is written $${\n"
                "f:7: '${1}' is neither ${NAME} of the environment nor "
                "${file:/path}; a plain ${ is written $${\n");
    struct config_source source = { .file_name = "f",
                                    .text = "[upstream]\nurl=${HOST}",
                                    .text_len = 22 };
    refuse(&source, "f:2: the environment has no variable 'HOST'\n");
}

static char *endless(void *context, const char *path)
{
    (void)context;
    (void)path;
    char *text = malloc(70000);
    assert_non_null(text);
    memset(text, 'x', 69999);
    text[69999] = '\0';
    return text;
}

static void values_have_a_longest_length(void **state)
{
    (void)state;
    struct config_source source =
        loaded_source("[upstream u]\naddress = h:1\npassword = a${file:/x}\n");
    source.read_file = endless;
    refuse(&source, "f:3: the value is longer than 65536 bytes\n");
}

static void no_problem_shows_a_secret(void **state)
{
    (void)state;
    static const char *const texts[] = {
        "[upstream default]\nurl = redis://:hunter2@h:x\n",
        "[upstream default]\nurl = rediss://:hunter2@h\n",
        "[upstream default]\nurl = hunter2\n",
        "[upstream default]\naddress = h:1\nusername = hunter3 ${PASSWORD}\n",
        "[upstream default]\nurl = redis://:hunter2@h\npassword = hunter2\n",
        "[upstream default]\nhunter2\n",
        "[upstream default]\naddress = ${file:/secret}\n",
    };
    for (size_t i = 0; i < sizeof(texts) / sizeof(texts[0]); i++) {
        struct config_source source = loaded_source(texts[i]);
        struct config_problems p = { 0 };
        assert_null(config_load(&source, &p));
        assert_true(p.n > 0);
        for (size_t k = 0; k < p.n; k++) {
            assert_null(strstr(p.list[k].text, "hunter2"));
            assert_null(strstr(p.list[k].place, "hunter2"));
        }
        config_problems_fini(&p);
    }
}

/* What must fit together --- */

static void a_url_and_its_parts_are_one_thing(void **state)
{
    (void)state;
    struct config *c = load_file("[upstream default]\n"
                                 "url = redis://h:1\n"
                                 "password = x\n"
                                 "db = 3\n");
    assert_string_equal(c->upstreams[0].password, "x");
    assert_int_equal(c->upstreams[0].db, 3);
    config_free(c);

    refuse_file("[upstream default]\n"
                "url = redis://u:p@h:1/2\n"
                "address = h:1\n"
                "username = u\n"
                "password = x\n"
                "db = 3\n",
                "f:3: address is also in the url at f:2; keep one of them\n"
                "f:6: db is also in the url at f:2; keep one of them\n"
                "f:4: username is also in the url at f:2; keep one of them\n"
                "f:5: password is also in the url at f:2; keep one of them\n");
}

static void set_wins_over_parts_of_a_url(void **state)
{
    (void)state;
    static const char *const sets[] = { "upstream.address=other:2",
                                        "upstream.password=q",
                                        "upstream.db=7" };
    struct config_source source = loaded_source(NULL);
    source.url = "redis://u:p@h:1/2";
    source.sets = sets;
    source.n_sets = 3;
    struct config *c = load(&source);
    assert_string_equal(c->upstreams[0].address.host, "other");
    assert_string_equal(c->upstreams[0].username, "u");
    assert_string_equal(c->upstreams[0].password, "q");
    assert_int_equal(c->upstreams[0].db, 7);
    config_free(c);
}

static void auth_follows_from_credentials_when_it_is_not_given(void **state)
{
    (void)state;
    struct config *c = load_file("[upstream plain]\naddress = h:1\n"
                                 "[upstream keyed]\naddress = h:2\n"
                                 "password = p\n"
                                 "[listener a]\naddress = /a\n"
                                 "upstream = plain\n"
                                 "[listener b]\naddress = /b\n"
                                 "upstream = keyed\n"
                                 "[listener c]\naddress = /c\n"
                                 "upstream = keyed\nauth = pass\n"
                                 "[listener d]\naddress = /d\n"
                                 "upstream = plain\npassword = x\n");
    assert_int_equal(c->listeners[0].auth, AUTH_PASS);
    assert_int_equal(c->listeners[1].auth, AUTH_OWN);
    assert_int_equal(c->listeners[2].auth, AUTH_PASS);
    assert_int_equal(c->listeners[3].auth, AUTH_OWN);
    config_free(c);
}

static void contradictions_are_told(void **state)
{
    (void)state;
    refuse_file(
        "[admin]\naddress = 10.0.0.1:1\n"
        "[tcp]\nkeepalive_idle = 1500ms\n"
        "[listener a]\naddress = :6400\nauth = pass\npassword = x\n"
        "[listener b]\naddress = 127.0.0.1:1\nusername = u\n"
        "[listener c]\naddress = 127.0.0.1:1\n"
        "[upstream u]\nbackoff_base = 2s\nbackoff_cap = 1s\nusername = u\n",
        "f:2: other machines can reach 10.0.0.1:1; if that is meant, say "
        "bind_public = yes in section [admin] (or --set "
        "admin.bind_public=yes)\n"
        "f:4: keepalive_idle must be whole seconds: the kernel knows no less\n"
        "f:6: other machines can reach 0.0.0.0:6400; if that is meant, say "
        "bind_public = yes in section [listener a] (or --set "
        "listener.a.bind_public=yes)\n"
        "f:7: the password of [listener a] is checked only with auth = own\n"
        "f:11: a username needs a password\n"
        "f:13: [listener b] has the address 127.0.0.1:1 already\n"
        "f:14: [upstream u] has no address; write address = host:port or url = "
        "redis://host:port, or give a URL on the command line\n"
        "f:17: a username needs a password\n"
        "f:15: backoff_base is longer than backoff_cap\n");
}

static void a_public_address_is_allowed_when_it_is_meant(void **state)
{
    (void)state;
    struct config *c = load_file("[admin]\naddress = :1\nbind_public = yes\n"
                                 "[listener a]\naddress = [::]:1\n"
                                 "bind_public = yes\n"
                                 "[upstream u]\naddress = h:1\n");
    assert_string_equal(c->process.admin_address.host, "0.0.0.0");
    assert_string_equal(c->listeners[0].address.host, "::");
    config_free(c);
}

static void overrides_are_in_the_order_in_which_they_are_asked(void **state)
{
    (void)state;
    struct config *c = load_file(
        "[upstream u]\naddress = h:1\n"
        "replay.incr = all\n"
        "replay.xgroup|create = none\n"
        "replay.prefix.a = read\n"
        "replay.script.E0E1F9FABFC9D4800C877A703B823AC0578FF8DB = read\n"
        "replay.prefix.a:b:= none\n"
        "replay = convergent\n");
    static const struct replay_override expected[] = {
        { OVERRIDE_PREFIX, REPLAY_NONE, NULL },
        { OVERRIDE_PREFIX, REPLAY_READ, NULL },
        { OVERRIDE_SCRIPT, REPLAY_READ, NULL },
        { OVERRIDE_COMMAND, REPLAY_NONE, NULL },
        { OVERRIDE_COMMAND, REPLAY_ALL, NULL },
    };
    static const char *const texts[] = {
        "a:b:", "a", "e0e1f9fabfc9d4800c877a703b823ac0578ff8db",
        "XGROUP CREATE", "INCR"
    };
    const struct upstream_config *u = &c->upstreams[0];
    assert_int_equal(u->replay, REPLAY_CONVERGENT);
    assert_int_equal(u->n_overrides, 5);
    for (size_t i = 0; i < 5; i++) {
        assert_int_equal(u->overrides[i].kind, expected[i].kind);
        assert_int_equal(u->overrides[i].level, expected[i].level);
        assert_string_equal(u->overrides[i].text, texts[i]);
    }
    config_free(c);

    refuse_file(
        "[upstream u]\naddress = h:1\n"
        "replay.INCR = all\nreplay.incr = all\n"
        "replay.script.abc = all\nreplay.prefix. = all\n"
        "replay.GET = sometimes\n",
        "f:4: 'replay.INCR' is already given at f:3\n"
        "f:5: key 'replay.script.abc': a script is named by its SHA1: "
        "40 hexadecimal digits\n"
        "f:6: key 'replay.prefix.': behind 'replay.prefix.' stands how "
        "keys begin, such as replay.prefix.session:\n"
        "f:7: replay.GET = sometimes: allowed is none, read, idempotent, "
        "convergent or all\n");
}

static void retry_on_timeout_takes_timeout_away(void **state)
{
    (void)state;
    struct config *c = load_file("[upstream u]\naddress = h:1\n"
                                 "retry_on_timeout = no\n"
                                 "retry_on_error = timeout, busy\n");
    assert_int_equal(c->upstreams[0].retry_on_error, RETRY_ERROR_BUSY);
    config_free(c);
}

/* Printing --- */

static void print_to(const struct config *c, struct loaded_text *text)
{
    text->len = 0;
    text->text[0] = '\0';
    config_print(c, loaded_write, text);
}

static void what_is_printed_loads_to_the_same(void **state)
{
    (void)state;
    static struct loaded_text first;
    static struct loaded_text second;
    struct config *c = load_file("[admin]\naddress = unix:/a\n"
                                 "[log]\nformat = json\n"
                                 "[listener x]\naddress = /a$${x}\n"
                                 "unix_mode = 0600\nidle_timeout = 90s\n"
                                 "upstream = u\n"
                                 "[upstream u]\nurl = redis://[::1]:1/4\n"
                                 "replay.prefix.s:= all\n"
                                 "replay.incr = none\nbackoff = none\n"
                                 "replay.script.e0e1f9fabfc9d4800c877a703b82"
                                 "3ac0578ff8db = read\n"
                                 "retry = off\nretries = -1\n"
                                 "budget_ratio = 12.5%\n"
                                 "retry_on_error = none\n"
                                 "reply_hold_max = 1000\n"
                                 "[upstream v]\naddress = h:1\n");
    print_to(c, &first);
    config_free(c);
    assert_non_null(strstr(first.text, "idle_timeout = 90s\n"));
    assert_non_null(strstr(first.text, "replay.prefix.s: = all\n"));
    assert_non_null(strstr(first.text, "address = unix:/a$${x}\n"));
    assert_non_null(strstr(first.text, "retry = off\nretries = -1\n"));

    c = load_file(first.text);
    print_to(c, &second);
    config_free(c);
    assert_string_equal(first.text, second.text);
}

static void secrets_are_not_printed_and_not_loaded_as_stars(void **state)
{
    (void)state;
    static struct loaded_text text;
    struct config *c = load_file("[upstream u]\nurl = redis://a:hunter2@h:1\n"
                                 "[listener l]\nusername = b\n"
                                 "password = hunter2\n");
    print_to(c, &text);
    config_free(c);
    assert_null(strstr(text.text, "hunter2"));
    assert_non_null(strstr(text.text, "username = a\npassword = ***\n"));
    assert_non_null(strstr(text.text, "username = b\npassword = ***\n"));

    struct config_source source = loaded_source(text.text);
    struct config_problems p = { 0 };
    assert_null(config_load(&source, &p));
    assert_int_equal(p.n, 2);
    config_problems_fini(&p);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_url_alone_is_enough),
        cmocka_unit_test(defaults_are_those_of_the_table),
        cmocka_unit_test(nothing_at_all_says_what_to_type),
        cmocka_unit_test(arguments_win_over_the_file_and_set_over_both),
        cmocka_unit_test(set_finds_sections_by_name),
        cmocka_unit_test(the_only_section_is_the_default_one),
        cmocka_unit_test(wrong_sets_are_told_with_a_suggestion),
        cmocka_unit_test(several_sections_need_a_name),
        cmocka_unit_test(set_alone_is_enough),
        cmocka_unit_test(problems_stay_on_one_line),
        cmocka_unit_test(every_way_to_write_a_line_is_read),
        cmocka_unit_test(a_name_may_be_left_out_for_the_default),
        cmocka_unit_test(all_problems_of_a_file_are_told),
        cmocka_unit_test(a_zero_byte_is_a_problem),
        cmocka_unit_test(a_section_name_that_is_too_long_is_refused),
        cmocka_unit_test(lines_of_198_bytes_are_read_and_longer_ones_refused),
        cmocka_unit_test(more_problems_than_the_list_holds_are_cut),
        cmocka_unit_test(too_many_sections_or_keys_are_refused),
        cmocka_unit_test(references_are_replaced),
        cmocka_unit_test(a_reference_may_name_the_upstream),
        cmocka_unit_test(bad_references_are_told),
        cmocka_unit_test(values_have_a_longest_length),
        cmocka_unit_test(no_problem_shows_a_secret),
        cmocka_unit_test(a_url_and_its_parts_are_one_thing),
        cmocka_unit_test(set_wins_over_parts_of_a_url),
        cmocka_unit_test(auth_follows_from_credentials_when_it_is_not_given),
        cmocka_unit_test(contradictions_are_told),
        cmocka_unit_test(a_public_address_is_allowed_when_it_is_meant),
        cmocka_unit_test(overrides_are_in_the_order_in_which_they_are_asked),
        cmocka_unit_test(retry_on_timeout_takes_timeout_away),
        cmocka_unit_test(what_is_printed_loads_to_the_same),
        cmocka_unit_test(secrets_are_not_printed_and_not_loaded_as_stars),
    };
    return cmocka_run_group_tests_name("config loading", tests, NULL, NULL);
}
