/* Collecting problems, and finding the word that was meant. */
#ifndef CONFIG_PROBLEM_H
#define CONFIG_PROBLEM_H

#include <stdbool.h>
#include <stddef.h>

#include "config/config.h"

enum {
    PROBLEM_TEXT_MAX = 1024
};

/* Add a problem; longer texts are cut. Never fails: without memory the problem
 * becomes "out of memory". */
void problem_add(struct config_problems *p,
                 const char *place,
                 const char *format,
                 ...) __attribute__((format(printf, 3, 4)));
void problem_no_memory(struct config_problems *p);
bool problems_lack_memory(const struct config_problems *p);

/* The best of some words for one that is not known. All borrowed. */
struct suggestion {
    const char *wanted;
    size_t wanted_len;
    const char *best; /* NULL: nothing is near */
    size_t best_cost;
};

void suggestion_init(struct suggestion *s, const char *wanted, size_t len);
void suggestion_offer(struct suggestion *s, const char *word);

enum {
    SUGGESTION_TEXT_MAX = 96
};
/* Write "; did you mean 'word'?", or nothing. text has SUGGESTION_TEXT_MAX
 * bytes. */
void suggestion_format(const struct suggestion *s, char *text);

#endif
