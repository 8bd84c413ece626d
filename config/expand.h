/* References in values: ${NAME} and ${file:/path}. */
#ifndef CONFIG_EXPAND_H
#define CONFIG_EXPAND_H

#include "config/config.h"

/* Replace the references of text ("$${" stands for "${"). Returns malloc'd
 * text, or NULL after telling the problem. */
char *expand_references(const char *text,
                        const struct config_source *source,
                        const char *place,
                        struct config_problems *problems);

#endif
