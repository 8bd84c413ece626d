#include "config/problem.h"

#include <assert.h>
#include <ctype.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static const char no_memory_text[] = "out of memory";

/* Names and values come from outside; a problem is one line all the same. */
static void keep_one_line(char *text)
{
    for (; *text != '\0'; text++) {
        if ((unsigned char)*text < 0x20 || *text == 0x7f) {
            *text = '?';
        }
    }
}

static void set_problem(struct config_problem *problem,
                        const char *place,
                        const char *text)
{
    size_t place_size = strlen(place) + 1;
    size_t text_size = strlen(text) + 1;
    char *memory = malloc(place_size + text_size);
    if (memory == NULL) {
        *problem = (struct config_problem){ .place = "memory",
                                            .text = no_memory_text };
        return;
    }
    memcpy(memory, place, place_size);
    memcpy(memory + place_size, text, text_size);
    keep_one_line(memory);
    keep_one_line(memory + place_size);
    *problem = (struct config_problem){ .place = memory,
                                        .text = memory + place_size,
                                        .memory = memory };
}

void problem_add(struct config_problems *p,
                 const char *place,
                 const char *format,
                 ...)
{
    if (p->n == CONFIG_PROBLEMS_MAX) {
        return;
    }
    if (p->n == CONFIG_PROBLEMS_MAX - 1) {
        set_problem(&p->list[p->n++], place,
                    "here and behind are more problems; solve those above "
                    "first");
        return;
    }
    char text[PROBLEM_TEXT_MAX];
    va_list arguments;
    va_start(arguments, format);
    int length = vsnprintf(text, sizeof(text), format, arguments);
    va_end(arguments);
    assert(length >= 0);
    (void)length;
    set_problem(&p->list[p->n++], place, text);
}

void problem_no_memory(struct config_problems *p)
{
    for (size_t i = 0; i < p->n; i++) {
        if (p->list[i].text == no_memory_text) {
            return;
        }
    }
    /* The last place is taken when need be: this problem explains others. */
    size_t at = p->n < CONFIG_PROBLEMS_MAX ? p->n++ : CONFIG_PROBLEMS_MAX - 1;
    free(p->list[at].memory);
    p->list[at] =
        (struct config_problem){ .place = "memory", .text = no_memory_text };
}

bool problems_lack_memory(const struct config_problems *p)
{
    for (size_t i = 0; i < p->n; i++) {
        if (p->list[i].memory == NULL) {
            return true;
        }
    }
    return false;
}

void config_problems_fini(struct config_problems *p)
{
    for (size_t i = 0; i < p->n; i++) {
        free(p->list[i].memory);
    }
    *p = (struct config_problems){ 0 };
}

enum {
    SUGGESTION_WORD_MAX = 40
};

static int lower(char c)
{
    return tolower((unsigned char)c);
}

static size_t least(size_t a, size_t b)
{
    return a < b ? a : b;
}

/* Letters to insert, remove, change or swap with their neighbour to get from a
 * to b; case does not count. */
static size_t distance(const char *a, size_t a_len, const char *b, size_t b_len)
{
    size_t rows[3][SUGGESTION_WORD_MAX + 1];
    assert(a_len <= SUGGESTION_WORD_MAX && b_len <= SUGGESTION_WORD_MAX);

    for (size_t j = 0; j <= b_len; j++) {
        rows[0][j] = j;
    }
    for (size_t i = 1; i <= a_len; i++) {
        size_t *row = rows[i % 3];
        const size_t *above = rows[(i - 1) % 3];
        row[0] = i;
        for (size_t j = 1; j <= b_len; j++) {
            bool same = lower(a[i - 1]) == lower(b[j - 1]);
            size_t cost = least(above[j], row[j - 1]) + 1;
            cost = least(cost, above[j - 1] + (same ? 0 : 1));
            if (i > 1 && j > 1 && lower(a[i - 1]) == lower(b[j - 2]) &&
                lower(a[i - 2]) == lower(b[j - 1])) {
                cost = least(cost, rows[(i - 2) % 3][j - 2] + 1);
            }
            row[j] = cost;
        }
    }
    return rows[a_len % 3][b_len];
}

void suggestion_init(struct suggestion *s, const char *wanted, size_t len)
{
    *s = (struct suggestion){ .wanted = wanted, .wanted_len = len };
}

void suggestion_offer(struct suggestion *s, const char *word)
{
    size_t len = strlen(word);
    if (s->wanted_len == 0 || s->wanted_len > SUGGESTION_WORD_MAX ||
        len > SUGGESTION_WORD_MAX) {
        return;
    }
    size_t cost = distance(s->wanted, s->wanted_len, word, len);
    size_t limit = len < 4 ? 1 : len / 3 + 1;
    if (cost > limit || (s->best != NULL && cost >= s->best_cost)) {
        return;
    }
    s->best = word;
    s->best_cost = cost;
}

void suggestion_format(const struct suggestion *s, char *text)
{
    text[0] = '\0';
    if (s->best != NULL) {
        (void)snprintf(text, SUGGESTION_TEXT_MAX, "; did you mean '%.*s'?",
                       SUGGESTION_WORD_MAX, s->best);
    }
}
