/* Memory for texts that live as long as one load, freed in one go. */
#ifndef CONFIG_ARENA_H
#define CONFIG_ARENA_H

#include <stddef.h>

/* Start with { 0 }. */
struct arena {
    struct arena_piece *pieces; /* owned */
};

/* Memory set to zero; NULL when there is none. */
void *arena_get(struct arena *a, size_t size);
/* A copy with a final NUL; NULL when there is no memory. */
char *arena_copy(struct arena *a, const char *text, size_t len);
void arena_fini(struct arena *a);

/* A copy that the caller frees; NULL when there is no memory. */
char *text_copy(const char *text, size_t len);

#endif
