/* Commands of redial's own making. */
#ifndef CORE_WORDS_H
#define CORE_WORDS_H

#include "parser/span.h"
#include "proxy/core/buf.h"

/* The words as a multibulk command: a new buffer, the caller's, or NULL without
 * memory. */
struct buf *words_pack(struct memory *m, const struct span *words, size_t n);

#endif
