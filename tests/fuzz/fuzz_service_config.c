/* Byte soup as a service config: it is taken or refused whole, and what is
 * taken keeps every rule. The first byte chooses the mode and the cap. The
 * document is loaded by itself and as the file of an upstream, which has to
 * come to the same. */
#include "config/config.h"
#include "config/service_config.h"
#include "fuzz.h"

enum {
    INPUT_MAX = 8192,
    ALL_CODES = (1 << 17) - 2 /* but OK */
};

static void require_words(const struct config_problems *p)
{
    for (size_t i = 0; i < p->n; i++) {
        REQUIRE(p->list[i].place[0] == 'f' && p->list[i].text[0] != '\0');
        REQUIRE(strpbrk(p->list[i].place, "\r\n") == NULL);
        REQUIRE(strpbrk(p->list[i].text, "\r\n") == NULL);
    }
}

static void require_policy(const struct service_policy *p, uint32_t cap)
{
    bool retries = p->has_retry && !p->hedging;
    REQUIRE(retries || p->max_attempts == 0);
    REQUIRE(!retries || (p->max_attempts >= 2 && p->max_attempts <= cap));
    REQUIRE(!retries || (p->initial_backoff_us > 0 && p->max_backoff_us > 0));
    REQUIRE(!retries || p->multiplier > 0);
    REQUIRE(!retries ||
            (p->codes != 0 && (p->codes & ~(uint32_t)ALL_CODES) == 0));
    REQUIRE(p->timeout_us == GRPC_NO_LIMIT ||
            p->timeout_us <= 315576000000000000);
    REQUIRE(p->request_message_max == GRPC_NO_LIMIT ||
            p->request_message_max <= UINT32_MAX);
}

static bool same(const char *a, const char *b)
{
    return a == NULL || b == NULL ? a == b : strcmp(a, b) == 0;
}

/* Each name is there once. */
static void require_name(const struct service_config *c, size_t i)
{
    const struct service_method *m = &c->methods[i];
    REQUIRE(m->service == NULL || m->service[0] != '\0');
    REQUIRE(m->method == NULL || (m->method[0] != '\0' && m->service != NULL));
    for (size_t k = 0; k < i; k++) {
        REQUIRE(!same(m->service, c->methods[k].service) ||
                !same(m->method, c->methods[k].method));
    }
}

static void require_config(const struct service_config *c, uint32_t cap)
{
    for (size_t i = 0; i < c->n_methods; i++) {
        require_name(c, i);
        require_policy(&c->methods[i].policy, cap);
    }
    REQUIRE(!c->has_throttle || (c->throttle_max_millitokens >= 1 &&
                                 c->throttle_max_millitokens <= 1000000 &&
                                 c->throttle_ratio_millitokens >= 1));
    REQUIRE(c->lb_choices == 0 || (c->lb_choices >= 2 && c->lb_choices <= 10));
    REQUIRE(c->max_connections_per_endpoint <= 10);
}

/* The only file there is. */
struct file {
    const char *text;
};

static char *read_file(void *context, const char *path)
{
    const struct file *file = context;
    (void)path;
    size_t size = strlen(file->text) + 1;
    char *copy = malloc(size);
    REQUIRE(copy != NULL);
    memcpy(copy, file->text, size);
    return copy;
}

/* Each method is found, and is what the document says. */
static void require_found(const struct config *loaded,
                          const struct service_config *c)
{
    const struct grpc_config *g = &loaded->upstreams[0].grpc;
    size_t others = 0;
    for (size_t i = 0; i < c->n_methods; i++) {
        others += c->methods[i].service == NULL ? 1 : 0;
    }
    REQUIRE(others <= 1 && g->n_methods == c->n_methods - others);
    for (size_t i = 0; i < g->n_methods; i++) {
        struct grpc_method_view view;
        const char *path = g->methods[i].path;
        REQUIRE(i == 0 ||
                g->methods[i - 1].path_hash <= g->methods[i].path_hash);
        grpc_method_find(g, span_of(path), &view);
        /* Names may hold slashes, and then two of them one path. */
        REQUIRE(view.label != GRPC_LABEL_OTHER);
        REQUIRE(strcmp(g->methods[view.label - 1].path, path) == 0);
    }
}

static void load_whole(const char *text,
                       bool gapic,
                       uint32_t cap,
                       const struct service_config *expected)
{
    struct file file = { .text = text };
    char cap_set[] = "upstream.max_attempts_cap=00";
    const char *const sets[] = { "upstream.service_config=f", cap_set,
                                 gapic
                                     ? "upstream.service_config_mode=gapic"
                                     : "upstream.service_config_mode=strict" };
    cap_set[sizeof(cap_set) - 3] = (char)('0' + cap / 10);
    cap_set[sizeof(cap_set) - 2] = (char)('0' + cap % 10);
    struct config_source source = { .url = "grpc://h:1",
                                    .sets = sets,
                                    .n_sets = 3,
                                    .read_file = read_file,
                                    .context = &file };
    struct config_problems p = { 0 };
    struct config *c = config_load(&source, &p);
    REQUIRE((c != NULL) == (expected != NULL));
    if (c != NULL) {
        require_found(c, expected);
    }
    config_problems_fini(&p);
    config_free(c);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    if (size < 1 || size > INPUT_MAX) {
        return 0;
    }
    bool gapic = (data[0] & 1) != 0;
    uint32_t cap = 2 + data[0] / 2 % 98;
    size_t len = size - 1;
    char *text = malloc(len + 1);
    REQUIRE(text != NULL);
    memcpy(text, data + 1, len);
    text[len] = '\0';

    struct config_problems problems = { 0 };
    struct config_problems warnings = { 0 };
    struct service_config c;
    struct service_config_rules rules = { .file = "f",
                                          .gapic = gapic,
                                          .max_attempts_cap = cap,
                                          .problems = &problems,
                                          .warnings = &warnings };
    bool good = service_config_read(text, len, &rules, &c);
    REQUIRE(good == (problems.n == 0));
    require_words(&problems);
    require_words(&warnings);
    if (good) {
        require_config(&c, cap);
    } else {
        REQUIRE(c.methods == NULL && c.n_methods == 0);
    }
    if (strlen(text) == len) {
        load_whole(text, gapic, cap, good ? &c : NULL);
    }
    service_config_fini(&c);
    config_problems_fini(&problems);
    config_problems_fini(&warnings);
    free(text);
    return 0;
}
