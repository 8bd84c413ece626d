#include "config/grpc_config.h"

#include <string.h>

/* FNV-1a. */
static const uint32_t hash_start = 2166136261u;

static uint32_t hash_on(uint32_t hash, struct span text)
{
    for (size_t i = 0; i < text.len; i++) {
        hash = (hash ^ text.data[i]) * 16777619u;
    }
    return hash;
}

uint32_t grpc_method_hash(struct span path)
{
    return hash_on(hash_start, path);
}

/* The number of the method with this path, or n_methods. */
static size_t find_path(const struct grpc_config *c,
                        struct span path,
                        uint32_t hash)
{
    size_t low = 0;
    size_t high = c->n_methods;
    while (low < high) {
        size_t middle = low + (high - low) / 2;
        if (c->methods[middle].path_hash < hash) {
            low = middle + 1;
        } else {
            high = middle;
        }
    }
    for (; low < c->n_methods && c->methods[low].path_hash == hash; low++) {
        if (span_equal(span_of(c->methods[low].path), path)) {
            return low;
        }
    }
    return c->n_methods;
}

/* "/pkg.Svc/" of "/pkg.Svc/Method". */
static struct span service_of(struct span path)
{
    while (path.len > 0 && path.data[path.len - 1] != '/') {
        path.len--;
    }
    return path;
}

/* The number of the entry for a method, or n_methods. */
static size_t find_method(const struct grpc_config *c, struct span path)
{
    struct span service = service_of(path);
    struct span rest = { path.data + service.len, path.len - service.len };
    uint32_t service_hash = grpc_method_hash(service);
    size_t found = find_path(c, path, hash_on(service_hash, rest));
    return found < c->n_methods ? found : find_path(c, service, service_hash);
}

static bool matches_any(const struct grpc_glob *globs,
                        size_t n,
                        struct span path)
{
    for (size_t i = 0; i < n; i++) {
        if (grpc_glob_matches(globs[i].text, path)) {
            return true;
        }
    }
    return false;
}

void grpc_method_find(const struct grpc_config *c,
                      struct span path,
                      struct grpc_method_view *out)
{
    *out = (struct grpc_method_view){ .policy = &c->others,
                                      .label = GRPC_LABEL_OTHER };
    if (c->n_methods > 0) {
        size_t i = find_method(c, path);
        if (i < c->n_methods) {
            out->policy = &c->methods[i].policy;
            out->label = (uint32_t)i + 1;
        }
    }
    out->safe =
        matches_any(c->idempotent_methods, c->n_idempotent_methods, path);
    out->no_retry =
        matches_any(c->no_retry_methods, c->n_no_retry_methods, path);
}

bool grpc_glob_is_valid(struct span text)
{
    size_t service = service_of(text).len;
    if (text.len < 4 || text.data[0] != '/' || text.data[1] == '/' ||
        service < 3 || service == text.len) {
        return false;
    }
    for (size_t i = 0; i < text.len; i++) {
        if (text.data[i] <= ' ' || text.data[i] >= 0x7f) {
            return false;
        }
    }
    return true;
}

/* A '*' stops at '/', so a literal with a '/' fits in one place only, and of
 * the others the first place leaves most room: no earlier '*' has to be tried
 * again. */
bool grpc_glob_matches(const char *glob, struct span path)
{
    const char *star = NULL; /* the last one, and where its bytes end */
    size_t star_end = 0;
    size_t i = 0;
    while (i < path.len) {
        if (*glob == '*') {
            star = glob++;
            star_end = i;
        } else if (*glob != '\0' && *glob == (char)path.data[i]) {
            glob++;
            i++;
        } else if (star != NULL && path.data[star_end] != '/') {
            glob = star + 1;
            i = ++star_end;
        } else {
            return false;
        }
    }
    while (*glob == '*') {
        glob++;
    }
    return *glob == '\0';
}
