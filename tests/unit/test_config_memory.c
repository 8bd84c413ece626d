/* Loading without memory: every allocation may fail, and nothing leaks. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "config_loading.h"

/* The linker sends every call of malloc(), calloc() and realloc() here. */
/* NOLINTBEGIN(bugprone-reserved-identifier,readability-identifier-naming) */
void *__real_malloc(size_t size);
void *__real_calloc(size_t count, size_t size);
void *__real_realloc(void *old, size_t size);
void *__wrap_malloc(size_t size);
void *__wrap_calloc(size_t count, size_t size);
void *__wrap_realloc(void *old, size_t size);

static struct {
    size_t calls;
    size_t fail_from; /* the number of the first call that fails */
    size_t fail_count;
} plan;

static bool fails(void)
{
    size_t call = plan.calls++;
    return call >= plan.fail_from && call - plan.fail_from < plan.fail_count;
}

void *__wrap_malloc(size_t size)
{
    return fails() ? NULL : __real_malloc(size);
}

void *__wrap_calloc(size_t count, size_t size)
{
    return fails() ? NULL : __real_calloc(count, size);
}

void *__wrap_realloc(void *old, size_t size)
{
    return fails() ? NULL : __real_realloc(old, size);
}

/* NOLINTEND(bugprone-reserved-identifier,readability-identifier-naming) */

static const char good_file[] = "[admin]\naddress = 127.0.0.1:1\n"
                                "[listener a]\naddress = /a\nupstream = u\n"
                                "username = ${HOST}\npassword = x\n"
                                "[upstream u]\nurl = redis://a:b@h:1/2\n"
                                "replay.INCR = all\nreplay.prefix.x = none\n"
                                "[upstream s]\nurl = redis+sentinel://a:b@c,d"
                                "/m?sentinel_username=e&sentinel_password=f\n"
                                "zone = z\nnode_zones = c=z, d:1=y\n"
                                "[upstream c]\ntype = cluster\nnodes = a\n"
                                "nodes = b\nallow_nodes = 10.0.0.0/8, *.x.y\n"
                                "[grpc]\nno_retry_methods = /a/b, /c/d\n"
                                "keepalive_time = 1s\nauthority = pass\n"
                                "[listener default]\nprotocol = auto\n"
                                "upstream = u\ngrpc_upstream = g\n"
                                "[upstream g]\ntype = grpc\n"
                                "target = ipv4:127.0.0.1:1,127.0.0.1:2\n"
                                "idempotent_methods = /a/b\n"
                                "service_config = /s.json\n"
                                "[upstream g2]\nurl = grpc://a:1,b:1\n"
                                "service_config = /s.json\n"
                                "[upstream default]\naddress = h:2\n"
                                "password = ${file:/secret}\n";

/* A service config, with something to be warned of. */
static const char good_json[] =
    "{\"methodConfig\":[{\"name\":[{},{\"service\":\"a\"},{\"service\":\"a\","
    "\"method\":\"b\"}],\"retryPolicy\":{\"maxAttempts\":9,\"initialBackoff\":"
    "\"1s\",\"maxBackoff\":\"1s\",\"backoffMultiplier\":2,"
    "\"retryableStatusCodes\":[13]}}]}";
static const char bad_json[] =
    "{\"methodConfig\":[{\"name\":[{},{\"service\":\"a\"},{\"service\":\"a\"}],"
    "\"timeout\":1,\"retryPolicy\":{\"maxAttempts\":9}}]}";

static char *file_of(void *context, const char *path)
{
    if (strcmp(path, "/s.json") == 0) {
        return loaded_copy(good_json);
    }
    return strcmp(path, "/bad.json") == 0 ? loaded_copy(bad_json)
                                          : loaded_file(context, path);
}

static const char bad_file[] = "[listener a\n[admin]\naddres = x\n"
                               "[upstream u]\nretries = many\n"
                               "password = ${file:/none}\n"
                               "[upstream c]\ntype = cluster\n"
                               "nodes = a, a, unix:/b\nallow_nodes = a/b\n"
                               "address = a:1\nnode_zones = a=b, a=c, d=\n"
                               "[grpc]\nlb = x\ntls = yes\n"
                               "[upstream g]\nurl = grpc://a:1\n"
                               "target = dns:h\nno_retry_methods = a\n"
                               "service_config = /bad.json\n"
                               "[upstream g2]\nurl = grpc://a:1\n"
                               "service_config = /bad.json\n"
                               "[listener g]\nprotocol = grpc\n"
                               "upstream = u\n";

/* Load with some allocations failing. Returns whether it went well, and the
 * number of allocations asked for. */
static bool load(const char *text, size_t from, size_t count, size_t *calls)
{
    static const char *const sets[] = { "upstream.u.deadline=3s",
                                        "upstream.replay.GET=all" };
    struct config_source source = loaded_source(text);
    struct config_problems p = { 0 };
    source.read_file = file_of;
    source.url = "redis://x:y@z";
    source.listen = "127.0.0.1:2";
    source.admin = "127.0.0.1:3";
    source.sets = sets;
    source.n_sets = 2;

    plan.calls = 0;
    plan.fail_from = from;
    plan.fail_count = count;
    struct config *c = config_load(&source, &p);
    plan.fail_count = 0;
    *calls = plan.calls;

    bool done = c != NULL;
    assert_true(done == (p.n == 0));
    for (size_t i = 0; i < p.n; i++) {
        assert_true(strlen(p.list[i].place) > 0);
        assert_true(strlen(p.list[i].text) > 0);
    }
    config_problems_fini(&p);
    config_free(c);
    return done;
}

static void each_allocation_may_fail_alone(void **state)
{
    (void)state;
    size_t total = 0;
    size_t calls = 0;
    assert_true(load(good_file, SIZE_MAX, 0, &total));
    assert_true(total > 50);
    for (size_t i = 0; i < total; i++) {
        assert_false(load(good_file, i, 1, &calls));
    }
    assert_true(load(good_file, total, 1, &calls));
}

static void all_allocations_may_fail_from_any_point_on(void **state)
{
    (void)state;
    size_t total = 0;
    size_t calls = 0;
    assert_true(load(good_file, SIZE_MAX, 0, &total));
    for (size_t i = 0; i < total; i++) {
        assert_false(load(good_file, i, SIZE_MAX, &calls));
    }
}

static void problems_may_find_no_memory_either(void **state)
{
    (void)state;
    size_t total = 0;
    size_t calls = 0;
    assert_false(load(bad_file, SIZE_MAX, 0, &total));
    for (size_t i = 0; i < total; i++) {
        assert_false(load(bad_file, i, 1, &calls));
        assert_false(load(bad_file, i, SIZE_MAX, &calls));
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(each_allocation_may_fail_alone),
        cmocka_unit_test(all_allocations_may_fail_from_any_point_on),
        cmocka_unit_test(problems_may_find_no_memory_either),
    };
    return cmocka_run_group_tests_name("config memory", tests, NULL, NULL);
}
