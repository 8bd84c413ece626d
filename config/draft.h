/* What the file and the command line say, before any value is understood. */
#ifndef CONFIG_DRAFT_H
#define CONFIG_DRAFT_H

#include <stdbool.h>
#include <stddef.h>

#include "config/arena.h"
#include "config/config.h"
#include "config/option.h"

/* Later layers win over earlier ones. */
enum layer {
    LAYER_FILE,
    LAYER_ARGUMENT, /* the URL, --listen and --admin */
    LAYER_SET       /* --set */
};

/* All strings belong to the draft's arena. */
struct draft_entry {
    struct draft_entry *next;
    const struct option *option;
    const char *key;   /* as the option spells it; "replay.INCR" */
    const char *value; /* as written: before ${NAME} is replaced */
    const char *place;
    enum layer layer;
};

struct draft_section {
    struct draft_section *next;
    enum section_kind kind;
    const char *name; /* "" for sections without a name */
    const char *place;
    enum layer layer;
    struct draft_entry *entries;
};

struct draft {
    struct arena arena;
    struct draft_section *sections;     /* in the order of appearance */
    const struct config_source *source; /* borrowed */
    struct config_problems *problems;   /* borrowed */
};

/* Gather everything. Problems go to problems. */
void draft_init(struct draft *d,
                const struct config_source *source,
                struct config_problems *problems);
void draft_fini(struct draft *d);

const struct draft_section *draft_find_section(const struct draft *d,
                                               enum section_kind kind,
                                               const char *name);
/* The same for a section that is there. */
const struct draft_section *draft_section_of(const struct draft *d,
                                             enum section_kind kind,
                                             const char *name);
const struct draft_entry *draft_find(const struct draft_section *section,
                                     const char *key);
/* Where to send people who ask for a key: its place, else the section's. */
const char *draft_place(const struct draft_section *section, const char *key);

#endif
