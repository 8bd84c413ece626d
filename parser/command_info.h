/* What a server says of its own commands: COMMAND LIST, COMMAND INFO and
 * COMMAND (redis.md §3, class U). Rows are made of what commands.def lacks:
 * commands of modules, and of servers newer than redial. */
#ifndef PARSER_COMMAND_INFO_H
#define PARSER_COMMAND_INFO_H

#include "parser/commands.h"

enum {
    COMMAND_INFO_NAME_MAX = 64, /* bytes of a name that is believed */
    COMMAND_SPECS_MAX = 4,      /* rules for keys of one command; with more,
                                   its keys are unknown */
    COMMAND_SPEC_WORD_MAX = 24,
};

/* One rule of where keys are, as servers from 7.0 tell it. */
struct key_spec {
    char word[COMMAND_SPEC_WORD_MAX]; /* the keys are behind this word, upper
                                         case; empty: at an argument */
    int16_t from;   /* that argument; or where the word is looked for from,
                        from the end backwards when negative */
    bool numbered;  /* an argument says how many keys there are */
    int16_t last;   /* counted from the first key; from the end when negative */
    int16_t limit;  /* of what is left, keys are the first 1/limit; 0: all */
    int16_t number; /* numbered: that argument, counted from where it begins */
    int16_t first;  /* numbered: the first key, counted likewise */
    int16_t step;   /* from one key to the next */
};

/* A row that a server has told of. row.name is name: copied by
 * command_info_copy(). */
struct command_info {
    struct command row;
    struct key_spec specs[COMMAND_SPECS_MAX]; /* n_specs */
    uint8_t n_specs;
    char name[COMMAND_INFO_NAME_MAX + 1]; /* upper case, "MOD.BOX OPEN" */
};

void command_info_copy(struct command_info *to,
                       const struct command_info *from);
bool command_info_equal(const struct command_info *a,
                        const struct command_info *b);

/* Read the reply to COMMAND or COMMAND INFO, of any version from 2.8: 6, 7 or
 * 10 elements for a command. take is called for each command and subcommand
 * that our own table lacks; info is borrowed for the call. Commands that make
 * no sense are passed over. Returns how many commands the server has told of,
 * or -1 when this is no such reply or memory is short. */
int command_info_read(struct span reply,
                      void (*take)(void *context,
                                   const struct command_info *info),
                      void *context);

/* Read the reply to COMMAND LIST (7.0). take is called for each name, as the
 * server writes it, that is worth asking COMMAND INFO for. Returns how many
 * names there are, or -1 as above. */
int command_list_read(struct span reply,
                      void (*take)(void *context, struct span name),
                      void *context);

/* Whether it is worth asking what was learnt of a command: there is no row, or
 * it stands for subcommands that the table lacks, or lacks the keys. */
static inline bool command_is_lacking(const struct command *c)
{
    return c == NULL ||
           (c->flags & (COMMAND_CONTAINER | COMMAND_ASK_KEYS)) != 0;
}

/* For commands.c: command_keys() and command_first_key() by the rules above. */
int command_info_keys(const struct command_info *info,
                      const struct span *argv,
                      size_t argc,
                      uint32_t *index,
                      size_t max);
uint32_t command_info_first_key(const struct command_info *info,
                                const struct span *argv,
                                size_t argc);

#endif
