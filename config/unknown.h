/* Names of sections and keys that are not known, and what may be meant. */
#ifndef CONFIG_UNKNOWN_H
#define CONFIG_UNKNOWN_H

#include <stddef.h>

#include "config/config.h"
#include "config/option.h"

/* Report a key that a section of this kind does not have: it belongs to
 * another section, to a later version, or is misspelt. */
void unknown_key(struct config_problems *problems,
                 enum section_kind kind,
                 const char *key,
                 const char *place);

/* Report a kind of section that there is not. */
void unknown_section(struct config_problems *problems,
                     const char *name,
                     size_t len,
                     const char *place);

#endif
