/* Build-time tool: print the hash table of commands.def as C. */
#include <stdio.h>
#include <stdlib.h>

#include "parser/command_table.h"

static const char *const names[] = {
#define COMMAND(name, ...) name,
#include "parser/commands.def"
};

enum {
    NAMES = sizeof names / sizeof names[0]
};

/* The row of the container of a subcommand, plus one. */
static uint32_t container_of(const char *name, size_t len)
{
    for (uint32_t i = 0; i < NAMES; i++) {
        if (strlen(names[i]) == len && memcmp(names[i], name, len) == 0) {
            return i + 1;
        }
    }
    fprintf(stderr, "commands.def: no container row for %s\n", name);
    exit(EXIT_FAILURE);
}

static struct command_key key_of(const char *name)
{
    const char *space = strchr(name, ' ');
    uint32_t container = 0;

    if (space != NULL) {
        container = container_of(name, (size_t)(space - name));
        name = space + 1;
    }
    if (strlen(name) > COMMAND_NAME_MAX) {
        fprintf(stderr, "commands.def: %s is too long\n", name);
        exit(EXIT_FAILURE);
    }
    return command_key(span_of(name), container);
}

/* Put a row into the first free slot from where the search begins. */
static void place(uint16_t *slots, const struct command_key *keys, uint32_t row)
{
    uint32_t slot = command_slot(&keys[row]);

    while (slots[slot] != 0) {
        const struct command_key *other = &keys[slots[slot] - 1];
        if (other->tag == keys[row].tag &&
            memcmp(other->word, keys[row].word, sizeof other->word) == 0) {
            fprintf(stderr, "commands.def: %s twice\n", names[row]);
            exit(EXIT_FAILURE);
        }
        slot = (slot + 1) % COMMAND_SLOTS;
    }
    slots[slot] = (uint16_t)(row + 1);
}

int main(void)
{
    static struct command_key keys[NAMES];
    static uint16_t slots[COMMAND_SLOTS];

    for (uint32_t i = 0; i < NAMES; i++) {
        keys[i] = key_of(names[i]);
        place(slots, keys, i);
    }
    printf("/* Made from commands.def by command_slots.c. */\n");
    printf("static const struct command_key keys[] = {\n");
    for (uint32_t i = 0; i < NAMES; i++) {
        printf("    { { 0x%llxu, 0x%llxu, 0x%llxu }, 0x%x },\n",
               (unsigned long long)keys[i].word[0],
               (unsigned long long)keys[i].word[1],
               (unsigned long long)keys[i].word[2], (unsigned)keys[i].tag);
    }
    printf("};\n\n/* A row plus one, or 0. */\n");
    printf("static const uint16_t slots[COMMAND_SLOTS] = {");
    for (uint32_t i = 0; i < COMMAND_SLOTS; i++) {
        printf("%s%u,", i % 16 == 0 ? "\n    " : " ", (unsigned)slots[i]);
    }
    printf("\n};\n");
    return EXIT_SUCCESS;
}
