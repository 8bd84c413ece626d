#include "config/service_names.h"

#include <stdlib.h>
#include <string.h>

#include "config/problem.h"

static int compare_parts(const char *a, const char *b)
{
    return strcmp(a != NULL ? a : "", b != NULL ? b : "");
}

static int compare_names(const struct service_method *a,
                         const struct service_method *b)
{
    int order = compare_parts(a->service, b->service);
    return order != 0 ? order : compare_parts(a->method, b->method);
}

/* By name; equal ones in the order of the document, which is that of their
 * addresses. */
static int compare(const void *left, const void *right)
{
    const struct service_method *a =
        *(const struct service_method *const *)left;
    const struct service_method *b =
        *(const struct service_method *const *)right;
    int order = compare_names(a, b);
    if (order == 0) {
        order = (a > b) - (a < b);
    }
    return order;
}

static void report(const struct service_method *m,
                   const struct service_method *first,
                   const struct service_config_rules *rules)
{
    problem_add(rules->problems, rules->file,
                "methodConfig[%zu].name[%zu]: duplicate name \"%s%.200s%s%.200s"
                "\", first used in methodConfig[%zu]",
                m->place.entry, m->place.name, m->service != NULL ? "/" : "",
                m->service != NULL ? m->service : "{}",
                m->service != NULL ? "/" : "",
                m->method != NULL ? m->method : "", first->place.entry);
}

bool service_names_check(const struct service_config *c,
                         const struct service_config_rules *rules)
{
    bool good = true;
    size_t first = 0;
    const struct service_method **sorted =
        malloc((c->n_methods + 1) * sizeof(*sorted));
    if (sorted == NULL) {
        problem_no_memory(rules->problems);
        return false;
    }
    for (size_t i = 0; i < c->n_methods; i++) {
        sorted[i] = &c->methods[i];
    }
    qsort(sorted, c->n_methods, sizeof(*sorted), compare);
    for (size_t i = 1; i < c->n_methods; i++) {
        if (compare_names(sorted[first], sorted[i]) != 0) {
            first = i;
            continue;
        }
        report(sorted[i], sorted[first], rules);
        good = false;
    }
    free(sorted);
    return good;
}
